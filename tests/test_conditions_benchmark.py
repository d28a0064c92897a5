"""Accuracy under changed conditions: what is varied, treatments, rows, what is done twice, and the figure."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import spikeinterface as si
from spikeinterface.core import BaseRecording, BaseSorting, NumpyRecording

from benchmarks import conditions
from benchmarks.conditions import CONDITIONS, FIRST_SEED, TREATMENTS, Variant
from benchmarks.spike_file import write_spikes
from benchmarks.worker import FACTS_FILE, SPIKES_FILE
from spikeinterface_simsort.simulation.bank import save_bank
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import bundled_bank

SHORT = TrialConfig(duration_s=2.0, num_units=2, num_far=1, firing_rate_hz=(5.0, 15.0))
FEW = {"units": replace(CONDITIONS["units"], values=(2, 3)), "treatment": CONDITIONS["treatment"]}
SORTERS = ("simsort", "kilosort4", "kilosort")


def sort_stub(command: list[str], *, log: Path, timeout_s: float) -> tuple[float, float, int]:
    """In place of a sorter's process: it finds the first of the true units, and Kilosort4 fails."""
    dataset, sorter, target = Path(command[-3]), command[-2], Path(command[-1])
    log.write_text("no CUDA")
    if sorter == "kilosort4":
        return 1.0, 100.0, 1
    truth: BaseSorting = si.load(dataset / "sorting")
    write_spikes(target / SPIKES_FILE, truth.select_units(truth.unit_ids[:1]))
    (target / FACTS_FILE).write_text(json.dumps({"seconds": 0.5, "sorter_version": "1.2"}))
    return 1.0, 100.0, 0


