"""Mixtures of Gaussians: a Bayesian one of any number whose width is nearly known, and one of two of the same width.

The Bayesian model is that of Blei & Jordan 2006 (Bayesian Analysis 1:121): a Dirichlet process of Gaussians with
Gauss-Wishart priors; the updates are those of Bishop 2006, chapter 10.2. Log densities of all components are one matrix
product with the products of coordinates, and so are the sums that they are updated from: this is what takes the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, expit

# A component is at first where a spike is. How firmly it is thought to be at the mean of all spikes, in spikes.
_PRIOR_OF_MEANS = 0.01
# Of the Dirichlet process: the smaller, the fewer components.
_CONCENTRATION = 0.01
# So many points are looked at together.
_POINTS_PER_BLOCK = 2048
# The mixture has converged when the log likelihood of a spike changes by less.
_TOLERANCE = 1e-7
_SMALLEST = 1e-9
# Starts of the mixture of two, its steps, and the gain of log likelihood, a spike, at which it has converged.
_NUM_STARTS, _NUM_STEPS, _LEAST_GAIN = 3, 100, 1e-3
_NUM_STEPS_TO_BEGIN, _FEW = 20, 0.001
# Added to the variance of both in every direction.
_LEAST_VARIANCE = 0.1


@dataclass(frozen=True)
class Mixture:
    """Components of a mixture.

    Attributes
    ----------
    means : np.ndarray, float64 [num_components, num_dimensions]
        Of each.
    coefficients : np.ndarray, float64 [num_products, num_components]
        Of the products of coordinates in the log density of each, together with its log weight.
    """

    means: np.ndarray
    coefficients: np.ndarray

    def predict(self, points: np.ndarray) -> np.ndarray:
        """Likeliest component of each point, int64 [num_points]."""
        return (_products(points.astype("float64")) @ self.coefficients).argmax(axis=1)


def fit_mixture(
    points: np.ndarray, *, num_components: int, variance: float, prior_weight: float, seed: int, num_steps: int = 100
) -> Mixture:
    """Fit a mixture to points.

    Parameters
    ----------
    points : np.ndarray, float [num_points, num_dimensions]
        Of spikes.
    num_components : int
        At most; the mixture uses as many as it needs.
    variance : float
        Expected of a component in every direction.
    prior_weight : float
        How many points that expectation weighs, and the number of dimensions.
    seed : int
        Of the points where components begin.
    num_steps : int
        At most.

    Returns
    -------
    Mixture
    """
    points = points.astype("float64")
    products = _products(points)
    # Each block stays in the processor's own memory; its points are columns, so that all loops are long ones.
    blocks = [
        np.ascontiguousarray(products[start : start + _POINTS_PER_BLOCK].T)
        for start in range(0, len(points), _POINTS_PER_BLOCK)
    ]
    centre = points.mean(axis=0)
    sums = products[spread_points(points, num_components, seed=seed)]
    mixture, before = None, -np.inf
    for _ in range(num_steps):
        mixture = _maximise(sums, centre=centre, variance=variance, prior_weight=prior_weight)
        coefficients = np.ascontiguousarray(mixture.coefficients.T)
        sums, likelihood = np.zeros_like(sums), 0.0
        for block in blocks:
            log_densities = coefficients @ block
            largest = log_densities.max(axis=0)
            log_densities -= largest
            # Shares need no more precision than this, and take a fourth of the time.
            shares = np.exp(log_densities.astype("float32"))
            total = shares.sum(axis=0)
            shares /= total
            sums += shares.astype("float64") @ block.T
            likelihood += float((largest + np.log(total)).sum())
        likelihood /= len(points)
        if abs(likelihood - before) < _TOLERANCE:
            break
        before = likelihood
    assert mixture is not None
    return mixture


def spread_points(points: np.ndarray, num_points: int, *, seed: int) -> np.ndarray:
    """Choose points far from each other: k-means++ (Arthur & Vassilvitskii 2007), the best of a few at each draw.

    Parameters
    ----------
    points : np.ndarray, float64 [num_points_given, num_dimensions]
        One or more.
    num_points : int
        How many to choose; where there are not as many different ones, some are chosen again.
    seed : int
        Of the draws.

    Returns
    -------
    np.ndarray, int64 [num_points]
        Indices.
    """
    rng = np.random.default_rng(seed)
    num_tried = 2 + int(np.log(num_points))
    chosen = [int(rng.integers(len(points)))]
    nearest = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < num_points:
        total = nearest.sum()
        if total <= 0:
            # All points are where one is already: any will do.
            chosen.append(int(rng.integers(len(points))))
            continue
        tried = np.searchsorted(np.cumsum(nearest), rng.random(num_tried) * total).clip(max=len(points) - 1)
        distances = [np.minimum(nearest, ((points - points[index]) ** 2).sum(axis=1)) for index in tried]
        best = int(np.argmin([distance.sum() for distance in distances]))
        chosen.append(int(tried[best]))
        nearest = distances[best]
    return np.array(chosen)


def _products(points: np.ndarray) -> np.ndarray:
    """One, the coordinates, and the products of two of them, [num_points, num_products]."""
    first, second = np.triu_indices(points.shape[1])
    return np.concatenate([np.ones((len(points), 1)), points, points[:, first] * points[:, second]], axis=1)


def _maximise(sums: np.ndarray, *, centre: np.ndarray, variance: float, prior_weight: float) -> Mixture:
    """Components by the sums of products over their shares of the points, [num_components, num_products]."""
    num_dimensions = len(centre)
    first, second = np.triu_indices(num_dimensions)
    count = sums[:, 0] + _SMALLEST
    mean = sums[:, 1 : 1 + num_dimensions] / count[:, None]
    square = np.empty((len(sums), num_dimensions, num_dimensions))
    square[:, first, second] = square[:, second, first] = sums[:, 1 + num_dimensions :]
    scatter = square - count[:, None, None] * mean[:, :, None] * mean[:, None, :]

    firmness = _PRIOR_OF_MEANS + count
    means = (_PRIOR_OF_MEANS * centre + count[:, None] * mean) / firmness[:, None]
    away = mean - centre
    pull = (_PRIOR_OF_MEANS * count / firmness)[:, None, None] * away[:, :, None] * away[:, None, :]
    freedom = prior_weight + count
    covariance = (prior_weight * variance * np.eye(num_dimensions) + scatter + pull) / freedom[:, None, None]

    # Expectations of the log weights and of the log densities.
    taken, left = 1 + count, _CONCENTRATION + np.append(np.cumsum(count[::-1])[-2::-1], 0.0)
    log_rest = digamma(left) - digamma(taken + left)
    log_weight = digamma(taken) - digamma(taken + left) + np.append(0.0, np.cumsum(log_rest)[:-1])
    precision = np.linalg.inv(covariance)
    log_determinant = -np.linalg.slogdet(covariance)[1] - num_dimensions * np.log(freedom / 2)
    log_determinant += digamma(0.5 * (freedom[:, None] - np.arange(num_dimensions))).sum(axis=1)
    linear = np.einsum("kij,kj->ki", precision, means)
    constant = log_weight + 0.5 * (log_determinant - num_dimensions / firmness - (linear * means).sum(axis=1))
    weight = np.where(first == second, -0.5, -1.0)
    return Mixture(
        means=means,
        coefficients=np.concatenate([constant[:, None], linear, weight * precision[:, first, second]], axis=1).T,
    )


def _nearer_to_second(points: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Part points by the nearer of two means, and again, until few change sides; float64 [num_points]."""
    share = np.zeros(len(points))
    for _ in range(_NUM_STEPS_TO_BEGIN):
        before, share = share, (points @ (two - one) > 0.5 * (two @ two - one @ one)).astype("float64")
        count = share.sum()
        if not 0 < count < len(points) or np.abs(share - before).mean() < _FEW:
            break
        one, two = (1 - share) @ points / (len(points) - count), share @ points / count
    return share


