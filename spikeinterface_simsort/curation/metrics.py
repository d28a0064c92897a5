"""Quality and template metrics of sorted units: those that mean something on few channels, in one table."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeinterface_simsort.curation.companions import COMPANION_METRICS, companion_metrics
from spikeinterface_simsort.curation.isolation import ISOLATION_METRICS, isolation_metrics

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import BaseRecording, BaseSorting, SortingAnalyzer

logger = logging.getLogger(__name__)

QUALITY_METRICS = (
    "num_spikes",
    "firing_rate",
    "presence_ratio",
    "snr",
    "isi_violation",
    "rp_violation",
    "sliding_rp_violation",
    "firing_range",
    "amplitude_cv",
    "amplitude_cutoff",
    "amplitude_median",
    "noise_cutoff",
    "sd_ratio",
    "mahalanobis",
    "d_prime",
    "silhouette",
)
TEMPLATE_METRICS = (
    "peak_to_trough_duration",
    "half_width",
    "repolarization_slope",
    "recovery_slope",
    "number_of_peaks",
    "main_to_next_extremum_duration",
    "waveform_ratios",
    "waveform_widths",
    "waveform_baseline_flatness",
)
OWN_METRICS = {**COMPANION_METRICS, **ISOLATION_METRICS}
# SpikeInterface's names, and why they are not computed.
LEFT_OUT = {
    "velocity_fits": "fits a line to arrival times along a probe: a tetrode's four contacts lie on none",
    "exp_decay": "fits the decay of the amplitude with distance: four contacts have two or three distances",
    "spread": "is the length of probe that a spike reaches: a tetrode is smaller than that",
    "drift": "follows spikes along a probe: four contacts do not tell where a spike comes from to some ten micrometres",
    "synchrony": "counts spikes of several units at the very same sample: many probes apart that is chance or a "
    "common input, on one tetrode it is what the sorter does where spikes overlap",
    "nearest_neighbor": "looks for neighbours among principal components, where units that are told apart by "
    "their waveforms lie together; `nearer_share` looks at waveforms, in less time",
    "nn_advanced": "looks for units within a radius, which on a tetrode are all, and takes longer than all others",
}
# Spikes of a unit whose waveforms are looked at: what tells units apart changes little with more.
MAX_SPIKES_PER_UNIT = 300
# Each second of the traces that holds one is filtered for it, and four channels are soon told apart.
_SPIKES_FOR_MAIN_CHANNEL = 20
# More channels without groups are no tetrode: then each unit is looked at where SpikeInterface finds it.
_MOST_DENSE_CHANNELS = 8
_BAND_HZ = (300.0, 6000.0)


class CurationError(ValueError):
    """Units cannot be curated; the message says what to do."""


def make_analyzer(
    recording: BaseRecording,
    sorting: BaseSorting,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    job_kwargs: dict[str, Any] | None = None,
) -> SortingAnalyzer:
    """Make what SpikeInterface computes metrics from.

    Parameters
    ----------
    recording : BaseRecording
        Raw or filtered (``recording.is_filtered()``): what is not is band-passed, lazily, 300 to 6000 Hz. With a
        property ``group``, each unit is looked at on the channels of its own group.
    sorting : BaseSorting
        Its units.
    folder : str or Path, optional
        Where the analyzer is kept, in SpikeInterface's binary format; in memory if not given.
    seed : int
        Of the spikes that are drawn, where there are many channels without groups.
    job_kwargs : dict, optional
        SpikeInterface's job arguments.

    Returns
    -------
    SortingAnalyzer
        Without extensions; in uV where the recording's gains are known.
    """
    from spikeinterface.core import ChannelSparsity, create_sorting_analyzer

    recording = band_passed(recording)
    jobs = {"n_jobs": 1, "progress_bar": False, **(job_kwargs or {})}
    options: dict[str, Any] = {"sparse": recording.get_num_channels() > _MOST_DENSE_CHANNELS}
    if not sorting.get_num_units():
        options = {"sparse": False}
    elif _has_groups(recording, sorting):
        options = {
            "sparsity": ChannelSparsity.from_property(sorting, recording, "group"),
            "main_channel_indices": _main_channels(recording, sorting, seed=seed, jobs=jobs),
        }
    if folder is not None:
        options |= {"format": "binary_folder", "folder": folder}
    return create_sorting_analyzer(
        sorting, recording, return_in_uV=recording.has_scaleable_traces(), seed=seed, job_kwargs=jobs, **options
    )


def band_passed(recording: BaseRecording) -> BaseRecording:
    """Lazily, 300 to 6000 Hz, but for what is filtered already (``recording.is_filtered()``)."""
    from spikeinterface.preprocessing import bandpass_filter

    if recording.is_filtered():
        return recording
    freq_max = min(_BAND_HZ[1], 0.45 * recording.get_sampling_frequency())
    return bandpass_filter(recording, freq_min=_BAND_HZ[0], freq_max=freq_max, dtype="float32")


def compute_metrics(
    analyzer: SortingAnalyzer, *, seed: int = 0, job_kwargs: dict[str, Any] | None = None
) -> pd.DataFrame:
    """Compute `QUALITY_METRICS` and `TEMPLATE_METRICS`, with SpikeInterface's parameters, but for those that are there.

    Parameters
    ----------
    analyzer : SortingAnalyzer
        Extensions that are missing are added to it. Those that are there are kept as they are.
    seed : int
        Of the spikes, stretches of noise and neighbours that are drawn.
    job_kwargs : dict, optional
        SpikeInterface's job arguments.

    Returns
    -------
    pandas.DataFrame
        A row a unit, a column a value, see `metric_columns`; NaN where a unit has too few spikes for it, or no other
        unit to be told from. Amplitudes are in uV only if ``analyzer.return_in_uV``.

    Raises
    ------
    CurationError
        Something has to be computed, and the analyzer does not find its recording.
    """
    import pandas as pd
    from spikeinterface.core.job_tools import fix_job_kwargs

    columns = metric_columns()
    if not len(analyzer.unit_ids):
        return pd.DataFrame(columns=columns, index=pd.Index(analyzer.unit_ids), dtype=float)
    jobs = fix_job_kwargs({"n_jobs": 1, "progress_bar": False, **(job_kwargs or {})})
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Of units with few spikes or no neighbour, which the table has NaN for.
        warnings.simplefilter("ignore")
        for name, params in _extensions(analyzer, seed=seed).items():
            if analyzer.has_extension(name):
                continue
            if name in _READ_TRACES:
                _check_recording(analyzer, what=name)
            logger.debug("Computing %s.", name)
            options = {**params, **(jobs if name in _WITH_JOBS else {})}
            analyzer.compute_one_extension(name, save=name != _WITH_MODELS, **options)
            if name == _WITH_MODELS:
                _save_without_models(analyzer)
        for name, wanted in (("quality_metrics", QUALITY_METRICS), ("template_metrics", TEMPLATE_METRICS)):
            _add_metrics(analyzer, name, wanted=wanted, seed=seed, jobs=jobs)
        _add_own(analyzer, seed=seed)
    table = analyzer.get_metrics_extension_data().reindex(index=analyzer.unit_ids)
    return table.reindex(columns=[*columns, *(name for name in table.columns if name not in columns)])


def metric_columns() -> list[str]:
    """Names of the values: SpikeInterface's metrics have one or several each."""
    from spikeinterface.metrics import ComputeQualityMetrics, ComputeTemplateMetrics

    columns = [
        column
        for extension, wanted in (
            (ComputeQualityMetrics, QUALITY_METRICS),
            (ComputeTemplateMetrics, TEMPLATE_METRICS),
        )
        for name in wanted
        for column in extension.get_metric_by_name(name).metric_columns
    ]
    return [*columns, *OWN_METRICS]


