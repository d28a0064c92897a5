"""From cell models to a neuron bank: a process a cell, resumable, failures told and passed over."""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from spikeinterface_simsort.simulation.bank import NeuronCurrents, save_neuron
from spikeinterface_simsort.simulation.cell_models import CellModel, me_type
from spikeinterface_simsort.simulation.cells import iterate_cells
from spikeinterface_simsort.simulation.drive import DriveConfig, collect_spikes, find_rheobase
from spikeinterface_simsort.simulation.mechanisms import compile_mechanisms
from spikeinterface_simsort.simulation.spike_currents import bank_entry, choose_windows

if TYPE_CHECKING:
    from spikeinterface_simsort.simulation.neuron_cells import NeuronCell

logger = logging.getLogger(__name__)

SETTINGS_FILE, FAILURES_FILE = "bank.json", "failures.csv"
REPORT_FILE, TYPES_FILE = "report.csv", "me_types.csv"


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """How the neurons of a bank are made.

    Attributes
    ----------
    seed : int
        Each cell's stimuli follow from it and from the cell's name.
    max_segment_um : float
        Longest segment of the cells, see `neuron_cells.NeuronCell`.
    max_components : int
        Most temporal components of a neuron's currents.
    lost : float
        Share of the currents' energy that may be left out.
    drive : DriveConfig
        How long each cell is driven.
    """

    seed: int = 0
    max_segment_um: float = 120.0
    max_components: int = 20
    lost: float = 3e-4
    drive: DriveConfig = field(default_factory=DriveConfig)


@dataclass(frozen=True)
class CellOutcome:
    """What became of one cell.

    Attributes
    ----------
    name : str
        Of the cell.
    error : str
        Why it failed; empty for a cell that is in the bank.
    """

    name: str
    error: str = ""


def simulate_cell(model: CellModel, *, path: Path, config: BankConfig) -> None:
    """Simulate one cell in this process and write its currents.

    Parameters
    ----------
    model : CellModel
        The cell.
    path : Path
        The npz file to write.
    config : BankConfig
        How.

    Raises
    ------
    ValueError
        The cell cannot be built, or does not spike as it should.
    """
    # Here alone, so that only processes that simulate load NEURON.
    from spikeinterface_simsort.simulation.neuron_cells import NeuronCell

    began = time.process_time()
    digest = int.from_bytes(sha256(model.name.encode("utf-8")).digest()[:8], "big")
    neuron, explained, duration_ms = drive_into_bank(
        NeuronCell(model, max_segment_um=config.max_segment_um),
        rng=np.random.default_rng([config.seed, digest]),
        config=config,
    )
    save_neuron(
        path,
        neuron,
        explained_variance=explained,
        simulated_ms=duration_ms,
        cpu_s=time.process_time() - began,
    )


def drive_into_bank(
    cell: NeuronCell, *, rng: np.random.Generator, config: BankConfig
) -> tuple[NeuronCurrents, float, float]:
    """Drive a cell from its rheobase on until its spikes make an entry of a bank.

    Parameters
    ----------
    cell : NeuronCell
        The cell.
    rng : np.random.Generator
        Source of its stimuli.
    config : BankConfig
        How long it is driven, and what is kept.

    Returns
    -------
    neuron : NeuronCurrents
        The entry.
    explained_variance : float
        See `spike_currents.bank_entry`.
    duration_ms : float
        Simulated time, without the search for the rheobase.

    Raises
    ------
    ValueError
        The cell does not spike as it should.
    """
    rheobase = find_rheobase(cell)
    windows, duration_ms = collect_spikes(cell, rheobase=rheobase, rng=rng, config=config.drive)
    neuron, explained = bank_entry(
        windows=choose_windows(windows, num_spikes=config.drive.num_spikes),
        name=cell.name,
        seg_start=cell.seg_start,
        seg_end=cell.seg_end,
        seg_diam=cell.seg_diam,
        soma=cell.soma,
        rheobase=rheobase,
        lost=config.lost,
        max_components=config.max_components,
    )
    return neuron, explained, duration_ms


