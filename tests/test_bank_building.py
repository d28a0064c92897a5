"""Driving a cell that is no cell, and building banks from our own cells."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spikeinterface_simsort.simulation import bank_building
from spikeinterface_simsort.simulation.bank import load_bank
from spikeinterface_simsort.simulation.bank_building import BankConfig, CellOutcome, build_bank
from spikeinterface_simsort.simulation.cell_models import CellModel
from spikeinterface_simsort.simulation.drive import STRETCH_MS, DriveConfig, collect_spikes, find_rheobase
from spikeinterface_simsort.simulation.own_cells import make_own_cell, to_netpyne
from spikeinterface_simsort.simulation.spike_currents import DT, FIRST_SPIKE_ISI, PEAK_INDEX, cut_windows, spike_samples


class FakeCell:
    """A leaky integrator: 20 mV above rest it spikes, so its rheobase is 20 mV / resistance."""

    name = "fake"

    def __init__(self, *, resistance: float = 100.0, bias: float = 0.0, spikes: bool = True) -> None:
        self.resistance, self.bias, self.spikes = resistance, bias, spikes  # MOhm, nA
        self.shape = np.interp(np.arange(80), [0, 20, 60, 79], [-50.0, 30.0, -75.0, -70.0])
        self.trace: list[float] = []
        self.rest()

    def rest(self) -> None:
        self.v, self.left = -70.0, []
        self.trace = []

    def run(self, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        v_soma = np.empty(len(current))
        for sample, amplitude in enumerate(current.tolist()):
            if self.left:
                self.v = self.left.pop(0)
            else:
                self.v += DT / 10.0 * (-70.0 + self.resistance * (amplitude + self.bias) - self.v)
                if self.spikes and self.v > -50.0:
                    self.left = self.shape.tolist()
            v_soma[sample] = self.v
        self.trace += v_soma.tolist()
        return v_soma, np.stack([v_soma, -v_soma]).astype("float32")


@pytest.mark.parametrize("resistance", [20.0, 100.0, 1000.0])
def test_rheobase(resistance):
    found = find_rheobase(FakeCell(resistance=resistance), precision=0.05)
    expected = 20.0 / resistance
    # It spikes at what is found, and not at 5 % less.
    assert expected <= found < 1.06 * expected


def test_no_rheobase():
    with pytest.raises(ValueError, match="fake does not spike at up to 3 nA"):
        find_rheobase(FakeCell(resistance=5.0))
    with pytest.raises(ValueError, match="fake spikes without a current"):
        find_rheobase(FakeCell(bias=0.3))


def test_cell_that_only_charges_up_has_no_rheobase():
    with pytest.raises(ValueError, match="fake does not spike at up to 3 nA"):
        find_rheobase(FakeCell(spikes=False))


def test_spikes_are_collected_across_stretches():
    cell = FakeCell()
    config = DriveConfig(num_spikes=20, num_short=4, max_duration_ms=4000.0)
    windows, duration_ms = collect_spikes(cell, rheobase=0.2, rng=np.random.default_rng(0), config=config)
    assert duration_ms % STRETCH_MS == 0.0 and duration_ms == len(cell.trace) * DT
    assert sum(window.isi < FIRST_SPIKE_ISI for window in windows) >= 20
    assert sum(window.isi < 20.0 for window in windows) >= 4 or duration_ms >= config.patience_ms
    # Those of the whole run in one, whatever stretch they lie in.
    trace = np.array(cell.trace)
    whole = cut_windows(v_soma=trace, currents=np.stack([trace, -trace]).astype("float32"))
    assert len(whole) > 10 and len(whole) == len(windows)
    for found, expected in zip(windows, whole, strict=True):
        assert found.isi == pytest.approx(expected.isi) and found.v_peak == expected.v_peak
        np.testing.assert_array_equal(found.currents, expected.currents)
        assert found.currents[0, PEAK_INDEX] == pytest.approx(found.v_peak)
    peaks = spike_samples(v_soma=trace) * DT
    assert len(peaks) / (duration_ms / 1000.0) < 80.0


def test_drive_is_that_of_its_seed():
    config = DriveConfig(num_spikes=5, num_short=0, max_duration_ms=1000.0, min_spikes=2)
    runs = [
        collect_spikes(FakeCell(), rheobase=0.2, rng=np.random.default_rng(seed), config=config)[0]
        for seed in (1, 1, 2)
    ]
    isi = [[window.isi for window in windows] for windows in runs]
    assert isi[0] == isi[1] != isi[2]


def test_too_few_spikes():
    config = DriveConfig(max_duration_ms=500.0, min_spikes=10_000)
    with pytest.raises(ValueError, match=r"fake gave \d+ spikes that stand alone in 0.5 s, fewer than 10000"):
        collect_spikes(FakeCell(), rheobase=0.2, rng=np.random.default_rng(0), config=config)


def test_strength_follows_the_cell():
    """A rheobase that is five times too low or too high still gives spikes."""
    config = DriveConfig(num_spikes=10, num_short=0, max_duration_ms=6000.0, min_spikes=5)
    for factor in (0.2, 5.0):
        windows, _ = collect_spikes(FakeCell(), rheobase=0.2 * factor, rng=np.random.default_rng(0), config=config)
        assert len(windows) >= 10


CONFIG = BankConfig(
    drive=DriveConfig(num_spikes=8, num_short=1, patience_ms=500.0, max_duration_ms=1000.0, min_spikes=2)
)
GOOD, SILENT, BROKEN = ("OWN_BC_fs_1", "OWN_BP_ad_1"), "OWN_LEAKY_1", "OWN_TEXT_1"


def silent(model: CellModel) -> CellModel:
    """The cell with nothing in its membrane but a leak, one that no current of ours charges up to a spike's height."""
    leak = {"pas": {"g": 1e-2, "e": -70.0}}
    return CellModel(SILENT, tuple(replace(section, mechanisms=leak) for section in model.sections))


