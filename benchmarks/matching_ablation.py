"""What template matching is worth: clusters, SpikeInterface's matching, and ours step by step, each measured alone.

SpikeInterface's methods begin with the same clusters as ours. Each gets traces that are filtered and whitened, and mean
templates that are cleaned, as in the sorter of SpikeInterface that uses it; what such a sorter merges afterwards is
left out.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from spikeinterface.core import BaseRecording, BaseSorting, Templates, estimate_templates, get_noise_levels
from spikeinterface.preprocessing import bandpass_filter, whiten
from spikeinterface.sortingcomponents.matching import find_spikes_from_templates
from spikeinterface.sortingcomponents.tools import clean_templates

from benchmarks.parts import find_recordings, parts_folder, score_recordings
from benchmarks.recordings import sorting_of
from benchmarks.scores import unit_scores
from spikeinterface_simsort import learning
from spikeinterface_simsort.compute import run_nodes
from spikeinterface_simsort.excerpt import Excerpt
from spikeinterface_simsort.matching import TemplatePeakDetector
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.pipeline import sort
from spikeinterface_simsort.preprocessing import preprocess
from spikeinterface_simsort.resampling import NYQUIST_SHARE, SamplingGrid
from spikeinterface_simsort.weights import load_weights
from spikeinterface_simsort.whitening import Whitener, noise_windows

logger = logging.getLogger(__name__)

DELTA_MS = 1.0
NUM_ROUNDS = (1, 2, 3)
COLUMNS = ("way", "accuracy", "num_units", "num_true_units", "seconds")

# One core for all, so that times can be compared.
_JOBS: dict[str, Any] = {"n_jobs": 1, "progress_bar": False}
_PARAMS = SimSortParams(job_kwargs=_JOBS).resolve()
# Of SpikeInterface's sorters, all alike.
_FREQ_MIN, _WHITENING_RADIUS_UM = 150.0, 100.0


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What a sorter of SpikeInterface gives its template matching.

    Attributes
    ----------
    freq_max : float
        Upper edge of the band in Hz.
    ms_before, ms_after : float
        Of a template, around its trough.
    sparsify_threshold : float
        A template counts on the channels where it is larger than this, from peak to peak, in units of noise.
    min_snr : float
        Templates that are smaller on all channels are dropped.
    needs_noise : bool
        Whether it asks for the noise of each channel.
    """

    freq_max: float
    ms_before: float
    ms_after: float
    sparsify_threshold: float
    min_snr: float
    needs_noise: bool = False


_TRIDESCLOUS2 = Engine(
    freq_max=6000.0, ms_before=1.0, ms_after=2.5, sparsify_threshold=1.5, min_snr=3.5, needs_noise=True
)
ENGINES = {
    # No sorter uses it: it gets what the peeler gets, which begins in the same way.
    "nearest": _TRIDESCLOUS2,
    "tdc-peeler": _TRIDESCLOUS2,
    # Of Spyking Circus 2, which takes medians for templates.
    "circus-omp": Engine(freq_max=7000.0, ms_before=0.5, ms_after=1.5, sparsify_threshold=1.0, min_snr=5.0),
    # Of Lupin.
    "wobble": Engine(freq_max=7000.0, ms_before=1.0, ms_after=2.5, sparsify_threshold=1.0, min_snr=4.0),
}


def match_with(recording: BaseRecording, sorting: BaseSorting, *, method: str) -> BaseSorting:
    """Find the units of a sorting by a template matching of SpikeInterface.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces of a tetrode, of one segment.
    sorting : BaseSorting
        Units whose mean waveforms are the templates.
    method : str
        Of `ENGINES`.

    Returns
    -------
    BaseSorting
        Units whose templates are dropped, or not found, are left out.
    """
    engine = ENGINES[method]
    rate = recording.get_sampling_frequency()
    filtered = bandpass_filter(
        recording,
        freq_min=_FREQ_MIN,
        freq_max=min(engine.freq_max, NYQUIST_SHARE * rate / 2),
        ftype="bessel",
        filter_order=2,
        dtype="float32",
    )
    whitened = whiten(filtered, dtype="float32", mode="local", radius_um=_WHITENING_RADIUS_UM, seed=_PARAMS.seed)
    whitened = whitened.save(format="memory", sharedmem=False, **_JOBS)
    noise = get_noise_levels(
        whitened, return_in_uV=False, random_slices_kwargs={"seed": _PARAMS.seed}, progress_bar=False
    )
    # The sorters drop templates off their trough: these were moved to it.
    templates = clean_templates(
        mean_templates(whitened, sorting, ms_before=engine.ms_before, ms_after=engine.ms_after),
        noise_levels=noise,
        sparsify_threshold=engine.sparsify_threshold,
        min_snr=engine.min_snr,
    )
    if not len(templates.unit_ids):
        return sorting_of({}, rate=rate)
    options = {"noise_levels": noise} if engine.needs_noise else {}
    spikes = find_spikes_from_templates(
        whitened, templates, method=method, method_kwargs=options, job_kwargs=_JOBS, verbose=False
    )
    return _labelled(spikes["sample_index"], spikes["cluster_index"], rate=rate)


