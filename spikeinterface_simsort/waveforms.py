"""Alignment of peaks and extraction of waveforms, with sub-sample precision, on plain arrays."""

from __future__ import annotations

import numpy as np

from spikeinterface_simsort.compiled import compiled

# Taps of the interpolation kernel: a Hann-windowed sinc of this length is within 1 % up to a quarter of the rate.
_NUM_TAPS = 10
# Samples on either side of a waveform that have a say in it.
INTERPOLATION_REACH = _NUM_TAPS // 2


def align_peaks(traces: np.ndarray, sample_index: np.ndarray, *, search_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Move peaks to the largest deflection nearby, between samples.

    Parameters
    ----------
    traces : np.ndarray, float32 [num_samples, num_channels]
        In units of each channel's noise.
    sample_index : np.ndarray, int [num_peaks]
        Rough peaks.
    search_samples : int
        How far to look on either side.

    Returns
    -------
    times : np.ndarray, float64 [num_peaks]
        Times of the deflections' vertices, in samples.
    channel_index : np.ndarray, int [num_peaks]
        Channel of each deflection.
    """
    num_samples, num_channels = traces.shape
    if len(sample_index) == 0:
        return np.empty(0), np.empty(0, dtype="int64")
    offsets = np.arange(-search_samples, search_samples + 1)
    window = np.clip(sample_index[:, None] + offsets, 1, num_samples - 2)
    deflection = np.abs(traces[window])
    best = deflection.reshape(len(window), -1).argmax(axis=1)
    centre = window[np.arange(len(window)), best // num_channels]
    channel = best % num_channels

    # Vertex of the parabola through the three samples around the largest one, turned to its own sign.
    sign = np.sign(traces[centre, channel])
    left, middle, right = ((sign * traces[centre + shift, channel]).astype("float64") for shift in (-1, 0, 1))
    curvature = left - 2 * middle + right
    concave = (curvature < 0) & (middle >= left) & (middle >= right)
    shift = np.where(concave, 0.5 * (left - right) / np.where(concave, curvature, 1.0), 0.0)
    return centre + np.clip(shift, -0.5, 0.5), channel


def extract_waveforms(traces: np.ndarray, times: np.ndarray, *, num_before: int, num_after: int) -> np.ndarray:
    """Cut waveforms around times that fall between samples.

    Parameters
    ----------
    traces : np.ndarray, float32 [num_samples, num_channels]
        Band-limited well below the Nyquist frequency. Outside they count as zero.
    times : np.ndarray, float64 [num_spikes]
        In samples.
    num_before, num_after : int
        Samples before and from the time on.

    Returns
    -------
    np.ndarray, float32 [num_spikes, num_before + num_after, num_channels]
    """
    traces = np.ascontiguousarray(traces, dtype="float32")
    # The kernel of a point `fraction` after a sample, over the samples -half+1 ... half around it.
    half = INTERPOLATION_REACH
    base = np.floor(times).astype("int64")
    distance = np.arange(-half + 1, half + 1)[None, :] - (times - base)[:, None]
    kernel = np.sinc(distance) * np.cos(np.pi * distance / (2 * half + 1)) ** 2
    kernel = (kernel / kernel.sum(axis=1, keepdims=True)).astype("float32")
    waveforms = np.zeros((len(times), num_before + num_after, traces.shape[1]), dtype="float32")
    # Samples of all channels lie one after the other: one loop goes over both.
    num_channels = traces.shape[1]
    flat = waveforms.reshape(len(times), (num_before + num_after) * num_channels)
    _interpolate(traces.reshape(-1), (base - num_before - half + 1) * num_channels, num_channels, kernel, flat)
    return waveforms


@compiled
def _interpolate(traces: np.ndarray, starts: np.ndarray, step: int, kernels: np.ndarray, waveforms: np.ndarray) -> None:
    """Add to waveforms what the taps of each kernel, each a step after the one before, make of the traces."""
    for spike in range(len(waveforms)):
        waveform = waveforms[spike]
        for tap in range(kernels.shape[1]):
            weight, first = kernels[spike, tap], starts[spike] + tap * step
            for at in range(max(0, -first), min(len(waveform), len(traces) - first)):
                waveform[at] += weight * traces[first + at]
