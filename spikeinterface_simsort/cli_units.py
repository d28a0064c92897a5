"""What commands share that start from sorted units: the options that name them, and reading them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from spikeinterface_simsort.cli_common import CommandError, positive_int

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording


def add_units_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name sorted units, their recording and their labels.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of a command.
    """
    parser.add_argument("source", metavar="SOURCE", type=Path, help="sorted units, or a SortingAnalyzer")
    parser.add_argument(
        "--recording",
        metavar="PATH",
        type=Path,
        help="raw traces that SpikeInterface saved, where SOURCE does not know them or they were moved",
    )
    parser.add_argument(
        "--curation", metavar="FILE", type=Path, help="labels in SpikeInterface's format (SOURCE/curation.json)"
    )
    add_jobs_option(parser)


def add_jobs_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--n-jobs``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of a command.
    """
    parser.add_argument("--n-jobs", metavar="N", type=positive_int, help="processes (one a core, up to 8)")


def read_traces(path: Path | None) -> BaseRecording | None:
    """Read the recording that ``--recording`` names.

    Parameters
    ----------
    path : Path or None
        None where the option was not given.

    Returns
    -------
    BaseRecording or None

    Raises
    ------
    CommandError
        There is none at that place.
    """
    if path is None:
        return None
    from spikeinterface.core import BaseRecording

    from spikeinterface_simsort.cli_recording import read_saved

    path = path.expanduser()
    if not path.exists():
        raise CommandError(f"There is no {path}.")
    recording = read_saved(path)
    if not isinstance(recording, BaseRecording):
        raise CommandError(f"{path} is not a recording ({type(recording).__name__}).")
    return recording
