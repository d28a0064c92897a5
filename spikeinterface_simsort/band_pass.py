"""The band-pass filter of the sorter: SciPy's and SpikeInterface's, several times faster.

A Butterworth filter (Butterworth 1930) made digital by the bilinear transform, applied forward and backward. Filtering
takes a good part of the time of a sparse recording. Each step of a filter waits for the one before, so what makes it
fast is to filter side by side, in the lanes of the processor's vectors, all channels and several pieces of a chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, get_chunk_with_margin
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from spikeinterface_simsort.compiled import compiled

_ORDER = 3
# The filter has rung out when it is down to this share, which float32 cannot tell: chunks do not show in the result.
_RUNG_OUT = 1e-12
# A chunk goes on by so many samples at either end, turned about it, as for SciPy's filter.
_EXTENSION_SAMPLES = 21
# So many pieces of a chunk are filtered side by side, if each is so many times as long as the margin.
_MAX_PIECES, _LEAST_MARGINS = 8, 8


class BandPass(BasePreprocessor):
    """A recording, band-passed; the result does not depend on the chunks in which it is read.

    Parameters
    ----------
    recording : BaseRecording
        Of any type.
    freq_min, freq_max : float
        Band, in Hz; below half the sampling frequency.
    factors : sequence of float [num_channels], optional
        By which each channel is multiplied.
    """

    def __init__(self, recording: BaseRecording, freq_min: float, freq_max: float, factors: Any = None) -> None:
        super().__init__(recording, dtype="float32")
        self.annotate(is_filtered=True)
        if "offset_to_uV" in self.get_property_keys():
            self.set_channel_offsets(0)
        rate = recording.get_sampling_frequency()
        sections, gain = butterworth_sections(freq_min, freq_max, sampling_frequency=rate)
        # Forward and backward.
        gains = gain**2 * np.ones(recording.get_num_channels()) * (1.0 if factors is None else np.asarray(factors))
        margin = ringing_samples(sections)
        for segment in recording._recording_segments:
            self.add_recording_segment(_BandPassSegment(segment, sections, gains, margin))
        self._kwargs = {
            "recording": recording,
            "freq_min": freq_min,
            "freq_max": freq_max,
            "factors": None if factors is None else np.asarray(factors).tolist(),
        }


class _BandPassSegment(BasePreprocessorSegment):
    def __init__(self, parent: Any, sections: np.ndarray, gains: np.ndarray, margin: int) -> None:
        super().__init__(parent)
        self._sections, self._gains, self._margin = sections, gains, margin

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Any) -> np.ndarray:
        traces, before, after = get_chunk_with_margin(
            self.parent_recording_segment, start_frame, end_frame, channel_indices, self._margin
        )
        gains = self._gains if channel_indices is None else self._gains[channel_indices]
        filtered = filter_both_ways(traces, sections=self._sections, gains=gains, margin=self._margin)
        return filtered[before : len(filtered) - after]


def butterworth_sections(
    freq_min: float, freq_max: float, *, sampling_frequency: float, order: int = _ORDER
) -> tuple[np.ndarray, float]:
    """Design a Butterworth band-pass.

    Parameters
    ----------
    freq_min, freq_max : float
        Where the filter lets half of the power through, in Hz.
    sampling_frequency : float
        In Hz.
    order : int
        Of the low-pass that it is made from; it has twice as many poles.

    Returns
    -------
    sections : np.ndarray, float64 [order, 2]
        Of each section ``(1 - z^-2) / (1 + a1 z^-1 + a2 z^-2)`` the coefficients a1 and a2.
    gain : float
        Of all sections together.

    Raises
    ------
    ValueError
        There is no such band below half the sampling frequency.
    """
    if not 0 < freq_min < freq_max < sampling_frequency / 2:
        raise ValueError(f"There is no band from {freq_min:g} to {freq_max:g} Hz at {sampling_frequency:g} Hz.")
    # Frequencies bent as the bilinear transform bends them, at a sampling frequency of 1.
    low, high = 2 * np.tan(np.pi * np.array([freq_min, freq_max]) / sampling_frequency)
    prototype = np.exp(0.5j * np.pi * (2 * np.arange(order) + 1 + order) / order)
    half = prototype * (high - low) / 2
    apart = np.sqrt(half**2 - low * high)
    analog = np.concatenate([half + apart, half - apart])
    poles = (2 + analog) / (2 - analog)
    is_real = np.abs(poles.imag) < 1e-12
    # Complex poles come in conjugate pairs; those of a wide band's real prototype pole are both real.
    upper, real = poles[~is_real & (poles.imag > 0)], np.sort(poles[is_real].real)
    pairs = [(-2 * pole.real, abs(pole) ** 2) for pole in upper]
    pairs += [(-(one + two), one * two) for one, two in zip(real[::2], real[1::2], strict=True)]
    sections = np.array(pairs)
    # At the centre of the band the filter changes nothing.
    centre = np.exp(2j * np.arctan(np.sqrt(low * high) / 2))
    response = np.prod((1 - centre**-2) / (1 + sections[:, 0] / centre + sections[:, 1] / centre**2))
    return sections, float(1 / abs(response))


def ringing_samples(sections: np.ndarray) -> int:
    """Samples within which a filter has rung out.

    Parameters
    ----------
    sections : np.ndarray, float64 [num_sections, 2]
        Of the filter, see `butterworth_sections`.

    Returns
    -------
    int
    """
    slowest = max(np.abs(np.roots([1.0, one, two])).max() for one, two in sections)
    return int(np.ceil(np.log(_RUNG_OUT) / np.log(slowest)))


def filter_both_ways(traces: np.ndarray, *, sections: np.ndarray, gains: np.ndarray, margin: int) -> np.ndarray:
    """Filter traces forward and backward, so that nothing is delayed.

    Parameters
    ----------
    traces : np.ndarray [num_samples, num_channels]
        Of any real type.
    sections : np.ndarray, float64 [num_sections, 2]
        Of the filter, see `butterworth_sections`.
    gains : np.ndarray, float64 [num_channels]
        Of the filter both ways, and whatever else a channel is multiplied by.
    margin : int
        Samples within which the filter has rung out.

    Returns
    -------
    np.ndarray, float32 [num_samples, num_channels]
    """
    num_samples, num_channels = traces.shape
    reach = min(_EXTENSION_SAMPLES, num_samples - 1)
    extended = np.empty((num_samples + 2 * reach, num_channels))
    extended[reach : reach + num_samples] = traces
    inside = extended[reach : reach + num_samples]
    extended[:reach] = 2 * inside[0] - inside[reach:0:-1]
    extended[reach + num_samples :] = 2 * inside[-1] - inside[-2 : -2 - reach : -1]

    num_pieces = int(np.clip(len(extended) // (_LEAST_MARGINS * margin), 1, _MAX_PIECES))
    length = -(-len(extended) // num_pieces)
    width = min(length + 2 * margin, len(extended))
    # The first and the last begin and end where the chunk does, the others in a margin.
    starts = np.clip(np.arange(num_pieces) * length - margin, 0, len(extended) - width)
    # Channel by channel, as they are resampled.
    filtered = np.empty((num_channels, len(extended)), dtype="float32")
    _filter_pieces(extended, sections, gains, starts, length, width, filtered)
    return filtered[:, reach : reach + num_samples].T


@compiled
def _filter_pieces(
    traces: np.ndarray,
    sections: np.ndarray,
    gains: np.ndarray,
    starts: np.ndarray,
    length: int,
    width: int,
    filtered: np.ndarray,
) -> None:
    """Filter pieces of traces, each within a window of some width that begins at its start."""
    num_samples, num_channels = traces.shape
    lanes = np.empty((width, len(starts) * num_channels))
    for piece, start in enumerate(starts):
        for sample in range(width):
            for channel in range(num_channels):
                lanes[sample, piece * num_channels + channel] = traces[start + sample, channel]
    _filter(lanes, sections)
    for piece, start in enumerate(starts):
        for sample in range(piece * length, min((piece + 1) * length, num_samples)):
            for channel in range(num_channels):
                value = lanes[sample - start, piece * num_channels + channel]
                filtered[channel, sample] = gains[channel] * value


@compiled
def _filter(lanes: np.ndarray, sections: np.ndarray) -> None:
    """Filter each column in place, forward and backward, as if its first value had always been there before."""
    num_samples, num_lanes = lanes.shape
    states = np.empty((len(sections), 2, num_lanes))
    for step in (1, -1):
        begin = 0 if step == 1 else num_samples - 1
        # The first section lets nothing of a constant through.
        states[:] = 0.0
        for lane in range(num_lanes):
            states[0, 0, lane] = states[0, 1, lane] = -lanes[begin, lane]
        for count in range(num_samples):
            values = lanes[begin + step * count]
            for section in range(len(sections)):
                one, two = sections[section, 0], sections[section, 1]
                first, second = states[section, 0], states[section, 1]
                for lane in range(num_lanes):
                    value = values[lane] + first[lane]
                    first[lane] = second[lane] - one * value
                    second[lane] = -values[lane] - two * value
                    values[lane] = value
