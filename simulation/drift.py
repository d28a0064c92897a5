"""How the tissue moves against the electrode in the course of a recording."""

from __future__ import annotations

import numpy as np

KINDS = ("none", "linear", "sinusoid", "steps", "random_walk")
STEP_S = 0.1


def drift_course(
    *, kind: str, duration_s: float, rng: np.random.Generator, period_s: float = 60.0, num_steps: int = 4
) -> np.ndarray:
    """Draw the course of a displacement, between -1 and 1.

    Parameters
    ----------
    kind : {"none", "linear", "sinusoid", "steps", "random_walk"}
        No movement; steadily from one end to the other, either way; a sine of random phase; sudden jumps at random
        times to random places; a random walk that turns back at the ends.
    duration_s : float
        Length of the recording.
    rng : np.random.Generator
        Source of randomness.
    period_s : float
        Of the sine; the random walk wanders over the whole range in about this time.
    num_steps : int
        Number of jumps.

    Returns
    -------
    np.ndarray, [num]
        One value every `STEP_S`, the first at time 0, the last at the end or later.

    Raises
    ------
    ValueError
        There is no such kind.
    """
    times = np.arange(int(np.ceil(duration_s / STEP_S)) + 1) * STEP_S
    if kind == "none":
        return np.zeros(len(times))
    if kind == "linear":
        return np.linspace(-1.0, 1.0, len(times)) * rng.choice([-1.0, 1.0])
    if kind == "sinusoid":
        return np.sin(2 * np.pi * times / period_s + rng.uniform(0, 2 * np.pi))
    if kind == "steps":
        jumps = np.sort(rng.uniform(0, duration_s, size=num_steps))
        places = rng.uniform(-1.0, 1.0, size=num_steps + 1)
        return places[np.searchsorted(jumps, times, side="right")]
    if kind == "random_walk":
        # The variance reaches that of a uniform distribution, 1/3, after a quarter of the period.
        size = np.sqrt(STEP_S / (0.75 * period_s))
        walk = rng.uniform(-1.0, 1.0) + np.cumsum(rng.normal(scale=size, size=len(times)))
        # Fold what leaves the range back into it.
        return 1.0 - np.abs((walk + 1.0) % 4.0 - 2.0)
    raise ValueError(f"drift_kind must be one of {', '.join(KINDS)}, not {kind!r}.")


def drift_at(course: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Read a course of displacement at any times.

    Parameters
    ----------
    course : np.ndarray, [num]
        From `drift_course`.
    times : np.ndarray, [num_times]
        In s.

    Returns
    -------
    np.ndarray, [num_times]
    """
    return np.interp(times, np.arange(len(course)) * STEP_S, course)
