"""Reduced cells: ball-and-stick and branching neurons, and the membranes they are given.

Procedural trees with the minimal cortical currents of Pospischil et al. 2008; `reduced_simulation` simulates them.

References
----------
Pospischil et al. 2008, Biol Cybern 99:427 (minimal regular- and fast-spiking models).
Kole et al. 2008, Nat Neurosci 11:178 (sodium of the initial segment); Rall 1959, Exp Neurol 1:491 (trees).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import reverse_cuthill_mckee


@dataclass(frozen=True, kw_only=True)
class Membrane:
    """Membrane of a class of cells: somatic densities in mS/cm2, voltages in mV.

    `v_t` shifts the gates of sodium and delayed rectifier and `temperature_factor` speeds them up; `tau_max` (ms)
    scales the M current's time constant. `dendrite`, `axon` and `initial_segment` are the densities of sodium and
    delayed rectifier there relative to the soma's; in the last two, `v_t` is lower by `axon_shift`.
    """

    g_na: float
    g_kd: float
    g_m: float
    g_leak: float
    e_leak: float
    v_t: float
    tau_max: float
    temperature_factor: float
    dendrite: float
    axon: float = 1.0
    initial_segment: float = 5.0
    axon_shift: float = 3.0


# Reversals, V_T and tau_max are those of the fits of Pospischil et al. 2008. Densities and temperature factors are
# ours. The leak gives the usual membrane time constants of 20 and 10 ms. A soma that charges dendrites and has an
# initial segment needs more sodium, rectifier and M current than their single compartment (56 to 58, 4 to 6 and 0.08
# mS/cm2): with less it fires at its limit from rheobase on, or stays depolarised.
REGULAR_SPIKING = Membrane(
    g_na=80.0, g_kd=25.0, g_m=1.0, g_leak=0.05, e_leak=-70.3, v_t=-56.2, tau_max=608.0,
    temperature_factor=1.2, dendrite=0.1,
)  # fmt: skip
FAST_SPIKING = Membrane(
    g_na=100.0, g_kd=60.0, g_m=1.0, g_leak=0.1, e_leak=-70.4, v_t=-57.9, tau_max=502.0,
    temperature_factor=2.0, dendrite=0.0,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReducedCell:
    """A cell cut into cylinders.

    Attributes
    ----------
    name : str
        Name of the cell.
    parent : np.ndarray, int [num_segments]
        The segment at whose far end each one begins; -1 for the soma.
    start, end : np.ndarray, [num_segments, 3]
        End points in um, the soma's middle at the origin.
    diam : np.ndarray, [num_segments]
        Diameters in um.
    g_na, g_kd, g_m, g_leak : np.ndarray, [num_segments]
        Densities in mS/cm2.
    v_t : np.ndarray, [num_segments]
        Voltage that the gates are relative to, in mV.
    membrane : Membrane
        Reversal of the leak and speed of the gates.
    """

    name: str
    parent: np.ndarray
    start: np.ndarray
    end: np.ndarray
    diam: np.ndarray
    g_na: np.ndarray
    g_kd: np.ndarray
    g_m: np.ndarray
    g_leak: np.ndarray
    v_t: np.ndarray
    membrane: Membrane

    @property
    def soma(self) -> int:
        """Index of the somatic segment."""
        return int(np.flatnonzero(self.parent < 0)[0])

    @property
    def area(self) -> np.ndarray:
        """Lateral area of each segment, in um2 [num_segments]."""
        return np.pi * self.diam * np.linalg.norm(self.end - self.start, axis=1)


class _Tree:
    """Grows the segments of a cell, soma first."""

    def __init__(self, *, soma_diam: float) -> None:
        half = np.array([0.0, soma_diam / 2, 0.0])
        self.soma_diam = soma_diam
        self.parent, self.start, self.end, self.diam, self.region = [-1], [-half], [half], [soma_diam], ["soma"]
        self.path = [0.0]

    def cable(
        self, *, parent: int, direction: np.ndarray, length: float, diams: tuple[float, float], region: str
    ) -> int:
        """Add an unbranched cable that tapers from one diameter to the other; return its last segment."""
        direction = direction / np.linalg.norm(direction)
        position = direction * self.soma_diam / 2 if parent == 0 else self.end[parent]
        # Short where currents are large and the electrode may be close.
        longest = 16.0 if region == "initial" else 30.0 if self.path[parent] < 100.0 else 75.0
        pieces = int(np.ceil(length / longest))
        for fraction in (np.arange(pieces) + 0.5) / pieces:
            self.parent.append(parent)
            self.start.append(position)
            position = position + direction * length / pieces
            self.end.append(position)
            self.diam.append(diams[0] + fraction * (diams[1] - diams[0]))
            self.path.append(self.path[parent] + length / pieces)
            self.region.append(region)
            parent = len(self.parent) - 1
        return parent

    def arbour(
        self, *, rng: np.random.Generator, parent: int, direction: np.ndarray, lengths: Sequence[float], diam: float
    ) -> None:
        """Add a dendrite that forks after each of `lengths` but the last, thinning by Rall's 3/2 power law."""
        length, diams = lengths[0] * rng.uniform(0.8, 1.2), (diam, 0.85 * diam)
        tip = self.cable(parent=parent, direction=direction, length=length, diams=diams, region="dendrite")
        if len(lengths) > 1:
            sideways = rng.uniform(0.4, 0.8) * _unit(np.cross(direction, rng.normal(size=3)))
            for side in (sideways, -sideways):
                onward, thinner = _unit(direction + side), max(diams[1] * 2 ** (-2 / 3), 0.6)
                self.arbour(rng=rng, parent=tip, direction=onward, lengths=lengths[1:], diam=thinner)

    def axon(self, *, rng: np.random.Generator, direction: np.ndarray) -> None:
        """Add the initial segment and a stretch of axon."""
        diam = 0.09 * self.soma_diam * rng.uniform(0.85, 1.15)
        length, diams = rng.uniform(28, 44), (1.3 * diam, diam)
        tip = self.cable(parent=0, direction=direction, length=length, diams=diams, region="initial")
        length, diams = rng.uniform(200, 320), (0.8 * diam, 0.6 * diam)
        bend = direction + 0.3 * rng.normal(size=3)
        self.cable(parent=tip, direction=bend, length=length, diams=diams, region="axon")

    def cell(self, *, name: str, membrane: Membrane) -> ReducedCell:
        """Finish: give each region its densities, and number the segments so that neighbours stay close."""
        region, parent = np.array(self.region), np.array(self.parent)
        links = coo_array((np.ones(len(parent) - 1), (np.arange(1, len(parent)), parent[1:])), shape=(len(parent),) * 2)
        # A small bandwidth is what makes the implicit step cheap.
        order = reverse_cuthill_mckee((links + links.T).tocsr(), symmetric_mode=True)
        rank = np.append(np.argsort(order), -1)
        soma, initial, axon, dendrite = (region == r for r in ("soma", "initial", "axon", "dendrite"))
        active = soma + initial * membrane.initial_segment + axon * membrane.axon + dendrite * membrane.dendrite
        perisomatic = 1.0 * (soma | initial)
        factors = {"g_na": active, "g_kd": active, "g_m": perisomatic, "g_leak": np.ones(len(region))}
        return ReducedCell(
            name=name,
            parent=rank[parent[order]],
            start=np.array(self.start)[order],
            end=np.array(self.end)[order],
            diam=np.array(self.diam)[order],
            v_t=(membrane.v_t - (initial | axon) * membrane.axon_shift)[order],
            membrane=membrane,
            **{density: (factor * getattr(membrane, density))[order] for density, factor in factors.items()},
        )


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def make_cell(*, shape: str, firing: str, name: str, rng: np.random.Generator) -> ReducedCell:
    """Grow one cell with random sizes and densities.

    Parameters
    ----------
    shape : {"ball_and_stick", "pyramidal", "stellate", "bipolar"}
        Kind of tree: one thick cable; an apical dendrite with tuft and basal dendrites; dendrites in all
        directions; two opposite dendrites.
    firing : {"rs", "fs"}
        Regular or fast spiking.
    name : str
        Name of the cell.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    ReducedCell
        With 30 to 110 segments, of at most 30 um near the soma and 75 um far from it.
    """
    somata = {"ball_and_stick": 20.0, "pyramidal": 18.0, "stellate": 16.0, "bipolar": 16.0}
    if shape not in somata or firing not in ("rs", "fs"):
        raise ValueError(f"There is no cell {shape!r} {firing!r}: take one of {sorted(somata)}, and rs or fs.")
    base = {"rs": REGULAR_SPIKING, "fs": FAST_SPIKING}[firing]
    varied = ("g_na", "g_kd", "g_m", "temperature_factor")
    membrane = replace(base, **{key: getattr(base, key) * rng.uniform(0.85, 1.15) for key in varied})
    up, size = np.array([0.0, 1.0, 0.0]), rng.uniform(0.85, 1.2)
    tree = _Tree(soma_diam=size * somata[shape])
    tree.axon(rng=rng, direction=_unit(-up + 0.2 * rng.normal(size=3)))
    if shape == "ball_and_stick":
        length, diams = rng.uniform(650, 900), (size * 6.0, size * 3.0)
        tree.cable(parent=0, direction=up, length=length, diams=diams, region="dendrite")
    elif shape == "pyramidal":
        length, diam = rng.uniform(200, 450), size * rng.uniform(4.0, 5.5)
        trunk = tree.cable(parent=0, direction=up, length=length, diams=(diam, 0.6 * diam), region="dendrite")
        tree.arbour(rng=rng, parent=trunk, direction=up, lengths=(60, 130, 110), diam=0.5 * diam)
        for angle in np.pi / 2 * (np.arange(4) + rng.uniform()):
            outward = _unit(np.array([np.cos(angle), rng.uniform(-0.9, -0.1), np.sin(angle)]))
            tree.arbour(rng=rng, parent=0, direction=outward, lengths=(40, 120), diam=size * rng.uniform(1.8, 2.6))
    elif shape == "stellate":
        # The corners of a tetrahedron: dendrites on all sides.
        for corner in np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]) / np.sqrt(3):
            outward = _unit(corner + 0.25 * rng.normal(size=3))
            tree.arbour(rng=rng, parent=0, direction=outward, lengths=(40, 70, 80), diam=size * rng.uniform(2.0, 3.0))
    else:
        for direction in (up, -up):
            outward = _unit(direction + 0.2 * rng.normal(size=3))
            tree.arbour(rng=rng, parent=0, direction=outward, lengths=(70, 180), diam=size * rng.uniform(3.0, 4.0))
    return tree.cell(name=name, membrane=membrane)
