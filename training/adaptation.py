"""Adaptation of the embedder to a lab's own recording, without anybody's labels.

It learns to recognise a spike of the recording after the recording's own noise has been put onto it anew.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from spikeinterface.core import BaseRecording
from torch import nn
from torch.nn import functional

from spikeinterface_simsort.clustering import cluster
from spikeinterface_simsort.compute import choose_device
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.pipeline import detect_and_embed
from spikeinterface_simsort.preprocessing import RecordingError, preprocess
from spikeinterface_simsort.training.own_recording import (
    add_noise,
    check_channels,
    cut_noise,
    cut_waveforms,
    describe_recording,
    split_time,
)
from spikeinterface_simsort.training.tuned_weights import Report, check_folder, save_adapted
from spikeinterface_simsort.training.tuning import embed, fit, match_covariance, shrunk_covariance
from spikeinterface_simsort.weights import Weights, load_weights

_MAX_SPIKES = 20_000
_SPIKES_PER_BATCH, _SPIKES_CALIBRATED = 256, 4000
_SPIKES_RETRIEVED, _NUM_RETRIEVALS = 128, 40
# Spikes that are clustered twice, and the share of their noise that comes on top.
_SPIKES_CLUSTERED, _CLUSTERED_NOISE = 4000, 0.5


def adapt(
    recording: BaseRecording,
    *,
    folder: str | Path,
    weights: str | Path = "bundled",
    seed: int = 0,
    num_steps: int = 100,
    learning_rate: float = 1e-4,
    params: SimSortParams | None = None,
    overwrite: bool = False,
    progress: Callable[[], object] | None = None,
) -> Report:
    """Adapt the embedder to a recording that nobody has sorted.

    Contrastive learning between two views of each spike that the released detector finds: it is found again among the
    others, see `contrastive_loss`. Where a score falls on the part held out, the released embedder is kept.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces of one tetrode.
    folder : str or Path
        Weights folder to be written, whole or not at all; also where the released embedder is kept.
    weights : str or Path
        What to start from, see `resolve_weights`.
    seed : int
        The same seed gives the same weights.
    num_steps : int
        Of training.
    learning_rate : float
        At its highest.
    params : SimSortParams, optional
        What sorts later with these weights: the band, the device, and jobs. Its weights and seed do not count.
    overwrite : bool
        Replace a weights folder that is there.
    progress : callable, optional
        Called after each step.

    Returns
    -------
    Report
        Scores ``retrieval`` (share of spikes found again among 128), ``stability`` (adjusted Rand index of two
        clusterings of the same spikes, each in some more noise) and ``loss``. Without labels they cannot prove that
        sorting gets better.

    Raises
    ------
    RecordingError
        The recording cannot be sorted, has too many channels, or too few spikes are found in it.
    WeightsError
        The weights cannot be had, or the folder is in the way.

    References
    ----------
    Barnett et al. 2016, J Neurosci Methods 264:65: stability of a sorting under noise of its own.
    """
    check_folder(folder, overwrite=overwrite)
    params = replace(params or SimSortParams(), weights=str(weights), seed=seed).resolve()
    released = load_weights(weights, device=choose_device(params.device))
    check_channels(recording, released)
    parts = split_time(recording)
    training, held_out = (_Spikes.detect(part, weights=released, params=params) for part in parts)
    for name, spikes in (("first", training), ("last", held_out)):
        if len(spikes.waveforms) < _SPIKES_RETRIEVED:
            raise RecordingError(
                f"Only {len(spikes.waveforms)} spikes are found in the {name} part of the recording; adaptation "
                f"needs {_SPIKES_RETRIEVED} there. Record for longer, or use the released weights as they are."
            )
    before = _score(released.embedder, held_out, params=params)
    embedder = copy.deepcopy(released.embedder)
    _train(embedder, training, seed=seed, num_steps=num_steps, learning_rate=learning_rate, progress=progress)
    after = _score(embedder, held_out, params=params)
    # A network whose training diverged has a score of NaN, which is not kept.
    report = Report(
        folder=Path(folder).expanduser(),
        before=before,
        after=after,
        kept={"embedder": all(after[name] >= before[name] for name in ("retrieval", "stability"))},
    )
    save_adapted(
        report,
        released=released,
        networks={"embedder": embedder},
        suffix="adapted",
        method="the embedder without labels, by contrastive learning",
        data=f"{describe_recording(recording)}; {len(training.waveforms)} detected spikes trained the embedder.",
        settings=f"{num_steps} steps, learning rate {learning_rate:g}, seed {seed}",
        overwrite=overwrite,
    )
    return report


def contrastive_loss(
    first: torch.Tensor,
    second: torch.Tensor,
    *,
    same_share: float = 0.15,
    hardness: float = 0.0,
    temperature: float = 8.0,
) -> torch.Tensor:
    """Find the other view of each spike among those of all spikes, most of which are of other units.

    The similarity is minus half the squared distance, not the cosine: distances in this embedding are standard
    deviations of a unit, and clustering relies on it. The denominator is corrected for the negatives that are spikes of
    the same unit, and may weigh the near ones more.

    Parameters
    ----------
    first, second : torch.Tensor, [num_spikes, embedding_dim]
        Two views of the same spikes.
    same_share : float
        Share of the negatives that are taken to be of the same unit.
    hardness : float
        0 weighs all negatives alike.
    temperature : float
        Divides the similarities.

    Returns
    -------
    torch.Tensor
        Mean loss.

    References
    ----------
    Chen et al. 2020 (arXiv 2002.05709), the loss; Chuang et al. 2020 (arXiv 2007.00224), equation 8, the correction;
    Robinson et al. 2021 (arXiv 2010.04592), equation 4, the weights.
    """
    views = torch.cat([first, second])
    num_spikes, num_views = len(first), len(views)
    distance = torch.cdist(views, views, compute_mode="donot_use_mm_for_euclid_dist").square()
    logits = -0.5 * distance / temperature
    index = torch.arange(num_views, device=views.device)
    positive = logits[index, (index + num_spikes) % num_views]
    negative = index[:, None] % num_spikes != index[None] % num_spikes
    others = logits.masked_fill(~negative, -torch.inf)
    # Shares of the largest, as exponentials of distances vanish.
    top = torch.maximum(positive, others.amax(dim=1)).detach()
    near, partner = torch.exp(others - top[:, None]), torch.exp(positive - top)
    weight = torch.exp(hardness * (others.masked_fill(~negative, -1e9) - top[:, None])).detach() * negative
    mean = (weight * near).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-30)
    corrected = ((mean - same_share * partner) / (1 - same_share)).clamp_min(1e-8)
    return functional.softplus(torch.log(negative.sum(dim=1) * corrected) - (positive - top)).mean()


@dataclass(frozen=True)
class _Spikes:
    """Wide waveforms of the spikes detected in a part of the recording, and of its noise."""

    waveforms: np.ndarray
    noise: np.ndarray

    @classmethod
    def detect(cls, recording: BaseRecording, *, weights: Weights, params: SimSortParams) -> _Spikes:
        preprocessed = preprocess(recording, params=params)
        peaks, _, _ = detect_and_embed(preprocessed, weights=weights, params=params)
        chosen = np.sort(np.random.default_rng(params.seed).permutation(len(peaks))[:_MAX_SPIKES])
        return cls(
            waveforms=cut_waveforms(preprocessed, peaks[chosen], weights=weights, params=params),
            noise=cut_noise(preprocessed, peaks, weights=weights, params=params),
        )

    def views(self, num_spikes: int, *, rng: np.random.Generator, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Two views of some spikes, drawn at random: the same order in both."""
        waveforms = self.waveforms[rng.permutation(len(self.waveforms))[:num_spikes]]
        first, second = (add_noise(waveforms, self.noise, rng=rng, scale=scale) for _ in range(2))
        return first, second


