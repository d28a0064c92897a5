"""Public sources of detailed cells: what they are, whose they are, and how they are fetched and checked."""

from __future__ import annotations

import http.client
import json
import logging
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256 as new_sha256
from pathlib import Path, PurePosixPath
from typing import Any

from spikeinterface_simsort.folders import replacing

logger = logging.getLogger(__name__)

RECORD_FILE, CELLS_FOLDER = "SOURCE.json", "cells"
_CHUNK = 1 << 20
_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MOVING_REVISIONS = {"main", "master", "head"}
_MARKRAM = "Markram et al. 2015, Cell 163:456, doi:10.1016/j.cell.2015.09.029"


class FetchError(RuntimeError):
    """Something cannot be fetched, or is not what it should be; the message says why, and what to do."""


class _CutError(Exception):
    """The connection ended too soon: what came is kept, and the rest may be asked for."""


class _StaleError(Exception):
    """What came earlier is of no use: start over."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """An archive of cells on the web.

    Attributes
    ----------
    name : str
        What the command line calls it.
    title : str
        What it is.
    url : str
        Of the archive.
    file_name : str
        What the archive is called on disk.
    approx_mb : int
        About how large it is.
    members : str
        How the names of those members end that are cells.
    citation : str
        What to cite.
    licence, licence_url : str
        Under which terms it is shared.
    sha256 : str or None
        Of the archive; None where nobody has pinned it.
    """

    name: str
    title: str
    url: str
    file_name: str
    approx_mb: int
    members: str
    citation: str
    licence: str
    licence_url: str
    sha256: str | None = None


_S1_REF = "2abb3594fda9a8089da7e64c492c0b5dac80e832"
_CC_BY_NC_SA = {
    "licence": "CC BY-NC-SA 4.0",
    "licence_url": "https://creativecommons.org/licenses/by-nc-sa/4.0/",
}
SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="s1",
            title="cells of the rat's somatosensory cortex, as NetPyNE's JSON",
            url="https://codeload.github.com/suny-downstate-medical-center/S1_Thal_NetPyNE_Frontiers_2022/tar.gz/"
            + _S1_REF,
            file_name="s1.tar.gz",
            approx_mb=560,
            members="_cellParams.json",
            citation=f"{_MARKRAM}; Borges et al. 2022, Front Neuroinform 16:884245, doi:10.3389/fninf.2022.884245",
            # GitHub makes the archive anew when it is asked for, and does not promise the same bytes: no sha256.
            **_CC_BY_NC_SA,
        ),
        Source(
            name="nmc",
            title="all cell packages of the NMC portal, as hoc templates",
            url="https://bbp.epfl.ch/nmc-portal/assets/documents/static/Download/hoc_combos_syn.1_0_10.allzips.tar",
            file_name="nmc.tar",
            approx_mb=790,
            members=".zip",
            citation=f"{_MARKRAM}; Ramaswamy et al. 2015, Front Neural Circuits 9:44, doi:10.3389/fncir.2015.00044",
            **_CC_BY_NC_SA,
        ),
    )
}


def fetch_source(
    source: Source,
    folder: str | Path,
    *,
    url: str | None = None,
    sha256: str | None = None,
    progress_bar: bool = False,
) -> Path:
    """Fetch an archive of cells and unpack the cells; what is there already is checked and kept.

    Parameters
    ----------
    source : Source
        What to fetch.
    folder : str or Path
        For the archive, for ``SOURCE.json``, which says what it is, and for ``cells``, the cells in it. An archive that
        was put there by other means is taken for what it is called.
    url : str, optional
        Another place that has the same archive.
    sha256 : str, optional
        What the archive must have; default the source's own, or what it had when it was fetched first.
    progress_bar : bool
        Show how far the download is.

    Returns
    -------
    Path
        The folder ``cells``, which `cells.iterate_cells` reads.

    Raises
    ------
    FetchError
        The archive cannot be fetched, is not the one that it should be, or holds no cells; or `folder` holds something
        else.
    """
    folder, url = Path(folder), url or source.url
    wanted = _check_digest(sha256) if sha256 is not None else source.sha256
    archive = folder / source.file_name
    record = _read_record(folder)
    if record and (record.get("name"), record.get("url")) != (source.name, url):
        raise FetchError(f"{folder} holds what came from {record.get('url')}: choose another folder.")
    if archive.exists():
        digest = file_digest(archive)
        expected = wanted or record.get("sha256")
        if expected is not None and digest != expected:
            raise FetchError(
                f"{archive} is not what it should be: its sha256 is {digest}, not {expected}. Remove it and try again."
            )
        logger.info("%s is there already (sha256 %s).", archive, digest)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        digest = download(url, archive, sha256=wanted or record.get("sha256"), progress_bar=progress_bar)
    if record.get("sha256") != digest:
        if wanted is None:
            logger.warning("Nobody has pinned the sha256 of %s; this one is %s.", source.name, digest)
        _write_record(
            folder,
            name=source.name,
            title=source.title,
            url=url,
            sha256=digest,
            size_bytes=archive.stat().st_size,
            citation=source.citation,
            licence=source.licence,
            licence_url=source.licence_url,
        )
    cells = folder / CELLS_FOLDER
    if not cells.exists():
        logger.info("Unpacked %d cells into %s.", unpack_cells(archive, cells, suffix=source.members), cells)
    return cells


def fetch_hub(address: str, folder: str | Path) -> Path:
    """Fetch a data set of cells from the HuggingFace hub.

    Parameters
    ----------
    address : str
        ``hf://owner/name@revision``, where the revision is a commit or a tag.
    folder : str or Path
        For ``SOURCE.json`` and for ``cells``, the files of the data set.

    Returns
    -------
    Path
        The folder ``cells``.

    Raises
    ------
    FetchError
        The address is malformed or not pinned, the download failed, or `folder` holds something else.
    """
    repo_id, revision = _parse_hub_address(address)
    folder = Path(folder)
    cells, record = folder / CELLS_FOLDER, _read_record(folder)
    if record:
        if record.get("url") != address:
            raise FetchError(f"{folder} holds what came from {record.get('url')}: choose another folder.")
        if cells.exists():
            logger.info("%s is there already.", cells)
            return cells
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(repo_id, repo_type="dataset", revision=revision, local_dir=cells)
    except Exception as error:
        raise FetchError(
            f"Could not get {address}: {' '.join(str(error).split()) or type(error).__name__} Check the address, the "
            "network and HF_ENDPOINT, and log in with `hf auth login` if the data set is private."
        ) from error
    card = f"https://huggingface.co/datasets/{repo_id}"
    _write_record(folder, name="hub", url=address, revision=revision, licence=f"as the data set's card says: {card}")
    return cells


def download(
    url: str,
    path: str | Path,
    *,
    sha256: str | None = None,
    progress_bar: bool = False,
    attempts: int = 5,
    wait_s: float = 2.0,
    timeout_s: float = 60.0,
) -> str:
    """Download a file, which appears at `path` when it is complete and checked.

    What came before a connection was cut lies in ``<path>.partial``. The next attempt, or the next run, goes on from
    there if the server can say that the file is still the same; else it starts over.

    Parameters
    ----------
    url : str
        Starts with ``http://`` or ``https://``.
    path : str or Path
        Where to; an older file is replaced.
    sha256 : str, optional
        What the file must have, in hexadecimal.
    progress_bar : bool
        Show how far it is.
    attempts : int
        Connections to make before giving up; one that brought something does not count.
    wait_s : float
        Between two attempts, in s.
    timeout_s : float
        Longest silence of the server, in s.

    Returns
    -------
    str
        The file's sha256, in hexadecimal.

    Raises
    ------
    FetchError
        The server cannot be reached or has no such file, the file has another sha256, or the disk is full.
    """
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise FetchError(f"{url} is no address on the web: it must start with https:// or http://.")
    path = Path(path)
    partial = _Partial(path.with_name(f"{path.name}.partial"))
    tries_left = attempts
    while True:
        before = partial.size
        try:
            _transfer(url, partial, progress_bar=progress_bar, timeout_s=timeout_s)
            break
        except _StaleError:
            # Never twice in a row: with nothing left, nothing can be stale.
            partial.remove()
        except _CutError as error:
            tries_left = attempts - 1 if partial.size > before and attempts > 1 else tries_left - 1
            if tries_left <= 0:
                left = f" {partial.size / 1e6:.1f} MB came: run it again to go on from there." if partial.size else ""
                raise FetchError(f"Could not fetch {url}: {error}. Check the network.{left}") from error
            logger.warning("The connection was cut after %.1f MB (%s): going on.", partial.size / 1e6, error)
            time.sleep(wait_s)
    digest = file_digest(partial.path)
    if sha256 is not None and digest != _check_digest(sha256):
        partial.remove()
        raise FetchError(
            f"{url} is not the file that was expected: its sha256 is {digest}, not {sha256}. It was removed: try "
            "again, or find out what changed."
        )
    partial.path.replace(path)
    partial.remove()
    logger.info("Fetched %s: %.1f MB, sha256 %s.", path, path.stat().st_size / 1e6, digest)
    return digest


class _Partial:
    """A file that is on its way, and beside it, what tells whether the server's is still the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._notes = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self, url: str) -> str | None:
        """ETag or date of the server's file when it was begun; None if it cannot be gone on with."""
        try:
            notes = json.loads(self._notes.read_text(encoding="utf-8"))
            return notes["validator"] if notes["url"] == url and self.size else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, *, url: str, validator: str | None) -> None:
        self.path.write_bytes(b"")
        self._notes.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)


