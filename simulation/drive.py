"""Driving a detailed cell: its rheobase, then stimuli until it has given enough spikes at varied intervals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from spikeinterface_simsort.simulation.spike_currents import (
    DT,
    FIRST_SPIKE_ISI,
    NUM_AFTER,
    PEAK_INDEX,
    SpikeWindow,
    cut_windows,
    spike_samples,
)
from spikeinterface_simsort.simulation.stimuli import ornstein_uhlenbeck, pink_noise, steps

logger = logging.getLogger(__name__)

STRETCH_MS = 500.0
# A mean voltage above this between spikes is depolarisation block: more current would give fewer spikes.
BLOCK_MV = -35.0


class DrivenCell(Protocol):
    """What can be driven: a cell with an electrode in its soma, such as `neuron_cells.NeuronCell`."""

    name: str

    def rest(self) -> None:
        """Put the cell back to where it rests without a current."""
        ...

    def run(self, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Go on under a current (nA, at `DT`); return somatic voltage (mV) and membrane currents (nA)."""
        ...


@dataclass(frozen=True, kw_only=True)
class DriveConfig:
    """How long a cell is driven.

    Attributes
    ----------
    num_spikes : int
        Spikes to keep in the bank.
    num_short : int
        Spikes wanted that follow another within `short_ms`: bursts and doublets.
    short_ms : float
        See `num_short`.
    patience_ms : float
        Time after which no more short intervals are waited for.
    max_duration_ms : float
        Time after which what there is must do.
    min_spikes : int
        With fewer, the cell fails.
    """

    num_spikes: int = 40
    num_short: int = 8
    short_ms: float = 20.0
    patience_ms: float = 4000.0
    max_duration_ms: float = 8000.0
    min_spikes: int = 12


def find_rheobase(cell: DrivenCell, *, precision: float = 0.05, step_ms: float = 250.0) -> float:
    """Find the smallest current step that makes a cell spike: a ramp brackets it, bisection narrows it.

    Parameters
    ----------
    cell : DrivenCell
        The cell.
    precision : float
        Relative width of the bracket at which to stop.
    step_ms : float
        Length of the step, which begins at rest.

    Returns
    -------
    float
        In nA; the cell spikes at it.

    Raises
    ------
    ValueError
        The cell spikes without a current, or not even at 3 nA.
    """
    chunk = round(25.0 / DT)

    def spikes_at(current: np.ndarray) -> int | None:
        """Sample of the first spike under a current, if there is one."""
        cell.rest()
        v_before, _ = cell.run(np.zeros(1))
        for start in range(0, len(current), chunk):
            v_soma, _ = cell.run(current[start : start + chunk])
            # The rise may lie in the chunk before.
            joined = np.concatenate([v_before[-1:], v_soma])
            crossed = np.flatnonzero((joined[1:] > -20.0) & (joined[:-1] <= -20.0))
            if crossed.size:
                return start + int(crossed[0])
            v_before = v_soma
        return None

    num_samples = round(step_ms / DT)
    ramp = np.linspace(0.0, 3.0, round(600.0 / DT))
    first = spikes_at(ramp)
    if first is None:
        raise ValueError(f"{cell.name} does not spike at up to 3 nA.")
    high = max(float(ramp[first]), 0.01)
    while spikes_at(np.full(num_samples, high)) is None:
        high *= 1.3
    low = high / 2
    while spikes_at(np.full(num_samples, low)) is not None:
        if low < 1e-3:
            raise ValueError(f"{cell.name} spikes without a current.")
        low, high = low / 2, low
    while high - low > precision * high:
        middle = (low + high) / 2
        low, high = (low, middle) if spikes_at(np.full(num_samples, middle)) is not None else (middle, high)
    return high


def _pink(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    return 0.8 + pink_noise(num_runs=1, num_samples=num_samples, dt=DT, rng=rng)[0]


def _bombardment(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    return 0.9 + 0.5 * ornstein_uhlenbeck(num_samples=num_samples, dt=DT, rng=rng)


def _steps(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    return 0.2 + 1.8 * steps(num_samples=num_samples, dt=DT, rng=rng)


# In turn; currents in units of the rheobase.
STIMULI: tuple[Callable[[int, np.random.Generator], np.ndarray], ...] = (_pink, _steps, _bombardment)


def collect_spikes(
    cell: DrivenCell, *, rheobase: float, rng: np.random.Generator, config: DriveConfig
) -> tuple[list[SpikeWindow], float]:
    """Drive a cell with pink noise, steps and an Ornstein-Uhlenbeck process until it has spiked enough.

    Their strength rises where the cell hardly spikes and falls where it spikes too fast or stays depolarised.

    Parameters
    ----------
    cell : DrivenCell
        The cell.
    rheobase : float
        Of the cell, in nA.
    rng : np.random.Generator
        Source of the stimuli.
    config : DriveConfig
        When it is enough.

    Returns
    -------
    windows : list of SpikeWindow
        Around the spikes that stand alone.
    duration_ms : float
        Simulated time.

    Raises
    ------
    ValueError
        Too few spikes stand alone.
    """
    num_samples, tail = round(STRETCH_MS / DT), PEAK_INDEX + NUM_AFTER - 1
    strength = 1.5
    windows: list[SpikeWindow] = []
    duration_ms, turn, last_peak = 0.0, 0, -np.inf
    cell.rest()
    v_before, currents_before = cell.run(np.zeros(tail))
    while duration_ms < config.max_duration_ms:
        stimulus = STIMULI[turn % len(STIMULI)]
        v_soma, currents = cell.run(strength * rheobase * stimulus(num_samples, rng))
        # A window may begin in the stretch before: the tail of that one goes in front.
        v_joined = np.concatenate([v_before, v_soma])
        currents = np.concatenate([currents_before, currents], axis=1)
        windows += cut_windows(v_soma=v_joined, currents=currents, last_peak=last_peak)
        peaks = spike_samples(v_soma=v_joined)
        # The next run begins `num_samples` later, and finds the peaks of this one's tail itself.
        last_peak = max((float(peak) for peak in peaks if peak < num_samples), default=last_peak) - num_samples
        v_before, currents_before = v_joined[-tail:], currents[:, -tail:]
        duration_ms += STRETCH_MS
        turn += 1

        rate_hz = len(spike_samples(v_soma=v_soma)) / STRETCH_MS * 1000.0
        if np.median(v_soma) > BLOCK_MV or rate_hz > 40.0:
            strength *= 0.8
        elif rate_hz < 12.0:
            strength *= 1.2 if rate_hz > 4.0 else 1.6
        intervals = np.array([window.isi for window in windows])
        enough = np.sum(intervals < FIRST_SPIKE_ISI) >= config.num_spikes
        short = np.sum(intervals < config.short_ms) >= config.num_short
        if enough and (short or duration_ms >= config.patience_ms):
            break
    if len(windows) < config.min_spikes:
        raise ValueError(
            f"{cell.name} gave {len(windows)} spikes that stand alone in {duration_ms / 1000:.1f} s, "
            f"fewer than {config.min_spikes}."
        )
    logger.debug("%s: %d spikes in %.1f s, strength %.1f.", cell.name, len(windows), duration_ms / 1000, strength)
    return windows, duration_ms