@pytest.fixture(scope="module", autouse=True)
def stubbed() -> Iterator[None]:
    """No sorter runs here, and which of them are installed does not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.runs.watch", sort_stub)
        patch.setattr("benchmarks.runs.missing", lambda sorter: "not installed" if sorter == "kilosort" else None)
        yield


@pytest.fixture(scope="module")
def wanted() -> list[Variant]:
    return conditions.variants(FEW, num=2, standard=SHORT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conditions")


@pytest.fixture(scope="module")
def table(wanted: list[Variant], folder: Path) -> pd.DataFrame:
    return conditions.measure(wanted, SORTERS, neurons=bundled_bank(), folder=folder)


def test_one_quantity_is_varied_at_a_time() -> None:
    made = conditions.variants(CONDITIONS, num=2)
    assert len(made) == 2 * (1 + 6 * 4)
    assert len({(variant.condition, variant.name) for variant in made}) == len(made)
    assert [variant.config.duration_s for variant in made[-2:]] == [1200.0, 1200.0]
    standard = made[2].quantities()
    assert made[2].condition == "standard"
    for variant in made:
        changed = {name for name, value in variant.quantities().items() if value != standard[name]}
        expected = set() if variant.condition == "standard" else {CONDITIONS[variant.condition].quantity}
        assert changed == expected
    # The standard is one of the values of each condition.
    assert all(standard[condition.quantity] in condition.values for condition in CONDITIONS.values())
    assert {variant.seed for variant in made} == {FIRST_SEED, FIRST_SEED + 1}


def test_treatments() -> None:
    mixing = np.eye(4) + 0.5
    traces = np.round(np.random.default_rng(0).normal(scale=100.0, size=(60000, 4)) @ mixing).astype("int16")
    recording = NumpyRecording([traces], 30000.0)
    recording.set_channel_gains(0.195)
    recording.set_channel_offsets(0.0)
    treated: dict[str, BaseRecording] = {name: treat(recording) for name, treat in TREATMENTS.items()}
    kinds = {name: str(item.get_dtype()) for name, item in treated.items()}
    assert kinds == {
        "as is": "int16",
        "x10, float32": "float32",
        "band-passed": "float32",
        "band-passed, whitened": "float32",
        "common reference": "int16",
    }
    np.testing.assert_array_equal(treated["as is"].get_traces(), traces)
    np.testing.assert_array_equal(treated["x10, float32"].get_traces(), 10.0 * traces)
    spectrum = np.abs(np.fft.rfft(treated["band-passed"].get_traces()[:, 0]))
    hertz = np.fft.rfftfreq(60000, 1 / 30000.0)
    assert spectrum[hertz < 100].mean() < 0.1 * spectrum[(hertz > 500) & (hertz < 5000)].mean()
    covariance = np.cov(treated["band-passed, whitened"].get_traces().T)
    np.testing.assert_allclose(covariance, np.eye(4), atol=0.1)
    assert np.abs(np.median(treated["common reference"].get_traces(), axis=1)).max() <= 1


def test_recordings_are_as_told(table: pd.DataFrame, wanted: list[Variant], folder: Path) -> None:
    for variant in wanted:
        known = json.loads((folder / "data" / variant.condition / variant.name / "dataset.json").read_text())
        assert known["num_units"] == variant.config.num_units
        assert known["seconds"] == pytest.approx(variant.config.duration_s)
        assert TrialConfig.from_dict(known["config"]) == variant.config
    raw, tenfold = (
        si.load(folder / "data" / name / "recording")
        for name in (f"standard/{FIRST_SEED}", f"treatment/x10_float32_{FIRST_SEED}")
    )
    np.testing.assert_array_equal(tenfold.get_traces(), 10.0 * raw.get_traces())


def test_a_row_a_recording_and_sorter(table: pd.DataFrame, wanted: list[Variant]) -> None:
    assert len(table) == len(wanted) * len(SORTERS) == 2 * (1 + 1 + 4) * len(SORTERS)
    assert set(conditions.QUANTITIES) <= set(table.columns)
    statuses = table.groupby("sorter")["status"].unique().map(list).to_dict()
    assert statuses == {"simsort": ["ok"], "kilosort4": ["failed"], "kilosort": ["missing"]}
    ours = table[table["sorter"] == "simsort"]
    np.testing.assert_allclose(ours["accuracy_1.0ms"], 1.0 / ours["num_units"])
    assert (table[table["sorter"] == "kilosort4"]["accuracy_1.0ms"] == 0.0).all()
    assert table[table["sorter"] == "kilosort"]["accuracy_1.0ms"].isna().all()
    assert (table["duration_s"] == 2.0).all() and (table["sampling_frequency"] == 30000.0).all()


def test_curve(table: pd.DataFrame) -> None:
    units = conditions.curve(table, "units").set_index(["sorter", "value"])
    assert list(units.index) == [("kilosort4", 2), ("kilosort4", 3), ("simsort", 2), ("simsort", 3)]
    np.testing.assert_allclose(units["mean"], [0.0, 0.0, 1 / 2, 1 / 3])
    np.testing.assert_allclose(units["sem"], 0.0, atol=1e-12)
    assert units["num"].tolist() == [2] * 4 and units["num_lost"].tolist() == [2, 2, 0, 0]
    treatments = conditions.curve(table[table["sorter"] == "simsort"], "treatment")
    assert treatments["value"].tolist() == list(TREATMENTS) and treatments["x"].tolist() == [0, 1, 2, 3, 4]
    # In units of the axis.
    assert conditions.curve(table, "sampling")["x"].tolist() == [30.0, 30.0]


def test_points_of_a_curve_are_of_the_same_seeds(table: pd.DataFrame) -> None:
    last = (table["condition"] == "units") & (table["seed"] == FIRST_SEED + 1)
    stopped = table[~last]
    assert conditions.curve(stopped, "units")["num"].tolist() == [1] * 4
    assert conditions.curve(stopped, "treatment")["num"].tolist() == [2] * 10


def test_a_stopped_run_goes_on(
    wanted: list[Variant], table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sorted_ones: list[str] = []

    def stop_at_third(command: list[str], **told: Any) -> tuple[float, float, int]:
        if len(sorted_ones) == 2:
            raise KeyboardInterrupt
        sorted_ones.append(command[-3])
        return sort_stub(command, **told)

    neurons = bundled_bank()
    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.runs.watch", stop_at_third)
        part = conditions.measure(wanted[:3], ["simsort"], neurons=neurons, folder=tmp_path)
    assert len(part) == len(sorted_ones) == 2

    def run_rest(command: list[str], **told: Any) -> tuple[float, float, int]:
        sorted_ones.append(command[-3])
        return sort_stub(command, **told)

    monkeypatch.setattr("benchmarks.runs.watch", run_rest)
    # All three recordings had been made.
    monkeypatch.delattr(conditions, "make_trial")
    whole = conditions.measure(wanted[:3], ["simsort"], neurons=neurons, folder=tmp_path)
    assert len(sorted_ones) == len(set(sorted_ones)) == 3
    pd.testing.assert_frame_equal(whole.iloc[:2], part)
    expected = table[table["sorter"] == "simsort"].iloc[:3].reset_index(drop=True)
    pd.testing.assert_frame_equal(whole, expected, check_dtype=False)


def test_recordings_of_other_settings_are_refused(table: pd.DataFrame, folder: Path) -> None:
    louder = conditions.variants({}, num=1, standard=replace(SHORT, noise_uv=9.0))
    with pytest.raises(ValueError, match="other settings"):
        conditions.measure(louder, ["simsort"], neurons=[], folder=folder)


def test_figure_names_its_units(table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    monkeypatch.setattr(conditions, "save_figure", lambda figure, path, *, dpi: written.append(figure))
    conditions.draw(table, tmp_path / "conditions.png")
    axes = written[0].axes
    assert [panel.get_xlabel() for panel in axes] == ["number of units", "already treated upstream"]
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["2", "3"]
    assert "accuracy" in written[0].get_supylabel()
    # Who is not installed is not in the legend.
    labels = [text.get_text() for text in written[0].legends[0].get_texts()]
    assert labels[:2] == ["simsort", "kilosort4"] and labels[-1] == "failed runs count 0"
    with pytest.raises(ValueError, match="no runs"):
        conditions.draw(table[table["status"] == "missing"], tmp_path / "none.png")


def test_main_writes_table_and_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_bank(tmp_path / "bank.npz", [replace(cell, name=f"L6_{cell.name}") for cell in bundled_bank()[:4]])
    monkeypatch.setattr(conditions, "STANDARD", SHORT)
    monkeypatch.setitem(conditions.CONDITIONS, "noise", replace(CONDITIONS["noise"], values=(5.0, 10.0)))
    paths = ["--bank", str(tmp_path / "bank.npz"), "--runs", str(tmp_path / "runs")]
    output = tmp_path / "new" / "conditions.csv"
    arguments = [*paths, "--output", str(output), "--conditions", "noise", "--num", "1"]
    assert conditions.main([*arguments, "--figure", str(tmp_path / "new" / "conditions.png")]) == 0
    assert "noise" in capsys.readouterr().out
    written = pd.read_csv(output)
    assert written["sorter"].tolist() == ["simsort", "kilosort4"] * 2
    assert written["noise_uv"].tolist() == [5.0, 5.0, 10.0, 10.0]
    assert written["condition"].tolist() == ["standard", "standard", "noise", "noise"]
    assert (tmp_path / "new" / "conditions.png").stat().st_size > 5000
    # The file is enough to draw from.
    conditions.draw(written, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "new" / "conditions.png").read_bytes()
    with pytest.raises(SystemExit):
        conditions.main([*arguments, "--sorters", "kilosort"])
    assert "none of the sorters" in capsys.readouterr().err
