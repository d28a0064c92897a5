"""Spike trains with refractory periods and bursts, alone or in company."""

from __future__ import annotations

import numpy as np


def spike_train(
    *,
    duration_s: float,
    firing_rate_hz: float,
    rng: np.random.Generator,
    refractory_ms: float = 2.0,
    regularity: float = 1.5,
    burst_probability: float = 0.0,
    burst_isi_ms: float = 5.0,
    mean_burst_spikes: float = 1.5,
) -> np.ndarray:
    """Draw spike times from a gamma renewal process whose events may start bursts.

    Parameters
    ----------
    duration_s : float
        Length of the train, in s.
    firing_rate_hz : float
        Mean rate of all spikes, those in bursts included.
    rng : np.random.Generator
        Source of randomness.
    refractory_ms : float
        No two spikes are closer than this.
    regularity : float
        Shape of the gamma distribution; 1 is a Poisson process with a dead time.
    burst_probability : float
        Probability that an event is followed by further spikes.
    burst_isi_ms : float
        Mean interval within a burst.
    mean_burst_spikes : float
        Mean number of spikes that follow in a burst (geometric).

    Returns
    -------
    np.ndarray, [num_spikes]
        Increasing spike times in s, within [0, duration_s).
    """
    if firing_rate_hz <= 0 or duration_s <= 0:
        return np.empty(0)
    refractory_s = refractory_ms / 1000.0
    event_rate = firing_rate_hz / (1.0 + burst_probability * mean_burst_spikes)
    mean_gap = max(1.0 / event_rate - refractory_s, 1e-4)

    expected = int(duration_s / (mean_gap + refractory_s))
    gaps = refractory_s + rng.gamma(
        regularity, mean_gap / regularity, size=expected + 10 + int(8 * np.sqrt(expected + 1))
    )
    # A stationary process is under way when the recording starts.
    events = np.cumsum(gaps) - rng.uniform(0, 1) * gaps[0]

    times = [events]
    if burst_probability > 0:
        starts = events[rng.random(events.size) < burst_probability]
        num_following = rng.geometric(1.0 / max(mean_burst_spikes, 1.0), size=starts.size)
        current = starts
        for _ in range(int(num_following.max(initial=0))):
            current = current[num_following > 0]
            num_following = num_following[num_following > 0] - 1
            current = (
                current
                + refractory_s
                + rng.gamma(4.0, max(burst_isi_ms / 1000.0 - refractory_s, 5e-4) / 4.0, size=current.size)
            )
            times.append(current)
    train = np.sort(np.concatenate(times))
    train = train[(train >= 0) & (train < duration_s)]
    return enforce_refractory(train, refractory_s=refractory_s)


def enforce_refractory(times: np.ndarray, *, refractory_s: float) -> np.ndarray:
    """Drop each spike that follows the last kept one within the refractory period.

    Parameters
    ----------
    times : np.ndarray, [num_spikes]
        Increasing times in s.
    refractory_s : float
        Shortest interval allowed, in s.

    Returns
    -------
    np.ndarray
        The spikes kept.
    """
    kept = np.empty(times.size, dtype=bool)
    last = -np.inf
    for i, time in enumerate(times):
        kept[i] = time - last >= refractory_s
        if kept[i]:
            last = time
    return times[kept]


def log_normal_rate(rng: np.random.Generator, *, limits: tuple[float, float], spread: float) -> float:
    """Draw a firing rate from a log-normal distribution, cut at both ends, about the middle between them.

    Parameters
    ----------
    rng : np.random.Generator
        Source of randomness.
    limits : tuple of float
        Lowest and highest rate, in Hz; the median is their geometric mean.
    spread : float
        Standard deviation of the rate's natural logarithm before it is cut.

    Returns
    -------
    float
        In Hz.

    References
    ----------
    Buzsaki & Mizuseki 2014, Nat Rev Neurosci 15:264 (firing rates of cortical neurons are log-normal).
    """
    low, high = np.log(limits)
    while True:
        # Drawing again, and not clipping, leaves no heap of neurons at the limits.
        rate = (low + high) / 2 + spread * rng.normal()
        if low <= rate <= high or spread == 0:
            return float(np.exp(rate))
        # Where the limits are narrow against the spread, the distribution between them is flat.
        if high - low < 0.1 * spread:
            return float(np.exp(rng.uniform(low, high)))


def synchronise(
    trains: list[np.ndarray],
    *,
    share: float,
    window_ms: float,
    refractory_s: list[float],
    duration_s: float,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Move a share of the spikes of each unit next to spikes of other units: correlated firing.

    Rates stay as they are, but for spikes that would break a refractory period.

    Parameters
    ----------
    trains : list of np.ndarray, [num_spikes]
        Increasing times of each unit, in s.
    share : float
        Of each unit's spikes that are moved, 0 to 1.
    window_ms : float
        A moved spike falls within this time of another unit's, before or after.
    refractory_s : list of float
        Shortest interval of each unit.
    duration_s : float
        Length of the trains.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    list of np.ndarray
        In the order of `trains`.
    """
    moves = [rng.random(train.size) < share for train in trains]
    # Next to spikes that stay where they are: what has moved next to this unit's own would break its refractory period.
    stay = [train[~moved] for train, moved in zip(trains, moves, strict=True)]
    result: list[np.ndarray] = []
    for unit, (train, moved) in enumerate(zip(trains, moves, strict=True)):
        hosts = np.concatenate([np.empty(0), *stay[:unit], *stay[unit + 1 :]])
        if hosts.size < moved.sum():
            # Too few stay, but earlier units will not move again.
            hosts = np.concatenate([np.empty(0), *result, *stay[unit + 1 :]])
        if hosts.size and moved.any():
            offsets = rng.uniform(-window_ms, window_ms, size=int(moved.sum())) / 1000.0
            # Two next to the same one might fall within the refractory period.
            chosen = rng.choice(hosts, size=offsets.size, replace=offsets.size > hosts.size)
            train = np.sort(np.concatenate([train[~moved], chosen + offsets]))
            train = enforce_refractory(train[(train >= 0) & (train < duration_s)], refractory_s=refractory_s[unit])
        result.append(train)
    return result


def overlapping(samples: np.ndarray, labels: np.ndarray, *, window: float) -> np.ndarray:
    """Tell which spikes have a spike of another unit close by.

    Parameters
    ----------
    samples : np.ndarray, [num_spikes]
        Times, increasing, in any unit.
    labels : np.ndarray, int [num_spikes]
        Units.
    window : float
        Longest distance, in the unit of `samples`.

    Returns
    -------
    np.ndarray, bool [num_spikes]
    """
    result = np.zeros(len(samples), dtype=bool)
    # Neighbours in order, then those two apart, and so on, until none is close any more.
    for apart in range(1, len(samples)):
        close = samples[apart:] - samples[:-apart] <= window
        if not close.any():
            break
        pairs = close & (labels[apart:] != labels[:-apart])
        result[apart:] |= pairs
        result[:-apart] |= pairs
    return result
