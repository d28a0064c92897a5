"""A recording with the sorting of its lab: what networks learn from, and what they are scored by."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from spikeinterface.comparison import compare_sorter_to_ground_truth
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting
from spikeinterface.core.base import minimum_spike_dtype
from threadpoolctl import threadpool_limits
from torch import nn

from spikeinterface_simsort.clustering import informative_axes
from spikeinterface_simsort.detection import pad_channels
from spikeinterface_simsort.models import PerceptronEmbedder
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.peaks import match_spikes
from spikeinterface_simsort.pipeline import sort_block
from spikeinterface_simsort.preprocessing import RecordingError, preprocess
from spikeinterface_simsort.resampling import SamplingGrid
from spikeinterface_simsort.training.losses import detection_loss, prototype_loss, triplet_loss
from spikeinterface_simsort.training.own_recording import (
    PAD_SAMPLES,
    add_noise,
    cut_noise,
    cut_waveforms,
    move_waveforms,
    split_time,
    time_of_split,
)
from spikeinterface_simsort.training.targets import PreparedTrial, detection_targets
from spikeinterface_simsort.training.tuning import embed, match_covariance
from spikeinterface_simsort.waveforms import align_peaks
from spikeinterface_simsort.weights import Weights

logger = logging.getLogger(__name__)

DELTA_MS = 1.0
# A unit that has fewer spikes in either part is not learned from, nor asked for.
_MIN_SPIKES = 8
_MAX_SPIKES_PER_UNIT = 1000
_MAX_SPIKES_SCORED = 5000
_SPIKES_PER_UNIT = 24
_NOISE_SCALE = 0.3
_POSITIVE_WEIGHT = 3.0
# A batch of the detector: windows from a few places.
_STRETCHES, _WINDOWS_PER_STRETCH = 4, 2
_ALIGN_MS = 0.2


class SortingError(ValueError):
    """A sorting cannot be learned from; the message says what to do."""


def check_sorting(recording: BaseRecording, sorting: BaseSorting) -> None:
    """Refuse a sorting that cannot be one of a recording, or that nothing can be learned from.

    Raises
    ------
    SortingError
        With what to do about it.
    """
    rates = recording.get_sampling_frequency(), sorting.get_sampling_frequency()
    # Some formats round the rate.
    if abs(rates[1] / rates[0] - 1) > 1e-4:
        raise SortingError(
            f"The sorting's sampling frequency is {rates[1]:g} Hz and the recording's {rates[0]:g} Hz: they are not "
            "of the same session."
        )
    num_segments = recording.get_num_segments()
    spikes = sorting.to_spike_vector()
    if len(spikes) == 0:
        raise SortingError("The sorting has no spikes: leave it out to adapt the embedder without one.")
    if sorting.get_num_segments() > num_segments:
        raise SortingError(
            f"The sorting has {sorting.get_num_segments()} segments and the recording {num_segments}: they are not of "
            "the same session."
        )
    lengths = np.array([recording.get_num_samples(index) for index in range(num_segments)])
    beyond = (spikes["sample_index"] < 0) | (spikes["sample_index"] >= lengths[spikes["segment_index"]])
    if beyond.any():
        last = spikes["sample_index"].max() / rates[0]
        raise SortingError(
            f"{beyond.sum()} spikes of the sorting lie outside the recording (the last one at {last:.3f} s; the "
            f"longest segment has {lengths.max() / rates[0]:.3f} s): they are not of the same session."
        )


@dataclass(frozen=True)
class LabelledPart:
    """A part of the recording with its sorting: what a network learns from, or is scored by.

    `spikes` have the fields of a spike vector, at the units' largest deflections; `waveforms` are those of the spikes
    `chosen`, and `noise` that of the part.
    """

    recording: BaseRecording
    preprocessed: BaseRecording
    spikes: np.ndarray
    unit_snr: np.ndarray
    chosen: np.ndarray
    waveforms: np.ndarray
    noise: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Unit of each waveform."""
        return self.spikes["unit_index"][self.chosen]

    def detection_loss(self, weights: Weights, *, rng: np.random.Generator) -> torch.Tensor:
        """Weighted cross-entropy of windows from anywhere in the part, as in the training on simulations."""
        network = weights.detector
        device = next(network.parameters()).device
        stretches = [self._windows(weights, rng=rng) for _ in range(_STRETCHES)]
        traces, target, weight = (
            torch.from_numpy(np.concatenate(arrays)).to(device) for arrays in zip(*stretches, strict=True)
        )
        return detection_loss(network(traces), target, weight, positive_weight=_POSITIVE_WEIGHT)

    def _windows(self, weights: Weights, *, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Some windows next to each other: traces, targets and weights."""
        rate = weights.config["detector"]["sampling_frequency"]
        grid = SamplingGrid.between(recording_frequency=self.recording.get_sampling_frequency(), model_frequency=rate)
        num_samples = weights.detector.window_samples * _WINDOWS_PER_STRETCH
        margin = grid.margin_frames(PAD_SAMPLES)
        num_frames = int(np.ceil(grid.to_frames(np.array(num_samples)))) + 2 * margin + grid.down
        lengths = [self.recording.get_num_samples(index) for index in range(self.recording.get_num_segments())]
        room = np.maximum(np.array(lengths) - num_frames, 0)
        if not room.any():
            raise RecordingError(
                f"No segment of the first part lasts {num_frames / self.recording.get_sampling_frequency():.1f} s."
            )
        segment = int(rng.choice(len(room), p=room / room.sum()))
        start = int(rng.integers(room[segment]))
        chunk = self.preprocessed.get_traces(segment, start_frame=start, end_frame=start + num_frames)
        traces, first = grid.resample(chunk, first_frame=start)
        of_segment = self.spikes[self.spikes["segment_index"] == segment]
        low, high = np.searchsorted(of_segment["sample_index"], [start + margin, start + num_frames - margin])
        spikes = of_segment[low:high]
        rough = np.round(spikes["sample_index"] * grid.up / grid.down).astype("int64") - first
        times, _ = align_peaks(traces, rough, search_samples=max(round(_ALIGN_MS * rate / 1000), 1))
        skip = grid.model_range(start + margin, start + num_frames)[0] - first
        part = PreparedTrial(
            traces=pad_channels(traces[skip : skip + num_samples], num_channels=weights.detector.num_channels),
            spike_samples=times - skip,
            spike_labels=spikes["unit_index"],
            unit_snr=self.unit_snr,
        )
        target, weight = detection_targets(part, sampling_frequency=rate)
        shape = (_WINDOWS_PER_STRETCH, -1)
        return part.traces.reshape(*shape, part.traces.shape[1]), target.reshape(shape), weight.reshape(shape)

    def embedding_loss(self, embedder: nn.Module, *, rng: np.random.Generator) -> torch.Tensor:
        """Loss of a batch of some spikes of every unit, a little changed."""
        order = rng.permutation(len(self.labels))
        units = [order[self.labels[order] == unit][:_SPIKES_PER_UNIT] for unit in np.unique(self.labels)]
        batch = np.concatenate(units)
        waveforms = add_noise(self.waveforms[batch], self.noise, rng=rng, scale=_NOISE_SCALE)
        device = next(embedder.parameters()).device
        loss = prototype_loss if isinstance(embedder, PerceptronEmbedder) else triplet_loss
        labels = torch.from_numpy(self.labels[batch]).to(device)
        return loss(embedder(torch.from_numpy(waveforms).to(device)), labels)

    def calibrate(self, embedder: nn.Module) -> None:
        """Give the units unit variance, which clustering relies upon."""
        embedding = self.embedding(embedder)
        labels = self.labels
        residuals = np.concatenate(
            [embedding[labels == unit] - embedding[labels == unit].mean(axis=0) for unit in np.unique(labels)]
        )
        match_covariance(embedder, residuals, target=np.eye(embedding.shape[1]))

    def embedding(self, embedder: nn.Module) -> np.ndarray:
        """Embedding of the waveforms as the sorter would cut them."""
        return embed(embedder, move_waveforms(self.waveforms, np.zeros(len(self.waveforms))))

    def ari(self, embedder: nn.Module) -> float:
        """Adjusted Rand index of a mixture of as many Gaussians as there are units; NaN of what is not finite.

        It starts at the units' own means: where it settles is not left to chance, which would decide between networks.
        Units share their covariance, as those of a short recording have too few spikes for one each.
        """
        embedding = self.embedding(embedder)
        if not np.isfinite(embedding).all():
            return float("nan")
        axes, centre = informative_axes(embedding)
        points = (embedding - centre) @ axes
        means = np.array([points[self.labels == unit].mean(axis=0) for unit in np.unique(self.labels)])
        mixture = GaussianMixture(len(means), covariance_type="tied", reg_covar=1e-3, means_init=means, random_state=0)
        with threadpool_limits(1):
            return float(adjusted_rand_score(self.labels, mixture.fit_predict(points)))

    def sort(self, weights: Weights, *, params: SimSortParams) -> dict[str, float]:
        """Scores of detection and sorting with some networks, see `finetune`."""
        peaks, units = sort_block(self.recording, weights=weights, params=params)
        rate, num_found = self.recording.get_sampling_frequency(), len(peaks)
        matched = sum(
            len(match_spikes(found, truth, delta=DELTA_MS * rate / 1000)[0])
            for found, truth in (
                [spikes["sample_index"][spikes["segment_index"] == segment] for spikes in (peaks, self.spikes)]
                for segment in range(self.recording.get_num_segments())
            )
        )
        return {
            "detection_accuracy": matched / (num_found + len(self.spikes) - matched),
            "detection_recall": matched / len(self.spikes),
            "detection_precision": matched / max(num_found, 1),
            "sorting_accuracy": self._sorting_accuracy([peaks[unit.spikes] for unit in units]),
        }

    def _sorting_accuracy(self, units: list[np.ndarray]) -> float:
        if not units:
            return 0.0
        vector = np.concatenate(
            [
                np.rec.fromarrays(
                    [unit["sample_index"], np.full(len(unit), index), unit["segment_index"]], dtype=minimum_spike_dtype
                )
                for index, unit in enumerate(units)
            ]
        )
        rate = self.recording.get_sampling_frequency()
        found = NumpySorting(np.sort(vector, order=["segment_index", "sample_index"]), rate, np.arange(len(units)))
        truth = NumpySorting(self.spikes, rate, np.arange(len(self.unit_snr))).remove_empty_units()
        comparison = compare_sorter_to_ground_truth(
            truth, found, delta_time=DELTA_MS, exhaustive_gt=True, match_score=0.0
        )
        return float(comparison.get_performance()["accuracy"].astype(float).mean())


def label_parts(
    recording: BaseRecording, sorting: BaseSorting, *, weights: Weights, params: SimSortParams
) -> list[LabelledPart]:
    """Both parts of a recording with the units that have spikes enough in either."""
    segment, frame = time_of_split(recording)
    spikes = sorting.to_spike_vector()
    within = (spikes["segment_index"] < segment) | (
        (spikes["segment_index"] == segment) & (spikes["sample_index"] < frame)
    )
    first, last = spikes[within].copy(), spikes[~within].copy()
    last["sample_index"][last["segment_index"] == segment] -= frame
    last["segment_index"] -= segment
    num_units = len(sorting.unit_ids)
    counts = np.array([np.bincount(part["unit_index"], minlength=num_units) for part in (first, last)])
    usable = np.flatnonzero((counts >= _MIN_SPIKES).all(axis=0))
    if len(usable) < 2:
        raise SortingError(
            f"Only {len(usable)} of {num_units} units have {_MIN_SPIKES} spikes or more both in the first part of the "
            "recording, which trains, and in the last, which is held out; two are needed. Use a longer recording, or "
            "leave the sorting out to adapt the embedder without one."
        )
    if len(usable) < num_units:
        logger.warning(
            "%d of %d units have too few spikes to learn from: they are left out.", num_units - len(usable), num_units
        )
    parts = []
    shift, snr = None, None
    rng = np.random.default_rng(params.seed)
    for part, of_part in zip(split_time(recording), (first, last), strict=True):
        of_part = of_part[np.isin(of_part["unit_index"], usable)]
        preprocessed = preprocess(part, params=params)
        if shift is None or snr is None:
            shift, snr = _centre(preprocessed, of_part, num_units=num_units, weights=weights, params=params, rng=rng)
        limits = np.array([part.get_num_samples(index) for index in range(part.get_num_segments())]) - 1
        moved = of_part["sample_index"] + shift[of_part["unit_index"]]
        of_part["sample_index"] = np.clip(moved, 0, limits[of_part["segment_index"]])
        of_part.sort(order=["segment_index", "sample_index"], kind="stable")
        order = rng.permutation(len(of_part))
        # As many of every unit at most, in the order of time.
        per_unit = _MAX_SPIKES_PER_UNIT if not parts else _MAX_SPIKES_SCORED // len(usable)
        chosen = np.sort(np.concatenate([order[of_part["unit_index"][order] == unit][:per_unit] for unit in usable]))
        parts.append(
            LabelledPart(
                recording=part,
                preprocessed=preprocessed,
                spikes=of_part,
                unit_snr=snr,
                chosen=chosen,
                waveforms=cut_waveforms(preprocessed, of_part[chosen], weights=weights, params=params),
                noise=cut_noise(preprocessed, of_part, weights=weights, params=params),
            )
        )
    return parts


def _centre(
    preprocessed: BaseRecording,
    spikes: np.ndarray,
    *,
    num_units: int,
    weights: Weights,
    params: SimSortParams,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Frames from a unit's spike times to its largest mean deflection, and that deflection, for each unit."""
    config = weights.config["embedder"]
    shift, snr = np.zeros(num_units, dtype="int64"), np.zeros(num_units)
    for unit in np.unique(spikes["unit_index"]):
        of_unit = spikes[spikes["unit_index"] == unit]
        some = of_unit[np.sort(rng.permutation(len(of_unit))[:200])]
        deflection = np.abs(cut_waveforms(preprocessed, some, weights=weights, params=params).mean(axis=0)).max(axis=1)
        before = round(config["ms_before"] * config["sampling_frequency"] / 1000) + PAD_SAMPLES
        offset = int(deflection.argmax()) - before
        shift[unit] = round(offset * preprocessed.get_sampling_frequency() / config["sampling_frequency"])
        snr[unit] = deflection.max()
    return shift, snr
