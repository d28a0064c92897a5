"""Spikes grouped anew where the tissue moves: a mixture of Gaussians whose means move with it.

Where neurons change places as the tissue moves, a cluster of waveforms is of one of them now and of another later. Once
the course of the tissue is known, a neuron's mean waveform is ``centre + displacement * slope``, and how widely its
spikes lie about that is nearly known too: as noise does, and along the mean as amplitudes vary. What is one neuron and
what are two is then told by likelihood alone, and from better groups the course is estimated better.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from spikeinterface_simsort.drift import Drift, estimate_drift
from spikeinterface_simsort.mixture import spread_points
from spikeinterface_simsort.whitening import Whitener

# Principal directions of whitened waveforms in which spikes are grouped, by so many of them.
_DIMENSIONS, _SPIKES_PER_FIT = 12, 15_000
# Groups to begin with, of which the likeliest pairs are joined; smaller ones vanish.
_NUM_GROUPS, _LEAST_SPIKES = 30, 20.0
# Standard deviation of a neuron's amplitudes, and variance in all directions, a little more than noise has. Both are
# believed as firmly as so many spikes would say it; so is, less firmly, that a mean does not move.
_AMPLITUDES, _VARIANCE, _PRIOR_SPIKES, _PRIOR_SPIKES_SLOPE = 0.1, 1.05, 1000.0, 20.0
# Share of spikes that are no neuron's: overlaps.
_OUTLIERS = 0.02
# Two groups are one neuron's if that costs no more likelihood than this share of what Schwarz's criterion grants.
_PENALTY = 0.7
_NUM_STEPS_TO_BEGIN, _NUM_STEPS, _NUM_STEPS_JOINED, _LEAST_GAIN = 30, 60, 10, 0.5
# The course is estimated again, until it is correlated with the one before by this much, if there are spikes along this
# share of it.
_NUM_COURSES, _STAYS, _LEAST_COVERED = 4, 0.99, 0.9


def regroup(
    waveforms: np.ndarray, *, seconds: np.ndarray, duration_s: float, drift: Drift, whitener: Whitener, seed: int
) -> tuple[np.ndarray, Drift]:
    """Group the spikes of a recording whose tissue moves, whatever groups they were in, and follow it by them.

    Parameters
    ----------
    waveforms : np.ndarray, float32 [num_spikes, num_samples, num_channels]
        In units of noise.
    seconds : np.ndarray, float64 [num_spikes]
        When each was, on the clock of the drift.
    duration_s : float
        How long was looked for them.
    drift : Drift
        Course to begin with.
    whitener : Whitener
        The noise.
    seed : int
        Of the groups to begin with.

    Returns
    -------
    labels : np.ndarray, int64 [num_spikes]
        Groups, from 0.
    drift : Drift
        Course of the tissue by these groups.
    """
    vectors = waveforms.reshape(len(waveforms), -1)
    whitened = vectors @ whitener.root
    thin = -(-len(whitened) // _SPIKES_PER_FIT)
    _, axes = np.linalg.eigh(np.cov(whitened[::thin], rowvar=False))
    points = whitened @ axes[:, -_DIMENSIONS:].astype("float32")
    labels = np.zeros(len(points), dtype="int64")
    for _ in range(_NUM_COURSES):
        labels = group_moving(points, drift.at(seconds), seed=seed)
        # Pieces of a recording cannot tell how the tissue moves in the rest of it.
        if _covered(drift, seconds) < _LEAST_COVERED:
            break
        estimated = estimate_drift(vectors, labels, seconds=seconds, duration_s=duration_s, root=whitener.root)
        if estimated is None:
            break
        before, drift = drift.at(estimated.centres), estimated
        if abs(float(np.corrcoef(before, drift.displacement)[0, 1])) > _STAYS:
            break
    return labels, drift


def group_moving(points: np.ndarray, displacement: np.ndarray, *, seed: int) -> np.ndarray:
    """Group points by neurons whose means move with the displacement.

    Parameters
    ----------
    points : np.ndarray, float [num_spikes, num_dimensions]
        Whitened: noise has variance 1 in every direction, and the origin is a spike of no amplitude.
    displacement : np.ndarray, float64 [num_spikes]
        Of the tissue, at each of them.
    seed : int
        Of the groups to begin with.

    Returns
    -------
    np.ndarray, int64 [num_spikes]
        Labels from 0.
    """
    # Only where the tissue moves does anybody wait for it.
    from scipy.cluster.vq import kmeans2

    points, design = points.astype("float64"), np.column_stack([np.ones(len(points)), displacement])
    thin = -(-len(points) // _SPIKES_PER_FIT)
    with threadpool_limits(1):
        mixture = _Mixture(points[::thin], design[::thin])
        begin = mixture.points[spread_points(mixture.points, min(_NUM_GROUPS, len(mixture.points)), seed=seed)]
        with warnings.catch_warnings():
            # A group that no point is nearest to is left out.
            warnings.filterwarnings("ignore", message="One of the clusters is empty")
            nearest = kmeans2(mixture.points, begin, iter=_NUM_STEPS_TO_BEGIN, minit="matrix")[1]
        first = np.unique(nearest, return_inverse=True)[1]
        shares = mixture.fit(np.eye(int(first.max()) + 1)[first], num_steps=_NUM_STEPS)
        while (joined := mixture.joined(shares)) is not None:
            shares = mixture.fit(joined, num_steps=_NUM_STEPS_JOINED)
        shares = mixture.fit(shares, num_steps=_NUM_STEPS)
        if not shares.shape[1]:
            return np.zeros(len(points), dtype="int64")
        groups = mixture.sums(shares).gaussians()
        return np.unique(groups.log_densities(points, design).argmax(axis=1), return_inverse=True)[1]


def _covered(drift: Drift, seconds: np.ndarray) -> float:
    """Share of the bins of a course from which there are spikes."""
    half = float(np.diff(drift.centres).min()) / 2
    ends = (np.searchsorted(np.sort(seconds), drift.centres + side * half) for side in (-1, 1))
    first, last = ends
    return float(np.mean(last > first))


@dataclass(frozen=True)
class _Gaussians:
    """Groups: shares of the spikes, means as ``design @ coefficients``, and covariances."""

    weight: np.ndarray
    coefficients: np.ndarray
    covariances: np.ndarray

    def log_densities(self, points: np.ndarray, design: np.ndarray) -> np.ndarray:
        """Of points together with each group, but for a constant, [num_spikes, num_groups]."""
        return np.column_stack(
            [
                np.log(weight) + _log_normal(points - design @ coefficients, covariance)
                for weight, coefficients, covariance in zip(
                    self.weight, self.coefficients, self.covariances, strict=True
                )
            ]
        )


@dataclass(frozen=True)
class _Sums:
    """What Gaussians are made from, as sums over spikes: those of two groups together are the sums of theirs."""

    weight: np.ndarray
    design: np.ndarray
    cross: np.ndarray
    square: np.ndarray

    def of_pairs(self, first: np.ndarray, second: np.ndarray) -> _Sums:
        return _Sums(*(part[first] + part[second] for part in (self.weight, self.design, self.cross, self.square)))

    def gaussians(self) -> _Gaussians:
        prior = np.diag([0.0, _PRIOR_SPIKES_SLOPE])
        coefficients = np.linalg.solve(self.design + prior, self.cross)
        mean = np.einsum("kd,kdi->ki", self.design[:, 0] / self.weight[:, None], coefficients)
        expected = _VARIANCE * np.eye(mean.shape[1]) + _AMPLITUDES**2 * mean[:, :, None] * mean[:, None, :]
        covariances = self._scatter(coefficients) + _PRIOR_SPIKES * expected
        covariances /= (self.weight + _PRIOR_SPIKES)[:, None, None]
        return _Gaussians(self.weight / self.weight.sum(), coefficients, covariances)

    def log_likelihoods(self) -> np.ndarray:
        """Of the spikes of each group, together with being in it, but for a constant, [num_groups]."""
        groups = self.gaussians()
        scatter = self._scatter(groups.coefficients)
        spread = np.trace(np.linalg.solve(groups.covariances, scatter), axis1=1, axis2=2)
        density = -0.5 * (self.weight * np.linalg.slogdet(groups.covariances)[1] + spread)
        return self.weight * np.log(self.weight) + density

    def _scatter(self, coefficients: np.ndarray) -> np.ndarray:
        """Of the spikes about their means, [num_groups, num_dimensions, num_dimensions]."""
        transposed = np.swapaxes(coefficients, 1, 2)
        half = transposed @ self.cross
        return self.square - half - np.swapaxes(half, 1, 2) + transposed @ self.design @ coefficients


class _Mixture:
    """Points, and how they are shared among groups by expectation and maximization."""

    def __init__(self, points: np.ndarray, design: np.ndarray) -> None:
        self.points, self.design = points, design
        centred = points - points.mean(axis=0)
        # Overlaps lie anywhere between, and a little beyond, the neurons.
        around = 2 * np.atleast_2d(np.cov(points, rowvar=False)) + np.eye(points.shape[1])
        self._outlying = np.log(_OUTLIERS) + _log_normal(centred, around)
        self._products = [
            np.einsum("ni,nj->nij", one, other).reshape(len(points), -1)
            for one, other in ((design, design), (design, points), (points, points))
        ]

    def sums(self, shares: np.ndarray) -> _Sums:
        num_groups, num_dimensions = shares.shape[1], self.points.shape[1]
        design, cross, square = (shares.T @ product for product in self._products)
        return _Sums(
            weight=shares.sum(axis=0),
            design=design.reshape(num_groups, 2, 2),
            cross=cross.reshape(num_groups, 2, num_dimensions),
            square=square.reshape(num_groups, num_dimensions, num_dimensions),
        )

    def fit(self, shares: np.ndarray, *, num_steps: int) -> np.ndarray:
        """Shares of the groups in each spike, [num_spikes, num_groups], after so many steps or when nothing changes."""
        last = -np.inf
        for _ in range(num_steps):
            shares = shares[:, shares.sum(axis=0) > _LEAST_SPIKES]
            if not shares.shape[1]:
                break
            densities = self.sums(shares).gaussians().log_densities(self.points, self.design)
            total = logsumexp(np.column_stack([densities, self._outlying]), axis=1)
            shares = np.exp(densities - total[:, None])
            log_likelihood = float(total.sum())
            if log_likelihood < last + _LEAST_GAIN:
                break
            last = log_likelihood
        return shares

    def joined(self, shares: np.ndarray) -> np.ndarray | None:
        """The same with the two groups joined that are one neuron's most likely, or None if all are others'."""
        if shares.shape[1] < 2:
            return None
        sums = self.sums(shares)
        alone = sums.log_likelihoods()
        first, second = np.triu_indices(len(alone), 1)
        gains = sums.of_pairs(first, second).log_likelihoods() - alone[first] - alone[second]
        best = int(gains.argmax())
        num_parameters = self.design.shape[1] * self.points.shape[1] + 1
        if gains[best] + _PENALTY * num_parameters * np.log(len(self.points)) / 2 < 0:
            return None
        together = shares.copy()
        together[:, first[best]] += shares[:, second[best]]
        return np.delete(together, second[best], axis=1)


def _log_normal(offsets: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Log density of a Gaussian at offsets from its mean, but for a constant, [num_spikes]."""
    root = np.linalg.cholesky(covariance)
    whitened = offsets @ np.linalg.inv(root).T
    return -0.5 * np.einsum("ni,ni->n", whitened, whitened) - float(np.log(np.diag(root)).sum())