_READ_TRACES = ("noise_levels", "waveforms", "templates", "spike_amplitudes")
_WITH_MODELS = "principal_components"
_WITH_JOBS = ("noise_levels", "waveforms", "spike_amplitudes", "principal_components")


def _extensions(analyzer: SortingAnalyzer, *, seed: int) -> dict[str, dict[str, Any]]:
    """What the metrics are made of, in the order of computation."""
    return {
        "random_spikes": {"max_spikes_per_unit": MAX_SPIKES_PER_UNIT, "seed": seed},
        "noise_levels": {"random_slices_kwargs": {"seed": seed}},
        "waveforms": {},
        "templates": {},
        "spike_amplitudes": {},
        "principal_components": {"n_components": 3, "mode": "by_channel_local"},
    }


def _check_recording(analyzer: SortingAnalyzer, *, what: str) -> None:
    if not (analyzer.has_recording() or analyzer.has_temporary_recording()):
        raise CurationError(
            f"The analyzer has no {what} and does not find its recording. Give it its recording "
            "(analyzer.set_temporary_recording), or compute what is missing where the recording is."
        )


def _save_without_models(analyzer: SortingAnalyzer) -> None:
    """Keep the projections alone: the fitted decompositions would be pickles, and a folder with pickles is not read."""
    extension: Any = analyzer.get_extension(_WITH_MODELS)
    extension.data = {name: data for name, data in extension.data.items() if not name.startswith("pca_model")}
    if analyzer.format != "memory" and not analyzer.is_read_only():
        extension.save()


