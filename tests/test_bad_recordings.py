"""Recordings that something is wrong with: sorted as well as can be, or refused with what to do."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import spikeinterface.comparison as sc
from spikeinterface.core import BaseRecording, NumpyRecording, NumpySorting, get_noise_levels
from spikeinterface.preprocessing import bandpass_filter, remove_artifacts

from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.pipeline import sort
from spikeinterface_simsort.preprocessing import RecordingError, estimate_noise, preprocess
from spikeinterface_simsort.saturation import find_still

RATE = 30000
# Of an amplifier of 0.195 uV a step.
STEP_UV = 0.195
PARAMS = SimSortParams().resolve()


@pytest.fixture(scope="module")
def samples(trial: Any) -> np.ndarray:
    """The trial as an amplifier with an offset records it."""
    return np.round(trial[0].get_traces() / STEP_UV + 500).astype("int16")


def accuracy(recording: Any, truth: Any, params: SimSortParams | None = None) -> float:
    """Mean over the true units."""
    comparison: Any = sc.compare_sorter_to_ground_truth(
        truth, sort(recording, params=params), delta_time=1.0, exhaustive_gt=True
    )
    return comparison.get_performance()["accuracy"].mean()


def without(truth: Any, gaps: np.ndarray) -> NumpySorting:
    """The truth but for the spikes at some times."""
    trains = {unit: truth.get_unit_spike_train(unit) for unit in truth.unit_ids}
    return NumpySorting.from_unit_dict([{unit: train[~gaps[train]] for unit, train in trains.items()}], RATE)


# Gaps, saturation, artefacts


@pytest.mark.parametrize("filled_with", [pytest.param(0, marks=pytest.mark.slow), -32768])
def test_gaps(samples: np.ndarray, trial: Any, filled_with: int, caplog: pytest.LogCaptureFixture) -> None:
    gaps = np.zeros(len(samples), dtype=bool)
    for second in range(1, 20, 4):
        gaps[second * RATE : second * RATE + RATE // 2] = True
    traces = samples.copy()
    traces[gaps] = filled_with
    assert accuracy(NumpyRecording([traces], RATE), without(trial[1], gaps)) > 0.9
    if filled_with:
        assert "Channels [0, 1, 2, 3] are saturated" in caplog.text


@pytest.mark.slow
def test_saturation_of_all_channels(samples: np.ndarray, trial: Any) -> None:
    traces, rng = samples.copy(), np.random.default_rng(0)
    gaps = np.zeros(len(samples), dtype=bool)
    for start in rng.integers(0, len(traces) - 6000, size=15):
        traces[start : start + 6000] = 32767
        gaps[start - 300 : start + 6300] = True
    assert accuracy(NumpyRecording([traces], RATE), without(trial[1], gaps)) > 0.9


@pytest.mark.parametrize("share", [0.6, 0.95])
def test_channel_that_is_saturated_is_left_out(
    samples: np.ndarray, caplog: pytest.LogCaptureFixture, share: float
) -> None:
    traces, rng = samples.copy(), np.random.default_rng(0)
    held = rng.random(len(traces) // 6000) < share
    traces[np.repeat(held, 6000), 2] = 32767
    preprocessed: Any = preprocess(NumpyRecording([traces], RATE), params=PARAMS)
    assert "Channels [2] are dead (constant, or saturated most of the time)" in caplog.text
    alone: Any = preprocess(NumpyRecording([samples], RATE), params=PARAMS)
    np.testing.assert_array_equal(preprocessed.get_traces()[:, 2], 0.0)
    np.testing.assert_array_equal(preprocessed.get_traces()[:, [0, 1, 3]], alone.get_traces()[:, [0, 1, 3]])


def stimulate(samples: np.ndarray, *, peak_uv: float, rate_hz: float) -> tuple[np.ndarray, list[int]]:
    """Put pulses of 0.2 ms each way and what decays after them into a recording, and tell where."""
    ms = np.arange(int(0.03 * RATE)) / RATE * 1000
    pulse = np.where(ms < 0.2, -1.0, np.where(ms < 0.4, 1.0, 0.5 * np.exp(-(ms - 0.4) / 3.0)))
    traces = samples.astype("float64")
    triggers = [int((pulse_index + 0.3) / rate_hz * RATE) for pulse_index in range(int(19 * rate_hz))]
    for trigger in triggers:
        traces[trigger : trigger + len(pulse)] += (peak_uv / STEP_UV * pulse)[:, None] * [1.0, 0.9, 0.8, 0.95]
    return np.clip(np.round(traces), -32768, 32767).astype("int16"), triggers


def test_stimulation_that_saturates(samples: np.ndarray, trial: Any) -> None:
    traces, triggers = stimulate(samples, peak_uv=20000.0, rate_hz=5.0)
    gaps = np.zeros(len(samples), dtype=bool)
    for trigger in triggers:
        gaps[trigger - 300 : trigger + 900] = True
    assert accuracy(NumpyRecording([traces], RATE), without(trial[1], gaps)) > 0.8


@pytest.mark.slow
def test_stimulation_removed_as_the_documentation_says(samples: np.ndarray, trial: Any) -> None:
    traces, triggers = stimulate(samples, peak_uv=300.0, rate_hz=20.0)
    gaps = np.zeros(len(samples), dtype=bool)
    for trigger in triggers:
        gaps[trigger - 30 : trigger + 150] = True
    recording = remove_artifacts(NumpyRecording([traces], RATE), triggers, ms_before=0.5, ms_after=4.0, mode="linear")
    assert accuracy(recording, without(trial[1], gaps)) > 0.9


@pytest.mark.slow
def test_one_channel_that_is_saturated_at_times(samples: np.ndarray, trial: Any) -> None:
    traces = samples.copy()
    for second in (2, 7, 12):
        traces[second * RATE : (second + 1) * RATE, 2] = -32768
    assert accuracy(NumpyRecording([traces], RATE), trial[1]) > 0.7


@pytest.mark.slow
def test_loud_channels(samples: np.ndarray, trial: Any) -> None:
    """One that is connected to nothing but the mains, and one to nothing at all."""
    traces = samples.astype("float64")
    traces[:, 1] += 3000 / STEP_UV * np.sin(2 * np.pi * 50 * np.arange(len(traces)) / RATE)
    traces[:, 3] = np.random.default_rng(0).normal(scale=1000.0, size=len(traces))
    assert accuracy(NumpyRecording([np.round(traces).astype("int32")], RATE), trial[1]) > 0.8


# How that is done


def test_nothing_changes_where_nothing_is_wrong(samples: np.ndarray) -> None:
    recording = NumpyRecording([samples], RATE)
    filtered = bandpass_filter(
        recording, freq_min=300.0, freq_max=6000.0, filter_order=3, margin_ms=40.0, dtype="float32"
    )
    noise = get_noise_levels(filtered, return_in_uV=False, random_slices_kwargs={"seed": 0})
    np.testing.assert_array_equal(estimate_noise(filtered, seed=0), noise)
    preprocessed: Any = preprocess(recording, params=PARAMS)
    traces = filtered.get_traces(end_frame=60000)
    np.testing.assert_allclose(preprocessed.get_traces(end_frame=60000), traces / noise, rtol=1e-5, atol=1e-5)


def test_a_band_beyond_what_the_rate_holds() -> None:
    recording = NumpyRecording([np.random.default_rng(0).normal(size=(10000, 4)).astype("float32")], 5000.0)
    with pytest.raises(RecordingError, match="nothing above 2250 Hz, and freq_min is 2400 Hz"):
        preprocess(recording, params=replace(PARAMS, freq_min=2400.0))


def test_noise_is_that_outside_of_gaps_and_artefacts(samples: np.ndarray) -> None:
    expected = estimate_noise(bandpass_filter(NumpyRecording([samples], RATE), dtype="float32"), seed=0)
    traces = samples.copy()
    traces[: 6 * RATE] = 500
    traces[6 * RATE : 7 * RATE] *= 20
    noise = estimate_noise(bandpass_filter(NumpyRecording([traces], RATE), dtype="float32"), seed=0)
    np.testing.assert_allclose(noise, expected, rtol=0.1)


def naive_still(traces: np.ndarray, min_samples: int) -> np.ndarray:
    still = np.zeros(traces.shape, dtype=bool)
    for channel in range(traces.shape[1]):
        for start in range(len(traces) - min_samples + 1):
            stretch = slice(start, start + min_samples)
            if np.ptp(traces[stretch, channel]) == 0:
                still[stretch, channel] = True
    return still


@pytest.mark.parametrize("min_samples", [2, 3, 5])
def test_still_stretches(min_samples: int) -> None:
    traces = np.random.default_rng(0).integers(0, 3, size=(400, 3))
    found = find_still(traces, min_samples=min_samples)
    np.testing.assert_array_equal(found, naive_still(traces, min_samples))
    assert 0 < found.sum() < found.size
    zeros = find_still(traces, min_samples=min_samples, among=traces == 0)
    np.testing.assert_array_equal(zeros, found & (traces == 0))
    assert find_still(traces[:1], min_samples=min_samples).sum() == 0


def saturated_recording() -> BaseRecording:
    traces = np.random.default_rng(0).normal(scale=20.0, size=(3 * RATE, 4)).round().astype("int16")
    for start, length, channels in (
        (5000, 29, [0]),
        (10000, 30, [0]),
        (20000, 3000, [1]),
        (40000, 500, [0, 2]),
        (0, 60, [3]),
        (3 * RATE - 45, 45, [3]),
    ):
        traces[start : start + length, channels] = 3000
    return NumpyRecording([traces], RATE)


def test_what_is_silenced() -> None:
    silenced: Any = preprocess(saturated_recording(), params=PARAMS)
    silent = silenced.get_traces() == 0
    smeared = 300
    # Too short to be more than a clipped spike.
    assert not silent[4000:6000].any()
    np.testing.assert_array_equal(np.flatnonzero(silent[:15000, 0])[[0, -1]], [10000 - smeared, 10029 + smeared])
    assert silent[20000 - smeared : 23000 + smeared, 1].all()
    assert not silent[20000:23000, [0, 2, 3]].any()
    # Half of the channels: all.
    assert silent[40000 - smeared : 40500 + smeared].all()
    assert silent[: 60 + smeared, 3].all() and silent[-45 - smeared :, 3].all()
    assert silent.sum() == (30 + 2 * smeared) + (3000 + 2 * smeared) + 4 * (500 + 2 * smeared) + (105 + 2 * smeared)


def test_silence_does_not_depend_on_the_chunk() -> None:
    recording: Any = preprocess(saturated_recording(), params=PARAMS)
    whole = recording.get_traces() == 0
    for first, last in [(9900, 10010), (10015, 10100), (21000, 22000), (23250, 23400), (39700, 39701), (89000, 90000)]:
        np.testing.assert_array_equal(recording.get_traces(0, first, last) == 0, whole[first:last])
    some: Any = recording.get_traces(0, 39000, 41000, channel_ids=recording.channel_ids[[3, 1]])
    np.testing.assert_array_equal(some == 0, whole[39000:41000, [3, 1]])
    again: Any = pickle.loads(pickle.dumps(preprocess(saturated_recording(), params=PARAMS)))
    np.testing.assert_array_equal(again.get_traces(0, 39000, 41000) == 0, whole[39000:41000])


# What is refused, and the smallest that is not


def spikes_in_noise(times: np.ndarray, *, noise: float, num_seconds: int = 4) -> np.ndarray:
    samples = np.arange(-30, 31)
    shape = -60.0 * np.exp(-0.5 * (samples / 4.0) ** 2) + 20.0 * np.exp(-0.5 * ((samples - 12) / 8.0) ** 2)
    traces = np.random.default_rng(0).normal(scale=noise or 1.0, size=(num_seconds * RATE, 4)) * bool(noise)
    for time in times:
        traces[time - 30 : time + 31] += shape[:, None] * [1.0, 0.6, 0.4, 0.3]
    return traces.astype("float32")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((60000, 0), dtype="float32"), "no channels"),
        (np.zeros((60000, 2), dtype="complex64"), "type complex64, which is not sorted: convert"),
        (np.zeros((60000, 2), dtype="uint64"), "type uint64, which is not sorted: convert"),
        (np.zeros((60000, 2), dtype=bool), "type bool, which is not sorted: convert"),
        (np.full((60000, 2), 1e200) * np.random.default_rng(0).normal(size=(60000, 2)), "too large for float32"),
    ],
    ids=["no channels", "complex", "uint64", "bool", "overflow"],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_refused(samples: np.ndarray, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        sort(NumpyRecording([samples], RATE))


def test_one_spike() -> None:
    sorting: Any = sort(
        NumpyRecording([spikes_in_noise(np.array([50000]), noise=5.0)], RATE), params=SimSortParams(min_spikes=1)
    )
    assert len(sorting.unit_ids) == 1
    assert abs(int(sorting.get_unit_spike_train(0)[0]) - 50000) < 10


@pytest.mark.parametrize("noise", [0.0, 1e-6, 0.1])
def test_identical_spikes(noise: float) -> None:
    times = np.arange(1000, 115000, 1500)
    sorting: Any = sort(NumpyRecording([spikes_in_noise(times, noise=noise)], RATE))
    assert len(sorting.unit_ids) >= 1 and np.isfinite(sorting.get_property("snr")).all()
    found = sorting.get_unit_spike_train(sorting.unit_ids[0])
    assert np.mean(np.min(np.abs(found[None] - times[:, None]), axis=1) < 15) > 0.95


@pytest.mark.parametrize("whiten", [False, True])
def test_no_noise_at_all(whiten: bool) -> None:
    """Of zeros, the filter leaves what float32 can just tell from nothing."""
    traces = np.zeros((16500, 4), dtype="int16")
    traces[6030:6059] = np.random.default_rng(0).integers(-60, 60, size=(29, 4))
    recording = NumpyRecording([traces], 15000.0)
    filtered = bandpass_filter(recording, freq_min=250.0, freq_max=6750.0, filter_order=3, margin_ms=40.0)
    assert np.all(estimate_noise(filtered.astype("float32"), seed=0) < 1e-30)
    preprocessed: Any = preprocess(recording, params=replace(PARAMS, freq_min=250.0, freq_max=10000.0, whiten=whiten))
    assert np.isfinite(preprocessed.get_traces()).all()


def test_all_channels_dead(caplog: pytest.LogCaptureFixture) -> None:
    sorting = sort(NumpyRecording([np.full((2 * RATE, 4), 7, dtype="int16")], RATE))
    assert len(sorting.unit_ids) == 0 and "Channels [0, 1, 2, 3] are dead" in caplog.text
