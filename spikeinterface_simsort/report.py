"""A picture of the largest units, for a first look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from spikeinterface.core import BaseRecording, BaseSorting

from spikeinterface_simsort.report_panels import Plane, UnitPicture, draw_page
from spikeinterface_simsort.unit_pictures import HIGHPASS_HZ, group_units, picture_recording, segment_boundaries
from spikeinterface_simsort.unit_table import UnitRow, describe_units


def draw_units(
    recording: BaseRecording,
    sorting: BaseSorting,
    path: str | Path,
    *,
    title: str = "",
    max_units: int = 12,
    seed: int = 0,
    dpi: float = 110.0,
    job_kwargs: dict[str, Any] | None = None,
) -> Path:
    """Draw the largest units: waveforms, autocorrelograms, amplitudes over time, and how far they are apart.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces; shown high-passed at 300 Hz, in uV where gains are known.
    sorting : BaseSorting
        Its units.
    path : str or Path
        Picture to be written; its suffix tells the format.
    title : str
        Stands before the number of units.
    max_units : int
        As many are shown: those of the largest ``snr``, or of the most spikes where that is not known. Units without
        a spike are not.
    seed : int
        For the spikes that are shown.
    dpi : float
        Dots per inch.
    job_kwargs : dict, optional
        SpikeInterface's job arguments: n_jobs, chunk_duration, progress_bar.

    Returns
    -------
    Path
        The picture.
    """
    path = Path(path)
    rows = describe_units(recording, sorting)
    shown, order = _largest(rows, max_units=max_units)
    headline = _headline(recording, title=title, num_units=len(rows), num_shown=len(shown), order=order)
    if not shown:
        figure = Figure(figsize=(9.0, 2.5))
        figure.suptitle(headline, x=0.02, ha="left", fontweight="bold")
        figure.text(
            0.5,
            0.45,
            "No units were found." if not rows else "The units have no spikes.",
            ha="center",
            va="center",
            fontsize=16,
            color="0.3",
        )
        figure.savefig(path, dpi=dpi)
        return path
    pictures: dict[Any, UnitPicture] = {}
    planes: list[Plane] = []
    groups = group_units(recording, sorting, [row.unit_id for row in shown])
    for name, channel_ids, unit_ids in groups:
        found = picture_recording(
            recording if name is None else recording.select_channels(channel_ids),
            sorting.select_units(unit_ids),
            seed=seed,
            num_planes=3 if len(groups) == 1 else 1,
            job_kwargs=job_kwargs,
        )
        pictures.update(found.units)
        where = "" if name is None else f", group {name}"
        planes += [replace(plane, title=f"{plane.title}{where}") if plane.title else plane for plane in found.planes]
    figure = draw_page(
        rows=shown,
        pictures=pictures,
        planes=planes,
        boundaries=segment_boundaries(recording),
        headline=headline,
        highpass_hz=HIGHPASS_HZ,
    )
    figure.savefig(path, dpi=dpi)
    return path


def _largest(rows: list[UnitRow], *, max_units: int) -> tuple[list[UnitRow], str]:
    """Rows of the units to be shown, and what `largest` means."""
    by_snr = all(row.snr is not None for row in rows)
    size = (lambda row: row.snr) if by_snr else (lambda row: row.num_spikes)
    order = "largest SNR" if by_snr else "most spikes"
    return sorted((row for row in rows if row.num_spikes), key=size, reverse=True)[:max_units], order


def _headline(recording: BaseRecording, *, title: str, num_units: int, num_shown: int, order: str) -> str:
    counted = f"{num_units} unit{'' if num_units == 1 else 's'}"
    if num_shown < num_units:
        counted = f"the {num_shown} of {num_units} units with the {order}"
    duration = recording.get_total_duration()
    lasted = f"{duration:.3g} s" if duration < 120 else f"{duration / 60:.3g} min"
    num_segments = recording.get_num_segments()
    extent = lasted if num_segments == 1 else f"{lasted} in {num_segments} segments"
    channels = recording.get_num_channels()
    text = f"{counted}, {channels} channel{'' if channels == 1 else 's'}, {extent}"
    return f"{title}: {text}" if title else text
