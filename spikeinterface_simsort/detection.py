"""Detection of spikes by the network, as a node of SpikeInterface's pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit
from spikeinterface.core import BaseRecording
from spikeinterface.core.base import base_peak_dtype
from spikeinterface.core.node_pipeline import PeakDetector

from spikeinterface_simsort.inference import as_function
from spikeinterface_simsort.peaks import EDGE_SHARE, find_peaks
from spikeinterface_simsort.perceptrons import PeakPerceptron
from spikeinterface_simsort.preprocessing import check_finite
from spikeinterface_simsort.resampling import SamplingGrid
from spikeinterface_simsort.waveforms import align_peaks

if TYPE_CHECKING:
    from torch import nn

# Windows a batch: large enough for matrix products, small enough for any memory.
_WINDOWS_PER_BATCH = 16

# A peak lies `offset` samples after its sample.
peak_dtype = [*base_peak_dtype, ("offset", "float32"), ("probability", "float32")]


class NetworkPeakDetector(PeakDetector):
    """Peaks of the detector's output, each aligned to the largest deflection nearby.

    Parameters
    ----------
    recording : BaseRecording
        Preprocessed.
    network : torch.nn.Module or PeakPerceptron
        Detector: [batch, window_samples, num_channels] -> logits [batch, window_samples].
    model_frequency : float
        Its sampling frequency, in Hz.
    device : str
        Where it runs.
    threshold : float
        Probability of a peak.
    exclude_ms : float
        Least distance of two peaks, in ms.
    align_ms : float
        A peak moves to the largest deflection within this time, in ms.
    return_output : bool
        Of the node.
    """

    def __init__(
        self,
        recording: BaseRecording,
        *,
        network: nn.Module | PeakPerceptron,
        model_frequency: float,
        device: str = "cpu",
        threshold: float = 0.5,
        exclude_ms: float = 0.4,
        align_ms: float = 0.2,
        return_output: bool = True,
    ) -> None:
        super().__init__(recording, return_output=return_output)
        self.network = network
        self._logits = as_function(network, device=device, batch_size=_WINDOWS_PER_BATCH)
        self.threshold = threshold
        self.grid = SamplingGrid.between(
            recording_frequency=recording.get_sampling_frequency(), model_frequency=model_frequency
        )
        self.window_samples: int = network.window_samples  # pyright: ignore[reportAttributeAccessIssue]
        self.edge_samples = int(self.window_samples * EDGE_SHARE)
        self.hop_samples = self.window_samples - 2 * self.edge_samples
        self.exclude_samples = max(round(exclude_ms * model_frequency / 1000), 1)
        self.align_samples = max(round(align_ms * model_frequency / 1000), 1)
        self._kwargs.update(
            network=network,
            model_frequency=model_frequency,
            device=device,
            threshold=threshold,
            exclude_ms=exclude_ms,
            align_ms=align_ms,
        )

    def get_margin(self) -> int:
        """Frames on either side of a chunk: a whole window, and what a peak looks at beyond it."""
        return self.grid.margin_frames(self.window_samples + self.exclude_samples + 2 * self.align_samples + 2)

    # As SpikeInterface 0.104 calls it.
    get_trace_margin = get_margin

    def get_dtype(self) -> list[tuple[str, str]]:
        """Of peaks: SpikeInterface's, where they lie between samples, and the probability."""
        return peak_dtype

    def compute(
        self, traces: np.ndarray, start_frame: int, end_frame: int, segment_index: int, max_margin: int
    ) -> tuple[np.ndarray]:
        """Detect the peaks between two frames, see `PeakDetector`."""
        # The estimate of the noise has seen only a part of the recording.
        check_finite(traces)
        margin = self.get_margin()
        model_traces, first_sample = self.grid.resample(traces, first_frame=start_frame - margin)
        # Alignment may move a peak over the border of its chunk: detect a little further, then keep what falls inside.
        reach = self.align_samples + 1
        start, stop = self.grid.model_range(start_frame, end_frame)
        start, stop = start - reach, stop + reach
        around = self.exclude_samples
        probability = self.probability(
            model_traces, first_sample=first_sample, start=start - around, stop=stop + around
        )
        index = find_peaks(probability, threshold=self.threshold, exclude_samples=around)
        index = index[(index >= around) & (index < len(probability) - around)]
        times, channel = align_peaks(
            model_traces, index + start - around - first_sample, search_samples=self.align_samples
        )
        exact = self.grid.to_frames(times + first_sample)
        frames = np.round(exact).astype("int64")

        order = np.argsort(exact, kind="stable")
        order = order[(frames[order] >= start_frame) & (frames[order] < end_frame)]
        peaks = np.zeros(len(order), dtype=self.get_dtype())
        local = frames[order] - (start_frame - margin)
        peaks["sample_index"] = local
        peaks["channel_index"] = channel[order]
        peaks["amplitude"] = traces[local, channel[order]]
        peaks["segment_index"] = segment_index
        peaks["offset"] = (exact - frames)[order]
        peaks["probability"] = probability[index[order]]
        return (peaks,)

    def probability(self, model_traces: np.ndarray, *, first_sample: int, start: int, stop: int) -> np.ndarray:
        """Probability of a spike at each model sample of a range.

        The windows lie on a grid of the whole recording and their edges are discarded: no value depends on the chunk.

        Parameters
        ----------
        model_traces : np.ndarray, float32 [num_samples, num_channels]
            Chunk at the model's rate.
        first_sample : int
            Its first model sample.
        start, stop : int
            Range of model samples wanted.

        Returns
        -------
        np.ndarray, float32 [stop - start]
        """
        first_window = start // self.hop_samples
        last_window = (stop - 1) // self.hop_samples
        begin = first_window * self.hop_samples - self.edge_samples - first_sample
        length = (last_window - first_window) * self.hop_samples + self.window_samples
        # The outermost windows may need more than the margin holds: nobody reads what they say there.
        before, after = max(-begin, 0), max(begin + length - len(model_traces), 0)
        chunk = np.pad(model_traces[max(begin, 0) : begin + length], ((before, after), (0, 0)))
        chunk = pad_channels(chunk, num_channels=self.network.num_channels)  # pyright: ignore[reportArgumentType]
        chunk = np.ascontiguousarray(chunk)
        windows = np.lib.stride_tricks.as_strided(
            chunk,
            shape=(last_window - first_window + 1, self.window_samples, chunk.shape[1]),
            strides=(self.hop_samples * chunk.strides[0], *chunk.strides),
        )
        kept = self._logits(windows)[:, self.edge_samples : self.edge_samples + self.hop_samples]
        probability = expit(kept.reshape(-1))
        offset = start - first_window * self.hop_samples
        return probability[offset : offset + stop - start]


def pad_channels(traces: np.ndarray, *, num_channels: int) -> np.ndarray:
    """Add silent channels up to the number that a network reads, along the last axis."""
    missing = num_channels - traces.shape[-1]
    return np.pad(traces, [(0, 0)] * (traces.ndim - 1) + [(0, missing)]) if missing else traces
