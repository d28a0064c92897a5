"""Active learning of which units are good: a classifier that labels adapt, and whom to ask about next."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from spikeinterface_simsort.curation.logistic import fit_logistic
from spikeinterface_simsort.curation.queries import Strategy, query_units

if TYPE_CHECKING:
    import pandas as pd

    # From a table of metrics, a row a unit, to the probability of each unit to be good.
    Prior = Callable[[pd.DataFrame], np.ndarray]

# Standard deviations of the coefficients about those of the prior classifier: what the labels do not ask for remains.
_METRIC_SD, _PRIOR_SD, _BIAS_SD = 0.14, 0.25, 0.5
# No classifier knows more than that.
_LARGEST_LOG_ODDS = 4.0
# A unit that is three times as likely good as not is called good, whatever the others are; and the other way round.
_THRESHOLDS = (0.25, 0.75)
# Less sure than that is open.
_SURE = 0.9
# More labels are of little use once the last so many changed what is predicted of no more than this share of the units.
STABLE_LABELS, STABLE_SHARE = 20, 0.01


def metric_features(metrics: pd.DataFrame) -> np.ndarray:
    """Put metrics on one scale, whatever their units and tails.

    Parameters
    ----------
    metrics : pandas.DataFrame
        A row a unit, a column a metric; NaN where one could not be computed.

    Returns
    -------
    np.ndarray, float64 [num_units, num_features]
        Normal scores of each metric among these units, 0 where it is not known. Columns that are no numbers, or the
        same for all units, are left out.
    """
    numbers = metrics.select_dtypes("number").astype(float).replace([np.inf, -np.inf], np.nan)
    numbers = numbers.loc[:, numbers.nunique() > 1]
    ranks = (numbers.rank() - 0.5) / numbers.count()
    return np.nan_to_num(norm.ppf(ranks.to_numpy()))


def adapt_classifier(
    *, features: np.ndarray, prior: np.ndarray, labelled: np.ndarray, is_good: np.ndarray
) -> np.ndarray:
    """Adapt a classifier to labels, as far as they contradict it.

    Logistic regression on the log odds of the prior classifier and on the metrics, with a Gaussian prior of the
    coefficients whose mean is the prior classifier itself.

    Parameters
    ----------
    features : np.ndarray, float [num_units, num_features]
        See `metric_features`.
    prior : np.ndarray, float [num_units]
        Probability of being good, by the prior classifier.
    labelled : np.ndarray, int [num_labels]
        Indices of the units whose labels are known. Without any the result is `prior`, except where that is all but
        certain.
    is_good : np.ndarray, bool [num_labels]
        Their labels.

    Returns
    -------
    np.ndarray, float [num_units]
        Probability of being good.
    """
    log_odds = np.clip(logit(prior), -_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS)
    design = np.column_stack([np.ones(len(prior)), log_odds, features])
    mean = np.zeros(design.shape[1])
    mean[1] = 1.0
    sd = np.full(design.shape[1], _METRIC_SD)
    sd[:2] = _BIAS_SD, _PRIOR_SD
    coefficients = fit_logistic(design[labelled], is_good, mean=mean, precision=sd**-2)
    return expit(design @ coefficients)


def decision_threshold(probability: np.ndarray) -> float:
    """Probability from which on a unit is called good, so that good units and others are told with equal accuracy.

    Parameters
    ----------
    probability : np.ndarray, float [num_units]
        Of being good.

    Returns
    -------
    float
        The share of good units, as far as is known: that maximises the expected balanced accuracy. Between 0.25 and
        0.75, as where nearly all units are good, one that is probably good is not to be called bad for being less
        certain than others.
    """
    return float(np.clip(probability.mean(), *_THRESHOLDS)) if len(probability) else 0.5


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a person is with the units of a sorting.

    Attributes
    ----------
    num_labelled, num_units : int
        Units whose labels teach the classifier, and all.
    num_unsettled : int
        Units about which it is less than 90 % sure, and which nobody has labelled.
    expected_errors : float
        How many of the units that nobody has labelled it expects to be wrong about.
    changed_share : float or None
        Share of the units of which something else would be predicted without the last `STABLE_LABELS` labels; None
        where there are no more than these.
    may_stop : bool
        Whether that is `STABLE_SHARE` or less, or nothing is left to label.
    """

    num_labelled: int
    num_units: int
    num_unsettled: int
    expected_errors: float
    changed_share: float | None
    may_stop: bool


