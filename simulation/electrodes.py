"""Where an electrode's contacts are, and how large: tetrodes, stereotrodes, wires, linear probes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Of a wire of 12.5 um, as tetrodes are twisted from.
TETRODE_RADIUS_UM = 6.0
LAYOUTS = ("square", "diamond", "stereotrode", "single", "linear")


@dataclass(frozen=True)
class Contacts:
    """Contacts of an electrode: flat discs.

    Attributes
    ----------
    positions : np.ndarray, [num_channels, 3]
        Centres in um.
    radius_um : float
        Of each disc; 0 for points.
    normals : np.ndarray, [num_channels, 3]
        Unit vectors that stand upright on the discs.
    """

    positions: np.ndarray
    radius_um: float
    normals: np.ndarray

    def __post_init__(self) -> None:
        if self.positions.ndim != 2 or self.positions.shape[1] != 3 or not len(self.positions):
            raise ValueError(f"Contacts need positions [num_channels, 3], not {self.positions.shape}.")
        if self.normals.shape != self.positions.shape:
            raise ValueError("Contacts need one normal for each position.")
        if not 0.0 <= self.radius_um < np.inf:
            raise ValueError(f"radius_um must be 0 or more, not {self.radius_um}.")

    def __len__(self) -> int:
        return len(self.positions)

    def surface_points(self, num_points: int) -> np.ndarray:
        """Spread points evenly over each disc (Vogel's spiral).

        Parameters
        ----------
        num_points : int
            On each disc; contacts without a radius have one.

        Returns
        -------
        np.ndarray, [num_channels, num_points, 3]
            In um.

        References
        ----------
        Vogel 1979, Math Biosci 44:179.
        """
        if self.radius_um == 0 or num_points == 1:
            return self.positions[:, None]
        step = np.arange(num_points)
        distance = self.radius_um * np.sqrt((step + 0.5) / num_points)
        angle = step * np.pi * (3.0 - np.sqrt(5.0))
        plane = distance[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        # The middle of a few points of a spiral lies beside the centre, which costs percents near a soma.
        plane -= plane.mean(axis=0)
        # Two directions in each disc: any that stand upright on the normal and on each other.
        least = np.eye(3)[np.abs(self.normals).argmin(axis=1)]
        first = np.cross(self.normals, least)
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second = np.cross(self.normals, first)
        along = plane[None, :, :1] * first[:, None]
        across = plane[None, :, 1:] * second[:, None]
        return self.positions[:, None] + along + across


def make_contacts(
    *, layout: str = "square", spacing_um: float = 20.0, num_channels: int = 16, radius_um: float = TETRODE_RADIUS_UM
) -> Contacts:
    """Contacts of a usual electrode, centred on the origin, in the x-y plane.

    Parameters
    ----------
    layout : {"square", "diamond", "stereotrode", "single", "linear"}
        A tetrode with upright sides or standing on a corner, two wires, one wire, or a row along y.
    spacing_um : float
        Distance between neighbours, in um.
    num_channels : int
        Of a linear probe; the other layouts have their own number.
    radius_um : float
        Of the contacts.

    Returns
    -------
    Contacts

    Raises
    ------
    ValueError
        There is no such layout, or a linear probe has no channel.
    """
    half = spacing_um / 2
    if layout == "square":
        plane = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    elif layout == "diamond":
        corner = spacing_um / np.sqrt(2)
        plane = np.array([[-corner, 0.0], [0.0, -corner], [corner, 0.0], [0.0, corner]])
    elif layout == "stereotrode":
        plane = np.array([[-half, 0.0], [half, 0.0]])
    elif layout == "single":
        plane = np.zeros((1, 2))
    elif layout == "linear":
        if num_channels < 1:
            raise ValueError(f"A linear probe has 1 channel or more, not {num_channels}.")
        row = (np.arange(num_channels) - (num_channels - 1) / 2) * spacing_um
        plane = np.column_stack([np.zeros(num_channels), row])
    else:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}.")
    positions = np.column_stack([plane, np.zeros(len(plane))])
    return Contacts(positions, radius_um, np.tile([0.0, 0.0, 1.0], (len(plane), 1)))
