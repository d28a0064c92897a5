"""A picture of sorted units, for people: SpikeInterface computes what `report_panels` draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from spikeinterface.core import BaseRecording, BaseSorting, SortingAnalyzer, create_sorting_analyzer
from spikeinterface.preprocessing import highpass_filter, unsigned_to_signed

from spikeinterface_simsort.groups import split_groups
from spikeinterface_simsort.report_panels import Plane, UnitPicture, draw_page
from spikeinterface_simsort.unit_table import UnitRow, describe_units

_MS_BEFORE, _MS_AFTER = 1.0, 2.0
_CORRELOGRAM_MS, _BIN_MS = 50.0, 1.0
_HIGHPASS_HZ = 300.0
_MAX_CHANNELS = 8
_MAX_WAVEFORMS = 500
_MAX_DOTS = 5000
# Waveforms are kept in memory: 160 MB at most, whatever the number of channels.
_MAX_WAVEFORM_VALUES = 40_000_000


def draw_units(
    recording: BaseRecording,
    sorting: BaseSorting,
    path: str | Path,
    *,
    title: str = "",
    max_units: int = 12,
    seed: int = 0,
    dpi: float = 110.0,
    job_kwargs: dict[str, Any] | None = None,
) -> Path:
    """Draw the largest units: waveforms, autocorrelograms, amplitudes over time, and how far they are apart.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces; shown high-passed at 300 Hz, in uV where gains are known.
    sorting : BaseSorting
        Its units.
    path : str or Path
        Picture to be written; its suffix tells the format.
    title : str
        Stands before the number of units.
    max_units : int
        As many are shown: those of the largest ``snr``, or of the most spikes where that is not known. Units without
        a spike are not.
    seed : int
        For the spikes that are shown.
    dpi : float
        Dots per inch.
    job_kwargs : dict, optional
        SpikeInterface's job arguments: n_jobs, chunk_duration, progress_bar.

    Returns
    -------
    Path
        The picture.
    """
    path = Path(path)
    rows = describe_units(recording, sorting)
    shown, order = _largest(rows, max_units=max_units)
    headline = _headline(recording, title=title, num_units=len(rows), num_shown=len(shown), order=order)
    if not shown:
        figure = Figure(figsize=(9.0, 2.5))
        figure.suptitle(headline, x=0.02, ha="left", fontweight="bold")
        figure.text(
            0.5,
            0.45,
            "No units were found." if not rows else "The units have no spikes.",
            ha="center",
            va="center",
            fontsize=16,
            color="0.3",
        )
        figure.savefig(path, dpi=dpi)
        return path
    pictures: dict[Any, UnitPicture] = {}
    planes: list[Plane] = []
    groups = _group_units(recording, sorting, [row.unit_id for row in shown])
    for name, part, unit_ids in groups:
        analyzer = _analyse(
            part, sorting.select_units(unit_ids), seed=seed, job_kwargs={"progress_bar": False, **(job_kwargs or {})}
        )
        pictures.update(_unit_pictures(analyzer, seed=seed))
        planes += _planes(analyzer, name=name, num_planes=3 if len(groups) == 1 else 1)
    figure = draw_page(
        rows=shown,
        pictures=pictures,
        planes=planes,
        boundaries=_boundaries(recording),
        headline=headline,
        highpass_hz=_HIGHPASS_HZ,
    )
    figure.savefig(path, dpi=dpi)
    return path


def _largest(rows: list[UnitRow], *, max_units: int) -> tuple[list[UnitRow], str]:
    """Rows of the units to be shown, and what `largest` means."""
    by_snr = all(row.snr is not None for row in rows)
    size = (lambda row: row.snr) if by_snr else (lambda row: row.num_spikes)
    order = "largest SNR" if by_snr else "most spikes"
    return sorted((row for row in rows if row.num_spikes), key=size, reverse=True)[:max_units], order


def _headline(recording: BaseRecording, *, title: str, num_units: int, num_shown: int, order: str) -> str:
    counted = f"{num_units} unit{'' if num_units == 1 else 's'}"
    if num_shown < num_units:
        counted = f"the {num_shown} of {num_units} units with the {order}"
    duration = recording.get_total_duration()
    lasted = f"{duration:.3g} s" if duration < 120 else f"{duration / 60:.3g} min"
    num_segments = recording.get_num_segments()
    extent = lasted if num_segments == 1 else f"{lasted} in {num_segments} segments"
    channels = recording.get_num_channels()
    text = f"{counted}, {channels} channel{'' if channels == 1 else 's'}, {extent}"
    return f"{title}: {text}" if title else text


def _boundaries(recording: BaseRecording) -> np.ndarray:
    """Start of each segment and end of the last, in s, segments put one after another [num_segments + 1]."""
    durations = [recording.get_duration(segment) for segment in range(recording.get_num_segments())]
    return np.cumsum([0.0, *durations])


def _group_units(
    recording: BaseRecording, sorting: BaseSorting, unit_ids: list[Any]
) -> list[tuple[Any, BaseRecording, list[Any]]]:
    """Channel groups with the units that were found in them; all as one where the units do not say."""
    parts = split_groups(recording)
    unit_groups = sorting.get_property("group")
    known = {group for group, _ in parts}
    if len(parts) == 1 or unit_groups is None or not set(unit_groups.tolist()) <= known:
        return [(None, recording, unit_ids)]
    group_of = dict(zip(sorting.unit_ids.tolist(), unit_groups.tolist(), strict=True))
    found = [(group, part, [unit_id for unit_id in unit_ids if group_of[unit_id] == group]) for group, part in parts]
    return [entry for entry in found if entry[2]]


def _analyse(
    recording: BaseRecording, sorting: BaseSorting, *, seed: int, job_kwargs: dict[str, Any]
) -> SortingAnalyzer:
    """SpikeInterface's analyzer with all that is drawn."""
    # A recording of floats with no gain would pass for one in uV.
    in_uv = recording.has_scaleable_traces()
    signed = unsigned_to_signed(recording) if np.dtype(recording.get_dtype()).kind == "u" else recording
    rate = recording.get_sampling_frequency()
    filtered: Any = highpass_filter(signed, freq_min=_HIGHPASS_HZ, dtype="float32")
    if not filtered.has_probe():
        # The analyzer wants one, though nothing that is drawn depends on places.
        places = np.stack([np.zeros(recording.get_num_channels()), 20.0 * np.arange(recording.get_num_channels())], 1)
        filtered.set_dummy_probe_from_locations(places)
    analyzer = create_sorting_analyzer(
        sorting, filtered, format="memory", sparse=False, return_in_uV=in_uv, seed=seed, job_kwargs=job_kwargs
    )
    num_samples = round((_MS_BEFORE + _MS_AFTER) * rate / 1000.0)
    affordable = _MAX_WAVEFORM_VALUES // (num_samples * recording.get_num_channels() * sorting.get_num_units())
    extensions: dict[str, dict[str, Any]] = {
        "random_spikes": {"max_spikes_per_unit": int(np.clip(affordable, 10, _MAX_WAVEFORMS)), "seed": seed},
        "waveforms": {"ms_before": _MS_BEFORE, "ms_after": _MS_AFTER},
        "templates": {"operators": ["average", "std"], "ms_before": _MS_BEFORE, "ms_after": _MS_AFTER},
        "spike_amplitudes": {},
        "correlograms": {"window_ms": 2 * _CORRELOGRAM_MS, "bin_ms": _BIN_MS},
    }
    analyzer.compute(extensions, **job_kwargs)
    # SpikeInterface fits the components unit by unit, on those with as many spikes at least; a plane takes two.
    spikes_by_unit = np.bincount(_extension(analyzer, "random_spikes").get_random_spikes()["unit_index"])
    num_components = min(3, int(spikes_by_unit.max()))
    if num_components >= 2:
        kwargs: dict[str, Any] = {"n_components": num_components, "mode": "concatenated", "whiten": False}
        analyzer.compute("principal_components", **kwargs, **job_kwargs)
    return analyzer


