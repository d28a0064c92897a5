"""Sorted units with their metrics, what labels call them, and what they are by the ground truth."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import spikeinterface as si
from spikeinterface.comparison.comparisontools import make_match_count_matrix
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks.catalogue import DESCRIPTION_FILE, Dataset
from benchmarks.runs import run_folder
from benchmarks.scores import detection_scores
from benchmarks.spike_file import read_spikes
from benchmarks.worker import SPIKES_FILE
from spikeinterface_simsort.curation.labels import MIN_SPIKES, label_by_bombcell, label_by_thresholds
from spikeinterface_simsort.curation.metrics import band_passed, compute_metrics, make_analyzer

logger = logging.getLogger(__name__)

KEYS = ["family", "dataset", "sorter", "unit"]
# A single neuron is found by so much; noise has fewer spikes of any neuron than this share.
SINGLE_ACCURACY, NOISE_SHARE = 0.8, 0.5
# The paper's time for a match; a shorter one for spikes of any neuron, as of those there are many.
_DELTA_MS, _ANY_DELTA_MS = 1.0, 0.4


def true_labels(truth: BaseSorting, sorting: BaseSorting) -> pd.DataFrame:
    """Tell what each sorted unit is.

    Parameters
    ----------
    truth : BaseSorting
        Ground truth.
    sorting : BaseSorting
        What a sorter found.

    Returns
    -------
    pandas.DataFrame
        A row a sorted unit, as its id is written: ``accuracy`` (with the true unit that it agrees with best),
        ``true_share`` (of its spikes, those within 0.4 ms of any true one) and ``label``: ``sua`` from
        `SINGLE_ACCURACY` on, ``noise`` under `NOISE_SHARE`, else ``mua``.
    """
    rate = truth.get_sampling_frequency()
    matches = make_match_count_matrix(truth, sorting, int(_DELTA_MS * rate / 1000)).to_numpy()
    num_true = np.array([len(truth.get_unit_spike_train(unit)) for unit in truth.unit_ids])
    trains = [sorting.get_unit_spike_train(unit) for unit in sorting.unit_ids]
    num_found = np.array([len(train) for train in trains])
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = np.nan_to_num(matches / (num_true[:, None] + num_found - matches))
    best = accuracy.max(axis=0) if len(num_true) else np.zeros(len(trains))
    all_true = truth.to_spike_vector()["sample_index"]
    delta_frames = int(_ANY_DELTA_MS * rate / 1000)
    share = [detection_scores(train, all_true, delta_frames=delta_frames)["precision"] for train in trains]
    table = pd.DataFrame({"accuracy": best, "true_share": share}, index=sorting.unit_ids.astype(str))
    table["label"] = np.where(
        best >= SINGLE_ACCURACY, "sua", np.where(table["true_share"] < NOISE_SHARE, "noise", "mua")
    )
    return table


def labelled_units(
    dataset: Dataset, sorter: str, *, runs: Path, recording: BaseRecording | None = None
) -> pd.DataFrame:
    """Measure the units that a sorter found, and label them.

    Parameters
    ----------
    dataset : Dataset
        The recording with its truth.
    sorter : str
        Which sorter.
    runs : Path
        Of all runs, see `benchmarks.runs`.
    recording : BaseRecording, optional
        Of the dataset, where it was read before.

    Returns
    -------
    pandas.DataFrame
        A row a unit of `MIN_SPIKES` spikes or more: `KEYS`, all metrics, ``thresholds``, ``bombcell``, and the columns
        of `true_labels`. Empty where the sorter found nothing.
    """
    path = run_folder(dataset, sorter, folder=runs) / SPIKES_FILE
    if not path.exists():
        return pd.DataFrame(columns=KEYS)
    sorting = read_spikes(path)
    found = [unit for unit, number in sorting.count_num_spikes_per_unit().items() if number >= MIN_SPIKES]
    if not found:
        return pd.DataFrame(columns=KEYS)
    sorting = sorting.select_units(found)
    if recording is None:
        recording = si.load(dataset.folder / "recording")
    analyzer = make_analyzer(recording, sorting)
    table = compute_metrics(analyzer)
    labels = {
        "thresholds": label_by_thresholds(table),
        "bombcell": label_by_bombcell(table, amplitudes_in_uv=analyzer.return_in_uV),
    }
    table = table.assign(**labels).join(true_labels(si.load(dataset.folder / "sorting"), sorting))
    table = table.rename_axis("unit").reset_index()
    return table.assign(family=dataset.family, dataset=dataset.name, sorter=sorter)


def collect_units(
    datasets: Iterable[Dataset], sorters: Sequence[str] | None, *, runs: Path, parts: Path
) -> pd.DataFrame:
    """Measure the units of many sortings, but for those that were measured before.

    Parameters
    ----------
    datasets : iterable of Dataset
        The recordings.
    sorters : sequence of str, optional
        Which; default all that ran.
    runs : Path
        Of all runs.
    parts : Path
        Folder for a table a sorting.

    Returns
    -------
    pandas.DataFrame
        See `labelled_units`.
    """
    tables = []
    for dataset in datasets:
        ran = sorted(path.parent.name for path in (runs / dataset.family / dataset.name).glob(f"*/{SPIKES_FILE}"))
        recording = None
        for sorter in [name for name in ran if sorters is None or name in sorters]:
            part = parts / f"{dataset.family}-{dataset.name}-{sorter}.csv"
            if not part.exists():
                part.parent.mkdir(parents=True, exist_ok=True)
                unfinished = part.with_suffix(".partial")
                # Metrics read the traces several times: filtered once, for all sorters.
                if recording is None:
                    recording = band_passed(si.load(dataset.folder / "recording")).save(format="memory")
                table = labelled_units(dataset, sorter, runs=runs, recording=recording)
                table.to_csv(unfinished, index=False)
                unfinished.replace(part)
                logger.info("%s/%s %s", dataset.family, dataset.name, sorter)
            # Names of units and recordings that are numbers stay as they are written.
            tables.append(pd.read_csv(part, dtype=dict.fromkeys(KEYS, str), keep_default_na=True))
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=KEYS)


def find_datasets(folder: Path, *, families: Sequence[str] | None = None) -> list[Dataset]:
    """Recordings that were kept, ``FOLDER/FAMILY/NAME``, of some families or of all."""
    paths = sorted(folder.glob(f"*/*/{DESCRIPTION_FILE}"), key=lambda path: (path.parts[-3], path.parts[-2].zfill(6)))
    found = [Dataset(family=path.parts[-3], name=path.parts[-2], folder=path.parent) for path in paths]
    return [dataset for dataset in found if families is None or dataset.family in families]
