"""Scores of trained networks on composed trials: detection as spikes, embeddings as units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from torch import nn

from spikeinterface_simsort.peaks import EDGE_SHARE, find_peaks, match_spikes
from spikeinterface_simsort.training.data import DetectionWindows, SpikeWaveforms
from spikeinterface_simsort.training.targets import IGNORED_SNR

# Distances of the sorter's own peaks, see `SimSortParams.exclude_ms`.
_EXCLUDE_MS = 0.4
THRESHOLDS = tuple(np.round(np.arange(0.1, 0.95, 0.05), 2).tolist())


@dataclass(frozen=True)
class DetectionScores:
    """How well spikes are found at one threshold, all trials together.

    Attributes
    ----------
    threshold : float
        Least probability of a spike.
    accuracy, recall, precision : float
        Between 0 and 1.
    """

    threshold: float
    accuracy: float
    recall: float
    precision: float


def detection_scores(
    network: nn.Module, data: DetectionWindows, *, thresholds: Sequence[float] = THRESHOLDS, delta_ms: float = 1.0
) -> list[DetectionScores]:
    """Score a detector on trials as spikes, at several thresholds.

    The edges of windows, which the sorter discards, are left out, as are detections of spikes that are neither noise
    nor large enough to be asked for.

    Parameters
    ----------
    network : torch.nn.Module
        [num_windows, window_samples, num_channels] -> logits [num_windows, window_samples].
    data : DetectionWindows
        Trials.
    thresholds : sequence of float
        To be compared.
    delta_ms : float
        Largest distance of a detection from its spike.

    Returns
    -------
    list of DetectionScores
        One a threshold.
    """
    rate = data.sampling_frequency
    delta, exclude = delta_ms * rate / 1000, max(round(_EXCLUDE_MS * rate / 1000), 1)
    edge = int(data.window_samples * EDGE_SHARE)
    counts = np.zeros((len(thresholds), len(data), 3))
    for index in range(len(data)):
        trial, _ = data.prepared(index)
        windows = torch.from_numpy(trial.traces.reshape(-1, data.window_samples, trial.traces.shape[1]))
        with torch.inference_mode():
            probability = torch.sigmoid(network(windows)).numpy()
        snr = trial.unit_snr[trial.spike_labels]
        asked = _inner(trial.spike_samples[snr >= IGNORED_SNR[1]], data.window_samples, edge)
        ignored = trial.spike_samples[(snr > IGNORED_SNR[0]) & (snr < IGNORED_SNR[1])]
        for row, threshold in enumerate(thresholds):
            peaks = [find_peaks(window, threshold=threshold, exclude_samples=exclude) for window in probability]
            found = np.concatenate([peak + i * data.window_samples for i, peak in enumerate(peaks)])
            found = _inner(found.astype("float64"), data.window_samples, edge)
            matched, _ = match_spikes(found, asked, delta=delta)
            others = np.delete(found, matched)
            others = np.delete(others, match_spikes(others, ignored, delta=delta)[0])
            counts[row, index] = len(matched), len(asked), len(matched) + len(others)
    # Pooled, as some of these short trials have hardly a spike.
    hits, asked_for, made = counts.sum(axis=1).T
    return [
        DetectionScores(
            threshold=threshold,
            accuracy=float(hit / max(num_asked + num_made - hit, 1)),
            recall=float(hit / max(num_asked, 1)),
            precision=float(hit / max(num_made, 1)),
        )
        for threshold, hit, num_asked, num_made in zip(thresholds, hits, asked_for, made, strict=True)
    ]


def _inner(times: np.ndarray, window_samples: int, edge: int) -> np.ndarray:
    """Those that do not lie at the edges of their windows, in order."""
    within = times % window_samples
    return np.sort(times[(within >= edge) & (within < window_samples - edge)])


def mixture_ari(features: np.ndarray, labels: np.ndarray, *, num_starts: int = 10, seed: int = 0) -> float:
    """Adjusted Rand index of a Gaussian mixture that is told the number of units.

    Parameters
    ----------
    features : np.ndarray, [num_spikes, num_features]
        Of spikes.
    labels : np.ndarray, int [num_spikes]
        Their units.
    num_starts : int
        Of the mixture, the best of which counts.
    seed : int
        Of the mixture.

    Returns
    -------
    float
    """
    mixture = GaussianMixture(len(np.unique(labels)), n_init=num_starts, reg_covar=1e-3, random_state=seed)
    return float(adjusted_rand_score(labels, mixture.fit_predict(features)))


def embedding_scores(network: nn.Module, data: SpikeWaveforms, *, num_axes: int = 8) -> dict[str, float]:
    """Mean `mixture_ari` of embeddings, and of principal components of the same waveforms.

    Parameters
    ----------
    network : torch.nn.Module
        [num_spikes, num_samples, num_channels] -> [num_spikes, embedding_dim].
    data : SpikeWaveforms
        Trials; those with fewer than two units are left out.
    num_axes : int
        Principal components of either.

    Returns
    -------
    dict
        ``embedding`` and ``pca``; NaN where no trial has two units.
    """
    scores: dict[str, list[float]] = {"embedding": [], "pca": []}
    for index in range(len(data)):
        waveforms, labels = data[index]
        if len(torch.unique(labels)) < 2:
            continue
        with torch.inference_mode():
            features = {"embedding": network(waveforms).numpy(), "pca": waveforms.flatten(1).numpy()}
        for name, feature in features.items():
            reduced = PCA(min(num_axes, *feature.shape), random_state=0).fit_transform(feature)
            scores[name].append(mixture_ari(reduced, labels.numpy(), num_starts=3))
    return {name: float(np.mean(values)) if values else float("nan") for name, values in scores.items()}