def mean_templates(recording: BaseRecording, sorting: BaseSorting, *, ms_before: float, ms_after: float) -> Templates:
    """Average the waveforms of each unit, its spikes moved to the trough that SpikeInterface's methods look for.

    Parameters
    ----------
    recording : BaseRecording
        Filtered.
    sorting : BaseSorting
        Of one segment.
    ms_before, ms_after : float
        Around the trough.

    Returns
    -------
    Templates
        On all channels, in the units of the recording.
    """
    rate = recording.get_sampling_frequency()
    num_before, num_after = round(ms_before * rate / 1000), round(ms_after * rate / 1000)
    spikes = sorting.to_spike_vector().copy()
    options = {"unit_ids": sorting.unit_ids, "nbefore": num_before, "nafter": num_after, "return_in_uV": False} | _JOBS
    troughs = estimate_templates(recording, spikes, **options).min(axis=2).argmin(axis=1)
    spikes["sample_index"] += troughs[spikes["unit_index"]] - num_before
    # Those at the borders were cut off.
    frames = spikes["sample_index"]
    spikes = spikes[(frames >= num_before) & (frames < recording.get_num_samples() - num_after)]
    spikes = spikes[np.argsort(spikes["sample_index"], kind="stable")]
    return Templates(
        templates_array=estimate_templates(recording, spikes, **options),
        sampling_frequency=rate,
        nbefore=num_before,
        channel_ids=recording.channel_ids,
        unit_ids=sorting.unit_ids,
        probe=recording.get_probe(),
        is_in_uV=False,
    )


def match_once(recording: BaseRecording, sorting: BaseSorting) -> BaseSorting:
    """Find the units of a sorting by the sorter's template matching, once: nothing is split or merged.

    Parameters
    ----------
    recording, sorting : BaseRecording, BaseSorting
        See `match_with`.

    Returns
    -------
    BaseSorting
        Units that are too small for a template are left out.

    Raises
    ------
    ValueError
        Spikes leave no noise to be seen.
    """
    weights = load_weights(_PARAMS.weights)
    config, rate = weights.config["embedder"], weights.config["embedder"]["sampling_frequency"]
    num_samples: int = weights.embedder.num_samples
    preprocessed = preprocess(recording, params=_PARAMS)
    grid = SamplingGrid.between(recording_frequency=recording.get_sampling_frequency(), model_frequency=rate)
    spikes = sorting.to_spike_vector()
    stretch = learning.choose_stretch(Excerpt.of_all(preprocessed), spikes, grid=grid)
    windows = noise_windows(stretch.traces, stretch.spikes.round().astype("int64"), num_samples=num_samples)
    if windows is None:
        raise ValueError("The spikes leave no noise to be seen.")
    units = spikes["unit_index"][stretch.chosen]
    matcher = learning._matcher(
        stretch,
        [stretch.spikes[units == unit] for unit in np.unique(units)],
        whitener=Whitener.from_noise(windows),
        displacement=lambda samples: np.zeros(len(samples)),
        levels=np.zeros(1),
        num_before=round(config["ms_before"] * rate / 1000),
        num_samples=num_samples,
    )
    if matcher is None:
        return sorting_of({}, rate=recording.get_sampling_frequency())
    count = matcher.num_templates
    templates = learning.Templates(matcher=matcher, units=np.arange(count), shifts=np.zeros(count), drift=None)
    detector = TemplatePeakDetector(preprocessed, templates=templates, grid=grid)
    peaks, labels, _ = run_nodes(preprocessed, [detector], job_kwargs=_PARAMS.job_kwargs, job_name="match templates")
    return _labelled(peaks["sample_index"], labels, rate=recording.get_sampling_frequency())


def _labelled(frames: np.ndarray, labels: np.ndarray, *, rate: float) -> BaseSorting:
    """Sorting of labelled spikes; -1 is none."""
    return sorting_of(
        {int(unit): np.sort(frames[labels == unit]) for unit in np.unique(labels[labels >= 0])}, rate=rate
    )


def sort_in_rounds(recording: BaseRecording, *, num_rounds: int) -> BaseSorting:
    """Sort a recording, templates learned in another number of rounds than the sorter's.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces of a tetrode.
    num_rounds : int
        In the last, units are only merged, and not split.

    Returns
    -------
    BaseSorting
    """
    with patch.object(learning, "_NUM_ROUNDS", num_rounds):
        return sort(recording, params=_PARAMS)


