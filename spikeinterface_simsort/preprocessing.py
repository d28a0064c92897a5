"""From a raw recording to the traces that the networks know."""

from __future__ import annotations

import logging

import numpy as np
from spikeinterface.core import BaseRecording, get_noise_levels, get_random_data_chunks
from spikeinterface.preprocessing import bandpass_filter, scale, unsigned_to_signed, whiten

from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.resampling import NYQUIST_SHARE

logger = logging.getLogger(__name__)

# The filter has rung out within this margin to less than float32 can tell: chunks do not show in the result.
_FILTER_MARGIN_MS = 40.0
_FILTER_ORDER = 3
# The filter starts from its own reflection of so many samples, at most.
_MIN_SEGMENT_SAMPLES = 100


class RecordingError(ValueError):
    """A recording cannot be sorted; the message says what to do."""


def preprocess(recording: BaseRecording, *, params: SimSortParams) -> BaseRecording:
    """Band-pass a recording and scale each channel to unit noise.

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
        Lazy, float32, in units of each channel's noise. A dead channel is zero.

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
    filtered = bandpass_filter(
        recording,
        freq_min=params.freq_min,
        freq_max=min(params.freq_max, NYQUIST_SHARE * rate / 2),
        filter_order=_FILTER_ORDER,
        margin_ms=_FILTER_MARGIN_MS,
        dtype="float32",
    )
    noise = get_noise_levels(
        filtered, return_in_uV=False, random_slices_kwargs={"seed": params.seed}, progress_bar=False
    )
    check_finite(noise)
    # Of a constant the filter leaves rounding errors, which are no noise: the raw samples tell.
    raw = get_random_data_chunks(recording, return_in_uV=False, seed=params.seed)
    dead = (noise <= 0) | (np.ptp(raw, axis=0) == 0)
    if dead.any():
        logger.warning("Channels %s are dead (constant): they are left out.", list(recording.channel_ids[dead]))
    scaled = scale(filtered, gain=np.where(dead, 0.0, 1.0 / np.where(dead, 1.0, noise)), dtype="float32")
    if params.whiten and not dead.all() and recording.get_num_channels() > 1:
        # Dead channels stay at zero: `whiten` bounds its singular values from below.
        scaled = whiten(scaled, dtype="float32", seed=params.seed)
    return scaled


def check_finite(values: np.ndarray) -> None:
    """Refuse NaN and inf, which would silence all that is near them.

    Raises
    ------
    RecordingError
        With what to do about it.
    """
    if not np.all(np.isfinite(values)):
        raise RecordingError(
            "The recording holds NaN or inf. Replace them first, for example with zeros "
            "(spikeinterface.preprocessing.silence_periods) where samples are missing."
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
