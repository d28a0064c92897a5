"""Currents that an electrode injects into a soma: noise and steps.

All have unit variance or unit height: multiply them by a share of the rheobase.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter


def pink_noise(
    *, num_runs: int, num_samples: int, dt: float, rng: np.random.Generator, band_hz: tuple[float, float] = (5.0, 500.0)
) -> np.ndarray:
    """Draw Gaussian noise of power 1/f inside a band.

    Parameters
    ----------
    num_runs, num_samples : int
        Shape of what is returned.
    dt : float
        Time step in ms.
    rng : np.random.Generator
        Source of randomness.
    band_hz : tuple of float
        There is no power outside.

    Returns
    -------
    np.ndarray, [num_runs, num_samples]
        Of unit variance in each run.
    """
    frequency = np.fft.rfftfreq(num_samples, dt * 1e-3)
    inside = (frequency >= band_hz[0]) & (frequency <= band_hz[1])
    gain = np.where(inside, 1.0 / np.sqrt(np.maximum(frequency, band_hz[0])), 0.0)
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=(num_runs, num_samples))) * gain, n=num_samples)
    return noise / noise.std(axis=1, keepdims=True)


def ornstein_uhlenbeck(*, num_samples: int, dt: float, rng: np.random.Generator, tau_ms: float = 5.0) -> np.ndarray:
    """Draw an Ornstein-Uhlenbeck process, the usual model of synaptic bombardment.

    Parameters
    ----------
    num_samples : int
        Length.
    dt : float
        Time step in ms.
    rng : np.random.Generator
        Source of randomness.
    tau_ms : float
        Correlation time.

    Returns
    -------
    np.ndarray, [num_samples]
        Of unit variance, stationary from the first sample.

    References
    ----------
    Destexhe, Rudolph, Fellous & Sejnowski 2001, Neuroscience 107:13.
    """
    decay = np.exp(-dt / tau_ms)
    kicks = rng.normal(size=num_samples) * np.sqrt(1.0 - decay**2)
    kicks[0] = rng.normal()
    return lfilter([1.0], [1.0, -decay], kicks)


def steps(
    *, num_samples: int, dt: float, rng: np.random.Generator, length_ms: tuple[float, float] = (30.0, 120.0)
) -> np.ndarray:
    """Draw steps of random height between pauses, which make bursts and short intervals.

    Parameters
    ----------
    num_samples : int
        Length.
    dt : float
        Time step in ms.
    rng : np.random.Generator
        Source of randomness.
    length_ms : tuple of float
        Range of the lengths of steps and of pauses.

    Returns
    -------
    np.ndarray, [num_samples]
        Zero in pauses, a height between 0.5 and 1 in each step.
    """
    current = np.zeros(num_samples)
    position = 0
    while position < num_samples:
        pause, length = (int(ms / dt) for ms in rng.uniform(*length_ms, size=2))
        current[position + pause : position + pause + length] = rng.uniform(0.5, 1.0)
        position += pause + length
    return current
