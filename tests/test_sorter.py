"""The contract of SpikeInterface's sorters, with default parameters and offline."""

import json

import numpy as np
import pytest
import spikeinterface as si
import spikeinterface.comparison as sc
import spikeinterface.sorters as ss
from spikeinterface.core import NumpyRecording
from spikeinterface.sorters import BaseSorter
from spikeinterface.sorters.utils import SpikeSortingError

import spikeinterface_simsort
from spikeinterface_simsort.params import ParameterError
from spikeinterface_simsort.sorter import SimSortSorter
from tests.conftest import elsewhere


def run(recording, folder, **kwargs):
    return ss.run_sorter("simsort", recording, folder=folder, **kwargs)


def noise_recording(tmp_path, *, num_channels=4, duration_s=3.0, rate=30000.0, name="noise"):
    rng = np.random.default_rng(0)
    traces = rng.normal(size=(int(duration_s * rate), num_channels)).astype("float32")
    return NumpyRecording([traces], rate).save(folder=tmp_path / name)


def test_finds_the_units(sorted_trial, trial):
    _, truth = trial
    comparison = sc.compare_sorter_to_ground_truth(truth, sorted_trial, delta_time=1.0, exhaustive_gt=True)
    assert comparison.get_performance()["accuracy"].mean() > 0.7


def test_result(sorted_trial, trial):
    recording, _ = trial
    assert sorted_trial.unit_ids.dtype == np.int64
    assert sorted_trial.sampling_frequency == recording.sampling_frequency
    assert set(sorted_trial.get_property("main_channel_id")) <= set(recording.channel_ids)
    assert np.all(sorted_trial.get_property("snr") >= 2.5)
    assert np.all((sorted_trial.get_property("probability") > 0) & (sorted_trial.get_property("probability") <= 1))
    assert np.all(sorted_trial.get_property("group") == 0)
    for unit in sorted_trial.unit_ids:
        train = sorted_trial.get_unit_spike_train(unit)
        assert np.all(np.diff(train) > 0)
        assert train[0] >= 0 and train[-1] < recording.get_num_samples()


def test_contract(sorted_trial, trial_folder):
    assert issubclass(SimSortSorter, BaseSorter)
    assert "simsort" in ss.available_sorters()
    assert "simsort" in ss.installed_sorters()
    assert SimSortSorter.get_sorter_version() == spikeinterface_simsort.__version__
    description = ss.get_sorter_params_description("simsort")
    assert set(description) == set(ss.get_default_sorter_params("simsort"))
    assert all(len(text) > 10 for text in description.values())
    assert "tetrode" in ss.get_sorter_description("simsort")
    # SpikeInterface registers the recording that was sorted, and says how.
    assert sorted_trial.has_recording()
    assert sorted_trial.sorting_info["params"]["sorter_name"] == "simsort"


def test_parameters_survive_json():
    params = ss.get_default_sorter_params("simsort")
    assert json.loads(json.dumps(params)) == params


def test_reading_the_folder_again(sorted_trial, sorted_folder):
    again = ss.read_sorter_folder(sorted_folder)
    assert np.array_equal(again.to_spike_vector(), sorted_trial.to_spike_vector())
    assert np.array_equal(again.get_property("snr"), sorted_trial.get_property("snr"))
    without = ss.read_sorter_folder(sorted_folder, register_recording=False)
    assert not without.has_recording()


def test_locations_are_kept(sorted_trial, trial):
    recording, _ = trial
    registered = sorted_trial._recording
    assert np.array_equal(registered.get_channel_locations(), recording.get_channel_locations())


def test_existing_folder(trial, tmp_path):
    recording, _ = trial
    short = recording.frame_slice(0, 60000)
    run(short, tmp_path / "out")
    with pytest.raises(ValueError, match="already exists"):
        run(short, tmp_path / "out")
    run(short, tmp_path / "out", remove_existing_folder=True)


