"""Clustering of embeddings into units: fitted on a sample of the spikes, the others assigned."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from spikeinterface_simsort.mixture import fit_mixture
from spikeinterface_simsort.params import ParameterError, SimSortParams

# Fewer spikes than this are one cluster: nothing can be said of their density.
_MIN_SPIKES_SPLIT = 30
_SPIKES_PER_BLOCK = 50_000

# The embedder is calibrated: within a unit, the variance is about 1 along every dimension. A dimension whose
# variance over all spikes is not larger separates nothing.
_INFORMATIVE_VARIANCE = 1.15
_MAX_DIMENSIONS = 12
# Variance that a mixture component is expected to have, a little more than in training, and how many spikes
# that expectation weighs (docs/clustering.md).
_COMPONENT_VARIANCE = 1.5
_PRIOR_SPIKES = 30
_MAX_COMPONENTS = 30
_SPIKES_PER_COMPONENT = 15

# Components nearer than this, in standard deviations, are one unit unless there is a valley between them.
_MERGE_DISTANCE = 4.0
_VALLEY = 0.8


def cluster(embedding: np.ndarray, *, params: SimSortParams) -> np.ndarray:
    """Label spikes by the density of their embeddings.

    Parameters
    ----------
    embedding : np.ndarray, float32 [num_spikes, embedding_dim]
        Distances are in standard deviations of a unit.
    params : SimSortParams
        Resolved; uses `clustering`, `max_spikes_fit`, `bandwidth_quantile` and `seed`.

    Returns
    -------
    np.ndarray, int64 [num_spikes]
        Labels from 0.
    """
    num_spikes = len(embedding)
    if num_spikes < _MIN_SPIKES_SPLIT:
        return np.zeros(num_spikes, dtype="int64")
    chosen = np.arange(num_spikes)
    if num_spikes > params.max_spikes_fit:
        rng = np.random.default_rng(params.seed)
        chosen = np.sort(rng.choice(num_spikes, params.max_spikes_fit, replace=False))
    if params.clustering == "meanshift":
        return _umap_meanshift(embedding, chosen=chosen, params=params)
    return _mixture(embedding, chosen=chosen, seed=params.seed)


def _mixture(embedding: np.ndarray, *, chosen: np.ndarray, seed: int) -> np.ndarray:
    """Bayesian mixture of Gaussians whose width is known, and components merged where no valley parts them."""
    axes, centre = informative_axes(embedding[chosen])
    points = (embedding[chosen].astype("float64") - centre) @ axes
    dim = points.shape[1]
    # The matrices are small: threads would only wait for each other.
    with threadpool_limits(1):
        mixture = fit_mixture(
            points,
            num_components=int(np.clip(len(points) // _SPIKES_PER_COMPONENT, 1, _MAX_COMPONENTS)),
            variance=_COMPONENT_VARIANCE,
            prior_weight=dim + _PRIOR_SPIKES,
            seed=seed,
        )
        component = mixture.predict(points)
    merged = merge_components(points, component)
    # A spike that was not fitted may fall to a component that has no other: it goes to the nearest one that has.
    used, first = np.unique(component, return_index=True)
    nearest = np.linalg.norm(mixture.means[:, None] - mixture.means[used][None], axis=2).argmin(axis=1)
    unit_of = merged[first][nearest]
    labels = np.empty(len(embedding), dtype="int64")
    for start in range(0, len(embedding), _SPIKES_PER_BLOCK):
        block = embedding[start : start + _SPIKES_PER_BLOCK].astype("float64")
        labels[start : start + _SPIKES_PER_BLOCK] = unit_of[mixture.predict((block - centre) @ axes)]
    return labels


def informative_axes(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal axes along which spikes vary more than those of one unit do.

    Parameters
    ----------
    embedding : np.ndarray, float32 [num_spikes, embedding_dim]
        Of unit variance within units.

    Returns
    -------
    axes : np.ndarray, float64 [embedding_dim, num_axes]
        Orthonormal; two or more.
    centre : np.ndarray, float64 [embedding_dim]
        Mean of the spikes.
    """
    points = embedding.astype("float64")
    centre = points.mean(axis=0)
    variance, vectors = np.linalg.eigh(np.cov(points - centre, rowvar=False))
    num_axes = int(np.clip((variance > _INFORMATIVE_VARIANCE).sum(), 2, _MAX_DIMENSIONS))
    return vectors[:, ::-1][:, :num_axes], centre


