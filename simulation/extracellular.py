"""Extracellular potentials of a neuron's membrane currents in a homogeneous medium."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from lfpykit import LineSourcePotential

from spikeinterface_simsort.simulation.bank import NeuronCurrents

# Conductivity of cortical grey matter, S/m (Goto et al. 2010; the default of LFPy).
CONDUCTIVITY = 0.3


def tetrode_positions(*, spacing_um: float = 20.0, layout: str = "square") -> np.ndarray:
    """Contact positions of a tetrode centred on the origin.

    Parameters
    ----------
    spacing_um : float
        Distance between neighbouring contacts, in um.
    layout : {"square", "diamond"}
        The four contacts as a square with upright sides, or standing on a corner.

    Returns
    -------
    np.ndarray, [4, 3]
        Positions in um; the contacts lie in the x-y plane.
    """
    half = spacing_um / 2
    if layout == "square":
        plane = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    elif layout == "diamond":
        radius = spacing_um / np.sqrt(2)
        plane = np.array([[-radius, 0.0], [0.0, -radius], [radius, 0.0], [0.0, radius]])
    else:
        raise ValueError(f"layout must be 'square' or 'diamond', not {layout!r}.")
    return np.column_stack([plane, np.zeros(4)])


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Draw a rotation matrix [3, 3] uniformly from all rotations (QR of a Gaussian matrix)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] *= -1
    return q


def lead_field(
    neuron: NeuronCurrents,
    *,
    soma_position: np.ndarray,
    contact_positions: np.ndarray,
    rotation: np.ndarray | None = None,
    conductivity: float = CONDUCTIVITY,
) -> np.ndarray:
    """Potential at each contact for a unit membrane current of each segment (line sources, LFPykit).

    Parameters
    ----------
    neuron : NeuronCurrents
        The neuron; its soma lies at the origin of its own coordinates.
    soma_position : np.ndarray, [3]
        Where its soma is put, in um.
    contact_positions : np.ndarray, [num_channels, 3]
        Contacts, in um.
    rotation : np.ndarray, [3, 3], optional
        Rotation of the neuron about its soma.
    conductivity : float
        Of the medium, in S/m.

    Returns
    -------
    np.ndarray, [num_channels, num_segments]
        In uV per nA.

    References
    ----------
    Holt & Koch 1999, J Comput Neurosci 6:169 (line source approximation).
    """
    turn = np.eye(3) if rotation is None else np.asarray(rotation)
    start = neuron.seg_start @ turn.T + soma_position
    end = neuron.seg_end @ turn.T + soma_position
    # What LFPykit reads of a CellGeometry, without its copies and checks: this runs per placement.
    cell = SimpleNamespace(
        x=np.column_stack([start[:, 0], end[:, 0]]),
        y=np.column_stack([start[:, 1], end[:, 1]]),
        z=np.column_stack([start[:, 2], end[:, 2]]),
        d=np.asarray(neuron.seg_diam),
        totnsegs=len(neuron.seg_diam),
    )
    x, y, z = np.asarray(contact_positions, dtype=float).T
    model = LineSourcePotential(cell, x=x, y=y, z=z, sigma=conductivity)
    # nA, um and S/m give mV.
    return (1000.0 * model.get_transformation_matrix()).astype("float32")
