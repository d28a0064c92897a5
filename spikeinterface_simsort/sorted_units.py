"""Sorted units with all that is known of them: what `simsort sort` left, a sorter's folder, an analyzer, a sorting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spikeinterface.core import BaseRecording, BaseSorting, SortingAnalyzer, load, load_sorting_analyzer
from spikeinterface.curation import apply_curation, load_curation
from spikeinterface.sorters import read_sorter_folder

from spikeinterface_simsort.failures import read_trace
from spikeinterface_simsort.run_folders import GROUPS_FOLDER, SORTING_FOLDER
from spikeinterface_simsort.weights_format import one_line

CURATION_FILE = "curation.json"
_SORTER_FOLDER = "sorter"
_LOG_FILE, _PARAMS_FILE = "spikeinterface_log.json", "spikeinterface_params.json"
_RECORDING_FILE = "spikeinterface_recording.json"
_ERROR_SUFFIX = ".error.txt"
# Text that says where a unit is, not what it is.
_NO_LABELS = {"group", "main_channel_id"}


class SourceError(ValueError):
    """Sorted units cannot be read; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class RunHistory:
    """How units were sorted, as far as the folders tell.

    Attributes
    ----------
    sorter : str
        Name and version; empty where it is not known.
    began : str
        Date and time at which the first group was begun.
    seconds : float or None
        That sorting took, summed over groups.
    parameters : dict
        Of the sorter.
    warnings : list of str
        What the sorter warned of.
    failures : dict of str
        What went wrong, by the name of the group's folder.
    """

    sorter: str = ""
    began: str = ""
    seconds: float | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SortedUnits:
    """Units, what they were found in, and how.

    Attributes
    ----------
    sorting : BaseSorting
        With labels and all else that is known as properties of units.
    recording : BaseRecording or None
        Raw traces; None where only an analyzer knows of them, or nobody.
    analyzer : SortingAnalyzer or None
        Where the units came with one.
    history : RunHistory
        Empty where the units came without.
    """

    sorting: BaseSorting
    recording: BaseRecording | None = None
    analyzer: SortingAnalyzer | None = None
    history: RunHistory = field(default_factory=RunHistory)


def open_units(
    source: str | Path | BaseSorting | SortingAnalyzer,
    *,
    recording: BaseRecording | None = None,
    curation: str | Path | None = None,
) -> SortedUnits:
    """Find the units, the recording and the labels that belong together.

    Parameters
    ----------
    source : str, Path, BaseSorting or SortingAnalyzer
        A folder that `simsort sort` or `run_sorter` wrote, an analyzer or its folder or zarr, or a sorting.
    recording : BaseRecording, optional
        Raw traces, where `source` does not know them, or knows them under a place that is no more.
    curation : str or Path, optional
        Labels in SpikeInterface's curation format. Default: ``curation.json`` of a folder, where there is one.

    Returns
    -------
    SortedUnits

    Raises
    ------
    SourceError
        `source` is nothing of this, its recording cannot be found, or the labels are of other units.
    """
    units = _open_source(source, recording=recording)
    if curation is None and not isinstance(source, BaseSorting | SortingAnalyzer):
        beside = Path(source).expanduser() / CURATION_FILE
        curation = beside if beside.is_file() else None
    return units if curation is None else _curate(units, Path(curation))


def label_names(sorting: BaseSorting) -> list[str]:
    """Properties that say of what kind a unit is.

    Parameters
    ----------
    sorting : BaseSorting
        With labels of any origin.

    Returns
    -------
    list of str
        Properties of text or truth values, but for those that say where a unit is.
    """
    return [
        name
        for name in sorting.get_property_keys()
        if name not in _NO_LABELS and sorting.get_property(name).ndim == 1 and _is_label(sorting.get_property(name))
    ]


def _is_label(values: Any) -> bool:
    if values.dtype.kind == "O":
        return all(isinstance(value, str) for value in values)
    return values.dtype.kind in "bUS"


def _open_source(source: str | Path | BaseSorting | SortingAnalyzer, *, recording: BaseRecording | None) -> SortedUnits:
    if isinstance(source, SortingAnalyzer):
        return _of_analyzer(source, recording=recording)
    if isinstance(source, BaseSorting):
        sorting: Any = source
        if recording is None and sorting.has_recording():
            # SpikeInterface has no other way to ask for it.
            recording = sorting._recording
        if recording is None:
            raise SourceError("The sorting does not know its recording: pass recording=...")
        return SortedUnits(sorting=sorting, recording=recording)
    folder = Path(source).expanduser()
    if not folder.exists():
        raise SourceError(f"There is no {folder}.")
    if (folder / SORTING_FOLDER).is_dir() and (groups := _sorter_folders(folder)):
        sorting = load(folder / SORTING_FOLDER)
        recording = recording or _recording_of(groups[0], whole=groups[0].parent.name == GROUPS_FOLDER)
        return SortedUnits(sorting=sorting, recording=recording, history=_history(groups))
    if (folder / _LOG_FILE).is_file():
        sorting = read_sorter_folder(folder, register_recording=False)
        recording = recording or _recording_of(folder, whole=False)
        return SortedUnits(sorting=sorting, recording=recording, history=_history([folder]))
    return _of_analyzer(_read_analyzer(folder), recording=recording)


