"""A picture of a trial, for people: its cells in space, their spikes, traces, spectrum and firing."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.composition import Trial
from spikeinterface_simsort.simulation.preview_activity import (
    MARK_INCHES,
    draw_intervals,
    draw_raster,
    draw_spectrum,
    draw_traces,
)
from spikeinterface_simsort.simulation.preview_cells import UNITS_A_ROW, draw_space, draw_templates, unit_sizes

_MAX_CHANNELS = 8


def draw_trial(
    trial: Trial,
    *,
    path: str | Path,
    neurons: Sequence[NeuronCurrents] | None = None,
    duration_s: float = 0.2,
    title: str = "",
    dpi: float = 110.0,
) -> Path:
    """Draw one trial: cells and electrode, templates, traces, spectra, intervals and spike times.

    Parameters
    ----------
    trial : Trial
        As composed. Of many channels, 8 are drawn: those on which its units are largest.
    path : str or Path
        Picture to be written; its suffix tells the format. It appears whole or not at all.
    neurons : sequence of NeuronCurrents, optional
        Bank that the trial was composed of: where the trial tells how its units are turned (``unit_rotations``), their
        shapes are drawn, otherwise their somata only.
    duration_s : float
        Length of the traces shown, in s; the stretch with the most spikes and units is chosen.
    title : str
        Stands before the number of units.
    dpi : float
        Dots per inch.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    ValueError
        The trial has no samples, `duration_s` is not above 0, or the suffix is of no known format.
    OSError
        The picture cannot be written.
    """
    path = Path(path)
    if not duration_s > 0:
        raise ValueError(f"duration_s must be above 0, not {duration_s}.")
    if not len(trial.traces):
        raise ValueError("A trial without samples cannot be drawn.")
    figure = _draw(trial, neurons=neurons or (), duration_s=duration_s, title=title)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        figure.savefig(partial, format=path.suffix.lstrip(".") or "png", dpi=dpi)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _draw(trial: Trial, *, neurons: Sequence[NeuronCurrents], duration_s: float, title: str) -> Figure:
    num_units = len(trial.unit_names)
    channels = _strongest_channels(trial)
    template_rows = max(-(-num_units // UNITS_A_ROW), 1)
    heights = [4.4 + 1.4 * (template_rows - 1), 2.2 + 0.36 * len(channels) + MARK_INCHES * num_units, 3.2]
    figure = Figure(figsize=(17.0, sum(heights) + 0.5), layout="constrained")
    figure.suptitle(_headline(trial, title=title), x=0.01, ha="left", fontweight="bold", fontsize=13)
    rows: Any = figure.subfigures(3, 1, height_ratios=heights)
    space, templates = rows[0].subfigures(1, 2, width_ratios=[8.2, 8.8])
    plane, depth = space.subplots(1, 2)
    for axis, axes, name in ((plane, (0, 1), "x and y: the plane of contacts"), (depth, (0, 2), "x and z: from above")):
        draw_space(axis, trial, channels=channels, neurons=neurons, axes=axes)
        axis.set_title(name, fontsize=10, loc="left")
    draw_templates(templates, trial, channels=channels)
    draw_traces(rows[1].subplots(), trial, channels=channels, duration_s=duration_s, height=heights[1] - 0.8)
    spectrum, intervals, raster = rows[2].subplots(1, 3, gridspec_kw={"width_ratios": [1, 1, 1.8]})
    draw_spectrum(spectrum, trial, channels=channels)
    draw_intervals(intervals, trial)
    draw_raster(raster, trial)
    return figure


def _headline(trial: Trial, *, title: str) -> str:
    num_units, num_channels = len(trial.unit_names), trial.traces.shape[1]
    text = (
        f"{num_units} unit{'' if num_units == 1 else 's'}, {num_channels} channel{'' if num_channels == 1 else 's'}, "
        f"{len(trial.traces) / trial.sampling_frequency:.3g} s at {trial.sampling_frequency / 1000:g} kHz"
    )
    return f"{title}: {text}" if title else text


def _strongest_channels(trial: Trial) -> np.ndarray:
    """Channels to draw: each unit's main one, of the largest units first, then those with the largest deflections."""
    num_channels = trial.traces.shape[1]
    if num_channels <= _MAX_CHANNELS:
        return np.arange(num_channels)
    sizes = unit_sizes(trial)
    main = sizes.argmax(axis=1)[np.argsort(-sizes.max(axis=1), kind="stable")] if len(sizes) else np.empty(0, int)
    others = np.argsort(-sizes.max(axis=0, initial=0.0), kind="stable")
    return np.sort(list(dict.fromkeys([*main.tolist(), *others.tolist()]))[:_MAX_CHANNELS])
