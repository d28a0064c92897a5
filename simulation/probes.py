"""Contacts out of probes of probeinterface, and back."""

from __future__ import annotations

import numpy as np
from probeinterface import Probe

from spikeinterface_simsort.simulation.electrodes import Contacts


def contacts_of_probe(probe: Probe) -> Contacts:
    """Contacts of any probe of probeinterface, centred on the origin.

    Parameters
    ----------
    probe : probeinterface.Probe
        In two or three dimensions. Contacts that are no circles count as circles of the same area, and all of a
        probe as of their mean area.

    Returns
    -------
    Contacts
        In the order of the device channels where the probe is wired, of its contacts where it is not.

    Raises
    ------
    ValueError
        The probe has no contacts.
    """
    if probe.contact_positions is None or not len(probe.contact_positions):
        raise ValueError("The probe has no contacts.")
    unit = {"um": 1.0, "mm": 1e3, "m": 1e6}[probe.si_units]
    positions = np.asarray(probe.contact_positions, dtype=float) * unit
    axes = np.asarray(probe.contact_plane_axes, dtype=float)
    if probe.ndim == 2:
        positions = np.column_stack([positions, np.zeros(len(positions))])
        normals = np.tile([0.0, 0.0, 1.0], (len(positions), 1))
    else:
        normals = np.cross(axes[:, 0], axes[:, 1])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    area = np.mean(
        [_area(shape, size) for shape, size in zip(probe.contact_shapes, probe.contact_shape_params, strict=True)]
    )
    wiring = probe.device_channel_indices
    if wiring is not None:
        wired = np.flatnonzero(np.asarray(wiring) >= 0)
        if not len(wired):
            raise ValueError("The probe has no contacts that are wired.")
        order = wired[np.argsort(np.asarray(wiring)[wired], kind="stable")]
        positions, normals = positions[order], normals[order]
    return Contacts(positions - positions.mean(axis=0), float(np.sqrt(area / np.pi)) * unit, normals)


def _area(shape: str, size: dict[str, float]) -> float:
    if shape == "circle":
        return np.pi * size["radius"] ** 2
    if shape == "square":
        return size["width"] ** 2
    return size["width"] * size["height"]


def probe_of_contacts(contacts: Contacts) -> Probe:
    """Make a probe of probeinterface out of contacts.

    Parameters
    ----------
    contacts : Contacts
        Where they all lie in the x-y plane, the probe has two dimensions, else three.

    Returns
    -------
    probeinterface.Probe
        Wired in order.
    """
    in_plane = np.allclose(contacts.positions[:, 2], contacts.positions[0, 2])
    flat = in_plane and np.allclose(np.abs(contacts.normals[:, 2]), 1.0)
    probe = Probe(ndim=2 if flat else 3, si_units="um")
    positions = contacts.positions[:, :2] if flat else contacts.positions
    # A radius of zero cannot be drawn.
    radius = contacts.radius_um or 1.0
    axes = None
    if not flat:
        ends = contacts.normals
        first = np.cross(ends, np.eye(3)[np.abs(ends).argmin(axis=1)])
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        axes = np.stack([first, np.cross(ends, first)], axis=1)
    probe.set_contacts(positions=positions, shapes="circle", shape_params={"radius": radius}, plane_axes=axes)
    probe.set_device_channel_indices(np.arange(len(contacts)))
    return probe
