"""A report on sorted units as one HTML page that needs nothing else, to be looked at, sent and printed."""

from __future__ import annotations

import logging
import platform
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import spikeinterface
from spikeinterface.core import BaseRecording, BaseSorting, SortingAnalyzer
from spikeinterface.core.job_tools import fix_job_kwargs

from spikeinterface_simsort._version import __version__
from spikeinterface_simsort.group_sections import picture_groups
from spikeinterface_simsort.html_page import Column, render_page
from spikeinterface_simsort.sorted_units import RunHistory, SortedUnits, label_names, open_units
from spikeinterface_simsort.unit_pictures import HIGHPASS_HZ
from spikeinterface_simsort.unit_table import REFRACTORY_MS, UnitRow, describe_units

logger = logging.getLogger(__name__)

_ACCURACY, _QUALITY = "predicted_accuracy", "quality"
_NOTE = (
    f"Waveforms are means ± 1 sd of n spikes drawn at random, high-passed at {HIGHPASS_HZ:g} Hz; amplitudes are those "
    f"on the main channel. In an autocorrelogram, the refractory period of {REFRACTORY_MS:g} ms is shaded, between "
    "dotted lines. Similarity is the cosine between mean waveforms: 1 is the same shape. A click on the head of a "
    "column sorts the table."
)


def write_html_report(
    source: str | Path | BaseSorting | SortingAnalyzer,
    path: str | Path,
    *,
    recording: BaseRecording | None = None,
    curation: str | Path | None = None,
    title: str = "",
    n_jobs: int = 1,
    seed: int = 0,
) -> Path:
    """Write a report on sorted units: a summary, a table, and pictures of each unit and group, in one HTML page.

    Parameters
    ----------
    source : str, Path, BaseSorting or SortingAnalyzer
        A folder that `simsort sort` or `run_sorter` wrote, an analyzer or its folder or zarr, or a sorting.
    path : str or Path
        Page to be written. It appears when it is whole, and replaces an earlier one.
    recording : BaseRecording, optional
        Raw traces, where `source` does not know them.
    curation : str or Path, optional
        Labels in SpikeInterface's curation format. Default: ``curation.json`` of the folder, where there is one.
    title : str
        Of the page. Default: the name of the folder.
    n_jobs : int
        Groups that are pictured at a time, each in a process of its own; -1 for as many as there are cores. Of a
        single group, as many chunks are read at a time.
    seed : int
        For the spikes that are shown.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    SourceError
        `source` cannot be read, or its recording cannot.

    Examples
    --------
    >>> write_html_report("sorted", "sorted/report.html", n_jobs=4)
    """
    path = Path(path).expanduser()
    units = open_units(source, recording=recording, curation=curation)
    if not title:
        title = "Sorted units" if isinstance(source, BaseSorting | SortingAnalyzer) else Path(source).resolve().name
    measured: Any = units.analyzer if units.analyzer is not None else units.recording
    rows = describe_units(measured, units.sorting)
    logger.info("Drawing %d units.", len(rows))
    # What all methods come to stands before the methods.
    names = sorted(label_names(units.sorting), key=lambda name: name != _QUALITY)
    labels = {name: _as_text(name, units.sorting.get_property(name)) for name in names}
    accuracies = _numbers(units.sorting, _ACCURACY)
    told = [labels[_QUALITY]] if _QUALITY in labels else list(labels.values())
    sections, snr = picture_groups(
        units,
        rows=rows,
        labels={row.unit_id: [values[index] for values in told if values[index]] for index, row in enumerate(rows)},
        accuracies={row.unit_id: accuracy for row, accuracy in zip(rows, accuracies, strict=True)},
        num_jobs=_count_jobs(n_jobs),
        seed=seed,
    )
    if all(row.snr is None for row in rows):
        rows = [replace(row, snr=snr.get(row.unit_id)) for row in rows]
    page = render_page(
        title=title,
        headline=_headline(measured, rows=rows, num_groups=len(sections)),
        facts=_facts(measured, units=units),
        parameters=units.history.parameters,
        warnings=_warnings(units.history),
        unit_ids=[row.unit_id for row in rows],
        columns=_columns(rows, sorting=units.sorting, labels=labels),
        sections=sections,
        note=_NOTE,
    )
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _headline(measured: BaseRecording | SortingAnalyzer, *, rows: Sequence[UnitRow], num_groups: int) -> str:
    spikes = sum(row.num_spikes for row in rows)
    found = f"{_count(len(rows), 'unit')}, {_count(spikes, 'spike')}"
    return f"{found} in {_duration(measured)}{f', {num_groups} groups with units' if num_groups > 1 else ''}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _duration(measured: BaseRecording | SortingAnalyzer) -> str:
    seconds = measured.get_total_duration()
    lasted = f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"
    segments = measured.get_num_segments()
    return lasted if segments == 1 else f"{lasted} in {segments} segments"