def _transfer(url: str, partial: _Partial, *, progress_bar: bool, timeout_s: float) -> None:
    """Bring what is missing of a file over one connection."""
    validator = partial.validator(url)
    start = partial.size if validator else 0
    # Compressed on the way, offsets would not be those of the file.
    headers = {"User-Agent": "spikeinterface-simsort", "Accept-Encoding": "identity"}
    if validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and validator:
                # Nothing is left to send, or the file became shorter.
                if error.headers.get("Content-Range", "").strip() == f"bytes */{start}":
                    return
                raise _StaleError from error
            if error.code in {408, 429} or error.code >= 500:
                raise _CutError(f"the server answers {error.code} {error.reason}") from error
            hint = "the address is wrong, or the file is gone: pass another --url" if error.code in {404, 410} else ""
            message = f"{url} cannot be fetched: the server answers {error.code} {error.reason}"
            raise FetchError(f"{message}; {hint}." if hint else f"{message}.") from error
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(f"no connection ({getattr(error, 'reason', None) or error!r})") from error
    with response:
        if response.status == 206:
            if _range_start(response.headers) != start or _validator(response.headers) not in {validator, None}:
                raise _StaleError
        else:
            # The whole file: it changed, or the server does not send parts.
            start = 0
            partial.begin(url=url, validator=_validator(response.headers))
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdigit() else None
        _check_space(partial.path, needed=None if total is None else total - start)
        _receive(response, partial.path, start=start, total=total, progress_bar=progress_bar)


