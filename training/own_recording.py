"""A lab's own recording, as far as networks learn from it: split in time, its spikes and its noise cut out."""

from __future__ import annotations

import numpy as np
import torch
from spikeinterface.core import BaseRecording, append_recordings
from spikeinterface.core.base import base_peak_dtype
from spikeinterface.core.node_pipeline import PeakRetriever
from torch import nn

from spikeinterface_simsort.compute import run_nodes
from spikeinterface_simsort.detection import pad_channels
from spikeinterface_simsort.embedding import NetworkEmbedder
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.preprocessing import RecordingError
from spikeinterface_simsort.waveforms import extract_waveforms
from spikeinterface_simsort.weights import Weights

# By time and not by chance, so that a recording that drifts is judged on what the networks have not seen.
TRAINING_SHARE = 0.7
# Samples that are cut beside a waveform, so that it can be moved in time.
PAD_SAMPLES = 12
_NOISE_MS = 2.5
_NUM_NOISE = 4000
_JITTER_SAMPLES, _AMPLITUDE_SPREAD = 0.2, 0.05


def split_time(recording: BaseRecording) -> tuple[BaseRecording, BaseRecording]:
    """Split a recording into the first part, which trains, and the last one, which is held out."""
    segment, frame = time_of_split(recording)
    segments = [recording.select_segments([index]) for index in range(recording.get_num_segments())]
    cut = segments[segment]
    first = [*segments[:segment], *([cut.frame_slice(0, frame)] if frame else [])]
    last = [cut.frame_slice(frame, cut.get_num_samples(0)), *segments[segment + 1 :]]
    return tuple(part[0] if len(part) == 1 else append_recordings(part) for part in (first, last))


def time_of_split(recording: BaseRecording) -> tuple[int, int]:
    """Segment and frame at which the part that is held out begins."""
    ends = np.cumsum([recording.get_num_samples(index) for index in range(recording.get_num_segments())])
    frame = int(TRAINING_SHARE * ends[-1])
    segment = int(np.searchsorted(ends, frame, side="right"))
    return segment, frame - int(ends[segment - 1] if segment else 0)


def check_channels(recording: BaseRecording, weights: Weights) -> None:
    """Refuse more channels than the networks read at a time."""
    num_channels = recording.get_num_channels()
    if num_channels > weights.detector.num_channels:
        raise RecordingError(
            f"The recording has {num_channels} channels, and the networks read {weights.detector.num_channels}: "
            "choose one tetrode (--group, or recording.split_by('group'))."
        )


def describe_recording(recording: BaseRecording) -> str:
    """Duration, channels and rate of a recording, and nothing that says where it lies."""
    return (
        f"{recording.get_total_duration():.0f} s of {recording.get_num_channels()} channels at "
        f"{recording.get_sampling_frequency():g} Hz"
    )


class _Cutter(nn.Module):
    """Stands in for an embedder where only the waveforms are wanted, and longer ones."""

    def __init__(self, *, num_samples: int, num_channels: int) -> None:
        super().__init__()
        self.num_samples = num_samples
        self.num_channels = num_channels

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return waveforms[:, :0, 0]


def cut_waveforms(
    preprocessed: BaseRecording, spikes: np.ndarray, *, weights: Weights, params: SimSortParams
) -> np.ndarray:
    """Cut waveforms as the sorter does, but longer by `PAD_SAMPLES` on either side.

    Parameters
    ----------
    preprocessed : BaseRecording
        In units of noise.
    spikes : np.ndarray, structured [num_spikes]
        With the fields ``sample_index`` and ``segment_index``, in their order.
    weights : Weights
        Whose embedder is to read them.
    params : SimSortParams
        Resolved; uses `job_kwargs`.

    Returns
    -------
    np.ndarray, float32 [num_spikes, num_samples + 2 * PAD_SAMPLES, num_channels]
        At the embedder's rate, aligned; with as many channels as it reads.
    """
    peaks = np.zeros(len(spikes), dtype=np.dtype(base_peak_dtype))
    for name in ("sample_index", "segment_index"):
        peaks[name] = spikes[name]
    section = weights.config["embedder"]
    rate, num_channels = section["sampling_frequency"], weights.embedder.num_channels
    num_samples = weights.embedder.num_samples + 2 * PAD_SAMPLES
    shape = (len(peaks), num_samples, preprocessed.get_num_channels())
    if not len(peaks):
        return np.zeros((0, num_samples, num_channels), dtype="float32")
    source = PeakRetriever(preprocessed, peaks)
    cutter = NetworkEmbedder(
        preprocessed,
        parents=[source],
        network=_Cutter(num_samples=num_samples, num_channels=num_channels),
        model_frequency=rate,
        ms_before=section["ms_before"] + PAD_SAMPLES * 1000 / rate,
        return_output=(True, False),
    )
    flat = run_nodes(preprocessed, [source, cutter], job_kwargs=params.job_kwargs, job_name="cut waveforms")
    return pad_channels(np.asarray(flat, dtype="float32").reshape(shape), num_channels=num_channels)


