"""Public sources of detailed cells: what they are, whose they are, and how they are fetched and checked."""

from __future__ import annotations

import json
import logging
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from spikeinterface_simsort.folders import replacing
from spikeinterface_simsort.hub import HubAddressError, parse_hub_address
from spikeinterface_simsort.simulation.download import FetchError, check_digest, download, file_digest

logger = logging.getLogger(__name__)

RECORD_FILE, CELLS_FOLDER = "SOURCE.json", "cells"
_MARKRAM = "Markram et al. 2015, Cell 163:456, doi:10.1016/j.cell.2015.09.029"


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
    wanted = check_digest(sha256) if sha256 is not None else source.sha256
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
    try:
        repo_id, revision = parse_hub_address(address, what="a data set")
    except HubAddressError as error:
        raise FetchError(str(error)) from error
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
