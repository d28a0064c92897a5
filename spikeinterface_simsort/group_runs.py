"""Sort the groups of a recording in parallel, and keep each as soon as it is done: a run goes on where it stopped."""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting, aggregate_units, load
from spikeinterface.sorters import read_sorter_folder, run_sorter
from spikeinterface.sorters.utils import SpikeSortingError

from spikeinterface_simsort.failures import explain_failure
from spikeinterface_simsort.fingerprint import describe_run
from spikeinterface_simsort.folders import replacing
from spikeinterface_simsort.groups import add_silent_segments, split_groups
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.run_folders import GROUPS_FOLDER, SORTING_FOLDER, run_folder, unfinished
from spikeinterface_simsort.workers import map_in_workers

logger = logging.getLogger(__name__)

# File systems take longer names, but people do not.
_MAX_NAME = 60


class GroupsFailedError(RuntimeError):
    """Some groups could not be sorted; the others are kept.

    Attributes
    ----------
    failures : dict
        What went wrong, by group.
    sorting : BaseSorting or None
        Units of the other groups; None where every group failed.
    """

    def __init__(self, failures: dict[Any, str], *, sorting: BaseSorting | None, num_groups: int, folder: Path) -> None:
        reasons = "; ".join(f"group {group}: {message}" for group, message in failures.items())
        kept = "Nothing was sorted." if sorting is None else f"The others are in {folder / SORTING_FOLDER}."
        super().__init__(
            f"{len(failures)} of {num_groups} groups could not be sorted. {kept} The same call tries the failed ones "
            f"again. {reasons}"
        )
        self.failures = failures
        self.sorting = sorting


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One group to be sorted into one folder."""

    group: Any
    recording: BaseRecording
    folder: Path
    params: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What became of a job; `error` is None where it went well."""

    error: str | None
    trace: str = ""
    num_units: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()


def sort_by_group(
    recording: BaseRecording,
    folder: str | Path,
    *,
    n_jobs: int | None = None,
    overwrite: bool = False,
    **sorter_params: Any,
) -> BaseSorting:
    """Sort every group of a recording, several at a time, into one sorting; go on where an earlier call stopped.

    Each group (property ``group``) that is done is kept in ``groups``, whatever becomes of the others: the same call
    then sorts only those that are missing. ``sorting`` appears when all have been tried. Progress is logged.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces, saved or read from files: processes share no memory.
    folder : str or Path
        Where to. Holds ``sorting``, all units (``spikeinterface.load``); ``groups``, SpikeInterface's folder of each
        group, and for each that failed a file with the error; ``run.json``, of which recording and parameters.
    n_jobs : int, optional
        Groups that are sorted at a time, each in a process of its own with one thread and up to 1 GB of memory; -1 for
        as many as there are cores. With 1, all is done in this process. Where there are fewer groups, each takes
        several chunks at a time. Default as for ``run_sorter("simsort", ...)``: as many as there are cores, up to 8,
        unless SpikeInterface's global ``n_jobs`` says otherwise.
    overwrite : bool
        Start over, and remove what an earlier run left in the folder.
    **sorter_params
        Parameters of the sorter, as for ``run_sorter("simsort", ...)``.

    Returns
    -------
    BaseSorting
        Integer unit ids from 0, with the property ``group`` and all others that the sorter gives.

    Raises
    ------
    GroupsFailedError
        At the end, where groups could not be sorted.
    RunFolderError
        The folder holds another run, or something else.
    ParameterError, RecordingError, WeightsError
        Before anything is sorted, what would fail for every group.

    Examples
    --------
    >>> sorting = sort_by_group(recording, "sorted")
    """
    # Imported here, as importing the package must not import torch.
    from spikeinterface_simsort.compute import choose_device, job_arguments
    from spikeinterface_simsort.preprocessing import RecordingError, check_recording
    from spikeinterface_simsort.weights import load_weights

    params = SimSortParams.from_dict(sorter_params)
    job_arguments(params.job_kwargs)
    num_jobs = job_arguments({} if n_jobs is None else {"n_jobs": n_jobs})["n_jobs"]
    check_recording(recording)
    if not (recording.check_serializability("json") or recording.check_serializability("pickle")):
        raise RecordingError("The recording is in memory only: save it first, recording = recording.save(folder=...).")
    weights = load_weights(params.weights, device=choose_device(params.device), trainable=False)
    description = describe_run(recording, params=params, weights=weights.config)
    folder = Path(folder).expanduser().resolve()
    with run_folder(folder, description=description, overwrite=overwrite):
        jobs = _make_jobs(recording, folder=folder / GROUPS_FOLDER, params=sorter_params, num_jobs=num_jobs)
        failures = _run_jobs(
            [job for job in jobs if not job.folder.exists()], num_groups=len(jobs), num_workers=num_jobs
        )
        sorting = _gather(jobs, folder=folder, failures=failures)
    if sorting is not None:
        sorting.register_recording(recording)
    if failures or sorting is None:
        raise GroupsFailedError(failures, sorting=sorting, num_groups=len(jobs), folder=folder)
    return sorting


