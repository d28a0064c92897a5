"""The folder of a run that goes on where it stopped: whose it is, what may be removed, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikeinterface_simsort.fingerprint import name_differences

RUN_FILE, GROUPS_FOLDER, SORTING_FOLDER = "run.json", "groups", "sorting"
REPORT_FILE = "report.html"
# What `simsort curate` adds: labels, of these units only.
CURATED_CONTENTS = ("analyzer", "curation.json", "labels.csv", "metrics.csv")
_SORTER_CONTENTS = (RUN_FILE, GROUPS_FOLDER, SORTING_FOLDER, "sorter", "units.csv", "units.png")
# What `simsort sort` leaves, of one group or of several, and what is added: nothing else is ever removed.
SORTED_CONTENTS = (*_SORTER_CONTENTS, REPORT_FILE, *CURATED_CONTENTS)
_LOCK_FILE = ".lock"


class RunFolderError(ValueError):
    """A folder holds what a run must not be mixed with; the message says what to do."""


def is_run_folder(folder: Path) -> bool:
    """Tell whether a folder holds a run of several groups, finished or not."""
    # Before it says what it is, a run writes nothing but the folder of its groups.
    return (folder / RUN_FILE).is_file() or (
        folder.is_dir() and [path.name for path in folder.iterdir()] == [GROUPS_FOLDER]
    )


@contextmanager
def run_folder(folder: Path, *, description: dict[str, Any], overwrite: bool) -> Iterator[None]:
    """Begin a run in a folder, or go on with the same one, and keep others out meanwhile.

    Parameters
    ----------
    folder : Path
        Of the run.
    description : dict
        Of `describe_run`.
    overwrite : bool
        Remove an earlier run, or what else simsort left there, first.

    Raises
    ------
    RunFolderError
        The folder holds another run or something else, or a run is at work in it.
    """
    # Comes with torch and with huggingface_hub. It lets go when the process ends, however it ends.
    from filelock import FileLock, Timeout

    _check(folder, overwrite=overwrite)
    groups = folder / GROUPS_FOLDER
    groups.mkdir(parents=True, exist_ok=True)
    lock = FileLock(groups / _LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(f"Another run is at work in {folder}: wait for it, or choose another folder.") from error
    try:
        for path in groups.glob(".*"):
            if path.name != _LOCK_FILE:
                # Left unfinished by a process that was killed.
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if overwrite:
            _clear(folder)
        _begin_or_go_on(folder, description)
        yield
    finally:
        lock.release()


def unfinished(groups_folder: Path, what: str) -> Path:
    """Name a place for what is renamed when it is whole; where it stays behind, the next run sweeps it away.

    Parameters
    ----------
    groups_folder : Path
        Of the run's groups.
    what : str
        Part of the name.

    Returns
    -------
    Path
        Does not exist.
    """
    return groups_folder / f".{what}-{uuid.uuid4().hex}"


def _check(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is a file: choose another folder.")
    names = {path.name for path in folder.iterdir()}
    strangers = sorted(names - {*SORTED_CONTENTS})
    if strangers:
        raise RunFolderError(f"{folder} holds {strangers[0]!r}, which is not simsort's: choose another folder.")
    if names and not (overwrite or is_run_folder(folder)):
        raise RunFolderError(f"{folder} exists: choose another folder, or overwrite it (overwrite=True, --overwrite).")


def _clear(folder: Path) -> None:
    """Remove an earlier run: the description goes last, so that what is left is never taken for another run's."""
    groups_folder = folder / GROUPS_FOLDER
    others = [folder / name for name in SORTED_CONTENTS if name not in (RUN_FILE, GROUPS_FOLDER)]
    groups = [path for path in groups_folder.iterdir() if not path.name.startswith(".")]
    trash = unfinished(groups_folder, "old")
    trash.mkdir()
    for number, path in enumerate([*others, *groups, folder / RUN_FILE]):
        if path.exists():
            path.rename(trash / str(number))
    shutil.rmtree(trash)


def _begin_or_go_on(folder: Path, description: dict[str, Any]) -> None:
    """Write what a run is, or make sure that it is the one that began here."""
    path = folder / RUN_FILE
    if not path.exists():
        partial = unfinished(folder / GROUPS_FOLDER, "run")
        partial.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
        return
    try:
        differences = name_differences(json.loads(path.read_text(encoding="utf-8")), description)
    except (AttributeError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: start over (overwrite=True, --overwrite).") from error
    if differences:
        raise RunFolderError(
            f"{folder} holds a run that differs in {', '.join(differences)}: choose another folder, or start over "
            "(overwrite=True, --overwrite)."
        )
