"""The benchmark as a study of SpikeInterface's own, for its tables and plots of sorters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import spikeinterface as si
from spikeinterface.benchmark import SorterStudy
from spikeinterface.core import SortingAnalyzer, create_sorting_analyzer

import spikeinterface_simsort  # noqa: F401  registers the sorter
from benchmarks.catalogue import Dataset
from benchmarks.peers import PEERS, checked_params, missing
from benchmarks.scores import unit_scores

LEVELS = ("family", "dataset", "sorter")


def make_study(datasets: Iterable[Dataset], *, sorters: Sequence[str], folder: Path) -> SorterStudy:
    """Set up a study of sorters on recordings; ``study.run()`` runs it.

    Parameters
    ----------
    datasets : iterable of Dataset
        The recordings, with their truth.
    sorters : sequence of str
        Of `benchmarks.peers.PEERS`, with the settings they have there.
    folder : Path
        Of the study, new.

    Returns
    -------
    SorterStudy
        Its cases are called (family, dataset, sorter). Recordings are as they were saved and not filtered, as sorters
        filter for themselves; so its measures of the true units are those of raw traces, too.

    Raises
    ------
    FileExistsError
        The folder is there: ``SorterStudy(folder)`` opens a study that was made before.
    ValueError
        There is nothing to study, a data set is named twice, or a sorter cannot run in this environment.
    """
    for sorter in sorters:
        reason = missing(sorter) if sorter in PEERS else "no such sorter"
        if reason is None and PEERS[sorter].own_environment:
            reason = "it needs an environment of its own"
        if reason:
            raise ValueError(f"{sorter} cannot be part of a study: {reason}.")
    if folder.exists():
        raise FileExistsError(f"There is a folder {folder}: SorterStudy(folder) opens a study that was made before.")
    params = {sorter: {"sorter_name": sorter, **checked_params(sorter)} for sorter in sorters}
    analyzers: dict[str, SortingAnalyzer] = {}
    cases = {}
    for dataset in datasets:
        name = f"{dataset.family}--{dataset.name}"
        if name in analyzers:
            raise ValueError(f"{dataset.family}/{dataset.name} is named twice.")
        # Made here: SpikeInterface 0.105 makes one only where the truth tells the places of its units.
        analyzers[name] = create_sorting_analyzer(
            si.load(dataset.folder / "sorting"), si.load(dataset.folder / "recording"), sparse=False, seed=0
        )
        analyzers[name].compute(
            {"random_spikes": {"seed": 0}, "templates": {}, "noise_levels": {"random_slices_kwargs": {"seed": 0}}},
            progress_bar=False,
        )
        for sorter in sorters:
            cases[dataset.family, dataset.name, sorter] = {
                "label": f"{sorter} on {dataset.family}/{dataset.name}",
                "dataset": name,
                "params": params[sorter],
            }
    if not cases:
        raise ValueError("A study needs a data set and a sorter.")
    return SorterStudy.create(folder, datasets=analyzers, cases=cases, levels=list(LEVELS))


def study_scores(study: SorterStudy, *, delta_ms: float) -> pd.DataFrame:
    """Score a study's sorters with spikes matching within another time than its own, which is fixed at 0.4 ms.

    Parameters
    ----------
    study : SorterStudy
        Of `make_study`, after ``study.run()``. Nothing of it is changed.
    delta_ms : float
        Spikes match within this time.

    Returns
    -------
    pandas.DataFrame
        `unit_scores` of each case that has been run, with ``family``, ``dataset``, ``sorter`` and ``delta_ms``. The
        study's own performance calls matches under 0.5 no match; here they count as what they are, and as there
        after ``study.compute_results(match_score=0.0)``.

    Raises
    ------
    ValueError
        Nothing has been run.
    """
    tables = []
    for key, benchmark in study.benchmarks.items():
        if benchmark is not None:
            table = unit_scores(benchmark.gt_sorting, benchmark.result["sorting"], delta_ms=delta_ms)
            tables.append(table.assign(**dict(zip(LEVELS, key, strict=True)), delta_ms=delta_ms))
    if not tables:
        raise ValueError("No case of the study has been run: study.run() does.")
    return pd.concat(tables, ignore_index=True)
