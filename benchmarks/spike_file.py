"""Spike trains in one file, which every environment and every version of SpikeInterface reads: a run's result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from spikeinterface.core import BaseSorting, NumpySorting


def write_spikes(path: Path, sorting: BaseSorting) -> None:
    """Keep a sorting of one segment.

    Parameters
    ----------
    path : Path
        ``.npz`` file.
    sorting : BaseSorting
        Unit ids of any type.
    """
    spikes = sorting.to_spike_vector()
    np.savez_compressed(
        path,
        frames=spikes["sample_index"].astype("int64"),
        unit_index=spikes["unit_index"].astype("int64"),
        unit_ids=np.asarray(sorting.unit_ids).astype(str),
        sampling_frequency=float(sorting.get_sampling_frequency()),
    )


def read_spikes(path: Path) -> BaseSorting:
    """Read what `write_spikes` wrote.

    Parameters
    ----------
    path : Path
        ``.npz`` file.

    Returns
    -------
    BaseSorting
        With the unit ids as text; units without spikes are kept.
    """
    with np.load(path) as content:
        return NumpySorting.from_samples_and_labels(
            [content["frames"]],
            [content["unit_ids"][content["unit_index"]]],
            float(content["sampling_frequency"]),
            unit_ids=content["unit_ids"],
        )
