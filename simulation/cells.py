"""Cell models read from files: NetPyNE's JSON, and packages of the NMC portal."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from spikeinterface_simsort.simulation.cell_models import CellModel, Section
from spikeinterface_simsort.simulation.nmc import is_nmc_package, read_nmc_package

_SUFFIX = "_cellParams.json"


def parse_netpyne(text: str | bytes, *, name: str) -> CellModel:
    """Make a cell of NetPyNE cell parameters (JSON).

    Parameters
    ----------
    text : str or bytes
        JSON with the key ``secs``.
    name : str
        Of the cell.

    Returns
    -------
    CellModel

    Raises
    ------
    ValueError
        The text is no JSON, or not that of a cell.
    """
    try:
        cell = json.loads(text)
        sections = cell["secs"].items()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{name} is not a cell in NetPyNE's JSON: it has no readable 'secs'.") from error
    return CellModel(name=name, sections=tuple(_netpyne_section(key, value, cell=name) for key, value in sections))


def _netpyne_section(name: str, content: Mapping[str, Any], *, cell: str) -> Section:
    try:
        geometry, topology = content["geom"], content.get("topol") or {}
        return Section(
            name=name,
            length=float(geometry["L"]),
            diam=float(geometry["diam"]),
            points=tuple((float(x), float(y), float(z), float(d)) for x, y, z, d in geometry.get("pt3d", ())),
            num_segments=int(geometry.get("nseg", 1)),
            axial_resistivity=float(geometry["Ra"]),
            capacitance=float(geometry["cm"]),
            parent=topology.get("parentSec"),
            parent_x=float(topology.get("parentX", 1.0)),
            child_x=float(topology.get("childX", 0.0)),
            mechanisms=content.get("mechs") or {},
            ions=content.get("ions") or {},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Section {name} of {cell} cannot be read: {error!r}.") from error


def cell_name(file_name: str) -> str:
    """Name of the cell in a file: the file's name without folder and ``_cellParams.json``.

    Parameters
    ----------
    file_name : str
        Path of a file, or of a member of an archive.

    Returns
    -------
    str
    """
    base = file_name.replace("\\", "/").rsplit("/", 1)[-1]
    return base[: -len(_SUFFIX)] if base.endswith(_SUFFIX) else base.removesuffix(".json")


def iterate_cells(
    path: str | Path, *, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, CellModel | ValueError]]:
    """Read cells one after the other; one that cannot be read gives its error, and the next follows.

    Parameters
    ----------
    path : str or Path
        A NetPyNE JSON file, a folder of them (searched through), a tar archive of them, or a cell package of the NMC
        portal (see `nmc.read_nmc_package`): a folder or a zip with ``template.hoc``, or a folder of such packages.
    wanted : callable
        Says by its name whether a cell is to be read.

    Yields
    ------
    name : str
        Of the cell.
    cell : CellModel or ValueError
        What was read, or why it could not be.

    Raises
    ------
    FileNotFoundError
        There is nothing at `path`, or no cell in it.
    ValueError
        `path` is a file of another kind.
    """
    path = Path(path)
    num_cells = 0
    for name, read in _sources(path):
        num_cells += 1
        if not wanted(name):
            continue
        try:
            yield name, read()
        except (ValueError, OSError) as error:
            yield name, error if isinstance(error, ValueError) else ValueError(f"{name} cannot be read: {error}")
    if not num_cells:
        raise FileNotFoundError(
            f"There are no cells in {path}: no *.json of NetPyNE, no template.hoc of the NMC portal."
        )


def read_cells(path: str | Path, *, names: Collection[str] | None = None) -> list[CellModel]:
    """Read cells from a file, a folder or an archive.

    Parameters
    ----------
    path : str or Path
        See `iterate_cells`.
    names : collection of str, optional
        Cells to read; default all.

    Returns
    -------
    list of CellModel

    Raises
    ------
    FileNotFoundError
        There is nothing at `path`, or no cell in it.
    ValueError
        A cell cannot be read, or one that is named is not there.
    """
    cells = []
    for _, cell in iterate_cells(path, wanted=lambda name: names is None or name in names):
        if isinstance(cell, ValueError):
            raise cell
        cells.append(cell)
    missing = set(names or ()) - {cell.name for cell in cells}
    if missing:
        raise ValueError(f"{path} does not hold the cells {sorted(missing)}.")
    return cells


def _sources(path: Path) -> Iterator[tuple[str, Callable[[], CellModel]]]:
    if not path.exists():
        raise FileNotFoundError(f"There is nothing at {path}.")
    if is_nmc_package(path):
        yield path.stem if path.is_file() else path.name, partial(read_nmc_package, path)
    elif path.is_dir():
        packages = sorted(child for child in path.iterdir() if is_nmc_package(child))
        for package in packages:
            yield package.stem if package.is_file() else package.name, partial(read_nmc_package, package)
        if not packages:
            for file in sorted(path.rglob("*.json")):
                yield cell_name(file.name), partial(_read_file, file)
    elif path.suffix == ".json":
        yield cell_name(path.name), partial(_read_file, path)
    elif tarfile.is_tarfile(path):
        # Read as a stream: a compressed archive cannot go back without starting over.
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".json"):
                    yield cell_name(member.name), partial(_read_member, archive, member)
    else:
        raise ValueError(f"{path} is neither NetPyNE's JSON, nor a tar archive of it, nor a zip with template.hoc.")


def _read_file(path: Path) -> CellModel:
    return parse_netpyne(path.read_bytes(), name=cell_name(path.name))


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> CellModel:
    name = cell_name(member.name)
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"{name} is a link in the archive, not a file.")
    return parse_netpyne(file.read(), name=name)
