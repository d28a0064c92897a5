"""Peaks of a probability, and spikes that are near each other, on plain arrays."""

from __future__ import annotations

import numpy as np

# Share of a detector's window, on either side, whose output is discarded.
EDGE_SHARE = 1 / 16
# Longer than any segment: a year at 30 kHz.
SEGMENT_FRAMES = 2**40


def find_peaks(probability: np.ndarray, *, threshold: float, exclude_samples: int) -> np.ndarray:
    """Local maxima of a probability over a threshold, no two closer than `exclude_samples`.

    Parameters
    ----------
    probability : np.ndarray, float32 [num_samples]
        Of a spike at each sample.
    threshold : float
        Smallest probability of a peak.
    exclude_samples : int
        A peak is the largest value within so many samples on either side; of equal ones, the first.

    Returns
    -------
    np.ndarray, int64 [num_peaks]
        Increasing. Whether a sample is a peak depends on its `exclude_samples` neighbours alone.
    """
    candidate = np.flatnonzero(probability >= threshold)
    padded = np.pad(probability, exclude_samples, constant_values=-1.0)
    window = padded[candidate[:, None] + np.arange(2 * exclude_samples + 1)]
    centre = window[:, exclude_samples]
    first = np.all(window[:, :exclude_samples] < centre[:, None], axis=1)
    largest = np.all(window[:, exclude_samples + 1 :] <= centre[:, None], axis=1)
    return candidate[first & largest]


def separated_times(peaks: np.ndarray) -> np.ndarray:
    """Frames of peaks, segments so far apart that no spikes of two of them are near each other.

    Parameters
    ----------
    peaks : np.ndarray, structured [num_peaks]
        With ``sample_index`` and ``segment_index``.

    Returns
    -------
    np.ndarray, int64 [num_peaks]
        `SEGMENT_FRAMES` from one segment to the next.
    """
    return peaks["sample_index"] + peaks["segment_index"] * np.int64(SEGMENT_FRAMES)


def match_spikes(found: np.ndarray, truth: np.ndarray, *, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair the spikes of two trains that are near each other, each once, as many as can be.

    Parameters
    ----------
    found, truth : np.ndarray, [num_spikes]
        Times, increasing.
    delta : float
        Largest distance of a pair, in the unit of the times.

    Returns
    -------
    found_index, truth_index : np.ndarray, int64 [num_pairs]
        Of the pairs, increasing.
    """
    pairs = []
    i = j = 0
    while i < len(found) and j < len(truth):
        if abs(found[i] - truth[j]) <= delta:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif found[i] < truth[j]:
            i += 1
        else:
            j += 1
    first, second = np.array(pairs, dtype="int64").reshape(-1, 2).T
    return first, second
