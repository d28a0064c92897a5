"""Labels over time: what is one unit, what changes its label, and what is not found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from spikeinterface.core import NumpySorting

from benchmarks import slow_drift
from benchmarks.slow_drift import labels_over_time, summarise

RATE = 10_000.0


def train(*, seed: int) -> np.ndarray:
    """One spike in each tenth of a second, for 60 s."""
    return 1000 * np.arange(600) + np.random.default_rng(seed).integers(0, 1000, 600)


def sorting(trains: dict[int, np.ndarray]) -> NumpySorting:
    return NumpySorting.from_unit_dict([trains], RATE)


@pytest.fixture(scope="module")
def windows() -> pd.DataFrame:
    """The first unit keeps its label, the second gets another after 40 s, the third is lost after 20 s."""
    first, second, third = (train(seed=seed) for seed in range(3))
    found = {
        7: first,
        3: second[second < 400_000],
        4: second[second >= 400_000],
        5: np.concatenate([third[third < 200_000], third[third >= 200_000][::4]]),
    }
    return labels_over_time(sorting({0: first, 1: second, 2: third}), sorting(found), num_frames=605_000, window_s=20.0)


def test_labels_in_windows(windows: pd.DataFrame) -> None:
    labels = windows.pivot(index="unit", columns="minute", values="label")
    assert labels.columns.tolist() == pytest.approx([0, 1 / 3, 2 / 3])
    assert labels.to_numpy().tolist() == [[7, 7, 7], [3, 3, 4], [5, -1, -1]]
    assert windows["accuracy"].tolist() == pytest.approx([1, 1, 1, 1, 1, 0.25, 1, 1, 0.25], abs=0.01)


def test_summary(windows: pd.DataFrame) -> None:
    lost = windows[windows["unit"] == 0].assign(unit=9, label=-1)
    units = summarise(pd.concat([windows, lost])).set_index("unit")
    assert units.index.tolist() == [0, 1, 2]
    assert units["found"].tolist() == [3, 3, 1]
    assert units["kept"].tolist() == pytest.approx([1, 2 / 3, 1])
    assert units["first"].tolist() == pytest.approx([1, 1, 1]) and units["last"][2] == pytest.approx(0.25, abs=0.01)


def test_nothing_found() -> None:
    none = NumpySorting(sorting({0: train(seed=0)}).to_spike_vector()[:0], RATE, np.array([], dtype=int))
    windows = labels_over_time(sorting({0: train(seed=0)}), none, num_frames=600_000, window_s=30.0)
    assert windows["label"].tolist() == [-1, -1]
    assert summarise(windows).empty


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(slow_drift, "WINDOW_S", 5.0)
    output = tmp_path / "new" / "drift.csv"
    assert slow_drift.main(["--num", "1", "--minutes", "0.25", "--drift", "2", "--output", str(output)]) == 0
    table = pd.read_csv(output)
    assert len(table) == 5 * 3 and set(table["seed"]) == {slow_drift.FIRST_SEED}
    assert "windows with a label have that of their unit" in capsys.readouterr().out


@pytest.mark.slow
def test_units_keep_their_labels_for_half_an_hour() -> None:
    windows = slow_drift.measure(None, seeds=[8000], minutes=30.0, drift_um=10.0, window_s=300.0)
    units = summarise(windows)
    assert len(units) >= 4
    assert np.average(units["kept"], weights=units["found"]) >= 0.9
