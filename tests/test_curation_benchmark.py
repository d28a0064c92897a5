"""What sorted units truly are, how labels are scored, and how the classifier is trained."""

import json

import numpy as np
import pandas as pd
import pytest
from spikeinterface.core import NumpySorting

from benchmarks.curation import METHODS, draw, label, score
from benchmarks.curation_scores import binary_scores, calibration, calibration_error
from benchmarks.curation_training import INFO, MODEL, NOT_FEATURES, balance, features, train
from benchmarks.curation_trials import RECIPE, SORTERS, sorters_of
from benchmarks.curation_units import true_labels
from spikeinterface_simsort.curation.metrics import metric_columns
from spikeinterface_simsort.curation.models import BUNDLED_MODEL, CLASSES, classify

RATE = 30000.0


def sorting_of(**trains):
    return NumpySorting.from_unit_dict([{name: np.sort(train) for name, train in trains.items()}], RATE)


def test_true_labels():
    one, two, silent = np.arange(0, 900_000, 3000), np.arange(1500, 900_000, 3000), np.arange(700, 900_000, 3000)
    truth = sorting_of(a=one, b=two)
    found = sorting_of(
        single=one[:-30] + 10, both=np.concatenate([one, two]), half=one[::2], noise=silent, share=[*one[:100], *silent]
    )
    table = true_labels(truth, found)
    assert table["label"].to_dict() == {
        "single": "sua",
        "both": "mua",
        "half": "mua",
        "noise": "noise",
        "share": "noise",
    }
    assert table.loc["single", "accuracy"] == pytest.approx(270 / 300)
    assert table.loc["half", "accuracy"] == pytest.approx(0.5)
    assert table.loc["share", "true_share"] == pytest.approx(100 / 400)


def test_true_labels_without_truth():
    table = true_labels(NumpySorting.from_unit_dict([{}], RATE), sorting_of(a=np.arange(10, 1000, 50)))
    assert table["label"].tolist() == ["noise"] and table["accuracy"].tolist() == [0.0]


def test_scores_of_labels():
    good = np.array([True, True, True, False, False])
    said = np.array([True, True, False, True, False])
    scores = binary_scores(good, said, np.array([0.9, 0.8, 0.3, 0.6, 0.1]))
    assert scores["sensitivity"] == pytest.approx(2 / 3) and scores["specificity"] == pytest.approx(1 / 2)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["auc"] == pytest.approx(5 / 6)
    assert np.isnan(binary_scores(good[:3], said[:3])["balanced_accuracy"])


def test_calibration_of_probabilities():
    good = np.array([True, False, True, True])
    probability = np.array([0.55, 0.55, 0.95, 1.0])
    table = calibration(good, probability)
    assert table["num_units"].tolist() == [2, 2]
    assert table["share"].tolist() == [0.5, 1.0]
    assert calibration_error(good, probability) == pytest.approx((0.05 + 0.025) / 2)


def test_trials_for_the_classifier():
    assert RECIPE.draw(1) != RECIPE.draw(2)
    assert sorters_of(0) == tuple(SORTERS) and "kilosort4" not in sorters_of(1)


def test_features_know_nothing_of_units_and_durations():
    assert set(NOT_FEATURES) < set(metric_columns())
    assert set(features()) | set(NOT_FEATURES) == set(metric_columns())


@pytest.fixture(scope="module")
def units():
    """Units of three kinds, which the signal-to-noise ratio and the share of neighbours tell apart."""
    rng = np.random.default_rng(0)
    labels = np.repeat(CLASSES, 60)
    table = pd.DataFrame(rng.normal(size=(len(labels), len(metric_columns()))), columns=metric_columns())
    kind = np.repeat(np.arange(3), 60)
    table["snr"] = 12.0 - 4.0 * kind + rng.normal(size=len(labels))
    table["nn_hit_rate"] = 0.9 - 0.3 * kind + 0.05 * rng.normal(size=len(labels))
    table.loc[::7, "amplitude_cutoff"] = np.nan
    table = table.assign(label=labels, accuracy=0.9 - 0.4 * kind, true_share=1.0 - 0.4 * kind, num_spikes=500)
    table["bombcell"] = np.where(kind == 2, "noise", np.where(rng.random(len(labels)) < 0.5, "good", "mua"))
    table["thresholds"] = np.where(rng.random(len(labels)) < 0.5, "good", "bad")
    return table.assign(family=np.tile(["one", "other"], 90), dataset="0", sorter="simsort", unit=np.arange(180))


@pytest.mark.parametrize("good_share", [0.2, 0.6])
def test_units_are_repeated_until_so_many_are_good(units, good_share):
    table = balance(units, good_share=good_share)
    assert (table["label"] == "sua").mean() == pytest.approx(good_share, abs=0.01)
    pd.testing.assert_frame_equal(table.iloc[: len(units)], units)


def test_training_gives_a_model_of_spikeinterface(units, tmp_path):
    train(units, folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([MODEL, INFO])
    probabilities = classify(units, model=tmp_path)
    assert set(probabilities.columns) == set(CLASSES)
    assert (probabilities.idxmax(axis=1) == units["label"]).mean() > 0.9
    info = json.loads((tmp_path / INFO).read_text())
    assert "snr" in info["metric_params"]["quality_metric_params"]["metric_params"]


def test_scores_and_picture_of_the_benchmark(units, tmp_path):
    labelled = label(units)
    scores = score(labelled)
    overall = scores[scores["part"] == "all"].set_index("method")
    assert list(overall.index) == list(METHODS) and (overall["num_units"] == 180).all()
    said = labelled["bombcell"] == "good"
    assert overall.loc["bombcell", "sensitivity"] == pytest.approx(said[labelled["label"] == "sua"].mean())
    assert set(scores[scores["part"] == "family"]["name"]) == {"one", "other"}
    draw(labelled, scores, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_bundled_model_is_small_and_described():
    assert sum(path.stat().st_size for path in BUNDLED_MODEL.iterdir()) < 2e6
    card = (BUNDLED_MODEL / "README.md").read_text(encoding="utf-8")
    for what in ("## Training", "## Scores", "CC BY-NC-SA 4.0"):
        assert what in card
