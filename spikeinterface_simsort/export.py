"""Sorted units for other programs: Phy and NWB, with their labels and all else that is known of them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface.core import (
    BaseRecording,
    BaseSorting,
    ChannelSparsity,
    SortingAnalyzer,
    concatenate_recordings,
    create_sorting_analyzer,
)
from spikeinterface.core.segmentutils import concatenate_sortings
from spikeinterface.core.template_tools import estimate_main_channel_from_recording

from spikeinterface_simsort._version import __version__
from spikeinterface_simsort.folders import replacing
from spikeinterface_simsort.sorted_units import SourceError, open_units
from spikeinterface_simsort.unit_pictures import group_units, high_pass

logger = logging.getLogger(__name__)

# Of `simsort curate` and spikeinterface-gui, and what Phy calls a cluster by.
_QUALITY, _PHY_QUALITIES = "quality", ("good", "mua", "noise")
# NWB wants a time; this one is known to stand for none.
_NO_TIME = datetime(1970, 1, 1, tzinfo=timezone.utc)
_CHUNK_DURATION = "10s"


def export_phy(
    source: str | Path | BaseSorting | SortingAnalyzer,
    folder: str | Path,
    *,
    recording: BaseRecording | None = None,
    curation: str | Path | None = None,
    copy_traces: bool = True,
    overwrite: bool = False,
    n_jobs: int = 1,
    seed: int = 0,
) -> Path:
    """Write sorted units as a folder of Phy: ``phy template-gui folder/params.py``.

    Segments are put one after another, and units without spikes are left out, as Phy knows neither. The label
    ``quality`` becomes the clusters' group, every other property of the units a column.

    Parameters
    ----------
    source : str, Path, BaseSorting or SortingAnalyzer
        A folder that `simsort sort` or `run_sorter` wrote, an analyzer or its folder or zarr, or a sorting.
    folder : str or Path
        Where to. It appears when it is whole.
    recording : BaseRecording, optional
        Raw traces, where `source` does not know them.
    curation : str or Path, optional
        Labels in SpikeInterface's curation format. Default: ``curation.json`` of `source`, where there is one.
    copy_traces : bool
        Whether the folder holds the traces, high-passed at 300 Hz unless they are filtered; Phy's views of traces and
        raw waveforms need them.
    overwrite : bool
        Replace a folder that is there. What was curated in it is lost.
    n_jobs : int
        Chunks that are computed at a time.
    seed : int
        For the spikes that templates are made of.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    SourceError
        `source` cannot be read, has no recording, or no unit with a spike.
    FileExistsError
        The folder is there.
    """
    from spikeinterface.exporters import export_to_phy

    folder = Path(folder).expanduser().resolve()
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{folder} exists: choose another folder, or overwrite it (overwrite=True, --overwrite).")
    units = open_units(source, recording=recording, curation=curation)
    traces, sorting = _in_one_segment(_needed(units.recording), _with_spikes(units.sorting))
    if not traces.is_filtered():
        traces = high_pass(traces)
    job_kwargs = {"n_jobs": n_jobs, "pool_engine": "thread", "chunk_duration": _CHUNK_DURATION, "progress_bar": False}
    sparsity = _channels_of_units(traces, sorting)
    analyzer = create_sorting_analyzer(
        sorting,
        traces,
        format="memory",
        sparsity=sparsity,
        main_channel_indices=_main_channels(traces, sorting, sparsity=sparsity, seed=seed),
        return_in_uV=traces.has_scaleable_traces(),
        seed=seed,
        job_kwargs={"progress_bar": False},
    )
    analyzer.compute({"random_spikes": {"seed": seed}, "waveforms": {}, "templates": {}}, **job_kwargs)
    analyzer.compute("principal_components", n_components=3, mode="by_channel_local", **job_kwargs)
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    with replacing(folder, staging=partial) as staging:
        export_to_phy(
            analyzer,
            staging,
            copy_binary=copy_traces,
            # The empty folder.
            remove_if_exists=True,
            additional_properties=[name for name in sorting.get_property_keys() if name not in ("group", _QUALITY)],
            # The folder is renamed, and may be moved.
            use_relative_path=True,
            verbose=False,
            **job_kwargs,
        )
        if sorting.get_property(_QUALITY) is not None:
            _write_groups(staging / "cluster_group.tsv", sorting.get_property(_QUALITY))
    return folder


def export_nwb(
    source: str | Path | BaseSorting | SortingAnalyzer,
    path: str | Path,
    *,
    recording: BaseRecording | None = None,
    curation: str | Path | None = None,
    session_start: datetime | None = None,
    session_description: str = "",
    overwrite: bool = False,
) -> Path:
    """Write sorted units as an NWB file: spike times, electrodes, labels and all other properties; no traces.

    Segments are put one after another.

    Parameters
    ----------
    source : str, Path, BaseSorting or SortingAnalyzer
        A folder that `simsort sort` or `run_sorter` wrote, an analyzer or its folder or zarr, or a sorting.
    path : str or Path
        File to be written, ``.nwb``. It appears when it is whole.
    recording : BaseRecording, optional
        Raw traces, where `source` does not know them: for electrodes and the clock.
    curation : str or Path, optional
        Labels in SpikeInterface's curation format. Default: ``curation.json`` of `source`, where there is one.
    session_start : datetime, optional
        When the recording began, with a time zone. NWB demands it; without it, 1970-01-01 is written, with a warning.
    session_description : str
        What NWB calls so. Default: the sorter's name and version.
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SourceError
        `source` cannot be read, or has no unit.
    FileExistsError
        The file is there.
    """
    from neuroconv.tools.spikeinterface import add_recording_metadata_to_nwbfile, write_sorting_to_nwbfile
    from pynwb import NWBFile

    path = Path(path).expanduser().resolve()
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another file, or overwrite it (overwrite=True, --overwrite).")
    units = open_units(source, recording=recording, curation=curation)
    if not units.sorting.get_num_units():
        raise SourceError("There are no units to be exported.")
    traces, sorting = _in_one_segment(_needed(units.recording), units.sorting)
    if session_start is None:
        logger.warning("NWB demands the time at which the recording began: 1970-01-01 is written. Name it.")
    by_whom = units.history.sorter or f"simsort {__version__}"
    nwbfile: Any = NWBFile(
        session_description=session_description or f"Units sorted by {by_whom}.",
        identifier=str(uuid.uuid4()),
        session_start_time=session_start or _NO_TIME,
    )
    add_recording_metadata_to_nwbfile(traces, nwbfile)
    partial = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        write_sorting_to_nwbfile(
            sorting,
            partial,
            nwbfile=nwbfile,
            unit_electrode_indices=_electrodes_of_units(traces, sorting),
            units_description=f"Units sorted by {by_whom}, exported by simsort {__version__}.",
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _needed(recording: BaseRecording | None) -> BaseRecording:
    if recording is None:
        raise SourceError("The units do not know their recording: name it (recording=..., --recording).")
    return recording


def _with_spikes(sorting: BaseSorting) -> BaseSorting:
    found: Any = sorting.remove_empty_units()
    if not found.get_num_units():
        raise SourceError("There is no unit with a spike to be exported.")
    if left_out := sorting.get_num_units() - found.get_num_units():
        logger.warning("Units without spikes are left out: %d.", left_out)
    return found


def _in_one_segment(recording: BaseRecording, sorting: BaseSorting) -> tuple[BaseRecording, BaseSorting]:
    """Recording and sorting, which knows it, with segments one after another."""
    joined: Any = sorting.select_units(sorting.unit_ids)
    joined.register_recording(recording)
    if recording.get_num_segments() == 1:
        return recording, joined
    whole: Any = concatenate_recordings([recording])
    joined = concatenate_sortings([joined])
    joined.register_recording(whole)
    return whole, joined


def _members(recording: BaseRecording, sorting: BaseSorting) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Indices of the units and of the channels of each group."""
    for _, channel_ids, unit_ids in group_units(recording, sorting, sorting.unit_ids.tolist()):
        yield sorting.ids_to_indices(unit_ids), recording.ids_to_indices(channel_ids)


