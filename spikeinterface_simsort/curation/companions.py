"""What SpikeInterface's metrics do not tell: whether a unit is two neurons, or a part of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from sklearn.cluster import KMeans

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import SortingAnalyzer

# Columns of the table, and what they are.
COMPANION_METRICS = {
    "halves_distance": "distance of the centres of a unit's two halves by principal components (k-means), in standard "
    "deviations along the line between them: 2.6 for one Gaussian, more for two",
    "companion_similarity": "similarity of the unit's mean waveform to that of the most similar other unit: 1 for the "
    "same at some shift within 0.3 ms, 0.3 for waveforms that have nothing in common",
    "companion_coincidence": "pairs of spikes of the unit and that other one 0.5 to 2.5 ms apart, as a share of those "
    "expected by chance: about 1 for two neurons, near 0 for parts of one, which has a refractory period",
    "silent_share": "share of 20 equal stretches of the recording in which the unit fires at less than a quarter of "
    "its mean rate",
}
_FEWEST_SPIKES, _FEWEST_EXPECTED = 20, 3.0
_NEAR_SHARE = 0.9
_SHIFT_MS, _COINCIDENCE_MS = 0.3, (0.5, 2.5)
_NUM_STRETCHES, _SILENT = 20, 0.25


def companion_metrics(analyzer: SortingAnalyzer, *, seed: int = 0) -> pd.DataFrame:
    """Compute `COMPANION_METRICS`.

    Parameters
    ----------
    analyzer : SortingAnalyzer
        With templates and principal components.
    seed : int
        Of k-means.

    Returns
    -------
    pandas.DataFrame, float64 [num_units, num_columns]
        NaN where there is no other unit, or too few spikes.
    """
    import pandas as pd

    unit_ids = analyzer.unit_ids
    table = pd.DataFrame(np.nan, index=unit_ids, columns=list(COMPANION_METRICS))
    projections, labels = analyzer.get_extension("principal_components").get_some_projections()
    for index, unit_id in enumerate(unit_ids):
        points = projections[labels == index].reshape(np.sum(labels == index), -1)
        table.loc[unit_id, "halves_distance"] = halves_distance(points, seed=seed)
    templates = analyzer.get_extension("templates").get_data(operator="average")
    shift = round(_SHIFT_MS * analyzer.sampling_frequency / 1000)
    similarity = template_similarity(templates, largest_shift=shift)
    np.fill_diagonal(similarity, -np.inf)
    for index, unit_id in enumerate(unit_ids):
        table.loc[unit_id, "silent_share"] = _silent_share(analyzer, unit_id)
        if len(unit_ids) > 1:
            companion = int(similarity[index].argmax())
            table.loc[unit_id, "companion_similarity"] = similarity[index, companion]
            table.loc[unit_id, "companion_coincidence"] = coincidence_ratio(
                unit_trains(analyzer, unit_id),
                unit_trains(analyzer, unit_ids[companion]),
                num_samples=[analyzer.get_num_samples(segment) for segment in range(analyzer.get_num_segments())],
                sampling_frequency=analyzer.sampling_frequency,
            )
    return table


def halves_distance(points: np.ndarray, *, seed: int = 0) -> float:
    """Distance of the centres of two halves of a cloud of points, in standard deviations along the line between them.

    The tenth of the points that are farthest from the median do not count.

    Parameters
    ----------
    points : np.ndarray, float [num_spikes, num_features]
        Of one unit.
    seed : int
        Of k-means.

    Returns
    -------
    float
        NaN for fewer than 20 points, or where all are the same.
    """
    if len(points) < _FEWEST_SPIKES:
        return np.nan
    # Spikes that overlap others lie far away, few as they are, and would be a half of their own.
    away = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    points = points[away <= np.quantile(away, _NEAR_SHARE)]
    if np.ptp(points, axis=0).max() == 0:
        return np.nan
    second = KMeans(n_clusters=2, n_init=3, random_state=seed).fit_predict(points).astype(bool)
    line = points[second].mean(axis=0) - points[~second].mean(axis=0)
    along = points @ (line / np.linalg.norm(line))
    spread = np.sqrt(np.average([along[second].var(), along[~second].var()], weights=[second.sum(), (~second).sum()]))
    return float(np.linalg.norm(line) / spread) if spread > 0 else np.nan


def template_similarity(templates: np.ndarray, *, largest_shift: int) -> np.ndarray:
    """Similarity of mean waveforms: what their difference leaves of them, at the best shift.

    Parameters
    ----------
    templates : np.ndarray, float [num_units, num_samples, num_channels]
        Mean waveforms.
    largest_shift : int
        In samples, either way.

    Returns
    -------
    np.ndarray, float64 [num_units, num_units]
        1 less the norm of the difference as a share of the sum of the norms.
    """
    num_units, num_samples, _ = templates.shape
    flat = templates.reshape(num_units, -1).astype("float64")
    norms = np.linalg.norm(flat, axis=1)
    products = np.full((num_units, num_units), -np.inf)
    for shift in range(min(largest_shift, num_samples - 1) + 1):
        early, late = templates[:, : num_samples - shift], templates[:, shift:]
        product = late.reshape(num_units, -1).astype("float64") @ early.reshape(num_units, -1).T.astype("float64")
        products = np.maximum(products, np.maximum(product, product.T))
    squares = norms[:, None] ** 2 + norms**2 - 2 * products
    return 1.0 - np.sqrt(np.maximum(squares, 0.0)) / np.maximum(norms[:, None] + norms, np.finfo(float).tiny)


def coincidence_ratio(
    trains: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    *,
    num_samples: Sequence[int],
    sampling_frequency: float,
) -> float:
    """Pairs of spikes of two units 0.5 to 2.5 ms apart, either way, as a share of those expected by chance.

    Parameters
    ----------
    trains, others : sequence of np.ndarray, int [num_spikes]
        Increasing sample indices of either unit, one train a segment.
    num_samples : sequence of int
        Of each segment.
    sampling_frequency : float
        In Hz.

    Returns
    -------
    float
        NaN where fewer than 3 are expected.
    """
    nearest, farthest = (round(ms * sampling_frequency / 1000) for ms in _COINCIDENCE_MS)
    found, expected = 0, 0.0
    for train, other, length in zip(trains, others, num_samples, strict=True):
        wide = np.searchsorted(other, train + farthest, "right") - np.searchsorted(other, train - farthest, "left")
        close = np.searchsorted(other, train + nearest, "left") - np.searchsorted(other, train - nearest, "right")
        found += int(wide.sum() - close.sum())
        expected += len(train) * len(other) * 2 * (farthest - nearest + 1) / max(length, 1)
    return found / expected if expected >= _FEWEST_EXPECTED else np.nan


def unit_trains(analyzer: SortingAnalyzer, unit_id: int | str) -> list[np.ndarray]:
    """Sample indices of a unit's spikes, int64, one train a segment."""
    sorting = analyzer.sorting
    return [
        sorting.get_unit_spike_train(unit_id, segment_index=segment) for segment in range(sorting.get_num_segments())
    ]


def _silent_share(analyzer: SortingAnalyzer, unit_id: int | str) -> float:
    counts = np.concatenate(
        [
            np.histogram(train, bins=_NUM_STRETCHES, range=(0, analyzer.get_num_samples(segment)))[0]
            for segment, train in enumerate(unit_trains(analyzer, unit_id))
        ]
    )
    return float(np.mean(counts < _SILENT * counts.mean())) if counts.sum() >= _FEWEST_SPIKES else np.nan
