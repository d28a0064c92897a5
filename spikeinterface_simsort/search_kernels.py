"""Inner loops of the search for spikes in the scores of templates, on plain arrays.

Spikes are rows of a float64 array with the columns `TIME` to `ITERATION`. Scores and log odds are float32
[num_templates, num_samples]; what else is known of the templates is described by `template_search.TemplateScores`.
"""

from __future__ import annotations

import numpy as np

from spikeinterface_simsort.compiled import compiled

TIME, TEMPLATE, AMPLITUDE, LOG_ODDS, ITERATION, NUM_COLUMNS = 0, 1, 2, 3, 4, 5
# Templates are subtracted at these shifts between samples.
SHIFTS = np.array([-0.4, -0.2, 0.0, 0.2, 0.4])
# Least log odds of a spike. A higher one would keep small spikes out of the templates, which then find fewer still.
_THRESHOLD = 0.0
# Spikes have amplitudes between these of their template's.
_LEAST_AMPLITUDE, _LARGEST_AMPLITUDE = np.float32(0.5), np.float32(2.0)
# A template is wrong by about this share of its energy: what a subtracted spike leaves behind is no spike.
_MISMATCH = 0.01
# Samples, on either side of the likeliest, at which other templates may be aligned that compete for a spike; and as
# many, at which a spike may be where others overlap it, once these are subtracted.
_NEAR, _NEAR_OVERLAPPED = 4, 10
_MAX_ITERATIONS, _MAX_REFITS = 12, 3
# A spike has moved if it did so by this many samples.
_MOVED = 0.3


@compiled
def search(
    score: np.ndarray,
    energy: np.ndarray,
    precision: np.ndarray,
    echo: np.ndarray,
    first_lag: int,
    num_samples: int,
    refractory: int,
    log_prior: float,
) -> np.ndarray:
    """Take the likeliest spikes out of scores, and look again at those that overlap.

    Parameters
    ----------
    score : np.ndarray, float32 [num_templates, num_times]
        Three samples or more; what the spikes leave of it is left in it.
    energy, precision : np.ndarray, float32 [num_templates]
        Of the templates, and of their spikes' amplitudes.
    echo, first_lag, num_samples, refractory, log_prior
        See `template_search.TemplateScores`.

    Returns
    -------
    np.ndarray, float64 [num_spikes, NUM_COLUMNS]
    """
    num_times = score.shape[1]
    log_odds = np.empty_like(score)
    best = np.empty(num_times, dtype=np.float32)
    penalty = np.zeros(num_times, dtype=np.float32)
    _update_log_odds(score, log_odds, energy, precision, log_prior, 0, num_times)
    _update_best(log_odds, best, 0, num_times)
    spikes = np.empty((0, NUM_COLUMNS))
    changed = np.empty(0)
    num_taken = 0
    for refit in range(_MAX_REFITS + 1):
        if refit:
            order = np.argsort(spikes[:, TIME], kind="mergesort")
            spikes = spikes[order]
            spikes, changed = _look_again(
                spikes, changed, score, log_odds, best, penalty, energy, precision, echo, first_lag, num_samples,
                refractory, log_prior,
            )  # fmt: skip
            if not len(changed):
                break
        num_before = len(spikes)
        for _ in range(_MAX_ITERATIONS):
            samples = _separate_maxima(best, penalty, num_samples - 1)
            if not len(samples):
                break
            new = np.empty((len(samples), NUM_COLUMNS))
            for row in range(len(samples)):
                new[row] = _likeliest(samples[row], _NEAR, score, log_odds, energy, precision, log_prior)
                new[row, ITERATION] = num_taken
            num_taken += 1
            for row in range(len(new)):
                _subtract(new[row], 1.0, score, penalty, energy, echo, first_lag, num_samples)
            spikes = np.concatenate((spikes, new))
            _update_around(
                new[:, TIME], spikes, score, log_odds, best, energy, precision, echo, first_lag, refractory, log_prior
            )
        changed = np.concatenate((changed, spikes[num_before:, TIME]))
    return spikes


@compiled
def _log_odds_of(score: float, energy: float, precision: float, log_prior: float) -> float:
    """Log odds of a spike against noise, at the likeliest amplitude."""
    return 0.5 * (score + precision) ** 2 / (energy + precision) - 0.5 * precision + log_prior


