"""What the times of two units' spikes tell: whether they are one neuron's."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, pdtr

# One neuron does not fire twice within these, in ms; two that know nothing of each other do. Less than this share of
# what chance makes of it is one neuron's, and some other spikes.
_REFRACTORY_MS, _LEAST_SHARE = (0.6, 2.0), 0.15
# Spikes so near to each other that have to be expected before that is sure.
_LEAST_EXPECTED = 6.0
# One neuron's spikes that look like two neurons' leave out the first of these intervals, as the second ones tell how
# often they fire near each other: there are less than such a share of what these make expected, and not by chance.
_RECOVERY_MS, _NEARBY_MS, _MOST_RECOVERED = (0.6, 3.0), (5.0, 50.0), 0.15
# Pauses before the spikes of two trains are surely different if chance makes them so less often than this.
_SURELY, _MIN_SPIKES_PAUSES = 1e-6, 30
# A neuron that moves looks like one of its templates at a time: in bins of so many seconds.
_MOST_TOGETHER, _BIN_S, _MIN_SPIKES_TURNS = 0.35, 5.0, 50


def fire_in_turns(times: np.ndarray, others: np.ndarray) -> bool:
    """Whether two units hardly ever fire in the same seconds, as one neuron's halves do that moves to and fro.

    Parameters
    ----------
    times, others : np.ndarray, float64 [num_spikes]
        In seconds.

    Returns
    -------
    bool
    """
    if min(len(times), len(others)) < _MIN_SPIKES_TURNS:
        return False
    edges = np.arange(min(times.min(), others.min()), max(times.max(), others.max()) + _BIN_S, _BIN_S)
    shares = [np.histogram(train, edges)[0] / len(train) for train in (times, others)]
    return float(np.minimum(*shares).sum()) < _MOST_TOGETHER


def fire_together(times: np.ndarray, others: np.ndarray, *, duration_s: float) -> bool:
    """Whether spikes of two trains come as near to each other as those of one neuron do not.

    Parameters
    ----------
    times, others : np.ndarray, float64 [num_spikes]
        In seconds.
    duration_s : float
        Of the recording, in s.

    Returns
    -------
    bool
    """
    near, far = _REFRACTORY_MS
    chance = len(times) * len(others) * 2 * (far - near) / 1000 / duration_s
    return count_intervals(times, others, between_ms=_REFRACTORY_MS) >= max(1.0, _LEAST_SHARE * chance)


def differ_by_pauses(times: np.ndarray, others: np.ndarray) -> bool:
    """Whether spikes belong to one train or the other by how long there was none of either before them.

    A neuron's spikes are smaller and slower soon after another. Two neurons know nothing of each other's pauses.

    Parameters
    ----------
    times, others : np.ndarray, float64 [num_spikes]
        In seconds.

    Returns
    -------
    bool
    """
    if min(len(times), len(others)) < _MIN_SPIKES_PAUSES:
        return False
    both = np.concatenate([times, others])
    order = np.argsort(both, kind="stable")
    # What differs by less than a sample does so by rounding.
    pauses, is_first = np.diff(both[order]).round(4), order[1:] < len(times)
    return _rank_sum_p_value(pauses, is_first) < _SURELY


def _rank_sum_p_value(values: np.ndarray, is_first: np.ndarray) -> float:
    """How likely the ranks of two samples differ as much by chance: the two-sided test of Mann & Whitney 1947.

    As `scipy.stats.mannwhitneyu` for large samples, with ties, but `scipy.stats` takes a quarter of a second to load.
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    # Equal values share the mean of their ranks.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    total, first = len(values), int(is_first.sum())
    pairs = first * (total - first)
    away = abs(ranks[is_first].sum() - first * (first + 1) / 2 - pairs / 2)
    variance = pairs / 12 * (total + 1 - (counts.astype("float64") ** 3 - counts).sum() / (total * (total - 1)))
    return float(min(2 * ndtr(-(away - 0.5) / np.sqrt(variance)), 1.0)) if variance > 0 else 1.0


def fire_independently(times: np.ndarray, others: np.ndarray) -> bool:
    """Whether two trains surely are of two neurons, as they come as near to each other as chance has it.

    Parameters
    ----------
    times, others : np.ndarray, float64 [num_spikes]
        In seconds.

    Returns
    -------
    bool
    """
    (near, far), (low, high) = _REFRACTORY_MS, _NEARBY_MS
    expected = count_intervals(times, others, between_ms=_NEARBY_MS) * (far - near) / (high - low)
    return expected >= _LEAST_EXPECTED and count_intervals(times, others, between_ms=_REFRACTORY_MS) >= expected / 2


def share_refractory_period(times: np.ndarray, others: np.ndarray, *, by_chance: float) -> bool:
    """Whether spikes of two trains come near to each other, but never as near as those of one neuron do not.

    A neuron's spikes after a pause and in a series may look different, as if they were two neurons'.

    Parameters
    ----------
    times, others : np.ndarray, float64 [num_spikes]
        In seconds.
    by_chance : float
        Two neurons are taken for one so often.

    Returns
    -------
    bool
    """
    (near, far), (low, high) = _RECOVERY_MS, _NEARBY_MS
    expected = count_intervals(times, others, between_ms=_NEARBY_MS) * (far - near) / (high - low)
    count = count_intervals(times, others, between_ms=_RECOVERY_MS)
    return count < _MOST_RECOVERED * expected and float(pdtr(count, expected)) < by_chance


def count_intervals(times: np.ndarray, others: np.ndarray, *, between_ms: tuple[float, float]) -> int:
    """Pairs of spikes of two trains that lie so far apart, whichever comes first.

    Parameters
    ----------
    times, others : np.ndarray, float64 [num_spikes]
        In seconds.
    between_ms : tuple of float
        Least and largest interval, in ms.

    Returns
    -------
    int
    """
    near, far = (limit / 1000 for limit in between_ms)
    others, count = np.sort(others), 0
    for low, high in ((near, far), (-far, -near)):
        count += int((np.searchsorted(others, times + high) - np.searchsorted(others, times + low)).sum())
    return count
