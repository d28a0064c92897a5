"""The command ``simsort sort``: a recording in, units, a table and a picture out."""

from __future__ import annotations

import argparse
import csv
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeinterface_simsort.cli_common import (
    CommandError,
    add_logging_options,
    check_output,
    format_table,
    staged_folder,
)
from spikeinterface_simsort.cli_parameters import add_parameter_options, parse_parameters
from spikeinterface_simsort.cli_recording import add_recording_options, check_recording_options, read_recording
from spikeinterface_simsort.failures import explain_failure
from spikeinterface_simsort.run_folders import GROUPS_FOLDER, REPORT_FILE, SORTED_CONTENTS, is_run_folder
from spikeinterface_simsort.unit_table import REFRACTORY_MS, describe_units
from spikeinterface_simsort.weights import resolve_weights

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording, BaseSorting

    from spikeinterface_simsort.unit_table import UnitRow

logger = logging.getLogger(__name__)

# The field of a row, how it is called in the table on the screen, and how it is shown there.
_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("unit_id", "unit", str),
    ("group", "group", str),
    ("main_channel", "channel", str),
    ("num_spikes", "spikes", str),
    ("rate_hz", "rate (Hz)", "{:.2f}".format),
    ("snr", "SNR", "{:.1f}".format),
    ("probability", "probability", "{:.2f}".format),
    ("violations", f"ISI < {REFRACTORY_MS:g} ms", "{:.2%}".format),
    ("predicted_accuracy", "predicted accuracy", "{:.2f}".format),
)

_DESCRIPTION = """\
Sort a recording.

DIR will hold
  units.csv   a row for each unit: spikes, rate, SNR, refractory violations, predicted accuracy
  units.png   waveforms, autocorrelograms, amplitudes over time
  sorting/    the units: spikeinterface.load("DIR/sorting")
  sorter/     SpikeInterface's own folder: parameters, log
  report.html all units, with pictures of each (--report; `simsort report DIR` writes it later)

It appears when all is done: a run that fails leaves nothing behind.

A recording with several groups (tetrodes) is sorted group by group, several at a time. DIR then holds, from the start
and instead of sorter/,
  groups/     SpikeInterface's folder of each group that is done, an error text for each that failed
  run.json    which recording and parameters
and the rest when all groups have been tried. A run that was stopped, or of which a group failed, goes on when the same
command is given again: what is done is kept.
"""
_EPILOG = """\
examples:
  simsort sort recording_folder --output sorted --report
  simsort sort session.raw --sampling-frequency 30000 --num-channels 4 --dtype int16 --gain-uv 0.195 --output sorted
  simsort sort session_folder --format openephys --stream-id 0 --group-size 4 --output sorted
      several tetrodes at a time; again, to go on after an interruption
  simsort sort recording_folder --set detect_threshold=0.6 --set min_spikes=50 --output sorted --overwrite
"""


def add_sort_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``sort``; it sets ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    parser = subparsers.add_parser(
        "sort",
        help="sort a recording: units, a table and a picture",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder to be made")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace DIR, once the new output is complete; start over, with several groups",
    )
    parser.add_argument("--report", action="store_true", help="write DIR/report.html, a page with all units, too")
    add_logging_options(parser)
    add_recording_options(parser)
    add_parameter_options(parser)
    parser.set_defaults(handler=_sort)


def _sort(args: argparse.Namespace) -> int:
    output = args.output.expanduser().resolve()
    from spikeinterface_simsort.groups import split_groups

    check_recording_options(args)
    # With several groups, which only the recording tells, a run that was stopped goes on.
    check_output(output, overwrite=args.overwrite or is_run_folder(output), contents=SORTED_CONTENTS)
    params = parse_parameters(args)
    resolve_weights(params.get("weights", "bundled"))
    recording = read_recording(args)
    if len(split_groups(recording)) > 1:
        return _sort_groups(recording, output=output, params=params, args=args)
    with staged_folder(output, overwrite=args.overwrite, contents=SORTED_CONTENTS) as folder:
        sorting = sort_into(recording, folder=folder, params=params)
        rows = write_report(
            recording, sorting, folder=folder, title=args.path.resolve().name, job_kwargs=params["job_kwargs"]
        )
    sys.stdout.write(summarise(rows, folder=output))
    if args.report:
        _add_page(output, args=args, n_jobs=_num_jobs(params))
    return 0


