"""Channel groups of a recording, and blocks of channels that the networks can read."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, NumpySorting
from spikeinterface.core.basesorting import SpikeVectorSortingSegment

logger = logging.getLogger(__name__)


def split_groups(recording: BaseRecording) -> list[tuple[Any, BaseRecording]]:
    """Split a recording by its property ``group``.

    Parameters
    ----------
    recording : BaseRecording
        With or without groups.

    Returns
    -------
    list of (group, BaseRecording)
        Every channel is in one of them.
    """
    groups = recording.get_property("group")
    if groups is None or len(groups) == 0:
        return [(0, recording)]
    # By their text where they are no numbers: names of mixed types have no order, and NaN is not even itself.
    keys = groups if groups.dtype.kind in "iubSU" else groups.astype(str)
    _, first, codes = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == 1:
        return [(groups[0], recording)]
    return [
        (groups[index], recording.select_channels(recording.channel_ids[codes == code]))
        for code, index in enumerate(first)
    ]


def split_blocks(recording: BaseRecording, *, max_channels: int) -> list[BaseRecording]:
    """Split a group that has too many channels into blocks of neighbours.

    Parameters
    ----------
    recording : BaseRecording
        One group.
    max_channels : int
        As many as the networks read.

    Returns
    -------
    list of BaseRecording
        Every channel is in one of them; the recording itself where it is small enough.
    """
    num_channels = recording.get_num_channels()
    if num_channels <= max_channels:
        return [recording]
    num_blocks = -(-num_channels // max_channels)
    logger.warning(
        "A group of %d channels: simsort is made for tetrodes and sorts it as %d blocks of up to %d neighbouring "
        "channels. If these are several tetrodes, set the property 'group'.",
        num_channels,
        num_blocks,
        max_channels,
    )
    order = np.arange(num_channels)
    if recording.has_probe():
        locations = recording.get_channel_locations()
        # Along the longer side of the probe.
        order = np.argsort(locations[:, np.ptp(locations, axis=0).argmax()], kind="stable")
    return [recording.select_channels(recording.channel_ids[block]) for block in np.array_split(order, num_blocks)]


def add_silent_segments(sorting: NumpySorting, *, num_segments: int) -> None:
    """Give a sorting the segments after its last spike, which NumpySorting does not count.

    Parameters
    ----------
    sorting : NumpySorting
        Changed.
    num_segments : int
        Of the recording.
    """
    for segment in range(sorting.get_num_segments(), num_segments):
        sorting.add_sorting_segment(SpikeVectorSortingSegment(sorting.to_spike_vector(), segment, sorting.unit_ids))
