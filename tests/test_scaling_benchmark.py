"""Time and memory against size: recordings that are as long and as dense as they say, rows, and the figure."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import spikeinterface as si

from benchmarks import scaling
from benchmarks.catalogue import DESCRIPTION_FILE, Dataset
from benchmarks.runs import Run

SORTERS = ("simsort", "kilosort4", "lupin", "kilosort")


def run_stub(dataset: Dataset, sorter: str, *, folder: Path, timeout_s: float) -> Run:
    """A sorter's run without the sorter: one takes too long, one fails, one is missing."""
    known = json.loads((dataset.folder / DESCRIPTION_FILE).read_text(encoding="utf8"))
    names = {"family": dataset.family, "dataset": dataset.name, "sorter": sorter}
    if sorter == "kilosort":
        return Run(**names, status="missing", message="not installed")
    if sorter == "lupin" and dataset.name == "0.1min":
        return Run(**names, status="timeout", seconds=timeout_s, peak_mb=900.0, message="ended after 7 s")
    if sorter == "kilosort4":
        return Run(**names, status="failed", seconds=1.0, peak_mb=100.0, message="no CUDA")
    return Run(**names, status="ok", seconds=known["seconds"], peak_mb=300.0, sorter_version="1.2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scaling") / "data"


@pytest.fixture(scope="module")
def datasets(data: Path) -> list[Dataset]:
    return scaling.prepare(data, minutes=[0.05, 0.1], rates_hz=[5.0, 20.0], rate_s=4.0)


@pytest.fixture
def table(datasets: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    monkeypatch.setattr("benchmarks.runs.run_one", run_stub)
    return scaling.measure(datasets, SORTERS, folder=tmp_path, timeout_s=7.0)


def test_long_recordings_are_composed_as_a_whole(datasets: list[Dataset]) -> None:
    once, twice = (si.load(dataset.folder / "recording") for dataset in datasets[:2])
    assert once.get_dtype() == "int16" and once.get_num_channels() == 4
    assert (once.get_duration(), twice.get_duration()) == (3.0, 6.0)
    halves = np.split(twice.get_traces(), 2)
    assert not np.array_equal(*halves)
    first, both = (si.load(dataset.folder / "sorting") for dataset in datasets[:2])
    assert len(first.unit_ids) == len(both.unit_ids)
    assert both.count_total_num_spikes() > first.count_total_num_spikes() > 0


def test_dense_recordings_fire_as_told(datasets: list[Dataset]) -> None:
    for dataset, rate_hz in zip(datasets[2:], (5.0, 20.0), strict=True):
        known = json.loads((dataset.folder / DESCRIPTION_FILE).read_text(encoding="utf8"))
        assert known["seconds"] == pytest.approx(4.0)
        rate = known["num_spikes"] / known["seconds"] / known["num_units"]
        # Spikes come at random, and some find no room next to another.
        assert 0.6 * rate_hz < rate < 1.4 * rate_hz


def test_recordings_are_made_once(data: Path, datasets: list[Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(scaling, "make_trial")
    again = scaling.prepare(data, minutes=[0.05, 0.1], rates_hz=[5.0, 20.0], rate_s=4.0)
    assert again == datasets
    assert [dataset.family for dataset in datasets] == ["duration", "duration", "rate", "rate"]
    # Others have other names.
    with pytest.raises(NameError):
        scaling.prepare(data, minutes=[0.15], rates_hz=[])


def test_a_row_a_run(table: pd.DataFrame) -> None:
    assert len(table) == 4 * len(SORTERS)
    assert list(table.columns) == list(scaling.FIELDS)
    statuses = table.groupby("sorter")["status"].unique().map(sorted).to_dict()
    expected = {"simsort": ["ok"], "kilosort4": ["failed"], "lupin": ["ok", "timeout"], "kilosort": ["missing"]}
    assert statuses == expected
    ours = table[table["sorter"] == "simsort"]
    np.testing.assert_allclose(ours["minutes"], np.array([3.0, 6.0, 4.0, 4.0]) / 60.0)
    np.testing.assert_allclose(ours["seconds"], 60.0 * ours["minutes"])
    long, twice, few, many = ours["num_spikes"]
    assert long < twice and few < many
    assert table[table["sorter"] == "kilosort"]["seconds"].isna().all()
    assert set(table[table["sorter"] == "kilosort4"]["message"]) == {"no CUDA"}


@pytest.mark.parametrize("experiment", ["duration", "rate", None])
@pytest.mark.parametrize("sorters", [SORTERS, ("simsort",), ("kilosort",)])
def test_figure(table: pd.DataFrame, sorters: tuple[str, ...], experiment: str | None, tmp_path: Path) -> None:
    part = table[table["sorter"].isin(sorters)]
    if experiment:
        part = part[part["experiment"] == experiment]
    scaling.draw(part, tmp_path / "new" / "scaling.png")
    assert (tmp_path / "new" / "scaling.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="no runs"):
        scaling.draw(table.iloc[:0], tmp_path / "none.png")


def test_figure_names_its_units(table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    monkeypatch.setattr(scaling, "save_figure", lambda figure, path, *, dpi: written.append(figure))
    scaling.draw(table, tmp_path / "scaling.png")
    axes = written[0].axes
    assert [panel.get_ylabel() for panel in axes[::2]] == ["time (s)", "peak memory (MB)"]
    assert [panel.get_xlabel() for panel in axes[2:]] == ["duration of the recording (min)", "true spikes"]
    assert all(panel.get_xscale() == panel.get_yscale() == "log" for panel in axes)
    # Who never ran well, nor too long, is not in the legend.
    labels = [text.get_text() for text in written[0].legends[0].get_texts()]
    assert labels == ["simsort", "lupin", "real time", "took too long"]


def test_main_writes_table_and_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.runs.run_one", run_stub)
    prepare = scaling.prepare

    def prepare_short(folder: Path, **sizes: Any) -> list[Dataset]:
        return prepare(folder, **sizes, rate_s=3.0)

    monkeypatch.setattr(scaling, "prepare", prepare_short)
    paths = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "new" / "scaling.csv")]
    sizes = ["--minutes", "0.05", "--rates", "5", "--sorters", "simsort", "kilosort4", "--timeout", "7"]
    assert scaling.main([*paths, *sizes, "--figure", str(tmp_path / "scaling.png")]) == 0
    table = pd.read_csv(tmp_path / "new" / "scaling.csv")
    assert list(table["status"]) == ["ok", "failed"] * 2
    assert list(table["dataset"]) == ["0.05min"] * 2 + ["5Hz_3s"] * 2
    assert (tmp_path / "scaling.png").exists()
    assert "kilosort4" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        scaling.main([*paths, "--sorters", "nobody"])
