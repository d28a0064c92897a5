"""The sorters that are compared, each as its documentation says for a tetrode.

Four contacts tell little of where a cell is: what estimates drift along a probe is off everywhere. All else is the
sorter's own default.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import spikeinterface.sorters as ss

import spikeinterface_simsort  # noqa: F401  registers the sorter

# Names the Python of the environment that MountainSort4 needs, see `mountainsort4_worker`.
MOUNTAINSORT4_PYTHON = "MOUNTAINSORT4_PYTHON"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A sorter and its settings.

    Attributes
    ----------
    params : dict
        What differs from the sorter's defaults.
    reason : str
        Where that comes from.
    own_environment : bool
        Runs under another Python.
    """

    params: dict[str, Any] = field(default_factory=dict)
    reason: str = "defaults"
    own_environment: bool = False


_KILOSORT = (
    "MATLAB's Kilosort: one group of channels without drift correction; its folder is named by SpikeInterface's "
)
PEERS: dict[str, Peer] = {
    "simsort": Peer(),
    "kilosort4": Peer(
        params={"nblocks": 0, "do_CAR": False, "nearest_chans": 4},
        reason="Kilosort4's parameter page: no drift correction and no common average below some ten channels; it "
        "fails when it looks for more neighbours than there are channels",
    ),
    "mountainsort5": Peer(
        params={"scheme": "2", "whitening_seed": 0},
        reason="its page advises scheme 2 for recordings of up to an hour; its radii span a tetrode as they are; "
        "a seed, as its score else changes by 0.02 from run to run",
    ),
    "mountainsort4": Peer(
        params={"adjacency_radius": -1, "detect_sign": -1, "filter": True, "whiten": True},
        reason="its page: a radius of -1 takes all channels of a tetrode as neighbours",
        own_environment=True,
    ),
    "lupin": Peer(params={"apply_motion_correction": False}, reason="defaults, drift correction off (as it is)"),
    "spykingcircus2": Peer(params={"apply_motion_correction": False}, reason="drift correction needs many channels"),
    "tridesclous2": Peer(params={"apply_motion_correction": False}, reason="defaults, drift correction off (as it is)"),
    "herdingspikes": Peer(params={"common_reference": "none"}, reason="no common reference on four channels"),
    "simple": Peer(reason="defaults"),
    "kilosort": Peer(params={"car": False}, reason=_KILOSORT + "KILOSORT_PATH"),
    "kilosort2": Peer(params={"car": False}, reason=_KILOSORT + "KILOSORT2_PATH"),
    "kilosort2_5": Peer(params={"car": False, "do_correction": False}, reason=_KILOSORT + "KILOSORT2_5_PATH"),
    "kilosort3": Peer(params={"car": False, "do_correction": False}, reason=_KILOSORT + "KILOSORT3_PATH"),
    # Registers itself with SpikeInterface where it is installed.
    "dartsort": Peer(reason="defaults"),
}

ORACLES = ("oracle-identity", "oracle-matching")


def missing(sorter: str) -> str | None:
    """Why a sorter cannot run here.

    Parameters
    ----------
    sorter : str
        Key of `PEERS`.

    Returns
    -------
    str or None
        None if it can.

    Raises
    ------
    KeyError
        The sorter is not among the peers.
    """
    if PEERS[sorter].own_environment:
        python = os.environ.get(MOUNTAINSORT4_PYTHON)
        if python is None:
            return f"{MOUNTAINSORT4_PYTHON} does not name the Python of its environment"
        return None if Path(python).exists() else f"{MOUNTAINSORT4_PYTHON}: there is no {python}"
    if sorter not in ss.available_sorters():
        return "SpikeInterface does not know it here"
    return None if ss.sorter_dict[sorter].is_installed() else "not installed"


def checked_params(sorter: str) -> dict[str, Any]:
    """Settings of a sorter, held against the names it has in the version at hand.

    Parameters
    ----------
    sorter : str
        Key of `PEERS` that runs in this environment.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        The sorter knows no such parameter: its new version calls it something else.
    """
    params = PEERS[sorter].params
    unknown = sorted(set(params) - set(ss.get_default_sorter_params(sorter)))
    if unknown:
        raise ValueError(f"{sorter} has no parameter {', '.join(unknown)}: mend benchmarks/peers.py for its version.")
    return params
