"""Neuron banks: spike-triggered membrane currents of simulated neurons, on disk and in memory.

A bank is what makes ground truth cheap: each neuron is simulated once, and its currents then
serve any number of placements, rotations, probes and spike trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class NeuronCurrents:
    """Spike-triggered transmembrane currents of one neuron.

    The membrane current around spike `s`, in nA, is ``coef[s] @ basis * scale``
    (``num_segments x num_basis_samples``); the soma sits at the origin.

    Attributes
    ----------
    name : str
        Name of the cell, ``<ME-type>_<clone>`` for cells of the NMC portal.
    seg_start, seg_end : np.ndarray, [num_segments, 3]
        End points of each segment, in um.
    seg_diam : np.ndarray, [num_segments]
        Diameter of each segment, in um.
    basis : np.ndarray, [num_components, num_basis_samples]
        Temporal basis shared by all segments and spikes.
    coef : np.ndarray, [num_spikes, num_segments, num_components]
        Coefficients of the basis, to be multiplied by `scale`.
    scale : float
        Unit of `coef`, in nA.
    isi : np.ndarray, [num_spikes]
        Interval before each spike, in ms; very large for the first spike of a run.
    v_peak : np.ndarray, [num_spikes]
        Peak of the somatic voltage, in mV.
    dt : float
        Time step of the basis, in ms.
    peak_index : int
        Sample of the basis at which the somatic voltage peaks.
    soma : int
        Index of the somatic segment.
    rheobase : float
        Rheobase of the cell, in nA.
    """

    name: str
    seg_start: np.ndarray
    seg_end: np.ndarray
    seg_diam: np.ndarray
    basis: np.ndarray
    coef: np.ndarray
    scale: float
    isi: np.ndarray
    v_peak: np.ndarray
    dt: float
    peak_index: int
    soma: int
    rheobase: float

    @property
    def num_spikes(self) -> int:
        """Number of simulated spikes to choose a waveform from."""
        return self.coef.shape[0]

    @cached_property
    def spike_currents(self) -> np.ndarray:
        """Coefficients of `basis` in nA, float32 [num_spikes, num_segments, num_components]."""
        return self.coef.astype("float32") * np.float32(self.scale)

    @cached_property
    def mean_currents(self) -> np.ndarray:
        """Membrane current around the mean spike, in nA [num_segments, num_basis_samples]."""
        return self.spike_currents.mean(axis=0) @ self.basis

    def membrane_currents(self, spike: int) -> np.ndarray:
        """Membrane current of every segment around one spike, in nA [num_segments, num_basis_samples]."""
        return self.spike_currents[spike] @ self.basis


_FIELDS = tuple(f.name for f in fields(NeuronCurrents))


def _from_arrays(arrays: dict[str, np.ndarray], *, source: str) -> NeuronCurrents:
    missing = [name for name in _FIELDS if name not in arrays]
    if missing:
        raise ValueError(f"{source} is not a neuron bank entry: it lacks {missing}.")
    return NeuronCurrents(
        name=str(arrays["name"]),
        scale=float(arrays["scale"]),
        dt=float(arrays["dt"]),
        peak_index=int(arrays["peak_index"]),
        soma=int(arrays["soma"]),
        rheobase=float(arrays["rheobase"]),
        **{name: arrays[name] for name in ("seg_start", "seg_end", "seg_diam", "basis", "coef", "isi", "v_peak")},
    )


def load_bank(
    path: str | Path,
    *,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
) -> list[NeuronCurrents]:
    """Read a neuron bank.

    Parameters
    ----------
    path : str or Path
        A folder of npz files with one neuron each, or one npz file that holds several neurons
        as groups (``<name>/<field>``), as `save_bank` writes it.
    include : iterable of str, optional
        Keep only neurons whose name starts with one of these prefixes (``"L6"``); default all.
    exclude : iterable of str
        Leave out neurons whose name starts with one of these prefixes.

    Returns
    -------
    list of NeuronCurrents
        Sorted by name.

    Raises
    ------
    FileNotFoundError
        There is nothing at `path`.
    ValueError
        The files are not a neuron bank, or no neuron is left.
    """
    path = Path(path)
    if path.is_dir():
        neurons = []
        for file in sorted(path.glob("*.npz")):
            with np.load(file, allow_pickle=False) as arrays:
                neurons.append(_from_arrays(dict(arrays), source=str(file)))
    elif path.is_file():
        groups: dict[str, dict[str, np.ndarray]] = {}
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                group, _, field = key.rpartition("/")
                groups.setdefault(group, {})[field] = arrays[key]
        neurons = [_from_arrays(groups[g], source=f"{path}:{g}") for g in sorted(groups)]
    else:
        raise FileNotFoundError(f"There is no neuron bank at {path}: give a folder of npz files or one npz file.")

    prefixes = None if include is None else tuple(include)
    dropped = tuple(exclude)
    neurons = [
        neuron
        for neuron in neurons
        if (prefixes is None or neuron.name.startswith(prefixes)) and not neuron.name.startswith(dropped or ("\0",))
    ]
    if not neurons:
        raise ValueError(f"The neuron bank at {path} holds no neuron that is asked for (include={prefixes}).")
    return neurons


def save_neuron(path: str | Path, neuron: NeuronCurrents, **more: float | str) -> None:
    """Write one neuron as an entry of a bank that is a folder.

    Parameters
    ----------
    path : str or Path
        The npz file to write; it appears whole or not at all.
    neuron : NeuronCurrents
        The neuron.
    **more : float or str
        How it was made; `load_bank` passes over it.
    """
    path = Path(path)
    arrays = {field: np.asarray(getattr(neuron, field)) for field in _FIELDS}
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        arrays |= {key: np.asarray(value) for key, value in more.items()}
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    partial.replace(path)


def save_bank(path: str | Path, neurons: Sequence[NeuronCurrents]) -> None:
    """Write neurons as groups of one compressed npz file.

    Parameters
    ----------
    path : str or Path
        The npz file to write; an existing one is replaced whole or not at all.
    neurons : sequence of NeuronCurrents
        Neurons with distinct names.
    """
    path = Path(path)
    names = [neuron.name for neuron in neurons]
    if len(set(names)) != len(names):
        raise ValueError("The neurons of a bank need distinct names.")
    arrays = {f"{neuron.name}/{field}": np.asarray(getattr(neuron, field)) for neuron in neurons for field in _FIELDS}
    partial = path.with_name(path.name + ".partial.npz")
    np.savez_compressed(partial, **arrays)  # pyright: ignore[reportArgumentType]
    partial.replace(path)
