"""Spikes of sorted units, and the traces that they are in, where noise is 1 in all directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeinterface_simsort.whitening import Whitener, noise_windows

if TYPE_CHECKING:
    from spikeinterface.core import SortingAnalyzer

# Band-passed traces have no more than a sample every so many ms tells.
_STEP_MS = 1 / 15
_BEFORE_MS, _LENGTH_MS, _SHIFT_MS = 0.6, 1.5, 0.2
_NUM_SLICES, _SLICE_S = 40, 1.0
# Deflections beyond are spikes, in units of noise, whether a sorter found them or not.
_SPIKE_LEVEL = 6.0
_FEWEST_SPIKES, _NUM_PARTS, _FEWEST_IN_PART = 10, 4, 8
# Means of fewer spikes hold more noise than what waveforms change by in time.
_FEWEST_IN_TEMPLATE = 25
# Spikes that overlap others say little of the mean.
_NEAR_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class UnitSpikes:
    """Some spikes of a unit, whitened, and aligned to their mean.

    Attributes
    ----------
    points : np.ndarray, float32 [num_spikes, dim]
    mean : np.ndarray, float32 [dim]
    slope : np.ndarray, float32 [dim]
        Its derivative in time.
    shifted : np.ndarray, float32 [num_shifts, dim]
        The mean, earlier and later.
    parts : np.ndarray, float32 [num_parts, dim]
        Means of spikes after each other; empty where there are few.
    part_sizes : np.ndarray, int [num_parts]
    part_times : np.ndarray, float64 [num_parts]
        Medians, in samples from the start of the first segment.
    offset : int
        From where a window begins to the time that the sorter gave the spike, in samples.
    """

    points: np.ndarray
    mean: np.ndarray
    slope: np.ndarray
    shifted: np.ndarray
    parts: np.ndarray
    part_sizes: np.ndarray
    part_times: np.ndarray
    offset: int

    def mean_at(self, time: float) -> np.ndarray:
        """Mean of the spikes about a time, or of all of them where they are few."""
        if not len(self.parts) or self.part_sizes.min() < _FEWEST_IN_TEMPLATE:
            return self.mean
        return self.parts[np.abs(self.part_times - time).argmin()]


def segment_starts(analyzer: SortingAnalyzer) -> np.ndarray:
    """First samples of the segments, were they one after the other."""
    lengths = [analyzer.get_num_samples(segment) for segment in range(analyzer.get_num_segments())]
    return np.concatenate([[0], np.cumsum(lengths)[:-1]])


@dataclass(frozen=True, kw_only=True)
class Window:
    """Which samples of a waveform are looked at: every `step`-th, `length` of them, around the largest deflection."""

    before: int
    length: int
    step: int
    shift: int

    @classmethod
    def of(cls, sampling_frequency: float, *, num_samples: int) -> Window:
        """For waveforms of so many samples at a rate in Hz."""
        samples_per_ms = sampling_frequency / 1000
        step = max(round(_STEP_MS * samples_per_ms), 1)
        shift = max(round(_SHIFT_MS * samples_per_ms), 1)
        return cls(
            before=round(_BEFORE_MS * samples_per_ms),
            length=min(round(_LENGTH_MS * samples_per_ms), num_samples - 2 * shift) // step,
            step=step,
            shift=shift,
        )

    def start(self, num_samples: int, *, peak: int) -> int:
        """First sample of a waveform that is looked at, so that there is room for all shifts."""
        latest = num_samples - self.shift - (self.length - 1) * self.step - 1
        return int(np.clip(peak - self.before, self.shift, latest))

    def cut(self, waveforms: np.ndarray, *, peak: int) -> np.ndarray:
        """All shifts of waveforms, float32 [num_shifts, num_spikes, length * num_channels]."""
        num_samples = waveforms.shape[1]
        start = self.start(num_samples, peak=peak)
        shifts = range(-self.shift, self.shift + 1)
        places = [start + shift + self.step * np.arange(self.length) for shift in shifts]
        return np.stack([waveforms[:, place].reshape(len(waveforms), -1) for place in places])


def read_slices(analyzer: SortingAnalyzer, *, channels: np.ndarray, scale: np.ndarray, seed: int) -> list[TraceSlice]:
    """Read some stretches of the traces.

    Parameters
    ----------
    analyzer : SortingAnalyzer
        With its recording.
    channels : np.ndarray, int [num_channels]
        Indices.
    scale : np.ndarray, float [num_channels]
        Their noise, by which they are divided.
    seed : int
        Of the stretches, at most 40 of a second each.

    Returns
    -------
    list of TraceSlice
    """
    recording: Any = analyzer.recording
    length = int(_SLICE_S * analyzer.sampling_frequency)
    starts = [
        (segment, start)
        for segment in range(recording.get_num_segments())
        for start in range(0, max(recording.get_num_samples(segment) - length, 1), length)
    ]
    if len(starts) > _NUM_SLICES:
        chosen = np.random.default_rng(seed).choice(len(starts), _NUM_SLICES, replace=False)
        starts = [starts[index] for index in np.sort(chosen)]
    return [
        TraceSlice(
            segment=segment,
            start=start,
            traces=recording.get_traces(
                segment_index=segment,
                start_frame=start,
                end_frame=min(start + length, recording.get_num_samples(segment)),
                channel_ids=recording.channel_ids[channels],
                return_in_uV=analyzer.return_in_uV,
            ).astype("float32")
            / scale,
        )
        for segment, start in starts
    ]


@dataclass(frozen=True, kw_only=True)
class TraceSlice:
    """A stretch of a segment from a sample on; traces, float32 [num_samples, num_channels], in units of noise."""

    segment: int
    start: int
    traces: np.ndarray

    def times(self, trains: Sequence[np.ndarray]) -> np.ndarray:
        """Spikes of one unit that are in it, from its start."""
        train = trains[self.segment]
        first, last = np.searchsorted(train, [self.start, self.start + len(self.traces)])
        return train[first:last] - self.start


def estimate_noise(
    slices: Sequence[TraceSlice], trains: Sequence[Sequence[np.ndarray]], *, window: Window
) -> Whitener | None:
    """Estimate the noise where no unit has a spike and nothing is as large as one.

    Parameters
    ----------
    slices : sequence of TraceSlice
        Of a few channels.
    trains : sequence of sequence of np.ndarray
        Spikes of the units, a train a segment.
    window : Window
        Of waveforms.

    Returns
    -------
    Whitener or None
        Of waveforms that are cut by `window`; None where spikes leave too little noise.
    """
    busy, start = [], 0
    for piece in slices:
        large = np.flatnonzero(np.abs(piece.traces).max(axis=1) > _SPIKE_LEVEL)
        # No window is to reach from one slice into the next.
        busy += [start + times for times in (large, *(piece.times(train) for train in trains), np.zeros(1, dtype=int))]
        start += len(piece.traces)
    traces = np.concatenate([piece.traces for piece in slices])[:: window.step]
    windows = noise_windows(traces, np.concatenate(busy) // window.step, num_samples=window.length)
    return None if windows is None else Whitener.from_noise(windows)


def whiten_spikes(
    waveforms: np.ndarray, *, times: np.ndarray, root: np.ndarray, window: Window, nbefore: int
) -> UnitSpikes | None:
    """Whiten spikes of a unit, and align them to their mean.

    Parameters
    ----------
    waveforms : np.ndarray, float [num_spikes, num_samples, num_channels]
        In units of noise, in the order of time.
    times : np.ndarray, int [num_spikes]
        When they are, in samples.
    root : np.ndarray, float32 [dim, dim]
        Of the `Whitener`.
    window : Window
        What is looked at of a waveform.
    nbefore : int
        Samples of a waveform before the spike's time.

    Returns
    -------
    UnitSpikes or None
        None where there are fewer than 10.
    """
    if len(waveforms) < _FEWEST_SPIKES:
        return None
    waveforms = waveforms.astype("float32")
    mean = waveforms.mean(axis=0)
    peak = int(np.abs(mean).max(axis=1).argmax())
    shifted = window.cut(waveforms, peak=peak) @ root
    mean = shifted[window.shift].mean(axis=0)
    for _ in range(2):
        distance = ((shifted - mean) ** 2).sum(axis=2)
        best = distance.argmin(axis=0)
        smallest = distance.min(axis=0)
        near = smallest <= np.quantile(smallest, _NEAR_SHARE)
        mean = shifted[best[near], np.flatnonzero(near)].mean(axis=0)
    points = shifted[best, np.arange(len(best))]
    # Each spike where it fits best, and all of them earlier and later by as much.
    aligned = np.stack(
        [np.roll(waveform, window.shift - at, axis=0) for waveform, at in zip(waveforms, best, strict=True)]
    )
    means = window.cut(aligned[near].mean(axis=0, keepdims=True), peak=peak)[:, 0] @ root
    slope = means[window.shift + 1] - means[window.shift - 1]
    num_parts = _NUM_PARTS if len(points) >= _NUM_PARTS * _FEWEST_IN_PART else 0
    parts = [part for part in np.array_split(points, max(num_parts, 1))] if num_parts else []
    return UnitSpikes(
        points=points,
        mean=mean,
        slope=slope,
        shifted=means,
        parts=np.array([part.mean(axis=0) for part in parts]),
        part_sizes=np.array([len(part) for part in parts]),
        part_times=np.array([np.median(part) for part in np.array_split(times, len(parts))] if parts else []),
        offset=nbefore - window.start(waveforms.shape[1], peak=peak),
    )