@compiled
def _update_log_odds(
    score: np.ndarray,
    log_odds: np.ndarray,
    energy: np.ndarray,
    precision: np.ndarray,
    log_prior: float,
    begin: int,
    end: int,
) -> None:
    """Log odds between two samples, none at amplitudes that a unit does not have."""
    prior = np.float32(log_prior)
    half = np.float32(0.5)
    for template in range(len(score)):
        low, high = _LEAST_AMPLITUDE * energy[template], _LARGEST_AMPLITUDE * energy[template]
        width = precision[template]
        factor, constant = half / (energy[template] + width), prior - half * width
        for sample in range(begin, end):
            value = score[template, sample]
            if low <= value <= high:
                log_odds[template, sample] = factor * (value + width) ** 2 + constant
            else:
                log_odds[template, sample] = -np.inf


@compiled
def _update_best(log_odds: np.ndarray, best: np.ndarray, begin: int, end: int) -> None:
    """Log odds of the likeliest template between two samples."""
    best[begin:end] = -np.inf
    for template in range(len(log_odds)):
        for sample in range(begin, end):
            best[sample] = max(best[sample], log_odds[template, sample])


@compiled
def _update_around(
    times: np.ndarray,
    spikes: np.ndarray,
    score: np.ndarray,
    log_odds: np.ndarray,
    best: np.ndarray,
    energy: np.ndarray,
    precision: np.ndarray,
    echo: np.ndarray,
    first_lag: int,
    refractory: int,
    log_prior: float,
) -> None:
    """Log odds where spikes were subtracted or added; none where a unit's other spikes forbid one."""
    num_times, num_lags = score.shape[1], echo.shape[3]
    for time in times:
        begin = int(np.rint(time)) + first_lag
        _update_log_odds(score, log_odds, energy, precision, log_prior, max(begin, 0), min(begin + num_lags, num_times))
    for spike in spikes:
        _forbid(spike, log_odds, refractory)
    for time in times:
        begin = int(np.rint(time)) + first_lag
        _update_best(log_odds, best, max(begin, 0), min(begin + num_lags, num_times))


@compiled
def _forbid(spike: np.ndarray, log_odds: np.ndarray, refractory: int) -> None:
    """Allow none of a unit's spikes within its refractory period of another."""
    sample = int(np.rint(spike[TIME]))
    log_odds[int(spike[TEMPLATE]), max(sample - refractory, 0) : sample + refractory + 1] = -np.inf


@compiled
def _separate_maxima(best: np.ndarray, penalty: np.ndarray, distance: int) -> np.ndarray:
    """Samples over the threshold that are the largest within a distance."""
    found = np.empty(len(best), dtype=np.int64)
    num_found = 0
    # At the ends there is no peak between samples.
    for sample in range(1, len(best) - 1):
        value = best[sample] - penalty[sample]
        if not value > _THRESHOLD:
            continue
        is_largest = True
        for other in range(max(sample - distance, 0), min(sample + distance + 1, len(best))):
            if best[other] - penalty[other] > value:
                is_largest = False
                break
        if is_largest:
            found[num_found] = sample
            num_found += 1
    return found[:num_found].copy()


@compiled
def _likeliest(
    sample: int,
    reach: int,
    score: np.ndarray,
    log_odds: np.ndarray,
    energy: np.ndarray,
    precision: np.ndarray,
    log_prior: float,
) -> np.ndarray:
    """The likeliest spike near a sample.

    Log odds are compared where each template's are highest, between samples: at a sample, a template may lose as much by
    half a sample as by being another neuron's.
    """
    spike = np.zeros(NUM_COLUMNS)
    spike[TIME], spike[LOG_ODDS] = sample, -np.inf
    begin, end = max(sample - reach, 1), min(sample + reach + 1, score.shape[1] - 1)
    for template in range(len(score)):
        at, highest = -1, -np.inf
        for candidate in range(begin, end):
            if log_odds[template, candidate] > highest:
                at, highest = candidate, log_odds[template, candidate]
        if at < 0:
            continue
        # The vertex of the parabola through the highest score and its neighbours.
        left, middle, right = float(score[template, at - 1]), float(score[template, at]), float(score[template, at + 1])
        curvature = left - 2 * middle + right
        offset = min(max(0.5 * (left - right) / curvature, -0.5), 0.5) if curvature < 0 else 0.0
        peak = middle - 0.25 * (left - right) * offset
        odds = _log_odds_of(peak, float(energy[template]), float(precision[template]), log_prior)
        if odds > spike[LOG_ODDS]:
            spike[TIME], spike[TEMPLATE], spike[LOG_ODDS] = at + offset, template, odds
            spike[AMPLITUDE] = (peak + precision[template]) / (energy[template] + precision[template])
    return spike