def _channels_of_units(recording: BaseRecording, sorting: BaseSorting) -> ChannelSparsity:
    mask = np.zeros((sorting.get_num_units(), recording.get_num_channels()), dtype=bool)
    for units, channels in _members(recording, sorting):
        mask[np.ix_(units, channels)] = True
    return ChannelSparsity(mask, sorting.unit_ids, recording.channel_ids)


def _main_channels(
    recording: BaseRecording, sorting: BaseSorting, *, sparsity: ChannelSparsity, seed: int
) -> np.ndarray:
    """Index of each unit's main channel: what the sorter says, or where the mean waveform is largest in its group."""
    index_of = {str(channel_id): index for index, channel_id in enumerate(recording.channel_ids)}
    told = sorting.get_property("main_channel_id")
    if told is not None:
        main = np.array([index_of.get(str(channel_id), -1) for channel_id in told])
        if np.all((main >= 0) & sparsity.mask[np.arange(len(main)), main]):
            return main
    main = np.empty(sorting.get_num_units(), dtype="int64")
    for units, channels in _members(recording, sorting):
        part = recording.select_channels(recording.channel_ids[channels])
        own: Any = sorting.select_units(sorting.unit_ids[units])
        found = estimate_main_channel_from_recording(
            part, own, peak_sign="both", peak_mode="extremum", seed=seed, progress_bar=False
        )
        main[units] = channels[found]
    return main


def _electrodes_of_units(recording: BaseRecording, sorting: BaseSorting) -> list[list[int]]:
    electrodes: list[list[int]] = [[] for _ in range(sorting.get_num_units())]
    for units, channels in _members(recording, sorting):
        for unit in units:
            electrodes[unit] = channels.tolist()
    return electrodes


def _write_groups(path: Path, qualities: np.ndarray) -> None:
    """What Phy shows as good, multi-unit activity and noise; others are left to be judged."""
    words = [str(quality).lower() for quality in qualities]
    lines = [f"{index}\t{word if word in _PHY_QUALITIES else 'unsorted'}" for index, word in enumerate(words)]
    path.write_text("\n".join(["cluster_id\tgroup", *lines]) + "\n", encoding="utf-8")
