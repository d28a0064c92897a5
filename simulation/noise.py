"""Background noise of an electrode: coloured in time, correlated over channels."""

from __future__ import annotations

import numpy as np
from scipy import fft

# The band in which the level of the noise is measured: where spikes are.
SPIKE_BAND_HZ = (300.0, 6000.0)


def coloured_noise(
    *,
    num_samples: int,
    contact_positions: np.ndarray,
    sampling_frequency: float,
    rng: np.random.Generator,
    level_uv: float,
    exponent: float = 1.0,
    corner_hz: float = 500.0,
    length_constant_um: float = 50.0,
    correlation: float = 0.3,
) -> np.ndarray:
    """Draw Gaussian noise whose power falls as 1/f^exponent onto a flat floor.

    Parameters
    ----------
    num_samples : int
        Number of samples.
    contact_positions : np.ndarray, [num_channels, 3]
        Contacts, in um: the correlation falls with their distance.
    sampling_frequency : float
        In Hz.
    rng : np.random.Generator
        Source of randomness.
    level_uv : float
        Standard deviation between 300 and 6000 Hz, in uV.
    exponent : float
        Exponent of the coloured part of the power spectrum.
    corner_hz : float
        Where the coloured part equals the flat floor.
    length_constant_um : float
        Distance over which the correlation falls to 1/e of `correlation`.
    correlation : float
        Correlation of two contacts at the same place.

    Returns
    -------
    np.ndarray, float32 [num_samples, num_channels]
        Noise in uV.
    """
    num_channels = len(contact_positions)
    # A transform of a fast length, cut to the samples wanted.
    length = fft.next_fast_len(num_samples, real=True)
    frequencies = fft.rfftfreq(length, 1.0 / sampling_frequency)
    # Below 1 Hz the 1/f part would only be an offset.
    power = 1.0 + (corner_hz / np.maximum(frequencies, 1.0)) ** exponent
    in_band = (frequencies >= SPIKE_BAND_HZ[0]) & (frequencies <= SPIKE_BAND_HZ[1])
    if not in_band.any():
        raise ValueError(f"The level of the noise is measured above {SPIKE_BAND_HZ[0]} Hz: sample faster, or longer.")
    gain = np.sqrt(power)
    band_power = float(np.sum(power[in_band])) * 2.0 / length
    spectrum = fft.rfft(rng.standard_normal((num_channels, length), dtype="float32"), axis=1)
    spectrum *= (gain * (level_uv / np.sqrt(band_power))).astype("float32")
    spectrum[:, 0] = 0.0
    noise = fft.irfft(spectrum, n=length, axis=1)[:, :num_samples]

    distance = np.linalg.norm(contact_positions[:, None] - contact_positions[None], axis=2)
    covariance = correlation * np.exp(-distance / length_constant_um)
    np.fill_diagonal(covariance, 1.0)
    return (np.linalg.cholesky(covariance).astype("float32") @ noise).T


def line_hum(
    *, num_samples: int, sampling_frequency: float, hum_hz: float, gains: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw the hum of the mains: a sine with its third and fifth harmonic, in phase on all channels.

    Parameters
    ----------
    num_samples : int
        Number of samples.
    sampling_frequency : float
        In Hz.
    hum_hz : float
        Of the mains, 50 or 60.
    gains : np.ndarray, [num_channels]
        Amplitude on each channel.
    rng : np.random.Generator
        For the phases.

    Returns
    -------
    np.ndarray, float32 [num_samples, num_channels]
        In the unit of `gains`.
    """
    angle = 2 * np.pi * hum_hz / sampling_frequency * np.arange(num_samples)
    wave = np.zeros(num_samples)
    for harmonic, amplitude in ((1, 1.0), (3, 0.3), (5, 0.1)):
        phase = rng.uniform(0, 2 * np.pi)
        if harmonic * hum_hz < sampling_frequency / 2:
            wave += amplitude * np.sin(harmonic * angle + phase)
    return np.outer(wave, gains).astype("float32")


def motion_artefacts(
    *,
    num_samples: int,
    sampling_frequency: float,
    rate_hz: float,
    amplitude_uv: float,
    num_channels: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw artefacts of movement and chewing: short stretches of noise below 800 Hz, nearly the same on all channels.

    Parameters
    ----------
    num_samples : int
        Number of samples.
    sampling_frequency : float
        In Hz.
    rate_hz : float
        Stretches a second.
    amplitude_uv : float
        Standard deviation in the middle of a stretch.
    num_channels : int
        Number of channels, which differ by a tenth in amplitude.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    np.ndarray, float32 [num_samples, num_channels]
        In uV.
    """
    wave = np.zeros(num_samples)
    duration_s = num_samples / sampling_frequency
    for centre in rng.uniform(0, duration_s, size=rng.poisson(rate_hz * duration_s)):
        half = int(rng.uniform(0.02, 0.2) * sampling_frequency)
        length = 2 * half + 1
        frequencies = fft.rfftfreq(length, 1.0 / sampling_frequency)
        spectrum = fft.rfft(rng.normal(size=length)) / np.sqrt(1.0 + np.maximum(frequencies, 5.0) / 30.0)
        spectrum[(frequencies > 800.0) | (frequencies < 5.0)] = 0.0
        bump = fft.irfft(spectrum, n=length)
        bump *= amplitude_uv / max(float(bump.std()), 1e-12) * np.hanning(length)
        start = int(centre * sampling_frequency) - half
        inside = slice(max(-start, 0), length - max(start + length - num_samples, 0))
        wave[start + inside.start : start + inside.stop] += bump[inside]
    return np.outer(wave, 1.0 + 0.1 * rng.normal(size=num_channels)).astype("float32")
