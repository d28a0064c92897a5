"""Template matching as a node of SpikeInterface's pipelines."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from spikeinterface.core import BaseRecording
from spikeinterface.core.node_pipeline import PeakDetector

from spikeinterface_simsort.detection import peak_dtype
from spikeinterface_simsort.excerpt import segment_seconds
from spikeinterface_simsort.learning import Templates
from spikeinterface_simsort.preprocessing import check_finite
from spikeinterface_simsort.resampling import SamplingGrid


class TemplatePeakDetector(PeakDetector):
    """Spikes of the units' templates.

    Outputs peaks, their units int64 [num_peaks] and their waveforms float16 [num_peaks, num_samples * num_channels],
    from which all other spikes are subtracted.

    Parameters
    ----------
    recording : BaseRecording
        Preprocessed.
    templates : Templates
        Of the units.
    grid : SamplingGrid
        On which they were learned.
    return_output : bool
        Of the node.
    """

    def __init__(
        self, recording: BaseRecording, *, templates: Templates, grid: SamplingGrid, return_output: bool = True
    ) -> None:
        super().__init__(recording, return_output=return_output)
        self.templates = templates
        self.grid = grid
        self._clock, self._rate = segment_seconds(recording), recording.get_sampling_frequency()
        self._kwargs.update(templates=templates, grid=grid)

    def get_margin(self) -> int:
        """Frames on either side of a chunk that have a say in its spikes."""
        return self.grid.margin_frames(self.templates.matcher.margin_samples())

    # As SpikeInterface 0.104 calls it.
    get_trace_margin = get_margin

    def get_dtype(self) -> list[tuple[str, str]]:
        """Of peaks: SpikeInterface's, where they lie between samples, and the probability."""
        return peak_dtype

    def compute(
        self, traces: np.ndarray, start_frame: int, end_frame: int, segment_index: int, max_margin: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the spikes between two frames, see `PeakDetector`."""
        # The networks have seen only a part of the recording where they were run by themselves.
        check_finite(traces)
        matcher = self.templates.matcher
        first_frame = start_frame - self.get_margin()
        model_traces, first_sample = self.grid.resample(traces, first_frame=first_frame)

        def displacement(samples: np.ndarray) -> np.ndarray:
            drift = self.templates.drift
            if drift is None:
                return np.zeros(len(samples))
            frames = self.grid.to_frames(samples + first_sample)
            return drift.at(self._clock[segment_index] + frames / self._rate)

        matches = matcher.find(model_traces, displacement=displacement)
        times = matches["time"] + self.templates.shifts[matches["template"]]
        exact = self.grid.to_frames(times + first_sample)
        frames = np.round(exact).astype("int64")
        inside = (frames >= start_frame) & (frames < end_frame) & (self.templates.units[matches["template"]] >= 0)
        waveforms = matcher.cleaned_waveforms(model_traces, matches)[inside]
        matches, frames, exact = matches[inside], frames[inside], exact[inside]
        order = np.argsort(exact, kind="stable")
        matches, frames, exact, waveforms = matches[order], frames[order], exact[order], waveforms[order]

        largest = np.abs(matcher.templates).max(axis=2)
        peaks = np.zeros(len(matches), dtype=peak_dtype)
        peaks["sample_index"] = frames - first_frame
        peaks["channel_index"] = largest.argmax(axis=2)[matches["level"], matches["template"]]
        peaks["amplitude"] = traces[peaks["sample_index"], peaks["channel_index"]]
        peaks["segment_index"] = segment_index
        peaks["offset"] = exact - frames
        peaks["probability"] = expit(matches["log_odds"])
        flat = waveforms.reshape(len(waveforms), matcher.num_samples * matcher.num_channels)
        return peaks, self.templates.units[matches["template"]], flat.astype("float16")
