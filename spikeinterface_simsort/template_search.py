"""Spikes taken out of the scores of templates, the likeliest first, and looked for again where they overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.functional import max_pool1d

match_dtype = [
    ("time", "float64"),
    ("template", "int64"),
    ("amplitude", "float32"),
    ("log_odds", "float32"),
    ("iteration", "int64"),
    ("level", "int64"),
]
# Templates are subtracted at these shifts between samples.
SHIFTS = np.array([-0.4, -0.2, 0.0, 0.2, 0.4])
# Least log odds of a spike. A higher one would keep small spikes out of the templates, which then find fewer still.
_THRESHOLD = 0.0
# Spikes have amplitudes between these of their template's.
_AMPLITUDES = (0.5, 2.0)
# A template is wrong by about this share of its energy: what a subtracted spike leaves behind is no spike.
_MISMATCH = 0.01
# Samples, on either side of the likeliest, at which other templates may be aligned that compete for a spike; and as
# many, at which a spike may be where others overlap it, once these are subtracted.
_NEAR, _NEAR_OVERLAPPED = 4, 10
_MAX_ITERATIONS, _MAX_REFITS = 12, 3
# A spike has moved if it did so by this many samples.
_MOVED = 0.3


@dataclass(frozen=True)
class TemplateScores:
    """What is to be known of templates to find them by their scores: the products of their filters with the traces.

    Attributes
    ----------
    energy : np.ndarray, float32 [num_templates, 1]
        Score of a template at its own spike.
    amplitude_precision : np.ndarray, float32 [num_templates, 1]
        Inverse variance of the amplitudes of a unit's spikes, as shares of the template.
    echo : np.ndarray, float32 [num_templates, num_shifts, num_templates, num_lags]
        What the first at one of `SHIFTS` adds to the score of the second at the lags from `first_lag` on.
    first_lag : int
        In samples.
    num_samples : int
        Of a template.
    refractory_samples : int
        Within which one neuron does not fire twice.
    log_prior : float
        Log odds of a spike before anything is known of it.
    """

    energy: np.ndarray
    amplitude_precision: np.ndarray
    echo: np.ndarray
    first_lag: int
    num_samples: int
    refractory_samples: int
    log_prior: float

    def only(self, chosen: np.ndarray) -> TemplateScores:
        """The same of a part of the templates, bool [num_templates]."""
        return replace(
            self,
            energy=self.energy[chosen],
            amplitude_precision=self.amplitude_precision[chosen],
            echo=self.echo[chosen][:, :, chosen],
        )

    def log_odds(self, score: np.ndarray) -> np.ndarray:
        """Of a spike against noise, at the likeliest amplitude; [num_templates, num_times]."""
        precision = self.amplitude_precision
        return 0.5 * (score + precision) ** 2 / (self.energy + precision) - 0.5 * precision + self.log_prior

    def possible_log_odds(self, score: np.ndarray) -> np.ndarray:
        """The same, and none at amplitudes that a unit does not have."""
        low, high = (amplitude * self.energy for amplitude in _AMPLITUDES)
        return np.where((score < low) | (score > high), -np.inf, self.log_odds(score)).astype("float32")


class TemplateSearch:
    """Spikes found so far in a piece of traces, and what scores they leave.

    Parameters
    ----------
    score : np.ndarray, float32 [num_templates, num_times]
        Products of each template's filter with the traces; it is changed.
    templates : TemplateScores
        The templates.

    Attributes
    ----------
    spikes : np.ndarray, structured [num_spikes]
        Of `match_dtype`; ``iteration`` counts what was subtracted before, ``level`` is 0.
    """

    def __init__(self, score: np.ndarray, *, templates: TemplateScores) -> None:
        self.score, self.templates = score, templates
        self._whole = score.copy()
        self.spikes = np.empty(0, dtype=match_dtype)
        self._penalty = np.zeros(score.shape[1], dtype="float32")
        self._log_odds = templates.possible_log_odds(score)
        self._num_taken = 0
        self._find()

    def _find(self) -> None:
        """Take spikes, and look again at those that overlap."""
        self._take()
        changed = self.spikes["time"]
        for _ in range(_MAX_REFITS):
            changed = self._refit(changed)
            if not len(changed):
                break
            num_before = len(self.spikes)
            self._take()
            changed = np.concatenate([changed, self.spikes["time"][num_before:]])

    def log_likelihood(self) -> float:
        """How much likelier the traces are with the spikes that were found than without any."""
        spikes, templates = self.spikes, self.templates
        sample = np.round(spikes["time"]).astype("int64").clip(1, self.score.shape[1] - 2)
        offset, amplitude, template = spikes["time"] - sample, spikes["amplitude"], spikes["template"]
        both = sum(_interpolated(score, template, sample, offset) for score in (self._whole, self.score))
        unusual = templates.amplitude_precision[template, 0] * (amplitude - 1) ** 2
        return float((0.5 * amplitude * both - 0.5 * unusual + templates.log_prior).sum())

    def _take(self) -> None:
        """Take the likeliest spikes that do not overlap, subtract them, and again, until none is left."""
        best = self._log_odds.max(axis=0, initial=-np.inf)
        for _ in range(_MAX_ITERATIONS):
            samples = _separate_maxima(best - self._penalty, distance=self.templates.num_samples - 1)
            if not len(samples):
                break
            spikes = self._likeliest(samples, reach=_NEAR)
            spikes["iteration"] = self._num_taken
            self._num_taken += 1
            self.spikes = np.concatenate([self.spikes, spikes])
            columns = self._subtract(spikes)
            self._log_odds[:, columns] = self.templates.possible_log_odds(self.score[:, columns])
            self._forbid(self.spikes)
            best[columns] = self._log_odds[:, columns].max(axis=0)

    def _refit(self, changed: np.ndarray) -> np.ndarray:
        """Look for spikes again that overlap others, with the others subtracted.

        Parameters
        ----------
        changed : np.ndarray, float64 [num_times]
            Only spikes near to these are looked at.

        Returns
        -------
        np.ndarray, float64 [num_changed]
            Times of spikes that have become others, or none.
        """
        templates, last = self.templates, self.score.shape[1] - 1
        self.spikes = self.spikes[np.argsort(self.spikes["time"], kind="stable")]
        times = self.spikes["time"].copy()
        close = np.diff(times) < templates.num_samples
        overlaps = np.append(close, False) | np.append(False, close)
        chosen = np.flatnonzero(overlaps & _near_any(times, np.sort(changed), templates.num_samples))
        kept, edited, moved = np.ones(len(times), dtype=bool), [], []
        # Those that are looked at together have no say in each other's scores.
        for group in _far_apart(times, chosen, distance=templates.echo.shape[3] + 4 * _NEAR_OVERLAPPED):
            old = self.spikes[group]
            edited.append(self._subtract(old, sign=-1.0))
            samples = np.round(old["time"]).astype("int64")
            reach = np.arange(-_NEAR_OVERLAPPED - 1, _NEAR_OVERLAPPED + 2)
            columns = np.clip(samples[:, None] + reach, 0, last).ravel()
            self._log_odds[:, columns] = templates.possible_log_odds(self.score[:, columns])
            others = kept & _near_any(times, old["time"], 2 * _NEAR_OVERLAPPED + templates.refractory_samples)
            others[group] = False
            self._forbid(self.spikes[others])
            new = self._likeliest(samples, reach=_NEAR_OVERLAPPED)
            new["iteration"] = old["iteration"]
            cost = self._penalty[np.round(new["time"]).astype("int64").clip(0, last)]
            stays = new["log_odds"] - cost > _THRESHOLD
            edited.append(self._subtract(new[stays]))
            self.spikes[group], kept[group] = new, stays
            is_other = (new["template"] != old["template"]) | (np.abs(new["time"] - old["time"]) > _MOVED) | ~stays
            moved.append(old["time"][is_other])
        self.spikes = self.spikes[kept]
        if edited:
            columns = np.unique(np.concatenate(edited))
            self._log_odds[:, columns] = self.templates.possible_log_odds(self.score[:, columns])
            self._forbid(self.spikes)
        return np.concatenate(moved) if moved else np.empty(0)

    def _likeliest(self, samples: np.ndarray, *, reach: int) -> np.ndarray:
        """The likeliest spike near each sample.

        Log odds are compared where each template's are highest, between samples: at a sample, a template may lose as
        much by half a sample as by being another neuron's.
        """
        templates, score, log_odds = self.templates, self.score, self._log_odds
        window = np.clip(samples[:, None] + np.arange(-reach, reach + 1), 1, score.shape[1] - 2)
        rows = np.arange(len(score))[:, None]
        # [num_templates, num_samples], where each template fits best.
        at = window[np.arange(len(samples)), log_odds[:, window].argmax(axis=2)]
        offset, peak = _vertices(*(score[rows, at + step].astype("float64") for step in (-1, 0, 1)))
        odds = np.where(np.isfinite(log_odds[rows, at]), templates.log_odds(peak), -np.inf)
        template, each = odds.argmax(axis=0), np.arange(len(samples))
        precision = templates.amplitude_precision[template, 0]
        spikes = np.zeros(len(samples), dtype=match_dtype)
        spikes["time"], spikes["template"] = (at + offset)[template, each], template
        spikes["amplitude"] = (peak[template, each] + precision) / (templates.energy[template, 0] + precision)
        spikes["log_odds"] = odds[template, each]
        return spikes

    def _subtract(self, spikes: np.ndarray, *, sign: float = 1.0) -> np.ndarray:
        """Subtract spikes, or add them again, and say which samples that changes."""
        templates, length = self.templates, self.score.shape[1]
        sample, shift = nearest_shift(spikes["time"])
        num_lags, reach = templates.echo.shape[3], templates.num_samples - 1
        penalty = sign * _MISMATCH * spikes["amplitude"] ** 2 * templates.energy[spikes["template"], 0]
        columns = []
        for index, (middle, template, amplitude) in enumerate(
            zip(sample.tolist(), spikes["template"].tolist(), (sign * spikes["amplitude"]).tolist(), strict=True)
        ):
            first = middle + templates.first_lag
            begin, end = max(0, first), min(length, first + num_lags)
            self.score[:, begin:end] -= (
                amplitude * templates.echo[template, shift[index]][:, begin - first : end - first]
            )
            self._penalty[max(0, middle - reach) : middle + reach + 1] += penalty[index]
            columns.append(np.arange(begin, end))
        return np.concatenate(columns) if columns else np.empty(0, dtype="int64")

    def _forbid(self, spikes: np.ndarray) -> None:
        """Allow none of a unit's spikes within its refractory period of others."""
        reach = self.templates.refractory_samples
        for sample, template in zip(np.round(spikes["time"]).astype("int64").tolist(), spikes["template"], strict=True):
            self._log_odds[template, max(0, sample - reach) : sample + reach + 1] = -np.inf


