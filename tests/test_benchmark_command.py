"""`python -m benchmarks` from data to tables, and the check by hand of what it wrote."""

import importlib
import json
from pathlib import Path

import pandas as pd
import pytest
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks import by_hand, catalogue
from benchmarks.catalogue import Family, Sources

command = importlib.import_module("benchmarks.__main__")


@pytest.fixture
def only_a_toy(trial: tuple[BaseRecording, BaseSorting], monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of all families, the session's simulated recording, and one whose source is missing."""

    def needs_a_bank(sources: Sources, seed: int) -> tuple[BaseRecording, BaseSorting]:
        sources.need("bank")
        raise AssertionError("never comes so far")

    for name in list(catalogue.FAMILIES):
        monkeypatch.delitem(catalogue.FAMILIES, name)
    monkeypatch.setitem(catalogue.FAMILIES, "toy", Family(make=lambda sources, seed: trial, description="a toy"))
    monkeypatch.setitem(catalogue.FAMILIES, "absent", Family(make=needs_a_bank, description="not to be had"))


@pytest.mark.usefixtures("only_a_toy")
def test_from_data_to_tables(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = {name: tmp_path / name for name in ("data", "runs", "output")}
    arguments = [text for name, folder in folders.items() for text in (f"--{name}", str(folder))]
    # Not installed anywhere: it is named as missing, and the rest goes on.
    sorters = ["--sorters", "simsort", "oracle-identity", "kilosort2"]
    with caplog.at_level("INFO"):
        assert command.main([*arguments, *sorters]) == 0
    assert "absent is left out: this data set is made from what --bank names" in caplog.text
    first = capsys.readouterr().out
    assert first == (folders["output"] / "tables.md").read_text()
    recordings = pd.read_csv(folders["output"] / "recordings.csv", dtype={"dataset": str}).set_index("sorter")
    assert recordings["status"].to_dict() == {"simsort": "ok", "oracle-identity": "ok", "kilosort2": "missing"}
    assert recordings.loc["oracle-identity", "accuracy_1.0ms"] > 0.95
    units = pd.read_csv(folders["output"] / "units.csv")
    assert len(units) == 2 * 2 * recordings.loc["simsort", "num_units"]
    known = json.loads((folders["output"] / "manifest.json").read_text())
    assert known["missing"] == {"kilosort2": "not installed"}
    assert len(known["weights_sha256"]) == 64

    # A second time nothing is run, and the tables are the same.
    monkeypatch.setattr("benchmarks.runs.watch", lambda *args, **kwargs: pytest.fail("ran again"))
    command.main([*arguments, *sorters])
    assert capsys.readouterr().out == first

    monkeypatch.setattr(by_hand, "SETTINGS", {"simsort": {}})
    check = ["--data", str(folders["data"]), "--results", str(folders["output"]), "--datasets", "toy/0"]
    assert by_hand.main(check) == 0
    # A table that says something else is found out.
    recordings.loc["simsort", "accuracy_1.0ms"] -= 0.1
    recordings.reset_index().to_csv(folders["output"] / "recordings.csv", index=False)
    assert by_hand.main(check) == 1


@pytest.mark.usefixtures("only_a_toy")
def test_nothing_to_sort_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["--data", str(tmp_path / "data"), "--families", "absent"])
    assert stop.value.code == 2
    assert "name --bank, --waveforms or --published" in capsys.readouterr().err


@pytest.mark.usefixtures("only_a_toy")
def test_no_sorter_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"), "--sorters", "kilosort2"])
    assert stop.value.code == 2
    assert "none of the sorters can run here (kilosort2: not installed)" in capsys.readouterr().err