def build_bank(
    cells: str | Path,
    folder: str | Path,
    *,
    config: BankConfig | None = None,
    wanted: Callable[[str], bool] = lambda name: True,
    num_processes: int = 1,
    time_limit_s: float = 1800.0,
    progress: Callable[[CellOutcome], None] = lambda outcome: None,
) -> list[CellOutcome]:
    """Simulate cells into a neuron bank; cells that are in it already are kept.

    Parameters
    ----------
    cells : str or Path
        See `cells.iterate_cells`.
    folder : str or Path
        Of the bank: ``<cell>.npz``, ``bank.json`` (how it was made), ``report.csv`` (a line a neuron), ``me_types.csv``
        (a line a type) and ``failures.csv``.
    config : BankConfig, optional
        How.
    wanted : callable
        Says by its name whether a cell is to be simulated.
    num_processes : int
        Cells at a time.
    time_limit_s : float
        A cell that takes longer fails.
    progress : callable
        Is told of each cell, kept ones included, when it is done.

    Returns
    -------
    list of CellOutcome
        Of all cells wanted, in the order in which they were done.

    Raises
    ------
    ValueError
        The bank that is there was made otherwise, or no cell could be simulated.
    FileNotFoundError
        There are no cells at `cells`, or there is no compiler for their mechanisms.
    """
    folder, config = Path(folder), config or BankConfig()
    compile_mechanisms()
    is_new = not folder.exists()
    _check_settings(folder, config)
    outcomes: list[CellOutcome] = []

    def done(outcome: CellOutcome) -> None:
        outcomes.append(outcome)
        progress(outcome)

    def missing(name: str) -> bool:
        if not wanted(name):
            return False
        if (folder / f"{name}.npz").exists():
            done(CellOutcome(name))
            return False
        return True

    running: dict[int, _Running] = {}
    try:
        for name, model in iterate_cells(cells, wanted=missing):
            if isinstance(model, ValueError):
                done(CellOutcome(name, str(model)))
                continue
            running_one = _Running.start(model, folder=folder, config=config, time_limit_s=time_limit_s)
            running[running_one.process.sentinel] = running_one
            while len(running) >= num_processes:
                for outcome in _finished(running):
                    done(outcome)
        while running:
            for outcome in _finished(running):
                done(outcome)
    finally:
        for left in running.values():
            left.process.kill()
        if is_new and not outcomes:
            # What it was asked for is not there: nothing was begun.
            shutil.rmtree(folder)
        else:
            _write_failures(folder / FAILURES_FILE, outcomes)
            write_report(folder)
    if not any(not outcome.error for outcome in outcomes):
        reason = outcomes[0].error if outcomes else "none was asked for"
        raise ValueError(f"No cell of {cells} is in the bank: {reason}")
    return outcomes


@dataclass(frozen=True)
class _Running:
    name: str
    process: SpawnProcess
    connection: Connection
    deadline: float

    @classmethod
    def start(cls, model: CellModel, *, folder: Path, config: BankConfig, time_limit_s: float) -> _Running:
        # A fresh process: NEURON keeps one world a process, and a fork would share the parent's threads.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(model, folder / f"{model.name}.npz", config, theirs), daemon=True)
        process.start()
        theirs.close()
        return cls(model.name, process, ours, time.monotonic() + time_limit_s)

    def outcome(self) -> CellOutcome | None:
        """What became of the cell, or None while it runs."""
        if self.process.is_alive():
            if time.monotonic() < self.deadline:
                return None
            self.process.kill()
            self.process.join()
            return CellOutcome(self.name, "ran past the time limit")
        self.process.join()
        try:
            error = self.connection.recv()
        except EOFError:
            error = f"its process died (exit code {self.process.exitcode})"
        return CellOutcome(self.name, error)


