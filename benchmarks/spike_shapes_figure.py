"""The figure of a neuron bank's extracellular spikes: distributions beside what is published."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.spike_measures import (
    BAND_NAMES,
    BANDS,
    CLASSES,
    DISTANCES_UM,
    EXCITATORY,
    FAST_SPIKING,
    NEAR_UM,
    OTHER,
    PEAK_WITHIN_MS,
    SAMPLING_FREQUENCY,
    SHAPE_MS,
    UNKNOWN,
)

_COLOURS = {EXCITATORY: "#D55E00", FAST_SPIKING: "#0072B2", OTHER: "#009E73", UNKNOWN: "#555555"}


def draw(
    spikes: pd.DataFrame, shapes: dict[str, np.ndarray], *, title: str, width_source: str, size_source: str
) -> Figure:
    """Draw distributions beside what is published.

    Parameters
    ----------
    spikes, shapes
        Of `measure_bank`.
    title : str
        Of the figure.
    width_source, size_source : str
        Who published the widths, and the amplitudes.

    Returns
    -------
    Figure
    """
    figure = Figure(figsize=(15.0, 9.0), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=13)
    axes = figure.subplots(2, 3)
    groups = [group for group in CLASSES if (spikes["class"] == group).any()]

    axis = axes[0, 0]
    time = np.arange(shapes[groups[0]].shape[1]) * 1000.0 / SAMPLING_FREQUENCY + SHAPE_MS[0]
    for group in groups:
        if len(shapes[group]):
            low, middle, high = np.quantile(shapes[group], [0.1, 0.5, 0.9], axis=0)
            axis.fill_between(time, low, high, color=_COLOURS[group], alpha=0.15, linewidth=0)
            count = spikes.loc[spikes["class"] == group, "name"].nunique()
            axis.plot(time, middle, color=_COLOURS[group], linewidth=1.8, label=f"{group} ({count} neurons)")
    axis.set_title(f"spikes of depth 1, median and 10-90 %, {BAND_NAMES['100']}", fontsize=10, loc="left")
    axis.set_xlabel("time after the trough (ms)")
    axis.set_ylabel("share of the trough")
    axis.set_xlim(*SHAPE_MS)
    axis.legend(fontsize=8, frameon=False, loc="lower right")

    axis = axes[0, 1]
    _histogram(axis, spikes, measure="trough_to_peak_100_ms", edges=np.arange(0.0, 2.41, 0.08))
    _shade_widths(axis, vertical=True)
    axis.set_title(f"trough to peak, {BAND_NAMES['100']} (last bin: and longer)", fontsize=10, loc="left")
    axis.set_xlabel("ms")
    axis.legend(fontsize=8, frameon=False, loc="upper right", title=_split_source(width_source), title_fontsize=7)

    axis = axes[0, 2]
    for column, band in enumerate(BANDS):
        for row, group in enumerate(groups):
            values = spikes.loc[spikes["class"] == group, f"trough_to_peak_{band}_ms"].dropna()
            if len(values):
                low, middle, high = np.quantile(np.minimum(values, PEAK_WITHIN_MS), [0.1, 0.5, 0.9])
                place = column + 0.18 * (row - (len(groups) - 1) / 2)
                axis.plot([place, place], [low, high], color=_COLOURS[group], linewidth=2.5)
                axis.plot(place, middle, "o", color=_COLOURS[group], markersize=7)
    axis.set_xticks(range(len(BANDS)), [BAND_NAMES[band] for band in BANDS])
    axis.set_xlim(-0.5, len(BANDS) - 0.5)
    axis.set_ylim(0, 1.05 * max(axis.get_ylim()[1], 0.8))
    _shade_widths(axis, vertical=False)
    axis.set_title("trough to peak by filter, median and 10-90 %", fontsize=10, loc="left")
    axis.set_ylabel("ms")

    axis = axes[1, 0]
    _histogram(axis, spikes, measure="half_width_100_ms", edges=np.arange(0.0, 1.21, 0.05))
    axis.set_title(f"width at half depth, {BAND_NAMES['100']} (last bin: and longer)", fontsize=10, loc="left")
    axis.set_xlabel("ms")

    axis = axes[1, 1]
    _histogram(axis, spikes, measure="amplitude_uv", edges=np.geomspace(0.5, 500.0, 31))
    axis.set_xscale("log")
    axis.axvspan(60.0, 500.0, color="0.5", alpha=0.18, linewidth=0, label="published: over 60 µV within 50 µm")
    axis.set_title(f"depth at {NEAR_UM[0]:g} to {NEAR_UM[1]:g} µm, {BAND_NAMES['300']}", fontsize=10, loc="left")
    axis.set_xlabel("µV")
    axis.xaxis.set_major_formatter("{x:g}")
    handles, labels = axis.get_legend_handles_labels()
    source = _split_source(size_source)
    axis.legend(handles[-1:], labels[-1:], fontsize=8, frameon=False, loc="upper left", title=source, title_fontsize=7)

    axis = axes[1, 2]
    for group in groups:
        part = spikes.loc[spikes["class"] == group, [f"amplitude_{far}um_uv" for far in DISTANCES_UM]]
        low, middle, high = np.quantile(part, [0.1, 0.5, 0.9], axis=0)
        axis.fill_between(DISTANCES_UM, low, high, color=_COLOURS[group], alpha=0.15, linewidth=0)
        axis.plot(DISTANCES_UM, middle, "o-", color=_COLOURS[group], markersize=4, linewidth=1.6)
    axis.set_yscale("log")
    axis.set_ylim(0.1, 700.0)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xticks(DISTANCES_UM)
    # Where amplitudes are published to lie: above the one, below the other.
    axis.fill_between([DISTANCES_UM[0], 50.0], 60.0, 700.0, color="0.5", alpha=0.18, linewidth=0)
    observed = "hippocampal pyramidal cells:\nover 60 µV within 50 µm, lost at\nabout 140 µm; Henze et al. 2000"
    axis.text(52.0, 600.0, observed, fontsize=8, va="top")
    axis.set_title(f"depth along lines from the soma, {BAND_NAMES['300']}", fontsize=10, loc="left")
    axis.set_xlabel("distance from the soma (µm)")
    axis.set_ylabel("µV")
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure


def _histogram(axis: Axes, spikes: pd.DataFrame, *, measure: str, edges: np.ndarray) -> None:
    """Shares of each class's spikes; those beyond the last edge are in the last bin."""
    for group in CLASSES:
        values = spikes.loc[spikes["class"] == group, measure].dropna().to_numpy(dtype=float)
        if len(values):
            inside = np.clip(values, edges[0], (edges[-2] + edges[-1]) / 2)
            shares = np.histogram(inside, edges)[0] / len(values)
            axis.stairs(100 * shares, edges, color=_COLOURS[group], linewidth=1.6, label=group)
    axis.set_xlim(edges[0], edges[-1])
    # Room for the legend above the lines.
    axis.set_ylim(0, 1.5 * axis.get_ylim()[1])
    axis.set_ylabel("spikes of the class (%)")


def _shade_widths(axis: Axes, *, vertical: bool) -> None:
    span = axis.axvspan if vertical else axis.axhspan
    span(0.0, 0.4, color=_COLOURS[FAST_SPIKING], alpha=0.13, linewidth=0, label="published: fast-spiking")
    span(0.4, 0.8, color=_COLOURS[EXCITATORY], alpha=0.13, linewidth=0, label="published: regular-spiking")


def _split_source(text: str) -> str:
    return text.replace("; ", ";\n").replace(" (", "\n(")
