"""Clustering of embeddings into units: fitted on a sample of the spikes, the others assigned."""

from __future__ import annotations

import numpy as np
from spikeinterface.sortingcomponents.clustering.isosplit_isocut import isosplit

from spikeinterface_simsort.params import ParameterError, SimSortParams

# Fewer spikes than this are one cluster: nothing can be said of their density.
_MIN_SPIKES_SPLIT = 30
_SPIKES_PER_BLOCK = 100_000


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
    rng = np.random.default_rng(params.seed)
    chosen = np.arange(num_spikes)
    if num_spikes > params.max_spikes_fit:
        chosen = np.sort(rng.choice(num_spikes, params.max_spikes_fit, replace=False))
    if params.clustering == "meanshift":
        return _umap_meanshift(embedding, chosen=chosen, params=params)
    labels = _isosplit(embedding[chosen], seed=params.seed)
    return assign(embedding, sample=embedding[chosen], sample_labels=labels)


def _isosplit(embedding: np.ndarray, *, seed: int) -> np.ndarray:
    """Isosplit (Magland & Barnett 2015, arXiv 1508.04841): no number of clusters, no bandwidth."""
    # Enough seeds for rare units to get one of their own.
    num_init = int(np.clip(len(embedding) // 25, 2, 200))
    return np.asarray(isosplit(embedding.astype("float64"), n_init=num_init, min_cluster_size=10, seed=seed))


def assign(embedding: np.ndarray, *, sample: np.ndarray, sample_labels: np.ndarray) -> np.ndarray:
    """Assign each spike to the cluster under whose Gaussian it is likeliest.

    Parameters
    ----------
    embedding : np.ndarray, float32 [num_spikes, embedding_dim]
        All spikes.
    sample : np.ndarray, float32 [num_sample, embedding_dim]
        Those that were clustered.
    sample_labels : np.ndarray, int [num_sample]
        Their labels.

    Returns
    -------
    np.ndarray, int64 [num_spikes]
        Labels from 0, in the order of the sample's labels.
    """
    clusters = np.unique(sample_labels)
    dim = sample.shape[1]
    means, precisions, offsets = [], [], []
    for label in clusters:
        members = sample[sample_labels == label].astype("float64")
        mean = members.mean(axis=0)
        # A unit has about unit variance by training: that prior counts as much as one spike per dimension.
        scatter = (members - mean).T @ (members - mean)
        covariance = (scatter + dim * np.eye(dim)) / (len(members) + dim)
        precision = np.linalg.cholesky(np.linalg.inv(covariance))
        means.append(mean)
        precisions.append(precision)
        offsets.append(np.log(len(members)) + np.log(np.diag(precision)).sum())
    labels = np.empty(len(embedding), dtype="int64")
    for start in range(0, len(embedding), _SPIKES_PER_BLOCK):
        block = embedding[start : start + _SPIKES_PER_BLOCK].astype("float64")
        score = np.stack(
            [
                offset - 0.5 * np.square((block - mean) @ precision).sum(axis=1)
                for mean, precision, offset in zip(means, precisions, offsets, strict=True)
            ]
        )
        labels[start : start + _SPIKES_PER_BLOCK] = score.argmax(axis=0)
    return labels


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
