"""The upper panels of the picture of a trial: its cells in space and their spikes, and how units look in any panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.composition import Trial

# Panels of templates next to each other.
UNITS_A_ROW = 10

# Colours that stand out from white and from grey traces. Where they repeat, the marker changes.
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#6A3D9A",
    "#8C510A",
    "#7A9A01",
    "#A50F3C",
)
_MARKERS = ("o", "^", "s", "D")
_TEMPLATE_MS = (-1.0, 2.0)


class UnitStyle(NamedTuple):
    """How a unit looks in all panels.

    Attributes
    ----------
    colour : str
        As hexadecimal number.
    marker : str
        One of matplotlib's.
    """

    colour: str
    marker: str


def unit_style(unit: int) -> UnitStyle:
    """Tell how a unit looks.

    Parameters
    ----------
    unit : int
        Its number in the trial.

    Returns
    -------
    UnitStyle
    """
    turn, place = divmod(unit, len(_COLOURS))
    return UnitStyle(_COLOURS[place], _MARKERS[turn % len(_MARKERS)])


def unit_sizes(trial: Trial) -> np.ndarray:
    """Largest deflection of each unit on each channel.

    Parameters
    ----------
    trial : Trial
        Of any number of units.

    Returns
    -------
    np.ndarray, [num_units, num_channels]
        In uV.
    """
    if not trial.templates.size:
        return np.zeros((len(trial.unit_names), trial.traces.shape[1]))
    return np.abs(trial.templates).max(axis=1)


def round_length(wanted: float) -> float:
    """Length of a scale bar: the largest of 1, 2, 5 times a power of ten that is not above what is wanted.

    Parameters
    ----------
    wanted : float
        Above 0.

    Returns
    -------
    float
    """
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(max(step for step in (1.0, 2.0, 5.0) if step * power <= wanted * (1 + 1e-9)) * power)


def say(axis: Axes, text: str) -> None:
    """Tell in an empty panel why it is empty.

    Parameters
    ----------
    axis : Axes
        Empty.
    text : str
        One sentence.
    """
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=11, color="0.4")
    axis.set_xticks([])
    axis.set_yticks([])


def draw_space(
    axis: Axes, trial: Trial, *, channels: np.ndarray, neurons: Sequence[NeuronCurrents], axes: tuple[int, int]
) -> None:
    """Draw contacts and units in one projection; both projections have the same scale.

    Parameters
    ----------
    axis : Axes
        Empty.
    trial : Trial
        Of any number of units.
    channels : np.ndarray, [num_drawn]
        Indices of those that are to be in view; the contacts of the others are drawn as well.
    neurons : sequence of NeuronCurrents
        Bank that the trial was composed of, or nothing: then somata are drawn alone.
    axes : tuple of int
        What goes to the right and what goes up: 0 for x, 1 for y, 2 for z.
    """
    named = {neuron.name: neuron for neuron in neurons}
    rotations = getattr(trial, "unit_rotations", None)
    radius = float(getattr(trial, "contact_radius_um", 6.0))
    # A long probe would make the cells next to it tiny.
    points = np.concatenate([trial.contact_positions[channels], trial.unit_positions.reshape(-1, 3)])
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    # Dendrites reach far: what is near the electrode matters, and is to be large enough to be seen.
    half = 0.5 * float(np.ptp(points, axis=0).max()) + 75.0
    points_per_um = 3.6 * 72.0 / (2 * half)
    alpha = 0.75 if len(trial.unit_names) <= 8 else 0.4
    for unit, name in enumerate(trial.unit_names):
        style, position = unit_style(unit), trial.unit_positions[unit]
        neuron = named.get(name)
        soma_radius = 7.0
        if neuron is not None and rotations is not None:
            ends = [side @ np.asarray(rotations[unit]).T + position for side in (neuron.seg_start, neuron.seg_end)]
            lines = np.stack(ends, axis=1)[:, :, list(axes)]
            widths = np.clip(neuron.seg_diam * points_per_um, 0.5, 5.0)
            is_dendrite = np.arange(len(lines)) != neuron.soma
            collection = LineCollection(
                list(lines[is_dendrite]), linewidths=widths[is_dendrite], colors=style.colour, alpha=alpha, zorder=2
            )
            collection.set_label(f"shape of unit {unit}")
            axis.add_collection(collection, autolim=False)
            soma_radius = float(neuron.seg_diam[neuron.soma]) / 2
        place = (float(position[axes[0]]), float(position[axes[1]]))
        axis.add_patch(Circle(place, soma_radius, facecolor=style.colour, edgecolor="white", linewidth=0.8, zorder=4))
        label = {"facecolor": "white", "edgecolor": style.colour, "alpha": 0.85, "boxstyle": "round,pad=0.15"}
        axis.annotate(
            str(unit),
            place,
            xytext=(7, 7),
            textcoords="offset points",
            fontsize=7 if len(trial.unit_names) <= 8 else 5.5,
            color=style.colour,
            fontweight="bold",
            bbox=label,
            zorder=6,
        )
    for contact in trial.contact_positions:
        x, y = float(contact[axes[0]]), float(contact[axes[1]])
        if axes == (0, 1):
            disc = Circle((x, y), radius, facecolor="0.25", edgecolor="white", linewidth=0.6, alpha=0.9, zorder=5)
            axis.add_patch(disc)
        else:
            # Flat, so seen from the edge.
            axis.plot([x - radius, x + radius], [y, y], color="0.1", linewidth=4.0, zorder=5, label="contact")
    axis.set_xlim(centre[axes[0]] - half, centre[axes[0]] + half)
    axis.set_ylim(centre[axes[1]] - half, centre[axes[1]] + half)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("0.8")
    length = round_length(0.5 * half)
    left, bottom = axis.get_xlim()[0] + 0.08 * half, axis.get_ylim()[0] + 0.08 * half
    axis.plot([left, left + length], [bottom, bottom], color="black", linewidth=2.5, zorder=7, label="scale")
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.0}
    axis.text(left, bottom + 0.05 * half, f"{length:g} µm", fontsize=8, va="bottom", bbox=box, zorder=7)
    axis.set_xlabel("xyz"[axes[0]], fontsize=9)
    axis.set_ylabel("xyz"[axes[1]], fontsize=9)


def draw_templates(figure: Any, trial: Trial, *, channels: np.ndarray) -> None:
    """Draw a small panel a unit, channels one above the other; each has a scale of its own.

    Parameters
    ----------
    figure : Figure or SubFigure
        Empty.
    trial : Trial
        Of any number of units.
    channels : np.ndarray, [num_drawn]
        Indices of those that are drawn.
    """
    num_units = len(trial.unit_names)
    if not num_units:
        axis = figure.subplots()
        axis.spines[:].set_visible(False)
        say(axis, "No units.")
        return
    figure.suptitle("mean spikes by channel, each unit on a scale of its own", fontsize=10, x=0.02, ha="left")
    # One or two units are not to be stretched over the whole width.
    columns = min(max(num_units, 4), UNITS_A_ROW)
    axes = figure.subplots(-(-num_units // columns), columns, squeeze=False).ravel()
    per_ms = trial.sampling_frequency / 1000.0
    sizes = unit_sizes(trial)
    for unit, axis in enumerate(axes):
        axis.set_axis_off()
        if unit >= num_units:
            continue
        style, peak, template = unit_style(unit), int(trial.template_peak[unit]), trial.templates[unit]
        first = max(peak + int(round(_TEMPLATE_MS[0] * per_ms)), 0)
        cut = template[first : peak + int(round(_TEMPLATE_MS[1] * per_ms)) + 1]
        times = (first + np.arange(len(cut)) - peak) / per_ms
        # Channels that are not drawn count as well: a unit that is small here is to look small.
        step = max(float(sizes[unit].max()), 1e-6)
        for row, channel in enumerate(channels):
            axis.plot(
                times,
                cut[:, channel] - row * step,
                color=style.colour,
                linewidth=1.3,
                label=f"channel {channel}",
            )
            if unit % columns == 0:
                axis.text(times[0] - 0.15, -row * step, f"{channel}", fontsize=7, ha="right", va="center", color="0.4")
        drawn = cut[:, channels] - np.arange(len(channels)) * step
        bar = round_length(step)
        bottom = float(drawn.min()) - bar - 0.15 * step
        corner = [times[0], times[0], times[0] + 1.0]
        axis.plot(corner, [bottom + bar, bottom, bottom], color="black", linewidth=1.5, label="scale")
        text = f"{bar:g} µV, 1 ms"
        axis.text(times[0] + 0.15, bottom + 0.12 * step, text, fontsize=6.5 if num_units <= 6 else 5.5, va="bottom")
        axis.set_xlim(times[0] - 0.1, _TEMPLATE_MS[1])
        axis.set_ylim(bottom - 0.1 * step, float(drawn.max()) + 0.1 * step)
        main = int(sizes[unit].argmax())
        largest = template[np.abs(template[:, main]).argmax(), main]
        name = trial.unit_names[unit]
        wrapped = _wrapped(name, width=19 if columns <= 6 else 11)
        axis.set_title(
            f"{unit}  {wrapped}\n{largest:.0f} µV, ch {main}",
            fontsize=7 if columns <= 6 else 5.5,
            color=style.colour,
            loc="left",
            linespacing=1.2,
        )


def _wrapped(name: str, *, width: int) -> str:
    """Break a cell's name at underscores into lines that are not longer, where there are underscores enough."""
    lines = [""]
    for word in name.split("_"):
        longer = f"{lines[-1]}_{word}" if lines[-1] else word
        # A number alone is no line.
        if lines[-1] and len(longer) > width and len(word) > 2:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