def _extension(analyzer: SortingAnalyzer, name: str) -> Any:
    """What was computed: each extension has methods of its own."""
    return analyzer.get_extension(name)


def _unit_pictures(analyzer: SortingAnalyzer, *, seed: int) -> dict[Any, UnitPicture]:
    templates = _extension(analyzer, "templates")
    means, deviations = templates.get_data(operator="average"), templates.get_data(operator="std")
    waveform_ms = (np.arange(means.shape[1]) - templates.nbefore) * 1000.0 / analyzer.sampling_frequency
    correlograms, bins = _extension(analyzer, "correlograms").get_data()
    spikes: Any = analyzer.sorting.to_spike_vector()
    amplitudes = _extension(analyzer, "spike_amplitudes").get_data()
    starts = _boundaries(analyzer.recording)[:-1]
    spike_s = spikes["sample_index"] / analyzer.sampling_frequency + starts[spikes["segment_index"]]
    num_waveforms = np.bincount(
        _extension(analyzer, "random_spikes").get_random_spikes()["unit_index"], minlength=len(means)
    )
    rng = np.random.default_rng(seed)
    pictures = {}
    for index, unit_id in enumerate(analyzer.unit_ids.tolist()):
        # The channels that see the unit best, in the order of the recording.
        size = np.abs(means[index]).max(axis=0)
        channels = np.sort(np.argsort(-size, kind="stable")[:_MAX_CHANNELS])
        own = np.flatnonzero(spikes["unit_index"] == index)
        if len(own) > _MAX_DOTS:
            own = np.sort(rng.choice(own, _MAX_DOTS, replace=False))
        pictures[unit_id] = UnitPicture(
            channel_ids=analyzer.channel_ids[channels].tolist(),
            waveform_ms=waveform_ms,
            mean=means[index][:, channels],
            deviation=deviations[index][:, channels],
            num_waveforms=int(num_waveforms[index]),
            lag_ms=bins,
            correlogram=correlograms[index, index],
            spike_s=spike_s[own],
            amplitude=amplitudes[own],
            unit_of_measure="µV" if analyzer.return_in_uV else "a.u.",
        )
    return pictures


def _planes(analyzer: SortingAnalyzer, *, name: Any, num_planes: int) -> list[Plane]:
    """Planes of the principal components, the first ones first."""
    if not analyzer.has_extension("principal_components"):
        return []
    extension = _extension(analyzer, "principal_components")
    projections, unit_index = extension.get_some_projections()
    where = "" if name is None else f", group {name}"
    planes = []
    for first, second in ((0, 1), (0, 2), (1, 2))[:num_planes]:
        if second >= projections.shape[1]:
            continue
        points = {
            unit_id: projections[unit_index == index][:, [first, second]]
            for index, unit_id in enumerate(analyzer.unit_ids.tolist())
        }
        title = f"PCA of waveforms, channels concatenated{where}" if not planes else ""
        planes.append(Plane(points=points, labels=(f"PC {first + 1}", f"PC {second + 1}"), title=title))
    return planes