@compiled
def nearest_shift(time: float) -> tuple[int, int]:
    """Sample, and index of the shift from there, that are nearest to a time."""
    sample = int(np.rint(time))
    return sample, int(np.abs(time - sample - SHIFTS).argmin())


@compiled
def _subtract(
    spike: np.ndarray,
    sign: float,
    score: np.ndarray,
    penalty: np.ndarray,
    energy: np.ndarray,
    echo: np.ndarray,
    first_lag: int,
    num_samples: int,
) -> None:
    """Subtract a spike from the scores, or add it again."""
    sample, shift = nearest_shift(spike[TIME])
    template, amplitude = int(spike[TEMPLATE]), np.float32(sign * spike[AMPLITUDE])
    num_times = score.shape[1]
    first = sample + first_lag
    begin, end = max(first, 0), min(first + echo.shape[3], num_times)
    for other in range(len(score)):
        for at in range(begin, end):
            score[other, at] -= amplitude * echo[template, shift, other, at - first]
    left_behind = np.float32(sign * _MISMATCH * spike[AMPLITUDE] ** 2 * energy[template])
    reach = num_samples - 1
    penalty[max(sample - reach, 0) : sample + reach + 1] += left_behind


@compiled
def _look_again(
    spikes: np.ndarray,
    changed: np.ndarray,
    score: np.ndarray,
    log_odds: np.ndarray,
    best: np.ndarray,
    penalty: np.ndarray,
    energy: np.ndarray,
    precision: np.ndarray,
    echo: np.ndarray,
    first_lag: int,
    num_samples: int,
    refractory: int,
    log_prior: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Look for spikes again that overlap others, with the others subtracted.

    Parameters
    ----------
    spikes : np.ndarray, float64 [num_spikes, NUM_COLUMNS]
        In order of time; they are changed.
    changed : np.ndarray, float64 [num_times]
        Only spikes near to these are looked at.
    score, log_odds, best, penalty
        Of the search; they are changed.
    energy, precision, echo, first_lag, num_samples, refractory, log_prior
        See `search`.

    Returns
    -------
    spikes : np.ndarray, float64 [num_left, NUM_COLUMNS]
        Those that are left.
    changed : np.ndarray, float64 [num_changed]
        Times of spikes that have become others, or none.
    """
    last, num_spikes = score.shape[1] - 1, len(spikes)
    times = spikes[:, TIME].copy()
    left = _overlapping(times, np.sort(changed), num_samples)
    kept = np.ones(num_spikes, dtype=np.bool_)
    edited = np.empty(2 * num_spikes)
    moved = np.empty(num_spikes)
    num_edited = num_moved = 0
    # Those that are looked at together have no say in each other's scores.
    distance = echo.shape[3] + 4 * _NEAR_OVERLAPPED
    around = 2 * _NEAR_OVERLAPPED + refractory
    while len(left):
        group = _far_apart(times, left, distance)
        is_in_group = np.zeros(num_spikes, dtype=np.bool_)
        is_in_group[group] = True
        left = left[~is_in_group[left]]
        for index in group:
            _subtract(spikes[index], -1.0, score, penalty, energy, echo, first_lag, num_samples)
            edited[num_edited] = times[index]
            num_edited += 1
        for index in group:
            sample = int(np.rint(times[index]))
            begin, end = max(sample - _NEAR_OVERLAPPED - 1, 0), min(sample + _NEAR_OVERLAPPED + 2, last + 1)
            _update_log_odds(score, log_odds, energy, precision, log_prior, begin, end)
        for index in group:
            first, end = np.searchsorted(times, times[index] - around), np.searchsorted(times, times[index] + around)
            for other in range(first, end):
                if kept[other] and not is_in_group[other]:
                    _forbid(spikes[other], log_odds, refractory)
        for index in group:
            sample, iteration = int(np.rint(times[index])), spikes[index, ITERATION]
            new = _likeliest(sample, _NEAR_OVERLAPPED, score, log_odds, energy, precision, log_prior)
            new[ITERATION] = iteration
            cost = penalty[min(max(int(np.rint(new[TIME])), 0), last)]
            kept[index] = new[LOG_ODDS] - cost > _THRESHOLD
            is_other = new[TEMPLATE] != spikes[index, TEMPLATE] or abs(new[TIME] - times[index]) > _MOVED
            if is_other or not kept[index]:
                moved[num_moved] = times[index]
                num_moved += 1
            spikes[index] = new
        for index in group:
            if kept[index]:
                _subtract(spikes[index], 1.0, score, penalty, energy, echo, first_lag, num_samples)
                edited[num_edited] = spikes[index, TIME]
                num_edited += 1
    spikes = spikes[kept]
    _update_around(
        edited[:num_edited], spikes, score, log_odds, best, energy, precision, echo, first_lag, refractory, log_prior
    )
    return spikes, moved[:num_moved].copy()


@compiled
def _overlapping(times: np.ndarray, changed: np.ndarray, distance: float) -> np.ndarray:
    """Which of sorted times are near to another one, and to one of those that have changed."""
    found = np.empty(len(times), dtype=np.int64)
    num_found = 0
    for index in range(len(times)):
        overlaps = (index > 0 and times[index] - times[index - 1] < distance) or (
            index + 1 < len(times) and times[index + 1] - times[index] < distance
        )
        if not overlaps:
            continue
        first, end = (
            np.searchsorted(changed, times[index] - distance),
            np.searchsorted(changed, times[index] + distance),
        )
        if end > first:
            found[num_found] = index
            num_found += 1
    return found[:num_found].copy()


@compiled
def _far_apart(times: np.ndarray, chosen: np.ndarray, distance: float) -> np.ndarray:
    """As many of the chosen as are not near to each other, from the first on."""
    group = np.empty(len(chosen), dtype=np.int64)
    num_found, last = 0, -np.inf
    for index in chosen:
        if times[index] - last >= distance:
            group[num_found] = index
            num_found += 1
            last = times[index]
    return group[:num_found].copy()


@compiled
def cleaned_windows(
    traces: np.ndarray,
    starts: np.ndarray,
    num_samples: int,
    times: np.ndarray,
    amplitudes: np.ndarray,
    levels: np.ndarray,
    templates: np.ndarray,
    shifted: np.ndarray,
    num_before: int,
) -> np.ndarray:
    """Cut a window around each spike out of traces from which all spikes are subtracted.

    Parameters
    ----------
    traces : np.ndarray, float32 [num_samples_total, num_channels]
        Outside they count as zero.
    starts : np.ndarray, int64 [num_spikes]
        First sample of each window.
    num_samples : int
        Of a window.
    times : np.ndarray, float64 [num_spikes]
        Of the spikes, in samples and in order.
    amplitudes : np.ndarray, float32 [num_spikes]
        As multiples of the template.
    levels, templates : np.ndarray, int64 [num_spikes]
        Which waveforms.
    shifted : np.ndarray, float32 [num_levels, num_templates, num_shifts, num_wide_samples, num_channels]
        Waveforms, each at every one of `SHIFTS`.
    num_before : int
        Samples of a waveform before the time of its spike.

    Returns
    -------
    np.ndarray, float32 [num_spikes, num_samples, num_channels]
    """
    num_wide, num_channels = shifted.shape[3], shifted.shape[4]
    windows = np.zeros((len(times), num_samples, num_channels), dtype=np.float32)
    for row in range(len(times)):
        window, start = windows[row], starts[row]
        begin, end = max(0, -start), min(num_samples, len(traces) - start)
        for at in range(begin, end):
            for channel in range(num_channels):
                window[at, channel] = traces[start + at, channel]
        # Those whose waveforms reach into the window.
        first = np.searchsorted(times, start - num_wide + num_before - 1)
        last = np.searchsorted(times, start + num_samples + num_before + 1)
        for spike in range(first, last):
            sample, shift = nearest_shift(times[spike])
            waveform = shifted[levels[spike], templates[spike], shift]
            lag = start - (sample - num_before)
            for at in range(max(begin, -lag), min(end, num_wide - lag)):
                for channel in range(num_channels):
                    window[at, channel] -= amplitudes[spike] * waveform[at + lag, channel]
    return windows