def failures(folder: Path) -> dict[str, str]:
    with (folder / "failures.csv").open(newline="", encoding="utf-8") as file:
        return {row["cell"]: row["error"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    """Two good cells, one that cannot spike and one that cannot be read."""
    pytest.importorskip("neuron")
    if not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
        pytest.skip("cells need a C++ compiler")
    folder = tmp_path_factory.mktemp("cells")
    models = [make_own_cell("OWN_BC_fs", 1), make_own_cell("OWN_BP_ad", 1)]
    for model in (*models, silent(models[0])):
        (folder / f"{model.name}.json").write_text(to_netpyne(model), encoding="utf-8")
    (folder / f"{BROKEN}.json").write_text("no cell", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def built(cells, tmp_path_factory) -> tuple[Path, list[CellOutcome], list[CellOutcome]]:
    folder = tmp_path_factory.mktemp("bank") / "bank"
    told: list[CellOutcome] = []
    return folder, build_bank(cells, folder, config=CONFIG, num_processes=2, progress=told.append), told


def test_bank_holds_the_good_cells(built):
    folder, outcomes, told = built
    assert told == outcomes
    assert {outcome.name for outcome in outcomes if not outcome.error} == set(GOOD)
    neurons = load_bank(folder)
    assert tuple(neuron.name for neuron in neurons) == GOOD
    for neuron in neurons:
        assert 2 <= neuron.num_spikes <= 8
        assert 0.03 < neuron.rheobase < 1.0
        assert neuron.dt == DT and neuron.peak_index == PEAK_INDEX
        np.testing.assert_allclose(neuron.seg_start[neuron.soma] + neuron.seg_end[neuron.soma], 0.0, atol=1e-4)
        assert np.all(neuron.v_peak > 0.0)
        assert np.all(np.diff(neuron.isi) >= 0.0)
    assert {path.name for path in folder.iterdir()} == {
        "bank.json", "failures.csv", "report.csv", "me_types.csv", *(f"{name}.npz" for name in GOOD)
    }  # fmt: skip


def test_currents_of_the_bank_are_conserved(built):
    for neuron in load_bank(built[0]):
        for spike in range(neuron.num_spikes):
            currents = neuron.membrane_currents(spike).astype(float)
            assert np.abs(currents.sum(axis=0)).max() < 2e-3 * np.abs(currents).max()


def test_failures_are_told_and_passed_over(built):
    found = failures(built[0])
    assert set(found) == {SILENT, BROKEN}
    assert "does not spike at up to 3 nA" in found[SILENT]
    assert "is not a cell in NetPyNE's JSON" in found[BROKEN]
    with (built[0] / "me_types.csv").open(newline="", encoding="utf-8") as file:
        types = {row["me_type"]: (row["neurons"], row["failed"]) for row in csv.DictReader(file)}
    assert types == {
        "OWN_BC_fs": ("1", "0"), "OWN_BP_ad": ("1", "0"), "OWN_LEAKY": ("0", "1"), "OWN_TEXT": ("0", "1")
    }  # fmt: skip


def test_report(built):
    with (built[0] / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows] == list(GOOD)
    assert [row["me_type"] for row in rows] == ["OWN_BC_fs", "OWN_BP_ad"]
    for row in rows:
        assert 0.99 < float(row["explained_variance"]) <= 1.0
        assert 500.0 <= float(row["simulated_ms"]) <= 1000.0 and float(row["cpu_s"]) > 0.0


def started(monkeypatch) -> list[str]:
    """Names of the cells for which a process is started from now on."""
    names: list[str] = []
    original = bank_building._Running.start

    def start(model, **keywords):
        names.append(model.name)
        return original(model, **keywords)

    monkeypatch.setattr(bank_building._Running, "start", start)
    return names


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def test_what_is_there_is_kept(built, cells, tmp_path, monkeypatch):
    folder = copied(built[0], tmp_path / "bank")
    (folder / f"{GOOD[1]}.npz").unlink()
    kept = folder / f"{GOOD[0]}.npz"
    before, names = kept.stat().st_mtime_ns, started(monkeypatch)
    outcomes = build_bank(cells, folder, config=CONFIG, wanted=lambda name: name in GOOD)
    assert names == [GOOD[1]]
    assert kept.stat().st_mtime_ns == before
    assert {outcome.name: outcome.error for outcome in outcomes} == dict.fromkeys(GOOD, "")
    # A cell that is simulated again gives what it gave.
    for old, new in zip(load_bank(built[0]), load_bank(folder), strict=True):
        assert old.name == new.name
        np.testing.assert_array_equal(old.coef, new.coef)
        np.testing.assert_array_equal(old.isi, new.isi)


def test_nothing_left_to_do(built, cells, tmp_path, monkeypatch):
    folder, names = copied(built[0], tmp_path / "bank"), started(monkeypatch)
    outcomes = build_bank(cells, folder, config=CONFIG, wanted=lambda name: name in GOOD)
    assert len(outcomes) == 2 and not names
    assert failures(folder) == {}


def test_other_settings_are_refused(built, cells):
    with pytest.raises(ValueError, match="was made with other settings"):
        build_bank(cells, built[0], config=replace(CONFIG, seed=1))
    assert json.loads((built[0] / "bank.json").read_text(encoding="utf-8"))["seed"] == 0


def test_folder_with_other_files_is_refused(cells, tmp_path):
    (tmp_path / "letter.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(ValueError, match="holds other files"):
        build_bank(cells, tmp_path, config=CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_no_cell_is_wanted(cells, tmp_path):
    with pytest.raises(ValueError, match="none was asked for"):
        build_bank(cells, tmp_path / "bank", config=CONFIG, wanted=lambda name: False)


def test_time_limit(cells, tmp_path, monkeypatch):
    wait = bank_building.wait
    monkeypatch.setattr(bank_building, "wait", lambda handles, timeout: wait(handles, timeout=0.1))
    with pytest.raises(ValueError, match="ran past the time limit"):
        build_bank(cells, tmp_path / "bank", config=CONFIG, wanted=lambda name: name == GOOD[0], time_limit_s=0.2)
    assert failures(tmp_path / "bank") == {GOOD[0]: "ran past the time limit"}
    assert not list((tmp_path / "bank").glob("*.npz*"))


def test_killed_process_is_told(cells, tmp_path, monkeypatch):
    original = bank_building._Running.start

    def start(model, **keywords):
        running = original(model, **keywords)
        if model.name == GOOD[0]:
            running.process.kill()
        return running

    monkeypatch.setattr(bank_building._Running, "start", start)
    outcomes = build_bank(cells, tmp_path / "bank", config=CONFIG, wanted=lambda name: name in GOOD, num_processes=2)
    told = {outcome.name: outcome.error for outcome in outcomes}
    assert told[GOOD[1]] == "" and "its process died (exit code -9)" in told[GOOD[0]]
    assert [neuron.name for neuron in load_bank(tmp_path / "bank")] == [GOOD[1]]


def test_interruption_ends_the_processes(cells, tmp_path, monkeypatch):
    processes = []
    original = bank_building._Running.start

    def start(model, **keywords):
        running = original(model, **keywords)
        processes.append(running.process)
        if len(processes) == 2:
            raise KeyboardInterrupt
        return running

    monkeypatch.setattr(bank_building._Running, "start", start)
    with pytest.raises(KeyboardInterrupt):
        build_bank(cells, tmp_path / "bank", config=CONFIG, wanted=lambda name: name in GOOD, num_processes=2)
    processes[0].join(timeout=10.0)
    assert not processes[0].is_alive()
    processes[1].kill()
    assert not list((tmp_path / "bank").glob("*.npz"))
