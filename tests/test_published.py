"""Published recordings: what is found in a folder, how it is kept, and what is left out."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import spikeinterface as si
from scipy.io import savemat
from spikeinterface.core import BaseRecording, BaseSorting, NumpyRecording, NumpySorting
from spikeinterface.extractors.mdaextractors import MdaRecordingExtractor, MdaSortingExtractor

from benchmarks.catalogue import DESCRIPTION_FILE
from benchmarks.published import fetch_spikeforest, find_published, import_published

RATE, GAIN = 30000.0, 0.195
SECONDS = 2.0
TETRODE = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0], [20.0, 20.0]])
TRAINS = {1: np.arange(600, 58000, 900), 4: np.arange(1000, 58000, 1700), 7: np.array([30000])}


def example(*, dtype: str = "int16", contacts: np.ndarray = TETRODE) -> tuple[BaseRecording, BaseSorting]:
    """Spikes of some 200 steps of an amplifier in noise of 20, or the same in volts as floating point."""
    traces = 20.0 * np.random.default_rng(0).standard_normal((round(SECONDS * RATE), len(contacts)))
    shape = -200.0 * np.exp(-0.5 * (np.arange(-20, 21) / 5.0) ** 2)
    for channel, train in enumerate(TRAINS.values()):
        for frame in train:
            traces[frame - 20 : frame + 21, channel] += shape
    stored = np.round(traces).astype("int16") if dtype == "int16" else (GAIN * 1e-6 * traces).astype(dtype)
    recording = NumpyRecording([stored], sampling_frequency=RATE)
    recording.set_dummy_probe_from_locations(contacts)
    return recording, NumpySorting.from_unit_dict([TRAINS], RATE)


def write_mda(folder: Path, *, params: dict | None = None, **options: object) -> tuple[BaseRecording, BaseSorting]:
    """A recording as SpikeForest lays it out."""
    recording, truth = example(**options)  # pyright: ignore[reportArgumentType]
    params = {"spike_sign": -1, "scale_factor": GAIN} if params is None else params
    MdaRecordingExtractor.write_recording(recording, folder, params=dict(params), verbose=False)
    MdaSortingExtractor.write_sorting(truth, folder / "firings_true.mda")
    return recording, truth


def write_mat(path: Path) -> dict[int, int]:
    """A simulation as wave_clus has them, of one second; gives the number of spikes of each class."""
    rng = np.random.default_rng(1)
    marks = np.arange(100, 23800, 150)
    classes = rng.integers(1, 4, size=len(marks))
    trace = 0.05 * rng.standard_normal(24000)
    for mark, unit in zip(marks, classes, strict=True):
        trace[mark : mark + 40] += np.exp(-0.5 * ((np.arange(40) - 20) / (1.0 + unit)) ** 2)
    cells = np.empty((1, 1), dtype=object), np.empty((1, 1), dtype=object)
    cells[0][0, 0], cells[1][0, 0] = marks[None] + 1, classes[None]
    savemat(
        path,
        {"data": trace[None], "spike_times": cells[0], "spike_class": cells[1], "samplingInterval": [[1 / 24]]},
    )
    return {int(unit): int(np.sum(classes == unit)) for unit in np.unique(classes)}


def kept(folder: Path) -> tuple[BaseRecording, BaseSorting, dict]:
    known = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf8"))
    return si.load(folder / "recording"), si.load(folder / "sorting"), known


def test_spikeforest_folder_is_kept_as_it_is(tmp_path: Path) -> None:
    written, truth = write_mda(tmp_path / "in" / "HYBRID" / "drift_tetrode" / "rec_4c_11")
    (dataset,) = import_published(tmp_path / "in", data=tmp_path / "data")
    assert (dataset.family, dataset.name) == ("spikeforest_drift_tetrode", "rec_4c_11")
    assert dataset.folder == tmp_path / "data" / "spikeforest_drift_tetrode" / "rec_4c_11"
    recording, sorting, known = kept(dataset.folder)
    assert recording.get_sampling_frequency() == RATE and recording.get_dtype() == "int16"
    np.testing.assert_array_equal(recording.get_traces(), written.get_traces())
    np.testing.assert_array_equal(recording.get_channel_gains(), GAIN)
    np.testing.assert_array_equal(recording.get_channel_locations(), TETRODE)
    # One with a single spike is a unit, too.
    assert sorting.unit_ids.tolist() == truth.unit_ids.tolist() == [1, 4, 7]
    for unit, train in TRAINS.items():
        np.testing.assert_array_equal(sorting.get_unit_spike_train(unit), train)
    assert sorting.get_property("snr")[:2] == pytest.approx([10.0, 10.0], rel=0.4)
    assert known["source"] == "SpikeForest" and known["gain_is_known"] and known["num_units"] == 3


def test_floating_point_becomes_whole_numbers(tmp_path: Path) -> None:
    """Traces in volts: their gain to uV is a million."""
    written, _ = write_mda(tmp_path / "study" / "rec", dtype="float32", params={"scale_factor": 1e6})
    (dataset,) = import_published(tmp_path / "study", data=tmp_path / "data")
    recording = kept(dataset.folder)[0]
    assert recording.get_dtype() == "int16" and np.abs(recording.get_traces()).max() == np.iinfo("int16").max
    difference = recording.get_traces(return_in_uV=True) - 1e6 * written.get_traces()
    assert np.abs(difference).max() <= recording.get_channel_gains()[0]


def test_gain_that_nobody_tells(tmp_path: Path) -> None:
    write_mda(tmp_path / "study" / "rec", params={})
    (dataset,) = import_published(tmp_path, data=tmp_path / "data")
    recording, _, known = kept(dataset.folder)
    np.testing.assert_array_equal(recording.get_channel_gains(), 1.0)
    assert not known["gain_is_known"]


def test_waveclus_files_are_kept(tmp_path: Path) -> None:
    counts = write_mat(tmp_path / "C_Easy1_noise005.mat")
    for name in ("C_Difficult2_noise01.mat", "C_Easy2_noise005.mat"):
        (tmp_path / name).write_bytes((tmp_path / "C_Easy1_noise005.mat").read_bytes())
    (tmp_path / "times_other.mat").write_bytes(b"")
    datasets = import_published(tmp_path, data=tmp_path / "data")
    assert {(dataset.family, dataset.name) for dataset in datasets} == {
        ("published_waveclus_easy", "C_Easy1_noise005"),
        ("published_waveclus_easy", "C_Easy2_noise005"),
        ("published_waveclus_difficult", "C_Difficult2_noise01"),
    }
    easy = [kept(dataset.folder) for dataset in datasets if dataset.family.endswith("easy")]
    for recording, sorting, _ in easy:
        assert recording.get_num_channels() == 4 and recording.get_sampling_frequency() == pytest.approx(24000.0)
        assert sorting.count_num_spikes_per_unit() == counts
    # Each has four channels of its own.
    traces = [recording.get_traces(return_in_uV=True) for recording, _, _ in easy]
    assert np.abs(traces[0] - traces[1]).max() > 10.0


def test_second_time_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mda(tmp_path / "in" / "study" / "rec")
    write_mat(tmp_path / "in" / "C_Easy1_noise005.mat")
    first = import_published(tmp_path / "in", data=tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    monkeypatch.setattr("benchmarks.published.open_published", lambda item: pytest.fail(f"read {item}"))
    assert import_published(tmp_path / "in", data=tmp_path / "data") == first and len(first) == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before


def test_other_probes_are_left_out_unless_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mda(tmp_path / "in" / "study" / "rec", contacts=np.column_stack([np.zeros(6), 20.0 * np.arange(6)]))
    with caplog.at_level(logging.INFO):
        assert import_published(tmp_path / "in", data=tmp_path / "data") == []
    assert "rec is left out: it has 6 channels" in caplog.text
    (dataset,) = import_published(tmp_path / "in", data=tmp_path / "data", num_channels=None)
    assert kept(dataset.folder)[0].get_num_channels() == 6


BROKEN = {
    "no_truth": ("firings_true.mda", None, "no firings_true.mda"),
    "no_params": ("params.json", None, "no params.json"),
    "no_geometry": ("geom.csv", None, "geom.csv"),
    "no_rate": ("params.json", b"{}", "samplerate"),
    "no_json": ("params.json", b"{", "Expecting"),
    "no_header": ("raw.mda", b"", "no recording in MDA format"),
    "cut": ("raw.mda", 2000, "truncated"),
    "geometry_of_another": ("geom.csv", b"0,0\n0,20\n", "no recording in MDA format"),
    "no_firings": ("firings_true.mda", b"abc", "no spikes in MDA format"),
    "cut_firings": ("firings_true.mda", 200, "no spikes in MDA format"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folder_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str) -> None:
    name, content, message = BROKEN[case]
    write_mda(tmp_path / "in" / "study" / "good")
    write_mda(tmp_path / "in" / "study" / case)
    path = tmp_path / "in" / "study" / case / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, int):
        path.write_bytes(path.read_bytes()[:content])
    else:
        path.unlink()
    datasets = import_published(tmp_path / "in", data=tmp_path / "data")
    assert [dataset.name for dataset in datasets] == ["good"]
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert str(path.parent) in record.getMessage() and message in record.getMessage()
    assert [found.name for found in (tmp_path / "data" / "spikeforest_study").iterdir()] == ["good"]


@pytest.mark.parametrize("content", [b"", b"not of MATLAB " * 100])
def test_broken_file_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    (tmp_path / "C_Easy1_noise01.mat").write_bytes(content)
    assert import_published(tmp_path, data=tmp_path / "data") == []
    assert f"{tmp_path / 'C_Easy1_noise01.mat'} is left out" in caplog.text


def test_spikes_outside_of_the_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mda(tmp_path / "in" / "study" / "some")
    write_mda(tmp_path / "in" / "study" / "all")
    for name, trains in (("some", {2: np.array([500, 10**6])}), ("all", {2: np.array([10**6])})):
        truth = NumpySorting.from_unit_dict([trains], RATE)
        MdaSortingExtractor.write_sorting(truth, tmp_path / "in" / "study" / name / "firings_true.mda")
    (dataset,) = import_published(tmp_path / "in", data=tmp_path / "data")
    _, sorting, known = kept(dataset.folder)
    assert dataset.name == "some" and sorting.get_unit_spike_train(2).tolist() == [500]
    assert known["num_spikes_outside"] == 1 and "no true spikes" in caplog.text


def test_same_name_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for study_set in ("A", "B"):
        (tmp_path / study_set / "study" / "rec").mkdir(parents=True)
        (tmp_path / study_set / "study" / "rec" / "raw.mda").touch()
    (found,) = find_published(tmp_path)
    assert found.path == tmp_path / "A" / "study" / "rec"
    assert str(tmp_path / "B" / "study" / "rec") in caplog.text


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nowhere"):
        find_published(tmp_path / "nowhere")
    assert find_published(tmp_path) == []


def test_spikeforest_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The package, which nobody needs to have, is stood in for by what it promises."""
    recording, truth = example()

    def entry(name: str, *, num_channels: int = 4, fails: bool = False) -> SimpleNamespace:
        def extractor() -> BaseRecording:
            assert not fails, "Unable to load raw file"
            return recording

        return SimpleNamespace(
            study_name="paired",
            recording_name=name,
            num_channels=num_channels,
            recording_object={"data": {"params": {"samplerate": RATE, "scale_factor": GAIN}}},
            get_recording_extractor=extractor,
            get_sorting_true_extractor=lambda: truth,
        )

    asked = []
    package = ModuleType("spikeforest")

    def load(*uri: str) -> list[SimpleNamespace]:
        asked.append(uri)
        return [entry("a"), entry("wide", num_channels=32), entry("lost", fails=True)]

    package.load_spikeforest_recordings = load  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "spikeforest", package)
    (dataset,) = fetch_spikeforest(data=tmp_path, studies=["paired"])
    assert (dataset.family, dataset.name) == ("spikeforest_paired", "a")
    np.testing.assert_array_equal(kept(dataset.folder)[0].get_channel_gains(), GAIN)
    assert "paired/lost is left out: Unable to load raw file" in caplog.text
    assert fetch_spikeforest(data=tmp_path, uri="sha1://there", studies=["other"]) == []
    assert asked == [(), ("sha1://there",)]


def test_spikeforest_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spikeforest", None)
    with pytest.raises(ImportError, match="pip install spikeforest"):
        fetch_spikeforest(data=tmp_path)


def test_spikeforest_package_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spikeforest.py").write_text("from spikeinterface.core.core_tools import what_was_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spikeforest", raising=False)
    with pytest.raises(ImportError, match="does not go with this version.*what_was_there"):
        fetch_spikeforest(data=tmp_path / "data")
