"""Alignment of peaks and extraction of waveforms, with sub-sample precision, on plain arrays."""

from __future__ import annotations

import numpy as np

# Taps of the interpolation kernel: a Hann-windowed sinc of this length is within 1 % up to a quarter of the rate.
_NUM_TAPS = 10


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
    num_samples = num_before + num_after
    half = _NUM_TAPS // 2
    base = np.floor(times).astype("int64")
    fraction = times - base
    # Kernel for a point `fraction` after a sample, over the samples -half+1 ... half around it.
    distance = np.arange(-half + 1, half + 1)[None, :] - fraction[:, None]
    kernel = np.sinc(distance) * np.cos(np.pi * distance / (2 * half + 1)) ** 2
    kernel = (kernel / kernel.sum(axis=1, keepdims=True)).astype("float32")

    start = base - num_before - half + 1
    length = num_samples + _NUM_TAPS - 1
    index = start[:, None] + np.arange(length)
    outside = (index < 0) | (index >= len(traces))
    cut = traces[np.clip(index, 0, len(traces) - 1)]
    cut[outside] = 0.0

    waveforms = np.zeros((len(times), num_samples, traces.shape[1]), dtype="float32")
    for tap in range(_NUM_TAPS):
        waveforms += kernel[:, tap, None, None] * cut[:, tap : tap + num_samples]
    return waveforms
