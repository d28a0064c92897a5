"""Units that are handed on: what other programs read is what was sorted, with labels and properties."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spikeinterface.core import BaseSorting, NumpyRecording, NumpySorting, create_sorting_analyzer
from spikeinterface.exporters import to_phy
from spikeinterface.extractors import read_nwb_sorting, read_phy

from spikeinterface_simsort import pipeline, report
from spikeinterface_simsort.cli import main
from spikeinterface_simsort.export import export_nwb, export_phy
from spikeinterface_simsort.sorted_units import SourceError
from spikeinterface_simsort.unit_pictures import high_pass

RATE = 10000.0


def make_units(*, durations: tuple[float, ...] = (2.0,), dtype: str = "int16") -> tuple[NumpyRecording, NumpySorting]:
    """Two tetrodes with three units, of which the second has no spike; gain 0.5."""
    rng = np.random.default_rng(0)
    traces, trains = [], []
    for duration in durations:
        segment = 10.0 * rng.normal(size=(int(duration * RATE), 8))
        train = {unit: 30 + np.sort(rng.choice(len(segment) // 30 - 5, 20, replace=False)) * 30 for unit in (3, 7)}
        for unit, place in ((3, 1), (7, 6)):
            for sample in train[unit]:
                segment[sample - 4 : sample + 5, place] -= 200.0 * np.hanning(9)
        traces.append((np.round(segment) + (2**15 if dtype == "uint16" else 0)).astype(dtype))
        trains.append({3: train[3], 5: np.array([], dtype="int64"), 7: train[7]})
    recording = NumpyRecording(traces, RATE)
    recording.set_channel_gains(0.5)
    recording.set_channel_offsets(0.0)
    recording.set_property("group", np.repeat([0, 1], 4))
    sorting = NumpySorting.from_unit_dict(trains, RATE)
    for name, values in (
        ("group", [0, 0, 1]),
        ("snr", [8.0, 0.5, 7.0]),
        ("predicted_accuracy", [0.9, 0.1, 0.8]),
        ("quality", ["good", "noise", "MUA"]),
        ("bombcell", ["good", "noise", "mua"]),
    ):
        sorting.set_property(name, np.array(values))
    return recording, sorting


def trains_of(sorting: BaseSorting) -> dict[int, list[int]]:
    return {int(unit): sorting.get_unit_spike_train(unit).tolist() for unit in sorting.unit_ids}


def property_of(sorting: BaseSorting, name: str) -> list[Any]:
    values = sorting.get_property(name)
    assert values is not None, sorting.get_property_keys()
    return values.tolist()


# Phy


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
def test_phy(dtype: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recording, sorting = make_units(dtype=dtype)
    folder = export_phy(sorting, tmp_path / "phy", recording=recording)
    assert [path.name for path in tmp_path.iterdir()] == ["phy"]
    found = read_phy(folder)
    wanted = trains_of(sorting)
    assert trains_of(found) == {unit: wanted[unit] for unit in (3, 7)}
    assert "Units without spikes are left out: 1." in caplog.text
    assert property_of(found, "quality") == ["good", "mua"]
    assert property_of(found, "group") == [0, 1]
    assert property_of(found, "snr") == [8.0, 7.0]
    assert property_of(found, "predicted_accuracy") == [0.9, 0.8]
    assert property_of(found, "bombcell") == ["good", "mua"]
    # The traces are there, filtered, in their own steps, and found wherever the folder is moved.
    params = (folder / "params.py").read_text()
    assert "dat_path = r'recording.dat'" in params and "hp_filtered = True" in params
    stored = "float32" if dtype == "float32" else "int16"
    assert f"dtype = '{stored}'" in params
    traces = np.fromfile(folder / "recording.dat", dtype=stored).reshape(-1, 8)
    assert len(traces) == recording.get_num_samples() and abs(float(traces.mean())) < 1.0
    assert traces[wanted[3], 1].mean() < -100
    # Each unit is seen on its own tetrode.
    assert np.load(folder / "template_ind.npy").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    amplitudes = np.load(folder / "amplitudes.npy").ravel()
    assert len(amplitudes) == 40 and -130 < np.median(amplitudes) < -50
    assert np.load(folder / "pc_features.npy").shape == (40, 3, 4)


def test_phy_without_labels_traces_and_groups(tmp_path: Path) -> None:
    recording, sorting = make_units()
    bare = NumpyRecording([recording.get_traces()], RATE)
    found = read_phy(
        export_phy(NumpySorting.from_sorting(sorting), tmp_path / "phy", recording=bare, copy_traces=False)
    )
    assert property_of(found, "quality") == ["unsorted", "unsorted"]
    assert not (tmp_path / "phy" / "recording.dat").exists()


def test_phy_of_several_segments(tmp_path: Path) -> None:
    recording, sorting = make_units(durations=(2.0, 1.0))
    found = read_phy(export_phy(sorting, tmp_path / "phy", recording=recording))
    first, second = (sorting.get_unit_spike_train(3, segment_index=segment) for segment in (0, 1))
    assert trains_of(found)[3] == [*first, *(second + int(2.0 * RATE))]


def test_phy_of_an_analyzer(tmp_path: Path) -> None:
    recording, sorting = make_units()
    analyzer = create_sorting_analyzer(sorting, high_pass(recording), sparse=False)
    found = read_phy(export_phy(analyzer, tmp_path / "phy"))
    assert property_of(found, "quality") == ["good", "mua"]
    analyzer._recording = None
    with pytest.raises(SourceError, match="do not know their recording"):
        export_phy(analyzer, tmp_path / "other")


def test_phy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording, sorting = make_units()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(to_phy, "write_binary_recording", fail)
    with pytest.raises(OSError, match="No space"):
        export_phy(sorting, tmp_path / "phy", recording=recording)
    assert list(tmp_path.iterdir()) == []
    # What somebody curated is there to stay.
    (tmp_path / "phy").mkdir()
    (tmp_path / "phy" / "cluster_group.tsv").write_text("curated")
    with pytest.raises(FileExistsError, match="overwrite"):
        export_phy(sorting, tmp_path / "phy", recording=recording)
    with pytest.raises(OSError, match="No space"):
        export_phy(sorting, tmp_path / "phy", recording=recording, overwrite=True)
    assert (tmp_path / "phy" / "cluster_group.tsv").read_text() == "curated"


# NWB


def test_nwb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pynwb = pytest.importorskip("pynwb", reason="needs the extra [export]")
    pytest.importorskip("neuroconv", reason="needs the extra [export]")
    recording, sorting = make_units()
    start = datetime(2024, 5, 1, 9, 30, tzinfo=timezone(timedelta(hours=2)))
    path = export_nwb(sorting, tmp_path / "units.nwb", recording=recording, session_start=start)
    assert [file.name for file in tmp_path.iterdir()] == ["units.nwb"] and caplog.text == ""
    found = read_nwb_sorting(path)
    assert found.sampling_frequency == RATE
    # All units, with those that have no spike.
    assert trains_of(found) == trains_of(sorting)
    for name in ("quality", "bombcell", "snr", "predicted_accuracy", "group"):
        assert property_of(found, name) == property_of(sorting, name), name
    with pynwb.NWBHDF5IO(path, "r") as file:
        content = file.read()
        assert content.session_start_time == start
        assert content.electrodes["group_name"][:].tolist() == ["0"] * 4 + ["1"] * 4
        seen_by = [rows.index.tolist() for rows in content.units["electrodes"][:]]
    assert seen_by == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(FileExistsError, match="overwrite"):
        export_nwb(sorting, path, recording=recording)
    export_nwb(sorting, path, recording=recording, overwrite=True)
    assert "1970-01-01 is written" in caplog.text


def test_nwb_of_several_segments(tmp_path: Path) -> None:
    pytest.importorskip("neuroconv", reason="needs the extra [export]")
    recording, sorting = make_units(durations=(2.0, 1.0))
    found = read_nwb_sorting(export_nwb(sorting, tmp_path / "units.nwb", recording=recording))
    first, second = (sorting.get_unit_spike_train(7, segment_index=segment) for segment in (0, 1))
    assert trains_of(found)[7] == [*first, *(second + int(2.0 * RATE))]


# Both


def test_nothing_to_be_exported(tmp_path: Path) -> None:
    pytest.importorskip("neuroconv", reason="needs the extra [export]")
    recording, sorting = make_units()
    silent = sorting.select_units([5])
    with pytest.raises(SourceError, match="no unit with a spike"):
        export_phy(silent, tmp_path / "phy", recording=recording)
    with pytest.raises(SourceError, match="no units"):
        export_nwb(sorting.select_units([]), tmp_path / "units.nwb", recording=recording)
    assert list(tmp_path.iterdir()) == []


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("neuroconv", reason="needs the extra [export]")
    recording, sorting = make_units()
    for name in ("quality", "bombcell"):
        sorting.delete_property(name)
    monkeypatch.setattr(pipeline, "sort", lambda *args, **kwargs: sorting)
    monkeypatch.setattr(report, "draw_units", lambda *args, **kwargs: None)
    # One group, as the stand-in finds the units of both at once.
    single = NumpyRecording([recording.get_traces()], RATE)
    single.save(folder=tmp_path / "session", verbose=False, progress_bar=False)
    output = tmp_path / "sorted"
    assert main(["sort", str(tmp_path / "session"), "--output", str(output), "-q"]) == 0
    options = {"name": "quality", "label_options": ["good", "MUA", "noise"], "exclusive": True}
    labels = [{"unit_id": unit, "labels": {"quality": [word]}} for unit, word in ((3, "MUA"), (7, "good"))]
    curation = {"format_version": "2", "unit_ids": [3, 5, 7], "label_definitions": {"quality": options}}
    (output / "curation.json").write_text(json.dumps({**curation, "manual_labels": labels}))
    capsys.readouterr()
    assert main(["export", str(output), "--to", "phy", "-q"]) == 0
    assert main(["export", str(output), "--to", "nwb", "--session-start", "2024-05-01T09:30+02:00"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "sorted_phy"), str(tmp_path / "sorted.nwb")]
    assert property_of(read_phy(tmp_path / "sorted_phy"), "quality") == ["mua", "good"]
    assert property_of(read_nwb_sorting(tmp_path / "sorted.nwb"), "quality") == ["MUA", "", "good"]

    for arguments, message in (
        (["nowhere", "--to", "phy"], "There is no"),
        ([str(output), "--to", "phy"], "overwrite"),
        ([str(output), "--to", "phy", "--session-start", "2024-05-01"], "--session-start is for --to nwb"),
        ([str(output), "--to", "nwb", "--no-traces"], "--no-traces is for --to phy"),
        ([str(output), "--to", "nwb", "--output", str(tmp_path / "nowhere" / "a.nwb")], "There is no folder"),
    ):
        assert main(["export", *arguments]) == 1
        assert message in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "neuroconv", None)
    assert main(["export", str(output), "--to", "nwb", "--overwrite"]) == 1
    assert "pip install 'spikeinterface-simsort[export]'" in capsys.readouterr().err
