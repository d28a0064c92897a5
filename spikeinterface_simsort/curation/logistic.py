"""Logistic regression whose coefficients stay near given ones."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

_MAX_STEPS, _SMALLEST_STEP = 100, 1e-6
# Share of the decrease that the slope promises, for a step to be taken.
_SUFFICIENT = 1e-4


def fit_logistic(
    design: np.ndarray,
    outcome: np.ndarray,
    *,
    mean: np.ndarray,
    precision: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Find the most probable coefficients, by Newton's method with shortened steps.

    Parameters
    ----------
    design : np.ndarray, float [num_samples, num_coefficients]
        What outcomes are predicted from, with a column of ones for an intercept. It may have no rows.
    outcome : np.ndarray, bool [num_samples]
        What happened.
    mean, precision : np.ndarray, float [num_coefficients]
        Of the coefficients' Gaussian prior. Each precision is larger than 0, so that there is one solution.
    weights : np.ndarray, float [num_samples], optional
        How often each sample counts; default once.

    Returns
    -------
    np.ndarray, float [num_coefficients]
    """
    y = outcome.astype(float)
    w = np.ones(len(y)) if weights is None else weights

    def loss(coefficients: np.ndarray) -> float:
        z = design @ coefficients
        return float(w @ (np.logaddexp(0.0, z) - y * z) + 0.5 * precision @ (coefficients - mean) ** 2)

    coefficients = mean.astype(float)
    for _ in range(_MAX_STEPS):
        p = expit(design @ coefficients)
        gradient = design.T @ (w * (p - y)) + precision * (coefficients - mean)
        curvature = (design.T * (w * p * (1.0 - p))) @ design + np.diag(precision)
        step = -np.linalg.solve(curvature, gradient)
        # Where outcomes contradict the mean, the whole step goes too far, and the next one further back.
        before, slope = loss(coefficients), float(gradient @ step)
        while loss(coefficients + step) > before + _SUFFICIENT * slope and np.abs(step).max() > _SMALLEST_STEP:
            step, slope = step / 2.0, slope / 2.0
        coefficients = coefficients + step
        if np.abs(step).max() <= _SMALLEST_STEP:
            break
    return coefficients
