"""Extracellular potentials of a neuron's membrane currents in a homogeneous medium."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from lfpykit import LineSourcePotential, PointSourcePotential

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.electrodes import Contacts

# Conductivity of cortical grey matter, S/m (Goto et al. 2010; the default of LFPy).
CONDUCTIVITY = 0.3
# Points on a contact's surface: with eight, the mean over a tetrode's wire is right within 1 %, unless a dendrite
# passes close by.
NUM_SURFACE_POINTS = 8


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
    source: str = "line",
) -> np.ndarray:
    """Potential at each point for a unit membrane current of each segment (LFPykit).

    Parameters
    ----------
    neuron : NeuronCurrents
        The neuron; its soma lies at the origin of its own coordinates.
    soma_position : np.ndarray, [3]
        Where its soma is put, in um.
    contact_positions : np.ndarray, [num_channels, 3]
        Points at which the potential is wanted, in um.
    rotation : np.ndarray, [3, 3], optional
        Rotation of the neuron about its soma.
    conductivity : float
        Of the medium, in S/m.
    source : {"line", "point", "soma_sphere"}
        What stands for a segment: a line, a point in its middle, or a line but for the soma, which is a sphere
        (outside a sphere the potential is that of a point, inside that at its surface).

    Returns
    -------
    np.ndarray, float32 [num_channels, num_segments]
        In uV per nA.

    Raises
    ------
    ValueError
        There is no such source.

    References
    ----------
    Holt & Koch 1999, J Comput Neurosci 6:169 (line source approximation).
    """
    if source not in ("line", "point", "soma_sphere"):
        raise ValueError(f"source must be 'line', 'point' or 'soma_sphere', not {source!r}.")
    turn = np.eye(3) if rotation is None else np.asarray(rotation)
    start = neuron.seg_start @ turn.T + soma_position
    end = neuron.seg_end @ turn.T + soma_position
    x, y, z = np.asarray(contact_positions, dtype=float).T
    model = PointSourcePotential if source == "point" else LineSourcePotential
    cell = _geometry(start, end, neuron.seg_diam)
    # nA, um and S/m give mV.
    field = 1000.0 * model(cell, x=x, y=y, z=z, sigma=conductivity).get_transformation_matrix()
    if source == "soma_sphere":
        soma = slice(neuron.soma, neuron.soma + 1)
        sphere = _geometry(start[soma], end[soma], neuron.seg_diam[soma])
        point = PointSourcePotential(sphere, x=x, y=y, z=z, sigma=conductivity)
        field[:, soma] = 1000.0 * point.get_transformation_matrix()
    return field.astype("float32")


def _geometry(start: np.ndarray, end: np.ndarray, diam: np.ndarray) -> SimpleNamespace:
    """What LFPykit reads of a CellGeometry, without its copies and checks: this runs per placement."""
    return SimpleNamespace(
        x=np.column_stack([start[:, 0], end[:, 0]]),
        y=np.column_stack([start[:, 1], end[:, 1]]),
        z=np.column_stack([start[:, 2], end[:, 2]]),
        d=np.asarray(diam),
        totnsegs=len(diam),
    )


def contact_field(
    neuron: NeuronCurrents,
    *,
    soma_position: np.ndarray,
    contacts: Contacts,
    rotation: np.ndarray | None = None,
    displacements: np.ndarray | None = None,
    conductivity: float = CONDUCTIVITY,
    source: str = "line",
    num_surface_points: int = NUM_SURFACE_POINTS,
) -> np.ndarray:
    """Potential of each contact, the mean over its surface, for a unit membrane current of each segment.

    Parameters
    ----------
    neuron : NeuronCurrents
        The neuron.
    soma_position : np.ndarray, [3]
        Where its soma is put, in um.
    contacts : Contacts
        Of the electrode.
    rotation : np.ndarray, [3, 3], optional
        Rotation of the neuron about its soma.
    displacements : np.ndarray, [num_displacements, 3], optional
        Offsets of the soma, in um; default none.
    conductivity, source
        See `lead_field`.
    num_surface_points : int
        Points on each contact that the mean is taken over.

    Returns
    -------
    np.ndarray, float32 [num_displacements, num_channels, num_segments]
        In uV per nA; without `displacements` [num_channels, num_segments].
    """
    offsets = np.zeros((1, 3)) if displacements is None else displacements
    points = contacts.surface_points(num_surface_points)
    # A displaced soma sees what a soma at rest sees of contacts displaced the other way.
    shifted = (points[None] - offsets[:, None, None]).reshape(-1, 3)
    field = lead_field(
        neuron,
        soma_position=soma_position,
        rotation=rotation,
        contact_positions=shifted,
        conductivity=conductivity,
        source=source,
    )
    field = field.reshape(len(offsets), len(contacts), points.shape[1], -1).mean(axis=2)
    return field[0] if displacements is None else field
