"""What the times of two units' spikes tell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from spikeinterface_simsort.intervals import (
    _rank_sum_p_value,
    count_intervals,
    differ_by_pauses,
    fire_in_turns,
    fire_independently,
    fire_together,
    share_refractory_period,
)


def test_pairs_are_counted_whichever_comes_first() -> None:
    times, others = np.array([1.0, 2.0, 3.0]), np.array([3.0045, 1.001, 1.9985, 2.5])
    assert count_intervals(times, others, between_ms=(0.5, 2.0)) == 2
    assert count_intervals(others, times, between_ms=(0.5, 2.0)) == 2
    assert count_intervals(times, others, between_ms=(0.5, 5.0)) == 3
    assert count_intervals(times, others[:0], between_ms=(0.5, 5.0)) == 0


def test_turns() -> None:
    rng = np.random.default_rng(0)
    early, late = rng.uniform(0, 50, 200), rng.uniform(50, 100, 200)
    assert fire_in_turns(early, late)
    assert not fire_in_turns(early, rng.uniform(0, 100, 200))
    # Of a few spikes nothing is known.
    assert not fire_in_turns(early[:20], late[:20])


def test_only_two_neurons_fire_within_each_others_refractory_period() -> None:
    rng = np.random.default_rng(0)
    times, others = rng.uniform(0, 100, 600), rng.uniform(0, 100, 600)
    assert fire_together(times, others, duration_s=100.0)
    # 80 ms from each other, at least.
    assert not fire_together(np.arange(600) / 6, np.arange(600) / 6 + 0.08, duration_s=100.0)
    # One or two of many are other spikes.
    mostly = np.concatenate([np.arange(600) / 6 + 0.08, [0.001]])
    assert not fire_together(np.arange(600) / 6, mostly, duration_s=100.0)


def test_one_neurons_spikes_differ_by_the_pauses_before_them() -> None:
    rng = np.random.default_rng(3)
    pauses = 0.005 + rng.exponential(0.1, 400)
    times = np.cumsum(pauses)
    soon = pauses + rng.normal(0, 0.03, 400) < 0.08
    assert differ_by_pauses(times[soon], times[~soon])
    others = rng.permutation(soon)
    assert not differ_by_pauses(times[others], times[~others])
    assert not differ_by_pauses(times[:20], times[20:])
    # What differs by rounding alone does not.
    regular = np.arange(650) / 10
    assert not differ_by_pauses(regular[:400], regular[400:])


def test_two_neurons_fire_independently() -> None:
    rng = np.random.default_rng(1)
    times, others = rng.uniform(0, 100, 800), rng.uniform(0, 100, 800)
    assert fire_independently(times, others)
    # Of few spikes that is not sure, and one neuron's halves do not.
    assert not fire_independently(times[:100], others[:100])
    one = np.cumsum(0.003 + rng.exponential(0.05, 1600))
    assert not fire_independently(one[::2], one[1::2])


def test_spikes_of_one_neuron_share_their_refractory_period() -> None:
    rng = np.random.default_rng(0)
    intervals = 0.005 + rng.exponential(0.05, 4000)
    times = np.cumsum(intervals)
    # After a pause they look different.
    paused = intervals > 0.03
    assert share_refractory_period(times[paused], times[~paused], by_chance=0.002)
    others = rng.uniform(0, times[-1], 2000)
    assert not share_refractory_period(times[paused], others, by_chance=0.002)
    # Of few spikes it is not known for sure.
    few = times < times[400]
    assert share_refractory_period(times[few & paused], times[few & ~paused], by_chance=0.3)
    assert not share_refractory_period(times[few & paused], times[few & ~paused], by_chance=1e-9)
    # A few spikes tell nothing, nor do neurons that never fire at the same time.
    assert not share_refractory_period(times[paused][:60], times[~paused][:60], by_chance=0.002)
    assert not share_refractory_period(times[paused], times[~paused] + times[-1], by_chance=0.002)


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
def test_rank_sums(decimals: int, shift: float) -> None:
    """The test is SciPy's, with ties and without."""
    rng = np.random.default_rng(0)
    is_first = rng.random(300) < 0.3
    values = (rng.exponential(size=300) + shift * is_first).round(decimals)
    expected = mannwhitneyu(values[is_first], values[~is_first], method="asymptotic").pvalue
    assert _rank_sum_p_value(values, is_first) == pytest.approx(expected, rel=1e-9)


def test_rank_sums_of_equal_values() -> None:
    assert _rank_sum_p_value(np.ones(50), np.arange(50) < 20) == 1.0
