"""Detailed cell models: sections, their shape and their mechanisms, read from files.

Needs no NEURON: `neuron_cells` makes a running cell of what is read here.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SUFFIX = "_cellParams.json"


@dataclass(frozen=True, kw_only=True)
class Section:
    """An unbranched piece of a cell.

    Attributes
    ----------
    name : str
        Starts with the part of the cell: ``soma``, ``axon``, ``dend``, ``apic``.
    length, diam : float
        In um; `points` override them.
    points : tuple of (x, y, z, diam), optional
        The shape in um; a section without is straight.
    num_segments : int
        Segments in the file.
    axial_resistivity : float
        In ohm cm.
    capacitance : float
        In uF/cm2.
    parent : str or None
        Name of the section that this one starts at.
    parent_x, child_x : float
        Where on the parent, and with which end.
    mechanisms : mapping
        Parameters of each mechanism: a number, or one number a segment.
    ions : mapping
        Reversal potential ``e`` (mV), concentrations ``i`` and ``o`` (mM) of each ion.
    """

    name: str
    length: float
    diam: float
    points: tuple[tuple[float, float, float, float], ...] = ()
    num_segments: int = 1
    axial_resistivity: float = 100.0
    capacitance: float = 1.0
    parent: str | None = None
    parent_x: float = 1.0
    child_x: float = 0.0
    mechanisms: Mapping[str, Mapping[str, Any]]
    ions: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class CellModel:
    """A cell: sections that form a tree with the soma in it.

    Attributes
    ----------
    name : str
        ``<ME-type>_<clone>`` for cells of the NMC portal.
    sections : tuple of Section
        Any order.
    """

    name: str
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        names = [section.name for section in self.sections]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name}: two sections have the same name.")
        roots = [section.name for section in self.sections if section.parent is None]
        if len(roots) != 1:
            raise ValueError(f"{self.name}: a cell has one section without a parent, not {len(roots)} ({roots[:4]}).")
        unknown = {section.parent for section in self.sections} - set(names) - {None}
        if unknown:
            raise ValueError(f"{self.name}: sections are attached to {sorted(map(str, unknown))}, which do not exist.")
        if "soma" not in {part_of_cell(name) for name in names}:
            raise ValueError(f"{self.name} has no soma.")


def part_of_cell(section_name: str) -> str:
    """Part of the cell that a section belongs to: ``soma``, ``axon`` or ``dend`` (basal and apical dendrites).

    Parameters
    ----------
    section_name : str
        As in ``axon_0``, ``apic[3]``.

    Returns
    -------
    str
    """
    prefix = section_name[:4].lower()
    # Myelin belongs to the axon.
    return {"soma": "soma", "axon": "axon", "myel": "axon"}.get(prefix, "dend")


def me_type(cell_name: str) -> str:
    """Morpho-electrical type of a cell: its name without the number of its clone.

    Parameters
    ----------
    cell_name : str
        As in ``L5_TTPC1_cADpyr232_1``.

    Returns
    -------
    str
        As in ``L5_TTPC1_cADpyr232``.
    """
    stem, _, clone = cell_name.rpartition("_")
    return stem if clone.isdigit() and stem else cell_name


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
    from spikeinterface_simsort.simulation.nmc import is_nmc_package, read_nmc_package

    if not path.exists():
        raise FileNotFoundError(f"There is nothing at {path}.")
    if is_nmc_package(path):
        yield path.stem if path.is_file() else path.name, lambda: read_nmc_package(path)
    elif path.is_dir():
        packages = sorted(child for child in path.iterdir() if is_nmc_package(child))
        for package in packages:
            yield package.stem if package.is_file() else package.name, lambda package=package: read_nmc_package(package)
        if not packages:
            for file in sorted(path.rglob("*.json")):
                name = cell_name(file.name)
                yield name, lambda file=file, name=name: parse_netpyne(file.read_bytes(), name=name)
    elif path.suffix == ".json":
        yield cell_name(path.name), lambda: parse_netpyne(path.read_bytes(), name=cell_name(path.name))
    elif tarfile.is_tarfile(path):
        # Read as a stream: a compressed archive cannot go back without starting over.
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".json"):
                    name = cell_name(member.name)
                    yield name, lambda member=member, name=name: _read_member(archive, member, name=name)
    else:
        raise ValueError(f"{path} is neither NetPyNE's JSON, nor a tar archive of it, nor a zip with template.hoc.")


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, *, name: str) -> CellModel:
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"{name} is a link in the archive, not a file.")
    return parse_netpyne(file.read(), name=name)