def _facts(measured: BaseRecording | SortingAnalyzer, *, units: SortedUnits) -> dict[str, str]:
    """What is known of the recording and the sort, by what it is called."""
    if isinstance(measured, SortingAnalyzer):
        groups, in_uv = measured.get_recording_property("group"), measured.return_in_uV
    else:
        groups, in_uv = measured.get_property("group"), measured.has_scaleable_traces()
    num_groups = 1 if groups is None else len({str(group) for group in groups})
    channels = _count(measured.get_num_channels(), "channel")
    facts = {
        "recording": f"{_duration(measured)}, {channels} in {_count(num_groups, 'group')}, "
        f"{measured.sampling_frequency:g} Hz, {np.dtype(measured.get_dtype()).name}",
    }
    if not in_uv:
        facts["amplitudes"] = "in the recording's own steps: it has no gains, so nothing is in µV"
    history = units.history
    if history.sorter:
        lasted = "" if history.seconds is None else f", {history.seconds:.0f} s over all groups"
        facts["sorted"] = f"by {history.sorter}, {history.began[:16].replace('T', ' ')}{lasted}"
    if weights := history.parameters.get("weights"):
        facts["weights"] = str(weights)
    now = datetime.now().astimezone()
    facts["report"] = (
        f"{now:%Y-%m-%d %H:%M}, simsort {__version__}, SpikeInterface {spikeinterface.__version__}, "
        f"Python {platform.python_version()}"
    )
    return facts


def _warnings(history: RunHistory) -> list[str]:
    failed = [f"Group {group} could not be sorted: {reason}" for group, reason in history.failures.items()]
    return failed + history.warnings


def _columns(rows: Sequence[UnitRow], *, sorting: BaseSorting, labels: dict[str, list[str]]) -> list[Column]:
    columns = [
        Column(title="group", values=[row.group for row in rows]),
        Column(title="channel", values=[row.main_channel for row in rows]),
        *(Column(title=name.replace("_", " "), values=values, is_label=True) for name, values in labels.items()),
        Column(title="predicted accuracy", values=_numbers(sorting, _ACCURACY), form=".2f"),
        Column(title="spikes", values=[row.num_spikes for row in rows], form=","),
        Column(title="rate (Hz)", values=[row.rate_hz for row in rows], form=".2f"),
        Column(title="SNR", values=[row.snr for row in rows], form=".1f"),
        Column(title="probability", values=[row.probability for row in rows], form=".2f"),
        Column(title=f"ISI < {REFRACTORY_MS:g} ms", values=[row.violations for row in rows], form=".2%"),
    ]
    return [column for column in columns if column.is_label or any(value is not None for value in column.values)]


def _numbers(sorting: BaseSorting, name: str) -> list[float | None]:
    values = sorting.get_property(name)
    return [None] * sorting.get_num_units() if values is None else [float(value) for value in values]


def _as_text(name: str, values: np.ndarray) -> list[str]:
    """Labels as words: what is true or not is called by its name where it is."""
    if values.dtype.kind == "b":
        return [name if value else "" for value in values]
    return [str(value) for value in values]


def _count_jobs(n_jobs: int) -> int:
    return fix_job_kwargs({"n_jobs": n_jobs})["n_jobs"]
