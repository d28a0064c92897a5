"""Detailed cell models: sections, their shape and their mechanisms.

Needs no NEURON: `neuron_cells` makes a running cell of a model, `cells` reads models from files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
