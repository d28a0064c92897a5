"""Sorters on real recordings, where nobody knows the truth: how well isolated their units are, and who agrees."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import spikeinterface as si
from matplotlib.figure import Figure
from probeinterface import generate_tetrode
from spikeinterface.comparison import compare_two_sorters
from spikeinterface.core import BaseRecording, BaseSorting, create_sorting_analyzer, read_binary
from spikeinterface.curation import remove_excess_spikes

from benchmarks.catalogue import Dataset, find_or_save
from benchmarks.peers import PEERS
from benchmarks.recordings import sorting_of, spike_band
from benchmarks.runs import Run, add_run_arguments, run_all, run_folder
from benchmarks.spike_file import read_spikes
from benchmarks.tables import ordered
from benchmarks.worker import SPIKES_FILE

logger = logging.getLogger(__name__)

INFO_FILE = "info.json"
NUM_CHANNELS = 4
# No neuron fires twice within it.
REFRACTORY_MS = 1.5
# Real recordings that may be passed on are short: bins of a minute would hold all of them.
PRESENCE_BIN_S = 2.0
# Spikes of two sorters match within this time; two units are the same where more than half of their spikes do.
DELTA_MS, SAME_UNIT = 0.4, 0.5
# A well isolated unit. Of fewer spikes, chance alone would keep any two apart.
MIN_SNR, MAX_CONTAMINATION, MIN_SPIKES = 5.0, 0.1, 50

METRICS = (
    "num_spikes",
    "firing_rate",
    "presence_ratio",
    "snr",
    "isi_violations_ratio",
    "isi_violations_count",
    "rp_contamination",
    "rp_violations",
)
_NAMES = ("recording", "sorter")


def read_recordings(folder: Path) -> dict[str, BaseRecording]:
    """Read the tetrodes of a folder.

    Parameters
    ----------
    folder : Path
        Of ``.raw`` files and an ``info.json`` that tells their ``sample_rate`` in Hz, ``dtype``, and as second number
        of ``shape`` how many channels they have.

    Returns
    -------
    dict of str to BaseRecording
        By the files' names. The gain is 1: what a step of their converter is in uV is not told, nor where the contacts
        lie, which are given the places of a common tetrode.

    Raises
    ------
    OSError
        The folder has no such file, or no ``info.json``.
    ValueError
        ``info.json`` lacks a field, or the recordings are not of a tetrode.
    """
    paths = sorted(folder.glob("*.raw"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no recording *.raw")
    try:
        info = json.loads((folder / INFO_FILE).read_text(encoding="utf8"))
        rate, dtype, num_channels = float(info["sample_rate"]), str(info["dtype"]), int(info["shape"][1])
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{folder / INFO_FILE} does not tell sample_rate, dtype and shape: {error!r}") from error
    if num_channels != NUM_CHANNELS:
        raise ValueError(f"{folder / INFO_FILE} tells of {num_channels} channels; a tetrode has {NUM_CHANNELS}.")
    recordings = {}
    for path in paths:
        recording = read_binary(path, sampling_frequency=rate, dtype=dtype, num_channels=num_channels)
        recording.set_channel_gains(1.0)
        recording.set_channel_offsets(0.0)
        probe = generate_tetrode()
        probe.set_device_channel_indices(np.arange(num_channels))
        recording.set_probe(probe)
        recordings[path.stem] = recording
    return recordings


def keep_recording(recording: BaseRecording, *, folder: Path, family: str, name: str) -> Dataset:
    """Keep a recording where sorters find it, as a data set with an empty truth, unless it is there already.

    Parameters
    ----------
    recording : BaseRecording
        What is kept.
    folder : Path
        Of all data sets: this one goes to ``FOLDER/FAMILY/NAME``, whole or not at all.
    family, name : str
        Of the data set.

    Returns
    -------
    Dataset
        Nothing that is told the truth can be run on it.
    """
    nothing = sorting_of({}, rate=recording.get_sampling_frequency())
    return find_or_save(
        folder, family=family, name=name, make=lambda: (recording, nothing), description={"has_truth": False}
    )


def unit_quality(recording: BaseRecording, sorting: BaseSorting) -> pd.DataFrame:
    """Measure units by what can be told without the truth, as SpikeInterface does.

    Parameters
    ----------
    recording : BaseRecording
        Of one segment; band-passed here, 300 to 6000 Hz.
    sorting : BaseSorting
        Found in it. Spikes after its end are left out.

    Returns
    -------
    pandas.DataFrame
        A row a unit: ``unit`` and `METRICS`. ``snr`` is the mean spike's largest deflection in noise levels;
        ``isi_violations_...`` (Hill et al. 2011) and ``rp_...`` (Llobet & Wyngaard 2022) are of intervals under 1.5
        ms, ``rp_contamination`` being the share of spikes of other neurons that would leave so many, and 1 where no
        share would; ``presence_ratio`` is the share of bins of 2 s with spikes. What cannot be told of so few spikes
        is NaN.
    """
    if not len(sorting.unit_ids):
        return pd.DataFrame({"unit": np.empty(0, dtype=str), **{metric: np.empty(0) for metric in METRICS}})
    inside = remove_excess_spikes(sorting, recording)
    # The seed is of the spikes that a unit's main channel is found from.
    analyzer = create_sorting_analyzer(inside, spike_band(recording), sparse=False, seed=0)
    with warnings.catch_warnings():
        # Of means of no spikes, and of bins that no recording fills.
        warnings.simplefilter("ignore")
        analyzer.compute(
            {"random_spikes": {"seed": 0}, "templates": {}, "noise_levels": {"random_slices_kwargs": {"seed": 0}}},
            progress_bar=False,
        )
        analyzer.compute(
            "quality_metrics",
            metric_names=["num_spikes", "firing_rate", "presence_ratio", "snr", "isi_violation", "rp_violation"],
            metric_params={
                "presence_ratio": {"bin_duration_s": PRESENCE_BIN_S},
                "isi_violation": {"isi_threshold_ms": REFRACTORY_MS},
                "rp_violation": {"refractory_period_ms": REFRACTORY_MS},
            },
        )
    table = analyzer.get_extension("quality_metrics").get_data()[list(METRICS)].astype(float)
    # SpikeInterface calls a mean of no spikes one of 0, and counts -1 violations among them.
    silent = table["num_spikes"] == 0
    table.loc[silent, [metric for metric in METRICS if metric != "num_spikes"]] = np.nan
    table.insert(0, "unit", np.asarray(sorting.unit_ids).astype(str))
    return table.reset_index(drop=True)


def is_well_isolated(units: pd.DataFrame) -> pd.Series:
    """Which units of `unit_quality` stand out of the noise and keep the refractory period.

    Parameters
    ----------
    units : pandas.DataFrame
        With ``snr``, ``rp_contamination`` and ``num_spikes``.

    Returns
    -------
    pandas.Series of bool
        An SNR of 5 or more and a contamination under 10 %, from at least 50 spikes. It is no proof: sorters that look
        for no spike shortly after another hide violations, and two neurons that hardly fire at once show none.
    """
    enough = units["num_spikes"] >= MIN_SPIKES
    return enough & (units["snr"] >= MIN_SNR) & (units["rp_contamination"] < MAX_CONTAMINATION)


def num_finders(sortings: Mapping[str, BaseSorting]) -> dict[str, pd.Series]:
    """Count the sorters that found each unit.

    Parameters
    ----------
    sortings : mapping of str to BaseSorting
        By sorter, of one recording.

    Returns
    -------
    dict of str to pandas.Series of int
        Of each sorter, by unit as text: itself, and each other one with a unit to which the Hungarian method assigns
        this one, more than half of the spikes of both taken together being shared within 0.4 ms. SpikeInterface's
        comparison of many sorters would rather build groups, and break them up where one sorter is in them twice.
    """
    finders = {
        sorter: pd.Series(1, index=np.asarray(sorting.unit_ids).astype(str), dtype=int)
        for sorter, sorting in sortings.items()
    }
    found = [sorter for sorter, sorting in sortings.items() if len(sorting.unit_ids)]
    for first, second in combinations(found, 2):
        comparison = compare_two_sorters(
            sortings[first], sortings[second], delta_time=DELTA_MS, match_score=SAME_UNIT, verbose=False
        )
        for sorter, match in zip((first, second), comparison.get_matching(), strict=True):
            finders[sorter] += np.array([str(other) not in ("", "-1") for other in match])
    return finders


def measure_runs(datasets: Iterable[Dataset], runs: Iterable[Run], *, folder: Path) -> pd.DataFrame:
    """Measure the units of each run.

    Parameters
    ----------
    datasets : iterable of Dataset
        The recordings.
    runs : iterable of Run
        Of sorters on them.
    folder : Path
        Of the runs.

    Returns
    -------
    pandas.DataFrame
        `unit_quality` of each run that went well, with ``recording``, ``sorter``, ``num_finders`` and
        ``well_isolated``.
    """
    runs = list(runs)
    tables = []
    for dataset in datasets:
        recording = si.load(dataset.folder / "recording")
        sortings = {
            run.sorter: read_spikes(run_folder(dataset, run.sorter, folder=folder) / SPIKES_FILE)
            for run in runs
            if (run.family, run.dataset, run.status) == (dataset.family, dataset.name, "ok")
        }
        finders = num_finders(sortings)
        for sorter, sorting in sortings.items():
            table = unit_quality(recording, sorting)
            table["num_finders"] = finders[sorter].to_numpy()
            table["well_isolated"] = is_well_isolated(table)
            for column, value in zip(_NAMES, (dataset.name, sorter), strict=True):
                table.insert(_NAMES.index(column), column, value)
            tables.append(table)
    columns = [*_NAMES, "unit", *METRICS, "num_finders", "well_isolated"]
    kept = [table for table in tables if len(table)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=columns)


def summarise(units: pd.DataFrame, runs: Iterable[Run]) -> pd.DataFrame:
    """Sum the units of each run up.

    Parameters
    ----------
    units : pandas.DataFrame
        Of `measure_runs`.
    runs : iterable of Run
        Who failed or found nothing has a row of 0 units; who is missing has none.

    Returns
    -------
    pandas.DataFrame
        ``recording``, ``sorter``, ``status``, ``units``, how many of them are ``well_isolated``, were found by another
        sorter as well (``shared``) or are both (``well_isolated_shared``), ``spikes``, medians over units of some of
        `METRICS`, ``seconds``.
    """
    rows = []
    for run in runs:
        if run.status == "missing":
            continue
        own = units[(units["recording"] == run.dataset) & (units["sorter"] == run.sorter)]
        shared, isolated = own["num_finders"] >= 2, own["well_isolated"].astype(bool)
        rows.append(
            {
                "recording": run.dataset,
                "sorter": run.sorter,
                "status": run.status,
                "units": len(own),
                "well_isolated": int(isolated.sum()),
                "shared": int(shared.sum()),
                "well_isolated_shared": int((isolated & shared).sum()),
                "spikes": int(own["num_spikes"].sum()),
                **{
                    f"median_{metric}": float(own[metric].astype(float).median())
                    for metric in ("snr", "rp_contamination", "firing_rate", "presence_ratio")
                },
                "seconds": run.seconds,
            }
        )
    return pd.DataFrame(rows)


def as_markdown(summary: pd.DataFrame) -> str:
    """`summarise` as a Markdown table."""
    heads = {
        "recording": "recording",
        "sorter": "sorter",
        "units": "units",
        "well_isolated": "well isolated",
        "shared": "shared",
        "well_isolated_shared": "both",
        "spikes": "spikes",
        "median_snr": "SNR",
        "median_rp_contamination": "contamination",
        "median_firing_rate": "rate (Hz)",
        "median_presence_ratio": "presence",
        "seconds": "seconds",
    }

    def cell(row: pd.Series, column: str) -> str:
        value = row[column]
        if column == "units" and row["status"] != "ok":
            return f"{value} ({row['status']})"
        if not isinstance(value, float):
            return str(value)
        return "–" if np.isnan(value) else f"{value:.{1 if column in ('median_snr', 'seconds') else 2}f}"

    lines = [f"| {' | '.join(heads.values())} |", "| --- |" + " --- |" * (len(heads) - 1)]
    lines += [f"| {' | '.join(cell(row, column) for column in heads)} |" for _, row in summary.iterrows()]
    legend = (
        f"Well isolated: an SNR of {MIN_SNR:g} or more and a contamination under {MAX_CONTAMINATION:g}, from at least "
        f"{MIN_SPIKES} spikes. Shared: found by another sorter as well. SNR, contamination, rate and presence are "
        "medians over units."
    )
    return "\n".join([*lines, "", legend])


def draw(units: pd.DataFrame, *, sorters: Sequence[str], title: str) -> Figure:
    """Draw SNR and contamination of each unit, one panel a sorter.

    Parameters
    ----------
    units : pandas.DataFrame
        Of `measure_runs`.
    sorters : sequence of str
        One or more, in this order; who found nothing has an empty panel.
    title : str
        Of the figure.

    Returns
    -------
    Figure
    """
    num_columns = min(len(sorters), 4)
    num_rows = -(-len(sorters) // num_columns)
    figure = Figure(figsize=(3.1 * num_columns + 0.6, 2.7 * num_rows + 1.1), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    axes = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
    highest = max(float(units["snr"].astype(float).max()) if len(units) else 0.0, 2 * MIN_SNR)
    limits = (-0.06, 1.06)
    for axis, sorter in zip(axes.flat, sorters, strict=False):
        own = units[(units["sorter"] == sorter) & units["rp_contamination"].notna()]
        axis.fill_between([MIN_SNR, 1.1 * highest], limits[0], MAX_CONTAMINATION, color="#009E73", alpha=0.15, lw=0)
        for shared, colour, label in ((True, "#0072B2", "found by others, too"), (False, "#D55E00", "by nobody else")):
            part = own[(own["num_finders"] >= 2) == shared]
            axis.scatter(
                part["snr"].astype(float),
                part["rp_contamination"].astype(float),
                s=4.0 * np.sqrt(part["num_spikes"].astype(float)),
                color=colour,
                alpha=0.6,
                linewidths=0.5,
                edgecolors="white",
                label=label,
            )
        # Counted over all, while units of a spike or two have no place here.
        everything = units[units["sorter"] == sorter]
        num_isolated = int(everything["well_isolated"].astype(bool).sum())
        result = f"{num_isolated} of {len(everything)} well isolated" if len(everything) else "no units"
        axis.set_title(f"{sorter}: {result}", fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    for axis in axes.flat[len(sorters) :]:
        axis.set_visible(False)
    # The last of a column may stand above an empty place.
    for axis in list(axes.flat)[max(len(sorters) - num_columns, 0) : len(sorters)]:
        axis.tick_params(labelbottom=True)
    axes[0, 0].set(xlim=(0.0, 1.1 * highest), ylim=limits)
    figure.supxlabel("SNR", fontsize=9)
    figure.supylabel(f"contamination, from intervals under {REFRACTORY_MS:g} ms", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="upper right", ncols=2, fontsize=8, frameon=False)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set(sizes=[40.0])
    return figure


def main(argv: list[str] | None = None) -> int:
    """Run what has not been run yet, and print a summary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_recordings", description=__doc__)
    parser.add_argument("--recordings", type=Path, required=True, help=f"folder of *.raw and {INFO_FILE}")
    parser.add_argument("--runs", type=Path, required=True, help="results, kept; the recordings go to its folder data")
    parser.add_argument("--output", type=Path, required=True, help="CSV file, a row a unit")
    parser.add_argument("--figure", type=Path, help="PNG file")
    add_run_arguments(parser, sorters=PEERS)
    arguments = parser.parse_args(argv)
    try:
        recordings = read_recordings(arguments.recordings)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    si.set_global_job_kwargs(progress_bar=False)
    family = arguments.recordings.resolve().name
    datasets = [
        keep_recording(recording, folder=arguments.runs / "data", family=family, name=name)
        for name, recording in recordings.items()
    ]
    runs = run_all(datasets, ordered(arguments.sorters), folder=arguments.runs, timeout_s=arguments.timeout)
    units = measure_runs(datasets, runs, folder=arguments.runs)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    units.to_csv(arguments.output, index=False, float_format="%.4f")
    summary = summarise(units, runs)
    if summary.empty:
        logger.warning("none of these sorters is installed: %s", ", ".join(arguments.sorters))
        return 1
    if arguments.figure:
        arguments.figure.parent.mkdir(parents=True, exist_ok=True)
        sorters = list(dict.fromkeys(summary["sorter"]))
        title = f"{family}: units by sorter; shaded, well isolated"
        draw(units, sorters=sorters, title=title).savefig(arguments.figure, dpi=150)
    sys.stdout.write(as_markdown(summary) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
