"""Clusters that are one unit, whose spikes were aligned now on one channel, now on another.

A spike is aligned to its largest deflection. Where two channels, or two phases of a spike, deflect nearly alike, noise
decides between them, and the unit falls into two clusters of the same waveform at two shifts. Two neurons never look
like that: both would be aligned alike, and differ at shift 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spikeinterface_simsort.intervals import count_intervals
from spikeinterface_simsort.peaks import SEGMENT_FRAMES, separated_times

# Mean waveforms agree when what is left of the one, less the other, has so little of the larger's energy, and so much
# less than without a shift: waveforms that are alike as they lie were told apart by the clustering for other reasons.
_RESIDUAL, _OF_UNSHIFTED = 0.1, 0.25
# A mean of fewer spikes tells nothing.
_MIN_SPIKES = 20
_SPIKES_PER_MEAN = 1000
# Intervals between spikes of two units, in ms: one neuron leaves them empty, as it cannot fire again so soon, two do
# not. Shorter ones are empty anyhow, as detections that near are one.
_REFRACTORY_MS = (0.5, 1.5)
_MOST_VIOLATIONS, _LEAST_EXPECTED = 0.5, 10.0


def join_shifted(
    peaks: np.ndarray,
    waveforms: np.ndarray,
    labels: np.ndarray,
    *,
    num_channels: int,
    frames_per_sample: float,
    max_shift: int,
    sampling_frequency: float,
    num_frames: Sequence[int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join clusters whose mean waveforms are the same but for a shift in time, and shift their spikes accordingly.

    Parameters
    ----------
    peaks : np.ndarray, structured [num_peaks]
        Sorted by segment and sample index.
    waveforms : np.ndarray, float16 [num_peaks, num_samples * num_channels]
        In units of noise.
    labels : np.ndarray, int [num_peaks]
        Clusters; -1 is noise.
    num_channels : int
        Of the waveforms.
    frames_per_sample : float
        Frames of the recording that a sample of the waveforms lasts.
    max_shift : int
        Largest shift that is looked for, in samples of the waveforms.
    sampling_frequency : float
        Of the recording, in Hz.
    num_frames : sequence of int
        Length of each segment of the recording, which no spike is shifted out of.

    Returns
    -------
    peaks, waveforms, labels
        Sorted again; the larger of two clusters gives the label and keeps its times. Where nothing is joined, what was
        given.
    """
    clusters, counts = np.unique(labels[labels >= 0], return_counts=True)
    clusters = clusters[np.argsort(-counts, kind="stable")][: int((counts >= _MIN_SPIKES).sum())]
    means = [_mean(waveforms, np.flatnonzero(labels == cluster), num_channels=num_channels) for cluster in clusters]
    last_frame = np.asarray(num_frames) - 1
    joined: set[int] = set()
    for second in range(1, len(clusters)):
        for first in (index for index in range(second) if index not in joined):
            shift = _best_shift(means[first], means[second], max_shift=max_shift)
            if not shift:
                continue
            members = np.flatnonzero(labels == clusters[second])
            moved = peaks[members]
            frames = moved["sample_index"] + round(shift * frames_per_sample)
            moved["sample_index"] = np.clip(frames, 0, last_frame[moved["segment_index"]])
            others = separated_times(peaks[labels == clusters[first]])
            if _fire_together(others, separated_times(moved), sampling_frequency=sampling_frequency):
                continue
            if not joined:
                # Not before: most recordings have nothing to join, and waveforms are the most that is held.
                peaks, waveforms, labels = peaks.copy(), waveforms.copy(), labels.copy()
            peaks[members] = moved
            waveforms[members] = _shifted(waveforms[members], shift * num_channels)
            labels[members] = clusters[first]
            joined.add(second)
            break
    if not joined:
        return peaks, waveforms, labels
    order = np.lexsort((peaks["sample_index"], peaks["segment_index"]))
    return peaks[order], waveforms[order], labels[order]


def _mean(waveforms: np.ndarray, members: np.ndarray, *, num_channels: int) -> np.ndarray:
    chosen = members[:: max(1, len(members) // _SPIKES_PER_MEAN)]
    return waveforms[chosen].astype("float32").mean(axis=0).reshape(-1, num_channels)


def _best_shift(template: np.ndarray, other: np.ndarray, *, max_shift: int) -> int:
    """Samples by which the other comes late in its window; 0 if no shift makes them agree that did not before."""
    energy = max(float((template**2).sum()), float((other**2).sum()))
    num_samples = len(template)
    residuals = []
    for shift in range(-max_shift, max_shift + 1):
        # Over what both hold; what is cut off at the ends is small.
        one = template[max(-shift, 0) : num_samples - max(shift, 0)]
        two = other[max(shift, 0) : num_samples + min(shift, 0)]
        residuals.append(float(((one - two) ** 2).sum()) / energy)
    best = int(np.argmin(residuals))
    agree = residuals[best] < min(_RESIDUAL, _OF_UNSHIFTED * residuals[max_shift])
    return best - max_shift if agree else 0


def _shifted(rows: np.ndarray, by: int) -> np.ndarray:
    """Rows moved to earlier samples (by > 0) or later ones, with zeros where nothing was cut out."""
    moved = np.zeros_like(rows)
    if by > 0:
        moved[:, :-by] = rows[:, by:]
    else:
        moved[:, -by:] = rows[:, :by]
    return moved


def _fire_together(times: np.ndarray, others: np.ndarray, *, sampling_frequency: float) -> bool:
    """Whether two trains leave as short intervals as two neurons do that know nothing of each other."""
    near, far = (limit * sampling_frequency / 1000 for limit in _REFRACTORY_MS)
    short = count_intervals(times / sampling_frequency, others / sampling_frequency, between_ms=_REFRACTORY_MS)
    # Of spikes that lie anywhere between the first and the last of either, whatever the segment.
    span = max(float(np.ptp(np.concatenate([times, others]) % SEGMENT_FRAMES)), far)
    expected = len(times) * len(others) * 2 * (far - near) / span
    return expected >= _LEAST_EXPECTED and short > _MOST_VIOLATIONS * expected
