"""What of a long recording is looked at to learn its units: pieces spread over the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from spikeinterface.core import BaseRecording, append_recordings

# A recording that is no longer than the first is looked at as a whole. Of others, pieces that are as long as the second
# tell what the units look like, however long the recording is.
_WHOLE_S, _EXCERPT_S, _PIECE_S = 300.0, 200.0, 10.0


@dataclass(frozen=True)
class Excerpt:
    """Pieces of a recording, or the whole of a short one.

    Attributes
    ----------
    recording : BaseRecording
        The pieces, each a segment.
    seconds : np.ndarray, float64 [num_segments]
        When each of its segments begins, on a clock that runs on over all segments of the whole.
    is_whole : bool
        Whether it is the recording itself.
    """

    recording: BaseRecording
    seconds: np.ndarray
    is_whole: bool

    @classmethod
    def of_all(cls, recording: BaseRecording) -> Excerpt:
        """The recording itself."""
        return cls(recording=recording, seconds=segment_seconds(recording), is_whole=True)


def choose_excerpt(recording: BaseRecording) -> Excerpt:
    """Choose what units are learned from: all of a short recording, else pieces that are spread evenly over it.

    Parameters
    ----------
    recording : BaseRecording
        Of any length; its pieces are views.

    Returns
    -------
    Excerpt
    """
    if recording.get_total_duration() <= _WHOLE_S:
        return Excerpt.of_all(recording)
    rate, clock = recording.get_sampling_frequency(), segment_seconds(recording)
    pieces = []
    for segment in range(recording.get_num_segments()):
        num_frames = recording.get_num_samples(segment)
        edges = np.linspace(0, num_frames, int(np.ceil(num_frames / (_PIECE_S * rate))) + 1).round().astype("int64")
        pieces += [(segment, int(start), int(end)) for start, end in zip(edges[:-1], edges[1:], strict=True)]
    num_chosen = min(round(_EXCERPT_S / _PIECE_S), len(pieces))
    chosen = [pieces[index] for index in np.linspace(0, len(pieces) - 1, num_chosen).round().astype("int64")]
    return Excerpt(
        recording=append_recordings(
            [recording.select_segments([segment]).frame_slice(start, end) for segment, start, end in chosen]
        ),
        seconds=np.array([clock[segment] + start / rate for segment, start, _ in chosen]),
        is_whole=False,
    )


def segment_seconds(recording: BaseRecording) -> np.ndarray:
    """When each segment begins, on a clock that runs on over all of them; float64 [num_segments]."""
    num_frames = [recording.get_num_samples(segment) for segment in range(recording.get_num_segments())]
    return np.cumsum([0, *num_frames[:-1]]) / recording.get_sampling_frequency()