def merge_components(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Merge neighbouring components, the nearest first, between which the density has no valley.

    Parameters
    ----------
    points : np.ndarray, float64 [num_spikes, num_axes]
        Embedded spikes.
    labels : np.ndarray, int [num_spikes]
        Their components.

    Returns
    -------
    np.ndarray, int64 [num_spikes]
        Labels from 0.
    """
    labels = np.unique(labels, return_inverse=True)[1].astype("int64")
    parted: set[tuple[int, int]] = set()
    while True:
        units = np.unique(labels)
        means = np.array([points[labels == unit].mean(axis=0) for unit in units])
        distance = np.linalg.norm(means[:, None] - means[None], axis=2)
        first, second = np.nonzero(np.triu(distance < _MERGE_DISTANCE, k=1))
        for i in np.argsort(distance[first, second], kind="stable"):
            pair = int(units[first[i]]), int(units[second[i]])
            if pair in parted:
                continue
            if has_valley(points[labels == pair[0]], points[labels == pair[1]]):
                parted.add(pair)
                continue
            labels[labels == pair[1]] = pair[0]
            # What was known of either is no longer true of both together.
            parted = {other for other in parted if not set(other) & set(pair)}
            break
        else:
            return np.unique(labels, return_inverse=True)[1].astype("int64")


def has_valley(points: np.ndarray, others: np.ndarray) -> bool:
    """Whether the density along the line that separates two clusters best has two peaks.

    Parameters
    ----------
    points, others : np.ndarray, float64 [num_spikes, num_axes]
        Members of either.

    Returns
    -------
    bool
    """
    difference = others.mean(axis=0) - points.mean(axis=0)
    axis = discriminant_axis(points, others)
    length = np.sqrt(axis @ difference)
    if length == 0:
        return False
    # In standard deviations along the axis; the two means lie at 0 and at `gap`.
    axis /= length
    gap = float(difference @ axis)
    projected = np.concatenate([points, others]) @ axis - points.mean(axis=0) @ axis
    step = 0.1
    edges = np.arange(-4.0, gap + 4.0 + step, step)
    density = _smoothed(np.histogram(projected, edges)[0], width=0.4 / step)
    centres = edges[:-1] + step / 2
    middle = gap / 2
    left, right = density[centres < middle], density[centres >= middle]
    between = density[(centres >= centres[left.argmax()]) & (centres <= centres[len(left) + right.argmax()])]
    return bool(between.min() < _VALLEY * min(left.max(), right.max()))


def _smoothed(counts: np.ndarray, *, width: float) -> np.ndarray:
    """Counts smoothed by a Gaussian of a width in bins; at its ends, a histogram goes on as its reflection."""
    reach = int(4 * width + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    return np.convolve(np.pad(counts.astype("float64"), reach, mode="symmetric"), kernel / kernel.sum(), mode="valid")


def discriminant_axis(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Direction that separates two clusters best, by Fisher's linear discriminant.

    Parameters
    ----------
    points, others : np.ndarray, float [num_spikes, num_axes]
        Members of either.

    Returns
    -------
    np.ndarray, float [num_axes]
        The variance of a cluster along it is its product with the difference of the means.
    """
    difference = others.mean(axis=0) - points.mean(axis=0)
    residual = np.concatenate([points - points.mean(axis=0), others - others.mean(axis=0)])
    dim = points.shape[1]
    covariance = (residual.T @ residual + dim * np.eye(dim)) / (len(residual) + dim)
    return np.linalg.solve(covariance, difference)


def _umap_meanshift(embedding: np.ndarray, *, chosen: np.ndarray, params: SimSortParams) -> np.ndarray:
    """UMAP to the plane, standardised, then MeanShift: the paper's clustering."""
    from sklearn.cluster import MeanShift, estimate_bandwidth

    try:
        from umap import UMAP
    except ImportError as error:
        raise ParameterError(
            "clustering='meanshift' needs umap-learn: pip install 'spikeinterface-simsort[paper]'"
        ) from error
    # UMAP fits so few neighbours at least; one thread, as several would give another result each time.
    reducer = UMAP(n_components=2, n_neighbors=min(15, len(chosen) - 1), random_state=params.seed, n_jobs=1)
    plane = reducer.fit_transform(embedding[chosen])
    plane = np.asarray(plane if len(chosen) == len(embedding) else reducer.transform(embedding))
    plane = (plane - plane.mean(axis=0)) / np.maximum(plane.std(axis=0), 1e-12)
    bandwidth = estimate_bandwidth(
        plane[chosen], quantile=params.bandwidth_quantile, n_samples=2000, random_state=params.seed
    )
    if bandwidth <= 0:
        return np.zeros(len(embedding), dtype="int64")
    model = MeanShift(bandwidth=bandwidth, bin_seeding=True).fit(plane[chosen])
    return model.predict(plane).astype("int64")
