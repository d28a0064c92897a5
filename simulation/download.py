"""Downloads that go on where they were cut, and appear when they are complete and checked."""

from __future__ import annotations

import http.client
import json
import logging
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from hashlib import sha256 as new_sha256
from pathlib import Path

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20


class FetchError(RuntimeError):
    """Something cannot be fetched, or is not what it should be; the message says why, and what to do."""


class _CutError(Exception):
    """The connection ended too soon: what came is kept, and the rest may be asked for."""


class _StaleError(Exception):
    """What came earlier is of no use: start over."""


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
    if sha256 is not None and digest != check_digest(sha256):
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
    request = urllib.request.Request(url, headers=headers)
    try:
        # Bandit fears other schemes; `download` takes http and https only.
        response = urllib.request.urlopen(request, timeout=timeout_s)  # nosec B310
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


def check_digest(text: str) -> str:
    """Bring a sha256 into its usual form, or refuse what is none (`FetchError`)."""
    digest = text.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise FetchError(f"{text!r} is no sha256: it has 64 hexadecimal digits.")
    return digest
