"""Templates found again in the traces, overlapping spikes one after the other, on plain arrays.

Each template is compared with the traces at every sample by the log odds of a spike of it against noise, with the
noise's whole covariance over channels and time. The likeliest spikes are taken and subtracted, and what they hid shows.
"""

from __future__ import annotations

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
]

# A neuron fires about so often before anything is known of it.
_PRIOR_RATE_HZ = 5.0
# Spikes have amplitudes between these of their template's; the spread within a unit is bounded.
_AMPLITUDES = (0.5, 2.0)
_DEVIATIONS = (0.05, 0.3)
# A template is wrong by about this share of its energy: what a subtracted spike leaves behind is no spike.
_MISMATCH = 0.02
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
    templates : np.ndarray, float32 [num_templates, num_samples, num_channels]
        Mean waveforms in units of noise, their peaks at sample `num_before`.
    num_before : int
        Samples before the peak.
    whitener : Whitener
        The noise of such windows.
    deviations : np.ndarray, float [num_templates]
        Standard deviation of the amplitudes of a unit's spikes, as a share of the template.
    threshold : float
        Least log odds of a spike.
    sampling_frequency : float
        Of the traces, in Hz.
    """

    def __init__(
        self,
        templates: np.ndarray,
        *,
        num_before: int,
        whitener: Whitener,
        deviations: np.ndarray,
        threshold: float,
        sampling_frequency: float,
    ) -> None:
        self.templates = templates.astype("float32")
        self.num_before = num_before
        self.num_templates, self.num_samples, self.num_channels = templates.shape
        self.threshold = threshold
        self.refractory_samples = max(round(_REFRACTORY_MS * sampling_frequency / 1000), 1)
        self.log_prior = float(np.log(_PRIOR_RATE_HZ / sampling_frequency))
        self.amplitude_precision = (1 / np.clip(deviations, *_DEVIATIONS) ** 2).astype("float32")[:, None]
        self.shifted = np.stack([np.stack([shift_matrix(self.num_samples, s) @ t for s in _SHIFTS]) for t in templates])
        self.shifted = self.shifted.astype("float32")

        filters = (self.templates.reshape(self.num_templates, -1) @ whitener.precision).reshape(templates.shape)
        self.energy = (filters * self.templates).sum(axis=(1, 2))[:, None]
        self._filters = torch.from_numpy(np.ascontiguousarray(filters.transpose(0, 2, 1)))
        # What a template at one time adds to the scores of all at the times around it.
        flat = self.shifted.reshape(-1, self.num_samples, self.num_channels).transpose(0, 2, 1)
        reach = self.num_samples - 1
        with torch.inference_mode():
            echo = conv1d(torch.from_numpy(np.pad(flat, ((0, 0), (0, 0), (reach, reach)))), self._filters).numpy()
        self._echo = echo.reshape(self.num_templates, len(_SHIFTS), self.num_templates, 2 * reach + 1)

    def margin_samples(self) -> int:
        """Samples on either side of a stretch that have a say in which spikes it holds."""
        return _MARGIN_WINDOWS * self.num_samples

    def find(self, traces: np.ndarray) -> np.ndarray:
        """Find the spikes of all templates.

        Parameters
        ----------
        traces : np.ndarray, float32 [num_samples_total, num_channels]
            In units of noise.

        Returns
        -------
        np.ndarray, structured [num_matches]
            Sorted by ``time``, in samples, between samples; ``iteration`` counts what was subtracted before.
        """
        margin, found = self.margin_samples(), []
        for start in range(0, len(traces), _PIECE_SAMPLES):
            first = max(start - margin, 0)
            matches = self._find_in_piece(traces[first : start + _PIECE_SAMPLES + margin])
            matches["time"] += first
            sample = np.round(matches["time"])
            found.append(matches[(sample >= start) & (sample < start + _PIECE_SAMPLES)])
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
        np.subtract.at(residual, index, amplitude * self.shifted[matches["template"], shift])
        waveforms = extract_waveforms(
            residual,
            matches["time"] + self.num_samples,
            num_before=self.num_before,
            num_after=self.num_samples - self.num_before,
        )
        return waveforms + amplitude * self.templates[matches["template"]]

    def _find_in_piece(self, traces: np.ndarray) -> np.ndarray:
        """Take the likeliest spikes that do not overlap, subtract them, and again, until none is left."""
        num_samples, length = self.num_samples, len(traces)
        padded = np.pad(traces, ((self.num_before, num_samples - self.num_before), (0, 0)))
        with torch.inference_mode():
            signal = torch.from_numpy(np.ascontiguousarray(padded.T, dtype="float32"))
            score = conv1d(signal[None], self._filters)[0].numpy()[:, :length]
        log_odds = self._log_odds(score)
        best = log_odds.max(axis=0)
        penalty = np.zeros(length, dtype="float32")
        found: list[tuple[float, int, float, float, int]] = []
        for iteration in range(_MAX_ITERATIONS):
            samples = _separate_maxima(best - penalty, threshold=self.threshold, distance=num_samples - 1)
            if not len(samples):
                break
            changed = []
            for sample in samples:
                template = int(log_odds[:, sample].argmax())
                offset, peak = _vertex(score[template], sample)
                energy, precision = float(self.energy[template, 0]), float(self.amplitude_precision[template, 0])
                amplitude = (peak + precision) / (energy + precision)
                shift = int(np.abs(_SHIFTS - offset).argmin())
                found.append((sample + offset, template, amplitude, float(log_odds[template, sample]), iteration))
                begin, end = max(0, sample - num_samples + 1), min(length, sample + num_samples)
                lags = slice(begin - sample + num_samples - 1, end - sample + num_samples - 1)
                score[:, begin:end] -= amplitude * self._echo[template, shift][:, lags]
                penalty[begin:end] += _MISMATCH * amplitude**2 * energy
                changed.append(np.arange(begin, end))
            # Those taken at once are a window apart: hardly a sample is in two of these stretches.
            columns = np.concatenate(changed)
            log_odds[:, columns] = self._log_odds(score[:, columns])
            for time, template, *_ in found:
                sample = round(time)
                log_odds[
                    template, max(0, sample - self.refractory_samples) : sample + self.refractory_samples + 1
                ] = -np.inf
            best[columns] = log_odds[:, columns].max(axis=0)
        return np.array(found, dtype=match_dtype)

    def _log_odds(self, score: np.ndarray) -> np.ndarray:
        """Of a spike against noise, at the likeliest amplitude; [num_templates, num_samples]."""
        precision = self.amplitude_precision
        log_odds = 0.5 * (score + precision) ** 2 / (self.energy + precision) - 0.5 * precision + self.log_prior
        low, high = (amplitude * self.energy for amplitude in _AMPLITUDES)
        return np.where((score < low) | (score > high), -np.inf, log_odds).astype("float32")


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


def _nearest_shift(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples, and indices of the shifts from there, that are nearest to times."""
    sample = np.round(times).astype("int64")
    return sample, np.abs((times - sample)[:, None] - _SHIFTS).argmin(axis=1)


def _separate_maxima(values: np.ndarray, *, threshold: float, distance: int) -> np.ndarray:
    """Samples over a threshold that are the largest within a distance."""
    with torch.inference_mode():
        largest = max_pool1d(torch.from_numpy(values)[None, None], 2 * distance + 1, 1, distance)[0, 0].numpy()
    return np.flatnonzero((values == largest) & (values > threshold))


def _vertex(values: np.ndarray, sample: int) -> tuple[float, float]:
    """Offset and height of the parabola through a maximum and its neighbours."""
    if not 0 < sample < len(values) - 1:
        return 0.0, float(values[sample])
    left, middle, right = (float(values[sample + step]) for step in (-1, 0, 1))
    curvature = left - 2 * middle + right
    if curvature >= 0:
        return 0.0, middle
    offset = float(np.clip(0.5 * (left - right) / curvature, -0.5, 0.5))
    return offset, middle - 0.25 * (left - right) * offset
