"""Stretches in which an amplifier showed nothing but its limit, or a gap was filled with a constant: silenced."""

from __future__ import annotations

from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

# No signal stands still so long. (Spikes that are clipped stand still for less.)
_MIN_STILL_MS = 1.0
# The filter smears the edges of such a stretch so far, down to a ten-thousandth.
_SMEARED_MS = 10.0


class SilenceSaturated(BasePreprocessor):
    """A filtered recording, zero on the channels and at the times where the raw one stands still beyond its bounds.

    Where half of the channels do, and two at least, all are zero: what drives them there is in the others too.

    The result does not depend on the chunks in which it is read. Where nothing stands still, nothing is changed.

    Parameters
    ----------
    recording : BaseRecording
        Filtered.
    raw : BaseRecording
        What it was made from, of the same times and channels.
    lower, upper : sequence of float [num_channels]
        Bounds of each channel, as the raw samples are: within them, a signal may stand still.
    """

    def __init__(self, recording: BaseRecording, raw: BaseRecording, lower: Any, upper: Any) -> None:
        super().__init__(recording)
        bounds = np.array(lower, dtype="float64"), np.array(upper, dtype="float64")
        # SpikeInterface 0.104 knows no `segments`, later versions know both.
        for segment, raw_segment in zip(recording._recording_segments, raw._recording_segments, strict=True):
            self.add_recording_segment(_SilencedSegment(segment, raw_segment, bounds, recording.sampling_frequency))
        self._kwargs = {
            "recording": recording,
            "raw": raw,
            "lower": bounds[0].tolist(),
            "upper": bounds[1].tolist(),
        }


class _SilencedSegment(BasePreprocessorSegment):
    def __init__(self, parent: Any, raw: Any, bounds: tuple[np.ndarray, np.ndarray], sampling_frequency: float) -> None:
        super().__init__(parent)
        self._raw, self._bounds = raw, bounds
        self._min_still = still_samples(sampling_frequency)
        self._smeared = round(_SMEARED_MS * sampling_frequency / 1000)

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Any) -> np.ndarray:
        traces = self.parent_recording_segment.get_traces(start_frame, end_frame, channel_indices)
        margin = self._smeared + self._min_still
        first = max(0, start_frame - margin)
        last = min(self._raw.get_num_samples(), end_frame + margin)
        raw = self._raw.get_traces(first, last, slice(None))
        # A stretch that is long enough covers two of these samples: most chunks are done with them.
        sparse = raw[:: self._min_still // 2]
        if not np.any(self._beyond(sparse[1:]) & (sparse[1:] == sparse[:-1])):
            return traces
        saturated = find_still(raw, min_samples=self._min_still, among=self._beyond(raw))
        if not saturated.any():
            return traces
        # Imported here: it takes a tenth of a second to load, and few recordings need it.
        from scipy.ndimage import maximum_filter1d

        num_saturated = saturated.sum(axis=1)
        saturated[(num_saturated >= 2) & (2 * num_saturated >= saturated.shape[1])] = True
        near = maximum_filter1d(saturated.view("uint8"), 2 * self._smeared + 1, axis=0, mode="constant")
        silent = near[start_frame - first : end_frame - first].astype(bool)
        if channel_indices is not None:
            silent = silent[:, channel_indices]
        return np.where(silent, traces.dtype.type(0), traces)

    def _beyond(self, raw: np.ndarray) -> np.ndarray:
        return (raw < self._bounds[0]) | (raw > self._bounds[1])


def still_samples(sampling_frequency: float) -> int:
    """How many samples have to be equal for a stretch to count as one in which a signal stands still."""
    return max(4, round(_MIN_STILL_MS * sampling_frequency / 1000))


def find_still(traces: np.ndarray, *, min_samples: int, among: np.ndarray | None = None) -> np.ndarray:
    """Find stretches of equal samples.

    Parameters
    ----------
    traces : np.ndarray [num_samples, num_channels]
        Of any type.
    min_samples : int
        A stretch has as many; two or more.
    among : np.ndarray, bool [num_samples, num_channels], optional
        Samples that count; default all.

    Returns
    -------
    np.ndarray, bool [num_samples, num_channels]
        Whether a sample is in such a stretch.
    """
    still = np.zeros(traces.shape, dtype=bool)
    repeated = traces[1:] == traces[:-1]
    if among is not None:
        repeated &= among[1:] & among[:-1]
    for channel in range(traces.shape[1]):
        places = np.flatnonzero(repeated[:, channel])
        if len(places) < min_samples - 1:
            continue
        parted = np.diff(places) > 1
        starts, ends = places[np.append(True, parted)], places[np.append(parted, True)]
        long = ends - starts + 2 >= min_samples
        for start, end in zip(starts[long], ends[long], strict=True):
            still[start : end + 2, channel] = True
    return still
