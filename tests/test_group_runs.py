"""Many tetrodes: sorted in parallel, kept when others fail, gone on with, and never mixed."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spikeinterface as si
import spikeinterface.sorters as ss
from cloudpickle import register_pickle_by_value, unregister_pickle_by_value
from spikeinterface.core import BaseRecording, NumpyRecording, NumpySorting

from spikeinterface_simsort import GroupsFailedError, group_runs, report, sort_by_group
from spikeinterface_simsort.cli import main
from spikeinterface_simsort.fingerprint import describe_run, name_differences
from spikeinterface_simsort.group_runs import join_groups
from spikeinterface_simsort.groups import add_silent_segments
from spikeinterface_simsort.params import ParameterError, SimSortParams
from spikeinterface_simsort.preprocessing import RecordingError
from spikeinterface_simsort.run_folders import RunFolderError, run_folder
from spikeinterface_simsort.weights import WeightsError
from spikeinterface_simsort.workers import WorkerDiedError, map_in_workers

sort_one_by_one = partial(sort_by_group, n_jobs=1)

RATE = 30000.0


def make_groups(recording: BaseRecording, groups: list[str], *, broken: tuple[str, ...] = ()) -> NumpyRecording:
    """The same tetrode several times, with a sample that is no number in those that are broken."""
    traces = np.concatenate([recording.get_traces()] * len(groups), axis=1)
    for group in broken:
        traces[1000, 4 * groups.index(group)] = np.nan
    several = NumpyRecording([traces], RATE)
    several.set_property("group", np.repeat(groups, 4))
    return several


@pytest.fixture(scope="module")
def two_tetrodes(trial: Any, tmp_path_factory: pytest.TempPathFactory) -> BaseRecording:
    several = make_groups(trial[0].frame_slice(0, 4 * int(RATE)), ["left", "right"])
    return several.save(folder=tmp_path_factory.mktemp("tetrodes") / "recording", verbose=False)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of groups that were sorted, by a stand-in that finds two units at once, or fails."""
    seen: list[str] = []

    def find_two_units(recording: BaseRecording, *, params: SimSortParams) -> NumpySorting:
        group = recording.get_property("group")[0]
        seen.append(str(group))
        if np.isnan(recording.get_traces()).any():
            raise RecordingError("The recording holds NaN.")
        sorting = NumpySorting.from_unit_dict([{0: np.array([10, 20]), 1: np.array([30])}], RATE)
        sorting.set_property("snr", np.array([8.0, 4.0]))
        sorting.set_property("group", np.array([group, group]))
        return sorting

    monkeypatch.setattr("spikeinterface_simsort.pipeline.sort", find_two_units)
    return seen


@pytest.fixture
def short(trial: Any) -> BaseRecording:
    return trial[0].frame_slice(0, int(1.2 * RATE))


def unit_trains(sorting: Any) -> list[tuple[str, str, list[int]]]:
    properties = zip(sorting.get_property("group"), sorting.get_property("main_channel_id"), strict=True)
    return [
        (str(group), str(channel), sorting.get_unit_spike_train(unit).tolist())
        for unit, (group, channel) in zip(sorting.unit_ids, properties, strict=True)
    ]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_finds_what_the_sorter_finds(two_tetrodes: BaseRecording, tmp_path: Path) -> None:
    whole: Any = ss.run_sorter("simsort", two_tetrodes, folder=str(tmp_path / "whole"), min_spikes=5)
    sorting: Any = sort_by_group(two_tetrodes, tmp_path / "out", n_jobs=2, min_spikes=5)
    assert unit_trains(sorting) == unit_trains(whole) and len(sorting.unit_ids) >= 4
    assert sorting.unit_ids.dtype == np.int64 and sorting.unit_ids.tolist() == list(range(len(sorting.unit_ids)))
    assert set(sorting.get_property_keys()) == set(whole.get_property_keys())
    assert sorting.has_recording()
    assert names(tmp_path / "out") == ["groups", "run.json", "sorting"]
    assert names(tmp_path / "out" / "groups") == ["left", "right"]
    # What is there is what was returned, and each group is a folder of SpikeInterface's.
    assert unit_trains(si.load(tmp_path / "out" / "sorting")) == unit_trains(sorting)
    left: Any = ss.read_sorter_folder(tmp_path / "out" / "groups" / "left")
    assert unit_trains(left) == [unit for unit in unit_trains(sorting) if unit[0] == "left"]
    assert np.array_equal(left._recording.channel_ids, two_tetrodes.channel_ids[:4])


