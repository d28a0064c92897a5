"""Inner loops of the search for spikes in the scores of templates, on plain arrays.

Spikes are rows of a float64 array with the columns `TIME` to `ITERATION`. Scores and log odds are float32
[num_templates, num_samples]; what else is known of the templates is described by `template_search.TemplateScores`.
"""

from __future__ import annotations

from typing import Any

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
    spikes = np.empty((64, NUM_COLUMNS))
    # All that it is passed to would be compiled once more for a literal.
    num_spikes: Any = np.int64(0)
    changed = np.empty(0)
    num_taken = 0
    for refit in range(_MAX_REFITS + 1):
        if refit:
            _sort_by_time(spikes, num_spikes)
            num_spikes, changed = _look_again(
                spikes, num_spikes, changed, score, log_odds, best, penalty, energy, precision, echo, first_lag,
                num_samples, refractory, log_prior,
            )  # fmt: skip
            if not len(changed):
                break
        num_before = num_spikes
        for _ in range(_MAX_ITERATIONS):
            samples = _separate_maxima(best, penalty, num_samples - 1)
            if not len(samples):
                break
            first = num_spikes
            for sample in samples:
                if num_spikes == len(spikes):
                    spikes = _with_room(spikes)
                _likeliest(sample, _NEAR, score, log_odds, energy, precision, log_prior, spikes[num_spikes])
                spikes[num_spikes, ITERATION] = num_taken
                num_spikes += 1
            num_taken += 1
            times = np.empty(num_spikes - first)
            for row in range(first, num_spikes):
                times[row - first] = spikes[row, TIME]
                _subtract(spikes[row], 1.0, score, penalty, energy, echo, first_lag, num_samples)
            _update_around(
                times, spikes, num_spikes, score, log_odds, best, energy, precision, echo,
                first_lag, refractory, log_prior,
            )  # fmt: skip
        # The next look is at what is new too.
        num_changed = len(changed)
        longer = np.empty(num_changed + num_spikes - num_before)
        for row in range(len(longer)):
            longer[row] = changed[row] if row < num_changed else spikes[num_before + row - num_changed, TIME]
        changed = longer
    return spikes[:num_spikes]


@compiled
def _with_room(spikes: np.ndarray) -> np.ndarray:
    """Copy rows into twice as many."""
    larger = np.empty((2 * len(spikes), NUM_COLUMNS))
    for row in range(len(spikes)):
        _copy_row(spikes, row, larger, row)
    return larger


@compiled
def _copy_row(spikes: np.ndarray, row: int, others: np.ndarray, other_row: int) -> None:
    # Column by column: numba compiles for seconds what is written as one assignment.
    for column in range(NUM_COLUMNS):
        others[other_row, column] = spikes[row, column]


@compiled
def _sort_by_time(spikes: np.ndarray, num_spikes: int) -> None:
    """Put rows in order of time by insertion: they consist of a few sorted runs."""
    held = np.empty((1, NUM_COLUMNS))
    for row in range(1, num_spikes):
        at = row
        _copy_row(spikes, row, held, 0)
        while at > 0 and spikes[at - 1, TIME] > held[0, TIME]:
            _copy_row(spikes, at - 1, spikes, at)
            at -= 1
        _copy_row(held, 0, spikes, at)


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
    for sample in range(begin, end):
        best[sample] = -np.inf
    for template in range(len(log_odds)):
        for sample in range(begin, end):
            best[sample] = max(best[sample], log_odds[template, sample])


@compiled
def _update_around(
    times: np.ndarray,
    spikes: np.ndarray,
    num_spikes: int,
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
    for row in range(num_spikes):
        _forbid(spikes[row], log_odds, refractory)
    for time in times:
        begin = int(np.rint(time)) + first_lag
        _update_best(log_odds, best, max(begin, 0), min(begin + num_lags, num_times))


@compiled
def _forbid(spike: np.ndarray, log_odds: np.ndarray, refractory: int) -> None:
    """Allow none of a unit's spikes within its refractory period of another."""
    sample, template = int(np.rint(spike[TIME])), int(spike[TEMPLATE])
    for at in range(max(sample - refractory, 0), min(sample + refractory + 1, log_odds.shape[1])):
        log_odds[template, at] = -np.inf


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
    spike: np.ndarray,
) -> None:
    """Write the likeliest spike near a sample into a row.

    Log odds are compared where each template's are highest, between samples: at a sample, a template may lose as much
    by half a sample as by being another neuron's.
    """
    spike[TIME], spike[TEMPLATE], spike[AMPLITUDE], spike[LOG_ODDS] = sample, 0, 0.0, -np.inf
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