def nearest_shift(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples, and indices of the shifts from there, that are nearest to times."""
    sample = np.round(times).astype("int64")
    return sample, np.abs((times - sample)[..., None] - SHIFTS).argmin(axis=-1)


def _separate_maxima(values: np.ndarray, *, distance: int) -> np.ndarray:
    """Samples over the threshold that are the largest within a distance."""
    with torch.inference_mode():
        largest = max_pool1d(torch.from_numpy(values)[None, None], 2 * distance + 1, 1, distance)[0, 0].numpy()
    return np.flatnonzero((values == largest) & (values > _THRESHOLD))


def _vertices(left: np.ndarray, middle: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and heights of the parabolas through maxima and their neighbours."""
    curvature = left - 2 * middle + right
    is_peak = curvature < 0
    offset = np.where(is_peak, 0.5 * (left - right) / np.where(is_peak, curvature, 1.0), 0.0).clip(-0.5, 0.5)
    return offset, middle - 0.25 * (left - right) * offset


def _interpolated(score: np.ndarray, template: np.ndarray, sample: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Scores between samples, on the parabolas through the nearest three."""
    left, middle, right = (score[template, sample + step].astype("float64") for step in (-1, 0, 1))
    return middle + 0.5 * (right - left) * offset + 0.5 * (left - 2 * middle + right) * offset**2


def _far_apart(times: np.ndarray, chosen: np.ndarray, *, distance: float) -> Iterator[np.ndarray]:
    """Groups of the chosen in which none is near to another."""
    left = chosen
    while len(left):
        group, last = [], -np.inf
        for index in left.tolist():
            if times[index] - last >= distance:
                group.append(index)
                last = times[index]
        yield np.array(group)
        left = np.setdiff1d(left, group, assume_unique=True)


def _near_any(times: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """Whether sorted times are near to any of sorted others, bool [num_times]."""
    return np.searchsorted(others, times + distance) > np.searchsorted(others, times - distance)