def test_delete_output_folder(trial, tmp_path):
    recording, _ = trial
    sorting = run(recording.frame_slice(0, 90000), tmp_path / "out", delete_output_folder=True)
    assert not (tmp_path / "out" / "sorter_output").exists()
    # The result lives on in memory.
    assert sum(sorting.count_num_spikes_per_unit().values()) > 0


def test_two_segments(trial, sorted_trial, tmp_path):
    recording, _ = trial
    half = recording.get_num_samples() // 2
    parts = [recording.frame_slice(0, half), recording.frame_slice(half, recording.get_num_samples())]
    sorting = run(si.append_recordings(parts), tmp_path / "out")
    assert sorting.get_num_segments() == 2
    counts = [sorting.to_spike_vector(concatenated=False)[segment].size for segment in (0, 1)]
    assert min(counts) > 0
    # The cut costs the spikes next to it at most.
    assert abs(sum(counts) - sorted_trial.to_spike_vector().size) < 0.05 * sum(counts)


def test_silent_segments(trial, tmp_path):
    recording, _ = trial
    quiet = noise_recording(tmp_path, duration_s=0.2).rename_channels(recording.channel_ids)
    sorting = run(si.append_recordings([recording.frame_slice(0, 150000), quiet]), tmp_path / "out")
    assert sorting.get_num_segments() == 2
    assert len(sorting.unit_ids) >= 1
    with pytest.warns(UserWarning, match="no unit"):
        none = run(si.append_recordings([noise_recording(tmp_path, name="other"), quiet]), tmp_path / "none")
    assert none.get_num_segments() == 2


def test_segment_too_short(trial, tmp_path):
    recording, _ = trial
    with pytest.raises(SpikeSortingError, match="only 10 samples"):
        run(si.append_recordings([recording, recording.frame_slice(0, 10)]), tmp_path / "out")


def test_groups(trial, sorted_trial, tmp_path):
    recording, _ = trial
    second = elsewhere(recording, [f"second{i}" for i in range(4)])
    both = si.aggregate_channels([recording, second])
    both.set_property("group", ["left"] * 4 + ["right"] * 4)
    sorting = run(both, tmp_path / "out")
    group = sorting.get_property("group")
    num_units = len(sorted_trial.unit_ids)
    assert list(group) == ["left"] * num_units + ["right"] * num_units
    for unit, other in zip(sorting.unit_ids[group == "left"], sorting.unit_ids[group == "right"], strict=True):
        assert np.array_equal(sorting.get_unit_spike_train(unit), sorting.get_unit_spike_train(other))
    assert set(sorting.get_property("main_channel_id")[group == "right"]) <= set(both.channel_ids[4:])


@pytest.mark.parametrize("num_channels", [1, 2, 3, 6])
def test_other_numbers_of_channels(trial, tmp_path, num_channels):
    recording, _ = trial
    if num_channels <= 4:
        part = recording.select_channels(recording.channel_ids[:num_channels])
    else:
        more = elsewhere(recording.select_channels(recording.channel_ids[:2]), ["more0", "more1"])
        part = si.aggregate_channels([recording, more])
        part.set_property("group", [0] * num_channels)
    sorting = run(part, tmp_path / "out")
    assert len(sorting.unit_ids) >= 1
    assert set(sorting.get_property("main_channel_id")) <= set(part.channel_ids)


def test_nothing_to_find(tmp_path):
    with pytest.warns(UserWarning, match="no unit"):
        sorting = run(noise_recording(tmp_path), tmp_path / "out")
    assert sorting.unit_ids.dtype == np.int64
    assert len(sorting.unit_ids) == 0
    truth = si.NumpySorting.from_unit_dict([{0: np.array([1000, 2000])}], 30000.0)
    comparison = sc.compare_sorter_to_ground_truth(truth, sorting)
    assert comparison.get_performance()["accuracy"].iloc[0] == 0.0
    assert len(ss.read_sorter_folder(tmp_path / "out").unit_ids) == 0


