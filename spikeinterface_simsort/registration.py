"""Registration of the sorter with SpikeInterface, in this process and in its workers."""

from __future__ import annotations

from typing import Any

from spikeinterface.core import BaseRecording
from spikeinterface.core.core_tools import check_json
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment
from spikeinterface.sorters import sorterlist

from spikeinterface_simsort.sorter import SimSortSorter


def register() -> None:
    """Add the sorter to SpikeInterface's lists, once.

    Raises
    ------
    RuntimeError
        Another sorter has the same name.
    """
    name = SimSortSorter.sorter_name
    known = sorterlist.sorter_dict.get(name)
    if known is not None and known is not SimSortSorter:
        raise RuntimeError(f"Another sorter is registered as {name!r} already: {known.__module__}.{known.__name__}.")
    if known is None:
        # In place: SpikeInterface hands these objects out.
        sorterlist.sorter_dict[name] = SimSortSorter
        sorterlist.sorter_full_list.append(SimSortSorter)


class WithSimSort(BasePreprocessor):
    """A recording that brings the sorter along: the same traces, but loading it imports this package.

    Workers that start fresh (joblib's loky, spawned processes, dask, SLURM) import SpikeInterface and load the
    recording they are to sort; they know nothing of a plugin unless the recording does.

    Parameters
    ----------
    recording : BaseRecording
        Any recording.

    Examples
    --------
    >>> from spikeinterface_simsort import WithSimSort
    >>> jobs = [dict(sorter_name="simsort", recording=WithSimSort(rec), folder=f) for f, rec in parts.items()]
    >>> si.run_sorter_jobs(jobs, engine="joblib", engine_kwargs=dict(n_jobs=4))
    """

    def __init__(self, recording: BaseRecording) -> None:
        super().__init__(recording)
        # SpikeInterface 0.104 knows no `segments`, later versions know both.
        for segment in recording._recording_segments:
            self.add_recording_segment(_SameTraces(segment))
        self._kwargs = {"recording": recording}

    def to_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Describe the recording as SpikeInterface does, and all the way down in plain values where that is possible.

        SpikeInterface prints what this returns into its scripts for SLURM, where an object or an array of numpy is
        no Python (0.105.3).
        """
        if not self.check_serializability("json"):
            return super().to_dict(*args, **kwargs)
        return check_json(super().to_dict(*args, **{**kwargs, "recursive": True}))


class _SameTraces(BasePreprocessorSegment):
    """Hands on its parent's traces."""

    def get_traces(self, start_frame, end_frame, channel_indices):
        return self.parent_recording_segment.get_traces(start_frame, end_frame, channel_indices)