def cut_noise(
    preprocessed: BaseRecording, spikes: np.ndarray, *, weights: Weights, params: SimSortParams
) -> np.ndarray:
    """Cut waveforms where there is no spike.

    Parameters
    ----------
    preprocessed, spikes, weights, params
        As for `cut_waveforms`; the spikes to stay away from.

    Returns
    -------
    np.ndarray, float32 [num_waveforms, num_samples + 2 * PAD_SAMPLES, num_channels]
        Of the recording's own noise; none where it has no silent moment.
    """
    rng = np.random.default_rng(params.seed)
    reach = _NOISE_MS * preprocessed.get_sampling_frequency() / 1000
    lengths = np.array([preprocessed.get_num_samples(i) for i in range(preprocessed.get_num_segments())])
    drawn = np.zeros(4 * _NUM_NOISE, dtype=np.dtype(base_peak_dtype))
    drawn["segment_index"] = rng.choice(len(lengths), size=len(drawn), p=lengths / lengths.sum())
    drawn["sample_index"] = rng.integers(lengths[drawn["segment_index"]])
    drawn.sort(order=["segment_index", "sample_index"])
    silent = []
    for segment in range(len(lengths)):
        candidates = drawn[drawn["segment_index"] == segment]
        frames = np.sort(spikes["sample_index"][spikes["segment_index"] == segment])
        frames = np.concatenate([[-np.inf], frames, [np.inf]])
        following = np.searchsorted(frames, candidates["sample_index"])
        distance = np.minimum(
            frames[following] - candidates["sample_index"], candidates["sample_index"] - frames[following - 1]
        )
        silent.append(candidates[distance > reach])
    silent = np.concatenate(silent)
    chosen = np.sort(rng.permutation(len(silent))[:_NUM_NOISE])
    return cut_waveforms(preprocessed, silent[chosen], weights=weights, params=params)


def add_noise(waveforms: np.ndarray, noise: np.ndarray, *, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    """Wide waveforms as they might have been recorded at another time: moved, scaled and in other noise.

    Parameters
    ----------
    waveforms, noise : np.ndarray, float32 [num_spikes, num_samples + 2 * PAD_SAMPLES, num_channels]
        See `cut_waveforms` and `cut_noise`.
    rng : np.random.Generator
        Source of all that is random.
    scale : float
        Of the noise.

    Returns
    -------
    np.ndarray, float32 [num_spikes, num_samples, num_channels]
    """
    num_spikes = len(waveforms)
    moved = move_waveforms(waveforms, rng.normal(0.0, _JITTER_SAMPLES, size=num_spikes))
    moved *= rng.normal(1.0, _AMPLITUDE_SPREAD, size=num_spikes).astype("float32")[:, None, None]
    if scale and len(noise):
        chosen = noise[rng.integers(len(noise), size=num_spikes)]
        # Cutting has put a peak of the noise into the middle.
        signs = rng.choice(np.array([-scale, scale], dtype="float32"), size=num_spikes)
        moved += signs[:, None, None] * move_waveforms(chosen, rng.uniform(-4.0, 4.0, size=num_spikes))
    return moved


def move_waveforms(waveforms: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Cut the middle out of wide waveforms, a little later.

    Parameters
    ----------
    waveforms : np.ndarray, float32 [num_spikes, num_samples + 2 * PAD_SAMPLES, num_channels]
        See `cut_waveforms`.
    shift : np.ndarray, float64 [num_spikes]
        In samples, smaller than ``PAD_SAMPLES - 5``.

    Returns
    -------
    np.ndarray, float32 [num_spikes, num_samples, num_channels]
    """
    num_spikes, wide, num_channels = waveforms.shape
    times = np.arange(num_spikes) * wide + PAD_SAMPLES + shift
    flat = waveforms.reshape(num_spikes * wide, num_channels)
    return extract_waveforms(flat, times, num_before=0, num_after=wide - 2 * PAD_SAMPLES)
