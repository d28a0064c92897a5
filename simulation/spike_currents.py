"""From a simulated neuron's voltage and currents to an entry of a neuron bank.

Finds spikes, cuts the membrane currents around those that stand alone, and compresses them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikeinterface_simsort.simulation.bank import NeuronCurrents

# Time step of every bank, in ms.
DT = 0.025
FIRST_SPIKE_ISI = 2.5e7  # stands for "no spike before", as in every bank
NUM_BASIS_SAMPLES, PEAK_INDEX = 320, 120
NUM_AFTER = NUM_BASIS_SAMPLES - PEAK_INDEX
# A window holds one spike only: trials add the others themselves.
MIN_BEFORE_MS, MIN_AFTER_MS = 4.0, 6.0


def spike_samples(*, v_soma: np.ndarray, threshold: float = -20.0) -> np.ndarray:
    """Find the samples at which the somatic voltage `v_soma` [num_samples] (mV) peaks, int [num_spikes]."""
    above = np.concatenate([[False], v_soma > threshold, [False]])
    edges = np.flatnonzero(np.diff(above.astype(int))).reshape(-1, 2)
    # A voltage that stays up is no spike.
    edges = edges[edges[:, 1] < len(v_soma)]
    return np.array([first + int(np.argmax(v_soma[first:last])) for first, last in edges], dtype=int)


@dataclass(frozen=True)
class SpikeWindow:
    """Membrane currents around one spike.

    Attributes
    ----------
    isi : float
        Interval before the spike, in ms; `FIRST_SPIKE_ISI` where none came before.
    v_peak : float
        Peak of the somatic voltage, in mV.
    currents : np.ndarray, float32 [num_segments, NUM_BASIS_SAMPLES]
        In nA, the peak at `PEAK_INDEX`.
    """

    isi: float
    v_peak: float
    currents: np.ndarray


def lone_spikes(peaks: np.ndarray, *, num_samples: int, last_peak: float = -np.inf) -> np.ndarray:
    """Tell which spikes have a window of their own inside the run.

    Parameters
    ----------
    peaks : np.ndarray, int [num_spikes]
        Samples of the voltage's peaks, increasing.
    num_samples : int
        Length of the run.
    last_peak : float
        Sample of the last peak before the run: 0 or less.

    Returns
    -------
    np.ndarray, bool [num_spikes]
    """
    before, after = np.diff(peaks, prepend=last_peak) * DT, np.diff(peaks, append=np.inf) * DT
    inside = (peaks >= PEAK_INDEX) & (peaks + NUM_AFTER <= num_samples)
    return (before > MIN_BEFORE_MS) & (after > MIN_AFTER_MS) & inside


def cut_windows(*, v_soma: np.ndarray, currents: np.ndarray, last_peak: float = -np.inf) -> list[SpikeWindow]:
    """Cut the currents around each spike that stands alone.

    Parameters
    ----------
    v_soma : np.ndarray, [num_samples]
        Somatic voltage, in mV.
    currents : np.ndarray, float32 [num_segments, num_samples]
        Membrane currents, in nA.
    last_peak : float
        Sample of the last peak before the run: 0 or less.

    Returns
    -------
    list of SpikeWindow
    """
    peaks = spike_samples(v_soma=v_soma)
    intervals = np.minimum(np.diff(peaks, prepend=last_peak) * DT, FIRST_SPIKE_ISI)
    alone = lone_spikes(peaks, num_samples=len(v_soma), last_peak=last_peak)
    return [
        SpikeWindow(float(isi), float(v_soma[peak]), currents[:, peak - PEAK_INDEX : peak + NUM_AFTER].copy())
        for isi, peak in zip(intervals[alone], peaks[alone], strict=True)
    ]


def choose_windows(windows: list[SpikeWindow], *, num_spikes: int, most_first: int = 3) -> list[SpikeWindow]:
    """Choose spikes that cover the intervals evenly in rank, the shortest and the longest included.

    Parameters
    ----------
    windows : list of SpikeWindow
        What there is.
    num_spikes : int
        Most to keep.
    most_first : int
        Most to consider among those that no spike came before: the intervals between spikes are what matters.

    Returns
    -------
    list of SpikeWindow
        By increasing interval.
    """
    found = sorted(windows, key=lambda window: window.isi)
    found = found[: sum(window.isi < FIRST_SPIKE_ISI for window in found) + most_first]
    chosen = np.unique(np.linspace(0, len(found) - 1, num_spikes).round().astype(int)) if found else []
    return [found[i] for i in chosen]


def compress_windows(
    *, windows: np.ndarray, lost: float = 1e-3, max_components: int = 16
) -> tuple[np.ndarray, float, np.ndarray]:
    """Write windows of membrane current as coefficients of a few temporal components (SVD).

    Parameters
    ----------
    windows : np.ndarray, [num_spikes, num_segments, num_basis_samples]
        In nA.
    lost : float
        Share of the energy that may be left out.
    max_components : int
        Most components to keep.

    Returns
    -------
    coef : np.ndarray, float16 [num_spikes, num_segments, num_components]
        Between -1 and 1.
    scale : float
        Unit of `coef`, in nA.
    basis : np.ndarray, float32 [num_components, num_basis_samples]
    """
    left, strength, right = np.linalg.svd(windows.reshape(-1, windows.shape[-1]), full_matrices=False)
    energy = np.cumsum(strength**2)
    keep = min(int(np.argmax(energy >= (1.0 - lost) * energy[-1])) + 1, max_components)
    coef = (left * strength)[:, :keep].reshape(*windows.shape[:2], keep)
    scale = float(np.abs(coef).max())
    # Whole steps of 1/2048 pack well and are exact in float16. Those rounded up are chosen, the largest remainders
    # first, so that the sum over segments stays what it is: zero, for a neuron.
    steps = coef / scale * 2048
    whole = np.floor(steps)
    rounded_up = np.round(steps.sum(axis=1, keepdims=True)) - whole.sum(axis=1, keepdims=True)
    place = np.argsort(np.argsort(whole - steps, axis=1), axis=1)
    coef = ((whole + (place < rounded_up)) / 2048).astype("float16")
    # The basis, too, has only the bits that matter.
    return coef, scale, right[:keep].astype("float16").astype("float32")


def bank_entry(
    *,
    windows: list[SpikeWindow],
    name: str,
    seg_start: np.ndarray,
    seg_end: np.ndarray,
    seg_diam: np.ndarray,
    soma: int,
    rheobase: float,
    lost: float = 1e-3,
    max_components: int = 16,
) -> tuple[NeuronCurrents, float]:
    """Make a neuron of a bank out of the windows of its spikes.

    Parameters
    ----------
    windows : list of SpikeWindow
        At least one.
    name : str
        Of the cell.
    seg_start, seg_end, seg_diam, soma, rheobase
        See `NeuronCurrents`.
    lost, max_components
        See `compress_windows`.

    Returns
    -------
    neuron : NeuronCurrents
        Its windows end at zero, so that spikes can be added up without steps.
    explained_variance : float
        Share of the windows' energy that the neuron holds, rounding included.
    """
    taper = np.ones(NUM_BASIS_SAMPLES)
    taper[:40] = np.sin(np.pi / 2 * np.linspace(0, 1, 40)) ** 2
    taper[-80:] = np.cos(np.pi / 2 * np.linspace(0, 1, 80)) ** 2
    tapered = taper * np.stack([window.currents for window in windows])
    coef, scale, basis = compress_windows(windows=tapered, lost=lost, max_components=max_components)
    neuron = NeuronCurrents(
        name=name,
        seg_start=seg_start.astype("float32"),
        seg_end=seg_end.astype("float32"),
        seg_diam=seg_diam.astype("float32"),
        isi=np.array([window.isi for window in windows], dtype="float32"),
        v_peak=np.array([window.v_peak for window in windows], dtype="float32"),
        dt=DT,
        peak_index=PEAK_INDEX,
        soma=soma,
        rheobase=rheobase,
        coef=coef,
        scale=scale,
        basis=basis,
    )
    stored = np.stack([neuron.membrane_currents(spike) for spike in range(neuron.num_spikes)])
    explained = 1.0 - float(np.sum((tapered - stored) ** 2) / np.sum(tapered**2))
    return neuron, explained