def _sorter_folders(folder: Path) -> list[Path]:
    """SpikeInterface's folders in an output of `simsort sort`: of the sorter, or of each group that is done."""
    candidates = [folder / _SORTER_FOLDER, *sorted((folder / GROUPS_FOLDER).glob("[!.]*"))]
    return [path for path in candidates if (path / _LOG_FILE).is_file()]


def _recording_of(folder: Path, *, whole: bool) -> BaseRecording:
    """Recording that was sorted into a folder; `whole`: that of which it is a group."""
    path = folder / _RECORDING_FILE
    if not path.is_file():
        raise SourceError(f"{folder} does not say where its recording is: name it (recording=..., --recording).")
    try:
        recording: Any = load(path, base_folder=folder)
    except Exception as error:  # What is raised depends on the format of the recording.
        raise SourceError(
            f"The recording that was sorted into {folder} cannot be read ({one_line(error)}): name it "
            "(recording=..., --recording)."
        ) from error
    return recording.get_parent() or recording if whole else recording


def _history(folders: Sequence[Path]) -> RunHistory:
    logs = [json.loads((folder / _LOG_FILE).read_text(encoding="utf-8")) for folder in folders]
    params_file = folders[0] / _PARAMS_FILE
    params = json.loads(params_file.read_text(encoding="utf-8")) if params_file.is_file() else {}
    seconds = [log["run_time"] for log in logs if log.get("run_time") is not None]
    warnings = []
    for folder, log in zip(folders, logs, strict=True):
        where = f"{folder.name}: " if len(folders) > 1 else ""
        warnings += [f"{where}{line}" for line in log.get("runtime_trace", []) if line]
    failures = {
        path.name.removesuffix(_ERROR_SUFFIX): _reason(path)
        for path in sorted(folders[0].parent.glob(f"*{_ERROR_SUFFIX}"))
    }
    return RunHistory(
        sorter=f"{logs[0].get('sorter_name', '')} {logs[0].get('sorter_version', '')}".strip(),
        began=min(str(log.get("datetime", "")) for log in logs),
        seconds=sum(seconds) if seconds else None,
        parameters=params.get("sorter_params", {}),
        warnings=warnings,
        failures=failures,
    )


def _reason(path: Path) -> str:
    name, message = read_trace(path.read_text(encoding="utf-8"))
    return message or name


def _read_analyzer(folder: Path) -> SortingAnalyzer:
    # A pickle can run anything; SpikeInterface's loader would open it.
    if pickles := [path for path in folder.rglob("*") if path.suffix in {".pickle", ".pkl"}]:
        raise SourceError(
            f"{folder} holds a pickle ({pickles[0].name}), which can run anything and is not read: where you trust it, "
            "load it in Python (spikeinterface.load) and pass the analyzer."
        )
    try:
        return load_sorting_analyzer(folder)
    except Exception as error:  # What a broken folder raises depends on what is broken.
        raise SourceError(
            f"{folder} holds neither what `simsort sort` or run_sorter wrote nor an analyzer ({one_line(error)})."
        ) from error


def _of_analyzer(analyzer: SortingAnalyzer, *, recording: BaseRecording | None) -> SortedUnits:
    if recording is not None and not analyzer.has_recording():
        analyzer.set_temporary_recording(recording)
    known = analyzer.has_recording() or analyzer.has_temporary_recording()
    return SortedUnits(sorting=analyzer.sorting, recording=analyzer.recording if known else None, analyzer=analyzer)


def _curate(units: SortedUnits, path: Path) -> SortedUnits:
    """Give the units the labels of a curation file, and remove, merge and split what it says."""
    curated: Any
    try:
        curation = load_curation(path)
        if units.analyzer is not None:
            curated = apply_curation(units.analyzer.copy(), curation)
            return replace(units, analyzer=curated, sorting=curated.sorting)
        # What is somebody else's gets no labels.
        curated = apply_curation(units.sorting.select_units(units.sorting.unit_ids), curation)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path} cannot be applied to these units, or is not in SpikeInterface's curation format: {one_line(error)}"
        ) from error
    return replace(units, sorting=curated)
