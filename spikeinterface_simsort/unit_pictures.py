"""What pictures of units are drawn from: SpikeInterface computes it, of a recording or of what an analyzer holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, BaseSorting, SortingAnalyzer, create_sorting_analyzer
from spikeinterface.preprocessing import highpass_filter, unsigned_to_signed

from spikeinterface_simsort.report_panels import Plane, UnitPicture

HIGHPASS_HZ = 300.0
_MS_BEFORE, _MS_AFTER = 1.0, 2.0
_CORRELOGRAM_MS, _BIN_MS = 50.0, 1.0
_MAX_CHANNELS = 8
_MAX_WAVEFORMS = 500
_MAX_DOTS = 5000
# Waveforms are kept in memory: 160 MB at most, whatever the number of channels.
_MAX_WAVEFORM_VALUES = 40_000_000
# Reading a second at a time would spend much on the filter's margins; 10 s of a tetrode are 5 MB.
_CHUNK_DURATION = "10s"
_CHUNK_KEYS = {"chunk_size", "chunk_memory", "total_memory", "chunk_duration"}


@dataclass(frozen=True, kw_only=True)
class GroupPictures:
    """What is drawn of the units of a group.

    Attributes
    ----------
    units : dict of UnitPicture
        By unit; those with spikes.
    planes : list of Plane
        Of the principal components; none where there are too few spikes.
    similarity : np.ndarray, float [num_units, num_units]
        Cosine of the mean waveforms, of `units`.
    snr : dict of float
        By unit, largest deflection in units of noise; empty where it is not known.
    """

    units: dict[Any, UnitPicture]
    planes: list[Plane]
    similarity: np.ndarray
    snr: dict[Any, float]


def group_units(
    recording: BaseRecording | SortingAnalyzer, sorting: BaseSorting, unit_ids: Sequence[Any]
) -> list[tuple[Any, list[Any], list[Any]]]:
    """Divide units by the channel group that they were found in.

    Parameters
    ----------
    recording : BaseRecording or SortingAnalyzer
        With the property ``group`` of channels, or without.
    sorting : BaseSorting
        With the property ``group`` of units, or without.
    unit_ids : sequence
        Of its units.

    Returns
    -------
    list of (group, channel_ids, unit_ids)
        Every unit is in one of them. One with the name None where units do not say where they were found.
    """
    if isinstance(recording, SortingAnalyzer):
        values = recording.get_recording_property("group")
    else:
        values = recording.get_property("group")
    unit_groups = sorting.get_property("group")
    whole = [(None, list(recording.channel_ids), list(unit_ids))]
    if values is None or unit_groups is None:
        return whole
    # By their text: names of mixed types were written as such.
    names = [str(value) for value in values]
    group_of = dict(zip(sorting.unit_ids.tolist(), map(str, unit_groups.tolist()), strict=True))
    if len(set(names)) == 1 or not set(group_of.values()) <= set(names):
        return whole
    order = sorted(set(names), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
    return [
        (
            name,
            [channel_id for channel_id, other in zip(recording.channel_ids, names, strict=True) if other == name],
            members,
        )
        for name in order
        if (members := [unit_id for unit_id in unit_ids if group_of[unit_id] == name])
    ]


def high_pass(recording: BaseRecording, *, dtype: str | None = None) -> BaseRecording:
    """Traces above 300 Hz, on a probe, as SpikeInterface's analyzer wants them.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces of any type.
    dtype : str, optional
        Of what is filtered. Default: that of the recording, signed.

    Returns
    -------
    BaseRecording
        Lazy. Where places are not known, the channels lie in a row.
    """
    signed = unsigned_to_signed(recording) if np.dtype(recording.get_dtype()).kind == "u" else recording
    filtered: Any = highpass_filter(signed, freq_min=HIGHPASS_HZ, dtype=dtype)
    if not filtered.has_probe():
        num_channels = recording.get_num_channels()
        places = np.stack([np.zeros(num_channels), 20.0 * np.arange(num_channels)], axis=1)
        groups = recording.get_property("group")
        filtered.set_dummy_probe_from_locations(places)
        if groups is not None:
            # A probe has groups of its own.
            filtered.set_property("group", groups)
    return filtered


def picture_recording(
    recording: BaseRecording,
    sorting: BaseSorting,
    *,
    seed: int,
    num_planes: int = 3,
    with_snr: bool = False,
    job_kwargs: dict[str, Any] | None = None,
) -> GroupPictures:
    """Compute what is drawn of units from the traces of their channels.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces of one group; high-passed at 300 Hz here.
    sorting : BaseSorting
        Its units, each with a spike at least.
    seed : int
        For the spikes that are shown.
    num_planes : int
        Of the principal components, up to 3.
    with_snr : bool
        Whether to compute it.
    job_kwargs : dict, optional
        SpikeInterface's job arguments.

    Returns
    -------
    GroupPictures
        In uV where gains are known.
    """
    analyzer = create_sorting_analyzer(
        sorting,
        high_pass(recording, dtype="float32"),
        format="memory",
        sparse=False,
        # The main channel is seen in the mean waveforms; SpikeInterface would read the traces once more for it.
        main_channel_indices=np.zeros(sorting.get_num_units(), dtype="int64"),
        # A recording of floats with no gain would pass for one in uV.
        return_in_uV=recording.has_scaleable_traces(),
        seed=seed,
        job_kwargs={"progress_bar": False},
    )
    _compute_missing(analyzer, seed=seed, with_snr=with_snr, job_kwargs=job_kwargs)
    return _pictures(analyzer, channel_ids=analyzer.channel_ids.tolist(), seed=seed, num_planes=num_planes)


def picture_analyzer(
    analyzer: SortingAnalyzer,
    *,
    channel_ids: Sequence[Any],
    unit_ids: Sequence[Any],
    seed: int,
    num_planes: int = 3,
    with_snr: bool = False,
    job_kwargs: dict[str, Any] | None = None,
) -> GroupPictures:
    """Take what is drawn of units from an analyzer, and compute what it lacks as far as it has a recording.

    Parameters
    ----------
    analyzer : SortingAnalyzer
        Stays as it is.
    channel_ids : sequence
        Of the group.
    unit_ids : sequence
        Of the group, each with a spike at least.
    seed, num_planes, with_snr, job_kwargs
        As for `picture_recording`.

    Returns
    -------
    GroupPictures

    Raises
    ------
    ValueError
        The analyzer holds no templates and no recording to compute them from.
    """
    part = analyzer.select_units(unit_ids)
    _compute_missing(part, seed=seed, with_snr=with_snr, job_kwargs=job_kwargs)
    if not part.has_extension("templates"):
        raise ValueError(
            "The analyzer holds no templates, and its recording is not to be found: compute them, or name the "
            "recording (recording=..., --recording)."
        )
    return _pictures(part, channel_ids=list(channel_ids), seed=seed, num_planes=num_planes)


def segment_boundaries(recording: BaseRecording | SortingAnalyzer) -> np.ndarray:
    """Start of each segment and end of the last, in s, segments put one after another [num_segments + 1]."""
    num_samples = [recording.get_num_samples(segment) for segment in range(recording.get_num_segments())]
    return np.cumsum([0.0, *num_samples]) / recording.sampling_frequency


def _compute_missing(
    analyzer: SortingAnalyzer, *, seed: int, with_snr: bool, job_kwargs: dict[str, Any] | None
) -> None:
    """Give an analyzer all that is drawn, of which it holds some or nothing."""
    given = {"progress_bar": False, **(job_kwargs or {})}
    if not _CHUNK_KEYS & set(given):
        given["chunk_duration"] = _CHUNK_DURATION
    if analyzer.has_extension("correlograms") and not _fits(analyzer):
        analyzer.delete_extension("correlograms")
    wanted: dict[str, dict[str, Any]] = {"correlograms": {"window_ms": 2 * _CORRELOGRAM_MS, "bin_ms": _BIN_MS}}
    readable = analyzer.has_recording() or analyzer.has_temporary_recording()
    if readable:
        wanted.update(_of_traces(analyzer, seed=seed))
    if readable and with_snr:
        wanted["noise_levels"] = {"random_slices_kwargs": {"seed": seed}}
    analyzer.compute({name: kwargs for name, kwargs in wanted.items() if not analyzer.has_extension(name)}, **given)
    if not analyzer.has_extension("waveforms") or analyzer.has_extension("principal_components"):
        return
    # SpikeInterface fits the components unit by unit, on those with as many spikes at least; a plane takes two.
    spikes_by_unit = np.bincount(_extension(analyzer, "random_spikes").get_random_spikes()["unit_index"])
    num_components = min(3, int(spikes_by_unit.max(initial=0)))
    if num_components >= 2:
        # Only where all units have the same channels can these be put one after another.
        mode = "by_channel_local" if analyzer.is_sparse() else "concatenated"
        kwargs: dict[str, Any] = {"n_components": num_components, "mode": mode, "whiten": False}
        analyzer.compute("principal_components", **kwargs, **given)


def _of_traces(analyzer: SortingAnalyzer, *, seed: int) -> dict[str, dict[str, Any]]:
    """What takes a pass over the traces."""
    if analyzer.has_extension("templates"):
        # Waveforms of another window would not belong to them.
        return {} if analyzer.has_extension("waveforms") else {"spike_amplitudes": {}}
    window: dict[str, Any] = {"ms_before": _MS_BEFORE, "ms_after": _MS_AFTER}
    num_samples = round((_MS_BEFORE + _MS_AFTER) * analyzer.sampling_frequency / 1000.0)
    affordable = _MAX_WAVEFORM_VALUES // (num_samples * analyzer.get_num_channels() * analyzer.get_num_units())
    return {
        "random_spikes": {"max_spikes_per_unit": int(np.clip(affordable, 10, _MAX_WAVEFORMS)), "seed": seed},
        "waveforms": window,
        "templates": {"operators": ["average", "std"], **window},
    }


def _fits(analyzer: SortingAnalyzer) -> bool:
    """Whether the stored correlograms are wide and fine enough to be looked at."""
    _, bins = _extension(analyzer, "correlograms").get_data()
    return bins[-1] >= _CORRELOGRAM_MS / 2 and bins[1] - bins[0] <= _BIN_MS


def _extension(analyzer: SortingAnalyzer, name: str) -> Any:
    """What was computed: each extension has methods of its own."""
    return analyzer.get_extension(name)


def _pictures(analyzer: SortingAnalyzer, *, channel_ids: list[Any], seed: int, num_planes: int) -> GroupPictures:
    return GroupPictures(
        units=_unit_pictures(analyzer, channel_ids=channel_ids, seed=seed),
        planes=_planes(analyzer, channel_ids=channel_ids, num_planes=num_planes),
        similarity=_similarity(_extension(analyzer, "templates").get_data(operator="average")),
        snr=_snr(analyzer),
    )


def _similarity(means: np.ndarray) -> np.ndarray:
    """Cosines; SpikeInterface's extension would be compiled in every process, which takes longer than all the rest."""
    flat = means.reshape(len(means), -1).astype("float64")
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(float).tiny)
    return flat @ flat.T


