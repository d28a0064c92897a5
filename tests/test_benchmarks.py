"""The benchmark's bookkeeping: scores that can be told by hand, runs that go wrong, tables."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import spikeinterface as si
import spikeinterface.sorters as ss
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting

from benchmarks import runs, tables
from benchmarks.catalogue import Dataset, Sources, find_dataset, prepare, save_dataset, unit_snr
from benchmarks.layer6 import threshold_peaks
from benchmarks.oracles import identify, match
from benchmarks.peers import MOUNTAINSORT4_PYTHON, ORACLES, PEERS, checked_params, missing
from benchmarks.recordings import sorting_of, tetrode_recording
from benchmarks.runs import Run, run_all, run_folder, run_one
from benchmarks.score_runs import score_runs
from benchmarks.scores import unit_scores
from benchmarks.spike_file import read_spikes, write_spikes
from benchmarks.worker import SPIKES_FILE

SQUARE_UM = np.array([[0, 0], [0, 20], [20, 0], [20, 20]])


@pytest.fixture(scope="module")
def dataset(trial: tuple[BaseRecording, BaseSorting], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data")
    return save_dataset(folder, family="composed", name="3", recording=trial[0], truth=trial[1])


def shuffled(truth: BaseSorting, *, seed: int) -> BaseSorting:
    """The same spikes, each given to a unit at random."""
    spikes = truth.to_spike_vector()
    labels = np.random.default_rng(seed).permutation(spikes["unit_index"])
    return NumpySorting.from_samples_and_labels([spikes["sample_index"]], [labels], truth.get_sampling_frequency())


@pytest.mark.parametrize("delta_ms", [1.0, 0.4])
def test_scores_that_are_known(trial: tuple[BaseRecording, BaseSorting], delta_ms: float) -> None:
    truth = trial[1]
    rate = truth.get_sampling_frequency()
    perfect = unit_scores(truth, truth, delta_ms=delta_ms)
    assert (perfect[["accuracy", "recall", "precision"]] == 1.0).all(axis=None)
    empty = unit_scores(truth, sorting_of({}, rate=rate), delta_ms=delta_ms)
    assert (empty["accuracy"] == 0.0).all()
    # A unit drawn at random shares with each true one what chance gives it, and little more.
    chance = unit_scores(truth, shuffled(truth, seed=0), delta_ms=delta_ms)
    assert chance["accuracy"].mean() < 0.35
    noise = np.sort(np.random.default_rng(1).integers(0, 20 * rate, 300))
    anywhere = NumpySorting.from_unit_dict([{0: noise}], rate)
    assert unit_scores(truth, anywhere, delta_ms=delta_ms)["accuracy"].mean() < 0.05


def test_half_of_a_unit_scores_half(trial: tuple[BaseRecording, BaseSorting]) -> None:
    truth = trial[1]
    train = truth.get_unit_spike_train(truth.unit_ids[0])
    half = NumpySorting.from_unit_dict([{0: train[::2]}], truth.get_sampling_frequency())
    row = unit_scores(truth, half, delta_ms=1.0).iloc[0]
    assert row["precision"] > 0.99
    assert row["recall"] == pytest.approx(0.5, abs=0.02)
    assert row["accuracy"] == pytest.approx(0.5, abs=0.02)


def test_the_window_counts(trial: tuple[BaseRecording, BaseSorting]) -> None:
    truth = trial[1]
    shift = round(0.7 * truth.get_sampling_frequency() / 1000)
    trains = {unit: truth.get_unit_spike_train(unit) + shift for unit in truth.unit_ids}
    late = NumpySorting.from_unit_dict([trains], truth.get_sampling_frequency())
    assert unit_scores(truth, late, delta_ms=1.0)["accuracy"].mean() > 0.95
    assert unit_scores(truth, late, delta_ms=0.4)["accuracy"].mean() < 0.1


def test_dataset_is_kept(dataset: Dataset, trial: tuple[BaseRecording, BaseSorting]) -> None:
    recording, truth = si.load(dataset.folder / "recording"), si.load(dataset.folder / "sorting")
    np.testing.assert_array_equal(recording.get_traces(), trial[0].get_traces())
    assert truth.get_property("snr").min() > 2.0
    known = json.loads((dataset.folder / "dataset.json").read_text())
    assert (known["num_units"], known["num_channels"]) == (len(truth.unit_ids), 4)
    assert not list(dataset.folder.parent.glob("*.partial*"))


def test_dataset_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make(sources: Sources, seed: int) -> tuple[BaseRecording, BaseSorting]:
        made.append(seed)
        traces = np.random.default_rng(seed).normal(0, 10, (30000, 4))
        return tetrode_recording(traces, rate=30000.0, contacts_um=SQUARE_UM), sorting_of(
            {0: np.arange(100, 29000, 300)}, rate=30000.0
        )

    monkeypatch.setitem(
        prepare.__globals__["FAMILIES"], "toy", prepare.__globals__["Family"](make=make, description="")
    )
    sources = Sources(bank=None, waveforms=None, cache=tmp_path)
    first = prepare("toy", seed=4, folder=tmp_path, sources=sources)
    assert prepare("toy", seed=4, folder=tmp_path, sources=sources) == first
    assert made == [4]


def test_half_written_dataset_is_none(dataset: Dataset, tmp_path: Path) -> None:
    whole = {"family": dataset.family, "name": dataset.name}
    assert find_dataset(dataset.folder.parents[1], **whole) == dataset
    assert find_dataset(tmp_path, **whole) is None
    # What a copy leaves that was stopped.
    shutil.copytree(dataset.folder, tmp_path / "composed" / "3", ignore=shutil.ignore_patterns("dataset.json"))
    assert find_dataset(tmp_path, **whole) is None

    recording, truth = si.load(dataset.folder / "recording"), si.load(dataset.folder / "sorting")
    unwritable = {"what": object()}
    with pytest.raises(TypeError):
        save_dataset(tmp_path, family="composed", name="4", recording=recording, truth=truth, description=unwritable)
    assert [path.name for path in (tmp_path / "composed").iterdir()] == ["3"]

    # It is replaced, and what is whole is not.
    made = save_dataset(tmp_path, **whole, recording=recording, truth=truth)
    assert find_dataset(tmp_path, **whole) == made
    np.testing.assert_array_equal(si.load(made.folder / "recording").get_traces(), recording.get_traces())
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")}
    with pytest.raises(FileExistsError, match="made anew"):
        save_dataset(tmp_path, **whole, recording=recording, truth=sorting_of({}, rate=30000.0))
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")} == before
    assert [path.name for path in (tmp_path / "composed").iterdir()] == ["3"]


def test_dataset_without_truth(trial: tuple[BaseRecording, BaseSorting], tmp_path: Path) -> None:
    nothing = sorting_of({}, rate=trial[0].get_sampling_frequency())
    assert unit_snr(trial[0], nothing).shape == (0,)
    made = save_dataset(tmp_path, family="real", name="a", recording=trial[0], truth=nothing)
    assert len(si.load(made.folder / "sorting").unit_ids) == 0
    known = json.loads((made.folder / "dataset.json").read_text())
    assert (known["num_units"], known["num_spikes"], known["num_channels"]) == (0, 0, 4)


@pytest.mark.parametrize("family", ["bbp_l6", "hybrid_static", "waveclus_easy"])
def test_missing_sources_say_what_to_name(family: str, tmp_path: Path) -> None:
    sources = Sources(bank=None, waveforms=tmp_path / "nowhere", cache=tmp_path)
    with pytest.raises(FileNotFoundError, match="--(bank|waveforms)"):
        prepare(family, seed=0, folder=tmp_path, sources=sources)
    assert not list(tmp_path.rglob("*.partial*"))


def test_recording_of_whole_numbers() -> None:
    traces = np.random.default_rng(0).normal(0, 20, (1000, 4))
    recording = tetrode_recording(traces, rate=24000.0, contacts_um=np.zeros((4, 2)) + np.arange(4)[:, None])
    assert recording.get_dtype() == "int16"
    np.testing.assert_allclose(recording.get_traces(return_in_uV=True), traces, atol=0.1)
    with pytest.raises(ValueError, match="16 bits"):
        tetrode_recording(traces * 1e3, rate=24000.0, contacts_um=np.zeros((4, 2)))


def test_snr_of_known_noise() -> None:
    rng = np.random.default_rng(0)
    traces = rng.normal(0, 10, (300000, 4))
    frames = np.arange(1000, 299000, 500)
    shape = -200 * np.exp(-(((np.arange(-30, 31)) / 6) ** 2))
    for frame in frames:
        traces[frame - 30 : frame + 31, 1] += shape
    recording = tetrode_recording(traces, rate=30000.0, contacts_um=SQUARE_UM)
    band_noise = 10 * np.sqrt(2 * 5700 / 30000)
    (snr,) = unit_snr(recording, sorting_of({0: frames}, rate=30000.0))
    # The filter takes the slow part of the shape, so less than 200 uV is left.
    assert 0.5 * 200 / band_noise < snr < 200 / band_noise


def test_threshold_is_the_same_each_time(trial: tuple[BaseRecording, BaseSorting]) -> None:
    first, second = (threshold_peaks(trial[0], num_mads=3) for _ in range(2))
    assert len(first) > len(threshold_peaks(trial[0], num_mads=5)) > 0
    np.testing.assert_array_equal(first, second)


def test_spike_file_keeps_ids_and_empty_units(tmp_path: Path) -> None:
    sorting = NumpySorting.from_unit_dict([{"a": np.array([5, 9]), "b": np.array([], int)}], 30000.0)
    write_spikes(tmp_path / "spikes.npz", sorting)
    again = read_spikes(tmp_path / "spikes.npz")
    assert list(again.unit_ids) == ["a", "b"]
    np.testing.assert_array_equal(again.get_unit_spike_train("a"), [5, 9])
    write_spikes(tmp_path / "none.npz", sorting_of({}, rate=30000.0))
    assert len(read_spikes(tmp_path / "none.npz").unit_ids) == 0


def test_oracles(trial: tuple[BaseRecording, BaseSorting]) -> None:
    recording, truth = trial
    identified = unit_scores(truth, identify(recording, truth), delta_ms=0.4)
    assert identified["accuracy"].mean() > 0.95
    matched = unit_scores(truth, match(recording, truth), delta_ms=0.4)
    assert matched["accuracy"].mean() > 0.6


def test_oracle_leaves_out_what_cannot_be_learnt(trial: tuple[BaseRecording, BaseSorting]) -> None:
    recording, truth = trial
    trains = {index: truth.get_unit_spike_train(unit) for index, unit in enumerate(truth.unit_ids)}
    trains[0] = trains[0][:4]
    found = identify(recording, sorting_of(trains, rate=truth.get_sampling_frequency()))
    counts = found.count_num_spikes_per_unit()
    assert counts[0] == 0 and sum(counts.values()) == sum(len(train) for train in trains.values()) - 4


def test_oracle_is_told_nothing_of_a_spike_it_labels() -> None:
    # Spikes of pure noise: whoever saw their labels in training would know them.
    rng = np.random.default_rng(0)
    recording = tetrode_recording(rng.normal(0, 10, (300000, 4)), rate=30000.0, contacts_um=SQUARE_UM)
    frames = np.arange(100, 299900, 150)
    labels = rng.integers(2, size=len(frames))
    truth = sorting_of({unit: frames[labels == unit] for unit in (0, 1)}, rate=30000.0)
    assert unit_scores(truth, identify(recording, truth), delta_ms=0.4)["accuracy"].mean() == pytest.approx(
        1 / 3, abs=0.05
    )


def test_run_equals_a_sorter_called_by_hand(
    dataset: Dataset, trial: tuple[BaseRecording, BaseSorting], tmp_path: Path
) -> None:
    (run,) = run_all([dataset], ["simsort"], folder=tmp_path / "runs")
    assert (run.status, run.message) == ("ok", "")
    assert run.seconds > 0
    assert run.peak_mb > 100
    units, recordings = score_runs([dataset], [run], folder=tmp_path / "runs")
    sorting = ss.run_sorter("simsort", si.load(dataset.folder / "recording"), folder=tmp_path / "by_hand")
    by_hand = unit_scores(trial[1], sorting, delta_ms=1.0)["accuracy"].mean()
    assert recordings["accuracy_1.0ms"].item() == pytest.approx(by_hand, abs=1e-12)
    assert units.groupby("delta_ms").size().to_dict() == {0.4: 4, 1.0: 4}
    # What is there is not run again.
    spikes = run_folder(dataset, "simsort", folder=tmp_path / "runs") / SPIKES_FILE
    before = spikes.stat().st_mtime_ns
    assert run_one(dataset, "simsort", folder=tmp_path / "runs") == run
    assert spikes.stat().st_mtime_ns == before


def stub(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(runs, "_command", lambda dataset, sorter, target: [sys.executable, "-c", code, str(target)])


def test_failures_are_rows(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, "raise RuntimeError('no such luck')")
    run = run_one(dataset, "simsort", folder=tmp_path)
    assert (run.status, run.message) == ("failed", "RuntimeError: no such luck")
    # One that ends well and leaves nothing has failed too.
    stub(monkeypatch, "pass")
    assert run_one(dataset, "simple", folder=tmp_path).status == "failed"
    _, recordings = score_runs([dataset], [run], folder=tmp_path)
    assert recordings["accuracy_1.0ms"].item() == 0.0
    assert recordings["units_found"].item() == 0
    table = tables.family_table(recordings, score="accuracy_1.0ms")
    assert "(1 of 1 failed)" in tables.markdown_table(table)


def test_timeout_ends_the_children_too(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = "import os, sys, subprocess, time; p = subprocess.Popen(['sleep', '60']); "
    stub(monkeypatch, child + "open(os.path.join(sys.argv[1], 'child'), 'w').write(str(p.pid)); time.sleep(60)")
    run = run_one(dataset, "simsort", folder=tmp_path, timeout_s=2.0)
    assert (run.status, run.message) == ("timeout", "ended after 2 s")
    pid = int((run_folder(dataset, "simsort", folder=tmp_path) / "child").read_text())
    # It was told to end; the system may take a moment to end it.
    deadline = time.monotonic() + 30
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_stopped_run_begins_anew(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = run_folder(dataset, "simsort", folder=tmp_path)
    target.mkdir(parents=True)
    (target / SPIKES_FILE).write_bytes(b"half")
    stub(monkeypatch, "raise SystemExit(3)")
    run = run_one(dataset, "simsort", folder=tmp_path)
    assert (run.status, run.message) == ("failed", "exit status 3")
    assert not (target / SPIKES_FILE).exists()


def test_missing_sorters_are_no_failures(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MOUNTAINSORT4_PYTHON, raising=False)
    run = run_one(dataset, "mountainsort4", folder=tmp_path)
    assert run.status == "missing"
    assert MOUNTAINSORT4_PYTHON in run.message
    assert not run_folder(dataset, "mountainsort4", folder=tmp_path).exists()
    units, recordings = score_runs([dataset], [run], folder=tmp_path)
    assert units.empty
    assert tables.family_table(recordings.assign(**{"accuracy_1.0ms": np.nan}), score="accuracy_1.0ms").empty


def test_worker_of_another_environment_gets_the_traces(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MOUNTAINSORT4_PYTHON, sys.executable)
    python, script, request = runs._command(dataset, "mountainsort4", tmp_path)
    assert (python, Path(script).name) == (sys.executable, "mountainsort4_worker.py")
    told = json.loads(Path(request).read_text())
    traces = np.fromfile(told["binary"], dtype=told["dtype"]).reshape(-1, told["num_channels"])
    np.testing.assert_array_equal(traces, si.load(dataset.folder / "recording").get_traces())
    assert np.shape(told["locations"]) == (4, 2)


@pytest.mark.parametrize("sorter", [name for name in PEERS if not PEERS[name].own_environment])
def test_settings_have_the_names_of_this_version(sorter: str) -> None:
    reason = missing(sorter)
    if reason:
        # Some know their parameters only where they are installed.
        pytest.skip(f"{sorter}: {reason}")
    assert checked_params(sorter) == PEERS[sorter].params


def test_unknown_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "simple", type(PEERS["simple"])(params={"no_such": 1}))
    with pytest.raises(ValueError, match="simple has no parameter no_such"):
        checked_params("simple")


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing("simsort") is None
    assert missing("kilosort2") == "not installed"
    monkeypatch.setenv(MOUNTAINSORT4_PYTHON, os.devnull + "x")
    assert "there is no" in str(missing("mountainsort4"))


def fake_recordings() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for family in ("one", "two"):
        for name in range(6):
            for sorter, level in (("kilosort4", 0.5), ("simsort", 0.8), ("oracle-identity", 0.9), ("simple", np.nan)):
                missing_ = sorter == "simple"
                rows.append(
                    {
                        "family": family,
                        "dataset": str(name),
                        "sorter": sorter,
                        "status": "missing" if missing_ else "ok",
                        "message": "not installed" if missing_ else "",
                        "sorter_version": "1",
                        **dict.fromkeys(
                            [
                                *(
                                    f"{score}_{delta}ms"
                                    for score in ("accuracy", "recall", "precision")
                                    for delta in (1.0, 0.4)
                                ),
                                "detection_accuracy",
                                "units_found",
                                "seconds",
                                "peak_mb",
                            ],
                            level + rng.normal(0, 0.01),
                        ),
                    }
                )
    return pd.DataFrame(rows)


def test_tables(tmp_path: Path) -> None:
    recordings = fake_recordings()
    recordings.loc[recordings["dataset"] == "5", "sorter_version"] = "2"
    text = tables.write_tables(pd.DataFrame({"unit": []}), recordings, folder=tmp_path, weights_sha256="abc")
    first = text.split("## ")[1].splitlines()
    assert first[2] == "| sorter | one | two |"
    assert [line.split(" | ")[0] for line in first[4:7]] == ["| simsort", "| kilosort4", "| oracle-identity"]
    # The best sorter is bold, the oracle is none.
    assert first[4].count("**") == 4
    assert "**" not in first[5] + first[6]
    # Nobody is praised for taking long.
    assert "**" not in text[text.index("## Seconds") : text.index("## Paired")]
    known = json.loads((tmp_path / "manifest.json").read_text())
    assert known["missing"] == {"simple": "not installed"}
    assert known["sorters"] == {"kilosort4": "1, 2", "simsort": "1, 2", "oracle-identity": "1, 2"}
    assert known["weights_sha256"] == "abc"
    assert known["datasets"] == {"one": list("012345"), "two": list("012345")}


def test_paired_test_is_paired() -> None:
    recordings = fake_recordings()
    # A level of its own for each recording hides the difference from whoever does not pair.
    level = recordings["dataset"].astype(int) * 0.1
    recordings["accuracy_1.0ms"] += level
    tests = tables.paired_tests(recordings).set_index(["family", "sorter"])
    against = tests.loc[("one", "kilosort4")]
    assert against["difference"] == pytest.approx(0.3, abs=0.02)
    assert against["sem"] < 0.02
    assert against["p"] == pytest.approx(2 / 2**6)
    assert tests.loc[("all", "kilosort4"), "num"] == 12
    few = tables.paired_tests(recordings[recordings["dataset"].isin(["0", "1"])])
    assert few.loc[few["family"] == "one", "p"].isna().all()


def test_one_recording_has_no_error() -> None:
    recordings = fake_recordings()
    one = recordings[(recordings["dataset"] == "0") & (recordings["family"] == "one")]
    lines = tables.tests_markdown(tables.paired_tests(one)).splitlines()
    assert lines[2].startswith("| kilosort4 | 1 | +0.") and "nan" not in lines[2]


def test_oracles_are_never_best() -> None:
    assert not set(ORACLES) & set(PEERS)


def test_run_is_a_row(tmp_path: Path, dataset: Dataset) -> None:
    run = Run(family="composed", dataset="3", sorter="simsort", status="timeout", seconds=3.0, message="late")
    _, recordings = score_runs([dataset], [run], folder=tmp_path)
    assert recordings.loc[0, ["status", "seconds", "message"]].tolist() == ["timeout", 3.0, "late"]
