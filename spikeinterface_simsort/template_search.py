"""Spikes taken out of the scores of templates, the likeliest first, and looked for again where they overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spikeinterface_simsort.search_kernels import AMPLITUDE, ITERATION, LOG_ODDS, TEMPLATE, TIME, search

match_dtype = [
    ("time", "float64"),
    ("template", "int64"),
    ("amplitude", "float32"),
    ("log_odds", "float32"),
    ("iteration", "int64"),
    ("level", "int64"),
]
# Nothing can be said of a peak in fewer samples.
_LEAST_SAMPLES = 3


@dataclass(frozen=True)
class TemplateScores:
    """What is to be known of templates to find them by their scores: the products of their filters with the traces.

    Attributes
    ----------
    energy : np.ndarray, float32 [num_templates]
        Score of a template at its own spike.
    amplitude_precision : np.ndarray, float32 [num_templates]
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
            echo=np.ascontiguousarray(self.echo[chosen][:, :, chosen]),
        )

    def log_likelihood(self, spikes: np.ndarray, *, whole: np.ndarray, left: np.ndarray) -> float:
        """How much likelier traces are with the spikes that were found in them than without any.

        Parameters
        ----------
        spikes : np.ndarray, structured [num_spikes]
            Result of `find_spikes`.
        whole, left : np.ndarray, float32 [num_templates, num_times]
            Scores before and after.

        Returns
        -------
        float
        """
        sample = np.round(spikes["time"]).astype("int64").clip(1, whole.shape[1] - 2)
        offset, amplitude, template = spikes["time"] - sample, spikes["amplitude"], spikes["template"]
        both = sum(_interpolated(score, template, sample, offset) for score in (whole, left))
        unusual = self.amplitude_precision[template] * (amplitude - 1) ** 2
        return float((0.5 * amplitude * both - 0.5 * unusual + self.log_prior).sum())


def find_spikes(score: np.ndarray, *, templates: TemplateScores) -> np.ndarray:
    """Find the spikes of templates in a piece of traces.

    Parameters
    ----------
    score : np.ndarray, float32 [num_templates, num_times]
        Products of each template's filter with the traces; what the spikes leave of it is left in it.
    templates : TemplateScores
        The templates.

    Returns
    -------
    np.ndarray, structured [num_spikes]
        Of `match_dtype`; ``iteration`` counts what was subtracted before, ``level`` is 0.
    """
    if score.shape[1] < _LEAST_SAMPLES or not len(score):
        return np.empty(0, dtype=match_dtype)
    found = search(
        score,
        templates.energy,
        templates.amplitude_precision,
        templates.echo,
        templates.first_lag,
        templates.num_samples,
        templates.refractory_samples,
        templates.log_prior,
    )
    spikes = np.zeros(len(found), dtype=match_dtype)
    columns = {"time": TIME, "template": TEMPLATE, "amplitude": AMPLITUDE, "log_odds": LOG_ODDS, "iteration": ITERATION}
    for name, column in columns.items():
        spikes[name] = found[:, column]
    return spikes


def _interpolated(score: np.ndarray, template: np.ndarray, sample: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Scores between samples, on the parabolas through the nearest three."""
    left, middle, right = (score[template, sample + step].astype("float64") for step in (-1, 0, 1))
    return middle + 0.5 * (right - left) * offset + 0.5 * (left - 2 * middle + right) * offset**2