@compiled
def nearest_shift(time: float) -> tuple[int, int]:
    """Sample, and index of the shift from there, that are nearest to a time."""
    sample = int(np.rint(time))
    shift = int(np.rint((time - sample - SHIFTS[0]) / (SHIFTS[1] - SHIFTS[0])))
    return sample, min(max(shift, 0), len(SHIFTS) - 1)


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
    for at in range(max(sample - reach, 0), min(sample + reach + 1, num_times)):
        penalty[at] += left_behind


@compiled
def _look_again(
    spikes: np.ndarray,
    num_spikes: int,
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
) -> tuple[int, np.ndarray]:
    """Look for spikes again that overlap others, with the others subtracted.

    Parameters
    ----------
    spikes : np.ndarray, float64 [num_rows, NUM_COLUMNS]
        In order of time; those that are left come first.
    num_spikes : int
        How many there are.
    changed : np.ndarray, float64 [num_times]
        Only spikes near to these are looked at.
    score, log_odds, best, penalty
        Of the search; they are changed.
    energy, precision, echo, first_lag, num_samples, refractory, log_prior
        See `search`.

    Returns
    -------
    num_left : int
        How many spikes are left.
    changed : np.ndarray, float64 [num_changed]
        Times of spikes that have become others, or none.
    """
    last = score.shape[1] - 1
    times = np.empty(num_spikes)
    for index in range(num_spikes):
        times[index] = spikes[index, TIME]
    is_left = _overlapping(times, changed, num_samples)
    is_in_group, is_kept = np.zeros(num_spikes, dtype=np.bool_), np.ones(num_spikes, dtype=np.bool_)
    edited, moved = np.empty(2 * num_spikes), np.empty(num_spikes)
    num_edited = num_moved = 0
    # Those that are looked at together have no say in each other's scores.
    distance = echo.shape[3] + 4 * _NEAR_OVERLAPPED
    around = 2 * _NEAR_OVERLAPPED + refractory
    group = np.empty(num_spikes, dtype=np.int64)
    while True:
        num_group, latest = 0, -np.inf
        for index in range(num_spikes):
            is_in_group[index] = is_left[index] and times[index] - latest >= distance
            if is_in_group[index]:
                group[num_group], latest = index, times[index]
                num_group += 1
                is_left[index] = False
        if not num_group:
            break
        for index in group[:num_group]:
            _subtract(spikes[index], -1.0, score, penalty, energy, echo, first_lag, num_samples)
            edited[num_edited] = times[index]
            num_edited += 1
        for index in group[:num_group]:
            sample = int(np.rint(times[index]))
            begin, end = max(sample - _NEAR_OVERLAPPED - 1, 0), min(sample + _NEAR_OVERLAPPED + 2, last + 1)
            _update_log_odds(score, log_odds, energy, precision, log_prior, begin, end)
            for step in (-1, 1):
                other = index + step
                while 0 <= other < num_spikes and abs(times[other] - times[index]) <= around:
                    if is_kept[other] and not is_in_group[other]:
                        _forbid(spikes[other], log_odds, refractory)
                    other += step
        for index in group[:num_group]:
            sample, template = int(np.rint(times[index])), spikes[index, TEMPLATE]
            _likeliest(sample, _NEAR_OVERLAPPED, score, log_odds, energy, precision, log_prior, spikes[index])
            cost = penalty[min(max(int(np.rint(spikes[index, TIME])), 0), last)]
            is_kept[index] = spikes[index, LOG_ODDS] - cost > _THRESHOLD
            is_other = spikes[index, TEMPLATE] != template or abs(spikes[index, TIME] - times[index]) > _MOVED
            if is_other or not is_kept[index]:
                moved[num_moved] = times[index]
                num_moved += 1
        for index in group[:num_group]:
            if is_kept[index]:
                _subtract(spikes[index], 1.0, score, penalty, energy, echo, first_lag, num_samples)
                edited[num_edited] = spikes[index, TIME]
                num_edited += 1
    num_left = 0
    for index in range(num_spikes):
        if is_kept[index]:
            _copy_row(spikes, index, spikes, num_left)
            num_left += 1
    _update_around(
        edited[:num_edited], spikes, num_left, score, log_odds, best, energy, precision, echo, first_lag, refractory,
        log_prior,
    )  # fmt: skip
    return num_left, moved[:num_moved]


@compiled
def _overlapping(times: np.ndarray, changed: np.ndarray, distance: float) -> np.ndarray:
    """Which of sorted times are near to another one, and to one of those that have changed; bool [num_times]."""
    found = np.zeros(len(times), dtype=np.bool_)
    for index in range(len(times)):
        before = index > 0 and times[index] - times[index - 1] < distance
        if before or (index + 1 < len(times) and times[index + 1] - times[index] < distance):
            for time in changed:
                if abs(time - times[index]) <= distance:
                    found[index] = True
                    break
    return found


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
