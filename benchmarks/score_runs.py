"""Scores of sorters on recordings: a row a unit, and a row a recording."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import spikeinterface as si

from benchmarks.catalogue import Dataset
from benchmarks.recordings import sorting_of
from benchmarks.runs import Run, run_folder
from benchmarks.scores import DELTAS_MS, SCORES, detection_scores, unit_scores
from benchmarks.spike_file import read_spikes
from benchmarks.worker import SPIKES_FILE


def score_runs(datasets: Iterable[Dataset], runs: Iterable[Run], *, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score runs on recordings.

    Parameters
    ----------
    datasets : iterable of Dataset
        The recordings.
    runs : iterable of Run
        Of sorters on them. Who failed or took too long has found nothing and scores 0; who is missing has no score.
    folder : Path
        Of the runs.

    Returns
    -------
    units : pandas.DataFrame
        `unit_scores` of each run at each of `DELTAS_MS`, with ``family``, ``dataset``, ``sorter`` and ``delta_ms``.
    recordings : pandas.DataFrame
        A row a run: means over its units at each time, ``detection_...`` of all its spikes at 1.0 ms, how many units
        it found, its status, time and memory.
    """
    by_key = {(dataset.family, dataset.name): dataset for dataset in datasets}
    units, recordings = [], []
    for run in runs:
        dataset = by_key[run.family, run.dataset]
        names = {"family": run.family, "dataset": run.dataset, "sorter": run.sorter}
        row: dict[str, object] = {
            **names,
            "status": run.status,
            "seconds": run.seconds,
            "peak_mb": run.peak_mb,
            "sorter_version": run.sorter_version,
            "message": run.message,
        }
        if run.status != "missing":
            truth = si.load(dataset.folder / "sorting")
            rate = truth.get_sampling_frequency()
            sorting = sorting_of({}, rate=rate)
            if run.status == "ok":
                sorting = read_spikes(run_folder(dataset, run.sorter, folder=folder) / SPIKES_FILE)
            for delta_ms in DELTAS_MS:
                table = unit_scores(truth, sorting, delta_ms=delta_ms)
                units.append(table.assign(**names, delta_ms=delta_ms))
                row |= {f"{score}_{delta_ms}ms": float(table[score].mean()) for score in SCORES}
            frames = [item.to_spike_vector()["sample_index"] for item in (sorting, truth)]
            scores = detection_scores(*frames, delta_frames=int(DELTAS_MS[0] * rate / 1000))
            row |= {f"detection_{score}": value for score, value in scores.items()}
            row |= {"num_units": len(truth.unit_ids), "units_found": len(sorting.unit_ids)}
        recordings.append(row)
    # A table of nothing has columns all the same, or its file could not be read again.
    columns = ["unit", "num_spikes", "snr", *SCORES, "family", "dataset", "sorter", "delta_ms"]
    table = pd.concat(units, ignore_index=True) if units else pd.DataFrame(columns=columns)
    return table, pd.DataFrame(recordings)
