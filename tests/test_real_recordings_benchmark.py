"""Measures of units without the truth, on recordings whose truth is known: do they tell good units from bad ones?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spikeinterface as si
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting

from benchmarks.catalogue import Dataset
from benchmarks.real_recordings import (
    METRICS,
    as_markdown,
    draw,
    is_well_isolated,
    keep_recording,
    main,
    measure_runs,
    num_finders,
    read_recordings,
    summarise,
    unit_quality,
)
from benchmarks.recordings import sorting_of
from benchmarks.runs import RESULT_FILE, Run, run_folder
from benchmarks.spike_file import write_spikes
from benchmarks.worker import SPIKES_FILE

Trial = tuple[BaseRecording, BaseSorting]


def trains_of(sorting: BaseSorting) -> dict[int, np.ndarray]:
    return {index: sorting.get_unit_spike_train(unit) for index, unit in enumerate(sorting.unit_ids)}


def sorting_like(trial: Trial, trains: dict[int, np.ndarray]) -> BaseSorting:
    return sorting_of(trains, rate=trial[1].get_sampling_frequency())


@pytest.fixture(scope="module")
def true_units(trial: Trial) -> pd.DataFrame:
    return unit_quality(*trial)


@pytest.fixture
def dataset(trial: Trial, tmp_path: Path) -> Dataset:
    return keep_recording(trial[0], folder=tmp_path / "data", family="there", name="a")


def keep_run(dataset: Dataset, sorter: str, sorting: BaseSorting | None, *, folder: Path) -> Run:
    """A run that went well, or that failed where there is no sorting."""
    names = {"family": dataset.family, "dataset": dataset.name, "sorter": sorter}
    if sorting is None:
        return Run(**names, status="failed", message="of its own")
    target = run_folder(dataset, sorter, folder=folder)
    target.mkdir(parents=True)
    write_spikes(target / SPIKES_FILE, sorting)
    return Run(**names, status="ok", seconds=1.5)


def write_raw(folder: Path, traces: np.ndarray, *, rate: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    traces.astype("int16").tofile(folder / "first.raw")
    info = {"sample_rate": rate, "shape": [-1, traces.shape[1]], "dtype": "int16"}
    (folder / "info.json").write_text(json.dumps(info), encoding="utf8")
    return folder


def test_true_units_keep_the_refractory_period(true_units: pd.DataFrame, trial: Trial) -> None:
    truth = trial[1]
    assert true_units["unit"].tolist() == truth.unit_ids.astype(str).tolist()
    assert true_units["num_spikes"].tolist() == list(truth.count_num_spikes_per_unit().values())
    assert (true_units["rp_contamination"] < 0.05).all() and (true_units["isi_violations_ratio"] < 0.05).all()
    assert (true_units["presence_ratio"] > 0.5).all() and (true_units["snr"] > 2.0).all()
    np.testing.assert_allclose(true_units["firing_rate"], true_units["num_spikes"] / 20.0, rtol=0.01)


def test_merged_units_violate_it(true_units: pd.DataFrame, trial: Trial) -> None:
    trains = trains_of(trial[1])
    merged = unit_quality(trial[0], sorting_like(trial, {0: np.sort(np.concatenate(list(trains.values())))})).iloc[0]
    assert merged["rp_violations"] > true_units["rp_violations"].sum()
    assert merged["rp_contamination"] > 0.3 > true_units["rp_contamination"].max()
    assert merged["isi_violations_ratio"] > true_units["isi_violations_ratio"].max()


def test_noise_has_no_snr(trial: Trial) -> None:
    frames = np.random.default_rng(0).integers(100, trial[0].get_num_samples() - 100, size=400)
    unit = unit_quality(trial[0], sorting_like(trial, {0: np.sort(frames)}))
    assert unit["snr"][0] < 1.0 and unit["rp_contamination"][0] > 0.5 and not is_well_isolated(unit).any()


def test_measures_are_the_same_each_time(trial: Trial) -> None:
    # So many units of nothing that some draw would find another main channel for one of them.
    frames = np.random.default_rng(0).integers(100, trial[0].get_num_samples() - 100, size=(10, 300))
    noise = sorting_like(trial, dict(enumerate(np.sort(frames))))
    pd.testing.assert_frame_equal(unit_quality(trial[0], noise), unit_quality(trial[0], noise), check_exact=True)


def test_isolation_needs_snr_and_spikes() -> None:
    units = pd.DataFrame(
        {
            "snr": [9.0, 4.0, 9.0, 9.0, np.nan],
            "rp_contamination": [0.02, 0.02, 0.2, 0.0, np.nan],
            "num_spikes": [500, 500, 500, 10, 1],
        }
    )
    assert is_well_isolated(units).tolist() == [True, False, False, False, False]


def test_units_of_hardly_any_spikes(trial: Trial) -> None:
    end = trial[0].get_num_samples()
    trains = {0: np.empty(0, dtype="int64"), 1: np.array([5000]), 2: np.array([6000, 9000]), 3: np.array([7000, end])}
    units = unit_quality(trial[0], sorting_like(trial, trains))
    # The last spike lies after the end.
    assert units["num_spikes"].tolist() == [0, 1, 2, 1]
    assert units.loc[0, list(METRICS[1:])].isna().all()
    assert units["rp_contamination"].isna().tolist() == [True, True, False, True]
    assert units["snr"].notna().tolist() == [False, True, True, True]


def test_nothing_found(trial: Trial) -> None:
    units = unit_quality(trial[0], sorting_like(trial, {}))
    assert len(units) == 0 and list(units) == ["unit", *METRICS]


def test_finders(trial: Trial) -> None:
    trains = trains_of(trial[1])
    shifted = {unit: train + 5 for unit, train in list(trains.items())[1:]}
    third = {0: trains[0][::3], 7: trains[1]}
    sortings = {
        "all": sorting_like(trial, trains),
        # In another order, and with ids that are text.
        "late": NumpySorting.from_unit_dict(
            [{f"u{unit}": train for unit, train in reversed(shifted.items())}], trial[1].get_sampling_frequency()
        ),
        "third": sorting_like(trial, third),
        "none": sorting_like(trial, {}),
    }
    finders = num_finders(sortings)
    assert finders["all"].to_dict() == {"0": 1, "1": 3, "2": 2, "3": 2}
    assert finders["late"].to_dict() == {"u3": 2, "u2": 2, "u1": 3}
    assert finders["third"].to_dict() == {"0": 1, "7": 3}
    assert finders["none"].empty
    assert num_finders({"all": sortings["all"]})["all"].tolist() == [1, 1, 1, 1]


def test_recording_is_kept_once(dataset: Dataset, trial: Trial, tmp_path: Path) -> None:
    recording = si.load(dataset.folder / "recording")
    np.testing.assert_array_equal(recording.get_traces(), trial[0].get_traces())
    assert len(si.load(dataset.folder / "sorting").unit_ids) == 0
    before = {path: path.stat().st_mtime_ns for path in dataset.folder.rglob("*")}
    assert keep_recording(recording, folder=tmp_path / "data", family="there", name="a") == dataset
    assert {path: path.stat().st_mtime_ns for path in dataset.folder.rglob("*")} == before
    assert [path.name for path in dataset.folder.parent.iterdir()] == ["a"]


def test_summary_has_a_row_for_each_run(dataset: Dataset, trial: Trial, true_units: pd.DataFrame) -> None:
    folder = dataset.folder.parents[2] / "runs"
    trains = trains_of(trial[1])
    found = {
        "simsort": trial[1],
        "simple": sorting_like(trial, {0: trains[0], 1: np.array([5000])}),
        "lupin": sorting_like(trial, {}),
        "kilosort4": None,
    }
    runs = [keep_run(dataset, sorter, sorting, folder=folder) for sorter, sorting in found.items()]
    runs.append(Run(family="there", dataset="a", sorter="kilosort", status="missing", message="not installed"))
    units = measure_runs([dataset], runs, folder=folder)
    assert units["sorter"].tolist() == ["simsort"] * len(trains) + ["simple"] * 2
    np.testing.assert_allclose(units["snr"][: len(trains)], true_units["snr"])
    assert units["num_finders"].tolist() == [2, *[1] * (len(trains) - 1), 2, 1]

    summary = summarise(units, runs).set_index("sorter")
    assert summary.index.tolist() == ["simsort", "simple", "lupin", "kilosort4"]
    assert summary["units"].tolist() == [len(trains), 2, 0, 0] and summary["shared"].tolist() == [1, 1, 0, 0]
    assert summary["spikes"].tolist() == [sum(map(len, trains.values())), len(trains[0]) + 1, 0, 0]
    isolated = int(is_well_isolated(true_units).sum())
    assert isolated > 0 and summary["well_isolated"].tolist()[0] == isolated
    assert summary["median_snr"].isna().tolist() == [False, False, True, True]
    table = as_markdown(summary.reset_index())
    assert "| a | lupin | 0 | 0 | 0 | 0 | 0 | – |" in table and "| a | kilosort4 | 0 (failed) |" in table

    figure = draw(units, sorters=list(summary.index), title="a")
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[0] == f"simsort: {isolated} of {len(trains)} well isolated" and titles[2] == "lupin: no units"


def test_lowest_panels_have_numbers(true_units: pd.DataFrame) -> None:
    units = true_units.assign(sorter="simsort", num_finders=1, well_isolated=True)
    figure = draw(units, sorters=["simsort", "lupin", "simple", "kilosort4", "mountainsort5"], title="a")
    shown = [axis.xaxis.get_tick_params()["labelbottom"] for axis in figure.axes[:5]]
    assert shown == [False, True, True, True, True]


def test_nobody_found_anything(dataset: Dataset, trial: Trial, tmp_path: Path) -> None:
    runs = [keep_run(dataset, "lupin", sorting_like(trial, {}), folder=tmp_path / "runs")]
    units = measure_runs([dataset], runs, folder=tmp_path / "runs")
    assert len(units) == 0 and summarise(units, runs)["units"].tolist() == [0]
    draw(units, sorters=["lupin"], title="nothing").savefig(tmp_path / "figure.png")


def test_reading_a_folder(tmp_path: Path) -> None:
    traces = np.arange(400).reshape(100, 4)
    (recording,) = read_recordings(write_raw(tmp_path / "there", traces, rate=15000.0)).values()
    np.testing.assert_array_equal(recording.get_traces(), traces)
    np.testing.assert_array_equal(recording.get_channel_gains(), 1.0)
    assert recording.get_sampling_frequency() == 15000.0
    assert len(np.unique(recording.get_channel_locations(), axis=0)) == 4

    with pytest.raises(FileNotFoundError, match="no recording"):
        read_recordings(tmp_path)
    with pytest.raises(ValueError, match="3 channels"):
        read_recordings(write_raw(tmp_path / "three", traces[:, :3], rate=15000.0))
    (tmp_path / "three" / "info.json").write_text("{}", encoding="utf8")
    with pytest.raises(ValueError, match="sample_rate, dtype and shape"):
        read_recordings(tmp_path / "three")


def test_from_the_command_line(trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first five seconds of the trial; the second time, nothing is sorted again."""
    rate = trial[0].get_sampling_frequency()
    steps = trial[0].get_traces(end_frame=round(5 * rate), return_in_uV=True) / 0.195
    folder = write_raw(tmp_path / "there", np.round(steps), rate=rate)
    output, figure = tmp_path / "out" / "units.csv", tmp_path / "out" / "units.png"
    command = ["--recordings", str(folder), "--runs", str(tmp_path / "runs"), "--sorters", "simsort"]
    command += ["--output", str(output), "--figure", str(figure)]
    assert main(command) == 0
    units = pd.read_csv(output)
    assert (units["sorter"] == "simsort").all() and len(units) > 0 and figure.stat().st_size > 0
    assert f"| first | simsort | {len(units)} |" in capsys.readouterr().out
    result = tmp_path / "runs" / "there" / "first" / "simsort" / RESULT_FILE
    before = result.stat().st_mtime_ns
    assert main(command) == 0
    assert result.stat().st_mtime_ns == before and pd.read_csv(output).equals(units)


def test_folder_without_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--recordings", str(tmp_path), "--runs", str(tmp_path), "--output", str(tmp_path / "units.csv")])
    assert "no recording" in capsys.readouterr().err


def test_locust(shared_data: Path) -> None:
    folder = shared_data / "recordings" / "locust"
    if not folder.is_dir():
        pytest.skip(f"the shared data hold no {folder}")
    ((name, recording),) = read_recordings(folder).items()
    assert name == "locust_trial_01" and recording.get_sampling_frequency() == 15000.0
    assert recording.get_total_duration() == pytest.approx(28.8, abs=0.1)