def _snr(analyzer: SortingAnalyzer) -> dict[Any, float]:
    if analyzer.has_extension("quality_metrics"):
        metrics = _extension(analyzer, "quality_metrics").get_data()
        if "snr" in metrics:
            return dict(zip(analyzer.unit_ids.tolist(), metrics["snr"].astype(float).tolist(), strict=True))
    if not analyzer.has_extension("noise_levels"):
        return {}
    noise = _extension(analyzer, "noise_levels").get_data()
    means = _extension(analyzer, "templates").get_data(operator="average")
    size = np.abs(means).max(axis=1)
    main = size.argmax(axis=1)
    snr = size[np.arange(len(main)), main] / noise[main]
    return dict(zip(analyzer.unit_ids.tolist(), snr.tolist(), strict=True))


def _unit_pictures(analyzer: SortingAnalyzer, *, channel_ids: list[Any], seed: int) -> dict[Any, UnitPicture]:
    templates = _extension(analyzer, "templates")
    means = templates.get_templates(operator="average")
    has_deviations = "std" in templates.params["operators"] or analyzer.has_extension("waveforms")
    deviations = templates.get_templates(operator="std", save=False) if has_deviations else np.full_like(means, np.nan)
    waveform_ms = (np.arange(means.shape[1]) - templates.nbefore) * 1000.0 / analyzer.sampling_frequency
    correlograms, bins = _extension(analyzer, "correlograms").get_data()
    inside = np.flatnonzero(np.abs(bins) <= _CORRELOGRAM_MS + 1e-6)
    spikes: Any = analyzer.sorting.to_spike_vector()
    starts = segment_boundaries(analyzer)[:-1]
    spike_s = spikes["sample_index"] / analyzer.sampling_frequency + starts[spikes["segment_index"]]
    shown, amplitudes = _amplitudes(analyzer, means, nbefore=templates.nbefore)
    num_waveforms = np.zeros(len(means), dtype="int64")
    if analyzer.has_extension("random_spikes"):
        drawn = _extension(analyzer, "random_spikes").get_random_spikes()["unit_index"]
        num_waveforms = np.bincount(drawn, minlength=len(means))
    of_group = np.isin(analyzer.channel_ids, channel_ids)
    rng = np.random.default_rng(seed)
    pictures = {}
    for index, unit_id in enumerate(analyzer.unit_ids.tolist()):
        # The channels that see the unit best, in the order of the recording; what is not stored is zero.
        size = np.where(of_group, np.abs(means[index]).max(axis=0), 0.0)
        channels = np.sort(np.argsort(-size, kind="stable")[:_MAX_CHANNELS])
        channels = channels[size[channels] > 0] if np.any(size > 0) else channels[:1]
        own = np.flatnonzero(spikes["unit_index"][shown] == index)
        if len(own) > _MAX_DOTS:
            own = np.sort(rng.choice(own, _MAX_DOTS, replace=False))
        pictures[unit_id] = UnitPicture(
            channel_ids=analyzer.channel_ids[channels].tolist(),
            waveform_ms=waveform_ms,
            mean=means[index][:, channels],
            deviation=deviations[index][:, channels],
            num_waveforms=int(num_waveforms[index]),
            lag_ms=bins[inside],
            correlogram=correlograms[index, index][inside[:-1]],
            spike_s=spike_s[shown[own]],
            amplitude=amplitudes[own],
            unit_of_measure="µV" if analyzer.return_in_uV else "a.u.",
        )
    return pictures


