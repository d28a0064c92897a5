"""How far the tissue has moved against the electrode, and what that does to the waveforms of a unit.

All neurons near an electrode move together, so the mean waveforms of all clusters, seconds by seconds, change along one
course in time, each in a direction of its own: in bin `b`, cluster `k` looks like ``centre[k] + displacement[b] *
direction[k]``. The course is what explains the clusters' means best. Where nothing moves, two halves of the spikes
disagree about it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded

# Bins of time: as long as this or, where spikes are rare, as this many of them last. Neighbours tell of each other.
_BIN_S, _SPIKES_PER_BIN, _SMOOTHNESS = 2.0, 50, 1.0
_MIN_BINS = 5
# Principal directions of waveforms in which clusters are followed, by their spikes nearest to the median: those that
# nothing overlaps.
_DIMENSIONS, _SPIKES_PER_AXES = 12, 10_000
_MIN_SPIKES, _NEAREST_SHARE = 200, 0.9
# A cluster is thought to stay, as firmly as so many spikes say it.
_PRIOR_SPIKES = 30.0
_NUM_STEPS = 50
# Courses of two halves of the spikes that are correlated so well are the tissue's.
_LEAST_CORRELATION = 0.7
# Correlation of the displacements before and after gaps from which on what is between is interpolated.
_SEAMLESS = 0.5
# Of a unit, spikes nearest to its moving mean, from which this is taken again.
_KEPT_SHARE = 0.8
_SLOPE_PRIOR_SPIKES = 10.0


@dataclass(frozen=True)
class Drift:
    """Course of the tissue.

    Attributes
    ----------
    centres : np.ndarray, float64 [num_bins]
        Times in s, on a clock that runs on over all segments.
    displacement : np.ndarray, float64 [num_bins]
        There, of mean 0 and variance 1. Its sign means nothing.
    """

    centres: np.ndarray
    displacement: np.ndarray

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """Displacement at any times, float64 [num_times]."""
        return np.interp(seconds, self.centres, self.displacement)

    @property
    def is_seamless(self) -> bool:
        """Whether it moves so little in the gaps between the times that it may be interpolated."""
        steps = np.diff(self.centres)
        gaps = np.flatnonzero(steps > 1.5 * steps.min())
        if len(gaps) < 2:
            return True
        return float(np.corrcoef(self.displacement[gaps], self.displacement[gaps + 1])[0, 1]) > _SEAMLESS


@dataclass(frozen=True)
class MovingMean:
    """Mean waveform of a unit, as the tissue moves.

    Attributes
    ----------
    still : np.ndarray, float32 [num_samples, num_channels]
        Without displacement.
    slope : np.ndarray, float32 [num_samples, num_channels]
        Change by a displacement of 1.
    seen : tuple of float
        Displacements between which the unit fired.
    """

    still: np.ndarray
    slope: np.ndarray
    seen: tuple[float, float]

    def at(self, displacement: np.ndarray) -> np.ndarray:
        """Mean waveforms at displacements, float32 [num_displacements, num_samples, num_channels]."""
        return self.still + displacement.astype("float32")[:, None, None] * self.slope


def estimate_drift(
    waveforms: np.ndarray, labels: np.ndarray, *, seconds: np.ndarray, duration_s: float, root: np.ndarray
) -> Drift | None:
    """Follow the drift of a recording, or of pieces of it.

    Parameters
    ----------
    waveforms : np.ndarray, float16 or float32 [num_spikes, dim]
        Of all spikes.
    labels : np.ndarray, int [num_spikes]
        Their clusters; -1 is noise.
    seconds : np.ndarray, float64 [num_spikes]
        Their times, on a clock that runs on over all segments.
    duration_s : float
        How long was looked for them.
    root : np.ndarray, float32 [dim, dim]
        Whitens waveforms.

    Returns
    -------
    Drift or None
        None where nothing moves that two halves of the spikes agree on.
    """
    clusters, counts = np.unique(labels[labels >= 0], return_counts=True)
    clusters = clusters[counts >= _MIN_SPIKES]
    if not len(clusters):
        return None
    bin_s = max(_BIN_S, _SPIKES_PER_BIN * duration_s / len(seconds))
    occupied, bins = np.unique(seconds // bin_s, return_inverse=True)
    if len(occupied) < _MIN_BINS:
        return None
    sample = waveforms[:: -(-len(waveforms) // _SPIKES_PER_AXES)].astype("float32") @ root
    axes = np.linalg.eigh(np.cov(sample, rowvar=False))[1][:, -_DIMENSIONS:]
    members = [
        _nearest_to_median(waveforms, np.flatnonzero(labels == cluster), axes=root @ axes) for cluster in clusters
    ]
    first, second, course = (
        _course(
            *_binned([(points[part], bins[spikes[part]]) for spikes, points in members], num_bins=len(occupied)),
            gaps=np.diff(occupied),
        )
        for part in (slice(0, None, 2), slice(1, None, 2), slice(None))
    )
    if abs(float(np.corrcoef(first, second)[0, 1])) < _LEAST_CORRELATION:
        return None
    return Drift(centres=(occupied + 0.5) * bin_s, displacement=course)


def follow(waveforms: np.ndarray, displacement: np.ndarray, *, precision: np.ndarray) -> MovingMean:
    """Mean of a unit's waveforms and its change by displacement, without the waveforms farthest from it.

    Parameters
    ----------
    waveforms : np.ndarray, float32 [num_spikes, num_samples, num_channels]
        Of one unit, in units of noise.
    displacement : np.ndarray, float64 [num_spikes]
        When they were seen; all zero if nothing moves.
    precision : np.ndarray, float32 [dim, dim]
        Inverse of the covariance of the noise.

    Returns
    -------
    MovingMean
    """
    vectors, shape = waveforms.reshape(len(waveforms), -1), waveforms.shape[1:]
    kept = np.ones(len(vectors), dtype=bool)
    moves = displacement.any()
    for _ in range(2):
        mean, middle = np.asarray(vectors[kept].mean(axis=0)), displacement[kept].mean()
        residual, slope, spread = vectors - mean, np.zeros_like(mean), 0.0
        if moves:
            offset = (displacement - middle).astype("float32")
            spread = float(offset[kept] @ offset[kept])
            slope = offset[kept] @ residual[kept] / (spread + _SLOPE_PRIOR_SPIKES)
            residual -= offset[:, None] * slope
        distance = np.einsum("ij,ij->i", residual, residual)
        kept = distance <= np.quantile(distance, _KEPT_SHARE)
    # As much of it as noise alone gives a slope goes: what few spikes say of movement is nothing.
    energy, noise = float(slope @ precision @ slope), len(slope) / max(spread, 1e-9)
    slope = np.asarray(slope * np.float32(max(0.0, 1 - noise / max(energy, 1e-9))))
    low, high = np.quantile(displacement, [0.02, 0.98])
    still = np.asarray(mean - slope * np.float32(middle))
    return MovingMean(still=still.reshape(shape), slope=slope.reshape(shape), seen=(float(low), float(high)))


def _nearest_to_median(waveforms: np.ndarray, spikes: np.ndarray, *, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of the spikes whose points are not far out, and their points float64 [num_spikes, num_dimensions]."""
    points = (waveforms[spikes].astype("float32") @ axes).astype("float64")
    distance = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    near = distance <= np.quantile(distance, _NEAREST_SHARE)
    return spikes[near], points[near]


