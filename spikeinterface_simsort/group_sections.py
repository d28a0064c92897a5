"""Groups of units as sections of a page: each is computed and drawn by itself, several at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, BaseSorting, SortingAnalyzer

from spikeinterface_simsort.html_page import GroupSection, UnitCard
from spikeinterface_simsort.report_panels import draw_overview, draw_strip, encode_png, unit_styles
from spikeinterface_simsort.sorted_units import SortedUnits
from spikeinterface_simsort.unit_pictures import (
    GroupPictures,
    group_units,
    picture_analyzer,
    picture_recording,
    segment_boundaries,
)
from spikeinterface_simsort.unit_table import UnitRow
from spikeinterface_simsort.workers import map_in_workers

_DPI = 110.0


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A group to be pictured: from its traces, unless the pictures have been computed."""

    name: str | None
    channel_ids: list[Any]
    rows: list[UnitRow]
    labels: dict[Any, list[str]]
    accuracies: dict[Any, float | None]
    recording: BaseRecording | None
    sorting: BaseSorting | None
    pictures: GroupPictures | None
    boundaries: np.ndarray
    seed: int
    job_kwargs: dict[str, Any]


def picture_groups(
    units: SortedUnits,
    *,
    rows: Sequence[UnitRow],
    labels: dict[Any, list[str]],
    accuracies: dict[Any, float | None],
    num_jobs: int,
    seed: int,
) -> tuple[list[GroupSection], dict[Any, float]]:
    """Picture every group, several at a time.

    Parameters
    ----------
    units : SortedUnits
        With a recording or an analyzer.
    rows : sequence of UnitRow
        Of all units.
    labels : dict of list of str
        By unit, those that are shown with its pictures.
    accuracies : dict of float or None
        By unit, what its accuracy is predicted to be.
    num_jobs : int
        Groups at a time, each in a process of its own; chunks at a time where there is one group.
    seed : int
        For the spikes that are shown.

    Returns
    -------
    sections : list of GroupSection
        Those groups with units.
    snr : dict of float
        By unit, where it was computed, as the units did not tell.
    """
    measured: Any = units.analyzer if units.analyzer is not None else units.recording
    row_of = {row.unit_id: row for row in rows}
    groups = group_units(measured, units.sorting, list(row_of)) if rows else []
    recording = units.recording if units.analyzer is None else None
    in_workers = num_jobs > 1 and len(groups) > 1 and (recording is None or _is_on_disk(recording))
    job_kwargs: dict[str, Any] = {"n_jobs": 1 if in_workers else num_jobs}
    if job_kwargs["n_jobs"] > 1:
        # Processes cannot be forked safely once torch has started its threads.
        job_kwargs["pool_engine"] = "thread"
    jobs = []
    for name, channel_ids, unit_ids in groups:
        part = recording
        if recording is not None and name is not None:
            part = recording.select_channels(channel_ids)
        jobs.append(
            _Job(
                name=name,
                channel_ids=channel_ids,
                rows=[row_of[unit_id] for unit_id in unit_ids],
                labels={unit_id: labels[unit_id] for unit_id in unit_ids},
                accuracies={unit_id: accuracies[unit_id] for unit_id in unit_ids},
                recording=part,
                sorting=units.sorting.select_units(unit_ids),
                pictures=None,
                boundaries=segment_boundaries(measured),
                seed=seed,
                job_kwargs=job_kwargs,
            )
        )
    analyzer = units.analyzer
    ready = jobs if analyzer is None else (_from_analyzer(job, analyzer) for job in jobs)
    found: dict[str | None, GroupSection] = {}
    snr: dict[Any, float] = {}
    with closing(_answers(ready, num_workers=min(num_jobs, len(jobs)) if in_workers else 1)) as answers:
        for job, answer in answers:
            if isinstance(answer, BaseException):
                raise RuntimeError(f"Group {job.name} could not be drawn: {answer}") from answer
            found[job.name] = answer[0]
            snr.update(answer[1])
    return [found[job.name] for job in jobs], snr


def _answers(jobs: Iterable[_Job], *, num_workers: int) -> Generator[tuple[_Job, Any], None, None]:
    if num_workers > 1:
        yield from map_in_workers(_picture_group, jobs, num_workers=num_workers)
    else:
        for job in jobs:
            yield job, _picture_group(job)


def _from_analyzer(job: _Job, analyzer: SortingAnalyzer) -> _Job:
    """The job with what the analyzer knows, which is not sent to other processes."""
    alive = _with_spikes(job)
    if not alive:
        return job
    pictures = picture_analyzer(
        analyzer,
        channel_ids=job.channel_ids,
        unit_ids=alive,
        seed=job.seed,
        num_planes=2,
        with_snr=_lacks_snr(job),
        job_kwargs=job.job_kwargs,
    )
    return replace(job, pictures=pictures, sorting=None)


def _picture_group(job: _Job) -> tuple[GroupSection, dict[Any, float]]:
    """Draw a group."""
    alive = _with_spikes(job)
    pictures = job.pictures
    if alive and job.recording is not None and job.sorting is not None:
        pictures = picture_recording(
            job.recording,
            job.sorting.select_units(alive),
            seed=job.seed,
            num_planes=2,
            with_snr=_lacks_snr(job),
            job_kwargs=job.job_kwargs,
        )
    styles = unit_styles([row.unit_id for row in job.rows])
    snr = {} if pictures is None else pictures.snr
    cards = []
    for row in job.rows:
        colour, marker = styles[row.unit_id]
        picture = b""
        if pictures is not None and row.unit_id in pictures.units:
            strip = draw_strip(pictures.units[row.unit_id], row=row, colour=colour, boundaries=job.boundaries)
            picture = encode_png(strip, dpi=_DPI)
        cards.append(
            UnitCard(
                unit_id=row.unit_id,
                facts=_row_facts(
                    row,
                    snr=row.snr if row.snr is not None else snr.get(row.unit_id),
                    accuracy=job.accuracies[row.unit_id],
                ),
                labels=job.labels[row.unit_id],
                colour=colour,
                marker=marker,
                picture=picture,
            )
        )
    overview = b""
    if pictures is not None and (pictures.planes or len(pictures.similarity) > 1):
        shown = {unit_id: styles[unit_id] for unit_id in pictures.units}
        overview = encode_png(
            draw_overview(planes=pictures.planes, similarity=pictures.similarity, styles=shown), dpi=_DPI
        )
    return GroupSection(name=job.name, channel_ids=job.channel_ids, overview=overview, cards=cards), snr


def _with_spikes(job: _Job) -> list[Any]:
    return [row.unit_id for row in job.rows if row.num_spikes]


def _lacks_snr(job: _Job) -> bool:
    return any(row.snr is None for row in job.rows)


def _row_facts(row: UnitRow, *, snr: float | None, accuracy: float | None) -> list[str]:
    facts = [f"{row.num_spikes:,} spike{'' if row.num_spikes == 1 else 's'}", f"{row.rate_hz:.3g} Hz"]
    if snr is not None and np.isfinite(snr):
        facts.append(f"SNR {snr:.1f}")
    if accuracy is not None and np.isfinite(accuracy):
        facts.append(f"predicted accuracy {accuracy:.2f}")
    if row.main_channel is not None:
        facts.append(f"channel {row.main_channel}")
    return facts


def _is_on_disk(recording: BaseRecording) -> bool:
    """Whether other processes can read the recording without being sent all of it."""
    return recording.check_serializability("json") or recording.check_serializability("pickle")
