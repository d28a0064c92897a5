"""Resampling of chunks onto the sampling grid of a network, the same wherever a chunk begins."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided

# The upper edge of the band lies no higher than this share of half the sampling frequency.
NYQUIST_SHARE = 0.9
# Half the length of the anti-aliasing filter, in samples of the slower rate, and the shape of its Kaiser window: as for
# SciPy's `resample_poly`.
_FILTER_REACH, _KAISER_BETA = 10, 5.0
# So many samples, about, are computed by one matrix product from the same frames.
_SAMPLES_PER_PRODUCT = 32


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
        return _resample(traces[skip:], self.up, self.down), (first_frame + skip) // self.down * self.up


def _resample(traces: np.ndarray, up: int, down: int) -> np.ndarray:
    """Interpolate with zeros, low-pass and decimate: only what is not zero and is kept. Beyond the ends all is zero.

    The filter is the same for all samples that lie alike between frames, every `up` samples. So the frames around each
    of these form the rows of a matrix, and its product with a matrix of the filter's coefficients gives the samples.
    """
    num_frames, num_channels = traces.shape
    num_samples = -(-num_frames * up // down)
    reach = _reach_frames(up, down)
    periods = max(1, round(_SAMPLES_PER_PRODUCT / up))
    stride, num_rows = periods * down, -(-num_samples // (periods * up))
    padded = np.zeros((num_channels, num_rows * stride + 2 * reach), dtype="float32")
    padded[:, reach : reach + num_frames] = traces.T
    resampled = np.empty((num_channels, num_rows, periods * up), dtype="float32")
    for begin in range(0, periods * up, _SAMPLES_PER_PRODUCT):
        coefficients, first = _coefficients(up, down, begin, min(begin + _SAMPLES_PER_PRODUCT, periods * up))
        step = padded.itemsize
        rows = as_strided(
            padded[:, first:],
            (num_channels, num_rows, len(coefficients)),
            (padded.strides[0], stride * step, step),
            writeable=False,
        )
        resampled[:, :, begin : begin + coefficients.shape[1]] = rows @ coefficients
    return np.ascontiguousarray(resampled.reshape(num_channels, -1)[:, :num_samples].T)


def _reach_frames(up: int, down: int) -> int:
    """Frames on either side of a sample that have a say in it."""
    return _FILTER_REACH * max(up, down) // up + 1


@lru_cache(maxsize=256)
def _coefficients(up: int, down: int, begin: int, end: int) -> tuple[np.ndarray, int]:
    """Weights of frames in the samples between two, float32 [num_frames, num_samples], and the first of the frames.

    Frames count from as many before the first sample as have a say in it.
    """
    half = _FILTER_REACH * max(up, down)
    at = np.arange(-half, half + 1)
    low_pass = np.sinc(at / max(up, down)) * np.kaiser(2 * half + 1, _KAISER_BETA)
    low_pass *= up / low_pass.sum()
    reach = _reach_frames(up, down)
    samples = np.arange(begin, end) * down
    first, last = samples[0] // up, samples[-1] // up + 2 * reach
    frames = np.arange(first, last + 1) - reach
    apart = samples[None] - frames[:, None] * up
    weights = np.where(np.abs(apart) <= half, low_pass[np.clip(apart + half, 0, 2 * half)], 0.0)
    return weights.astype("float32"), int(first)
