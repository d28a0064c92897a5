"""Time and memory of sorters against duration and against the number of spikes: `python -m benchmarks.scaling`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import spikeinterface as si
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks.catalogue import DESCRIPTION_FILE, Dataset, as_stored, find_or_save
from benchmarks.peers import PEERS
from benchmarks.plots import line_handles, line_style, open_frame, round_ticks, save_figure
from benchmarks.runs import TIMEOUT_S, add_run_arguments, run_all
from benchmarks.tables import ordered
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import make_trial

DURATION, RATE = "duration", "rate"
MINUTES = (1, 3, 10)
RATES_HZ = (2.0, 40.0)
# How long recordings of several rates are.
RATE_S = 120.0
FIELDS = (
    "experiment", "dataset", "sorter", "minutes", "num_spikes", "seconds", "peak_mb", "status", "message",
    "sorter_version",
)  # fmt: skip


@dataclass(frozen=True)
class _Column:
    """Of panels."""

    experiment: str
    against: str
    label: str
    title: str


_COLUMNS = (
    _Column(DURATION, "minutes", "duration of the recording (min)", "composed recordings"),
    _Column(RATE, "num_spikes", "true spikes", "units that fire faster, one duration"),
)


def make_long(*, minutes: float, seed: int = 0) -> tuple[BaseRecording, BaseSorting]:
    """Compose a recording of any length: one that repeats itself slows down clusterings that compare spikes.

    Parameters
    ----------
    minutes : float
        Length; an hour wants 10 GB of memory.
    seed : int
        Of the composition: with the same seed, the same cells at the same places.

    Returns
    -------
    recording, truth : BaseRecording, BaseSorting
        int16, 4 channels at 30 kHz.
    """
    return as_stored(*make_trial(config=TrialConfig(duration_s=60.0 * minutes), seed=seed))


def make_dense(*, rate_hz: float, duration_s: float = RATE_S, seed: int = 0) -> tuple[BaseRecording, BaseSorting]:
    """Compose a recording in which every unit fires at one rate.

    Parameters
    ----------
    rate_hz : float
        Of each unit, in Hz.
    duration_s : float
        Length in s.
    seed : int
        Of the composition: with the same seed, the same cells at the same places.

    Returns
    -------
    recording, truth : BaseRecording, BaseSorting
        int16, 4 channels at 30 kHz.
    """
    config = TrialConfig(duration_s=duration_s, firing_rate_hz=(rate_hz, rate_hz), firing_rate_spread=0.0)
    return as_stored(*make_trial(config=config, seed=seed))


def prepare(
    folder: Path,
    *,
    minutes: Iterable[float] = MINUTES,
    rates_hz: Iterable[float] = RATES_HZ,
    rate_s: float = RATE_S,
) -> list[Dataset]:
    """Make the recordings, but for those that are there already.

    Parameters
    ----------
    folder : Path
        Of all data sets.
    minutes : iterable of float
        Durations: the family ``duration``.
    rates_hz : iterable of float
        Rates of units in Hz: the family ``rate``.
    rate_s : float
        Length in s of the recordings of several rates.

    Returns
    -------
    list of Dataset
    """
    # The names tell all that makes the recordings: others never take their place.
    wanted: dict[tuple[str, str], Callable[[], tuple[BaseRecording, BaseSorting]]] = {
        (DURATION, f"{duration:g}min"): partial(make_long, minutes=duration) for duration in minutes
    }
    wanted |= {
        (RATE, f"{rate_hz:g}Hz_{rate_s:g}s"): partial(make_dense, rate_hz=rate_hz, duration_s=rate_s)
        for rate_hz in rates_hz
    }
    return [find_or_save(folder, family=family, name=name, make=make) for (family, name), make in wanted.items()]


def measure(
    datasets: Iterable[Dataset], sorters: Sequence[str], *, folder: Path, timeout_s: float = TIMEOUT_S
) -> pd.DataFrame:
    """Run sorters on recordings, unless that has been done.

    Parameters
    ----------
    datasets : iterable of Dataset
        Of `prepare`.
    sorters : sequence of str
        Keys of `benchmarks.peers.PEERS`.
    folder : Path
        Of all runs.
    timeout_s : float
        After which a run is ended.

    Returns
    -------
    pandas.DataFrame
        A row a run, also of those that failed: ``experiment`` (``duration`` or ``rate``), ``dataset``, ``sorter``,
        ``minutes`` of the recording, ``num_spikes`` of its truth, ``seconds``, ``peak_mb``, ``status``, ``message``,
        ``sorter_version``.
    """
    rows = []
    for dataset in datasets:
        known = json.loads((dataset.folder / DESCRIPTION_FILE).read_text(encoding="utf8"))
        size = {"experiment": dataset.family, "minutes": known["seconds"] / 60.0, "num_spikes": known["num_spikes"]}
        runs = run_all([dataset], sorters, folder=folder, timeout_s=timeout_s)
        rows += [{**asdict(run), **size} for run in runs]
    return pd.DataFrame(rows, columns=list(FIELDS))


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw time and memory against duration, and against the number of spikes at one duration; all logarithmic.

    A dotted line is real time. Crosses are runs that took too long, at the time that they were given; those that failed
    are left out.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `measure`.
    path : Path
        Picture to write.

    Raises
    ------
    ValueError
        The table has no rows.
    """
    if table.empty:
        raise ValueError("there are no runs to draw")
    sorters = ordered(table["sorter"])
    columns = [column for column in _COLUMNS if (table["experiment"] == column.experiment).any()]
    figure = Figure(figsize=(1.4 + 3.8 * len(columns), 6.4), layout="constrained")
    panels = figure.subplots(2, len(columns), sharex="col", sharey="row", squeeze=False)
    drawn = set()
    for axes_row, measured in zip(panels, ("seconds", "peak_mb"), strict=True):
        for axes, column in zip(axes_row, columns, strict=True):
            part = table[table["experiment"] == column.experiment].sort_values(column.against)
            if measured == "seconds":
                axes.plot(part[column.against], 60.0 * part["minutes"], ":", color="0.5", linewidth=1.2, zorder=1)
            for sorter in sorters:
                of_sorter = part[part["sorter"] == sorter].dropna(subset=[measured])
                well = of_sorter[of_sorter["status"] == "ok"]
                late = of_sorter[of_sorter["status"] == "timeout"]
                if well.empty and late.empty:
                    continue
                drawn.add(sorter)
                look = line_style(sorter)
                x = column.against
                axes.plot(well[x], well[measured], **look)
                if measured == "seconds":
                    crosses = {**look, "marker": "x", "markersize": 8, "linestyle": "none"}
                    axes.plot(late[x], late[measured], **crosses)
            axes.set(xscale="log", yscale="log")
            axes.grid(color="0.92", linewidth=0.8)
            open_frame(axes)
    for axes, label in zip(panels[:, 0], ("time (s)", "peak memory (MB)"), strict=True):
        axes.set_ylabel(label, fontsize=9)
        round_ticks(axes.yaxis)
    for (above, below), column in zip(panels.T, columns, strict=True):
        above.set_title(column.title, fontsize=9, loc="left")
        below.set_xlabel(column.label, fontsize=9)
        places = np.unique(table[table["experiment"] == column.experiment][column.against])
        below.set_xticks(places, [f"{place:,.3g}" if place < 1000 else f"{place:,.0f}" for place in places])
        below.set_xticks([], minor=True)
        below.set_xlim(places[0] / 1.2, places[-1] * 1.2)
    handles = line_handles([name for name in sorters if name in drawn])
    handles.append(Line2D([], [], color="0.5", linestyle=":", label="real time"))
    if (table["status"] == "timeout").any():
        handles.append(Line2D([], [], color="0.3", marker="x", linestyle="none", label="took too long"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    save_figure(figure, path, dpi=150)


def main(argv: list[str] | None = None) -> int:
    """Run what has not been run yet, write a row a run as CSV, and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/scaling"), help="recordings, runs (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--figure", type=Path, help="picture to write")
    add_run_arguments(parser, sorters=PEERS)
    parser.add_argument("--minutes", type=float, nargs="+", default=list(MINUTES), help="durations (%(default)s)")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=list(RATES_HZ), help="of each of five units, in Hz (%(default)s)"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    si.set_global_job_kwargs(progress_bar=False)
    datasets = prepare(arguments.runs / "data", minutes=arguments.minutes, rates_hz=arguments.rates)
    table = measure(datasets, arguments.sorters, folder=arguments.runs / "runs", timeout_s=arguments.timeout)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False, float_format="%.4f")
    if arguments.figure:
        draw(table, arguments.figure)
    sys.stdout.write(table.drop(columns=["message", "sorter_version"]).to_string(index=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
