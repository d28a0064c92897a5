"""Simulation of reduced cells in numpy and scipy, and the small bank that ships.

Stands in for NEURON and detailed cells in tests, examples and the bundled bank. Units: mV, ms, nA, uS, nF, um, and
mS/cm2 for densities.

References
----------
Pospischil et al. 2008, Biol Cybern 99:427 (minimal regular- and fast-spiking models).
Traub & Miles 1991, Neuronal Networks of the Hippocampus (sodium current, delayed rectifier).
Yamada, Koch & Adams 1989, in Methods in Neuronal Modeling (M current).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.linalg import solveh_banded
from scipy.special import exprel

from spikeinterface_simsort.simulation.bank import NeuronCurrents, save_bank
from spikeinterface_simsort.simulation.reduced_cells import Membrane, ReducedCell, make_cell
from spikeinterface_simsort.simulation.spike_currents import (
    DT,
    bank_entry,
    choose_windows,
    cut_windows,
    spike_samples,
)
from spikeinterface_simsort.simulation.stimuli import pink_noise

logger = logging.getLogger(__name__)

AXIAL_RESISTIVITY = 150.0  # ohm cm
CAPACITANCE = 1.0  # uF/cm2
E_NA, E_K = 50.0, -90.0
# Per um2: a density in mS/cm2 gives uS, a capacitance in uF/cm2 gives nF.
_PER_AREA = 1e-5


def axial_matrix(*, cell: ReducedCell) -> np.ndarray:
    """Axial conductances: ``axial_matrix(cell) @ v`` is the current that leaves each segment inside the cell.

    Each segment is half a cylinder's resistance away from its ends, the soma is isopotential. A fork is a
    node without membrane; taking it out leaves ``g_i g_j / sum(g)`` between any two segments that meet there.

    Parameters
    ----------
    cell : ReducedCell
        The cell.

    Returns
    -------
    np.ndarray, [num_segments, num_segments]
        In uS, symmetric, rows sum to zero.
    """
    length = np.linalg.norm(cell.end - cell.start, axis=1)
    # ohm cm / um = 1e4 ohm = 1e-2 Mohm.
    half = 1.0 / (AXIAL_RESISTIVITY * 1e-2 * (length / 2) / (np.pi * cell.diam**2 / 4))
    conductance = np.zeros((len(length), len(length)))
    for node in np.unique(cell.parent[cell.parent >= 0]):
        children = np.flatnonzero(cell.parent == node)
        if node == cell.soma:
            conductance[node, children] = conductance[children, node] = half[children]
        else:
            meet = np.append(children, node)
            conductance[np.ix_(meet, meet)] += np.outer(half[meet], half[meet]) / half[meet].sum()
    np.fill_diagonal(conductance, 0.0)
    return np.diag(conductance.sum(axis=1)) - conductance


def gate_rates(*, u: np.ndarray, v: np.ndarray, membrane: Membrane) -> tuple[np.ndarray, np.ndarray]:
    """Steady states and rates of the gates m, h, n (functions of ``u = v - v_t``) and p (of `v`).

    Parameters
    ----------
    u, v : np.ndarray, [num]
        Voltages in mV.
    membrane : Membrane
        Gives the temperature factor and the M current's time constant.

    Returns
    -------
    steady : np.ndarray, [num, 4]
        Steady state of each gate.
    rate : np.ndarray, [num, 4]
        Inverse time constant of each gate, per ms.
    """
    # x / (exp(x) - 1) = 1 / exprel(x), without a hole at zero.
    alpha_m, beta_m = 1.28 / exprel((13.0 - u) / 4.0), 1.4 / exprel((u - 40.0) / 5.0)
    alpha_h, beta_h = 0.128 * np.exp((17.0 - u) / 18.0), 4.0 / (1.0 + np.exp((40.0 - u) / 5.0))
    alpha_n, beta_n = 0.16 / exprel((15.0 - u) / 5.0), 0.5 * np.exp((10.0 - u) / 40.0)
    opening = np.stack([alpha_m, alpha_h, alpha_n], axis=-1)
    total = opening + np.stack([beta_m, beta_h, beta_n], axis=-1)
    p_steady = 1.0 / (1.0 + np.exp(-(v + 35.0) / 10.0))
    p_rate = (3.3 * np.exp((v + 35.0) / 20.0) + np.exp(-(v + 35.0) / 20.0)) / membrane.tau_max
    steady = np.concatenate([opening / total, p_steady[..., None]], axis=-1)
    return steady, np.concatenate([membrane.temperature_factor * total, p_rate[..., None]], axis=-1)


def simulate(*, cell: ReducedCell, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integrate the cell under currents into its soma, all runs at once.

    Backward Euler in the voltages, exponential update of the gates, staggered by half a step (Hines 1984, Int J
    Biomed Comput 15:69); each step is one banded, positive definite system for all runs.

    Parameters
    ----------
    cell : ReducedCell
        The cell.
    current : np.ndarray, [num_runs, num_samples]
        Current of an electrode in the soma, in nA, at `DT`.

    Returns
    -------
    v_soma : np.ndarray, [num_runs, num_samples]
        Somatic voltage, in mV.
    currents : np.ndarray, float32 [num_runs, num_segments, num_samples]
        Membrane currents in nA, capacitive and ionic, less the electrode's: they sum to zero.
    """
    num_runs, num_samples = current.shape
    soma, area, axial = cell.soma, cell.area * _PER_AREA, axial_matrix(cell=cell)
    capacity = CAPACITANCE * area / DT
    na, kd, m_bar, leak = (density * area for density in (cell.g_na, cell.g_kd, cell.g_m, cell.g_leak))

    bandwidth = int(np.abs(np.subtract(*np.nonzero(axial))).max(initial=0))
    bands = np.zeros((bandwidth + 1, len(area)))
    for offset in range(bandwidth + 1):
        bands[offset, : len(area) - offset] = np.diagonal(axial, -offset)
    bands[0] += capacity + leak
    bands = np.asfortranarray(np.tile(bands, num_runs))

    # Gates are read off one table: steady states, then the fraction of the way a step takes. Where `v_t` is lower
    # than the soma's, p comes along.
    u_first, u_step = -150.0, 0.1
    u_grid = u_first + u_step * np.arange(3001)
    steady, rate = gate_rates(u=u_grid, v=u_grid + cell.membrane.v_t, membrane=cell.membrane)
    table = np.concatenate([steady, -np.expm1(-DT * rate)], axis=1)

    v = np.full((num_runs, len(area)), cell.membrane.e_leak)
    gates = None
    v_soma = np.empty((num_runs, num_samples))
    currents = np.empty((num_runs, len(area), num_samples), dtype="float32")
    for sample in range(num_samples):
        position = np.clip((v - cell.v_t - u_first) / u_step, 0, len(u_grid) - 2)
        below = position.astype(int)
        looked_up = table[below]
        looked_up += (position - below)[..., None] * (table[below + 1] - looked_up)
        gates = looked_up[..., :4] if gates is None else gates + looked_up[..., 4:] * (looked_up[..., :4] - gates)
        m, h, n, p = np.moveaxis(gates, -1, 0)
        g_na, g_k = na * m * m * m * h, kd * (n * n) ** 2 + m_bar * p
        drive = leak * cell.membrane.e_leak + g_na * E_NA + g_k * E_K
        drive[:, soma] += current[:, sample]
        matrix = bands.copy(order="F")
        matrix[0] += (g_na + g_k).ravel()
        right = (capacity * v + drive).ravel()
        solution = solveh_banded(matrix, right, lower=True, overwrite_ab=True, overwrite_b=True, check_finite=False)
        change = solution.reshape(v.shape) - v
        v = v + change
        # The drive holds the electrode's current, which is thereby out of the soma's membrane current.
        currents[:, :, sample] = capacity * change + (leak + g_na + g_k) * v - drive
        v_soma[:, sample] = v[:, soma]
    return v_soma, currents


