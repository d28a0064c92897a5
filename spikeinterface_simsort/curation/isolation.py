"""How well a unit stands apart from noise and from other units, in terms of the noise over all channels and in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigh
from scipy.ndimage import maximum_filter1d

from spikeinterface_simsort.confidence import overlap_shares
from spikeinterface_simsort.curation.companions import coincidence_ratio, unit_trains
from spikeinterface_simsort.curation.whitened_spikes import (
    TraceSlice,
    UnitSpikes,
    Window,
    estimate_noise,
    read_slices,
    segment_starts,
    whiten_spikes,
)

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import SortingAnalyzer

# Columns of the table, and what they are. Distances are in standard deviations of the noise, over a whole waveform.
ISOLATION_METRICS = {
    "detectability": "length of the unit's mean waveform",
    "residual": "median mean square of what the mean waveform, its amplitude and its time leave of a spike: 1 for a "
    "neuron and noise",
    "elongation": "largest variance of that along one direction, relative to the second largest: two neurons differ "
    "along one",
    "wandering": "distance of the mean waveforms of the first and the last quarter of the spikes, beyond what noise "
    "makes it, as a share of `detectability`",
    "neighbour_distance": "to the mean waveform of the nearest other unit, at the best shift within 0.2 ms",
    "neighbour_approach": "smallest distance of a quarter of the spikes from a quarter of another unit's",
    "neighbour_balance": "correlation of the rates of the unit and of that other one, over 20 stretches: one that "
    "drifts from one unit to another leaves the one as it comes to the other",
    "split_distance": "to the nearest unit that never fires within 2.5 ms of this one",
    "nearer_share": "spikes that are nearer to another unit's mean waveform than to their own",
    "overlap_share": "spikes that others have of the unit and that it has of others, relative to its own, were all "
    "units Gaussian on the line that parts two of them best (Hill et al. 2011)",
    "doubtful_share": "spikes that noise explains better than the unit's mean waveform does",
    "missed_share": "of the places in 40 s of the traces that the unit's mean waveform explains, and better than any "
    "other's, those where no unit has a spike",
    "lost_share": "and those where only another unit has one",
    "unmatched_share": "of the unit's spikes in these 40 s, those where noise or another mean waveform explains more",
    "trace_accuracy": "places with a spike of the unit over all such places and spikes",
}
# Spikes that overlap others say little of what is left of one.
_NEAR_SHARE = 0.8
# What is so much farther from the mean, in squares, than all but a tenth of a unit's spikes may be a neuron that
# nobody found.
_ALIKE_SHARE, _ALIKE_FACTOR = 0.9, 2.0
# Amplitudes of one neuron vary, as in bursts.
_AMPLITUDES = (0.7, 1.3)
_LEAST = 1e-3
# Of more channels at a time, noise cannot be told from so few seconds; of fewer samples, a waveform not.
_MOST_CHANNELS, _SHORTEST = 32, 4
# Log odds from which on a waveform is sooner a spike than noise, as neurons fire every ten thousandth sample or so.
_LOG_ODDS = 9.0
_MATCH_MS = 0.4
_NUM_STRETCHES, _SPLIT_COINCIDENCE = 20, 0.3
# Of places in the traces that count as found beforehand: few places tell little.
_PRIOR_PLACES = 2.0


def isolation_metrics(analyzer: SortingAnalyzer, *, seed: int = 0) -> pd.DataFrame:
    """Compute `ISOLATION_METRICS`.

    Parameters
    ----------
    analyzer : SortingAnalyzer
        With waveforms and noise levels, and with its recording, of which up to 40 s are read.
    seed : int
        Of the stretches that are read.

    Returns
    -------
    pandas.DataFrame, float64 [num_units, num_columns]
        NaN where there is no other unit, or there are too few spikes or too little noise to tell.
    """
    import pandas as pd

    table = pd.DataFrame(np.nan, index=analyzer.unit_ids, columns=list(ISOLATION_METRICS))
    mask = np.ones((len(analyzer.unit_ids), analyzer.get_num_channels()), dtype=bool)
    if analyzer.sparsity is not None:
        mask = analyzer.sparsity.mask
    for channels in np.unique(mask, axis=0):
        units = np.flatnonzero((mask == channels).all(axis=1))
        values = _of_channels(analyzer, units=units, channels=np.flatnonzero(channels), seed=seed)
        for name, column in values.items():
            table.loc[analyzer.unit_ids[units], name] = column
    return table


def _of_channels(
    analyzer: SortingAnalyzer, *, units: np.ndarray, channels: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Metrics of the units that are looked at on the same channels."""
    rate = analyzer.sampling_frequency
    extension: Any = analyzer.get_extension("waveforms")
    window = Window.of(rate, num_samples=extension.nbefore + extension.nafter)
    empty = {name: np.full(len(units), np.nan) for name in ISOLATION_METRICS}
    if window.length < _SHORTEST or len(channels) > _MOST_CHANNELS:
        return empty
    scale = np.maximum(
        np.asarray(analyzer.get_extension("noise_levels").get_data())[channels], np.finfo("float32").tiny
    )
    slices = read_slices(analyzer, channels=channels, scale=scale, seed=seed)
    trains = [unit_trains(analyzer, analyzer.unit_ids[unit]) for unit in units]
    whitener = estimate_noise(slices, trains, window=window)
    if whitener is None:
        return empty
    chosen = analyzer.get_extension("random_spikes").get_random_spikes()
    times = chosen["sample_index"] + segment_starts(analyzer)[chosen["segment_index"]]
    spikes = [
        whiten_spikes(
            extension.get_waveforms_one_unit(analyzer.unit_ids[unit], force_dense=False) / scale,
            times=times[chosen["unit_index"] == unit],
            root=whitener.root,
            window=window,
            nbefore=extension.nbefore,
        )
        for unit in units
    ]
    known = [index for index, unit in enumerate(spikes) if unit is not None]
    found = [unit for unit in spikes if unit is not None]
    sizes = np.array([sum(map(len, trains[index])) for index in known])
    values = _alone(found)
    if len(found) > 1:
        values |= _among(found, sizes=sizes)
        values |= _companions(analyzer, found, [trains[index] for index in known])
    values |= _in_traces(
        slices,
        found,
        trains=[trains[index] for index in known],
        everyone=trains,
        root=whitener.root,
        window=window,
        sampling_frequency=rate,
        starts=segment_starts(analyzer),
    )
    for name, column in values.items():
        empty[name][known] = column
    return empty