def _sort_groups(recording: BaseRecording, *, output: Path, params: dict[str, Any], args: argparse.Namespace) -> int:
    """Sort a recording of several groups, and report also where some of them failed."""
    from spikeinterface_simsort.group_runs import GroupsFailedError, sort_by_group

    job_kwargs = dict(params["job_kwargs"])
    n_jobs = job_kwargs.pop("n_jobs", None)
    failed = None
    try:
        sorting = sort_by_group(
            recording, output, n_jobs=n_jobs, overwrite=args.overwrite, **{**params, "job_kwargs": job_kwargs}
        )
    except GroupsFailedError as error:
        if error.sorting is None:
            raise CommandError(str(error)) from error
        sorting, failed = error.sorting, error
    with tempfile.TemporaryDirectory(dir=output / GROUPS_FOLDER, prefix=".report-") as unfinished:
        rows = write_report(
            recording,
            sorting,
            folder=Path(unfinished),
            title=args.path.resolve().name,
            job_kwargs=params["job_kwargs"],
        )
        for path in sorted(Path(unfinished).iterdir()):
            path.replace(output / path.name)
    sys.stdout.write(summarise(rows, folder=output))
    if args.report:
        _add_page(output, args=args, n_jobs=_num_jobs(params))
    if failed is not None:
        raise CommandError(str(failed)) from failed
    return 0


def _num_jobs(params: dict[str, Any]) -> int:
    from spikeinterface_simsort.compute import job_arguments

    return int(job_arguments(params["job_kwargs"])["n_jobs"])


def _add_page(output: Path, *, args: argparse.Namespace, n_jobs: int) -> None:
    """Write the page when all else is in its place: were it to fail, the units would be kept."""
    from spikeinterface_simsort.html_report import write_html_report

    page = write_html_report(output, output / REPORT_FILE, title=args.path.resolve().name, n_jobs=n_jobs)
    sys.stdout.write(f"{page}\n")


def sort_into(
    recording: BaseRecording, *, folder: Path, params: dict[str, Any], moves_along: bool = False
) -> BaseSorting:
    """Sort a recording into ``sorter`` and ``sorting`` of a folder.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces.
    folder : Path
        Where to.
    params : dict
        Of the sorter.
    moves_along : bool
        The recording lies in the folder too: what is written names it relative to itself, as the folder will move.

    Returns
    -------
    BaseSorting
        Units with their properties.

    Raises
    ------
    CommandError
        The sorter failed; its own message.
    """
    from spikeinterface.sorters import read_sorter_folder, run_sorter
    from spikeinterface.sorters.utils import SpikeSortingError

    seconds, num_channels = recording.get_total_duration(), recording.get_num_channels()
    logger.info("Sorting %.1f s of %d channels at %g Hz.", seconds, num_channels, recording.get_sampling_frequency())
    try:
        sorting: Any = run_sorter("simsort", recording, folder=str(folder / "sorter"), **params)
    except SpikeSortingError as error:
        message, expected = explain_failure(error)
        if not expected:
            # The folder with the sorter's log goes.
            logger.error("%s", error)
        raise CommandError(f"The sorter failed. {message}") from error
    if moves_along:
        recording.dump(folder / "sorter" / "spikeinterface_recording.json", relative_to=folder / "sorter")
        sorting = read_sorter_folder(folder / "sorter")
    sorting.save(folder=folder / "sorting")
    return sorting


def write_report(
    recording: BaseRecording, sorting: BaseSorting, *, folder: Path, title: str, job_kwargs: dict[str, Any]
) -> list[UnitRow]:
    """Write ``units.csv`` and ``units.png`` into a folder.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces.
    sorting : BaseSorting
        Its units.
    folder : Path
        Where to.
    title : str
        Of the picture.
    job_kwargs : dict
        SpikeInterface's job arguments.

    Returns
    -------
    list of UnitRow
        What the table says.
    """
    from spikeinterface_simsort.report import draw_units

    rows = describe_units(recording, sorting)
    with (folder / "units.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field for field, _, _ in _COLUMNS])
        writer.writerows([getattr(row, field) for field, _, _ in _COLUMNS] for row in rows)
    logger.info("Drawing the units.")
    # Processes cannot be forked safely once torch has started its threads.
    job_kwargs = {"pool_engine": "thread", **job_kwargs}
    draw_units(recording, sorting, folder / "units.png", title=title, job_kwargs=job_kwargs)
    return rows


def summarise(rows: Sequence[UnitRow], *, folder: Path) -> str:
    """Tell what was found, and where it lies.

    Parameters
    ----------
    rows : sequence of UnitRow
        Of the table.
    folder : Path
        Holds ``units.png``.

    Returns
    -------
    str
        Lines, each with its end.
    """
    cells = [
        [None if getattr(row, field) is None else show(getattr(row, field)) for field, _, show in _COLUMNS]
        for row in rows
    ]
    table = format_table([name for _, name, _ in _COLUMNS], cells) if rows else "No units were found.\n"
    return f"{table}\n{folder / 'units.png'}\n"