def _binned(clusters: list[tuple[np.ndarray, np.ndarray]], *, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Spikes in each bin [num_clusters, num_bins], and their means [num_clusters, num_bins, num_dimensions]."""
    counts = np.array([np.bincount(bins, minlength=num_bins) for _, bins in clusters], dtype="float64")
    sums = np.array(
        [[np.bincount(bins, weights=column, minlength=num_bins) for column in points.T] for points, bins in clusters]
    )
    return counts, sums.swapaxes(1, 2) / np.maximum(counts, 1)[..., None]


def _course(counts: np.ndarray, means: np.ndarray, *, gaps: np.ndarray) -> np.ndarray:
    """Displacement in each bin, of mean 0 and variance 1, by alternating least squares.

    Bins between which others are left out tell less of each other.
    """
    num_bins = counts.shape[1]
    total = counts.sum(axis=1)
    centre = np.einsum("kb,kbj->kj", counts, means) / total[:, None]
    change = np.sqrt(counts)[..., None] * (means - centre[:, None])
    displacement = np.linalg.svd(change.swapaxes(0, 1).reshape(num_bins, -1), full_matrices=False)[0][:, 0]
    ties = np.concatenate([[0.0], 1 / gaps, [0.0]])
    for _ in range(_NUM_STEPS):
        displacement = (displacement - displacement.mean()) / max(displacement.std(), 1e-9)
        middle = counts @ displacement / total
        offset = displacement - middle[:, None]
        direction = np.einsum("kb,kbj->kj", counts * offset, means - centre[:, None])
        direction /= ((counts * offset**2).sum(axis=1) + _PRIOR_SPIKES)[:, None]
        origin = centre - middle[:, None] * direction
        weight = counts.T @ (direction**2).sum(axis=1)
        pull = np.einsum("kb,kbj,kj->b", counts, means - origin[:, None], direction)
        smoothness = _SMOOTHNESS * max(float(np.median(weight)), 1e-9)
        bands = np.stack([-smoothness * ties[:-1], weight + smoothness * (ties[:-1] + ties[1:])])
        displacement = solveh_banded(bands, pull)
    return (displacement - displacement.mean()) / max(displacement.std(), 1e-9)
