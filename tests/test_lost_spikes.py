"""What became of true spikes."""

import numpy as np
import pytest
from spikeinterface.core import NumpySorting

from benchmarks.lost_spikes import KINDS, count_losses

RATE = 10_000.0


def sorting_of(trains: dict[str, list[int]]) -> NumpySorting:
    return NumpySorting.from_unit_dict([{unit: np.array(train) for unit, train in trains.items()}], RATE)


def test_each_spike_is_counted_once() -> None:
    truth = sorting_of({"a": [1000, 2000, 3000, 4000, 5000], "b": [1500, 2005, 3500, 4500, 5500]})
    # b's second spike lies under a's; one of a is in b's unit, one in a unit too many, one of b is nowhere.
    found = sorting_of({"0": [1000, 2000, 3000], "1": [1500, 3500, 4000, 4500], "2": [5000, 9000]})
    losses = count_losses(truth, found)
    assert losses["found"] == pytest.approx(0.6)
    assert losses["in_another"] == pytest.approx(0.2)
    assert losses["in_extra_unit"] == pytest.approx(0.1)
    assert losses["missed"] == pytest.approx(0.1)
    assert losses["lost_in_overlap"] == pytest.approx(0.1)
    assert losses["false"] == pytest.approx(0.1)
    assert sum(losses[kind] for kind in KINDS) == pytest.approx(1.0)


def test_nothing_found_is_all_missed() -> None:
    losses = count_losses(sorting_of({"a": [1000, 2000]}), sorting_of({}))
    assert losses["missed"] == 1.0
    assert losses["false"] == 0.0
