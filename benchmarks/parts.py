"""Recordings of a folder scored one by one, each kept as a part of the table: a run goes on where it was stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import spikeinterface as si
from spikeinterface.core import BaseRecording, BaseSorting

logger = logging.getLogger(__name__)

# A folder with ``recording`` and ``sorting``, or what gives both.
Source = Path | Callable[[], tuple[BaseRecording, BaseSorting]]

# Text whatever they hold: names of recordings may be numbers, whose zeros count, and an error may be none.
_TEXTS = {"family": str, "recording": str, "error": str}


def find_recordings(folder: Path, *, num_recordings: int | None = None) -> dict[tuple[str, str], Path]:
    """Recordings with their ground truth.

    Parameters
    ----------
    folder : Path
        With ``FAMILY/NAME/recording`` and ``FAMILY/NAME/sorting``, as SpikeInterface saves them.
    num_recordings : int, optional
        Of each family only the first so many. Default: all.

    Returns
    -------
    dict of (str, str) to Path
        The folder of both, by family and name of the recording; numbers in their order.

    Raises
    ------
    ValueError
        There is none.
    """
    found: dict[str, list[Path]] = {}
    for path in folder.glob("*/*"):
        if (path / "recording").exists() and (path / "sorting").exists():
            found.setdefault(path.parent.name, []).append(path)
    if not found:
        raise ValueError(f"{folder} holds no recordings FAMILY/NAME/recording with FAMILY/NAME/sorting.")
    chosen = {}
    for family, paths in sorted(found.items()):
        paths.sort(key=lambda path: (len(path.name) if path.name.isdigit() else 0, path.name))
        chosen |= {(family, path.name): path for path in paths[:num_recordings]}
    return chosen


def parts_folder(output: Path) -> Path:
    """Where the parts of a table are kept: beside it."""
    return output.with_name(output.name + ".parts")


def score_recordings(
    recordings: Mapping[tuple[str, str], Source],
    score: Callable[[BaseRecording, BaseSorting], pd.DataFrame],
    *,
    parts: Path | None = None,
) -> pd.DataFrame:
    """Score recordings; those that are finished are skipped.

    Parameters
    ----------
    recordings : mapping of (str, str) to Source
        From `find_recordings`, or made when their turn comes, by family and name; at least one.
    score : callable
        (recording, ground truth) -> table.
    parts : Path, optional
        Folder that keeps a CSV file of each finished recording, ``FAMILY/NAME.csv``. To have one done again, as after a
        failure or a change of what is measured, remove its file. Default: nothing is kept.

    Returns
    -------
    pandas.DataFrame
        All tables, with the columns ``family`` and ``recording`` before.
    """
    tables = []
    for number, ((family, name), source) in enumerate(recordings.items(), start=1):
        part = None if parts is None else parts / family / f"{name}.csv"
        if part is None or not part.exists():
            logger.info("%d of %d: %s/%s", number, len(recordings), family, name)
            table = score(*(source() if callable(source) else _load(source)))
            table.insert(0, "family", family)
            table.insert(1, "recording", name)
            if part is not None:
                _write_table(table, part)
        else:
            table = _read_table(part)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _load(folder: Path) -> tuple[Any, Any]:
    return si.load(folder / "recording"), si.load(folder / "sorting")


def _write_table(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only what is complete bears the name that is looked for.
    unfinished = path.with_suffix(".unfinished")
    table.to_csv(unfinished, index=False)
    unfinished.replace(path)


def _read_table(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=_TEXTS, keep_default_na=False, na_values=[""])
    texts = [name for name in _TEXTS if name in table]
    table[texts] = table[texts].fillna("")
    return table
