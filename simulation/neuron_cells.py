"""A detailed cell that runs in NEURON.

NEURON keeps one world a process, so one process simulates one cell. Units: mV, ms, nA, um.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from neuron import h

from spikeinterface_simsort.simulation.cell_models import CellModel, Section, part_of_cell
from spikeinterface_simsort.simulation.mechanisms import compile_mechanisms
from spikeinterface_simsort.simulation.spike_currents import DT

TEMPERATURE = 34.0  # degC, of the recordings that the cells were fitted to (Markram et al. 2015)
V_INIT = -70.0
SETTLE_MS = 300.0
# Built into NEURON.
_BUILT_IN = {"pas", "hh"}


def load_mechanisms(library: Path | None = None) -> None:
    """Let NEURON know the project's mechanisms, once a process.

    Parameters
    ----------
    library : Path, optional
        Compiled mechanisms; default the project's own, compiled if need be.
    """
    if not hasattr(h, "SK_E2"):
        h.nrn_load_dll(str(library or compile_mechanisms()))


class NeuronCell:
    """A cell with an electrode in its soma.

    Parameters
    ----------
    model : CellModel
        The cell.
    max_segment_um : float or None
        A section of length L gets ``1 + 2 * int(L / max_segment_um)`` segments; None takes the file's numbers.

    Attributes
    ----------
    seg_start, seg_end : np.ndarray, float32 [num_segments, 3]
        End points of the segments in um; the middle of the soma is the origin.
    seg_diam : np.ndarray, float32 [num_segments]
        Diameters in um.
    soma : int
        Index of the segment in the soma's middle.
    parts : np.ndarray, str [num_segments]
        ``soma``, ``axon`` or ``dend``.

    Raises
    ------
    ValueError
        The model needs a mechanism, or sets a parameter, that does not exist.
    """

    def __init__(self, model: CellModel, *, max_segment_um: float | None = 120.0) -> None:
        load_mechanisms()
        self.name = model.name
        self._sections: dict[str, Any] = {section.name: h.Section(name=section.name) for section in model.sections}
        for section in model.sections:
            _set_shape(self._sections[section.name], section, max_segment_um=max_segment_um)
        for section in model.sections:
            if section.parent is not None:
                parent = self._sections[section.parent]
                self._sections[section.name].connect(parent(section.parent_x), section.child_x)
        for section in model.sections:
            _set_membrane(self._sections[section.name], section, cell=model.name)
        # Gives a shape to sections that have none; those that have one it moves, so that theirs is taken from the file.
        h.define_shape()

        self._segments = [segment for section in self._sections.values() for segment in section]
        self.parts = np.array([part_of_cell(name) for name, section in self._sections.items() for _ in section])
        middle = self._segments[int(np.argmax(self.parts == "soma"))].sec(0.5)
        self.soma = self._segments.index(middle)
        shapes = _shapes(model, self._sections)
        ends = [_segment_ends(shapes[name], section.nseg) for name, section in self._sections.items()]
        start, end = np.concatenate([a for a, _ in ends]), np.concatenate([b for _, b in ends])
        centre = (start[self.soma] + end[self.soma]) / 2
        self.seg_start, self.seg_end = (start - centre).astype("float32"), (end - centre).astype("float32")
        self.seg_diam = np.array([segment.diam for segment in self._segments], dtype="float32")

        self._electrode = h.IClamp(middle)
        self._electrode.delay, self._electrode.dur = 0.0, 1e12
        solver = h.CVode()
        solver.use_fast_imem(1)
        solver.cache_efficient(1)
        self._voltage = h.Vector().record(middle._ref_v)
        self._currents = [h.Vector().record(segment._ref_i_membrane_) for segment in self._segments]
        self._at_rest: Any = None
        self.reset()

    def reset(self) -> None:
        """Put the cell back to where it starts: `V_INIT` everywhere, every gate at rest, time zero."""
        h.celsius, h.dt = TEMPERATURE, DT
        self._electrode.amp = 0.0
        h.finitialize(V_INIT)
        self._num_sections = _count_sections()

    def rest(self) -> None:
        """Put the cell back to where it comes to rest, `SETTLE_MS` after `reset` without a current."""
        self.reset()
        if self._at_rest is None:
            for _ in range(round(SETTLE_MS / DT)):
                h.fadvance()
            self._at_rest = h.SaveState()
            self._at_rest.save()
        else:
            self._at_rest.restore()

    def run(self, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Go on under a current from the electrode.

        Parameters
        ----------
        current : np.ndarray, [num_samples]
            Into the soma's middle, in nA, at `DT`.

        Returns
        -------
        v_soma : np.ndarray, [num_samples]
            Somatic voltage in mV.
        currents : np.ndarray, float32 [num_segments, num_samples]
            Membrane currents in nA, capacitive and ionic, less the electrode's: they sum to zero.

        Raises
        ------
        RuntimeError
            A cell was made or removed in this process since `reset`.
        """
        if _count_sections() != self._num_sections:
            # NEURON would die of it.
            raise RuntimeError(f"Another cell was made or removed: call reset() of {self.name} first.")
        h.frecord_init()
        for amplitude in current.tolist():
            self._electrode.amp = amplitude
            h.fadvance()
        v_soma = self._voltage.as_numpy()[: len(current)].copy()
        currents = np.stack([vector.as_numpy()[: len(current)] for vector in self._currents])
        # NEURON counts what the electrode injects as current through the soma's membrane.
        currents[self.soma] -= currents.sum(axis=0)
        return v_soma, currents.astype("float32")