class ActiveLearner:
    """A classifier of units that asks for labels and learns from them.

    Parameters
    ----------
    unit_ids : sequence of int or str
        Of the sorting.
    metrics : pandas.DataFrame
        A row a unit, in the same order.
    prior : np.ndarray, float [num_units]
        Probability of being good, by a classifier that knows nothing of this sorting.
    strategy : {"random", "cal", "dal", "dcal"}
        How to choose, see `queries.query_units`.
    seed : int
        Of what is drawn.

    Raises
    ------
    ValueError
        Units, metrics and probabilities are not equally many, or a probability is none.

    Attributes
    ----------
    probability : np.ndarray, float [num_units]
        Of being good, by what was learnt so far.
    threshold : float
        From which on a unit is called good, see `decision_threshold`.
    """

    def __init__(
        self,
        *,
        unit_ids: Sequence[Hashable],
        metrics: pd.DataFrame,
        prior: np.ndarray,
        strategy: Strategy = "dcal",
        seed: int = 0,
    ) -> None:
        if not len(unit_ids) == len(metrics) == len(prior):
            raise ValueError(
                f"{len(unit_ids)} units, metrics of {len(metrics)} and prior probabilities of {len(prior)} do not "
                "belong together."
            )
        prior = np.asarray(prior, dtype=float)
        if not np.all((prior >= 0) & (prior <= 1)):
            raise ValueError("A prior probability is not between 0 and 1.")
        self.unit_ids = list(unit_ids)
        self.strategy: Strategy = strategy
        self._seed = seed
        self._index = {unit_id: index for index, unit_id in enumerate(self.unit_ids)}
        self._features = metric_features(metrics)
        self._prior = prior
        self._is_set_aside = np.zeros(len(prior), dtype=bool)
        # Indices of labelled units, in the order of their labels, and these.
        self._labelled = np.zeros(0, dtype=np.int64)
        self._is_good = np.zeros(0, dtype=bool)
        self._learn()

    def set_labels(self, labels: Mapping[Hashable, bool | None]) -> None:
        """Take labels in place of all that were given, and learn from them.

        Parameters
        ----------
        labels : mapping
            From units, in the order in which they were labelled, to whether they are good; None for those that a person
            cannot decide about, which are not asked for again and teach nothing.

        Raises
        ------
        KeyError
            There is no such unit.
        """
        indices = np.array([self._index[unit_id] for unit_id in labels], dtype=np.int64)
        is_decided = np.array([is_good is not None for is_good in labels.values()], dtype=bool)
        self._is_set_aside[:] = False
        self._is_set_aside[indices[~is_decided]] = True
        self._labelled = indices[is_decided]
        self._is_good = np.array([is_good for is_good in labels.values() if is_good is not None], dtype=bool)
        self._learn()

    def query(self, num: int) -> list[Hashable]:
        """Choose units to be labelled next.

        Parameters
        ----------
        num : int
            How many; fewer where fewer are left.

        Returns
        -------
        list
            Of unit ids, those first that promise to teach most.
        """
        is_done = ~self._is_open()
        chosen = query_units(
            strategy=self.strategy,
            features=self._features,
            # Half at the threshold.
            probability=expit(logit(self.probability) - logit(self.threshold)),
            is_labelled=is_done,
            num=num,
            # Another draw each time, the same for the same labels.
            seed=self._seed + int(is_done.sum()),
        )
        return [self.unit_ids[index] for index in chosen]

    def progress(self) -> Progress:
        """Say how far the labels have come."""
        is_open = self._is_open()
        probability = self.probability[is_open]
        num_labelled = len(self._labelled)
        changed = None
        if num_labelled > STABLE_LABELS:
            before = self._adapt(num_labelled - STABLE_LABELS)
            changed = float(np.mean((before >= decision_threshold(before)) != self.predicted_good))
        return Progress(
            num_labelled=num_labelled,
            num_units=len(self.unit_ids),
            num_unsettled=int(np.sum(np.maximum(probability, 1.0 - probability) < _SURE)),
            expected_errors=float(np.where(self.predicted_good[is_open], 1.0 - probability, probability).sum()),
            changed_share=changed,
            may_stop=not is_open.any() or (changed is not None and changed <= STABLE_SHARE),
        )

    @property
    def predicted_good(self) -> np.ndarray:
        """Whether each unit is called good by the classifier, bool [num_units]."""
        return self.probability >= self.threshold

    def _learn(self) -> None:
        self.probability = self._adapt(len(self._labelled))
        self.threshold = decision_threshold(self.probability)

    def _is_open(self) -> np.ndarray:
        is_open = ~self._is_set_aside
        is_open[self._labelled] = False
        return is_open

    def _adapt(self, num_labels: int) -> np.ndarray:
        return adapt_classifier(
            features=self._features,
            prior=self._prior,
            labelled=self._labelled[:num_labels],
            is_good=self._is_good[:num_labels],
        )
