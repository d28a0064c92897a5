"""Figures of the benchmark, out of its tables: `python -m benchmarks.plots`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import spikeinterface as si
import spikeinterface.comparison as sc
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from spikeinterface.core import BaseSorting

from benchmarks.catalogue import Dataset
from benchmarks.peers import ORACLES
from benchmarks.runs import RESULT_FILE, run_folder
from benchmarks.spike_file import read_spikes
from benchmarks.tables import OURS, RECORDINGS_FILE, UNITS_FILE, family_table, ordered
from benchmarks.worker import SPIKES_FILE

logger = logging.getLogger(__name__)

CEILING = "oracle-identity"
# Okabe and Ito's colours that stand out from white, and Tol's wine and a grey, for any colour vision. The first is
# this sorter's alone.
_OUR_COLOUR = "#D55E00"
PALETTE = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255", "#7F7F7F")
_MARKERS = ("s", "D", "^", "v", "P", "X", "<", ">")
_ORACLE_COLOUR = "#444444"
# Those that are rarely at hand take a colour that another sorter has, with another marker.
_STYLES: dict[str, tuple[str, str]] = {
    OURS: (_OUR_COLOUR, "o"),
    "kilosort4": (PALETTE[0], "s"),
    "mountainsort5": (PALETTE[1], "D"),
    "mountainsort4": (PALETTE[2], "^"),
    "lupin": (PALETTE[3], "v"),
    "spykingcircus2": (PALETTE[4], "P"),
    "tridesclous2": (PALETTE[5], "X"),
    "herdingspikes": (PALETTE[6], "<"),
    "simple": (PALETTE[7], ">"),
    "kilosort": (PALETTE[0], "p"),
    "kilosort2": (PALETTE[1], "p"),
    "kilosort2_5": (PALETTE[2], "p"),
    "kilosort3": (PALETTE[3], "p"),
    "dartsort": (PALETTE[4], "d"),
    "oracle-identity": (_ORACLE_COLOUR, "*"),
    "oracle-matching": (_ORACLE_COLOUR, "h"),
}
_BAND = "#FBE9DD"
# Of these bins' means are drawn where there are units enough.
_MOST_BINS, _FEWEST_UNITS = 8, 5


def sorter_colours(sorters: Iterable[str]) -> dict[str, str]:
    """Colour of each sorter: always the same, whichever others are there.

    Parameters
    ----------
    sorters : iterable of str
        Names, of any sorters.

    Returns
    -------
    dict of str to str
        Hexadecimal.
    """
    return {sorter: _style(sorter)[0] for sorter in sorters}


def sorter_markers(sorters: Iterable[str]) -> dict[str, str]:
    """Marker of each sorter: tells those of one colour apart, and all where colours cannot be told.

    Parameters
    ----------
    sorters : iterable of str
        Names, of any sorters.

    Returns
    -------
    dict of str to str
        Of matplotlib.
    """
    return {sorter: _style(sorter)[1] for sorter in sorters}


def line_style(sorter: str) -> dict[str, Any]:
    """How a sorter's line is drawn in every figure that has one.

    Parameters
    ----------
    sorter : str
        Name, of any sorter.

    Returns
    -------
    dict
        Keywords of matplotlib; this sorter's line is wider and above the others.
    """
    ours = sorter == OURS
    colour, marker = _style(sorter)
    return {
        "color": colour,
        "marker": marker,
        "markersize": 6.5 if ours else 5.0,
        "linewidth": 2.2 if ours else 1.3,
        "zorder": 4 if ours else 3,
    }


def line_handles(sorters: Iterable[str]) -> list[Line2D]:
    """Lines of sorters for a legend, see `line_style`."""
    return [Line2D([], [], label=sorter, **line_style(sorter)) for sorter in sorters]


def _style(sorter: str) -> tuple[str, str]:
    if sorter in _STYLES:
        return _STYLES[sorter]
    # Python's own hash of a text differs from one process to the next.
    number = zlib.crc32(sorter.encode())
    return PALETTE[number % len(PALETTE)], _MARKERS[number // len(PALETTE) % len(_MARKERS)]


def open_frame(axes: Axes) -> None:
    """Leave out the upper and the right line of a panel's frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def round_ticks(axis: Axis) -> None:
    """Ticks at round numbers on a logarithmic axis, where one of few decades has few of its own."""
    low, high = axis.get_view_interval()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = [1.0, 2.0, 3.0, 5.0, 7.0] if high < 10.0 * low else [1.0, 2.0, 5.0] if high < 1000.0 * low else [1.0]
    numbers = np.outer(decades, steps).ravel()
    axis.set_ticks(numbers[(numbers >= low) & (numbers <= high)])
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def save_figure(figure: Figure, path: Path, *, dpi: float) -> None:
    """Write a figure, in a folder that is made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)


def _grid(num: int, *, most_columns: int) -> tuple[int, int]:
    """Rows and columns of so many panels with the fewest empty places; the fewest rows of those."""
    columns = [num] if num <= most_columns else range(most_columns, 2, -1)
    best = min(columns, key=lambda count: -num % count)
    return -(-num // best), best


def accuracy_by_family(recordings: pd.DataFrame, path: Path, *, delta_ms: float = 1.0) -> None:
    """Draw mean accuracy and standard error over recordings: a panel a family, a line a sorter, the best on top.

    Small dots are recordings, marks that are not filled are means in which failed runs count 0. A line marks what the
    oracle reaches that is told the spike times.

    Parameters
    ----------
    recordings : pandas.DataFrame
        See `benchmarks.score_runs.score_runs`.
    path : Path
        Picture to write: 9 inches wide, for 900 pixels.
    delta_ms : float
        Spikes match within this time.

    Raises
    ------
    ValueError
        No sorter has a score.
    """
    score = f"accuracy_{delta_ms}ms"
    scored = recordings[recordings["status"] != "missing"]
    scored = scored[scored[score].notna()] if score in scored else scored.iloc[:0]
    competing = scored[~scored["sorter"].isin(ORACLES)]
    if competing.empty:
        raise ValueError(f"no sorter has a score {score}")
    table = family_table(scored, score=score)
    families = list(dict.fromkeys(scored["family"]))
    means = family_table(competing, score=score)["mean"].groupby("sorter").mean()
    sorters = sorted(means.index, key=lambda sorter: (means[sorter], sorter))
    colours, markers = sorter_colours(sorters), sorter_markers(sorters)

    num_rows, num_columns = _grid(len(families), most_columns=4)
    height = num_rows * (0.23 * len(sorters) + 0.75) + 0.6
    figure = Figure(figsize=(9.0, height), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False).ravel()
    for axes, family in zip(panels, families, strict=False):
        for line, sorter in enumerate(sorters):
            if (sorter, family) not in table.index:
                continue
            entry, colour = table.loc[(sorter, family)], colours[sorter]
            values = scored[(scored["sorter"] == sorter) & (scored["family"] == family)][score]
            axes.plot(values, np.full(len(values), line), ".", color=colour, alpha=0.35, markersize=4, zorder=2)
            sem = 0.0 if np.isnan(entry["sem"]) else entry["sem"]
            axes.errorbar(
                entry["mean"],
                line,
                xerr=sem,
                color=colour,
                marker=markers[sorter],
                markersize=7 if sorter == OURS else 5,
                markerfacecolor="white" if entry["num_lost"] else colour,
                elinewidth=1.4,
                zorder=3,
            )
            if entry["num_lost"]:
                # Above, where no dots are, and inside the panel.
                place = "left" if entry["mean"] < 0.2 else "right" if entry["mean"] > 0.8 else "center"
                axes.annotate(
                    f"{entry['num_lost']:.0f} of {entry['num']:.0f} failed",
                    (entry["mean"], line),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha=place,
                    va="bottom",
                    fontsize=6.5,
                    color="0.3",
                )
        if (CEILING, family) in table.index:
            axes.axvline(table.loc[(CEILING, family)]["mean"], color=_ORACLE_COLOUR, linewidth=1.2, linestyle="--")
        if OURS in sorters:
            axes.axhspan(sorters.index(OURS) - 0.5, sorters.index(OURS) + 0.5, color=_BAND, linewidth=0, zorder=0)
        num = int(table.xs(family, level="family")["num"].max())
        axes.set_title(f"{family} ({num} recording{'' if num == 1 else 's'})", fontsize=8.5, loc="left")
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])
        axes.grid(axis="x", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        open_frame(axes)
    panels[0].set_ylim(-0.6, len(sorters) - 0.4)
    for axes in panels[::num_columns]:
        axes.set_yticks(range(len(sorters)), sorters)
        for label in axes.get_yticklabels():
            if label.get_text() == OURS:
                label.set(fontweight="bold", color=_OUR_COLOUR)
    for axes in panels[len(families) :]:
        axes.set_axis_off()
    figure.supxlabel(f"accuracy (share of spikes, 0 to 1), spikes within {delta_ms:g} ms", fontsize=9)
    grey: dict[str, Any] = {"color": "0.35", "linestyle": "none"}
    handles = [
        Line2D([], [], marker="o", markersize=5, label="mean ± standard error", **grey),
        Line2D([], [], marker=".", markersize=4, alpha=0.5, label="a recording", **grey),
    ]
    if bool(table["num_lost"].any()):
        handles.append(Line2D([], [], marker="o", markerfacecolor="white", label="failed runs count 0", **grey))
    if CEILING in set(scored["sorter"]):
        label = "oracle: told the spike times, learns from the truth"
        handles.append(Line2D([], [], color=_ORACLE_COLOUR, linestyle="--", linewidth=1.2, label=label))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8)
    save_figure(figure, path, dpi=200)


def binned_means(x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    """Means of one quantity against another, in bins of as many points each.

    Parameters
    ----------
    x, y : np.ndarray, float [num_points]
        Finite.

    Returns
    -------
    pandas.DataFrame
        A row a bin, at most 8 of no fewer than 5 points (all in one where there are fewer): ``x`` (median), ``mean``
        and ``sem`` of y (none of a single point), ``num``. No rows without points.
    """
    order = np.argsort(x, kind="stable")
    num_bins = int(np.clip(len(order) // _FEWEST_UNITS, 1, _MOST_BINS))
    rows = []
    for part in np.array_split(order, num_bins):
        if len(part):
            sem = y[part].std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else np.nan
            rows.append({"x": np.median(x[part]), "mean": y[part].mean(), "sem": sem, "num": len(part)})
    return pd.DataFrame(rows, columns=["x", "mean", "sem", "num"], dtype=float)


def accuracy_against_snr(units: pd.DataFrame, path: Path, *, delta_ms: float = 1.0) -> None:
    """Draw accuracy of each unit against its SNR, a panel a sorter, with means in bins.

    The means of this sorter and of the oracle that is told the spike times are repeated in each panel.

    Parameters
    ----------
    units : pandas.DataFrame
        See `benchmarks.score_runs.score_runs`. Units without SNR or accuracy are left out.
    path : Path
        Picture to write.
    delta_ms : float
        Spikes match within this time; one of those in the table.

    Raises
    ------
    ValueError
        No unit has both.
    """
    known = units[np.isclose(units["delta_ms"].astype(float), delta_ms)].dropna(subset=["snr", "accuracy"])
    # A logarithm is taken of it.
    known = known[known["snr"] > 0]
    sorters = [name for name in ordered(known["sorter"]) if name not in ORACLES]
    if not sorters:
        raise ValueError(f"no unit of a sorter has both SNR and an accuracy within {delta_ms} ms")
    means = {
        sorter: binned_means(part["snr"].to_numpy(dtype=float), part["accuracy"].to_numpy(dtype=float))
        for sorter, part in known.groupby("sorter")
    }
    colours = sorter_colours(sorters)
    num_rows, num_columns = _grid(len(sorters), most_columns=5)
    figure = Figure(figsize=(max(2.6 * num_columns, 5.2), 2.3 * num_rows + 0.7), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, sorter in zip(panels, sorters, strict=False):
        part = known[known["sorter"] == sorter]
        axes.plot(part["snr"], part["accuracy"], ".", color=colours[sorter], alpha=0.25, markersize=4, zorder=1)
        if CEILING in means:
            # With dots, as a line of a single bin is nothing.
            axes.plot(means[CEILING]["x"], means[CEILING]["mean"], ".--", color=_ORACLE_COLOUR, linewidth=1.0, zorder=2)
        if OURS in means and sorter != OURS:
            axes.plot(means[OURS]["x"], means[OURS]["mean"], ".-", color=_OUR_COLOUR, linewidth=1.2, zorder=2)
        axes.errorbar(
            means[sorter]["x"],
            means[sorter]["mean"],
            yerr=means[sorter]["sem"],
            color=colours[sorter],
            marker="o",
            markersize=4,
            linewidth=2.0,
            elinewidth=1.2,
            zorder=3,
        )
        weight = "bold" if sorter == OURS else "normal"
        axes.set_title(f"{sorter} ({len(part)} units)", fontsize=9, loc="left", fontweight=weight)
        axes.set_xscale("log")
        axes.grid(color="0.93", linewidth=0.8)
        open_frame(axes)
    panels[0].set_ylim(-0.04, 1.04)
    low, high = float(known["snr"].min()), float(known["snr"].max())
    panels[0].set_xlim(low / 1.15, high * 1.15)
    round_ticks(panels[0].xaxis)
    for axes in panels[len(sorters) :]:
        axes.set_axis_off()
    # Panels over an empty place are the last of their column.
    for axes in panels[len(sorters) - num_columns : len(sorters)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("SNR of the unit (largest deflection in noise levels)", fontsize=9)
    figure.supylabel(f"accuracy (0 to 1), spikes within {delta_ms:g} ms", fontsize=9)
    handles = [Line2D([], [], color="0.35", marker="o", markersize=4, linewidth=2.0, label="mean ± standard error")]
    if OURS in means and len(sorters) > 1:
        handles.append(Line2D([], [], color=_OUR_COLOUR, linewidth=1.2, label=OURS))
    if CEILING in means:
        handles.append(Line2D([], [], color=_ORACLE_COLOUR, linestyle="--", linewidth=1.0, label=CEILING))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8)
    save_figure(figure, path, dpi=150)


def agreement(truth: BaseSorting, sorting: BaseSorting, *, delta_ms: float = 1.0) -> pd.DataFrame:
    """Agreement of true units with found ones.

    Parameters
    ----------
    truth, sorting : BaseSorting
        Ground truth, and what a sorter found.
    delta_ms : float
        Spikes match within this time.

    Returns
    -------
    pandas.DataFrame
        A row a true unit, the largest SNR first where the truth tells it; a column a found unit: first the one that
        SpikeInterface puts beside the first row, and so on. Between 0 and 1.
    """
    snr = truth.get_property("snr")
    rows = list(truth.unit_ids if snr is None else truth.unit_ids[np.argsort(-np.asarray(snr), kind="stable")])
    if not len(sorting.unit_ids):
        return pd.DataFrame(index=rows, dtype=float)
    comparison = sc.compare_sorter_to_ground_truth(truth, sorting, delta_time=delta_ms, exhaustive_gt=True)
    scores = comparison.get_ordered_agreement_scores()
    # Rows come with the best agreement first, which is another order for every sorter.
    place = {unit: index for index, unit in enumerate(scores.index)}
    columns = [place[unit] for unit in rows if place[unit] < scores.shape[1]]
    columns += range(len(columns), scores.shape[1])
    return scores.iloc[[place[unit] for unit in rows], columns]


def agreement_matrices(
    dataset: Dataset, sorters: Sequence[str], *, runs_folder: Path, path: Path, delta_ms: float = 1.0
) -> None:
    """Draw agreement of true with found units on one recording, a panel a sorter.

    Parameters
    ----------
    dataset : Dataset
        The recording.
    sorters : sequence of str
        Those without a run that ended well have an empty panel, which says so.
    runs_folder : Path
        Of all runs, see `benchmarks.runs`.
    path : Path
        Picture to write.
    delta_ms : float
        Spikes match within this time.

    Raises
    ------
    ValueError
        No sorter is named.
    """
    if not sorters:
        raise ValueError("no sorter is named whose agreement with the truth could be drawn")
    truth = si.load(dataset.folder / "sorting")
    num_rows, num_columns = _grid(len(sorters), most_columns=5)
    height = min(0.2 * len(truth.unit_ids), 4.0) + 1.0
    figure = Figure(figsize=(2.7 * num_columns + 1.0, height * num_rows + 0.7), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    image = None
    for axes, sorter in zip(panels, ordered(sorters), strict=False):
        weight = "bold" if sorter == OURS else "normal"
        reason = _no_spikes(run_folder(dataset, sorter, folder=runs_folder))
        if reason is None:
            sorting = read_spikes(run_folder(dataset, sorter, folder=runs_folder) / SPIKES_FILE)
            scores = agreement(truth, sorting, delta_ms=delta_ms)
            axes.set_title(f"{sorter}: {scores.shape[1]} found", fontsize=9, loc="left", fontweight=weight)
            if scores.shape[1]:
                image = _draw_agreement(axes, scores)
                continue
            reason = "no units"
        else:
            axes.set_title(sorter, fontsize=9, loc="left", fontweight=weight)
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", color="0.4")
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in panels[len(sorters) :]:
        axes.set_axis_off()
    figure.suptitle(f"{dataset.family}/{dataset.name}: {len(truth.unit_ids)} true units", fontsize=10)
    figure.supxlabel("found unit", fontsize=9)
    figure.supylabel("true unit" + ("" if truth.get_property("snr") is None else " (largest SNR on top)"), fontsize=9)
    if image is not None:
        label = f"agreement (0 to 1), spikes within {delta_ms:g} ms"
        bar = figure.colorbar(image, ax=list(panels), shrink=min(1.0, 2.5 / (height * num_rows)), pad=0.02)
        bar.set_label(label, fontsize=9)
        bar.ax.tick_params(labelsize=8)
    save_figure(figure, path, dpi=150)


def _no_spikes(folder: Path) -> str | None:
    """Why a run has no spikes to show; None if it has."""
    result = folder / RESULT_FILE
    if not result.exists():
        return "not run"
    status = json.loads(result.read_text(encoding="utf8"))["status"]
    return None if status == "ok" else status


def _draw_agreement(axes: Axes, scores: pd.DataFrame) -> AxesImage:
    values = scores.to_numpy(dtype=float)
    image = axes.imshow(values, vmin=0.0, vmax=1.0, cmap="Blues", aspect="auto", interpolation="nearest")
    if values.shape[0] <= 12 and values.shape[1] <= 10:
        for (i, j), value in np.ndenumerate(values):
            if value >= 0.05:
                colour = "white" if value > 0.55 else "black"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    for axis, names in ((axes.xaxis, scores.columns), (axes.yaxis, scores.index)):
        step = -(-len(names) // 12)
        axis.set_ticks(range(0, len(names), step), [str(name) for name in names[::step]])
    axes.tick_params(labelsize=7, length=2)
    return image


def time_and_memory(recordings: pd.DataFrame, path: Path) -> None:
    """Draw seconds and peak memory of each sorter: small marks are recordings, large ones their medians.

    Parameters
    ----------
    recordings : pandas.DataFrame
        See `benchmarks.score_runs.score_runs`. Runs that failed are counted and not drawn; of those that took too long
        an arrow shows how long they were let run.
    path : Path
        Picture to write: 9 inches wide.

    Raises
    ------
    ValueError
        No sorter has run.
    """
    ran = recordings[(recordings["status"] != "missing") & ~recordings["sorter"].isin(ORACLES)]
    if ran.empty:
        raise ValueError("no sorter has run")
    well = ran[ran["status"] == "ok"]
    medians = well.groupby("sorter")[["seconds", "peak_mb"]].median().reindex(ran["sorter"].unique())
    # The fastest on top; below all, those that never ended.
    seconds = medians["seconds"].fillna(np.inf)
    sorters = sorted(medians.index, key=lambda sorter: (-seconds[sorter], sorter))
    colours, markers = sorter_colours(sorters), sorter_markers(sorters)
    figure = Figure(figsize=(9.0, 0.3 * len(sorters) + 1.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column in zip(panels, ("seconds", "peak_mb"), strict=True):
        for line, sorter in enumerate(sorters):
            values = well[well["sorter"] == sorter][column]
            axes.plot(values, np.full(len(values), line), ".", color=colours[sorter], alpha=0.35, markersize=5)
            median = medians[column][sorter]
            if np.isfinite(median):
                size = 8 if sorter == OURS else 6
                axes.plot(median, line, markers[sorter], color=colours[sorter], markersize=size)
                text = f"{median:.1f}" if median < 100 else f"{median:.0f}"
                # Beside the panel, where there are no marks.
                aside = axes.get_yaxis_transform()
                axes.text(1.1, line, text, transform=aside, ha="right", va="center", fontsize=8)
            if column == "seconds":
                late = ran[(ran["sorter"] == sorter) & (ran["status"] == "timeout")][column].dropna()
                axes.plot(late, np.full(len(late), line), ">", color=colours[sorter], fillstyle="none", markersize=6)
        axes.set_xscale("log")
        shown = ran[ran["status"].isin(["ok", "timeout"] if column == "seconds" else ["ok"])][column].dropna()
        if len(shown):
            axes.set_xlim(shown.min() / 1.3, shown.max() * 1.3)
            round_ticks(axes.xaxis)
        if OURS in sorters:
            axes.axhspan(sorters.index(OURS) - 0.5, sorters.index(OURS) + 0.5, color=_BAND, linewidth=0, zorder=0)
        axes.text(1.1, 1.0, "median", transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color="0.35")
        axes.grid(axis="x", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        open_frame(axes)
    lost = ran[ran["status"] != "ok"].groupby("sorter").size()
    labels = [f"{sorter} ({lost[sorter]} failed)" if sorter in lost else sorter for sorter in sorters]
    panels[0].set_yticks(range(len(sorters)), labels)
    panels[0].set_ylim(-0.6, len(sorters) - 0.4)
    for sorter, label in zip(sorters, panels[0].get_yticklabels(), strict=True):
        if sorter == OURS:
            label.set(fontweight="bold", color=_OUR_COLOUR)
    for axes, label in zip(panels, ("time of a recording (s)", "peak memory (MB)"), strict=True):
        axes.set_xlabel(label, fontsize=9)
        axes.tick_params(axis="y", length=0)
    save_figure(figure, path, dpi=200)


def main(argv: list[str] | None = None) -> int:
    """Draw all figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="tables (%(default)s)")
    parser.add_argument("--data", type=Path, default=Path("runs/benchmarks/data"), help="recordings (%(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks/runs"), help="results (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder for the pictures (%(default)s)")
    parser.add_argument(
        "--dataset",
        metavar="FAMILY/NAME",
        help="recording of which agreement matrices are drawn (the first of each family)",
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    paths = [arguments.results / name for name in (UNITS_FILE, RECORDINGS_FILE)]
    for table in paths:
        if not table.exists():
            parser.error(f"there is no {table}: `python -m benchmarks` writes it")
    # Names that are numbers stay texts.
    units, recordings = (pd.read_csv(table, dtype={"dataset": str}) for table in paths)
    output: Path = arguments.output
    written = [output / f"{name}.png" for name in ("accuracy_by_family", "accuracy_against_snr", "time_and_memory")]
    accuracy_by_family(recordings, written[0])
    accuracy_against_snr(units, written[1])
    time_and_memory(recordings, written[2])
    names = recordings.drop_duplicates("family")[["family", "dataset"]].to_numpy().tolist()
    if arguments.dataset:
        names = [arguments.dataset.split("/", maxsplit=1)]
        if names[0] not in recordings[["family", "dataset"]].to_numpy().tolist():
            parser.error(f"{paths[1]} knows no {arguments.dataset}")
    for family, name in names:
        dataset = Dataset(family=family, name=name, folder=arguments.data / family / name)
        if not dataset.folder.exists():
            logger.warning("%s/%s is not drawn: there is no %s", family, name, dataset.folder)
            continue
        of_it = (recordings["family"] == family) & (recordings["dataset"] == name)
        sorters = recordings[of_it & (recordings["status"] != "missing")]["sorter"]
        if len(sorters):
            written.append(output / f"agreement_{family}_{name}.png")
            agreement_matrices(dataset, list(sorters), runs_folder=arguments.runs, path=written[-1])
    sys.stdout.write("".join(f"{path}\n" for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
