"""Folders that appear whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(folder: Path, *, staging: Path) -> Iterator[Path]:
    """Fill a folder beside another one, and put it in that one's place once it is whole.

    Parameters
    ----------
    folder : Path
        What is there in the end; an old one stays as it was when filling the new one fails.
    staging : Path
        Made here, on the same file system as `folder`; gone afterwards. An old folder goes next to it.

    Yields
    ------
    Path
        `staging`.
    """
    retired = staging.with_name(f".{folder.name}-{uuid.uuid4().hex}-old")
    staging.mkdir(parents=True)
    try:
        yield staging
        if folder.exists():
            folder.rename(retired)
        staging.rename(folder)
    finally:
        if retired.exists() and not folder.exists():
            retired.rename(folder)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)