def _amplitudes(analyzer: SortingAnalyzer, means: np.ndarray, *, nbefore: int) -> tuple[np.ndarray, np.ndarray]:
    """Spikes whose amplitude on the main channel is known, and the amplitudes: of all, of the waveforms, or of none."""
    if analyzer.has_extension("spike_amplitudes"):
        amplitudes = _extension(analyzer, "spike_amplitudes").get_data()
        return np.arange(len(amplitudes)), amplitudes
    if not analyzer.has_extension("waveforms"):
        return np.empty(0, dtype="int64"), np.empty(0)
    # Another pass over the traces would take as long as all the rest.
    drawn = _extension(analyzer, "random_spikes")
    shown, units = drawn.get_data(), drawn.get_random_spikes()["unit_index"]
    waveforms = _extension(analyzer, "waveforms")
    main = np.abs(means).max(axis=1).argmax(axis=1)
    amplitudes = np.empty(len(shown))
    for index, unit_id in enumerate(analyzer.unit_ids):
        own = waveforms.get_waveforms_one_unit(unit_id, force_dense=True)
        amplitudes[units == index] = own[:, nbefore, main[index]]
    return shown, amplitudes


def _planes(analyzer: SortingAnalyzer, *, channel_ids: list[Any], num_planes: int) -> list[Plane]:
    """Planes of the principal components, the first ones first."""
    if not analyzer.has_extension("principal_components"):
        return []
    extension = _extension(analyzer, "principal_components")
    concatenated = extension.params["mode"] == "concatenated"
    if concatenated:
        projections, unit_index = extension.get_some_projections()
        title = "PCA of waveforms, channels concatenated"
    else:
        projections, unit_index = extension.get_some_projections(channel_ids=channel_ids)
        # The first component of the two channels on which the spikes differ most.
        first = projections[:, 0, :]
        best = np.sort(np.argsort(-np.nanvar(first, axis=0), kind="stable")[:3])
        projections, title = first[:, best], "first principal component of a channel"
    names = (
        [f"PC {number + 1}" for number in range(projections.shape[1])]
        if concatenated
        else [f"channel {channel_ids[index]}" for index in best]
    )
    planes = []
    for first, second in ((0, 1), (0, 2), (1, 2))[:num_planes]:
        if second >= projections.shape[1]:
            continue
        points = {
            unit_id: projections[unit_index == index][:, [first, second]]
            for index, unit_id in enumerate(analyzer.unit_ids.tolist())
        }
        planes.append(Plane(points=points, labels=(names[first], names[second]), title="" if planes else title))
    return planes