def test_what_is_done_is_kept(
    short: BaseRecording, tmp_path: Path, quick: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    recording = make_groups(short, ["a", "b", "c"], broken=("b",)).save(folder=tmp_path / "recording", verbose=False)
    folder = tmp_path / "out"
    with caplog.at_level(logging.INFO), pytest.raises(GroupsFailedError, match="1 of 3 groups") as caught:
        sort_one_by_one(recording, folder)
    assert caught.value.failures == {"b": "The recording holds NaN."}
    assert "group b: The recording holds NaN." in str(caught.value)
    assert str(folder / "sorting") in str(caught.value)
    sorting: Any = si.load(folder / "sorting")
    assert sorting.get_property("group").tolist() == ["a", "a", "c", "c"]
    assert sorting.get_annotation("failed_groups") == ["b"]
    assert names(folder / "groups") == ["a", "b.error.txt", "c"]
    assert "Traceback" in (folder / "groups" / "b.error.txt").read_text()
    told = [message.split(" in ")[0].split(" (")[0] for message in caplog.messages]
    assert told == [
        "Sorting 3 groups, 1 at a time.",
        "Group a: 2 units",
        "Group b: failed. The recording holds NaN.",
        "Group c: 2 units",
    ]
    assert re.search(r"1 of 3; about \d+ s left", caplog.text) and "3 of 3; none left" in caplog.text
    assert quick == ["a", "b", "c"]

    # The same call tries the failed one only; whatever made it fail is gone.
    quick.clear()
    with pytest.MonkeyPatch.context() as context:
        context.setattr(np, "isnan", np.zeros_like)
        again: Any = sort_one_by_one(recording, folder)
    assert quick == ["b"]
    assert again.get_property("group").tolist() == ["a", "a", "b", "b", "c", "c"]
    assert again.get_property("snr").tolist() == [8.0, 4.0] * 3
    assert again.get_annotation("failed_groups") is None
    assert names(folder / "groups") == ["a", "b", "c"]
    quick.clear()
    assert unit_count(sort_one_by_one(recording, folder)) == 6 and quick == []


def unit_count(sorting: Any) -> int:
    return len(sorting.unit_ids)


def test_all_groups_fail(short: BaseRecording, tmp_path: Path, quick: list[str]) -> None:
    recording = make_groups(short, ["a", "b"], broken=("a", "b")).save(folder=tmp_path / "recording", verbose=False)
    with pytest.raises(GroupsFailedError, match="Nothing was sorted") as caught:
        sort_one_by_one(recording, tmp_path / "out")
    assert caught.value.sorting is None and list(caught.value.failures) == ["a", "b"]
    assert names(tmp_path / "out") == ["groups", "run.json"]


def test_group_without_units(short: BaseRecording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = make_groups(short, ["a", "b"]).save(folder=tmp_path / "recording")

    def find_in_b(recording: BaseRecording, *, params: SimSortParams) -> NumpySorting:
        if recording.get_property("group")[0] == "b":
            sorting = NumpySorting.from_unit_dict([{0: np.array([10, 20])}], RATE)
            sorting.set_property("group", np.array(["b"]))
            return sorting
        nothing = NumpySorting.from_unit_dict([{}], RATE)
        return NumpySorting(nothing.to_spike_vector(), RATE, np.array([], dtype="int64"))

    monkeypatch.setattr("spikeinterface_simsort.pipeline.sort", find_in_b)
    sorting: Any = sort_one_by_one(recording, tmp_path / "out")
    assert sorting.get_property("group").tolist() == ["b"]
    # Nor need any have one.
    nothing: Any = sort_one_by_one(recording.select_channels(recording.channel_ids[:4]), tmp_path / "none")
    assert unit_count(nothing) == 0 and nothing.get_num_segments() == 1


def test_warnings_tell_their_group(
    short: BaseRecording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def warn(recording: BaseRecording, *, params: SimSortParams) -> NumpySorting:
        logging.getLogger("spikeinterface_simsort.preprocessing").warning("Channels [5] are dead.")
        return NumpySorting.from_unit_dict([{0: np.array([10])}], RATE)

    monkeypatch.setattr("spikeinterface_simsort.pipeline.sort", warn)
    sort_one_by_one(make_groups(short, ["a", "b"]).save(folder=tmp_path / "recording"), tmp_path / "out")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "Group a: Channels [5] are dead.",
        "Group b: Channels [5] are dead.",
    ]


def test_another_run_is_not_mixed_in(short: BaseRecording, tmp_path: Path, quick: list[str]) -> None:
    several = make_groups(short, ["a", "b"])
    recording = several.save(folder=tmp_path / "recording")
    folder = tmp_path / "out"
    sort_one_by_one(recording, folder)

    def changes() -> dict[Path, int]:
        # Some versions of filelock write the lock anew.
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}

    before = changes()
    traces = several.get_traces().copy()
    traces[-1] += 1.0
    other = NumpyRecording([traces], RATE)
    other.set_property("group", several.get_property("group"))
    for another, params, message in (
        (recording, {"min_spikes": 30}, r"min_spikes \(20, now 30\)"),
        (recording, {"preset": "paper"}, r"preset \(default, now paper\)"),
        (other.save(folder=tmp_path / "other"), {}, r"the recording \(samples_sha256\)"),
        (recording.frame_slice(0, 35000), {}, "num_samples"),
        (recording.select_channels(recording.channel_ids[:4]), {}, "channel_ids"),
    ):
        with pytest.raises(RunFolderError, match=f"differs in .*{message}.*overwrite"):
            sort_one_by_one(another, folder, **params)
    assert changes() == before
    # Where it works, and how a copy of the recording was made, change nothing.
    quick.clear()
    copy = recording.save(folder=tmp_path / "copy")
    sort_one_by_one(copy, folder, device="cpu", job_kwargs={"chunk_duration": "2s"})
    assert quick == []
    assert unit_count(sort_one_by_one(recording, folder, overwrite=True, min_spikes=30)) == 4
    assert quick == ["a", "b"]
    assert json.loads((folder / "run.json").read_text())["parameters"]["min_spikes"] == 30
    assert names(folder) == ["groups", "run.json", "sorting"] and names(folder / "groups") == ["a", "b"]


def test_runs_differ_by_version_and_weights(short: BaseRecording) -> None:
    run = describe_run(short, params=SimSortParams(), weights={"sha256": {"detector": "1"}})
    assert name_differences(json.loads(json.dumps(run)), run) == []
    (version,) = name_differences({**run, "version": "0.0.1"}, run)
    assert version.startswith("the version of simsort (0.0.1, now ")
    assert name_differences(describe_run(short, params=SimSortParams(), weights={"sha256": {}}), run) == ["the weights"]
    assert len(name_differences({}, run)) > 3


def test_folders_that_are_refused(short: BaseRecording, tmp_path: Path, quick: list[str]) -> None:
    recording = make_groups(short, ["a", "b"]).save(folder=tmp_path / "recording")
    (tmp_path / "file").touch()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()
    (tmp_path / "single" / "sorter").mkdir(parents=True)
    (tmp_path / "damaged" / "groups").mkdir(parents=True)
    (tmp_path / "damaged" / "run.json").write_text("{")
    for name, overwrite, message in (
        ("file", True, "is a file"),
        ("foreign", True, "holds 'thesis.tex', which is not simsort's"),
        ("single", False, "exists: choose another folder, or overwrite it"),
        ("damaged", False, "cannot be read: start over"),
    ):
        with pytest.raises(RunFolderError, match=message):
            sort_one_by_one(recording, tmp_path / name, overwrite=overwrite)
    assert quick == [] and (tmp_path / "foreign" / "thesis.tex").exists()
    for name in ("single", "damaged"):
        sort_one_by_one(recording, tmp_path / name, overwrite=True)
        assert names(tmp_path / name) == ["groups", "run.json", "sorting"]


def test_two_runs_at_once(short: BaseRecording, tmp_path: Path, quick: list[str]) -> None:
    recording = make_groups(short, ["a", "b"]).save(folder=tmp_path / "recording")
    with run_folder(tmp_path / "out", description={"version": None}, overwrite=False):
        with pytest.raises(RunFolderError, match="Another run is at work"):
            sort_one_by_one(recording, tmp_path / "out")
    sort_one_by_one(recording, tmp_path / "out", overwrite=True)


def test_what_a_killed_run_left_is_swept_away(short: BaseRecording, tmp_path: Path, quick: list[str]) -> None:
    recording = make_groups(short, ["a", "b"]).save(folder=tmp_path / "recording")
    (tmp_path / "out" / "groups" / ".a-0123" / "sorter_output").mkdir(parents=True)
    (tmp_path / "out" / "groups" / ".run-0123").touch()
    sort_one_by_one(recording, tmp_path / "out")
    assert names(tmp_path / "out" / "groups") == ["a", "b"]


def test_errors_that_are_all_groups_come_first(short: BaseRecording, tmp_path: Path, quick: list[str]) -> None:
    several = make_groups(short, ["a", "b"])
    recording = several.save(folder=tmp_path / "recording")
    for bad, kwargs, error, message in (
        (recording, {"treshold": 1}, ParameterError, "Unknown parameters"),
        (recording, {"job_kwargs": {"n_job": 2}}, ParameterError, "job_kwargs"),
        (recording, {"device": "abacus"}, ParameterError, "no device 'abacus' here"),
        (recording, {"weights": str(tmp_path / "nowhere")}, WeightsError, "no weights folder"),
        (recording.frame_slice(0, 9000), {}, RecordingError, "at least 1 s"),
        (several, {}, RecordingError, "in memory only: save it first"),
    ):
        with pytest.raises(error, match=message):
            sort_one_by_one(bad, tmp_path / "out", **kwargs)
    assert quick == [] and not (tmp_path / "out").exists()


def test_any_name_of_a_group_makes_a_folder() -> None:
    found = group_runs._folder_names(["../../etc", "a b", "a/b", "A_b", "", ".", "x" * 300, "é", 7, np.float64("nan")])
    assert len({name.lower() for name in found}) == len(found)
    assert all(
        name and len(name) <= 70 and set(name) <= set("_-" + found[1] + "x0123456789etcAgroupnan") for name in found
    )
    assert not any("/" in name or name.startswith(".") for name in found)


def test_join_groups_of_two_segments() -> None:
    sortings = [
        NumpySorting.from_unit_dict([{3: np.array([1, 5])}, {3: np.array([2])}], RATE),
        NumpySorting.from_unit_dict([{3: np.array([7])}, {3: np.array([9])}], RATE),
    ]
    joined = join_groups(sortings)
    assert joined.unit_ids.tolist() == [0, 1] and joined.get_num_segments() == 2
    assert joined.get_unit_spike_train(1, segment_index=1).tolist() == [9]


def test_join_groups_of_names_and_numbers(recwarn: pytest.WarningsRecorder) -> None:
    sortings = []
    for group in ("left", 7):
        sorting = NumpySorting.from_unit_dict([{0: np.array([1, 5]), 1: np.array([2])}], RATE)
        sorting.set_property("group", np.array([group, group]))
        sortings.append(sorting)
    assert join_groups(sortings).get_property("group").tolist() == ["left", "left", "7", "7"]
    assert len(recwarn) == 0


def test_join_groups_keeps_silent_segments() -> None:
    train = NumpySorting.from_unit_dict([{0: np.array([1, 5])}, {0: np.array([], dtype="int64")}], RATE)
    add_silent_segments(train, num_segments=3)
    joined = join_groups([train, train])
    assert (train.get_num_segments(), joined.get_num_segments()) == (3, 3)
    assert joined.get_unit_spike_train(1, segment_index=2).tolist() == []


# The command line


@pytest.fixture
def quick_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of a picture than its file."""
    monkeypatch.setattr(report, "draw_units", lambda recording, sorting, path, **kwargs: path.write_bytes(b"picture"))


def test_command(
    short: BaseRecording,
    tmp_path: Path,
    quick: list[str],
    quick_picture: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_groups(short, ["a", "b", "c"], broken=("b",)).save(folder=tmp_path / "recording", verbose=False)
    output = tmp_path / "out"
    command = ["sort", str(tmp_path / "recording"), "--n-jobs", "1", "--output", str(output)]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert re.search(r"Group a: 2 units in \d+ s \(1 of 3; about \d+ s left\)\.", captured.err)
    assert captured.err.splitlines()[-1].startswith("error: 1 of 3 groups could not be sorted.")
    assert "group b: The recording holds NaN." in captured.err and "Traceback" not in captured.err
    # What was found is told and kept.
    assert [line.split()[:2] for line in captured.out.splitlines()[1:5]] == [
        ["0", "a"],
        ["1", "a"],
        ["2", "c"],
        ["3", "c"],
    ]
    assert names(output) == ["groups", "run.json", "sorting", "units.csv", "units.png"]
    assert names(output / "groups") == ["a", "b.error.txt", "c"]

    quick.clear()
    with pytest.MonkeyPatch.context() as context:
        context.setattr(np, "isnan", np.zeros_like)
        assert main([*command, "--quiet"]) == 0
    captured = capsys.readouterr()
    assert quick == ["b"] and captured.err == "" and len(captured.out.splitlines()) == 9
    assert len((output / "units.csv").read_text().splitlines()) == 7

    assert main([*command, "--set", "min_spikes=5"]) == 1
    assert "differs in min_spikes (20, now 5)" in capsys.readouterr().err
    quick.clear()
    assert main([*command, "--set", "min_spikes=5", "--overwrite"]) == 1
    assert quick == ["a", "b", "c"]
    # Where one group only is to be sorted, the folder is another output, to be replaced on request.
    single = ["sort", str(tmp_path / "single"), "--output", str(output)]
    short.save(folder=tmp_path / "single")
    assert main(single) == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert main([*single, "--overwrite"]) == 0
    assert names(output) == ["sorter", "sorting", "units.csv", "units.png"]
    assert main(command) == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 1
    assert names(output) == ["groups", "run.json", "sorting", "units.csv", "units.png"]


def test_command_all_groups_fail(
    short: BaseRecording, tmp_path: Path, quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    make_groups(short, ["a", "b"], broken=("a", "b")).save(folder=tmp_path / "recording", verbose=False)
    assert main(["sort", str(tmp_path / "recording"), "--n-jobs", "1", "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "2 of 2 groups could not be sorted. Nothing was sorted." in captured.err
    assert names(tmp_path / "out") == ["groups", "run.json"]


# Processes


def answer(job: str) -> str:
    """What a worker does, by the name of its job."""
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "raise":
        raise KeyError(job)
    return f"{job} {os.environ['OMP_NUM_THREADS']}"


@pytest.fixture
def by_value() -> Any:
    """Functions of this module go to processes that cannot import it."""
    register_pickle_by_value(sys.modules[__name__])
    yield
    unregister_pickle_by_value(sys.modules[__name__])


def test_a_worker_that_dies_takes_no_other_job_with_it(by_value: None) -> None:
    jobs = ["a", "die", "b", "raise", "c"]
    answers = dict(map_in_workers(answer, jobs, num_workers=2))
    assert set(answers) == set(jobs)
    assert isinstance(answers.pop("die"), WorkerDiedError) and isinstance(answers.pop("raise"), KeyError)
    assert answers == {job: f"{job} 1" for job in "abc"}


def test_a_group_whose_process_dies_is_reported(
    short: BaseRecording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_value: None
) -> None:
    recording = make_groups(short, ["a", "b"]).save(folder=tmp_path / "recording")

    def die(job: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(group_runs, "_sort_one", die)
    with pytest.raises(GroupsFailedError, match="group a: Its process was killed"):
        sort_by_group(recording, tmp_path / "out", n_jobs=2)


@pytest.mark.slow
def test_nothing_works_on_when_the_run_is_killed(trial: Any, tmp_path: Path) -> None:
    import subprocess

    import psutil

    recording = make_groups(trial[0], ["a", "b", "c", "d"]).save(folder=tmp_path / "recording")
    code = (
        "import sys, spikeinterface as si, spikeinterface_simsort as simsort\n"
        "simsort.sort_by_group(si.load(sys.argv[1]), sys.argv[2], n_jobs=2)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, tmp_path / "recording", tmp_path / "out"])
    groups = tmp_path / "out" / "groups"
    while len(list(groups.glob("[!.]*"))) < 1:
        assert run.poll() is None
        time.sleep(0.1)
    workers = psutil.Process(run.pid).children(recursive=True)
    assert len(workers) >= 2
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    done = set(names(groups))
    assert not (tmp_path / "out" / "sorting").exists()
    for path in groups.glob("[!.]*"):
        assert unit_count(ss.read_sorter_folder(path)) >= 1
    times = {name: (groups / name).stat().st_mtime_ns for name in done if not name.startswith(".")}
    assert 1 <= len(times) < 4
    sorting: Any = sort_by_group(recording, tmp_path / "out", n_jobs=2)
    assert set(sorting.get_property("group")) == set("abcd")
    assert {name: (groups / name).stat().st_mtime_ns for name in times} == times
    assert names(groups) == ["a", "b", "c", "d"]


def test_the_way_is_free_after_an_interrupt(short: BaseRecording, tmp_path: Path, by_value: None) -> None:
    begin = time.perf_counter()
    # Shells start what runs in the background deaf to interrupts.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            list(map_in_workers(time.sleep, [60, 60], num_workers=2))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.perf_counter() - begin < 30
