"""Benchmarks of the training: the tables that they make, on spikes that are known."""

import numpy as np
import pytest
import yaml

from benchmarks import detector, training_studies
from spikeinterface_simsort.simulation.recipe import load_recipe
from spikeinterface_simsort.training.run import load_config


@pytest.fixture
def detected():
    """Ten true spikes, of units of SNR 5 and 10; the network finds all but one, and one that is none."""
    times = np.arange(10) * 20.0
    return detector.DetectedTrial(
        times_ms=times,
        snr=np.tile([5.0, 10.0], 5),
        distance_ms=np.repeat([0.1, 3.0], 5),
        found={"network": np.array([*times[:9] + 0.6, 199.0]), "3 MAD": times[:4], "4 MAD": times, "5 MAD": times[:0]},
        probability=np.array([0.9] * 8 + [0.2, 0.3]),
    )


def test_scores_by_method(detected):
    table = detector.by_method([detected, detected], threshold=0.1).set_index(["method", "delta_ms"])
    assert table.loc[("network", 1.0), "recall"] == 0.9
    assert table.loc[("network", 1.0), "precision"] == 0.9
    assert table.loc[("network", 1.0), "accuracy"] == pytest.approx(9 / 11)
    # What is 0.6 ms off is no spike at 0.4 ms.
    assert table.loc[("network", 0.4), "accuracy"] == 0.0
    assert table.loc[("3 MAD", 0.4), "accuracy"] == 0.4
    assert table.loc[("4 MAD", 0.4), "accuracy"] == 1.0
    assert table.loc[("5 MAD", 1.0), "accuracy"] == table.loc[("5 MAD", 1.0), "precision"] == 0.0
    assert (table["accuracy_sem"] == 0.0).all()


def test_scores_by_threshold(detected):
    table = detector.by_threshold([detected]).set_index("threshold")
    assert table.loc[0.1, "recall"] == 0.9 and table.loc[0.1, "precision"] == 0.9
    assert table.loc[0.4, "recall"] == 0.8 and table.loc[0.4, "precision"] == 1.0
    # Spikes 0, 2, 4, 6 and 8 are small; the one that is found with 0.2 is the last.
    assert table.loc[0.1, "recall_snr_4_to_6"] == 1.0 and table.loc[0.4, "recall_snr_4_to_6"] == 0.8
    assert table.loc[0.95, "recall"] == table.loc[0.95, "accuracy"] == 0.0


@pytest.mark.parametrize(
    ("field", "edges", "recalls"),
    [
        ("snr", detector.SNR_EDGES, {4.0: 1.0, 8.0: 0.8}),
        ("distance_ms", detector.DISTANCE_EDGES_MS, {0.0: 1.0, 2.0: 0.8}),
    ],
)
def test_recall_in_bins(detected, field, edges, recalls, tmp_path):
    table = detector.binned_recall([detected], field=field, edges=edges, threshold=0.1).set_index(f"{field}_from")
    assert table["num_spikes"].sum() == 10
    for low, recall in recalls.items():
        assert table.loc[low, "num_spikes"] == 5 and table.loc[low, "network, 1.0 ms"] == recall
    empty = table[table["num_spikes"] == 0]
    assert len(empty) and empty["network, 1.0 ms"].isna().all()


def test_detected_trial_of_a_recording(trial):
    from spikeinterface_simsort.weights import load_weights

    recording, truth = trial
    found = detector.detect_trial(recording, truth, weights=load_weights())
    assert len(found.times_ms) == len(truth.to_spike_vector())
    assert found.snr.min() > 3.0 and len(np.unique(found.snr)) == len(truth.unit_ids)
    # The nearest spike of another unit, the slow way.
    spikes = truth.to_spike_vector()
    for i in (0, 7, len(spikes) // 2, len(spikes) - 1):
        others = spikes["sample_index"][spikes["unit_index"] != spikes["unit_index"][i]]
        nearest = np.abs(others - spikes["sample_index"][i]).min() / 30.0
        assert found.distance_ms[i] == pytest.approx(nearest)
    table = detector.by_method([found, found], threshold=0.4).set_index(["method", "delta_ms"])
    assert table.loc[("network", 1.0), "accuracy"] > 0.9


@pytest.mark.parametrize("study", list(training_studies.STUDIES))
def test_variants_say_what_training_can_do(study, tmp_path):
    for name, variant in training_studies.STUDIES[study].items():
        config = training_studies.make_config(variant, folder=tmp_path / name, num_batches=10, seed=3)
        assert config["seed"] == 3 and config["detector"]["batches_per_epoch"] == 5
        recipe = load_recipe(config["recipe"])
        for field, value in variant.recipe.items():
            assert recipe.values[field] == value
        seen_ms = 1000 * config["detector"]["kwargs"]["num_samples"] / config["sampling_frequency"]
        assert seen_ms == pytest.approx(3.6)
        duration_ms = config["embedder"]["ms_before"] + config["embedder"]["ms_after"]
        num_samples = config["embedder"]["kwargs"]["num_samples"]
        assert num_samples == round(duration_ms * config["sampling_frequency"] / 1000)
    # The first is the default, which the others are compared with.
    first = next(iter(training_studies.STUDIES[study].values()))
    assert first.config in ({}, {"embedder": {}}) and not first.recipe and not first.params


def test_variants_are_compared_trial_by_trial():
    first = {"sorting": [0.2, 0.8], "detection": [0.5, 0.5], "ari": [1.0, 1.0]}
    other = {"sorting": [0.3, 0.9], "detection": [0.7, 0.5], "ari": [1.0, 1.0]}
    table = training_studies.compare({"default": first, "other": other})
    assert table.loc["default", "sorting"] == 0.5 and table.loc["default", "sorting_ahead"] == 0.0
    assert table.loc["other", "sorting_ahead"] == pytest.approx(0.1)
    assert table.loc["other", "sorting_ahead_sem"] == pytest.approx(0.0, abs=1e-12)
    assert table.loc["other", "detection_ahead"] == pytest.approx(0.1) == table.loc["other", "detection_ahead_sem"]


def test_scaling_is_drawn(tmp_path):
    scores = {name: {score: [0.8, 0.9] for score in training_studies.SCORES} for name in ("all", "few", "seldom")}
    table = training_studies.compare(scores).assign(num_neurons=[600, 10, 600], num_trials=[1000, 1000, 10])
    training_studies.draw_scaling(table, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 5000


def test_a_variant_leaves_the_default_alone(tmp_path):
    before = yaml.safe_dump(load_config("default"))
    for variant in training_studies.STUDIES["ablations"].values():
        training_studies.make_config(variant, folder=tmp_path, num_batches=4, seed=0)
    assert yaml.safe_dump(load_config("default")) == before
