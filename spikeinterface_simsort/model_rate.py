"""A recording at the networks' sampling frequency, in memory where it is short."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from spikeinterface.core import BaseRecording, NumpyRecording
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from spikeinterface_simsort.resampling import SamplingGrid

# So many samples, five minutes of a tetrode at 20 kHz or 100 MB, are kept in memory.
_MOST_IN_MEMORY = 25_000_000
# All that is computed of so many samples stays in a processor's own memory, or near it.
_SAMPLES_AT_A_TIME = 60_000


class AtModelRate(BasePreprocessor):
    """A recording on a network's sampling grid; the result does not depend on the chunks in which it is read.

    Parameters
    ----------
    recording : BaseRecording
        Preprocessed.
    up, down : int
        Ratio of the sampling frequencies, see `SamplingGrid`.
    """

    def __init__(self, recording: BaseRecording, up: int, down: int) -> None:
        super().__init__(recording, sampling_frequency=recording.get_sampling_frequency() * up / down)
        grid = SamplingGrid(up=up, down=down)
        for segment in recording._recording_segments:
            self.add_recording_segment(_SegmentAtModelRate(segment, grid, self.get_sampling_frequency()))
        self._kwargs = {"recording": recording, "up": up, "down": down}


class _SegmentAtModelRate(BasePreprocessorSegment):
    def __init__(self, parent: Any, grid: SamplingGrid, sampling_frequency: float) -> None:
        super().__init__(parent)
        # Times go by the new samples: nobody asks for those of a time vector here.
        self.sampling_frequency, self.t_start, self.time_vector = sampling_frequency, None, None
        self._grid = grid

    def get_num_samples(self) -> int:
        return self._grid.model_range(0, self.parent_recording_segment.get_num_samples())[1]

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Any) -> np.ndarray:
        # Nothing is asked for in one piece, too.
        starts = range(start_frame, max(end_frame, start_frame + 1), _SAMPLES_AT_A_TIME)
        ends = [*starts[1:], end_frame]
        return np.concatenate([self._read(*limits, channel_indices) for limits in zip(starts, ends, strict=True)])

    def _read(self, start_frame: int, end_frame: int, channel_indices: Any) -> np.ndarray:
        grid, parent = self._grid, self.parent_recording_segment
        margin = grid.margin_frames(0)
        first = max(start_frame * grid.down // grid.up - margin, 0)
        last = min(-(-end_frame * grid.down // grid.up) + margin, parent.get_num_samples())
        traces, first_sample = grid.resample(parent.get_traces(first, last, channel_indices), first_frame=first)
        return traces[start_frame - first_sample : end_frame - first_sample]


def at_model_rate(recording: BaseRecording, *, grid: SamplingGrid) -> BaseRecording:
    """Resample a recording.

    Parameters
    ----------
    recording : BaseRecording
        Preprocessed.
    grid : SamplingGrid
        Of the network.

    Returns
    -------
    BaseRecording
        Lazy, float32.
    """
    return recording if grid.up == grid.down else AtModelRate(recording, grid.up, grid.down)


def keep_in_memory(recording: BaseRecording, *, num_threads: int) -> BaseRecording:
    """Compute the traces of a recording once, if it is short enough to be kept in memory.

    SpikeInterface's own way goes through shared memory, of which there may be little, and a copy of it.

    Parameters
    ----------
    recording : BaseRecording
        Lazy.
    num_threads : int
        That compute.

    Returns
    -------
    BaseRecording
        The same, in memory, or the recording itself.
    """
    lengths = [recording.get_num_samples(segment) for segment in range(recording.get_num_segments())]
    if sum(lengths) * recording.get_num_channels() > _MOST_IN_MEMORY:
        return recording
    whole = np.empty((sum(lengths), recording.get_num_channels()), dtype="float32")
    traces = np.split(whole, np.cumsum(lengths)[:-1])

    def compute(chunk: tuple[int, int]) -> None:
        segment, start = chunk
        end = min(start + _SAMPLES_AT_A_TIME, lengths[segment])
        traces[segment][start:end] = recording.get_traces(segment_index=segment, start_frame=start, end_frame=end)

    chunks = [
        (segment, start) for segment, length in enumerate(lengths) for start in range(0, length, _SAMPLES_AT_A_TIME)
    ]
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(compute, chunks))
    kept = NumpyRecording(traces, recording.get_sampling_frequency(), channel_ids=recording.channel_ids)
    recording.copy_metadata(kept)
    return kept


def join(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Put pieces of traces one after the other: without a copy where they lie so in memory, see `keep_in_memory`.

    Parameters
    ----------
    pieces : sequence of np.ndarray [num_samples, num_channels]
        Of one type; one or more.

    Returns
    -------
    np.ndarray [num_samples_total, num_channels]
    """
    ends = [piece.ctypes.data + piece.nbytes for piece in pieces]
    is_dense = all(piece.flags.c_contiguous and piece.base is pieces[0].base for piece in pieces)
    if pieces[0].base is None or not is_dense or ends[:-1] != [piece.ctypes.data for piece in pieces[1:]]:
        return np.concatenate(pieces)
    return as_strided(pieces[0], (sum(map(len, pieces)), pieces[0].shape[1]), pieces[0].strides)
