"""How well labels tell single, well-sorted neurons from other units."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

# Of the probability, for its calibration.
NUM_BINS = 10


def binary_scores(good: np.ndarray, said: np.ndarray, score: np.ndarray | None = None) -> dict[str, float]:
    """Score labels against what units are.

    Parameters
    ----------
    good : np.ndarray, bool [num_units]
        Truly single neurons, well sorted.
    said : np.ndarray, bool [num_units]
        Labelled so.
    score : np.ndarray, float64 [num_units], optional
        The larger, the surer of a unit; default `said`.

    Returns
    -------
    dict
        ``num_units``, ``num_good``, ``sensitivity`` (of the good, labelled so), ``specificity`` (of the others, not
        labelled so), ``balanced_accuracy`` (their mean), ``auc`` (area under the ROC of `score`). NaN where there are
        none of one kind.
    """
    good, said = np.asarray(good, dtype=bool), np.asarray(said, dtype=bool)
    both = good.any() and not good.all()
    sensitivity = said[good].mean() if good.any() else np.nan
    specificity = (~said[~good]).mean() if not good.all() else np.nan
    return {
        "num_units": len(good),
        "num_good": int(good.sum()),
        "sensitivity": float(sensitivity),
        "specificity": float(specificity),
        "balanced_accuracy": float((sensitivity + specificity) / 2),
        "auc": float(roc_auc_score(good, said if score is None else score)) if both else np.nan,
    }


def calibration(good: np.ndarray, probability: np.ndarray, *, num_bins: int = NUM_BINS) -> pd.DataFrame:
    """Share of good units among those of about one probability.

    Parameters
    ----------
    good : np.ndarray, bool [num_units]
        What units are.
    probability : np.ndarray, float64 [num_units]
        Of being good.
    num_bins : int
        Of equal width.

    Returns
    -------
    pandas.DataFrame
        A row a bin with units in it: ``probability`` (mean), ``share`` that is good, ``num_units``.
    """
    table = pd.DataFrame({"good": np.asarray(good, dtype=float), "probability": np.asarray(probability, dtype=float)})
    bins = np.minimum((table["probability"] * num_bins).astype(int), num_bins - 1)
    grouped = table.groupby(bins)
    means = grouped.mean()
    return pd.DataFrame(
        {"probability": means["probability"], "share": means["good"], "num_units": grouped.size()}
    ).reset_index(drop=True)


def calibration_error(good: np.ndarray, probability: np.ndarray, *, num_bins: int = NUM_BINS) -> float:
    """Mean distance of `calibration`'s probabilities and shares, weighted by the number of units."""
    table = calibration(good, probability, num_bins=num_bins)
    return float(np.average((table["probability"] - table["share"]).abs(), weights=table["num_units"]))