def _count_sections() -> int:
    return sum(1 for _ in h.allsec())


def _set_shape(target: Any, section: Section, *, max_segment_um: float | None) -> None:
    target.L, target.diam = section.length, section.diam
    if section.points:
        target.pt3dclear()
        for point in section.points:
            target.pt3dadd(*point)
    target.nseg = section.num_segments if max_segment_um is None else 1 + 2 * int(target.L / max_segment_um)
    target.Ra, target.cm = section.axial_resistivity, section.capacitance


def _set_membrane(target: Any, section: Section, *, cell: str) -> None:
    for mechanism, parameters in section.mechanisms.items():
        try:
            target.insert(mechanism)
        except ValueError as error:
            raise ValueError(f"{cell} needs the mechanism {mechanism}, which there is none of.") from error
        for name, value in parameters.items():
            for segment in target:
                # Values given for each segment of the file serve the nearest segments here.
                at = value[min(int(segment.x * len(value)), len(value) - 1)] if isinstance(value, list) else value
                try:
                    setattr(segment, f"{name}_{mechanism}", float(at))
                except (AttributeError, LookupError) as error:
                    raise ValueError(f"{cell}: the mechanism {mechanism} has no parameter {name}.") from error
    for ion, values in section.ions.items():
        _set_ion(target, ion, values)


def _set_ion(target: Any, ion: str, values: Mapping[str, float]) -> None:
    names = {"e": f"e{ion}", "i": f"{ion}i", "o": f"{ion}o"}
    for segment in target:
        for key, value in values.items():
            # Only where a mechanism of the section uses the ion, is there something to set.
            if hasattr(segment, names[key]):
                setattr(segment, names[key], value)
    # A concentration that a mechanism computes starts from the value that NEURON keeps for all cells.
    for key in ("i", "o"):
        start = f"{ion}{key}0_{ion}_ion"
        if key in values and hasattr(h, start):
            setattr(h, start, values[key])


def _shapes(model: CellModel, sections: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Points along each section, [num_points, 3] in um: the file's, or else NEURON's, put where the parent is."""
    by_name = {section.name: section for section in model.sections}
    shapes: dict[str, np.ndarray] = {}

    def shape(name: str) -> np.ndarray:
        if name not in shapes:
            section, target = by_name[name], sections[name]
            if section.points:
                shapes[name] = np.array(section.points)[:, :3]
            else:
                shapes[name] = np.array([[target.x3d(i), target.y3d(i), target.z3d(i)] for i in range(target.n3d())])
                if section.parent is not None:
                    joint = _along(shape(section.parent), np.array([section.parent_x]))[0]
                    shapes[name] += joint - shapes[name][-1 if section.child_x == 1 else 0]
        return shapes[name]

    for name in by_name:
        shape(name)
    return shapes


def _along(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Points at places between 0 and 1 of the length of a line, [num_places, 3]."""
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return np.column_stack([np.interp(places * arc[-1], arc, axis) for axis in points.T])


def _segment_ends(points: np.ndarray, num_segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and end points of a section's segments, each [num_segments, 3]."""
    at = _along(points, np.linspace(0.0, 1.0, num_segments + 1))
    return at[:-1], at[1:]
