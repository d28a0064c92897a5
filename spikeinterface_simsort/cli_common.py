"""What the commands share: their error, types of options, folders that appear whole, tables and progress bars."""

from __future__ import annotations

import argparse
import logging
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from spikeinterface_simsort.folders import replacing


class CommandError(Exception):
    """A command cannot do what it was asked; the message says why, in one line, and what to do."""


def add_logging_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--verbose`` and ``--quiet``, which may stand before and after the name of a command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of the program or of a command.
    """
    group = parser.add_mutually_exclusive_group()
    # A default of a command would overwrite what stood before its name.
    for flags, text in (
        (("-v", "--verbose"), "log more, and show where an error came from"),
        (("-q", "--quiet"), "log warnings and errors only"),
    ):
        group.add_argument(*flags, action="store_true", default=argparse.SUPPRESS, help=text)


def check_output(folder: Path, *, overwrite: bool, contents: Sequence[str]) -> None:
    """Refuse an output folder that cannot be made or must not be replaced.

    Parameters
    ----------
    folder : Path
        Where the output goes.
    overwrite : bool
        Whether an earlier output may be replaced.
    contents : sequence of str
        What a command writes: a folder with anything else in it is never replaced.

    Raises
    ------
    CommandError
        The folder, or the unfinished one beside it, is in the way.
    """
    for path in (folder, partial_folder(folder)):
        if path.exists() and not path.is_dir():
            raise CommandError(f"{path} is a file: choose another folder.")
        strangers = sorted({entry.name for entry in path.iterdir()} - {*contents}) if path.exists() else []
        if strangers:
            raise CommandError(f"{path} holds {strangers[0]!r}, which is not simsort's: choose another folder.")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise CommandError(f"{folder} exists: choose another folder, or pass --overwrite to replace it.")


def partial_folder(folder: Path) -> Path:
    """Name of the folder that stands in for an output until it is complete."""
    return folder.with_name(f"{folder.name}.partial")


@contextmanager
def staged_folder(folder: Path, *, overwrite: bool, contents: Sequence[str]) -> Iterator[Path]:
    """Give an empty folder that takes the place of `folder` when the block succeeds, and vanishes when it fails.

    Parameters
    ----------
    folder, overwrite, contents
        As for `check_output`.

    Yields
    ------
    Path
        The folder to write to.

    Raises
    ------
    CommandError
        As for `check_output`.
    """
    check_output(folder, overwrite=overwrite, contents=contents)
    partial = partial_folder(folder)
    if partial.exists():
        # Left by a process that was killed.
        shutil.rmtree(partial)
    with replacing(folder, staging=partial):
        yield partial


def format_table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, max_rows: int = 40) -> str:
    """Align a table for reading: numbers to the right, one line a row.

    Parameters
    ----------
    header : sequence of str
        Names of the columns.
    rows : sequence of sequence
        Cells: None is shown as a dash, a float with three decimals at most.
    max_rows : int
        More are counted, but not shown.

    Returns
    -------
    str
        Lines, each with its end.
    """
    cells = [[_cell(value) for value in row] for row in rows[:max_rows]]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = [
        "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in [header, *cells]
    ]
    if len(rows) > max_rows:
        lines.append(f"... and {len(rows) - max_rows} more")
    return "".join(f"{line}\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def positive_int(text: str) -> int:
    """Type of an option: a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return value


def positive_float(text: str) -> float:
    """Type of an option: a finite number larger than 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be larger than 0, not {text}")
    return value


def natural_float(text: str) -> float:
    """Type of an option: a finite number of 0 or more."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text}")
    return value


def natural_int(text: str) -> int:
    """Type of an option: a whole number of 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text}")
    return value


def require(*packages: str, extra: str) -> None:
    """Refuse to go on without some packages.

    Parameters
    ----------
    *packages : str
        That are needed.
    extra : str
        Of this package, which brings them.

    Raises
    ------
    CommandError
        One is missing.
    """
    missing = [name for name in packages if not _is_installed(name)]
    if missing:
        raise CommandError(f"{missing[0]} is not installed: pip install 'spikeinterface-simsort[{extra}]'")


def require_simulation(*more: str) -> None:
    """Refuse to go on without what composes trials, and `more`; see `require`."""
    require("lfpykit", *more, extra="simulation")


def _is_installed(name: str) -> bool:
    # What was imported, or put in its place by None, needs no search.
    return sys.modules[name] is not None if name in sys.modules else find_spec(name) is not None


@contextmanager
def progress_bar(*, total: int | None, unit: str, shown: bool) -> Iterator[tqdm[NoReturn]]:
    """Show how far a command is, on stderr, with the log above.

    Parameters
    ----------
    total : int or None
        Number of steps, where it is known.
    unit : str
        What a step is.
    shown : bool
        Whether to show anything.

    Yields
    ------
    tqdm.tqdm
        To be told of each step by ``update()``.
    """
    with logging_redirect_tqdm([logging.getLogger("spikeinterface_simsort")]):
        with tqdm(total=total, unit=unit, disable=not shown) as bar:
            yield bar
