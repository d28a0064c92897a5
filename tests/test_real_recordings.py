"""Recordings of the brain, without ground truth: what can be asked of the units all the same."""

import json

import numpy as np
import pytest
import spikeinterface.sorters as ss
from spikeinterface.core import read_binary


@pytest.fixture(scope="module")
def locust(shared_data):
    """29 s of a tetrode in the locust's antennal lobe."""
    folder = shared_data / "recordings" / "locust"
    info = json.loads((folder / "info.json").read_text(encoding="utf8"))
    return read_binary(
        folder / "locust_trial_01.raw",
        sampling_frequency=info["sample_rate"],
        dtype=info["dtype"],
        num_channels=info["shape"][1],
    )


@pytest.fixture(scope="module")
def sorted_locust(locust, tmp_path_factory):
    return ss.run_sorter("simsort", locust, folder=tmp_path_factory.mktemp("locust") / "out")


def test_locust_recording(locust):
    assert locust.sampling_frequency == 15000.0 and locust.get_num_channels() == 4
    assert locust.get_total_duration() == pytest.approx(28.8, abs=0.1)


def test_locust_units(sorted_locust):
    assert len(sorted_locust.unit_ids) >= 5
    assert np.sum(sorted_locust.get_property("snr") > 6.0) >= 4


def test_locust_trains_keep_the_refractory_period(sorted_locust):
    for unit in sorted_locust.unit_ids:
        intervals_ms = np.diff(sorted_locust.get_unit_spike_train(unit, return_times=False)) / 15.0
        assert np.mean(intervals_ms < 1.5) < 0.02, unit


def test_locust_trains_lie_inside_the_recording(sorted_locust, locust):
    for unit in sorted_locust.unit_ids:
        train = sorted_locust.get_unit_spike_train(unit)
        assert train[0] >= 0 and train[-1] < locust.get_num_samples()
        assert np.all(np.diff(train) > 0)
