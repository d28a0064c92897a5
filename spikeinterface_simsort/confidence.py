"""How accurate a unit can be expected to be, from what is known of it without the truth.

A logistic regression on a few features of a unit, fitted to simulated recordings whose spikes are known
(`docs/confidence.md`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.special import expit, ndtr

from spikeinterface_simsort.clustering import discriminant_axis
from spikeinterface_simsort.peaks import separated_times
from spikeinterface_simsort.refinement import Unit

ASSET = Path(__file__).parent / "assets" / "confidence.json"

# Columns of `unit_features`, which explains them.
FEATURES = ("is_matched", "doubt", "rate", "unevenness", "violations", "snr", "residual", "elongation", "overlap")

# So many spikes of a unit are looked at, in so many principal directions of all units' waveforms.
_SPIKES_PER_UNIT, _DIMENSIONS = 500, 16
# Further from zero nothing is a spike, and sums would overflow.
_LARGEST = 1000.0
# No neuron fires again so soon. What is nearer than the first may be one spike, found twice.
_DOUBLE_MS, _REFRACTORY_MS = 0.5, 1.5
_SPIKES_PER_BIN, _MAX_BINS = 20, 20
# What is smaller than these cannot be told from nothing.
_LEAST_SHARE, _LEAST_VARIATION = 1e-3, 0.1


@dataclass(frozen=True, kw_only=True)
class AccuracyModel:
    """Logistic regression of a unit's accuracy on its features and their products.

    Attributes
    ----------
    low, high : np.ndarray, float64 [num_features]
        Range of the features where the model was fitted: beyond it they count as its ends.
    centre, scale : np.ndarray, float64 [num_features]
        By which they are standardised.
    coefficients : np.ndarray, float64 [num_terms]
        Of 1, of the features, and of the products of two in the order of `np.triu_indices`.
    """

    low: np.ndarray
    high: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Expected accuracy of units, float64 [num_units], from `unit_features`."""
        return expit(self.terms(features) @ self.coefficients)

    def terms(self, features: np.ndarray) -> np.ndarray:
        """What the log odds are a sum of, float64 [num_units, num_terms]."""
        standard = (np.clip(features, self.low, self.high) - self.centre) / self.scale
        first, second = np.triu_indices(standard.shape[1])
        return np.column_stack([np.ones(len(standard)), standard, standard[:, first] * standard[:, second]])

    def save(self, path: Path, *, made: Mapping[str, Any]) -> None:
        """Write it as JSON, whole or not at all.

        Parameters
        ----------
        path : Path
            File to write.
        made : mapping
            How it was made: goes into the file.
        """
        model = {name: np.round(value, 6).tolist() for name, value in asdict(self).items()}
        partial = path.with_name(f"partial_{path.name}")
        partial.write_text(json.dumps({"made": made, "features": FEATURES, "model": model}, indent=1) + "\n", "utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path = ASSET) -> AccuracyModel:
        """Read what `save` wrote; by default what comes with the package.

        Raises
        ------
        ValueError
            Its features are not `FEATURES`.
        """
        content = json.loads(path.read_text("utf-8"))
        if tuple(content["features"]) != FEATURES:
            raise ValueError(f"{path} is for other features than {', '.join(FEATURES)}: fit it again.")
        return cls(**{name: np.asarray(value) for name, value in content["model"].items()})


def unit_features(
    peaks: np.ndarray,
    waveforms: np.ndarray,
    units: Sequence[Unit],
    *,
    is_matched: bool,
    sampling_frequency: float,
    num_frames: Sequence[int],
    seed: int,
) -> np.ndarray:
    """Describe units by what tells how accurate they are.

    All but the first and the violations are natural logarithms.

    - ``is_matched``: whether spikes were found by templates (1) or are as they were detected (0): probabilities are
      others then, and waveforms hold one spike.
    - ``doubt``: mean probability that a spike is none.
    - ``rate``: in Hz.
    - ``unevenness``: coefficient of variation of the number of spikes in at most 20 parts of the recording, beyond
      that of a Poisson process. A neuron that drifts may be one unit now and another one then.
    - ``violations``: pairs of spikes within the refractory period, relative to those of as many spikes that know
      nothing of each other (Hill et al. 2011; Llobet et al. 2022).
    - ``snr``: largest deflection of the mean waveform, in units of noise.
    - ``residual``: median mean square of what the mean waveform, its amplitude and its time leave of a waveform.
    - ``elongation``: largest variance of this along one direction, relative to the second largest. Two neurons in one
      unit differ along one.
    - ``overlap``: spikes that other units have of it and that it has of others, relative to its own, were all units
      Gaussian on the line that parts two of them best (Hill et al. 2011).

    Parameters
    ----------
    peaks : np.ndarray, structured [num_peaks]
        Sorted by segment and sample index.
    waveforms : np.ndarray, float16 [num_peaks, num_samples * num_channels]
        In units of noise.
    units : sequence of Unit
        Of these peaks.
    is_matched : bool
        See above.
    sampling_frequency : float
        Of the peaks, in Hz.
    num_frames : sequence of int
        Length of each segment.
    seed : int
        For the spikes that are looked at.

    Returns
    -------
    np.ndarray, float64 [num_units, num_features]
        Columns as in `FEATURES`.
    """
    if not units:
        return np.empty((0, len(FEATURES)))
    starts = np.concatenate([[0], np.cumsum(num_frames)])
    rng = np.random.default_rng(seed)
    samples = [_sample(waveforms, unit.spikes, rng=rng) for unit in units]
    sizes = np.array([len(unit.spikes) for unit in units])
    return np.column_stack(
        [
            np.full(len(units), float(is_matched)),
            np.log([1 - unit.probability + _LEAST_SHARE for unit in units]),
            np.log(sizes * sampling_frequency / starts[-1]),
            [_unevenness(_run_on_frames(peaks[unit.spikes], starts), num_frames=starts[-1]) for unit in units],
            [
                _violations(
                    separated_times(peaks[unit.spikes]), sampling_frequency=sampling_frequency, num_frames=starts[-1]
                )
                for unit in units
            ],
            np.log([max(unit.snr, 1.0) for unit in units]),
            np.log([_residual(sample, num_channels=units[0].template.shape[1]) for sample in samples]),
            np.log(overlap_shares(samples, sizes=sizes) + _LEAST_SHARE),
        ]
    )


def _sample(waveforms: np.ndarray, spikes: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Waveforms of as many spikes as are looked at, float32."""
    chosen = spikes if len(spikes) <= _SPIKES_PER_UNIT else rng.choice(spikes, _SPIKES_PER_UNIT, replace=False)
    return np.clip(waveforms[chosen].astype("float32"), -_LARGEST, _LARGEST)


def _run_on_frames(peaks: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Frames of peaks, each segment where the one before ended."""
    return peaks["sample_index"] + starts[peaks["segment_index"]]


def _unevenness(frames: np.ndarray, *, num_frames: int) -> float:
    num_bins = int(np.clip(len(frames) // _SPIKES_PER_BIN, 2, _MAX_BINS))
    counts = np.histogram(frames, num_bins, range=(0, num_frames))[0]
    variation = np.sqrt(max(counts.var() - counts.mean(), 0.0)) / counts.mean()
    return float(np.log(np.hypot(variation, _LEAST_VARIATION)))


def _violations(times: np.ndarray, *, sampling_frequency: float, num_frames: int) -> float:
    double, refractory = (ms * sampling_frequency / 1000 for ms in (_DOUBLE_MS, _REFRACTORY_MS))
    pairs = np.searchsorted(times, times + refractory, "right") - np.searchsorted(times, times + double, "right")
    by_chance = len(times) ** 2 * (refractory - double) / num_frames
    # Where hardly a pair is expected, none tells nothing.
    return float(pairs.sum() / (by_chance + 1))


def _residual(sample: np.ndarray, *, num_channels: int) -> tuple[float, float]:
    """How large what the mean waveform leaves is, and how elongated."""
    mean = sample.mean(axis=0)
    slope = np.asarray(np.gradient(mean.reshape(-1, num_channels), axis=0)).reshape(-1)
    axes = np.linalg.qr(np.column_stack([mean, slope]))[0]
    deviation = sample - mean
    # Its amplitude and its time vary, too.
    deviation -= deviation @ axes @ axes.T
    second, first = np.maximum(_widest(deviation, 2)[0], 0) / len(sample) + _LEAST_SHARE
    # The mean takes its share of few waveforms.
    size = np.median((deviation**2).mean(axis=1)) * len(sample) / max(len(sample) - 1, 1)
    return size + _LEAST_SHARE, first / second


def _widest(deviation: np.ndarray, num_directions: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares along the directions in which they are largest, increasing, and these, [dim, num_directions]."""
    dim = deviation.shape[1]
    return eigh(deviation.T @ deviation, subset_by_index=[max(dim - num_directions, 0), dim - 1])


def overlap_shares(samples: Sequence[np.ndarray], *, sizes: np.ndarray) -> np.ndarray:
    """Spikes that are taken for another unit's, either way, as a share of each unit's own, were all units Gaussian.

    Parameters
    ----------
    samples : sequence of np.ndarray, float [num_spikes, num_dimensions]
        Spikes of each unit, in the same coordinates.
    sizes : np.ndarray [num_units]
        How many spikes each has in all.

    Returns
    -------
    np.ndarray, float64 [num_units]
    """
    together = np.concatenate(samples)
    _, axes = _widest(together - together.mean(axis=0), _DIMENSIONS)
    points = [sample @ axes for sample in samples]
    wrong = np.zeros(len(points))
    for unit, own in enumerate(points):
        for other, others in enumerate(points[:unit]):
            difference = others.mean(axis=0) - own.mean(axis=0)
            # In standard deviations.
            distance = np.sqrt(max(difference @ discriminant_axis(own, others), 1e-12))
            # Of two Gaussians, the larger one gets more of what lies between them.
            middle = distance / 2 + np.log(sizes[unit] / sizes[other]) / distance
            wrong[[unit, other]] += sizes[unit] * ndtr(-middle) + sizes[other] * ndtr(middle - distance)
    return wrong / sizes
