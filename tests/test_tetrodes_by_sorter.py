"""Sorters on many tetrodes: what is run, what is kept of it, and whose time is compared with whose."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import tetrodes_by_sorter


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    asked: list[list[str]] = []

    def watch(command: list[str], *, log: Path, timeout_s: float) -> tuple[float, float, int | None]:
        asked.append(command)
        results = {"simsort": (2.0, 0), "kilosort4": (10.0, 0), "lupin": (timeout_s, None), "mountainsort5": (3.0, 1)}
        seconds, code = results[command[-3]]
        return seconds, 100.0, code

    monkeypatch.setattr(tetrodes_by_sorter, "watch", watch)
    monkeypatch.setattr(tetrodes_by_sorter.measure, "__kwdefaults__", {"timeout_s": 50.0, "piece_s": 2.0})
    return asked


def test_rows(short: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rows.csv"
    arguments = ["--runs", str(tmp_path), "--sizes", "1x1", "2x2", "--timeout", "50", "--output", str(output)]
    assert tetrodes_by_sorter.main(arguments) == 0
    table = pd.read_csv(output)
    assert table[["tetrodes", "minutes"]].drop_duplicates().to_numpy().tolist() == [[1, 1], [2, 2]]
    assert table["sorter"].tolist() == 2 * list(tetrodes_by_sorter.SORTERS)
    assert table["status"].tolist() == 2 * ["ok", "ok", "failed", "timeout"]
    assert table["ratio"].tolist() == pytest.approx(2 * [1.0, 5.0, 1.5, 25.0])
    assert "25" in capsys.readouterr().out
    # What was measured is not measured again.
    assert len(short) == 8 and tetrodes_by_sorter.main(arguments) == 0 and len(short) == 8


def test_sizes_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tetrodes_by_sorter.main(["--sizes", "many", "--output", str(tmp_path / "rows.csv")])
    assert "as in 4x10" in capsys.readouterr().err


@pytest.mark.slow
def test_two_tetrodes_are_sorted(tmp_path: Path) -> None:
    table = tetrodes_by_sorter.measure(tmp_path, sizes=[(2, 1)], sorters=["simsort", "simple"], piece_s=10.0)
    assert table["status"].tolist() == ["ok", "ok"] and (table["peak_mb"] > 100).all()
