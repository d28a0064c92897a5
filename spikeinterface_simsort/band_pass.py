"""The band-pass filter of the sorter: SciPy's and SpikeInterface's, several times faster.

A Butterworth filter (Butterworth 1930) made digital by the bilinear transform, applied forward and backward. Filtering
is what takes most of the time of a sparse recording, and all channels can go through it side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, get_chunk_with_margin
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from spikeinterface_simsort.compiled import compiled

_ORDER = 3
# The filter has rung out within this margin to less than float32 can tell: chunks do not show in the result.
_MARGIN_MS = 40.0
# At either end of a chunk the filter starts in what it would see if the chunk went on, turned about its end, as SciPy's.
_EXTENSION_SAMPLES = 21
# So many channels, each a lane of a vector, are filtered side by side.
_LANES = 4


class BandPass(BasePreprocessor):
    """A recording, band-passed; the result does not depend on the chunks in which it is read.

    Parameters
    ----------
    recording : BaseRecording
        Of any type.
    freq_min, freq_max : float
        Band, in Hz; below half the sampling frequency.
    """

    def __init__(self, recording: BaseRecording, freq_min: float, freq_max: float) -> None:
        super().__init__(recording, dtype="float32")
        self.annotate(is_filtered=True)
        if "offset_to_uV" in self.get_property_keys():
            self.set_channel_offsets(0)
        rate = recording.get_sampling_frequency()
        sections, gain = butterworth_sections(freq_min, freq_max, sampling_frequency=rate)
        margin = int(_MARGIN_MS * rate / 1000)
        for segment in recording._recording_segments:
            self.add_recording_segment(_BandPassSegment(segment, sections, gain, margin))
        self._kwargs = {"recording": recording, "freq_min": freq_min, "freq_max": freq_max}


class _BandPassSegment(BasePreprocessorSegment):
    def __init__(self, parent: Any, sections: np.ndarray, gain: float, margin: int) -> None:
        super().__init__(parent)
        self._sections, self._gain, self._margin = sections, gain, margin

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Any) -> np.ndarray:
        traces, before, after = get_chunk_with_margin(
            self.parent_recording_segment, start_frame, end_frame, channel_indices, self._margin
        )
        filtered = filter_both_ways(traces, sections=self._sections, gain=self._gain)
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
    """
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


def filter_both_ways(traces: np.ndarray, *, sections: np.ndarray, gain: float) -> np.ndarray:
    """Filter traces forward and backward, so that nothing is delayed.

    Parameters
    ----------
    traces : np.ndarray [num_samples, num_channels]
        Of any real type.
    sections : np.ndarray, float64 [num_sections, 2]
        Of the filter, see `butterworth_sections`.
    gain : float
        Of the filter.

    Returns
    -------
    np.ndarray, float32 [num_samples, num_channels]
    """
    num_samples, num_channels = traces.shape
    reach = min(_EXTENSION_SAMPLES, num_samples - 1)
    lanes = np.zeros((num_samples + 2 * reach, -(-num_channels // _LANES) * _LANES))
    extended = lanes[:, :num_channels]
    extended[reach : reach + num_samples] = traces
    inside = extended[reach : reach + num_samples]
    extended[:reach] = 2 * inside[0] - inside[reach:0:-1]
    extended[reach + num_samples :] = 2 * inside[-1] - inside[-2 : -2 - reach : -1]
    filtered = np.empty((num_samples, lanes.shape[1]), dtype="float32")
    _filter(lanes, sections, gain, filtered, reach)
    return filtered[:, :num_channels]


@compiled
def _filter(lanes: np.ndarray, sections: np.ndarray, gain: float, filtered: np.ndarray, reach: int) -> None:
    """Filter in place, forward and backward, and keep what is not within reach of the ends."""
    num_samples, num_sections = len(lanes), len(sections)
    values = np.empty(_LANES)
    states = np.empty((num_sections, 2, _LANES))
    for first in range(0, lanes.shape[1], _LANES):
        for step in (1, -1):
            begin = 0 if step == 1 else num_samples - 1
            # As if the first value had always been there: the first section lets nothing of it through.
            states[:] = 0.0
            for lane in range(_LANES):
                states[0, 0, lane] = states[0, 1, lane] = -lanes[begin, first + lane]
            for count in range(num_samples):
                at = begin + step * count
                for lane in range(_LANES):
                    values[lane] = lanes[at, first + lane]
                for section in range(num_sections):
                    one, two = sections[section, 0], sections[section, 1]
                    for lane in range(_LANES):
                        value = values[lane] + states[section, 0, lane]
                        states[section, 0, lane] = states[section, 1, lane] - one * value
                        states[section, 1, lane] = -values[lane] - two * value
                        values[lane] = value
                for lane in range(_LANES):
                    lanes[at, first + lane] = gain * values[lane]
        for sample in range(len(filtered)):
            for lane in range(_LANES):
                filtered[sample, first + lane] = lanes[reach + sample, first + lane]
