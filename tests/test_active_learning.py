from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from benchmarks.active_learning import PERCENTAGES, compare, draw, labels_needed
from spikeinterface_simsort.curation.active import (
    STABLE_LABELS,
    ActiveLearner,
    adapt_classifier,
    decision_threshold,
    metric_features,
)
from spikeinterface_simsort.curation.logistic import fit_logistic
from spikeinterface_simsort.curation.metrics import metric_columns
from spikeinterface_simsort.curation.queries import STRATEGIES, discriminate, query_units

NUM = 300


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(NUM, 5))


def make_units(num: int = NUM) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Metrics, whether units are good, and a prior probability that knows one metric of the two that matter."""
    rng = np.random.default_rng(1)
    metrics = pd.DataFrame(rng.normal(size=(num, 6)), columns=list("abcdef"))
    good = (metrics["a"] + 2 * metrics["b"] + rng.normal(scale=0.3, size=num) > 0).to_numpy()
    return metrics, good, expit(metrics["a"].to_numpy())


def balanced_accuracy(good: np.ndarray, said: np.ndarray) -> float:
    return (said[good].mean() + (~said[~good]).mean()) / 2


def test_features_depend_on_order_alone() -> None:
    values = np.random.default_rng(0).lognormal(sigma=3.0, size=50)
    scores = metric_features(pd.DataFrame({"x": values, "log": np.log(values)}))
    assert np.array_equal(scores[:, 0], scores[:, 1])
    assert scores.mean(axis=0) == pytest.approx(0.0, abs=1e-6)
    assert np.array_equal(np.argsort(scores[:, 0]), np.argsort(values))


def test_features_of_unknown_constant_and_textual_metrics() -> None:
    metrics = pd.DataFrame(
        {
            "known": [1.0, 2.0, np.nan, np.inf, 3.0],
            "unknown": [np.nan] * 5,
            "constant": [7, 7, 7, 7, 7],
            "text": list("abcde"),
        }
    )
    scores = metric_features(metrics)
    assert scores.shape == (5, 1)
    assert scores[[1, 2, 3], 0] == pytest.approx(0.0)
    assert scores[0, 0] == -scores[4, 0] < 0
    assert metric_features(metrics.iloc[:1]).shape == (1, 0)
    assert metric_features(metrics.iloc[:0]).shape == (0, 0)


def test_logistic_regression_is_the_usual_one_where_the_prior_is_0(features: np.ndarray) -> None:
    outcome = features @ [1.0, -1.0, 0.5, 0.0, 0.0] + np.random.default_rng(2).logistic(size=NUM) > 0
    weights = np.where(outcome, 2.0, 1.0)
    usual = LogisticRegression(C=0.25, fit_intercept=False, tol=1e-8).fit(features, outcome, sample_weight=weights)
    ours = fit_logistic(features, outcome, mean=np.zeros(5), precision=np.full(5, 4.0), weights=weights)
    assert ours == pytest.approx(usual.coef_[0], abs=1e-4)


def test_separable_outcomes_have_finite_coefficients(features: np.ndarray) -> None:
    coefficients = fit_logistic(features, features[:, 0] > 0, mean=np.zeros(5), precision=np.full(5, 0.01))
    assert np.isfinite(coefficients).all()
    assert coefficients[0] > 5 * np.abs(coefficients[1:]).max()


def test_without_labels_the_classifier_is_the_prior_one(features: np.ndarray) -> None:
    prior = np.random.default_rng(0).uniform(0.02, 0.98, NUM)
    nobody = np.zeros(0, dtype=int)
    adapted = adapt_classifier(features=features, prior=prior, labelled=nobody, is_good=nobody.astype(bool))
    assert adapted == pytest.approx(prior)


def test_certainty_of_the_prior_classifier_can_be_overruled(features: np.ndarray) -> None:
    prior, few = np.ones(NUM), np.arange(40)
    adapted = adapt_classifier(features=features, prior=prior, labelled=few, is_good=np.zeros(40, dtype=bool))
    assert np.isfinite(adapted).all()
    assert adapted.max() < 0.5


def test_boundary_comes_first_by_confidence(features: np.ndarray) -> None:
    probability = np.random.default_rng(0).permutation(np.linspace(0.0, 1.0, NUM))
    labelled = np.zeros(NUM, dtype=bool)
    labelled[np.argmin(np.abs(probability - 0.5))] = True
    chosen = query_units(
        strategy="cal", features=features, probability=probability, is_labelled=labelled, num=10, seed=0
    )
    distance = np.abs(probability - 0.5)
    assert not labelled[chosen].any()
    left_over = np.setdiff1d(np.flatnonzero(~labelled), chosen)
    assert distance[chosen].max() <= distance[left_over].min()


@pytest.mark.parametrize("strategy", ["dal", "dcal"])
def test_what_is_unlike_the_labelled_comes_first(features: np.ndarray, strategy: str) -> None:
    features[200:, 0] += 6.0
    labelled = np.zeros(NUM, dtype=bool)
    labelled[:100] = True
    probability = np.full(NUM, 0.9)
    chosen = query_units(
        strategy=strategy,  # type: ignore[arg-type]
        features=features,
        probability=probability,
        is_labelled=labelled,
        num=50,
        seed=0,
    )
    assert np.mean(chosen >= 200) > 0.9


def test_labels_that_cover_the_units_make_the_mixture_ask_at_the_boundary(features: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    labelled = rng.random(NUM) < 0.5
    probability = rng.random(NUM)
    _, discriminability = discriminate(features, is_labelled=labelled, seed=0)
    assert discriminability < 0.15
    mixed, confident = (
        query_units(strategy=strategy, features=features, probability=probability, is_labelled=labelled, num=20, seed=0)
        for strategy in ("dcal", "cal")
    )
    assert len({*mixed} & {*confident}) >= 15


def test_labels_of_one_corner_are_told_from_the_rest(features: np.ndarray) -> None:
    novelty, discriminability = discriminate(features, is_labelled=features[:, 0] > 0.8, seed=0)
    assert discriminability > 0.9
    assert np.corrcoef(novelty, features[:, 0])[0, 1] < -0.9


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("num_labelled", [0, 1, 2, NUM - 1, NUM])
def test_every_strategy_gives_each_unlabelled_unit_once(features: np.ndarray, strategy: str, num_labelled: int) -> None:
    labelled = np.arange(NUM) < num_labelled
    chosen = query_units(
        strategy=strategy,  # type: ignore[arg-type]
        features=features,
        probability=np.linspace(0, 1, NUM),
        is_labelled=labelled,
        num=NUM,
        seed=4,
    )
    assert sorted(chosen) == list(range(num_labelled, NUM))


def test_random_choice_depends_on_the_seed_alone(features: np.ndarray) -> None:
    def choose(seed: int) -> list[int]:
        nobody = np.zeros(NUM, dtype=bool)
        return query_units(
            strategy="random", features=features, probability=np.zeros(NUM), is_labelled=nobody, num=20, seed=seed
        ).tolist()

    assert choose(0) == choose(0) != choose(1)


def test_wrong_arguments_are_refused(features: np.ndarray) -> None:
    labelled = np.zeros(NUM, dtype=bool)
    with pytest.raises(ValueError, match="no query strategy 'best'"):
        query_units(
            strategy="best",  # type: ignore[arg-type]
            features=features,
            probability=np.zeros(NUM),
            is_labelled=labelled,
            num=1,
            seed=0,
        )
    with pytest.raises(ValueError, match="do not belong together"):
        query_units(strategy="cal", features=features, probability=np.zeros(3), is_labelled=labelled, num=1, seed=0)
    metrics, _, prior = make_units(10)
    with pytest.raises(ValueError, match="9 units"):
        ActiveLearner(unit_ids=range(9), metrics=metrics, prior=prior)
    with pytest.raises(ValueError, match="not between 0 and 1"):
        ActiveLearner(unit_ids=range(10), metrics=metrics, prior=np.full(10, np.nan))


def test_threshold_is_the_share_of_good_units_within_bounds() -> None:
    assert decision_threshold(np.array([0.1, 0.2, 0.6])) == pytest.approx(0.3)
    # Where all units are good, none is called bad for being a little less so.
    assert decision_threshold(np.array([0.9, 0.95, 0.99])) == 0.75
    assert decision_threshold(np.array([0.01, 0.02])) == 0.25


def test_threshold_weighs_both_kinds_of_units_equally() -> None:
    # Calibrated probabilities of rare good units: no other threshold does better by more than chance.
    rng = np.random.default_rng(6)
    probability = rng.beta(1.5, 4.0, 20_000)
    good = rng.random(20_000) < probability
    at = {value: balanced_accuracy(good, probability >= value) for value in (0.1, 0.2, 0.4, 0.5)}
    ours = balanced_accuracy(good, probability >= decision_threshold(probability))
    assert ours > max(at.values()) - 0.01
    assert ours > at[0.5] + 0.05


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_few_labels_improve_what_is_predicted_of_the_others(strategy: str) -> None:
    metrics, good, prior = make_units()
    learner = ActiveLearner(unit_ids=range(NUM), metrics=metrics, prior=prior, strategy=strategy)  # type: ignore[arg-type]
    before = balanced_accuracy(good, learner.predicted_good)
    labels: dict = {}
    for _ in range(30):
        labels |= {unit_id: bool(good[unit_id]) for unit_id in learner.query(1)}  # type: ignore[call-overload]
        learner.set_labels(labels)
    assert len(labels) == 30
    assert balanced_accuracy(good, learner.predicted_good) > before + 0.05


def test_undecided_units_teach_nothing_and_are_not_asked_for_again() -> None:
    metrics, good, prior = make_units(30)
    units = [f"unit {number}" for number in range(30)]
    learner = ActiveLearner(unit_ids=units, metrics=metrics, prior=prior)
    before = learner.probability
    learner.set_labels({"unit 3": None, "unit 5": None})
    assert np.array_equal(learner.probability, before)
    assert sorted(learner.query(30)) == sorted({*units} - {"unit 3", "unit 5"})  # type: ignore[type-var]
    progress = learner.progress()
    assert (progress.num_labelled, progress.num_units, progress.changed_share) == (0, 30, None)
    with pytest.raises(KeyError):
        learner.set_labels({"unit 99": True})


def test_hint_to_stop_comes_when_labels_change_nothing_more() -> None:
    metrics, good, prior = make_units()
    learner = ActiveLearner(unit_ids=range(NUM), metrics=metrics, prior=prior)
    learner.set_labels({unit: bool(good[unit]) for unit in range(STABLE_LABELS)})
    assert not learner.progress().may_stop
    # The last labels say that all is the other way round, ...
    few = {unit: bool(good[unit]) for unit in range(60)}
    learner.set_labels({**few, **{unit: not good[unit] for unit in range(60, 60 + STABLE_LABELS)}})
    assert learner.progress().changed_share > 0.02  # type: ignore[operator]
    assert not learner.progress().may_stop
    # ... or what is known already.
    many = {unit: bool(good[unit]) for unit in range(200)}
    learner.set_labels(many)
    surest = 200 + np.argsort(-np.abs(learner.probability[200:] - 0.5))[:STABLE_LABELS]
    learner.set_labels({**many, **{int(unit): bool(learner.predicted_good[unit]) for unit in surest}})
    assert learner.progress().may_stop
    learner.set_labels({unit: True for unit in range(NUM)})
    assert learner.progress().may_stop
    assert learner.progress().expected_errors == 0
    assert learner.query(5) == []


def test_one_unit_can_be_labelled() -> None:
    learner = ActiveLearner(unit_ids=["a"], metrics=pd.DataFrame({"snr": [5.0]}), prior=np.array([0.5]))
    assert learner.query(3) == ["a"]
    learner.set_labels({"a": True})
    assert learner.probability[0] > 0.5


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    num = 120
    rng = np.random.default_rng(5)
    units = pd.DataFrame(rng.normal(size=(num, len(metric_columns()))), columns=metric_columns())
    good = units.iloc[:, 0] + 0.5 * units.iloc[:, 1] > 0
    units["label"] = np.where(good, "sua", rng.choice(["mua", "noise"], num))
    return compare(units, num_seeds=2, priors=["none"], error_rates=[0.0, 0.3])


def test_simulated_people_are_scored_on_the_way(results: pd.DataFrame) -> None:
    assert len(results) == 2 * len(STRATEGIES) * 2 * len(PERCENTAGES)
    half = results[results["percentage"] == 50]
    assert (half["num_labelled"] == 60).all()
    means = half.groupby("error_rate")["balanced_accuracy"].mean()
    assert means[0.0] > 0.8
    assert means[0.3] < means[0.0] - 0.1
    rates = results[["true_positive_rate", "true_negative_rate"]].mean(axis=1)
    assert results["balanced_accuracy"].to_numpy() == pytest.approx(rates.to_numpy())


def test_labels_needed_are_read_off_the_curves(results: pd.DataFrame, tmp_path: Path) -> None:
    needed = labels_needed(results).set_index(["error_rate", "strategy"])
    assert (needed.xs("random", level="strategy")["needed"] <= 15).all()
    assert needed.loc[(0.0, "random"), "many"] == needed.loc[(0.0, "random"), "random_many"]
    draw(results, tmp_path / "figure.png", prior="none")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