def _add_metrics(
    analyzer: SortingAnalyzer, extension: str, *, wanted: tuple[str, ...], seed: int, jobs: dict[str, Any]
) -> None:
    """Compute those metrics of an extension that it does not have."""
    options: dict[str, Any] = {}
    there: list[str] = []
    if (known := analyzer.get_extension(extension)) is not None:
        there = known.get_computed_metric_names()
        if set(wanted) <= set(there):
            return
    if extension == "quality_metrics":
        options = {"seed": seed, **jobs}
    with _called_uv(analyzer) if extension == "template_metrics" else nullcontext():
        analyzer.compute_one_extension(
            extension,
            save=True,
            metric_names=list(wanted),
            metrics_to_compute=[name for name in wanted if name not in there],
            **options,
        )


@contextmanager
def _called_uv(analyzer: SortingAnalyzer) -> Iterator[None]:
    """Let SpikeInterface compute template metrics where gains are not known: it refuses, though most have no unit."""
    in_uv = analyzer.return_in_uV
    analyzer.return_in_uV = True
    try:
        yield
    finally:
        analyzer.return_in_uV = in_uv


def _add_own(analyzer: SortingAnalyzer, *, seed: int) -> None:
    """Put the metrics of our own among the quality metrics, where SpikeInterface's classifiers find them."""
    extension = analyzer.get_extension("quality_metrics")
    metrics = extension.get_data()
    if not set(OWN_METRICS) <= set(metrics.columns):
        _check_recording(analyzer, what="isolation of units")
        own = companion_metrics(analyzer, seed=seed).join(isolation_metrics(analyzer, seed=seed))
        extension.set_data("metrics", metrics.assign(**{name: own[name] for name in own}))
        if analyzer.format != "memory" and not analyzer.is_read_only():
            extension.save()


def _has_groups(recording: BaseRecording, sorting: BaseSorting) -> bool:
    """Whether recording and units both tell of groups, and of the same ones."""
    channels, units = recording.get_property("group"), sorting.get_property("group")
    return units is not None and channels is not None and len(units) > 0 and set(units) <= set(channels)


def _main_channels(
    recording: BaseRecording, sorting: BaseSorting, *, seed: int, jobs: dict[str, Any]
) -> np.ndarray | None:
    """Index of each unit's channel among those of its group; None where SpikeInterface finds it in the sorting."""
    from spikeinterface.core.template_tools import estimate_main_channel_from_recording

    if "main_channel_id" in sorting.get_property_keys():
        return None
    groups = sorting.get_property("group")
    assert groups is not None
    indices = np.zeros(len(groups), dtype=int)
    for group, part in recording.split_by("group").items():
        of_group = np.flatnonzero(groups == group)
        if len(of_group):
            units = sorting.select_units(sorting.unit_ids[of_group])
            options = {
                "peak_sign": "both",
                "peak_mode": "extremum",
                "num_spikes_for_main_channel": _SPIKES_FOR_MAIN_CHANNEL,
                "seed": seed,
            }
            main = estimate_main_channel_from_recording(part, units, **options, **jobs)
            indices[of_group] = recording.ids_to_indices(part.channel_ids[main])
    return indices