def part_in_two(points: np.ndarray, *, seed: int) -> tuple[np.ndarray, float]:
    """Fit two Gaussians of one covariance to points, and say where the one ends and the other begins.

    Parameters
    ----------
    points : np.ndarray, float [num_points, num_dimensions]
        Two or more.
    seed : int
        Of the points where the Gaussians begin.

    Returns
    -------
    axis : np.ndarray, float64 [num_dimensions]
        A point belongs to the second if its product with this ...
    threshold : float
        ... is larger than this.
    """
    points = points.astype("float64")
    centre = points.mean(axis=0)
    centred = points - centre
    whole = centred.T @ centred / len(points) + _LEAST_VARIANCE * np.eye(points.shape[1])
    best, axis, constant = -np.inf, np.zeros(points.shape[1]), 0.0
    for start in range(_NUM_STARTS):
        share = _nearer_to_second(centred, *centred[spread_points(centred, 2, seed=seed + start)])
        before = -np.inf
        for _ in range(_NUM_STEPS):
            weight = float(np.clip(share.mean(), _SMALLEST, 1 - _SMALLEST))
            # The mean of all is the origin.
            two = share @ centred / (weight * len(points))
            one = -two * weight / (1 - weight)
            within = whole - weight * np.outer(two, two) - (1 - weight) * np.outer(one, one)
            new_axis = np.linalg.solve(within, two - one)
            new_constant = np.log(weight / (1 - weight)) - 0.5 * float(new_axis @ (one + two))
            odds = centred @ new_axis + new_constant
            share = expit(odds)
            precision_one = np.linalg.solve(within, one)
            likelihood = float(
                np.logaddexp(0.0, odds).mean() + np.log(1 - weight) - 0.5 * np.linalg.slogdet(within)[1]
                - 0.5 * np.trace(np.linalg.solve(within, whole)) - 0.5 * float(one @ precision_one)
            )  # fmt: skip
            if likelihood > best:
                best, axis, constant = likelihood, new_axis, new_constant
            if likelihood - before < _LEAST_GAIN:
                break
            before = likelihood
    return axis, float(axis @ centre) - constant
