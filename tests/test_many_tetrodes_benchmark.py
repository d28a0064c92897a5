"""Throughput of many tetrodes: the recording is what it says, and the ratio is that of the rows."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import spikeinterface as si

from benchmarks import many_tetrodes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tetrodes")


def test_recording(folder: Path) -> None:
    path, truth = many_tetrodes.make_tetrodes(folder / "data", num_tetrodes=5, minutes=2, piece_s=2.0, num_units=3)
    recording: Any = si.load(path)
    assert recording.get_num_channels() == 20 and recording.get_total_duration() == pytest.approx(4.0)
    assert recording.get_dtype() == "int16"
    assert recording.get_property("group").tolist() == [tetrode for tetrode in range(5) for _ in range(4)]
    traces = recording.get_traces()
    half = len(traces) // 2
    np.testing.assert_array_equal(traces[:half], traces[half:])
    # The fifth is the first again, the others are themselves.
    np.testing.assert_array_equal(traces[:, 16:], traces[:, :4])
    assert not np.array_equal(traces[:, 4:8], traces[:, :4])
    assert len(list((folder / "data").glob("piece_*"))) == 4
    assert truth.get_num_units() == 15 and truth.get_property("group").tolist() == [n // 3 for n in range(15)]
    train = truth.get_unit_spike_train(0)
    np.testing.assert_array_equal(train[: len(train) // 2] + half, train[len(train) // 2 :])


def test_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def watch(command: list[str], *, log: Path, timeout_s: float) -> tuple[float, float, int]:
        asked.append(command)
        return {1: 12.0, 2: 10.0, 3: 16.0}[len(asked)], 500.0 * len(asked), 0

    monkeypatch.setattr("benchmarks.runs.watch", watch)
    monkeypatch.setattr(many_tetrodes, "PIECE_S", 2.0)
    arguments = ["--runs", str(tmp_path), "--tetrodes", "3", "--minutes", "2", "--output", str(tmp_path / "rows.csv")]
    assert many_tetrodes.main(arguments) == 0
    assert [("OMP_NUM_THREADS=1" in command, command[-1]) for command in asked] == [
        (True, "1"),
        (False, "2"),
        (True, "2"),
    ]
    table = pd.read_csv(tmp_path / "rows.csv")
    assert table["way"].tolist() == [
        "one tetrode, one thread",
        "one tetrode, all cores",
        "3 tetrodes, 2 at a time",
    ]
    assert table["ratio"].tolist() == pytest.approx([1.0, 1.2, 3 * 12 / 16], rel=1e-3)
    assert table["throughput"][0] == pytest.approx((4.0 / 60.0) / (12.0 / 60.0), rel=1e-3)
    assert table["peak_mb"].tolist() == [500.0, 1000.0, 1500.0]
    assert "2.25" in capsys.readouterr().out
    # What was measured is not measured again.
    assert many_tetrodes.main(arguments) == 0 and len(asked) == 3


def test_failed_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], *, log: Path, timeout_s: float) -> tuple[float, float, int]:
        log.write_text("out of memory")
        return 1.0, 1.0, 1

    monkeypatch.setattr("benchmarks.runs.watch", fail)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        many_tetrodes.compare(tmp_path, num_tetrodes=2, minutes=1, n_jobs=2, piece_s=2.0)
    assert caught.value.output == "out of memory"
