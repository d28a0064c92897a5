"""The whole way from a recording to a sorting, one call a step."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, NumpySorting
from spikeinterface.core.basesorting import SpikeVectorSortingSegment

from spikeinterface_simsort.clustering import cluster
from spikeinterface_simsort.compute import (
    choose_device,
    job_arguments,
    limit_threads_in_workers,
    one_thread_each,
    run_nodes,
    run_nodes_to_disk,
)
from spikeinterface_simsort.confidence import AccuracyModel, unit_features
from spikeinterface_simsort.detection import NetworkPeakDetector
from spikeinterface_simsort.drift import Drift, estimate_drift
from spikeinterface_simsort.embedding import NetworkEmbedder
from spikeinterface_simsort.excerpt import Excerpt, choose_excerpt
from spikeinterface_simsort.groups import split_blocks, split_groups
from spikeinterface_simsort.learning import MOST_SPIKES, Templates, choose_stretch, learn_templates
from spikeinterface_simsort.matching import TemplatePeakDetector
from spikeinterface_simsort.model_rate import at_model_rate, keep_in_memory
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.preprocessing import preprocess
from spikeinterface_simsort.realignment import join_shifted
from spikeinterface_simsort.refinement import Unit, refine, remove_double_units
from spikeinterface_simsort.resampling import SamplingGrid
from spikeinterface_simsort.weights import Weights, load_weights
from spikeinterface_simsort.whitening import Whitener, noise_windows

logger = logging.getLogger(__name__)

# Deflections of one spike on two channels are no farther apart.
_MAX_SHIFT_MS = 0.5
# The waveforms of so many spikes, half a gigabyte, are kept in memory.
_MOST_IN_MEMORY = 1_000_000


def sort(recording: BaseRecording, *, params: SimSortParams | None = None) -> NumpySorting:
    """Sort a recording, each of its channel groups by itself.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces of one or more tetrodes (property ``group``), of any gain, type and sampling frequency.
    params : SimSortParams, optional
        Default: all defaults.

    Returns
    -------
    NumpySorting
        Integer unit ids from 0, with the properties ``main_channel_id``, ``snr``, ``probability``,
        ``predicted_accuracy`` and ``group``.

    Raises
    ------
    RecordingError
        The recording cannot be sorted.
    WeightsError
        The networks' weights cannot be had.
    """
    params = (params or SimSortParams()).resolve()
    limit_threads_in_workers()
    weights = load_weights(params.weights, device=choose_device(params.device), trainable=False)
    found: list[tuple[Any, BaseRecording, Unit, list[np.ndarray]]] = []
    for group, part in split_groups(recording):
        peaks, units = sort_group(part, weights=weights, params=params)
        # Where there are millions of peaks, nothing else of them is held any longer.
        found += [(group, part, unit, _trains(peaks, unit, num_segments=part.get_num_segments())) for unit in units]
        del peaks, units
    return _as_sorting(recording, found)


def sort_group(recording: BaseRecording, *, weights: Weights, params: SimSortParams) -> tuple[np.ndarray, list[Unit]]:
    """Sort one group: a tetrode, or a larger one in blocks of neighbouring channels.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces of the group.
    weights : Weights
        The networks.
    params : SimSortParams
        Resolved.

    Returns
    -------
    peaks : np.ndarray, structured [num_peaks]
        Detected spikes.
    units : list of Unit
        Each with the indices of its peaks; `channel_index` counts the channels of the group.
    """
    all_peaks, all_units, num_peaks = [], [], 0
    for block in split_blocks(recording, max_channels=weights.detector.num_channels):
        peaks, units = sort_block(block, weights=weights, params=params)
        channels = recording.ids_to_indices(block.channel_ids)
        all_units += [
            replace(unit, spikes=unit.spikes + num_peaks, channel_index=int(channels[unit.channel_index]))
            for unit in units
        ]
        all_peaks.append(peaks)
        num_peaks += len(peaks)
    if len(all_peaks) == 1:
        return all_peaks[0], all_units
    peaks = np.concatenate(all_peaks)
    all_units.sort(key=lambda unit: -unit.snr)
    return peaks, remove_double_units(peaks, all_units, duplicate_frames=_duplicate_frames(recording, params))


def sort_block(recording: BaseRecording, *, weights: Weights, params: SimSortParams) -> tuple[np.ndarray, list[Unit]]:
    """Sort as many channels as the networks read, and say how accurate each unit can be expected to be.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces of the group.
    weights : Weights
        The networks.
    params : SimSortParams
        Resolved.

    Returns
    -------
    peaks : np.ndarray, structured [num_peaks]
        Detected spikes.
    units : list of Unit
        Each with the indices of its peaks and its predicted accuracy.
    """
    peaks, waveforms, units, is_matched = find_units(recording, weights=weights, params=params)
    features = unit_features(
        peaks,
        waveforms,
        units,
        is_matched=is_matched,
        sampling_frequency=recording.get_sampling_frequency(),
        num_frames=_num_frames(recording),
        seed=params.seed,
    )
    accuracies = AccuracyModel.load().predict(features).tolist()
    return peaks, [replace(unit, predicted_accuracy=value) for unit, value in zip(units, accuracies, strict=True)]


def find_units(
    recording: BaseRecording, *, weights: Weights, params: SimSortParams
) -> tuple[np.ndarray, np.ndarray, list[Unit], bool]:
    """Find the units of as many channels as the networks read: the method itself.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces of the group.
    weights : Weights
        The networks.
    params : SimSortParams
        Resolved.

    Returns
    -------
    peaks : np.ndarray, structured [num_peaks]
        Detected spikes.
    waveforms : np.ndarray, float16 [num_peaks, num_samples * num_channels]
        Theirs, in units of noise.
    units : list of Unit
        Each with the indices of its peaks.
    is_matched : bool
        Whether they were found by templates: not where none can be learned.
    """
    preprocessed = preprocess(recording, params=params)
    grid = _grid(preprocessed, weights)
    preprocessed = at_model_rate(preprocessed, grid=grid)
    excerpt = choose_excerpt(preprocessed) if params.match_templates else Excerpt.of_all(preprocessed)
    # It is read several times, the rest of a long recording once.
    excerpt = replace(excerpt, recording=_in_memory(excerpt.recording, params=params))
    if excerpt.is_whole:
        preprocessed = excerpt.recording
    peaks, waveforms, labels = find_clusters(excerpt.recording, weights=weights, params=params)
    templates = None
    if params.match_templates:
        templates = templates_of_clusters(
            preprocessed, excerpt, peaks, waveforms, labels, weights=weights, params=params
        )
    if templates is not None:
        spikes_per_s = len(peaks) / excerpt.recording.get_total_duration()
        peaks, waveforms, labels = match_templates(
            preprocessed,
            templates=templates,
            weights=weights,
            params=params,
            num_expected=spikes_per_s * preprocessed.get_total_duration(),
        )
    elif not excerpt.is_whole:
        peaks, waveforms, labels = find_clusters(preprocessed, weights=weights, params=params)
    peaks = _at_frames(peaks, recording, grid=grid)
    units = refine(
        peaks,
        waveforms,
        labels,
        num_channels=recording.get_num_channels(),
        duplicate_frames=_duplicate_frames(recording, params),
        min_spikes=params.min_spikes,
        min_snr=params.min_snr,
        seed=params.seed,
    )
    logger.info("%d spikes detected, %d clusters, %d units.", len(peaks), len(np.unique(labels)), len(units))
    return peaks, waveforms, units, templates is not None


def detect_and_embed(
    preprocessed: BaseRecording, *, weights: Weights, params: SimSortParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detect spikes, cut their waveforms and embed them, in one pass over the recording.

    Parameters
    ----------
    preprocessed : BaseRecording
        In units of noise.
    weights : Weights
        The networks.
    params : SimSortParams
        Resolved; uses `detect_threshold`, `exclude_ms` and `job_kwargs`.

    Returns
    -------
    peaks : np.ndarray, structured [num_peaks]
        With the field ``probability``, sorted by segment and sample index.
    waveforms : np.ndarray, float16 [num_peaks, num_samples * num_channels]
        At the networks' sampling frequency.
    embedding : np.ndarray, float32 [num_peaks, embedding_dim]
    """
    device = choose_device(params.device)
    detector_config, embedder_config = weights.config["detector"], weights.config["embedder"]
    threshold = params.detect_threshold
    if threshold is None:
        # How sure a network is of a spike is its own: the threshold comes with its weights.
        threshold = detector_config["threshold"]
    detector = NetworkPeakDetector(
        preprocessed,
        network=weights.detector,
        model_frequency=detector_config["sampling_frequency"],
        device=device,
        threshold=threshold,
        exclude_ms=params.exclude_ms,
    )
    embedder = NetworkEmbedder(
        preprocessed,
        parents=[detector],
        network=weights.embedder,
        model_frequency=embedder_config["sampling_frequency"],
        ms_before=embedder_config["ms_before"],
        device=device,
    )
    return run_nodes(
        preprocessed, [detector, embedder], job_kwargs=params.job_kwargs, job_name="detect and embed spikes"
    )


