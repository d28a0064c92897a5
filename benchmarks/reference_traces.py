"""Our cells against reference voltages and currents of the published models: 13 cells, each under the same current.

The reference had the electrode's current taken out of the soma's membrane current one sample late, so its three
currents do not sum to zero where the electrode's current changes. The soma is compared with what is stored and with
that put right; the criterion goes by the second.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from spikeinterface_simsort.simulation.cell_models import CellModel
from spikeinterface_simsort.simulation.cells import read_cells
from spikeinterface_simsort.simulation.spike_currents import DT

logger = logging.getLogger(__name__)

PARTS = ("soma", "axon", "dend")
# Shown in the figure: a pyramidal cell, an adapting and a fast-spiking interneuron, the smallest cell.
SHOWN = ("L5_TTPC1_cADpyr232_1", "L23_LBC_bNAC219_1", "L4_NBC_dNAC222_1", "L6_SBC_bNAC219_1")
# What is required; currents in % of the reference's peak.
MAX_TIME_MS, MAX_RMS_MV, MAX_CURRENT_PERCENT = 0.05, 0.5, 2.0
TIME_LIMIT_S = 900.0


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Voltage and currents of one cell, each [num_samples] at `DT`.

    Attributes
    ----------
    v_soma : np.ndarray
        Somatic voltage in mV.
    currents : dict
        Membrane current in nA, summed over each of `PARTS`.
    """

    v_soma: np.ndarray
    currents: dict[str, np.ndarray]


def read_reference(path: Path) -> tuple[np.ndarray, Traces]:
    """Read a reference file.

    Parameters
    ----------
    path : Path
        An npz file with ``dt``, ``current``, ``v_soma``, ``i_soma``, ``i_axon`` and ``i_dend``.

    Returns
    -------
    current : np.ndarray, [num_samples]
        Of the electrode, in nA.
    reference : Traces
        As stored.

    Raises
    ------
    ValueError
        It has another time step.
    """
    with np.load(path) as file:
        if not np.isclose(float(file["dt"]), DT):
            raise ValueError(f"{path} has a time step of {float(file['dt'])} ms, not {DT} ms.")
        currents = {part: file[f"i_{part}"].astype(float) for part in PARTS}
        return file["current"], Traces(v_soma=file["v_soma"].astype(float), currents=currents)