def _receive(
    response: http.client.HTTPResponse, path: Path, *, start: int, total: int | None, progress_bar: bool
) -> None:
    from tqdm import tqdm

    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=path.stem, disable=not progress_bar)
    size = start
    with bar, path.open("ab") as file:
        while True:
            try:
                # read1: what came so far, rather than waiting for a chunk to be full, which a cut would lose.
                chunk = response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _CutError(repr(error)) from error
            if not chunk:
                break
            try:
                file.write(chunk)
            except OSError as error:
                raise FetchError(
                    f"{path} cannot be written: {error}. Make room, then run it again to go on."
                ) from error
            size += len(chunk)
            bar.update(len(chunk))
    if total is not None and size < total:
        raise _CutError(f"{size} of {total} bytes came")


def _range_start(headers: Mapping[str, str]) -> int | None:
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(found.group(1)) if found else None


def _validator(headers: Mapping[str, str]) -> str | None:
    """What tells one version of a file from the next, byte by byte: a weak ETag does not."""
    etag = headers.get("ETag")
    if etag is not None:
        return None if etag.startswith("W/") else etag
    return headers.get("Last-Modified")


def _check_space(path: Path, *, needed: int | None) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed is not None and needed > free:
        raise FetchError(
            f"{needed / 1e6:.0f} MB are to come, and {path.parent} has room for {free / 1e6:.0f} MB: make room, or "
            "choose another folder."
        )


def file_digest(path: str | Path) -> str:
    """Give the sha256 of a file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = new_sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def unpack_cells(archive: str | Path, folder: str | Path, *, suffix: str) -> int:
    """Unpack the cells of a tar archive, whatever folders they lie in, side by side into a new folder.

    Parameters
    ----------
    archive : str or Path
        The archive, compressed or not.
    folder : str or Path
        Appears when all cells are in it.
    suffix : str
        How the names of those members end that are cells.

    Returns
    -------
    int
        How many there are; of those with the same name, the first is kept.

    Raises
    ------
    FetchError
        The archive cannot be read, or holds no such member.
    """
    archive, folder = Path(archive), Path(folder)
    staging = folder.with_name(f"{folder.name}.partial")
    if staging.exists():
        # Left by a process that was killed.
        shutil.rmtree(staging)
    try:
        # As a stream: a compressed archive cannot go back without starting over.
        with tarfile.open(archive, "r|*") as tar, replacing(folder, staging=staging):
            for member in tar:
                # The bare name: no member can lead outside.
                target = staging / PurePosixPath(member.name.replace("\\", "/")).name
                # What begins with a dot is what a Mac adds to archives.
                is_cell = member.isreg() and target.name.endswith(suffix) and not target.name.startswith(".")
                content = tar.extractfile(member) if is_cell else None
                if content is not None and not target.exists():
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file)
            num_cells = sum(1 for _ in staging.iterdir())
            if not num_cells:
                raise FetchError(f"{archive} holds no cell: nothing in it is called *{suffix}.")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FetchError(f"{archive} cannot be unpacked: {error}. Remove it and fetch it again.") from error
    return num_cells


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FetchError(f"{path} cannot be read: remove it, or choose another folder.") from error
    if not isinstance(record, dict):
        raise FetchError(f"{path} is not ours: choose another folder.")
    return record


def _write_record(folder: Path, **record: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record["fetched"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    partial = folder / f"{RECORD_FILE}.partial"
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / RECORD_FILE)


def _check_digest(text: str) -> str:
    digest = text.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise FetchError(f"{text!r} is no sha256: it has 64 hexadecimal digits.")
    return digest


def _parse_hub_address(address: str) -> tuple[str, str]:
    repo_id, _, revision = address.removeprefix("hf://").partition("@")
    if not address.startswith("hf://") or not _REPO_ID.fullmatch(repo_id):
        raise FetchError(f"{address!r} is not an address of a data set: write it as hf://owner/name@revision.")
    if not _REVISION.fullmatch(revision) or revision.lower() in _MOVING_REVISIONS:
        example = f"hf://{repo_id}@<commit or tag>"
        raise FetchError(f"{address!r} may change from one day to the next: pin a revision, as in {example}.")
    return repo_id, revision
