"""Templates learned from clusters: found again in the traces, split, merged, and found once more.

Clusters see each spike by itself, with all that overlaps it, and only spikes that the detector found. Their mean
waveforms are templates, and what is found by these is cleaner: small spikes come back, overlaps are resolved, and two
units of one cluster show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from spikeinterface.core import BaseRecording

from spikeinterface_simsort.resampling import SamplingGrid
from spikeinterface_simsort.separation import Separation
from spikeinterface_simsort.template_matching import TemplateMatcher
from spikeinterface_simsort.waveforms import extract_waveforms
from spikeinterface_simsort.whitening import Whitener, noise_windows

# Templates are learned from so much of a recording, in pieces spread over it, and less where spikes are dense.
_MAX_DURATION_S, _PIECE_S = 300.0, 10.0
_MAX_SPIKES = 60_000
# In all of these rounds but the last, units are split and merged; in the last they are only merged.
_NUM_ROUNDS = 3
# Log odds of a spike that a template is learned from, and of one that counts.
_LEARNING_THRESHOLD, _THRESHOLD = 5.0, 0.0
# Of a template: its least energy, in units of noise, and number of spikes.
_LEAST_ENERGY, _LEAST_SPIKES = 20.0, 15
_SPIKES_PER_TEMPLATE, _KEPT_SHARE = 1000, 0.8
# A template that mostly appears after another was subtracted, or at other amplitudes than its own, is a remainder.
_LEAST_FIRST, _USUAL_AMPLITUDES = 0.3, (0.75, 1.35)


@dataclass(frozen=True)
class Stretch:
    """Pieces of a recording, one after the other, at the networks' rate.

    Attributes
    ----------
    traces : np.ndarray, float32 [num_samples, num_channels]
        In units of noise.
    spikes : np.ndarray, float64 [num_spikes]
        Times of detected spikes that lie in it, in its samples.
    chosen : np.ndarray, int64 [num_spikes]
        Which of all detected spikes they are.
    """

    traces: np.ndarray
    spikes: np.ndarray
    chosen: np.ndarray


@dataclass(frozen=True)
class Templates:
    """Templates, ready to be found, and the units that they belong to.

    Attributes
    ----------
    matcher : TemplateMatcher
        Of all templates.
    units : np.ndarray, int64 [num_templates]
        Unit of each template; -1 if it is none.
    shifts : np.ndarray, float64 [num_templates]
        Samples that its spikes are moved to be aligned like the others of the unit.
    """

    matcher: TemplateMatcher
    units: np.ndarray
    shifts: np.ndarray


def choose_stretch(preprocessed: BaseRecording, peaks: np.ndarray, *, grid: SamplingGrid) -> Stretch:
    """Load what templates are learned from: the whole of a short recording, else pieces spread over it.

    Parameters
    ----------
    preprocessed : BaseRecording
        In units of noise.
    peaks : np.ndarray, structured [num_peaks]
        Detected spikes.
    grid : SamplingGrid
        Of the networks.

    Returns
    -------
    Stretch
    """
    piece = max(round(_PIECE_S * preprocessed.get_sampling_frequency()), 1)
    pieces = [
        (segment, start, min(start + piece, preprocessed.get_num_samples(segment)))
        for segment in range(preprocessed.get_num_segments())
        for start in range(0, preprocessed.get_num_samples(segment), piece)
    ]
    most = min(_MAX_DURATION_S / _PIECE_S, len(pieces) * _MAX_SPIKES / max(len(peaks), 1))
    num_chosen = int(np.clip(most, 1, len(pieces)))
    chosen_pieces = [pieces[index] for index in np.linspace(0, len(pieces) - 1, num_chosen).round().astype("int64")]
    traces, times, chosen, num_samples = [], [], [], 0
    for segment, start, end in chosen_pieces:
        margin = grid.margin_frames(0)
        begin = max(start - margin, 0)
        chunk = preprocessed.get_traces(segment_index=segment, start_frame=begin, end_frame=end + margin)
        resampled, first_sample = grid.resample(chunk, first_frame=begin)
        first, last = grid.model_range(start, end)
        traces.append(resampled[first - first_sample : last - first_sample])
        inside = np.flatnonzero(
            (peaks["segment_index"] == segment) & (peaks["sample_index"] >= start) & (peaks["sample_index"] < end)
        )
        times.append(peaks["sample_index"][inside] * grid.up / grid.down - first + num_samples)
        chosen.append(inside)
        num_samples += len(traces[-1])
    return Stretch(traces=np.concatenate(traces), spikes=np.concatenate(times), chosen=np.concatenate(chosen))


def learn_templates(
    stretch: Stretch, labels: np.ndarray, *, num_before: int, num_samples: int, sampling_frequency: float, seed: int
) -> Templates | None:
    """Learn the templates of a recording, beginning with clusters.

    Parameters
    ----------
    stretch : Stretch
        What is learned from.
    labels : np.ndarray, int [num_peaks]
        Clusters of all detected spikes; -1 is noise.
    num_before, num_samples : int
        Samples of a template before its peak, and altogether.
    sampling_frequency : float
        Of the stretch, in Hz.
    seed : int
        Of what is drawn.

    Returns
    -------
    Templates or None
        None if there is nothing to be learned: no cluster is large enough, or spikes leave no noise to be seen.
    """
    windows = noise_windows(stretch.traces, stretch.spikes.round().astype("int64"), num_samples=num_samples)
    if windows is None or not windows.any():
        return None
    whitener = Whitener.from_noise(windows)
    clusters = labels[stretch.chosen]
    trains = [stretch.spikes[clusters == cluster] for cluster in np.unique(clusters[clusters >= 0])]
    for learned in range(_NUM_ROUNDS):
        is_last = learned == _NUM_ROUNDS - 1
        matcher = _matcher(
            stretch.traces,
            trains,
            whitener=whitener,
            num_before=num_before,
            num_samples=num_samples,
            sampling_frequency=sampling_frequency,
        )
        if matcher is None:
            return None
        matches = matcher.find(stretch.traces)
        used = _used_templates(matches, num_templates=matcher.num_templates)
        matches = matches[used[matches["template"]]]
        if not len(matches):
            return None
        waveforms = matcher.cleaned_waveforms(stretch.traces, matches)
        separation = Separation(waveforms, root=whitener.root, sampling_frequency=sampling_frequency, seed=seed)
        parts = matches["template"]
        if not is_last:
            parts = _split_all(separation, waveforms, parts)
        # Where a unit drifts it keeps several templates: it is not merged before they are learned.
        seconds = matches["time"] / sampling_frequency if is_last else None
        merged, shifts = separation.merge(waveforms, parts, times=seconds)
        trains = [matches["time"][merged == unit] + shifts[merged == unit] for unit in np.unique(merged)]
    units, unit_shifts = np.full(matcher.num_templates, -1), np.zeros(matcher.num_templates)
    units[matches["template"]], unit_shifts[matches["template"]] = merged, shifts
    matcher.threshold = _THRESHOLD
    return Templates(matcher=matcher, units=units, shifts=unit_shifts)


def _matcher(
    traces: np.ndarray,
    trains: list[np.ndarray],
    *,
    whitener: Whitener,
    num_before: int,
    num_samples: int,
    sampling_frequency: float,
) -> TemplateMatcher | None:
    """Matcher of the mean waveforms of trains, where these are large enough."""
    templates, deviations = [], []
    for train in trains:
        if len(train) < _LEAST_SPIKES:
            continue
        times = train[:: -(-len(train) // _SPIKES_PER_TEMPLATE)]
        waveforms = extract_waveforms(traces, times, num_before=num_before, num_after=num_samples - num_before)
        template = _robust_mean(waveforms)
        scores = template.reshape(-1) @ whitener.precision
        energy = float(scores @ template.reshape(-1))
        if energy < _LEAST_ENERGY:
            continue
        amplitudes = waveforms.reshape(len(waveforms), -1) @ scores / energy
        low, high = np.percentile(amplitudes, [16, 84])
        templates.append(template)
        # Noise alone spreads the measured amplitudes by the inverse of the energy.
        deviations.append(np.sqrt(max(((high - low) / 2) ** 2 - 1 / energy, 0.0)))
    if not templates:
        return None
    return TemplateMatcher(
        np.stack(templates),
        num_before=num_before,
        whitener=whitener,
        deviations=np.array(deviations),
        threshold=_LEARNING_THRESHOLD,
        sampling_frequency=sampling_frequency,
    )


def _robust_mean(waveforms: np.ndarray) -> np.ndarray:
    """Mean without the waveforms farthest from it, which other spikes overlap."""
    distance = ((waveforms - waveforms.mean(axis=0)) ** 2).sum(axis=(1, 2))
    return waveforms[distance <= np.quantile(distance, _KEPT_SHARE)].mean(axis=0)


def _used_templates(matches: np.ndarray, *, num_templates: int) -> np.ndarray:
    """Which templates are more than what others leave behind, bool [num_templates]."""
    used = np.zeros(num_templates, dtype=bool)
    low, high = _USUAL_AMPLITUDES
    for template in range(num_templates):
        mine = matches[matches["template"] == template]
        if len(mine) >= _LEAST_SPIKES:
            is_first = float(np.mean(mine["iteration"] == 0)) >= _LEAST_FIRST
            used[template] = is_first and low < float(np.median(mine["amplitude"])) < high
    return used


def _split_all(separation: Separation, waveforms: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels in which each unit is split where it is of several kinds."""
    parts = np.empty(len(labels), dtype="int64")
    num_parts = 0
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        parts[members] = separation.split(waveforms[members]) + num_parts
        num_parts = int(parts[members].max()) + 1
    return parts