def corrected_soma(stored: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Take the electrode's current out of the reference's soma at its own sample, not one late.

    Parameters
    ----------
    stored, current : np.ndarray, [num_samples]
        The reference's somatic current as stored, and the electrode's current, in nA.

    Returns
    -------
    np.ndarray, [num_samples]
        In nA; all but the first sample is right, which nothing came before.
    """
    return stored + current - np.roll(current, 1)


def simulate(model: CellModel, current: np.ndarray) -> tuple[Traces, int]:
    """Simulate one cell with the segments of its file, in a process of its own.

    Parameters
    ----------
    model : CellModel
        The cell.
    current : np.ndarray, [num_samples]
        Of the electrode, in nA.

    Returns
    -------
    traces : Traces
        From rest at the initial voltage.
    num_segments : int
        Of the cell.
    """
    # Says on import otherwise that there is no screen.
    os.environ.setdefault("NEURON_MODULE_OPTIONS", "-nogui")
    # Here alone, so that only the processes that simulate load NEURON.
    from spikeinterface_simsort.simulation.neuron_cells import NeuronCell

    with threadpool_limits(1):
        cell = NeuronCell(model, max_segment_um=None)
        v_soma, currents = cell.run(current)
    # float64, so that summing thousands of segments adds no error of its own.
    summed = {part: currents[cell.parts == part].sum(axis=0, dtype=float) for part in PARTS}
    return Traces(v_soma=v_soma, currents=summed), len(cell.seg_diam)


def spike_times(v_soma: np.ndarray) -> np.ndarray:
    """Times in ms [num_spikes] at which a voltage [num_samples] (mV) rises through 0 mV, as the reference has them."""
    return np.flatnonzero((v_soma[1:] > 0.0) & (v_soma[:-1] <= 0.0)) * DT


def compare(ours: Traces, reference: Traces, *, current: np.ndarray) -> dict[str, float]:
    """Differences between a simulated cell and its reference.

    Parameters
    ----------
    ours, reference : Traces
        The reference as stored.
    current : np.ndarray, [num_samples]
        Of the electrode, in nA.

    Returns
    -------
    dict
        ``spikes``, ``spikes_reference``, ``time_ms`` (the largest difference; NaN where the numbers of spikes differ),
        ``rms_mv``, and the largest error of each current in % of the reference's peak: ``soma_percent``,
        ``axon_percent``, ``dend_percent``, and ``soma_stored_percent`` with the reference's offset left in.
    """
    found, expected = spike_times(ours.v_soma), spike_times(reference.v_soma)
    same = len(found) == len(expected)
    row: dict[str, float] = {
        "spikes": len(found),
        "spikes_reference": len(expected),
        "time_ms": float(np.abs(found - expected).max(initial=0.0)) if same else np.nan,
        "rms_mv": float(np.sqrt(np.mean((ours.v_soma - reference.v_soma) ** 2))),
    }
    right = reference.currents | {"soma": corrected_soma(reference.currents["soma"], current)}
    stored = {"soma_stored": reference.currents["soma"]}
    for name, wanted in (right | stored).items():
        # The first sample of the corrected soma stays wrong.
        error = np.abs(ours.currents[name.removesuffix("_stored")] - wanted)[1:].max()
        row[f"{name}_percent"] = 100.0 * float(error / np.abs(wanted).max())
    return row


def run(shared: Path, *, num_processes: int = 1) -> tuple[pd.DataFrame, dict[str, tuple[Traces, Traces]]]:
    """Simulate and compare all cells that there is a reference of, each in a process of its own.

    Parameters
    ----------
    shared : Path
        Folder with ``reference_traces/*.npz`` and ``cells/nmc_cells.tar.xz``.
    num_processes : int
        Cells at a time.

    Returns
    -------
    table : pandas.DataFrame
        A row a cell, see `compare`.
    traces : dict
        Ours and the reference's by the cell's name, the reference's soma put right.

    Raises
    ------
    FileNotFoundError
        There are no references, or no cells.
    ValueError
        A cell is missing.
    multiprocessing.TimeoutError
        A cell's process died, or took longer than `TIME_LIMIT_S`.
    """
    references = {path.stem: read_reference(path) for path in sorted((shared / "reference_traces").glob("*.npz"))}
    if not references:
        raise FileNotFoundError(f"There are no reference traces (*.npz) in {shared / 'reference_traces'}.")
    models = read_cells(shared / "cells" / "nmc_cells.tar.xz", names=references)
    rows, traces = {}, {}
    # NEURON keeps one world a process: a child serves one cell.
    with multiprocessing.get_context("spawn").Pool(num_processes, maxtasksperchild=1) as pool:
        jobs = {model.name: pool.apply_async(simulate, (model, references[model.name][0])) for model in models}
        for name, job in jobs.items():
            # A pool never hears of a child that was killed, and would wait for ever.
            ours, num_segments = job.get(timeout=TIME_LIMIT_S)
            current, reference = references[name]
            rows[name] = {"segments": num_segments, **compare(ours, reference, current=current)}
            soma = corrected_soma(reference.currents["soma"], current)
            traces[name] = ours, Traces(v_soma=reference.v_soma, currents=reference.currents | {"soma": soma})
            logger.info("%s: RMS difference %.1e mV.", name, rows[name]["rms_mv"])
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cell").sort_index(), traces


def criteria(table: pd.DataFrame) -> dict[str, bool]:
    """Tell which requirement all cells meet.

    Parameters
    ----------
    table : pandas.DataFrame
        As `run` returns it.

    Returns
    -------
    dict
        Whether it is met, by the requirement in words.
    """
    currents = table[[f"{part}_percent" for part in PARTS]]
    return {
        "every spike is there, and no other": bool((table["spikes"] == table["spikes_reference"]).all()),
        # Times are multiples of the time step, up to rounding.
        f"spike times within {MAX_TIME_MS} ms": bool((table["time_ms"] <= MAX_TIME_MS + 1e-9).all()),
        f"RMS difference of the somatic voltage below {MAX_RMS_MV} mV": bool((table["rms_mv"] < MAX_RMS_MV).all()),
        f"currents of soma, axon and dendrites within {MAX_CURRENT_PERCENT:g} % of their peaks": bool(
            (currents <= MAX_CURRENT_PERCENT).all(axis=None)
        ),
    }


def markdown(table: pd.DataFrame) -> str:
    """The comparison as a Markdown table, then what passes."""
    lines = [
        "| cell | segments | spikes | expected | time, ms | RMS, mV | soma, % | as stored, % | axon, % | dend, % |",
        "| --- " * 10 + "|",
    ]
    for name, row in table.iterrows():
        lines.append(
            f"| {name} | {row['segments']:.0f} | {row['spikes']:.0f} | {row['spikes_reference']:.0f} "
            f"| {row['time_ms']:.3f} | {row['rms_mv']:.1e} | {row['soma_percent']:.1e} "
            f"| {row['soma_stored_percent']:.1f} | {row['axon_percent']:.1e} | {row['dend_percent']:.1e} |"
        )
    lines.append(
        "\nCurrents: largest error in % of the reference's peak. The reference's electrode current left the soma one "
        "sample late; 'soma' has that put right, 'as stored' has not.\n"
    )
    lines += [f"- {'pass' if met else 'FAIL'}: {words}" for words, met in criteria(table).items()]
    return "\n".join(lines)


def draw(traces: dict[str, tuple[Traces, Traces]]) -> Figure:
    """Draw our traces over the reference's: voltages of some cells, and the currents around a spike.

    Parameters
    ----------
    traces : dict
        As `run` returns it.

    Returns
    -------
    Figure
    """
    names = [name for name in SHOWN if name in traces] or list(traces)[: len(SHOWN)]
    figure = Figure(figsize=(10.0, 2.0 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(names), 2, squeeze=False, width_ratios=(2.0, 1.0))
    colours = {"soma": "C3", "axon": "C2", "dend": "C0"}
    for (voltage, current), name in zip(axes, names, strict=True):
        ours, reference = traces[name]
        time = np.arange(len(ours.v_soma)) * DT
        voltage.plot(time, reference.v_soma, color="0.7", linewidth=3.0, label="reference")
        voltage.plot(time, ours.v_soma, color="k", linewidth=0.7, label="ours")
        voltage.set(title=name, ylabel="mV", xlim=(0.0, time[-1]))
        spikes = spike_times(reference.v_soma)
        # The second spike, where there is one, starts from a cell that is not at rest any more.
        at = spikes[min(1, len(spikes) - 1)] if len(spikes) else 0.0
        near = (time > at - 1.0) & (time < at + 2.5)
        for part in PARTS:
            look, after = {"color": colours[part]}, time[near] - at
            current.plot(after, reference.currents[part][near], linewidth=4.0, alpha=0.35, **look)
            current.plot(after, ours.currents[part][near], linewidth=0.9, label=part, **look)
        current.set(title="membrane currents at a spike", ylabel="nA", xlim=(-1.0, 2.5))
    axes[0, 0].legend(loc="upper right", fontsize="small")
    # Beside the axes: every corner inside them has a trace in it.
    legend = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "fontsize": "small", "title_fontsize": "small"}
    axes[0, 1].legend(title="thick: reference", **legend)
    axes[-1, 0].set_xlabel("ms")
    axes[-1, 1].set_xlabel("ms after the voltage rose through 0 mV")
    return figure


def main(argv: list[str] | None = None) -> int:
    """Print the comparison; write ``reference_traces.csv`` and ``reference_traces.png``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reference_traces",
        description=__doc__,
        epilog="The exit code is 1 where a requirement is not met.",
    )
    parser.add_argument("--shared", type=Path, required=True, help="folder with reference_traces/ and cells/")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the table to")
    parser.add_argument("--figure", type=Path, help="PNG file to draw (reference_traces.png beside the table)")
    parser.add_argument("--num-processes", type=int, default=2, help="cells at a time (%(default)s)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    table, traces = run(arguments.shared, num_processes=arguments.num_processes)
    arguments.output.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output / "reference_traces.csv", float_format="%.3g")
    draw(traces).savefig(arguments.figure or arguments.output / "reference_traces.png", dpi=100)
    sys.stdout.write(markdown(table) + "\n")
    return 0 if all(criteria(table).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
