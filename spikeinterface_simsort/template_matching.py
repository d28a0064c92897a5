"""Templates found again in the traces, overlapping spikes one after the other, on plain arrays.

Each template is compared with the traces at every sample by the log odds of a spike of it against noise, with the
noise's whole covariance over channels and time. The likeliest spikes are taken and subtracted, and what they hid shows.
Where the tissue moves, templates are those of the displacement that it has at the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.nn.functional import conv1d, max_pool1d

from spikeinterface_simsort.waveforms import extract_waveforms
from spikeinterface_simsort.whitening import Whitener

match_dtype = [
    ("time", "float64"),
    ("template", "int64"),
    ("amplitude", "float32"),
    ("log_odds", "float32"),
    ("iteration", "int64"),
    ("level", "int64"),
]

# A neuron fires about so often before anything is known of it.
_PRIOR_RATE_HZ = 5.0
# Least log odds of a spike. A higher one would keep small spikes out of the templates, which then find fewer still.
_THRESHOLD = 0.0
# Spikes have amplitudes between these of their template's; the spread within a unit is bounded.
_AMPLITUDES = (0.5, 2.0)
_DEVIATIONS = (0.1, 0.3)
# A template is wrong by about this share of its energy: what a subtracted spike leaves behind is no spike.
_MISMATCH = 0.02
# Samples, on either side of the likeliest, at which other templates may be aligned that compete for a spike.
_NEAR = 4
# One neuron does not fire twice within this time.
_REFRACTORY_MS = 0.5
_MAX_ITERATIONS = 12
# Templates are subtracted at these shifts between samples.
_SHIFTS = np.array([-0.4, -0.2, 0.0, 0.2, 0.4])
# Traces are searched in pieces that fit a processor's memory; beyond a margin, what is subtracted makes no difference.
_PIECE_SAMPLES = 50_000
_MARGIN_WINDOWS = 20


class TemplateMatcher:
    """Templates made ready to be found.

    Parameters
    ----------
    templates : np.ndarray, float32 [num_levels, num_templates, num_samples, num_channels]
        Mean waveforms in units of noise, their peaks at sample `num_before`, at each level of displacement.
    levels : np.ndarray, float [num_levels]
        The displacements.
    num_before : int
        Samples before the peak.
    whitener : Whitener
        The noise of such windows.
    deviations : np.ndarray, float [num_templates]
        Standard deviation of the amplitudes of a unit's spikes, as a share of the template.
    sampling_frequency : float
        Of the traces, in Hz.
    """

    def __init__(
        self,
        templates: np.ndarray,
        *,
        levels: np.ndarray,
        num_before: int,
        whitener: Whitener,
        deviations: np.ndarray,
        sampling_frequency: float,
    ) -> None:
        self.templates = templates.astype("float32")
        self.levels = levels
        self.num_before = num_before
        _, self.num_templates, self.num_samples, self.num_channels = templates.shape
        self.refractory_samples = max(round(_REFRACTORY_MS * sampling_frequency / 1000), 1)
        self.log_prior = float(np.log(_PRIOR_RATE_HZ / sampling_frequency))
        self.amplitude_precision = (1 / np.clip(deviations, *_DEVIATIONS) ** 2).astype("float32")[:, None]
        delays = np.stack([shift_matrix(self.num_samples, shift) for shift in _SHIFTS])
        self.shifted = np.einsum("sij,ltjc->ltsic", delays, self.templates, optimize=True)

        flat = self.templates.reshape(-1, self.num_samples * self.num_channels)
        filters = (flat @ whitener.precision).reshape(templates.shape)
        self.energy = (filters * self.templates).sum(axis=(2, 3))[..., None]
        self._filters = torch.from_numpy(np.ascontiguousarray(filters.transpose(0, 1, 3, 2)))
        self._echo = np.stack([self._echo_at(level) for level in range(len(levels))])

    def _echo_at(self, level: int) -> np.ndarray:
        """What a template at one time adds to the scores of all at the times around it."""
        flat = self.shifted[level].reshape(-1, self.num_samples, self.num_channels).transpose(0, 2, 1)
        reach = self.num_samples - 1
        padded = torch.from_numpy(np.pad(flat, ((0, 0), (0, 0), (reach, reach))))
        with torch.inference_mode():
            echo = conv1d(padded, self._filters[level]).numpy()
        return echo.reshape(self.num_templates, len(_SHIFTS), self.num_templates, 2 * reach + 1)

    def margin_samples(self) -> int:
        """Samples on either side of a stretch that have a say in which spikes it holds."""
        return _MARGIN_WINDOWS * self.num_samples

    def find(
        self, traces: np.ndarray, *, displacement: Callable[[np.ndarray], np.ndarray], num_threads: int = 1
    ) -> np.ndarray:
        """Find the spikes of all templates.

        Parameters
        ----------
        traces : np.ndarray, float32 [num_samples_total, num_channels]
            In units of noise.
        displacement : callable
            Of samples of the traces: displacement of the tissue, there.
        num_threads : int
            That search pieces of the traces at the same time.

        Returns
        -------
        np.ndarray, structured [num_matches]
            Sorted by ``time``, in samples, between samples; ``iteration`` counts what was subtracted before, ``level``
            those of displacement.
        """
        margin = self.margin_samples()

        def find_from(start: int) -> np.ndarray:
            first, end = max(start - margin, 0), min(start + _PIECE_SAMPLES, len(traces))
            level = int(np.abs(self.levels - displacement(np.array([(start + end) / 2]))).argmin())
            matches = self._find_in_piece(traces[first : end + margin], level=level)
            matches["time"] += first
            sample = np.round(matches["time"])
            return matches[(sample >= start) & (sample < end)]

        with ThreadPoolExecutor(num_threads) as pool:
            found = list(pool.map(find_from, range(0, len(traces), _PIECE_SAMPLES)))
        matches = np.concatenate(found) if found else np.empty(0, dtype=match_dtype)
        return matches[np.argsort(matches["time"], kind="stable")]

    def cleaned_waveforms(self, traces: np.ndarray, matches: np.ndarray) -> np.ndarray:
        """Cut the waveform of each match out of traces from which all the others are subtracted.

        Parameters
        ----------
        traces : np.ndarray, float32 [num_samples_total, num_channels]
            Where they were found.
        matches : np.ndarray, structured [num_matches]
            Result of `find`, or a part of it.

        Returns
        -------
        np.ndarray, float32 [num_matches, num_samples, num_channels]
        """
        sample, shift = _nearest_shift(matches["time"])
        amplitude = matches["amplitude"][:, None, None]
        residual = np.pad(traces, ((self.num_samples, self.num_samples), (0, 0)))
        index = sample[:, None] + self.num_samples - self.num_before + np.arange(self.num_samples)
        # A spike at the very border was cut off by the traces' end.
        index = np.clip(index, 0, len(residual) - 1)
        np.subtract.at(residual, index, amplitude * self.shifted[matches["level"], matches["template"], shift])
        waveforms = extract_waveforms(
            residual,
            matches["time"] + self.num_samples,
            num_before=self.num_before,
            num_after=self.num_samples - self.num_before,
        )
        return waveforms + amplitude * self.templates[matches["level"], matches["template"]]

    def _find_in_piece(self, traces: np.ndarray, *, level: int) -> np.ndarray:
        """Take the likeliest spikes that do not overlap, subtract them, and again, until none is left."""
        num_samples, length = self.num_samples, len(traces)
        padded = np.pad(traces, ((self.num_before, num_samples - self.num_before), (0, 0)))
        with torch.inference_mode():
            signal = torch.from_numpy(np.ascontiguousarray(padded.T, dtype="float32"))
            score = conv1d(signal[None], self._filters[level])[0].numpy()[:, :length]
        log_odds = self._possible_log_odds(score, level=level)
        best = log_odds.max(axis=0)
        penalty = np.zeros(length, dtype="float32")
        found: list[tuple[float, int, float, float, int, int]] = []
        for iteration in range(_MAX_ITERATIONS):
            samples = _separate_maxima(best - penalty, threshold=_THRESHOLD, distance=num_samples - 1)
            if not len(samples):
                break
            changed = []
            for time, template, amplitude, odds in self._likeliest(score, log_odds, samples, level=level):
                sample, shift = _nearest_shift(time)
                found.append((time, template, amplitude, odds, iteration, level))
                begin, end = max(0, sample - num_samples + 1), min(length, sample + num_samples)
                lags = slice(begin - sample + num_samples - 1, end - sample + num_samples - 1)
                score[:, begin:end] -= amplitude * self._echo[level, template, shift][:, lags]
                penalty[begin:end] += _MISMATCH * amplitude**2 * self.energy[level, template, 0]
                changed.append(np.arange(begin, end))
            # Those taken at once are a window apart: hardly a sample is in two of these stretches.
            columns = np.concatenate(changed)
            log_odds[:, columns] = self._possible_log_odds(score[:, columns], level=level)
            for time, template, *_ in found:
                sample = round(time)
                log_odds[
                    template, max(0, sample - self.refractory_samples) : sample + self.refractory_samples + 1
                ] = -np.inf
            best[columns] = log_odds[:, columns].max(axis=0)
        return np.array(found, dtype=match_dtype)

    def _likeliest(
        self, score: np.ndarray, log_odds: np.ndarray, samples: np.ndarray, *, level: int
    ) -> Iterator[tuple[float, int, float, float]]:
        """Time, template, amplitude and log odds of the likeliest spike near each sample.

        Log odds are compared where each template's are highest, between samples: at a sample, a template may lose as
        much by half a sample as by being another neuron's.
        """
        window = np.clip(samples[:, None] + np.arange(-_NEAR, _NEAR + 1), 1, score.shape[1] - 2)
        rows = np.arange(self.num_templates)[:, None]
        # [num_templates, num_samples], where each template fits best.
        at = window[np.arange(len(samples)), log_odds[:, window].argmax(axis=2)]
        offset, peak = _vertices(*(score[rows, at + step].astype("float64") for step in (-1, 0, 1)))
        odds = np.where(np.isfinite(log_odds[rows, at]), self._log_odds(peak, level=level), -np.inf)
        template, each = odds.argmax(axis=0), np.arange(len(samples))
        precision = self.amplitude_precision[template, 0]
        amplitude = (peak[template, each] + precision) / (self.energy[level, template, 0] + precision)
        chosen = (at + offset)[template, each], template, amplitude, odds[template, each]
        return zip(*(values.tolist() for values in chosen), strict=True)

    def _log_odds(self, score: np.ndarray, *, level: int) -> np.ndarray:
        """Of a spike against noise, at the likeliest amplitude; [num_templates, num_samples]."""
        precision = self.amplitude_precision
        return 0.5 * (score + precision) ** 2 / (self.energy[level] + precision) - 0.5 * precision + self.log_prior

    def _possible_log_odds(self, score: np.ndarray, *, level: int) -> np.ndarray:
        """The same, and none at amplitudes that a unit does not have."""
        low, high = (amplitude * self.energy[level] for amplitude in _AMPLITUDES)
        return np.where((score < low) | (score > high), -np.inf, self._log_odds(score, level=level)).astype("float32")


def shift_matrix(num_samples: int, shift: float) -> np.ndarray:
    """Matrix that delays waveforms by a time between samples.

    Parameters
    ----------
    num_samples : int
        Of a waveform; beyond it, it is zero.
    shift : float
        In samples.

    Returns
    -------
    np.ndarray, float32 [num_samples, num_samples]
        To be multiplied from the left.
    """
    return extract_waveforms(
        np.eye(num_samples, dtype="float32"), np.array([-shift]), num_before=0, num_after=num_samples
    )[0]


def _nearest_shift(times: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Samples, and indices of the shifts from there, that are nearest to times."""
    sample = np.round(times).astype("int64")
    return sample, np.abs(np.subtract(times, sample)[..., None] - _SHIFTS).argmin(axis=-1)


def _separate_maxima(values: np.ndarray, *, threshold: float, distance: int) -> np.ndarray:
    """Samples over a threshold that are the largest within a distance."""
    with torch.inference_mode():
        largest = max_pool1d(torch.from_numpy(values)[None, None], 2 * distance + 1, 1, distance)[0, 0].numpy()
    return np.flatnonzero((values == largest) & (values > threshold))


def _vertices(left: np.ndarray, middle: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and heights of the parabolas through maxima and their neighbours."""
    curvature = left - 2 * middle + right
    is_peak = curvature < 0
    offset = np.where(is_peak, 0.5 * (left - right) / np.where(is_peak, curvature, 1.0), 0.0).clip(-0.5, 0.5)
    return offset, middle - 0.25 * (left - right) * offset