def find_rheobase(
    *, cell: ReducedCell, duration_ms: float = 150.0, precision: float = 0.02, num_runs: int = 8
) -> float:
    """Find the smallest current step that makes the cell spike.

    Bisection with several cuts at once: each round simulates `num_runs` amplitudes inside the bracket.

    Parameters
    ----------
    cell : ReducedCell
        The cell.
    duration_ms : float
        Length of the step, after 20 ms at rest.
    precision : float
        Relative width of the bracket at which to stop.
    num_runs : int
        Amplitudes a round.

    Returns
    -------
    float
        In nA; the cell spikes at it.

    Raises
    ------
    ValueError
        The cell spikes without a current, or not even at 5 nA.
    """
    step = np.zeros(round((20.0 + duration_ms) / DT))
    step[round(20.0 / DT) :] = 1.0
    low, amplitudes = 0.0, np.geomspace(0.01, 5.0, num_runs)
    while True:
        v_soma, _ = simulate(cell=cell, current=amplitudes[:, None] * step)
        spiked = [len(spike_samples(v_soma=v)) > 0 for v in v_soma]
        first = int(np.argmax(spiked))
        if not any(spiked) or amplitudes[first] < 1e-3:
            raise ValueError(f"{cell.name} has no rheobase between 0 and 5 nA: its densities are off.")
        low, high = (amplitudes[first - 1] if first else low), amplitudes[first]
        if high - low <= precision * high:
            return float(high)
        amplitudes = np.linspace(low, high, num_runs + 1)[1:]