def find_clusters(
    preprocessed: BaseRecording, *, weights: Weights, params: SimSortParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detect spikes and cluster them.

    Parameters
    ----------
    preprocessed : BaseRecording
        In units of noise.
    weights : Weights
        The networks.
    params : SimSortParams
        Resolved.

    Returns
    -------
    peaks : np.ndarray, structured [num_peaks]
        With the field ``probability``, sorted by segment and sample index.
    waveforms : np.ndarray, float16 [num_peaks, num_samples * num_channels]
        Theirs, at the networks' sampling frequency.
    labels : np.ndarray, int [num_peaks]
        Their clusters; -1 is noise.
    """
    peaks, waveforms, embedding = detect_and_embed(preprocessed, weights=weights, params=params)
    labels = cluster(embedding, params=params)
    rate, model_rate = preprocessed.get_sampling_frequency(), weights.config["embedder"]["sampling_frequency"]
    return join_shifted(
        peaks,
        waveforms,
        labels,
        num_channels=preprocessed.get_num_channels(),
        frames_per_sample=rate / model_rate,
        max_shift=round(_MAX_SHIFT_MS * model_rate / 1000),
        sampling_frequency=rate,
        num_frames=_num_frames(preprocessed),
    )


def templates_of_clusters(
    preprocessed: BaseRecording,
    excerpt: Excerpt,
    peaks: np.ndarray,
    waveforms: np.ndarray,
    labels: np.ndarray,
    *,
    weights: Weights,
    params: SimSortParams,
) -> Templates | None:
    """Learn the templates of clusters, and how they move with the tissue.

    Parameters
    ----------
    preprocessed : BaseRecording
        In units of noise.
    excerpt : Excerpt
        Of it.
    peaks : np.ndarray, structured [num_peaks]
        Spikes detected in it.
    waveforms : np.ndarray, float16 [num_peaks, num_samples * num_channels]
        Theirs.
    labels : np.ndarray, int [num_peaks]
        Their clusters; -1 is noise.
    weights : Weights
        The networks, whose sampling frequency and window it uses.
    params : SimSortParams
        Resolved; uses `seed` and `job_kwargs`.

    Returns
    -------
    Templates or None
        None where no template can be learned.
    """
    if not np.any(labels >= 0):
        return None
    config, num_samples = weights.config["embedder"], weights.embedder.num_samples
    grid = _grid(excerpt.recording, weights)
    whole = choose_stretch(excerpt, peaks, grid=grid)
    noise = noise_windows(whole.traces, whole.spikes.round().astype("int64"), num_samples=num_samples)
    if noise is None:
        return None
    whitener = Whitener.from_noise(noise)
    drift = _estimate_drift(excerpt, peaks, waveforms, labels, whitener=whitener)
    if drift is not None and not drift.is_seamless:
        # What moves that fast has to be followed everywhere.
        found = find_clusters(preprocessed, weights=weights, params=params)
        drift = _estimate_drift(Excerpt.of_all(preprocessed), *found, whitener=whitener) or drift
    num_jobs = job_arguments(params.job_kwargs)["n_jobs"]
    with one_thread_each(num_jobs):
        return learn_templates(
            choose_stretch(excerpt, peaks, grid=grid, max_spikes=MOST_SPIKES),
            labels,
            whitener=whitener,
            drift=drift,
            num_before=round(config["ms_before"] * config["sampling_frequency"] / 1000),
            num_samples=num_samples,
            seed=params.seed,
            num_threads=num_jobs,
        )


def match_templates(
    preprocessed: BaseRecording,
    *,
    templates: Templates,
    weights: Weights,
    params: SimSortParams,
    num_expected: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the spikes of templates, overlapping ones too.

    Parameters
    ----------
    preprocessed : BaseRecording
        In units of noise.
    templates : Templates
        Of the units.
    weights : Weights
        The networks, whose sampling frequency it uses.
    params : SimSortParams
        Resolved; uses `job_kwargs`.
    num_expected : float
        Spikes there will be, about: of very many, all that is returned is mapped from a temporary file.

    Returns
    -------
    peaks, waveforms, labels
        Of the spikes found, as from `find_clusters`.
    """
    detector = TemplatePeakDetector(preprocessed, templates=templates, grid=_grid(preprocessed, weights))
    run = run_nodes
    if num_expected > _MOST_IN_MEMORY:
        run = partial(run_nodes_to_disk, names=("peaks", "labels", "waveforms"))
    peaks, labels, waveforms = run(preprocessed, [detector], job_kwargs=params.job_kwargs, job_name="match templates")
    return peaks, waveforms, labels


def _in_memory(recording: BaseRecording, *, params: SimSortParams) -> BaseRecording:
    """What is read more than once is computed once, if it is short; other processes read for themselves."""
    arguments = job_arguments(params.job_kwargs)
    if arguments["pool_engine"] != "thread":
        return recording
    with one_thread_each(arguments["n_jobs"]):
        return keep_in_memory(recording, num_threads=arguments["n_jobs"])


def _at_frames(peaks: np.ndarray, recording: BaseRecording, *, grid: SamplingGrid) -> np.ndarray:
    """Peaks at the frames of the recording that are nearest to where they lie."""
    frames = np.round(grid.to_frames(peaks["sample_index"] + peaks["offset"].astype("float64"))).astype("int64")
    last = np.array(_num_frames(recording)) - 1
    peaks = peaks.copy()
    peaks["sample_index"] = np.clip(frames, 0, last[peaks["segment_index"]])
    return peaks


def _estimate_drift(
    excerpt: Excerpt, peaks: np.ndarray, waveforms: np.ndarray, labels: np.ndarray, *, whitener: Whitener
) -> Drift | None:
    recording = excerpt.recording
    return estimate_drift(
        waveforms,
        labels,
        seconds=excerpt.seconds[peaks["segment_index"]] + peaks["sample_index"] / recording.sampling_frequency,
        duration_s=recording.get_total_duration(),
        root=whitener.root,
    )


def _grid(recording: BaseRecording, weights: Weights) -> SamplingGrid:
    """Of the embedder, whose window the templates are."""
    return SamplingGrid.between(
        recording_frequency=recording.get_sampling_frequency(),
        model_frequency=weights.config["embedder"]["sampling_frequency"],
    )


def _num_frames(recording: BaseRecording) -> list[int]:
    return [recording.get_num_samples(segment) for segment in range(recording.get_num_segments())]


def _duplicate_frames(recording: BaseRecording, params: SimSortParams) -> int:
    return round(params.duplicate_ms * recording.get_sampling_frequency() / 1000)


def _trains(peaks: np.ndarray, unit: Unit, *, num_segments: int) -> list[np.ndarray]:
    """Frames of a unit's spikes in each segment."""
    frames, segments = (peaks[name][unit.spikes] for name in ("sample_index", "segment_index"))
    return [frames[segments == segment] for segment in range(num_segments)]


def _as_sorting(
    recording: BaseRecording, found: list[tuple[Any, BaseRecording, Unit, list[np.ndarray]]]
) -> NumpySorting:
    """Gather the units of all groups, with their properties."""
    num_segments, rate = recording.get_num_segments(), recording.get_sampling_frequency()
    by_segment = [
        {unit_id: trains[segment] for unit_id, (*_, trains) in enumerate(found)} for segment in range(num_segments)
    ]
    sorting = NumpySorting.from_unit_dict(by_segment, rate)
    if not found:
        sorting = NumpySorting(sorting.to_spike_vector(), rate, np.array([], dtype="int64"))
    # NumpySorting counts segments up to the last spike.
    for segment in range(sorting.get_num_segments(), num_segments):
        sorting.add_sorting_segment(SpikeVectorSortingSegment(sorting.to_spike_vector(), segment, sorting.unit_ids))
    if not found:
        return sorting
    properties = {
        "main_channel_id": [part.channel_ids[unit.channel_index] for _, part, unit, _ in found],
        **{
            name: [getattr(unit, name) for _, _, unit, _ in found]
            for name in ("snr", "probability", "predicted_accuracy")
        },
        "group": [group for group, *_ in found],
    }
    for name, values in properties.items():
        sorting.set_property(name, np.array(values))
    return sorting
