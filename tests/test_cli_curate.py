"""The command that labels units."""

import json
import shutil
import sys

import pandas as pd
import pytest
import spikeinterface as si
from spikeinterface.curation import load_curation

from spikeinterface_simsort.cli import main
from spikeinterface_simsort.curation.metrics import make_analyzer


@pytest.fixture
def analyzer_folder(trial, tmp_path):
    make_analyzer(*trial, folder=tmp_path / "analyzer")
    return tmp_path / "analyzer"


def test_units_of_an_analyzer(analyzer_folder, trial, capsys):
    assert main(["curate", str(analyzer_folder), "-q"]) == 0
    out = capsys.readouterr().out
    assert "of 4 units are good" in out and str(analyzer_folder) in out
    assert all(method in out for method in ("thresholds", "bombcell", "classifier"))
    table = pd.read_csv(analyzer_folder / "labels.csv", index_col="unit_id")
    curation = load_curation(analyzer_folder / "curation.json")
    assert list(table.index) == list(trial[1].unit_ids) == curation.unit_ids
    again = si.load_sorting_analyzer(analyzer_folder)
    assert again.sorting.get_property("quality").tolist() == table["quality"].tolist()


def test_labels_are_not_replaced_unasked(analyzer_folder, tmp_path, capsys):
    output = ["--output", str(tmp_path / "labels")]
    assert main(["curate", str(analyzer_folder), *output, "-q"]) == 0
    before = (tmp_path / "labels" / "labels.csv").read_text()
    bounds = tmp_path / "bounds.json"
    bounds.write_text(json.dumps({"snr": {"greater": 1e6}}))
    again = ["curate", str(analyzer_folder), *output, "--thresholds", str(bounds), "-q"]
    capsys.readouterr()
    assert main(again) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "labels" / "labels.csv").read_text() == before
    assert main([*again, "--overwrite"]) == 0
    table = pd.read_csv(tmp_path / "labels" / "labels.csv")
    assert (table["thresholds"] == "bad").all()


def test_units_that_simsort_sort_left(trial, tmp_path, capsys):
    recording = trial[0].save(folder=tmp_path / "recording", verbose=False)
    assert main(["sort", str(tmp_path / "recording"), "--output", str(tmp_path / "sorted"), "-q"]) == 0
    assert main(["curate", str(tmp_path / "sorted"), "-q"]) == 0
    analyzer = si.load_sorting_analyzer(tmp_path / "sorted" / "analyzer")
    assert analyzer.get_num_samples() == recording.get_num_samples()
    table = pd.read_csv(tmp_path / "sorted" / "labels.csv")
    assert table["unit_id"].tolist() == analyzer.unit_ids.tolist() and (table["quality"] == "good").sum() >= 2
    # Another sorting into the same folder replaces the labels, too.
    again = ["sort", str(tmp_path / "recording"), "--output", str(tmp_path / "sorted"), "-q", "--overwrite"]
    assert main(again) == 0
    assert not (tmp_path / "sorted" / "curation.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--unitrefine", "one_model"], "two models"),
        (["--thresholds", "no_file.json"], "no_file.json"),
        (["--output", "labels.zarr"], "no folder for labels"),
    ],
)
def test_what_is_asked_wrongly(analyzer_folder, options, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["curate", str(analyzer_folder), *options]) == 1
    assert said in capsys.readouterr().err
    assert not (analyzer_folder / "curation.json").exists()


def test_thresholds_that_are_none(analyzer_folder, tmp_path, capsys):
    bounds = tmp_path / "bounds.json"
    for text, said in (("{", "can be read"), ("[1]", "must look like"), ('{"snr": {"above": 5}}', "above")):
        bounds.write_text(text)
        assert main(["curate", str(analyzer_folder), "--thresholds", str(bounds)]) == 1
        assert said in capsys.readouterr().err


def test_no_units_at_this_place(tmp_path, capsys):
    assert main(["curate", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert main(["curate", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_an_analyzer_whose_recording_was_moved(trial, tmp_path, capsys):
    recording = trial[0].save(folder=tmp_path / "recording", verbose=False)
    make_analyzer(recording, trial[1], folder=tmp_path / "analyzer")
    shutil.move(tmp_path / "recording", tmp_path / "elsewhere")
    assert main(["curate", str(tmp_path / "analyzer")]) == 1
    assert "recording" in capsys.readouterr().err
    assert main(["curate", str(tmp_path / "analyzer"), "--recording", str(tmp_path / "elsewhere"), "-q"]) == 0


def test_without_the_extra(analyzer_folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops", None)
    assert main(["curate", str(analyzer_folder)]) == 1
    assert "spikeinterface-simsort[curation]" in capsys.readouterr().err
