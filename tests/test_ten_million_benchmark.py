"""The recording of very many spikes is what it says, and so is the row."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import spikeinterface as si

from benchmarks import ten_million


def test_recording(tmp_path: Path) -> None:
    path, num_spikes = ten_million.make_recording(tmp_path, num_spikes=2500, piece_s=2.0)
    recording: Any = si.load(path)
    assert recording.get_num_channels() == 4 and recording.get_dtype() == "int16"
    repeats = round(recording.get_total_duration() / 2.0)
    # The least number of pieces that hold so many.
    assert num_spikes >= 2500 > num_spikes * (repeats - 1) / repeats
    expected = ten_million.NUM_UNITS * ten_million.RATE_HZ * recording.get_total_duration()
    assert num_spikes == pytest.approx(expected, rel=0.3)
    # No more than the piece is written.
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.raw")) == 2 * 30_000 * 4 * 2


def test_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ten_million, "PIECE_S", 2.0)

    def watch(command: list[str], *, log: Path, timeout_s: float) -> tuple[float, float, int]:
        log.write_text("a warning\n" + json.dumps({"found": 900, "units": 7}) + "\n")
        return 12.0, 345.0, 0

    monkeypatch.setattr("benchmarks.runs.watch", watch)
    output = tmp_path / "new" / "row.csv"
    assert ten_million.main(["--runs", str(tmp_path / "runs"), "--spikes", "1500", "--output", str(output)]) == 0
    row = pd.read_csv(output).iloc[0]
    assert (row["found"], row["units"], row["seconds"], row["peak_mb"]) == (900, 7, 12.0, 345.0)
    assert row["spikes"] >= 1500
    assert "345.0" in capsys.readouterr().out


def test_a_run_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(command: list[str], *, log: Path, timeout_s: float) -> tuple[float, float, int]:
        log.write_text("MemoryError")
        return 1.0, 1.0, 1

    monkeypatch.setattr("benchmarks.runs.watch", watch)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        ten_million.measure(tmp_path / "runs", num_spikes=100, piece_s=2.0)
    assert caught.value.output == "MemoryError"
