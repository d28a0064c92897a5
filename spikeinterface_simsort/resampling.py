"""Resampling of chunks onto the sampling grid of a network, the same wherever a chunk begins."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import signal

# The upper edge of the band lies no higher than this share of half the sampling frequency.
NYQUIST_SHARE = 0.9
# Half the length of SciPy's default anti-aliasing filter, in samples of the slower rate.
_FILTER_REACH = 10


@dataclass(frozen=True)
class SamplingGrid:
    """A grid of model samples over a recording: model sample `k` lies at frame ``k * down / up``.

    Attributes
    ----------
    up, down : int
        Ratio of the model's rate to the recording's.
    """

    up: int
    down: int

    @classmethod
    def between(cls, *, recording_frequency: float, model_frequency: float) -> SamplingGrid:
        """Grid of the rational rate nearest to the model's; at most 0.1 % off it."""
        ratio = Fraction(model_frequency / recording_frequency).limit_denominator(1000)
        return cls(up=ratio.numerator, down=ratio.denominator)

    def to_frames(self, model_samples: np.ndarray) -> np.ndarray:
        """Frames of the recording, as floats, of times given in model samples."""
        return np.asarray(model_samples) * self.down / self.up

    def model_range(self, start_frame: int, end_frame: int) -> tuple[int, int]:
        """First model sample at or after `start_frame`, and first one at or after `end_frame`."""
        return -(-start_frame * self.up // self.down), -(-end_frame * self.up // self.down)

    def margin_frames(self, model_samples: int) -> int:
        """Frames that a chunk needs on either side to give so many exact model samples there."""
        reach = (model_samples + _FILTER_REACH + 2) * self.down / self.up
        # `resample` starts at a multiple of `down` and its filter reaches that far at the slower rate.
        return int(np.ceil(max(reach, model_samples * self.down / self.up + _FILTER_REACH + 2))) + self.down

    def resample(self, traces: np.ndarray, *, first_frame: int) -> tuple[np.ndarray, int]:
        """Resample a chunk onto the grid.

        Parameters
        ----------
        traces : np.ndarray, float32 [num_frames, num_channels]
            Chunk of the recording, margins included.
        first_frame : int
            Its first frame; negative within the margin before the recording.

        Returns
        -------
        traces : np.ndarray, float32 [num_samples, num_channels]
            At the model's rate.
        first_sample : int
            Its first model sample.
        """
        if self.up == self.down:
            return traces, first_frame
        skip = -first_frame % self.down
        resampled = signal.resample_poly(traces[skip:], self.up, self.down, axis=0)
        return resampled.astype("float32", copy=False), (first_frame + skip) // self.down * self.up