def _alone(units: Sequence[UnitSpikes]) -> dict[str, np.ndarray]:
    """What is known of a unit without the others."""
    rows = []
    for unit in units:
        length = np.linalg.norm(unit.mean)
        axes = np.linalg.qr(np.column_stack([unit.mean, unit.slope]))[0]
        deviation = unit.points - unit.mean
        deviation -= deviation @ axes @ axes.T
        squares = (deviation**2).mean(axis=1)
        near = deviation[squares <= np.quantile(squares, _NEAR_SHARE)]
        dim = near.shape[1]
        second, first = np.maximum(eigh(near.T @ near, eigvals_only=True, subset_by_index=[dim - 2, dim - 1]), 0)
        wandering = np.nan
        if len(unit.parts):
            wandering = _beyond_noise(unit.parts[0] - unit.parts[-1], unit.part_sizes[0], unit.part_sizes[-1]) / length
        rows.append(
            {
                "detectability": length,
                # The mean takes its share of few spikes.
                "residual": np.median(squares) * len(squares) / (len(squares) - 1),
                "elongation": (first + _LEAST) / (second + _LEAST),
                "wandering": wandering,
                "doubtful_share": np.mean(unit.points @ unit.mean - length**2 / 2 < _LOG_ODDS),
            }
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _among(units: Sequence[UnitSpikes], *, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """How far units are from each other, and what they may have of each other's spikes."""
    num_units = len(units)
    everyone = np.stack([unit.shifted for unit in units])
    nearest, nearer = np.zeros(num_units), np.zeros(num_units)
    for index, unit in enumerate(units):
        others = np.delete(everyone, index, axis=0).reshape(-1, everyone.shape[2])
        nearest[index] = np.linalg.norm(others - unit.mean, axis=1).min()
        own = _misfit(unit.points, unit.mean[None])[:, 0]
        nearer[index] = np.mean(_misfit(unit.points, others).min(axis=1) < own)
    return {
        "neighbour_distance": nearest,
        "nearer_share": nearer,
        "overlap_share": overlap_shares([unit.points for unit in units], sizes=sizes),
    }


def _misfit(points: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Squared distance of spikes from mean waveforms of any amplitude that a neuron may have."""
    products, squares = points @ means.T, (means**2).sum(axis=1)
    amplitude = np.clip(products / np.maximum(squares, _LEAST), *_AMPLITUDES)
    return (points**2).sum(axis=1)[:, None] - 2 * amplitude * products + amplitude**2 * squares


def _companions(
    analyzer: SortingAnalyzer, units: Sequence[UnitSpikes], trains: Sequence[list[np.ndarray]]
) -> dict[str, np.ndarray]:
    """Other units that may be of the same neuron: it drifts from one to the other, or they never fire together."""
    num_samples = [analyzer.get_num_samples(segment) for segment in range(analyzer.get_num_segments())]
    counts = np.array(
        [
            np.concatenate(
                [
                    np.histogram(train, bins=_NUM_STRETCHES, range=(0, length))[0]
                    for train, length in zip(unit, num_samples, strict=True)
                ]
            )
            for unit in trains
        ],
        dtype=float,
    )
    approach, balance, split = (np.full(len(units), np.nan) for _ in range(3))
    for index, unit in enumerate(units):
        distances = np.array([_approach(unit, other) if at != index else np.inf for at, other in enumerate(units)])
        nearest = int(distances.argmin())
        approach[index] = distances[nearest]
        if counts[index].std() > 0 and counts[nearest].std() > 0:
            balance[index] = np.corrcoef(counts[index], counts[nearest])[0, 1]
        for other in np.argsort(distances)[:-1]:
            ratio = coincidence_ratio(
                trains[index],
                trains[other],
                num_samples=num_samples,
                sampling_frequency=analyzer.sampling_frequency,
            )
            if ratio < _SPLIT_COINCIDENCE:
                split[index] = distances[other]
                break
    return {"neighbour_approach": approach, "neighbour_balance": balance, "split_distance": split}


def _approach(unit: UnitSpikes, other: UnitSpikes) -> float:
    """Smallest distance of parts of two units, beyond what noise makes it."""
    if not (len(unit.parts) and len(other.parts)):
        return float(np.linalg.norm(other.shifted - unit.mean, axis=1).min())
    return float(
        min(
            _beyond_noise(part - others, size, other_size)
            for part, size in zip(unit.parts, unit.part_sizes, strict=True)
            for others, other_size in zip(other.parts, other.part_sizes, strict=True)
        )
    )


def _beyond_noise(difference: np.ndarray, size: int, other_size: int) -> float:
    """Length of the difference of two means of so many spikes, without what noise adds to it."""
    return float(np.sqrt(max(difference @ difference - len(difference) * (1 / size + 1 / other_size), 0.0)))


def _in_traces(
    slices: Sequence[TraceSlice],
    units: Sequence[UnitSpikes],
    *,
    trains: Sequence[list[np.ndarray]],
    everyone: Sequence[list[np.ndarray]],
    root: np.ndarray,
    window: Window,
    sampling_frequency: float,
    starts: np.ndarray,
) -> dict[str, np.ndarray]:
    """Where in the traces a unit's waveform is, and whether it has a spike there, or another unit."""
    if not units:
        return {}
    reach = round(_MATCH_MS * sampling_frequency / 1000)
    widths = _ALIKE_FACTOR * np.array(
        [np.quantile(((unit.points - unit.mean) ** 2).sum(axis=1), _ALIKE_SHARE) for unit in units]
    )
    places, missed, lost, spikes, false = (np.zeros(len(units)) for _ in range(5))
    for piece in slices:
        traces = piece.traces[:: window.step]
        if len(traces) <= window.length:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(traces, window.length, axis=0).transpose(0, 2, 1)
        flat = windows.reshape(len(windows), -1)
        means = np.stack([unit.mean_at(starts[piece.segment] + piece.start) for unit in units])
        odds = flat @ (root @ means.T) - (means**2).sum(axis=1) / 2
        best = odds.max(axis=1)
        peaks = np.flatnonzero((best > _LOG_ODDS) & (best == maximum_filter1d(best, 2 * (reach // window.step) + 1)))
        which = odds[peaks].argmax(axis=1)
        is_alike = ((flat[peaks] @ root) ** 2).sum(axis=1) - 2 * best[peaks] <= widths[which]
        any_time = np.sort(np.concatenate([piece.times(train) for train in everyone]))
        for index, (train, unit) in enumerate(zip(trains, units, strict=True)):
            times = piece.times(train)
            spikes[index] += len(times)
            at = peaks[which == index] * window.step + unit.offset
            false[index] += np.sum(~_has_near(at, times, reach=reach))
            at = at[is_alike[which == index]]
            own = _has_near(times, at, reach=reach)
            places[index] += len(at)
            some = _has_near(any_time, at, reach=reach)
            missed[index] += np.sum(~some)
            lost[index] += np.sum(some & ~own)
    total = places + _PRIOR_PLACES
    return {
        "missed_share": missed / total,
        "lost_share": lost / total,
        "unmatched_share": false / (spikes + _PRIOR_PLACES),
        "trace_accuracy": (spikes - false) / np.maximum(spikes + missed + lost, 1),
    }


def _has_near(times: np.ndarray, places: np.ndarray, *, reach: int) -> np.ndarray:
    """Whether there is a time so near to each place."""
    return np.searchsorted(times, places - reach, "left") < np.searchsorted(times, places + reach, "right")
