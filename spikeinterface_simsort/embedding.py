"""Embedding of detected spikes by the network, as a node of SpikeInterface's pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from spikeinterface.core import BaseRecording
from spikeinterface.core.node_pipeline import PipelineNode

from spikeinterface_simsort.detection import pad_channels
from spikeinterface_simsort.inference import as_function
from spikeinterface_simsort.perceptrons import WaveformPerceptron
from spikeinterface_simsort.resampling import SamplingGrid
from spikeinterface_simsort.waveforms import align_peaks, extract_waveforms

if TYPE_CHECKING:
    from torch import nn

_SPIKES_PER_BATCH = 1024


class NetworkEmbedder(PipelineNode):
    """Waveforms of peaks, at the model's rate, and their embeddings.

    Outputs waveforms float16 [num_peaks, num_samples * num_channels] and embeddings float32 [num_peaks, embedding_dim].

    Parameters
    ----------
    recording : BaseRecording
        Preprocessed.
    parents : list of PipelineNode
        The detector.
    network : torch.nn.Module or WaveformPerceptron
        Embedder: [batch, num_samples, num_channels] -> [batch, embedding_dim].
    model_frequency : float
        Its sampling frequency, in Hz.
    ms_before : float
        Part of a waveform before its peak, in ms.
    device : str
        Where it runs.
    align_ms : float
        The peak is looked for within this time again, at the model's rate, in ms.
    return_output : bool or tuple of bool
        Of the node.
    """

    _compute_has_extended_signature = True

    def __init__(
        self,
        recording: BaseRecording,
        *,
        parents: list[PipelineNode],
        network: nn.Module | WaveformPerceptron,
        model_frequency: float,
        ms_before: float,
        device: str = "cpu",
        align_ms: float = 0.2,
        return_output: bool | tuple[bool, ...] = True,
    ) -> None:
        super().__init__(recording, return_output=return_output, parents=parents)  # pyright: ignore[reportArgumentType]
        self.network = network
        self._embedding = as_function(network, device=device, batch_size=_SPIKES_PER_BATCH)
        self.grid = SamplingGrid.between(
            recording_frequency=recording.get_sampling_frequency(), model_frequency=model_frequency
        )
        self.num_samples: int = network.num_samples  # pyright: ignore[reportAttributeAccessIssue]
        self.num_before = round(ms_before * model_frequency / 1000)
        self.align_samples = max(round(align_ms * model_frequency / 1000), 1)
        self._kwargs.update(
            network=network, model_frequency=model_frequency, ms_before=ms_before, device=device, align_ms=align_ms
        )

    def get_margin(self) -> int:
        """Frames on either side of a chunk that a waveform may need."""
        return self.grid.margin_frames(self.num_samples + self.align_samples + 10)

    # As SpikeInterface 0.104 calls it.
    get_trace_margin = get_margin

    def compute(
        self,
        traces: np.ndarray,
        start_frame: int,
        end_frame: int,
        segment_index: int,
        max_margin: int,
        peaks: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embed the peaks of a chunk; their sample indices count from the chunk's margin."""
        first_frame = start_frame - max_margin
        model_traces, first_sample = self.grid.resample(traces, first_frame=first_frame)
        frames = peaks["sample_index"] + first_frame
        rough = np.round(frames * self.grid.up / self.grid.down).astype("int64") - first_sample
        times, _ = align_peaks(model_traces, rough, search_samples=self.align_samples)
        waveforms = extract_waveforms(
            model_traces, times, num_before=self.num_before, num_after=self.num_samples - self.num_before
        )
        flat = waveforms.reshape(len(waveforms), self.num_samples * traces.shape[1])
        return flat.astype("float16"), self.embed(waveforms)

    def embed(self, waveforms: np.ndarray) -> np.ndarray:
        """Embed waveforms [num_spikes, num_samples, num_channels] -> float32 [num_spikes, embedding_dim]."""
        if len(waveforms) == 0:
            return np.empty((0, self.network.embedding_dim), dtype="float32")  # pyright: ignore[reportCallIssue, reportArgumentType]
        padded = pad_channels(waveforms, num_channels=self.network.num_channels)  # pyright: ignore[reportArgumentType]
        return self._embedding(padded)
