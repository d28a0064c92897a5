"""Driving a detailed cell: its rheobase, then stimuli until it has given enough spikes at varied intervals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
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

STRETCH_MS = 500.0
# A mean voltage above this between spikes is depolarisation block: more current would give fewer spikes.
BLOCK_MV = -35.0
HIGHEST_RHEOBASE_NA = 3.0


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
        The cell spikes without a current, or not even at `HIGHEST_RHEOBASE_NA`.
    """
    chunk = round(25.0 / DT)

    def spikes_at(current: np.ndarray) -> int | None:
        """Sample of the first spike's peak under a current, if there is one."""
        cell.rest()
        v_before = np.empty(0)
        for start in range(0, len(current), chunk):
            v_soma, _ = cell.run(current[start : start + chunk])
            # A spike comes down again, maybe in the next chunk; a voltage that the current holds up is none.
            peaks = spike_samples(v_soma=np.concatenate([v_before, v_soma]))
            if peaks.size:
                return start - len(v_before) + int(peaks[0])
            v_before = v_soma
        return None

    num_samples = round(step_ms / DT)
    ramp = np.linspace(0.0, HIGHEST_RHEOBASE_NA, round(600.0 / DT))
    first = spikes_at(ramp)
    # Some cells get used to a ramp, and spike at a step only.
    high = 0.02 if first is None else max(float(ramp[first]), 0.01)
    while spikes_at(np.full(num_samples, high)) is None:
        high *= 1.3
        if high > HIGHEST_RHEOBASE_NA:
            raise ValueError(f"{cell.name} does not spike at up to {HIGHEST_RHEOBASE_NA:g} nA.")
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


def drive(
    cell: DrivenCell, *, rheobase: float, rng: np.random.Generator, rate_hz: tuple[float, float] = (12.0, 40.0)
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Drive a cell from rest with pink noise, steps and an Ornstein-Uhlenbeck process in turn, without end.

    Their strength rises where the cell spikes less than wanted, and falls where it spikes more or stays depolarised.

    Parameters
    ----------
    cell : DrivenCell
        The cell.
    rheobase : float
        Of the cell, in nA.
    rng : np.random.Generator
        Source of the stimuli.
    rate_hz : tuple of float
        Lowest and highest rate wanted.

    Yields
    ------
    v_soma : np.ndarray, [num_samples]
        Of one stretch of `STRETCH_MS`, in mV.
    currents : np.ndarray, float32 [num_segments, num_samples]
        In nA.
    """
    num_samples = round(STRETCH_MS / DT)
    strength = 1.5
    cell.rest()
    for stimulus in itertools.cycle(STIMULI):
        v_soma, currents = cell.run(strength * rheobase * stimulus(num_samples, rng))
        yield v_soma, currents
        rate = len(spike_samples(v_soma=v_soma)) / STRETCH_MS * 1000.0
        if np.median(v_soma) > BLOCK_MV or rate > rate_hz[1]:
            strength *= 0.8
        elif rate < rate_hz[0]:
            strength *= 1.2 if rate > rate_hz[0] / 3 else 1.6


def collect_spikes(
    cell: DrivenCell, *, rheobase: float, rng: np.random.Generator, config: DriveConfig
) -> tuple[list[SpikeWindow], float]:
    """Drive a cell until it has spiked enough, see `drive`.

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
    tail = PEAK_INDEX + NUM_AFTER - 1
    windows: list[SpikeWindow] = []
    v_joined, currents_joined = np.empty(0), np.empty((0, 0), dtype="float32")
    duration_ms, last_peak = 0.0, -np.inf
    for v_soma, currents in drive(cell, rheobase=rheobase, rng=rng):
        # A window may begin in the stretch before: the tail of that one goes in front.
        offset = min(tail, len(v_joined))
        v_joined = np.concatenate([v_joined[len(v_joined) - offset :], v_soma])
        before = currents_joined[:, -tail:] if offset else currents[:, :0]
        currents_joined = np.concatenate([before, currents], axis=1)
        windows += cut_windows(v_soma=v_joined, currents=currents_joined, last_peak=last_peak)
        # The next run begins with this one's tail, and finds the peaks in it itself.
        begin = len(v_joined) - tail
        peaks = spike_samples(v_soma=v_joined)
        last_peak = max((float(peak) for peak in peaks if peak < begin), default=last_peak) - begin
        duration_ms += STRETCH_MS

        intervals = np.array([window.isi for window in windows])
        enough = np.sum(intervals < FIRST_SPIKE_ISI) >= config.num_spikes
        short = np.sum(intervals < config.short_ms) >= config.num_short
        if (enough and (short or duration_ms >= config.patience_ms)) or duration_ms >= config.max_duration_ms:
            break
    if len(windows) < config.min_spikes:
        raise ValueError(
            f"{cell.name} gave {len(windows)} spikes that stand alone in {duration_ms / 1000:.1f} s, "
            f"fewer than {config.min_spikes}."
        )
    return windows, duration_ms