def _train(
    embedder: nn.Module,
    spikes: _Spikes,
    *,
    seed: int,
    num_steps: int,
    learning_rate: float,
    progress: Callable[[], object] | None = None,
    pull: float = 0.1,
    **options: float,
) -> None:
    """Contrastive learning, held near the released embedder, and calibrated as that one is."""
    released = copy.deepcopy(embedder)
    device = next(embedder.parameters()).device
    rng = np.random.default_rng(seed)

    def loss_of_step() -> torch.Tensor:
        views = torch.from_numpy(np.concatenate(spikes.views(_SPIKES_PER_BATCH, rng=rng))).to(device)
        embedding = embedder(views)
        with torch.no_grad():
            before = released(views)
        first, second = embedding.chunk(2)
        return contrastive_loss(first, second, **options) + pull * (embedding - before).square().mean()

    fit(embedder, loss_of_step, num_steps=num_steps, learning_rate=learning_rate, seed=seed, progress=progress)
    first, second = spikes.views(_SPIKES_CALIBRATED, rng=rng)
    wanted, there = (embed(network, first) - embed(network, second) for network in (released, embedder))
    match_covariance(embedder, there, target=shrunk_covariance(wanted))


def _score(embedder: nn.Module, spikes: _Spikes, *, params: SimSortParams) -> dict[str, float]:
    """Score an embedder without labels, see `adapt`; NaN where its training diverged."""
    rng = np.random.default_rng(params.seed)
    hits, losses = [], []
    for _ in range(_NUM_RETRIEVALS):
        views = spikes.views(_SPIKES_RETRIEVED, rng=rng)
        first, second = (torch.from_numpy(embed(embedder, view)) for view in views)
        nearest = torch.cdist(first, second).argmin(dim=1)
        hits.append(float((nearest == torch.arange(len(first))).double().mean()))
        losses.append(float(contrastive_loss(first, second)))
    if not np.isfinite(losses).all():
        return {"retrieval": math.nan, "stability": math.nan, "loss": math.nan}
    views = spikes.views(_SPIKES_CLUSTERED, rng=rng, scale=_CLUSTERED_NOISE)
    first, second = (cluster(embed(embedder, view).astype("float32"), params=params) for view in views)
    return {
        "retrieval": float(np.mean(hits)),
        "stability": float(adjusted_rand_score(first, second)),
        "loss": float(np.mean(losses)),
    }