def ablate(recording: BaseRecording, truth: BaseSorting) -> pd.DataFrame:
    """Score all ways on a recording.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        Of a tetrode and one segment.

    Returns
    -------
    pandas.DataFrame
        A row a way: ``way``; ``accuracy``, the mean over the true units at 1.0 ms, and ``num_units`` found, NaN if
        it failed; ``num_true_units``; ``seconds``, those of the clusters included where it begins with them. The first
        to use a library loads it.
    """
    start = time.perf_counter()
    clusters = sort(recording, params=replace(_PARAMS, match_templates=False))
    cluster_seconds = time.perf_counter() - start
    rows = [_row("clusters", clusters, truth=truth, seconds=cluster_seconds)]
    begin_with_clusters: dict[str, Callable[[], BaseSorting]] = {
        method: partial(match_with, recording, clusters, method=method) for method in ENGINES
    }
    begin_with_clusters["own, once"] = partial(match_once, recording, clusters)
    others: dict[str, Callable[[], BaseSorting]] = {
        f"own, {count} round{'s' * (count > 1)}": partial(sort_in_rounds, recording, num_rounds=count)
        for count in NUM_ROUNDS
    }
    others["true templates"] = partial(match_once, recording, truth)
    for way, find in (begin_with_clusters | others).items():
        found, seconds = _attempt(find, way=way)
        if way in begin_with_clusters:
            seconds += cluster_seconds
        rows.append(_row(way, found, truth=truth, seconds=seconds))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _attempt(find: Callable[[], BaseSorting], *, way: str) -> tuple[BaseSorting | None, float]:
    """Sorting of a way, or None, and seconds."""
    sorting = None
    start = time.perf_counter()
    try:
        sorting = find()
    except Exception:  # Each method has errors of its own; the other ways go on.
        logger.exception("%s failed.", way)
    return sorting, time.perf_counter() - start


def _row(way: str, found: BaseSorting | None, *, truth: BaseSorting, seconds: float) -> dict[str, Any]:
    accuracy = num_units = float("nan")
    if found is not None:
        accuracy = float(unit_scores(truth, found, delta_ms=DELTA_MS)["accuracy"].mean())
        num_units = len(found.unit_ids)
    num_true_units = len(truth.unit_ids)
    return dict(zip(COLUMNS, (way, accuracy, num_units, num_true_units, seconds), strict=True))


def gather(folders: Sequence[Path], *, num_recordings: int | None = None) -> dict[tuple[str, str], Path]:
    """Recordings of several folders, with their ground truth.

    Parameters
    ----------
    folders : sequence of Path
        See `benchmarks.parts.find_recordings`.
    num_recordings : int, optional
        Of each family of a folder only the first so many. Default: all.

    Returns
    -------
    dict of (str, str) to Path
        By family and name.

    Raises
    ------
    ValueError
        A folder holds no recording, or two hold one of the same family and name.
    """
    recordings: dict[tuple[str, str], Path] = {}
    for folder in folders:
        found = find_recordings(folder, num_recordings=num_recordings)
        if both := found.keys() & recordings.keys():
            family, name = min(both)
            raise ValueError(f"{folder} and another folder both hold {family}/{name}.")
        recordings |= found
    return recordings


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the recordings of each family.

    Parameters
    ----------
    table : pandas.DataFrame
        `ablate` of each recording, see `benchmarks.parts.score_recordings`.

    Returns
    -------
    pandas.DataFrame
        A row a family and way, in the order of `table`: ``accuracy`` and ``num_units``, over recordings where it
        did not fail, ``num_true_units``, ``seconds`` and ``num_recordings``.
    """
    groups = table.groupby(["family", "way"], sort=False)
    means = groups[["accuracy", "num_units", "num_true_units", "seconds"]].mean()
    means["num_recordings"] = groups.size()
    return means.reset_index()


def as_markdown(means: pd.DataFrame) -> str:
    """Accuracies as a Markdown table: a row a way, a column a family, then means over families.

    Parameters
    ----------
    means : pandas.DataFrame
        From `summarise`.

    Returns
    -------
    str
    """
    families, ways = means["family"].unique(), means["way"].unique()
    accuracy = means.pivot(index="way", columns="family", values="accuracy").loc[ways, families]
    accuracy["mean"] = accuracy.mean(axis=1)
    others = means.groupby("way", sort=False)[["num_units", "num_true_units", "seconds"]].mean()
    lines = [f"| way | {' | '.join(accuracy.columns)} | units (true) | s |"]
    lines.append("| --- |" + " ---: |" * (len(accuracy.columns) + 2))
    for way in ways:
        cells = ["–" if np.isnan(value) else f"{value:.3f}" for value in accuracy.loc[way]]
        row = others.loc[way]
        cells += [f"{row['num_units']:.1f} ({row['num_true_units']:.1f})", f"{row['seconds']:.1f}"]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Write a row a recording and way as CSV, and log a mean per family and way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matching_ablation", description=__doc__)
    parser.add_argument(
        "--datasets", type=Path, nargs="+", required=True, help="folders of FAMILY/NAME/{recording,sorting}"
    )
    parser.add_argument("--num-recordings", type=int, help="of each family of a folder (all)")
    parser.add_argument(
        "--output", type=Path, required=True, help="CSV file to write; what is done is kept in OUTPUT.parts"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    output = arguments.output
    try:
        recordings = gather(arguments.datasets, num_recordings=arguments.num_recordings)
    except ValueError as error:
        parser.error(str(error))
    table = score_recordings(recordings, ablate, parts=parts_folder(output))
    table.to_csv(output, index=False, float_format="%.4f")
    logger.info("%s", as_markdown(summarise(table)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
