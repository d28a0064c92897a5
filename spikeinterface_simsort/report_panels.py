"""The panels of the picture of sorted units: what is drawn, and how."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from PIL import Image

from spikeinterface_simsort.unit_table import REFRACTORY_MS, UnitRow

# Okabe and Ito's colours that stand out from white, for any colour vision. Where they repeat, the marker changes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "^")
_REFRACTORY_COLOUR = "#D55E00"
# More names than these would cover the dots, or one another.
_MAX_NAMES = 25
_NUM_SHADES = 96


@dataclass(frozen=True, kw_only=True)
class UnitPicture:
    """What is drawn of a unit.

    Attributes
    ----------
    channel_ids : list
        Channels that are shown.
    waveform_ms : np.ndarray, [num_samples]
        Time after the spike, in ms.
    mean, deviation : np.ndarray, float32 [num_samples, num_channels]
        Of its waveforms.
    num_waveforms : int
        Of which they are computed.
    lag_ms : np.ndarray, [num_bins + 1]
        Edges of the autocorrelogram's bins.
    correlogram : np.ndarray, int64 [num_bins]
        Pairs of spikes in each.
    spike_s, amplitude : np.ndarray, [num_dots]
        Time in s, and trace on the main channel, of spikes.
    unit_of_measure : str
        Of waveforms and amplitudes.
    """

    channel_ids: list[Any]
    waveform_ms: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    num_waveforms: int
    lag_ms: np.ndarray
    correlogram: np.ndarray
    spike_s: np.ndarray
    amplitude: np.ndarray
    unit_of_measure: str


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Spikes of some units in the plane of two components.

    Attributes
    ----------
    points : dict of np.ndarray, float32 [num_spikes, 2]
        By unit.
    labels : tuple of str
        Of the axes.
    title : str
        Of the panel.
    """

    points: dict[Any, np.ndarray]
    labels: tuple[str, str]
    title: str


def draw_page(
    *,
    rows: list[UnitRow],
    pictures: dict[Any, UnitPicture],
    planes: list[Plane],
    boundaries: np.ndarray,
    headline: str,
    highpass_hz: float,
) -> Figure:
    """Draw planes above, and a row for each unit below.

    Parameters
    ----------
    rows : list of UnitRow
        At least one; in this order, and with colours in this order.
    pictures : dict of UnitPicture
        By unit.
    planes : list of Plane
        Or none.
    boundaries : np.ndarray, [num_segments + 1]
        Where segments begin and end, in s, one put after another.
    headline : str
        Of the page.
    highpass_hz : float
        What the waveforms have gone through.

    Returns
    -------
    Figure
    """
    planes_a_row = 4 if len(planes) > 3 else 3
    num_plane_rows = -(-len(planes) // planes_a_row)
    heights = [3.6 * num_plane_rows, 1.55 * len(rows) + 0.5]
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.05)
    figure = Figure(figsize=(14.0, sum(heights) + 0.5), layout=layout)
    figure.suptitle(headline, x=0.01, ha="left", fontweight="bold", fontsize=13)
    styles = unit_styles([row.unit_id for row in rows])
    below: Any = figure
    if planes:
        subfigures: Any = figure.subfigures(2, 1, height_ratios=heights)
        above, below = subfigures
        axes = above.subplots(num_plane_rows, planes_a_row, squeeze=False).ravel()
        for axis, plane in zip(axes, planes, strict=False):
            _draw_plane(axis, plane, styles=styles)
        for axis in axes[len(planes) :]:
            axis.set_axis_off()
    lag_ms = pictures[rows[0].unit_id].lag_ms
    bin_ms = lag_ms[1] - lag_ms[0]
    axes = below.subplots(len(rows), 4, squeeze=False, gridspec_kw={"width_ratios": [1.15, 4.2, 2.2, 4.2]})
    for axis, text in zip(
        axes[0, 1:],
        (
            f"mean waveform ± 1 sd, high-passed at {highpass_hz:g} Hz",
            f"autocorrelogram ({bin_ms:g} ms bins)",
            "amplitude on the main channel",
        ),
        strict=True,
    ):
        axis.set_title(text, fontsize=10, loc="left")
    for line, row in zip(axes, rows, strict=True):
        picture, (colour, marker) = pictures[row.unit_id], styles[row.unit_id]
        _draw_text(line[0], row, colour=colour, marker=marker)
        _draw_waveforms(line[1], picture, colour=colour)
        _draw_correlogram(line[2], picture, row=row, colour=colour)
        _draw_amplitudes(line[3], picture, colour=colour, boundaries=boundaries)
    for axis in axes[:-1, 2:].ravel():
        axis.set_xticklabels([])
    axes[-1, 2].set_xlabel("lag (ms)")
    axes[-1, 3].set_xlabel("time (s)")
    return figure


