"""Templates found again in the traces, overlapping spikes one after the other, on plain arrays.

Each template is compared with the traces at every sample by the log odds of a spike of it against noise, with the
noise's whole covariance over channels and time. The likeliest spikes are taken and subtracted, and what they hid shows.
Where the tissue moves, templates are those of the displacement that it has at the time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from spikeinterface_simsort.search_kernels import SHIFTS, cleaned_windows
from spikeinterface_simsort.template_search import TemplateScores, find_spikes, match_dtype
from spikeinterface_simsort.waveforms import INTERPOLATION_REACH, extract_waveforms
from spikeinterface_simsort.whitening import Whitener

# A neuron fires about so often before anything is known of it.
_PRIOR_RATE_HZ = 5.0
# The spread of amplitudes within a unit is bounded.
_DEVIATIONS = (0.1, 0.3)
# One neuron does not fire twice within this time.
_REFRACTORY_MS = 0.5
# Traces are searched in pieces that fit a processor's memory; beyond a margin, what is subtracted makes no difference.
_PIECE_SAMPLES = 50_000
_MARGIN_WINDOWS = 20
# Spikes of a template that are looked at to know whether it is needed.
_MOST_TESTED = 60
# Times for which scores are computed together.
_TIMES_PER_BLOCK = 512


class TemplateMatcher:
    """Templates made ready to be found.

    Parameters
    ----------
    templates : np.ndarray, float32 [num_levels, num_templates, num_samples, num_channels]
        Mean waveforms in units of noise, at each level of displacement, with their tails.
    levels : np.ndarray, float [num_levels]
        The displacements.
    num_before : int
        Samples before the peak, without the tail.
    tails : tuple of int
        Samples before and after those by which a template is found: there it is only subtracted.
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
        tails: tuple[int, int] = (0, 0),
        whitener: Whitener,
        deviations: np.ndarray,
        sampling_frequency: float,
    ) -> None:
        wide = templates.astype("float32")
        self.tails = tails
        self.templates = wide[:, :, tails[0] : wide.shape[2] - tails[1]]
        self.levels = levels
        self.num_before = num_before
        _, self.num_templates, self.num_samples, self.num_channels = self.templates.shape
        delays = np.stack([shift_matrix(wide.shape[2], shift) for shift in SHIFTS])
        self.shifted = np.einsum("sij,ltjc->ltsic", delays, wide, optimize=True)

        flat = self.templates.reshape(-1, self.num_samples * self.num_channels)
        filters = (flat @ whitener.precision).reshape(self.templates.shape)
        self.energy = (filters * self.templates).sum(axis=(2, 3))
        self._filters = filters
        self._scores = [
            TemplateScores(
                energy=self.energy[level],
                amplitude_precision=(1 / np.clip(deviations, *_DEVIATIONS) ** 2).astype("float32"),
                echo=self._echo_at(level),
                first_lag=1 - self.num_samples - tails[0],
                num_samples=self.num_samples,
                refractory_samples=max(round(_REFRACTORY_MS * sampling_frequency / 1000), 1),
                log_prior=float(np.log(_PRIOR_RATE_HZ / sampling_frequency)),
            )
            for level in range(len(levels))
        ]

    def _echo_at(self, level: int) -> np.ndarray:
        """What a template at one time adds to the scores of all at the times around it."""
        num_samples = self.shifted.shape[3]
        flat = self.shifted[level].reshape(-1, num_samples, self.num_channels)
        reach = self.num_samples - 1
        padded = np.pad(flat, ((0, 0), (reach, reach), (0, 0)))
        echo = np.stack([_correlate(waveform, self._filters[level]) for waveform in padded])
        return echo.reshape(self.num_templates, len(SHIFTS), self.num_templates, num_samples + reach)

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
            score = self._score(traces[first : end + margin], level=level)
            matches = find_spikes(score, templates=self._scores[level])
            matches["level"] = level
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
            Result of `find`, or a part of it, in order of time.

        Returns
        -------
        np.ndarray, float32 [num_matches, num_samples, num_channels]
        """
        times, amplitude = matches["time"], matches["amplitude"]
        sample = np.floor(times).astype("int64")
        reach = INTERPOLATION_REACH
        length = self.num_samples + 2 * reach
        windows = cleaned_windows(
            np.ascontiguousarray(traces, dtype="float32"),
            sample - self.num_before - reach,
            length,
            times,
            amplitude,
            matches["level"],
            matches["template"],
            self.shifted,
            self.num_before + self.tails[0],
        )
        waveforms = extract_waveforms(
            windows.reshape(-1, self.num_channels),
            times - sample + np.arange(len(times)) * length + self.num_before + reach,
            num_before=self.num_before,
            num_after=self.num_samples - self.num_before,
        )
        return waveforms + amplitude[:, None, None] * self.templates[matches["level"], matches["template"]]

    def needed(self, traces: np.ndarray, matches: np.ndarray) -> np.ndarray:
        """Say which templates the traces need: what others explain as well without one is spikes that overlap.

        Parameters
        ----------
        traces : np.ndarray, float32 [num_samples_total, num_channels]
            In units of noise.
        matches : np.ndarray, structured [num_matches]
            Result of `find`.

        Returns
        -------
        np.ndarray, bool [num_templates]
        """
        counts = np.bincount(matches["template"], minlength=self.num_templates)
        kept = counts > 0
        for template in np.argsort(counts, kind="stable"):
            if not kept[template]:
                continue
            mine = matches[matches["template"] == template]
            level = int(np.bincount(mine["level"]).argmax())
            times = mine["time"][mine["level"] == level]
            windows = self._windows(traces, times[:: -(-len(times) // _MOST_TESTED)])
            if not len(windows):
                continue
            score = self._score(windows, level=level)
            others = kept & (np.arange(self.num_templates) != template)
            with_it, without = (self._log_likelihood(score, level=level, chosen=chosen) for chosen in (kept, others))
            kept[template] = with_it >= without
        return kept

    def only(self, chosen: np.ndarray) -> TemplateMatcher:
        """The same with a part of the templates, bool [num_templates]."""
        part = copy(self)
        part.num_templates = int(chosen.sum())
        part.templates, part.shifted, part.energy = (
            array[:, chosen] for array in (self.templates, self.shifted, self.energy)
        )
        part._filters = self._filters[:, chosen]
        part._scores = [scores.only(chosen) for scores in self._scores]
        return part

    def _log_likelihood(self, score: np.ndarray, *, level: int, chosen: np.ndarray) -> float:
        """Of traces whose scores are given, with spikes of a part of the templates."""
        whole, templates = score[chosen], self._scores[level].only(chosen)
        left = whole.copy()
        return templates.log_likelihood(find_spikes(left, templates=templates), whole=whole, left=left)

    def _windows(self, traces: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Pieces of traces around times, one after the other."""
        reach = self.num_samples + max(self.tails)
        index = np.round(times).astype("int64")[:, None] + np.arange(-reach, reach)
        return traces[index[(index[:, 0] >= 0) & (index[:, -1] < len(traces))].ravel()]

    def _score(self, traces: np.ndarray, *, level: int) -> np.ndarray:
        """Products of each filter with a piece of traces, float32 [num_templates, num_samples_total]."""
        padded = np.pad(traces, ((self.num_before, self.num_samples - self.num_before - 1), (0, 0)))
        return _correlate(padded.astype("float32", copy=False), self._filters[level])


def _correlate(traces: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Products of filters with all windows of traces, float32 [num_filters, num_windows].

    Parameters
    ----------
    traces : np.ndarray, float32 [num_samples_total, num_channels]
        As long as a filter at least.
    filters : np.ndarray, float32 [num_filters, num_samples, num_channels]
        Of one length.

    Returns
    -------
    np.ndarray, float32 [num_filters, num_samples_total - num_samples + 1]
    """
    num_filters, num_samples, num_channels = filters.shape
    rows = filters.transpose(0, 2, 1).reshape(num_filters, num_channels * num_samples)
    delayed = sliding_window_view(np.ascontiguousarray(traces.T), num_samples, axis=1).transpose(0, 2, 1)
    products = np.empty((num_filters, delayed.shape[2]), dtype="float32")
    for start in range(0, delayed.shape[2], _TIMES_PER_BLOCK):
        block = delayed[:, :, start : start + _TIMES_PER_BLOCK]
        # One matrix product, of a copy that a processor's own memory holds.
        np.matmul(rows, block.reshape(len(rows.T), -1), out=products[:, start : start + _TIMES_PER_BLOCK])
    return products


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
