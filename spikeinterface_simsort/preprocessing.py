"""From a raw recording to the traces that the networks know."""

from __future__ import annotations

import logging

import numpy as np
from spikeinterface.core import BaseRecording, get_random_data_chunks
from spikeinterface.preprocessing import clip, unsigned_to_signed, whiten

from spikeinterface_simsort.band_pass import BandPass
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.resampling import NYQUIST_SHARE
from spikeinterface_simsort.saturation import SilenceSaturated, find_still, still_samples

logger = logging.getLogger(__name__)

# The filter's ends reach so far, at most.
_MIN_SEGMENT_SAMPLES = 100
# Median absolute deviation of a Gaussian, in standard deviations.
_MAD_OF_SD = 0.6744897501960817
# Stretches whose noise is so many times smaller or larger than is usual do not count: gaps, artefacts.
_UNUSUAL = 3.0
# A signal that stands still so far from its median, in standard deviations, is no signal.
_BEYOND = 10.0
_MOST, _WORTH_TELLING = 0.5, 0.001
# In units of noise; waveforms are kept in half precision, which ends at 65504, and between samples they reach farther.
_LARGEST = 10000.0
# Less is the filter's own: float32 could not hold its reciprocal.
_SMALLEST = 1e-30


class RecordingError(ValueError):
    """A recording cannot be sorted; the message says what to do."""


def preprocess(recording: BaseRecording, *, params: SimSortParams) -> BaseRecording:
    """Band-pass a recording, scale each channel to unit noise, and silence where an amplifier was saturated.

    The result does not depend on the gain, the offset or the type of the samples.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces, of any gain, type and rate.
    params : SimSortParams
        Resolved; uses `freq_min`, `freq_max`, `whiten` and `seed`.

    Returns
    -------
    BaseRecording
        Lazy, float32, in units of each channel's noise. A dead channel is zero, and so is one that is saturated most of
        the time.

    Raises
    ------
    RecordingError
        The recording is too short or too slow, has no channel, or holds NaN or inf.
    """
    rate = recording.get_sampling_frequency()
    check_recording(recording)
    assert params.freq_min is not None and params.freq_max is not None
    if np.dtype(recording.get_dtype()).kind == "u":
        recording = unsigned_to_signed(recording)
    if params.freq_min >= NYQUIST_SHARE * rate / 2:
        raise RecordingError(
            f"A sampling frequency of {rate:g} Hz holds nothing above {NYQUIST_SHARE * rate / 2:g} Hz, and freq_min is "
            f"{params.freq_min:g} Hz: choose a lower one."
        )
    band = params.freq_min, min(params.freq_max, NYQUIST_SHARE * rate / 2)
    filtered = BandPass(recording, *band)
    noise = estimate_noise(filtered, seed=params.seed)
    raw = get_random_data_chunks(recording, return_in_uV=False, seed=params.seed, concatenated=False)
    dead = find_dead(raw, noise, sampling_frequency=rate)
    if dead.any():
        logger.warning(
            "Channels %s are dead (constant, or saturated most of the time): they are left out.",
            recording.channel_ids[dead].tolist(),
        )
    lower, upper = find_bounds(raw, noise)
    _warn_of_saturation(recording, raw, lower=lower, upper=upper, among=~dead)
    gain = np.where(dead, 0.0, 1.0 / np.where(dead, 1.0, np.maximum(noise, _SMALLEST)))
    scaled = BandPass(recording, *band, factors=gain)
    scaled = SilenceSaturated(clip(scaled, -_LARGEST, _LARGEST), recording, lower, upper)
    if params.whiten and not dead.all() and recording.get_num_channels() > 1:
        # Dead channels stay at zero: `whiten` bounds its singular values from below.
        scaled = whiten(scaled, dtype="float32", seed=params.seed)
    return scaled


def estimate_noise(filtered: BaseRecording, *, seed: int) -> np.ndarray:
    """Estimate the noise of each channel from random stretches, as `get_noise_levels` does, but for unusual ones.

    Parameters
    ----------
    filtered : BaseRecording
        Band-passed.
    seed : int
        Of the stretches.

    Returns
    -------
    np.ndarray, float32 [num_channels]
        Standard deviation, by the median absolute deviation; 0 of a channel that is silent.

    Raises
    ------
    RecordingError
        There is NaN or inf.
    """
    stretches = get_random_data_chunks(filtered, return_in_uV=False, seed=seed, concatenated=False)
    levels = np.stack([np.median(np.abs(x - np.median(x, axis=0)), axis=0) / _MAD_OF_SD for x in stretches])
    check_finite(levels)
    usual = np.array([np.median(level[level > 0]) if (level > 0).any() else 0.0 for level in levels.T])
    counts = (levels >= usual / _UNUSUAL) & (levels <= usual * _UNUSUAL)
    if counts.all():
        return levels.mean(axis=0)
    return np.array([level[counted].mean() for level, counted in zip(levels.T, counts.T, strict=True)])


