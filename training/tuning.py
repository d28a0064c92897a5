"""How released networks are trained further: gently, and so that distances keep their meaning."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from torch import nn

from spikeinterface_simsort.models import PerceptronEmbedder


def embed(embedder: nn.Module, waveforms: np.ndarray) -> np.ndarray:
    """Embed waveforms, [num_spikes, num_samples, num_channels] -> float64 [num_spikes, embedding_dim]."""
    device = next(embedder.parameters()).device
    with torch.inference_mode():
        batches = [embedder(batch.to(device)).cpu() for batch in torch.from_numpy(waveforms).split(1024)]
    return torch.cat(batches).numpy().astype("float64")


def fit(
    network: nn.Module,
    loss_of_step: Callable[[], torch.Tensor],
    *,
    num_steps: int,
    learning_rate: float,
    seed: int,
    progress: Callable[[], object] | None = None,
) -> None:
    """Train a network: AdamW with a warm-up and a cosine decay.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place.
    loss_of_step : callable
        Gives the loss of the next batch.
    num_steps : int
        How many.
    learning_rate : float
        At its highest.
    seed : int
        Of what torch draws by itself: dropout, triplets.
    progress : callable, optional
        Called after each step.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
    warm_up = max(num_steps // 20, 1)

    def rate(step: int) -> float:
        return min((step + 1) / warm_up, 0.5 * (1.0 + math.cos(math.pi * step / num_steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    network.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(num_steps):
            loss = loss_of_step()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress()
    network.eval()


def match_covariance(embedder: nn.Module, residuals: np.ndarray, *, target: np.ndarray) -> None:
    """Fold a linear map into an embedder, after which residuals have a given covariance.

    Of all such maps the one that moves least (optimal transport between Gaussians). The covariance is shrunk after
    Ledoit and Wolf, as a recording may have fewer spikes than that takes.

    Parameters
    ----------
    embedder : torch.nn.Module
        Changed in place where it is a `PerceptronEmbedder`: no other is calibrated.
    residuals : np.ndarray, float64 [num_spikes, embedding_dim]
        Of its embeddings, with a mean of zero.
    target : np.ndarray, float64 [embedding_dim, embedding_dim]
        The covariance wanted.

    References
    ----------
    Ledoit and Wolf 2004, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivar. Anal. 88.
    """
    if not isinstance(embedder, PerceptronEmbedder) or not np.isfinite(residuals).all():
        return
    covariance = shrunk_covariance(residuals)
    root = _power(covariance, 0.5)
    inverse = _power(covariance, -0.5)
    fold_into(embedder, torch.from_numpy(inverse @ _power(root @ target @ root, 0.5) @ inverse))


def fold_into(embedder: PerceptronEmbedder, transform: torch.Tensor) -> None:
    """Let a linear map follow an embedder, within its last layers.

    Parameters
    ----------
    embedder : PerceptronEmbedder
        Changed in place.
    transform : torch.Tensor, [embedding_dim, embedding_dim]
        The map.
    """
    for layer in (embedder.linear, embedder.perceptron[-1]):
        assert isinstance(layer, nn.Linear)
        with torch.no_grad():
            matrix = transform.to(layer.weight)
            layer.weight.copy_(matrix @ layer.weight)
            layer.bias.copy_(matrix @ layer.bias)


def shrunk_covariance(residuals: np.ndarray) -> np.ndarray:
    """Covariance of residuals [num_spikes, dim] about zero, shrunk so that it can be inverted."""
    covariance, _ = ledoit_wolf(residuals, assume_centered=True)
    return covariance + 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """Power of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0.0) ** exponent) @ vectors.T