def join_groups(sortings: Sequence[BaseSorting]) -> NumpySorting:
    """Put the units of several sortings of one recording side by side.

    Parameters
    ----------
    sortings : sequence of BaseSorting
        Of the sorter, with the same sampling frequency and segments; one at least.

    Returns
    -------
    NumpySorting
        Integer unit ids from 0, with all properties.
    """
    # One without units has no properties, and all must have the same.
    found = [sorting for sorting in sortings if sorting.get_num_units()]
    num_units = sum(sorting.get_num_units() for sorting in found)
    with warnings.catch_warnings():
        # Names of groups may be of several types.
        warnings.filterwarnings("ignore", message="Skipping property 'group'")
        whole = aggregate_units(found, renamed_unit_ids=np.arange(num_units)) if found else sortings[0]
    joined = NumpySorting.from_sorting(whole, with_metadata=True)
    add_silent_segments(joined, num_segments=whole.get_num_segments())
    groups = [sorting.get_property("group") for sorting in found]
    if len({values.dtype.kind for values in groups if values is not None}) > 1:
        joined.set_property("group", np.concatenate([values.astype(str) for values in groups]))
    return joined


def _make_jobs(recording: BaseRecording, *, folder: Path, params: dict[str, Any], num_jobs: int) -> list[_Job]:
    parts = split_groups(recording)
    job_kwargs = {
        "n_jobs": max(1, num_jobs // len(parts)),
        **params.get("job_kwargs", {}),
        # The bars of several processes would run over one another.
        "progress_bar": False,
    }
    return [
        _Job(group=group, recording=part, folder=folder / name, params={**params, "job_kwargs": job_kwargs})
        for (group, part), name in zip(parts, _folder_names([group for group, _ in parts]), strict=True)
    ]


def _folder_names(groups: Sequence[Any]) -> list[str]:
    """A name for each group that any file system takes, and no two the same."""
    names: list[str] = []
    for position, group in enumerate(groups):
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", str(group))[:_MAX_NAME].strip("_") or "group"
        while name.lower() in {taken.lower() for taken in names}:
            name = f"{name}_{position}"
        names.append(name)
    return names


def _run_jobs(jobs: list[_Job], *, num_groups: int, num_workers: int) -> dict[Any, str]:
    """Sort what is missing, and tell of each group when it is done; errors by group."""
    failures: dict[Any, str] = {}
    if not jobs:
        return failures
    there, num_workers = num_groups - len(jobs), min(num_workers, len(jobs))
    logger.info("Sorting %d groups, %d at a time%s.", len(jobs), num_workers, f"; {there} are done" if there else "")
    total_seconds = 0.0
    with closing(_outcomes(jobs, num_workers=num_workers)) as outcomes:
        for num_tried, (job, outcome) in enumerate(outcomes, start=1):
            for message in outcome.warnings:
                logger.warning("Group %s: %s", job.group, message)
            record = job.folder.with_name(f"{job.folder.name}.error.txt")
            if outcome.error is None:
                record.unlink(missing_ok=True)
                result = f"{outcome.num_units} units in {outcome.seconds:.0f} s"
            else:
                record.write_text(outcome.trace or outcome.error, encoding="utf-8")
                failures[job.group] = outcome.error
                result = f"failed. {outcome.error}"
            total_seconds += outcome.seconds
            num_left = len(jobs) - num_tried
            left = _clock(total_seconds / num_tried * num_left / num_workers)
            progress = f"{there + num_tried} of {num_groups}; {f'about {left} left' if num_left else 'none left'}"
            logger.info("Group %s: %s (%s).", job.group, result, progress)
    return failures


def _outcomes(jobs: list[_Job], *, num_workers: int) -> Generator[tuple[_Job, _Outcome], None, None]:
    if num_workers == 1:
        for job in jobs:
            yield job, _sort_one(job)
        return
    with closing(map_in_workers(_sort_one, jobs, num_workers=num_workers)) as answers:
        for job, answer in answers:
            if isinstance(answer, BaseException):
                answer = _Outcome(error=explain_failure(answer)[0])
            yield job, answer


def _sort_one(job: _Job) -> _Outcome:
    """Sort a group into its folder, which appears when it is whole."""
    begin = time.perf_counter()
    error, trace, num_units = None, "", 0
    with _collected_warnings() as messages:
        try:
            with replacing(job.folder, staging=unfinished(job.folder.parent, job.folder.name)) as staging:
                sorting: Any = run_sorter(
                    "simsort", job.recording, folder=str(staging), remove_existing_folder=True, **job.params
                )
                num_units = sorting.get_num_units()
        except (SpikeSortingError, OSError) as failure:
            error, trace = explain_failure(failure)[0], str(failure)
    return _Outcome(
        error=error,
        trace=trace,
        num_units=num_units,
        seconds=time.perf_counter() - begin,
        warnings=tuple(messages),
    )


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Collect what the package warns of, so that it can be told together with the name of the group."""
    package = logging.getLogger("spikeinterface_simsort")
    collector = _Collector(logging.WARNING)
    handlers, propagate = package.handlers, package.propagate
    package.handlers, package.propagate = [collector], False
    try:
        with warnings.catch_warnings():
            # The number of units is told anyway.
            warnings.filterwarnings("ignore", message="simsort found no unit")
            yield collector.messages
    finally:
        package.handlers, package.propagate = handlers, propagate


class _Collector(logging.Handler):
    """Keeps what it is told."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _gather(jobs: list[_Job], *, folder: Path, failures: dict[Any, str]) -> BaseSorting | None:
    """Write the units of all groups that are there as one sorting."""
    found: list[Any] = [read_sorter_folder(job.folder, register_recording=False) for job in jobs if job.folder.exists()]
    if not found:
        return None
    joined = join_groups(found)
    if failures:
        joined.annotate(failed_groups=[str(group) for group in failures])
    with replacing(folder / SORTING_FOLDER, staging=unfinished(folder / GROUPS_FOLDER, SORTING_FOLDER)) as staging:
        joined.save(folder=staging, overwrite=True)
    sorting: Any = load(folder / SORTING_FOLDER)
    return sorting


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