def find_dead(raw: list[np.ndarray], noise: np.ndarray, *, sampling_frequency: float) -> np.ndarray:
    """Find channels that are constant, or stand still at one end of their range most of the time.

    Parameters
    ----------
    raw : list of np.ndarray [num_samples, num_channels]
        Stretches of raw samples: of a constant the filter leaves rounding errors, which are no noise.
    noise : np.ndarray [num_channels]
        Of the filtered traces.
    sampling_frequency : float
        In Hz.

    Returns
    -------
    np.ndarray, bool [num_channels]
    """
    lowest, highest = (
        np.min([x.min(axis=0) for x in raw], axis=0),
        np.max([x.max(axis=0) for x in raw], axis=0),
    )
    min_samples = still_samples(sampling_frequency)
    saturated = sum(
        find_still(x, min_samples=min_samples, among=(x == lowest) | (x == highest)).sum(axis=0) for x in raw
    )
    return (noise <= 0) | (lowest == highest) | (saturated > _MOST * sum(map(len, raw)))


def find_bounds(raw: list[np.ndarray], noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the range of each channel beyond which its signal does not stand still.

    Parameters
    ----------
    raw : list of np.ndarray [num_samples, num_channels]
        Stretches of raw samples.
    noise : np.ndarray [num_channels]
        Of the filtered traces: a signal varies as much at least.

    Returns
    -------
    lower, upper : np.ndarray, float64 [num_channels]
    """
    samples = np.concatenate(raw).astype("float64")
    centre = np.median(samples, axis=0)
    spread = np.maximum(np.median(np.abs(samples - centre), axis=0) / _MAD_OF_SD, noise)
    return centre - _BEYOND * spread, centre + _BEYOND * spread


def _warn_of_saturation(
    recording: BaseRecording, raw: list[np.ndarray], *, lower: np.ndarray, upper: np.ndarray, among: np.ndarray
) -> None:
    min_samples = still_samples(recording.get_sampling_frequency())
    saturated = sum(find_still(x, min_samples=min_samples, among=(x < lower) | (x > upper)).sum(axis=0) for x in raw)
    share = np.where(among, saturated / sum(map(len, raw)), 0.0)
    if share.max() > _WORTH_TELLING:
        logger.warning(
            "Channels %s are saturated up to %.0f %% of the time: they are silenced there.",
            recording.channel_ids[share > _WORTH_TELLING].tolist(),
            np.ceil(100 * share.max()),
        )


def check_finite(values: np.ndarray) -> None:
    """Refuse NaN and inf, which would silence all that is near them.

    Raises
    ------
    RecordingError
        With what to do about it.
    """
    if not np.all(np.isfinite(values)):
        raise RecordingError(
            "The recording holds NaN or inf, or numbers that are too large for float32. Replace them first, for "
            "example with zeros (spikeinterface.preprocessing.silence_periods) where samples are missing."
        )


def check_recording(recording: BaseRecording) -> None:
    """Refuse what no sorter could sort.

    Raises
    ------
    RecordingError
        With what to do about it.
    """
    if recording.get_num_channels() == 0:
        raise RecordingError("The recording has no channels.")
    dtype = np.dtype(recording.get_dtype())
    if dtype.kind not in "iuf" or dtype == np.dtype("uint64"):
        raise RecordingError(
            f"The samples are of type {dtype}, which is not sorted: convert them first, for example to float32 "
            "(spikeinterface.preprocessing.astype)."
        )
    rate = recording.get_sampling_frequency()
    if rate < 5000:
        raise RecordingError(
            f"The sampling frequency is {rate:g} Hz; spikes need 5000 Hz or more. "
            "Is this a recording of field potentials?"
        )
    shortest = min(recording.get_num_samples(segment) for segment in range(recording.get_num_segments()))
    if shortest < _MIN_SEGMENT_SAMPLES:
        raise RecordingError(f"A segment has only {shortest} samples: leave it out (recording.select_segments).")
    duration = recording.get_total_duration()
    if duration < 1.0:
        raise RecordingError(f"The recording lasts {duration:.3g} s; at least 1 s is needed.")
