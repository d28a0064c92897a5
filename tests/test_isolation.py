"""Metrics of units in whitened space, on units that are wrong in one way each."""

import numpy as np
import pytest
from spikeinterface.core import NumpySorting

from spikeinterface_simsort.curation.isolation import ISOLATION_METRICS, isolation_metrics
from spikeinterface_simsort.curation.metrics import make_analyzer


def measured(recording, trains):
    units = NumpySorting.from_unit_dict(
        [{name: np.sort(train) for name, train in trains.items()}], recording.get_sampling_frequency()
    )
    analyzer = make_analyzer(recording, units)
    analyzer.compute(
        {"random_spikes": {"max_spikes_per_unit": 300, "seed": 0}, "noise_levels": {}, "waveforms": {}},
        progress_bar=False,
    )
    return isolation_metrics(analyzer)


@pytest.fixture(scope="module")
def trains(trial):
    truth = trial[1]
    return {str(unit): truth.get_unit_spike_train(unit) for unit in truth.unit_ids}


@pytest.fixture(scope="module")
def true_units(trial, trains):
    return measured(trial[0], trains)


def test_true_units_are_one_neuron_and_noise(true_units):
    assert list(true_units.columns) == list(ISOLATION_METRICS)
    assert true_units["residual"].between(0.6, 1.6).all()
    assert (true_units["detectability"] > 5).all() and (true_units["neighbour_distance"] > 3).all()
    for name in ("nearer_share", "overlap_share", "doubtful_share", "lost_share"):
        assert (true_units[name] < 0.15).all(), name
    assert (true_units["missed_share"] < 0.2).all()


def test_spikes_that_a_unit_lacks_are_in_the_traces(trial, trains, true_units):
    largest = true_units["detectability"].idxmax()
    table = measured(trial[0], trains | {largest: trains[largest][::2]})
    assert table.loc[largest, "missed_share"] == pytest.approx(0.5, abs=0.2)
    others = [name for name in trains if name != largest]
    table = measured(trial[0], trains | {largest: trains[largest][::2], "rest": trains[largest][1::2]})
    assert table.loc[largest, "lost_share"] + table.loc["rest", "lost_share"] > 0.5
    assert table.loc[largest, "neighbour_distance"] < 0.5 * true_units.loc[others, "neighbour_distance"].min()
    assert table.loc[largest, "nearer_share"] > 0.2


def test_two_neurons_in_one_unit_leave_more(trial, trains, true_units):
    one, two, *others = trains
    table = measured(trial[0], {"both": np.concatenate([trains[one], trains[two]])} | {o: trains[o] for o in others})
    assert table.loc["both", "elongation"] > 1.5 * true_units.loc[[one, two], "elongation"].max()
    assert table.loc["both", "residual"] > true_units["residual"].max()


def test_random_times_are_doubtful(trial, trains):
    times = np.random.default_rng(0).choice(trial[0].get_num_samples() - 2000, size=300, replace=False) + 1000
    assert measured(trial[0], trains | {"random": times}).loc["random", "doubtful_share"] > 0.8


def test_a_unit_that_goes_where_another_comes(trial, trains, true_units):
    name = true_units["detectability"].idxmax()
    half = trial[0].get_num_samples() // 2
    train = trains[name]
    table = measured(trial[0], trains | {name: train[train < half], "late": train[train >= half]})
    assert (table.loc[[name, "late"], "neighbour_balance"] < -0.5).all()
    assert (table.loc[[name, "late"], "neighbour_approach"] < 0.5 * table.loc[name, "detectability"]).all()


def test_units_that_share_a_refractory_period(trial, trains):
    name = max(trains, key=lambda unit: len(trains[unit]))
    table = measured(trial[0], trains | {"again": trains[name] + 2})
    assert (table.loc[[name, "again"], "split_distance"] < 3).all()


def test_few_spikes_and_one_unit_alone(trial, trains):
    name, *_ = trains
    table = measured(trial[0], {name: trains[name], "few": trains[name][:5]})
    assert table.loc["few"].isna().all()
    assert np.isnan(table.loc[name, "neighbour_distance"]) and table.loc[name, "residual"] < 2