def test_one_unit(tmp_path):
    rng = np.random.default_rng(1)
    rate = 30000
    traces = rng.normal(scale=5.0, size=(10 * rate, 4)).astype("float32")
    times = np.arange(500, 10 * rate - 1500, 1500)
    times += rng.integers(0, 500, size=len(times))
    shape = -60.0 * np.exp(-0.5 * (np.arange(-30, 31) / 4.0) ** 2) + 20.0 * np.exp(
        -0.5 * ((np.arange(-30, 31) - 12) / 8.0) ** 2
    )
    for time in times:
        traces[time - 30 : time + 31] += shape[:, None] * np.array([1.0, 0.6, 0.4, 0.3], dtype="float32")
    recording = NumpyRecording([traces], rate).save(folder=tmp_path / "one")
    sorting = run(recording, tmp_path / "out")
    assert len(sorting.unit_ids) == 1
    found = sorting.get_unit_spike_train(sorting.unit_ids[0])
    assert np.mean(np.min(np.abs(found[:, None] - times[None]), axis=0) < 15) > 0.95


def test_numpy_recording_is_saved_first(trial):
    recording, _ = trial
    in_memory = NumpyRecording([recording.get_traces(0, 0, 60000)], 30000.0)
    assert not in_memory.check_serializability("json")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"detect_threshold": 2.0}, "detect_threshold must be from"),
        ({"detect_threshold": float("nan")}, "detect_threshold must be from"),
        ({"preset": "best"}, "preset must be one of"),
        ({"seed": "zero"}, "seed must be of type int"),
        ({"freq_min": 5000.0, "freq_max": 400.0}, "freq_max"),
        ({"min_spikes": True}, "min_spikes must be of type int"),
    ],
)
def test_bad_parameters(trial, tmp_path, params, message):
    recording, _ = trial
    with pytest.raises(ParameterError, match=message):
        run(recording, tmp_path / "out", **params)


def test_unknown_parameter(trial, tmp_path):
    recording, _ = trial
    with pytest.raises(ValueError, match="Invalid parameters"):
        run(recording, tmp_path / "out", treshold=3)


def test_missing_device(trial, tmp_path):
    recording, _ = trial
    with pytest.raises(SpikeSortingError, match="no device 'cuda:99'"):
        run(recording, tmp_path / "out", device="cuda:99")


def test_missing_weights(trial, tmp_path):
    recording, _ = trial
    with pytest.raises(SpikeSortingError, match="WeightsError"):
        run(recording, tmp_path / "out", weights=str(tmp_path / "nowhere"))
    # A failed run leaves nothing that reads as a result.
    with pytest.raises(SpikeSortingError):
        ss.read_sorter_folder(tmp_path / "out")


@pytest.mark.parametrize(
    ("duration_s", "rate", "message"),
    [(0.5, 30000.0, "at least 1 s"), (3.0, 1000.0, "5000 Hz or more")],
)
def test_unsuitable_recordings(tmp_path, duration_s, rate, message):
    with pytest.raises(SpikeSortingError, match=message):
        run(noise_recording(tmp_path, duration_s=duration_s, rate=rate), tmp_path / "out")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan(trial, tmp_path, value):
    # One sample anywhere: too little for an estimate from random chunks to see.
    traces = trial[0].get_traces().copy()
    traces[400_123, 1] = value
    recording = NumpyRecording([traces], 30000.0).save(folder=tmp_path / "nan")
    with pytest.raises(SpikeSortingError, match="NaN or inf"):
        run(recording, tmp_path / "out")


@pytest.mark.parametrize(("constant", "params"), [(0.0, {}), (5.0, {}), (5.0, {"whiten": True})])
def test_dead_channel(trial, tmp_path, caplog, constant, params):
    recording, _ = trial
    traces = recording.get_traces().copy()
    traces[:, 2] = constant
    dead = NumpyRecording([traces], 30000.0).save(folder=tmp_path / "dead")
    sorting = run(dead, tmp_path / "out", **params)
    assert "dead" in caplog.text
    assert len(sorting.unit_ids) >= 2
    assert 2 not in sorting.get_property("main_channel_id")