def _work(model: CellModel, path: Path, config: BankConfig, connection: Connection) -> None:
    # Says on import otherwise that there is no screen.
    os.environ.setdefault("NEURON_MODULE_OPTIONS", "-nogui")
    try:
        with threadpool_limits(1):
            simulate_cell(model, path=path, config=config)
    except (ValueError, RuntimeError, OSError, ArithmeticError, MemoryError) as error:
        connection.send(f"{error}" or repr(error))
    else:
        connection.send("")


def _finished(running: dict[int, _Running]) -> Iterator[CellOutcome]:
    """Wait until a process ends or a while has passed, and take out those that are done."""
    wait(list(running), timeout=5.0)
    for key, one in list(running.items()):
        outcome = one.outcome()
        if outcome is not None:
            del running[key]
            yield outcome


def _check_settings(folder: Path, config: BankConfig) -> None:
    settings = folder / SETTINGS_FILE
    wanted = json.loads(json.dumps(asdict(config)))
    if settings.exists():
        if json.loads(settings.read_text(encoding="utf-8")) != wanted:
            raise ValueError(f"The bank in {folder} was made with other settings: choose another folder.")
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other files: choose another folder, or an empty one.")
    folder.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(wanted, indent=2), encoding="utf-8")


def _write_failures(path: Path, outcomes: list[CellOutcome]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "me_type", "error"])
        writer.writerows([o.name, me_type(o.name), o.error] for o in outcomes if o.error)


def write_report(folder: Path) -> Path:
    """Write what is in a bank: a line for each neuron, and a line for each ME-type.

    Parameters
    ----------
    folder : Path
        Of the bank.

    Returns
    -------
    Path
        ``report.csv`` in it (spikes, intervals, explained variance, rheobase, time); ``me_types.csv`` lies beside it.
    """
    rows = [_neuron_row(entry) for entry in sorted(folder.glob("*.npz"))]
    columns = list(rows[0]) if rows else ["cell"]
    with (folder / REPORT_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({key: _short(value) for key, value in row.items()} for row in rows)
    _write_types(folder, rows)
    return folder / REPORT_FILE


def _neuron_row(entry: Path) -> dict[str, Any]:
    with np.load(entry) as neuron:
        num_spikes, num_segments, num_components = neuron["coef"].shape
        return {
            "cell": entry.stem,
            "me_type": me_type(entry.stem),
            "num_spikes": num_spikes,
            "num_segments": num_segments,
            "num_components": num_components,
            "shortest_isi_ms": float(neuron["isi"].min()),
            "median_isi_ms": float(np.median(neuron["isi"])),
            **{key: float(neuron[key]) for key in ("explained_variance", "rheobase", "simulated_ms", "cpu_s")},
        }


def _write_types(folder: Path, rows: list[dict[str, Any]]) -> None:
    failed: dict[str, int] = {}
    if (folder / FAILURES_FILE).exists():
        with (folder / FAILURES_FILE).open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                failed[line["me_type"]] = failed.get(line["me_type"], 0) + 1
    with (folder / TYPES_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["me_type", "neurons", "failed", "fewest_spikes", "median_spikes", "lowest_explained_variance"]
            + ["median_explained_variance", "median_rheobase_na", "simulated_s", "cpu_s"]
        )
        for name in sorted({row["me_type"] for row in rows} | set(failed)):
            of_type = [row for row in rows if row["me_type"] == name]
            if not of_type:
                writer.writerow([name, 0, failed[name]] + [""] * 7)
                continue
            spikes, explained, rheobase, simulated_ms, cpu_s = (
                np.array([row[key] for row in of_type])
                for key in ("num_spikes", "explained_variance", "rheobase", "simulated_ms", "cpu_s")
            )
            values = [spikes.min(), np.median(spikes), explained.min(), np.median(explained), np.median(rheobase)]
            values += [simulated_ms.sum() / 1000.0, cpu_s.sum()]
            writer.writerow([name, len(of_type), failed.get(name, 0), *(_short(float(value)) for value in values)])


def _short(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value
