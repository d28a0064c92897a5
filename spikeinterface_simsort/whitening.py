"""What noise does to a whole waveform, over its channels and in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Directions in which noise is weaker than this share of its mean count as if it had so much: spikes vary in them by
# more than the noise says.
_FLOOR = 0.2
_MAX_WINDOWS = 20_000
# Fewer windows tell nothing of a covariance.
_WINDOWS_PER_DIMENSION = 3


@dataclass(frozen=True)
class Whitener:
    """Noise of waveforms that were flattened to vectors.

    Attributes
    ----------
    precision : np.ndarray, float32 [dim, dim]
        Inverse of the covariance of the noise; ``dim = num_samples * num_channels``.
    root : np.ndarray, float32 [dim, dim]
        Its symmetric square root: a vector times it has noise of variance 1 in all directions.
    """

    precision: np.ndarray
    root: np.ndarray

    @classmethod
    def from_noise(cls, windows: np.ndarray) -> Whitener:
        """Estimate the noise from windows without a spike.

        Parameters
        ----------
        windows : np.ndarray, float32 [num_windows, num_samples, num_channels]
            In units of noise.

        Returns
        -------
        Whitener
        """
        vectors = windows.reshape(len(windows), -1).astype("float64")
        # The band-pass has taken the mean away.
        variance, axes = np.linalg.eigh(vectors.T @ vectors / len(vectors))
        variance = np.maximum(variance, _FLOOR * variance.mean())
        precision, root = (axes / variance) @ axes.T, (axes / np.sqrt(variance)) @ axes.T
        return cls(precision=precision.astype("float32"), root=root.astype("float32"))


def noise_windows(traces: np.ndarray, spikes: Sequence[int] | np.ndarray, *, num_samples: int) -> np.ndarray | None:
    """Cut windows in which no spike is.

    Parameters
    ----------
    traces : np.ndarray, float32 [num_samples_total, num_channels]
        In units of noise.
    spikes : np.ndarray, int [num_spikes]
        Their peaks, in samples.
    num_samples : int
        Length of a window; a spike reaches so far on either side of its peak at most.

    Returns
    -------
    np.ndarray, float32 [num_windows, num_samples, num_channels], or None
        None where spikes are so dense that too few windows are free of them.
    """
    reach, spikes = num_samples // 2, np.sort(np.asarray(spikes, dtype="int64"))
    starts = np.arange(0, len(traces) - num_samples, reach)
    first, end = np.searchsorted(spikes, starts - reach), np.searchsorted(spikes, starts + num_samples + reach)
    free = starts[first == end]
    if len(free) < _WINDOWS_PER_DIMENSION * num_samples * traces.shape[1]:
        return None
    free = free[:: -(-len(free) // _MAX_WINDOWS)]
    return traces[free[:, None] + np.arange(num_samples)]
