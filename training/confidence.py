"""The fit of what predicts a unit's accuracy (`spikeinterface_simsort.confidence`), on recordings with a truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from spikeinterface.core import BaseRecording, BaseSorting

from spikeinterface_simsort.confidence import FEATURES, AccuracyModel, unit_features
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.peaks import match_spikes, separated_times
from spikeinterface_simsort.pipeline import find_units
from spikeinterface_simsort.refinement import Unit
from spikeinterface_simsort.weights import Weights

# Spikes of a unit and of a true neuron match within this time.
DELTA_MS = 1.0
# The range of a feature is what lies between these quantiles.
_RANGE = (0.005, 0.995)
_INVERSE_RIDGE = 0.5
_MAX_ITERATIONS = 5000


def score_units(
    recording: BaseRecording, truth: BaseSorting, *, weights: Weights, params: SimSortParams, num_merged: int = 0
) -> pd.DataFrame:
    """Sort a recording, and say how accurate each unit is.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        Of one tetrode.
    weights : Weights
        The networks.
    params : SimSortParams
        Resolved.
    num_merged : int
        So many units are, each by itself, made one with the unit that is most like it, and told of too: the sorter
        itself hardly leaves two neurons in one unit, and a model that saw none would not know what they look like.

    Returns
    -------
    pandas.DataFrame
        A row a unit: ``num_spikes``; ``is_merged``; ``accuracy`` with the true neuron that it agrees with best, 0 where
        there is none; and its features, see `confidence.unit_features`.
    """
    peaks, waveforms, units, is_matched = find_units(recording, weights=weights, params=params)
    rate = recording.get_sampling_frequency()
    describe = partial(
        unit_features,
        peaks,
        waveforms,
        is_matched=is_matched,
        sampling_frequency=rate,
        num_frames=[recording.get_num_samples(segment) for segment in range(recording.get_num_segments())],
        seed=params.seed,
    )
    times, spikes = separated_times(peaks), truth.to_spike_vector()
    true_times = separated_times(spikes)
    true_trains = [true_times[spikes["unit_index"] == index] for index in range(len(truth.unit_ids))]
    shown, features = list(units), describe(units)
    if len(units) > 1:
        for index in np.random.default_rng(params.seed).permutation(len(units))[:num_merged]:
            sorting = _merge(peaks, units, int(index))
            shown.append(sorting[-1])
            features = np.concatenate([features, describe(sorting)[-1:]])
    trains = [times[unit.spikes] for unit in shown]
    table = pd.DataFrame(features, columns=list(FEATURES))
    table.insert(0, "num_spikes", [len(train) for train in trains])
    table.insert(1, "is_merged", np.arange(len(shown)) >= len(units))
    table.insert(2, "accuracy", best_accuracies(trains, true_trains, delta_frames=DELTA_MS * rate / 1000))
    return table


def _merge(peaks: np.ndarray, units: Sequence[Unit], index: int) -> list[Unit]:
    """Units of which one and that most like it are one, the last."""
    unit, others = units[index], [other for other in units if other is not units[index]]
    nearest = min(others, key=lambda other: float(np.linalg.norm(other.template - unit.template)))
    spikes = np.sort(np.concatenate([unit.spikes, nearest.spikes]))
    shares = np.array([len(unit.spikes), len(nearest.spikes)]) / len(spikes)
    template = shares[0] * unit.template + shares[1] * nearest.template
    probability, snr = float(peaks["probability"][spikes].mean()), float(np.abs(template).max())
    merged = replace(unit, spikes=spikes, template=template, snr=snr, probability=probability)
    return [*(other for other in others if other is not nearest), merged]


def best_accuracies(found: Sequence[np.ndarray], truth: Sequence[np.ndarray], *, delta_frames: float) -> np.ndarray:
    """Accuracy of each train found, with the true one that it agrees with best.

    Parameters
    ----------
    found, truth : sequence of np.ndarray, int64 [num_spikes]
        Trains, increasing.
    delta_frames : float
        Largest distance of two spikes that match.

    Returns
    -------
    np.ndarray, float64 [num_found]
        Spikes that match over all spikes of both.
    """
    best = np.zeros(len(found))
    for index, train in enumerate(found):
        for true_train in truth:
            num_matched = len(match_spikes(train, true_train, delta=delta_frames)[0])
            best[index] = max(best[index], num_matched / max(len(train) + len(true_train) - num_matched, 1))
    return best


def fit_model(features: np.ndarray, accuracies: np.ndarray) -> AccuracyModel:
    """Fit the logistic regression of accuracies on features and their products, with a ridge.

    Parameters
    ----------
    features : np.ndarray, float64 [num_units, num_features]
        See `confidence.unit_features`.
    accuracies : np.ndarray, float64 [num_units]
        Between 0 and 1.

    Returns
    -------
    AccuracyModel

    Raises
    ------
    ValueError
        There are fewer units than coefficients, or all are equally accurate.
    """
    num_features = len(FEATURES)
    num_terms = (num_features + 1) * (num_features + 2) // 2
    if len(features) < num_terms or np.ptp(accuracies) == 0:
        raise ValueError(
            f"{len(features)} units, with accuracies from {accuracies.min(initial=1.0):.2f} to "
            f"{accuracies.max(initial=0.0):.2f}, are too few to fit {num_terms} coefficients: simulate more, and more "
            "different, trials."
        )
    low, high = np.quantile(features, _RANGE, axis=0)
    clipped = np.clip(features, low, high)
    model = AccuracyModel(
        low=low,
        high=high,
        centre=clipped.mean(axis=0),
        # A feature that is the same everywhere tells nothing.
        scale=np.where(np.ptp(clipped, axis=0) > 0, clipped.std(axis=0), 1.0),
        coefficients=np.zeros(num_terms),
    )
    terms = model.terms(features)
    # A unit of accuracy 0.7 is one that is right, with a weight of 0.7, and one that is wrong, with the rest.
    regression = LogisticRegression(C=_INVERSE_RIDGE, fit_intercept=False, max_iter=_MAX_ITERATIONS).fit(
        np.concatenate([terms, terms]),
        np.repeat([1, 0], len(terms)),
        sample_weight=np.concatenate([accuracies, 1 - accuracies]),
    )
    return replace(model, coefficients=regression.coef_[0])
