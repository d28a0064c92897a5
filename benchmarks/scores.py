"""How a sorting agrees with the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import spikeinterface.comparison as sc
from spikeinterface.comparison.comparisontools import make_match_count_matrix
from spikeinterface.core import BaseSorting, NumpySorting

# Spikes of two sortings match within this time: the SimSort paper's, and SpikeInterface's default.
DELTAS_MS = (1.0, 0.4)
SCORES = ("accuracy", "recall", "precision")


def unit_scores(truth: BaseSorting, sorting: BaseSorting, *, delta_ms: float) -> pd.DataFrame:
    """Score each true unit by the sorted unit that the Hungarian method assigns it.

    Parameters
    ----------
    truth : BaseSorting
        Ground truth.
    sorting : BaseSorting
        What a sorter found.
    delta_ms : float
        Spikes match within this time.

    Returns
    -------
    pandas.DataFrame
        ``unit``, ``num_spikes``, ``snr`` where the truth tells it, ``accuracy``, ``recall``, ``precision``. Unlike
        SpikeInterface's default, a match under 0.5 counts as what it is, and not as 0.
    """
    comparison = sc.compare_sorter_to_ground_truth(
        truth, sorting, delta_time=delta_ms, exhaustive_gt=True, match_score=0.0
    )
    performance = comparison.get_performance()
    snr = truth.get_property("snr")
    counts = truth.count_num_spikes_per_unit()
    return pd.DataFrame(
        {
            "unit": truth.unit_ids.astype(str),
            "num_spikes": [counts[unit] for unit in truth.unit_ids],
            "snr": np.nan if snr is None else snr,
            **{score: performance[score].to_numpy(dtype=float) for score in SCORES},
        }
    )


def detection_scores(found: np.ndarray, truth: np.ndarray, *, delta_frames: int) -> dict[str, float]:
    """Accuracy, recall and precision of spike times, whatever their units.

    Parameters
    ----------
    found, truth : np.ndarray, int64 [num_spikes]
        Increasing.
    delta_frames : int
        Largest distance of a match; each spike matches once.

    Returns
    -------
    dict
        ``accuracy``, ``recall`` and ``precision``.
    """
    trains = [NumpySorting.from_unit_dict([{0: np.sort(frames)}], 1.0) for frames in (truth, found)]
    matched = int(make_match_count_matrix(*trains, delta_frames=delta_frames).to_numpy()[0, 0])
    return {
        "accuracy": matched / max(len(found) + len(truth) - matched, 1),
        "recall": matched / max(len(truth), 1),
        "precision": matched / max(len(found), 1),
    }