def spike_triggered_currents(
    *,
    cell: ReducedCell,
    rng: np.random.Generator,
    rheobase: float,
    num_spikes: int = 28,
    num_runs: int = 8,
    duration_ms: float = 500.0,
) -> NeuronCurrents:
    """Drive a cell with pink noise about its rheobase and cut its currents around the spikes.

    Parameters
    ----------
    cell : ReducedCell
        The cell.
    rng : np.random.Generator
        Source of the noise.
    rheobase : float
        Of the cell, in nA: what the noise is scaled to.
    num_spikes : int
        Most spikes to keep, spread over the intervals that occurred.
    num_runs, duration_ms : int, float
        Number of stretches of noise, and their length.

    Returns
    -------
    NeuronCurrents
        With windows of 8 ms, the peak 3 ms into them.

    Raises
    ------
    ValueError
        Fewer than half the spikes could be had.
    """
    noise = pink_noise(num_runs=num_runs, num_samples=round(duration_ms / DT), dt=DT, rng=rng)
    found, chosen = [], []
    for strength in (1.0, 1.5, 2.2):
        v_soma, currents = simulate(cell=cell, current=strength * rheobase * (0.8 + noise))
        found = [window for v, i in zip(v_soma, currents, strict=True) for window in cut_windows(v_soma=v, currents=i)]
        chosen = choose_windows(found, num_spikes=num_spikes)
        if len(chosen) >= num_spikes:
            break
    if len(chosen) < num_spikes / 2:
        raise ValueError(f"{cell.name} gave only {len(chosen)} spikes that stand alone.")
    neuron, explained = bank_entry(
        windows=chosen,
        name=cell.name,
        seg_start=cell.start,
        seg_end=cell.end,
        seg_diam=cell.diam,
        soma=cell.soma,
        rheobase=rheobase,
    )
    logger.info(
        "%s: %d segments, rheobase %.3f nA, %d of %d spikes, intervals from %.1f ms, %d components explain %.5f.",
        cell.name, len(cell.diam), rheobase, len(chosen), len(found), chosen[0].isi, len(neuron.basis), explained,
    )  # fmt: skip
    return neuron


def make_bank(*, counts: dict[tuple[str, str], int], seed: int) -> list[NeuronCurrents]:
    """Grow and simulate `counts[shape, firing]` neurons of each kind, named ``<shape>_<firing>_<number>``."""
    neurons = []
    for kind, ((shape, firing), count) in enumerate(counts.items()):
        for number in range(count):
            rng = np.random.default_rng([seed, kind, number])
            cell = make_cell(shape=shape, firing=firing, name=f"{shape}_{firing}_{number}", rng=rng)
            neurons.append(spike_triggered_currents(cell=cell, rng=rng, rheobase=find_rheobase(cell=cell)))
    return neurons


# How many neurons of each kind the bundled bank holds.
BUNDLED = {
    ("ball_and_stick", "rs"): 3, ("ball_and_stick", "fs"): 2, ("pyramidal", "rs"): 5, ("stellate", "rs"): 2,
    ("stellate", "fs"): 3, ("bipolar", "rs"): 2, ("bipolar", "fs"): 2,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Make the bundled bank (``python -m spikeinterface_simsort.simulation.reduced_simulation``)."""
    parser = argparse.ArgumentParser(description="Simulate reduced cells and write their currents as a neuron bank.")
    parser.add_argument("--output", type=Path, required=True, help="npz file to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of shapes, densities and noise")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    neurons = make_bank(counts=BUNDLED, seed=arguments.seed)
    save_bank(arguments.output, neurons)
    logger.info("%s: %d neurons, %.0f kB.", arguments.output, len(neurons), arguments.output.stat().st_size / 1e3)


if __name__ == "__main__":
    main()
