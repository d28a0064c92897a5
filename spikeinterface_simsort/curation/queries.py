"""Which units a person is asked to label next: four query strategies.

The strategies are those that ActSort compares for sorting cells of calcium imaging (Jiang et al., NeurIPS 2024). There
the mixture's weight is set by hand or by a schedule; here it is measured, see `discriminate`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from spikeinterface_simsort.curation.logistic import fit_logistic

Strategy = Literal["random", "cal", "dal", "dcal"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

_NUM_FOLDS = 5
# Of the coefficients that tell labelled from unlabelled units. Small: a few units among a thousand can be told by any
# of some thirty metrics.
_COEFFICIENT_SD = 0.2


def query_units(
    *,
    strategy: Strategy,
    features: np.ndarray,
    probability: np.ndarray,
    is_labelled: np.ndarray,
    num: int,
    seed: int,
) -> np.ndarray:
    """Choose unlabelled units, those first whose labels promise to teach most.

    Parameters
    ----------
    strategy : {"random", "cal", "dal", "dcal"}
        ``random``: any. ``cal``, confidence-based (uncertainty sampling, Lewis and Gale 1994): nearest the boundary of
        the present classifier. ``dal``, discriminative (Gissin and Shalev-Shwartz 2019): those that look least like
        what is labelled. ``dcal`` (Jiang et al. 2024): the sum of both ranks. The weight of the latter is how well
        labelled units can be told from unlabelled ones, times the mean uncertainty of the unlabelled: diversity as long
        as labels do not cover the units and the classifier knows little, the boundary when they do or it knows more.
    features : np.ndarray, float [num_units, num_features]
        On comparable scales, see `active.metric_features`.
    probability : np.ndarray, float [num_units]
        Of being good, by the present classifier.
    is_labelled : np.ndarray, bool [num_units]
        Whose labels are known.
    num : int
        How many to choose; fewer where fewer are left.
    seed : int
        Draws the random ones, and which comes first of equals.

    Returns
    -------
    np.ndarray, int64 [<= num]
        Indices of units, best first.

    Raises
    ------
    ValueError
        There is no such strategy, or the arrays do not belong together.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"There is no query strategy {strategy!r}: choose one of {', '.join(STRATEGIES)}.")
    if not len(features) == len(probability) == len(is_labelled):
        raise ValueError(
            f"Features of {len(features)} units, probabilities of {len(probability)} and labels of {len(is_labelled)} "
            "do not belong together."
        )
    unlabelled = np.flatnonzero(~is_labelled)
    # Sorting keeps the order of equals, which is thus drawn.
    unlabelled = np.random.default_rng(seed).permutation(unlabelled)
    if strategy == "random" or len(unlabelled) == 0:
        return unlabelled[:num]
    score, uncertain = np.zeros(len(unlabelled)), uncertainty(probability[unlabelled])
    weight = 0.0
    if strategy != "cal":
        novelty, weight = discriminate(features, is_labelled=is_labelled, seed=seed)
        # What the classifier is sure of from the start need not be explored.
        weight = 1.0 if strategy == "dal" else weight * float(uncertain.mean())
        score += weight * _ranks(novelty[unlabelled])
    score += (1.0 - weight) * _ranks(uncertain)
    return unlabelled[np.argsort(-score, kind="stable")[:num]]


def uncertainty(probability: np.ndarray) -> np.ndarray:
    """Nearness to the boundary of a classifier.

    Parameters
    ----------
    probability : np.ndarray, float [num_units]
        Of being good.

    Returns
    -------
    np.ndarray, float [num_units]
        1 at the boundary, 0 where the classifier is certain.
    """
    return 1.0 - np.abs(2.0 * probability - 1.0)


def discriminate(features: np.ndarray, *, is_labelled: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Train a classifier to tell labelled from unlabelled units.

    Parameters
    ----------
    features : np.ndarray, float [num_units, num_features]
        On comparable scales.
    is_labelled : np.ndarray, bool [num_units]
        Whose labels are known.
    seed : int
        Divides the units for cross-validation.

    Returns
    -------
    novelty : np.ndarray, float [num_units]
        Probability of being unlabelled, if there were as many of either.
    discriminability : float
        How well it can tell units that it was not trained on: 0 as by chance, 1 always (Gini coefficient, twice the
        area under the ROC curve less 1). 1 where too few are labelled to measure it.
    """
    num_labelled = int(is_labelled.sum())
    num_open = len(is_labelled) - num_labelled
    if min(num_labelled, num_open) == 0:
        return np.ones(len(is_labelled)), 1.0
    discriminability = 1.0
    num_folds = min(_NUM_FOLDS, num_labelled, num_open)
    if num_folds >= 2:
        held_out = np.zeros(len(is_labelled))
        for train, test in StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(features, is_labelled):
            held_out[test] = _novelty(features, train, is_labelled=is_labelled)[test]
        discriminability = max(2.0 * float(roc_auc_score(~is_labelled, held_out)) - 1.0, 0.0)
    return _novelty(features, np.arange(len(is_labelled)), is_labelled=is_labelled), discriminability


def _novelty(features: np.ndarray, train: np.ndarray, *, is_labelled: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(len(features)), features])
    is_open = ~is_labelled[train]
    # As many of either; together as many as there are labelled ones, which is what is known.
    num = np.array([len(train) - is_open.sum(), is_open.sum()])
    coefficients = fit_logistic(
        design[train],
        is_open,
        mean=np.zeros(design.shape[1]),
        precision=np.full(design.shape[1], _COEFFICIENT_SD**-2),
        weights=(num[0] / num)[is_open.astype(int)],
    )
    return expit(design @ coefficients)


def _ranks(values: np.ndarray) -> np.ndarray:
    # Between 0 and 1: probabilities of two classifiers are not on one scale.
    return (rankdata(values) - 0.5) / len(values)