def unit_styles(unit_ids: Sequence[Any]) -> dict[Any, tuple[str, str]]:
    """Colour and marker of each unit that is drawn together with others, by its place among them."""
    return {
        unit_id: (_COLOURS[index % len(_COLOURS)], _MARKERS[index // len(_COLOURS) % len(_MARKERS)])
        for index, unit_id in enumerate(unit_ids)
    }


def draw_strip(picture: UnitPicture, *, row: UnitRow, colour: str, boundaries: np.ndarray) -> Figure:
    """Draw waveforms, autocorrelogram and amplitudes of one unit side by side.

    Parameters
    ----------
    picture : UnitPicture
        What is drawn.
    row : UnitRow
        Of the same unit.
    colour : str
        Of matplotlib.
    boundaries : np.ndarray, [num_segments + 1]
        Where segments begin and end, in s, one put after another.

    Returns
    -------
    Figure
    """
    # Laid out by hand: matplotlib's layout engines take longer than the drawing.
    figure = Figure(figsize=(10.4, 1.75))
    waveforms = figure.add_axes((0.055, 0.10, 0.36, 0.86))
    correlogram = figure.add_axes((0.48, 0.22, 0.18, 0.74))
    amplitudes = figure.add_axes((0.725, 0.22, 0.265, 0.74))
    _draw_waveforms(waveforms, picture, colour=colour)
    _draw_correlogram(correlogram, picture, row=row, colour=colour)
    correlogram.set_xlabel("lag (ms)", fontsize=8, labelpad=1)
    _draw_amplitudes(amplitudes, picture, colour=colour, boundaries=boundaries)
    amplitudes.set_xlabel("time (s)", fontsize=8, labelpad=1)
    return figure


def draw_overview(*, planes: list[Plane], similarity: np.ndarray, styles: dict[Any, tuple[str, str]]) -> Figure:
    """Draw how far the units of a group are apart: planes of components, and how alike their waveforms are.

    Parameters
    ----------
    planes : list of Plane
        Two are drawn at most.
    similarity : np.ndarray, float [num_units, num_units]
        Of the units of `styles`.
    styles : dict of tuple of str
        Colour and marker of each unit.

    Returns
    -------
    Figure
    """
    figure = Figure(figsize=(10.4, 3.1))
    for index, plane in enumerate(planes[:2]):
        _draw_plane(figure.add_axes((0.065 + 0.335 * index, 0.14, 0.255, 0.76)), plane, styles=styles)
    if len(similarity) > 1:
        _draw_similarity(figure.add_axes((0.725, 0.14, 0.225, 0.76)), similarity, unit_ids=list(styles))
    return figure


def encode_png(figure: Figure, *, dpi: float) -> bytes:
    """Draw a figure as PNG of few colours, a third of the size of one of all.

    Parameters
    ----------
    figure : Figure
        Of a few colours.
    dpi : float
        Dots per inch.

    Returns
    -------
    bytes
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    file = io.BytesIO()
    image.quantize(_NUM_SHADES, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        file, "PNG", optimize=True
    )
    return file.getvalue()


def _draw_similarity(axis: Axes, similarity: np.ndarray, *, unit_ids: list[Any]) -> None:
    image = axis.imshow(similarity, vmin=0.0, vmax=1.0, cmap="Greys", interpolation="nearest")
    step = -(-len(unit_ids) // _MAX_NAMES)
    places = np.arange(0, len(unit_ids), step)
    names = [str(unit_ids[place]) for place in places]
    axis.set_xticks(places, names, fontsize=6, rotation=90 if max(map(len, names)) * len(names) > 40 else 0)
    axis.set_yticks(places, names, fontsize=6)
    axis.set_title("cosine similarity of waveforms", fontsize=9, loc="left")
    colours = axis.figure.colorbar(image, ax=axis, fraction=0.05, pad=0.03)
    colours.ax.tick_params(labelsize=6)


def _draw_plane(axis: Axes, plane: Plane, *, styles: dict[Any, tuple[str, str]]) -> None:
    for unit_id, points in plane.points.items():
        colour, marker = styles[unit_id]
        axis.scatter(*points.T, s=7, color=colour, marker=marker, alpha=0.5, linewidths=0)
    for unit_id, points in plane.points.items():
        if len(points) and len(plane.points) <= _MAX_NAMES:
            label = {"facecolor": "white", "alpha": 0.8, "edgecolor": styles[unit_id][0], "boxstyle": "round,pad=0.2"}
            x, y = np.median(points, axis=0)
            axis.annotate(str(unit_id), (x, y), ha="center", va="center", fontsize=8, bbox=label)
    axis.set_title(plane.title, fontsize=10, loc="left")
    axis.set_xlabel(plane.labels[0])
    axis.set_ylabel(plane.labels[1])
    axis.tick_params(labelsize=7)
    _open_frame(axis)


def _draw_text(axis: Axes, row: UnitRow, *, colour: str, marker: str) -> None:
    axis.set_axis_off()
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.plot(0.04, 0.88, marker=marker, color=colour, markersize=8, clip_on=False)
    axis.text(0.14, 0.88, f"unit {row.unit_id}", color=colour, fontsize=12, fontweight="bold", va="center")
    facts = [f"{row.rate_hz:.3g} Hz", f"{row.num_spikes:,} spike{'' if row.num_spikes == 1 else 's'}"]
    if row.snr is not None:
        facts.append(f"SNR {row.snr:.1f}")
    if row.predicted_accuracy is not None:
        facts.append(f"pred. accuracy {row.predicted_accuracy:.2f}")
    if row.main_channel is not None:
        facts.append(f"channel {row.main_channel}")
    if row.group is not None:
        facts.append(f"group {row.group}")
    axis.text(0.0, 0.7, "\n".join(facts), fontsize=9, va="top", linespacing=1.35)


def _draw_waveforms(axis: Axes, picture: UnitPicture, *, colour: str) -> None:
    """Channels side by side on one scale."""
    step = np.ptp(picture.waveform_ms) * 1.12
    for index, channel_id in enumerate(picture.channel_ids):
        times = picture.waveform_ms + index * step
        mean, deviation = picture.mean[:, index], picture.deviation[:, index]
        axis.fill_between(times, mean - deviation, mean + deviation, color=colour, alpha=0.25, linewidth=0)
        axis.plot(times, mean, color=colour, linewidth=1.4)
        axis.text(times[0], 1.0, f"ch {channel_id}", transform=axis.get_xaxis_transform(), fontsize=7, va="top")
    axis.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    # Room for the channels' names above, and below for the scale.
    low, high = axis.get_ylim()
    axis.set_ylim(low - 0.12 * (high - low), high + 0.12 * (high - low))
    left = picture.waveform_ms[0]
    axis.plot([left, left + 1.0], [0.03, 0.03], transform=axis.get_xaxis_transform(), color="0.2", linewidth=1.5)
    axis.text(left + 1.15, 0.0, "1 ms", transform=axis.get_xaxis_transform(), fontsize=7, va="bottom")
    axis.text(1.0, 0.0, f"n = {picture.num_waveforms}", transform=axis.transAxes, fontsize=7, ha="right", color="0.4")
    axis.set_ylabel(picture.unit_of_measure, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.set_xticks([])
    _open_frame(axis, keep_bottom=False)


def _draw_correlogram(axis: Axes, picture: UnitPicture, *, row: UnitRow, colour: str) -> None:
    axis.axvspan(-REFRACTORY_MS, REFRACTORY_MS, color=_REFRACTORY_COLOUR, alpha=0.25, linewidth=0)
    axis.stairs(picture.correlogram, picture.lag_ms, fill=True, color=colour)
    # On top of the bars, and seen whatever their colour.
    for lag_ms in (-REFRACTORY_MS, REFRACTORY_MS):
        axis.axvline(lag_ms, color="0.15", linewidth=0.7, linestyle=":")
    axis.set_xlim(picture.lag_ms[0], picture.lag_ms[-1])
    axis.set_ylim(0, max(1.35 * picture.correlogram.max(), 1.0))
    text = f"{100 * row.violations:.2g} % of intervals < {REFRACTORY_MS:g} ms"
    # On white, as it lies over the refractory zone.
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    axis.text(0.99, 0.99, text, transform=axis.transAxes, fontsize=7, ha="right", va="top", bbox=box)
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.set_ylabel("pairs", fontsize=9)
    axis.tick_params(labelsize=7)
    _open_frame(axis)


def _draw_amplitudes(axis: Axes, picture: UnitPicture, *, colour: str, boundaries: np.ndarray) -> None:
    axis.plot(picture.spike_s, picture.amplitude, ".", color=colour, markersize=2.5, alpha=0.6)
    for boundary in boundaries[1:-1]:
        axis.axvline(boundary, color="0.4", linewidth=0.8, linestyle="--")
    axis.set_xlim(0, boundaries[-1])
    # The line of no deflection shows how far a unit stands out.
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.0), max(high, 0.0))
    axis.axhline(0, color="0.6", linewidth=0.6)
    axis.set_ylabel(picture.unit_of_measure, fontsize=9)
    axis.tick_params(labelsize=7)
    _open_frame(axis)


def _open_frame(axis: Axes, *, keep_bottom: bool = True) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines["bottom"].set_visible(keep_bottom)
