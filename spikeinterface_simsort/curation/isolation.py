"""How well a unit stands apart from noise and from other units, in terms of the noise over all channels and in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigh
from scipy.ndimage import maximum_filter1d
from scipy.stats import norm

from spikeinterface_simsort.clustering import discriminant_axis
from spikeinterface_simsort.curation.companions import coincidence_ratio, unit_trains
from spikeinterface_simsort.whitening import Whitener, noise_windows

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
# Band-passed traces have no more than a sample every so many ms tells.
_STEP_MS = 1 / 15
_BEFORE_MS, _LENGTH_MS, _SHIFT_MS = 0.6, 1.5, 0.2
_NUM_SLICES, _SLICE_S = 40, 1.0
# Deflections beyond are spikes, in units of noise, whether a sorter found them or not.
_SPIKE_LEVEL = 6.0
_FEWEST_SPIKES, _NUM_PARTS, _FEWEST_IN_PART = 10, 4, 8
# Means of fewer spikes hold more noise than what waveforms change by in time.
_FEWEST_IN_TEMPLATE = 25
# Spikes that overlap others say little of the mean.
_NEAR_SHARE = 0.8
# What is so much farther from the mean, in squares, than all but a tenth of a unit's spikes may be a neuron that
# nobody found.
_ALIKE_SHARE, _ALIKE_FACTOR = 0.9, 2.0
# Amplitudes of one neuron vary, as in bursts.
_AMPLITUDES = (0.7, 1.3)
_DIMENSIONS, _LEAST = 16, 1e-3
# Log odds from which on a waveform is sooner a spike than noise, as neurons fire every ten thousandth sample or so.
_LOG_ODDS = 9.0
_MATCH_MS = 0.4
_NUM_STRETCHES, _SPLIT_COINCIDENCE = 20, 0.3
# Of places in the traces that count as found beforehand: few places tell little.
_PRIOR_PLACES = 2.0


@dataclass(frozen=True, kw_only=True)
class _UnitSpikes:
    """Some spikes of a unit, whitened, and aligned to their mean.

    Attributes
    ----------
    points : np.ndarray, float32 [num_spikes, dim]
    mean : np.ndarray, float32 [dim]
    slope : np.ndarray, float32 [dim]
        Its derivative in time.
    shifted : np.ndarray, float32 [num_shifts, dim]
        The mean, earlier and later.
    parts : np.ndarray, float32 [num_parts, dim]
        Means of spikes after each other; empty where there are few.
    part_sizes : np.ndarray, int [num_parts]
    part_times : np.ndarray, float64 [num_parts]
        Medians, in samples from the start of the first segment.
    offset : int
        From where a window begins to the time that the sorter gave the spike, in samples.
    """

    points: np.ndarray
    mean: np.ndarray
    slope: np.ndarray
    shifted: np.ndarray
    parts: np.ndarray
    part_sizes: np.ndarray
    part_times: np.ndarray
    offset: int

    def mean_at(self, time: float) -> np.ndarray:
        """Mean of the spikes about a time, or of all of them where they are few."""
        if not len(self.parts) or self.part_sizes.min() < _FEWEST_IN_TEMPLATE:
            return self.mean
        return self.parts[np.abs(self.part_times - time).argmin()]


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
    step = max(round(_STEP_MS * rate / 1000), 1)
    extension: Any = analyzer.get_extension("waveforms")
    shift = max(round(_SHIFT_MS * rate / 1000), 1)
    window = _Window(
        before=round(_BEFORE_MS * rate / 1000),
        length=min(round(_LENGTH_MS * rate / 1000), extension.nbefore + extension.nafter - 2 * shift) // step,
        step=step,
        shift=shift,
    )
    scale = np.maximum(
        np.asarray(analyzer.get_extension("noise_levels").get_data())[channels], np.finfo("float32").tiny
    )
    slices = _read_slices(analyzer, channels=channels, scale=scale, seed=seed)
    trains = [unit_trains(analyzer, analyzer.unit_ids[unit]) for unit in units]
    whitener = _noise_of(slices, trains, window=window)
    empty = {name: np.full(len(units), np.nan) for name in ISOLATION_METRICS}
    if whitener is None:
        return empty
    chosen = analyzer.get_extension("random_spikes").get_random_spikes()
    times = chosen["sample_index"] + _starts(analyzer)[chosen["segment_index"]]
    spikes = [
        _whitened_spikes(
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
        starts=_starts(analyzer),
    )
    for name, column in values.items():
        empty[name][known] = column
    return empty


def _starts(analyzer: SortingAnalyzer) -> np.ndarray:
    """First samples of the segments, were they one after the other."""
    lengths = [analyzer.get_num_samples(segment) for segment in range(analyzer.get_num_segments())]
    return np.concatenate([[0], np.cumsum(lengths)[:-1]])


@dataclass(frozen=True, kw_only=True)
class _Window:
    """Which samples of a waveform are looked at: every `step`-th, `length` of them, around the largest deflection."""

    before: int
    length: int
    step: int
    shift: int

    def start(self, num_samples: int, *, peak: int) -> int:
        """First sample of a waveform that is looked at, so that there is room for all shifts."""
        latest = num_samples - self.shift - (self.length - 1) * self.step - 1
        return int(np.clip(peak - self.before, self.shift, latest))

    def cut(self, waveforms: np.ndarray, *, peak: int) -> np.ndarray:
        """All shifts of waveforms, float32 [num_shifts, num_spikes, length * num_channels]."""
        num_samples = waveforms.shape[1]
        start = self.start(num_samples, peak=peak)
        shifts = range(-self.shift, self.shift + 1)
        places = [start + shift + self.step * np.arange(self.length) for shift in shifts]
        return np.stack([waveforms[:, place].reshape(len(waveforms), -1) for place in places])


def _read_slices(analyzer: SortingAnalyzer, *, channels: np.ndarray, scale: np.ndarray, seed: int) -> list[_Slice]:
    """Stretches of the traces in units of noise, spread evenly."""
    recording: Any = analyzer.recording
    length = int(_SLICE_S * analyzer.sampling_frequency)
    starts = [
        (segment, start)
        for segment in range(recording.get_num_segments())
        for start in range(0, max(recording.get_num_samples(segment) - length, 1), length)
    ]
    if len(starts) > _NUM_SLICES:
        chosen = np.random.default_rng(seed).choice(len(starts), _NUM_SLICES, replace=False)
        starts = [starts[index] for index in np.sort(chosen)]
    return [
        _Slice(
            segment=segment,
            start=start,
            traces=recording.get_traces(
                segment_index=segment,
                start_frame=start,
                end_frame=min(start + length, recording.get_num_samples(segment)),
                channel_ids=recording.channel_ids[channels],
                return_in_uV=analyzer.return_in_uV,
            ).astype("float32")
            / scale,
        )
        for segment, start in starts
    ]


@dataclass(frozen=True, kw_only=True)
class _Slice:
    segment: int
    start: int
    traces: np.ndarray

    def times(self, trains: Sequence[np.ndarray]) -> np.ndarray:
        """Spikes of one unit that are in it, from its start."""
        train = trains[self.segment]
        first, last = np.searchsorted(train, [self.start, self.start + len(self.traces)])
        return train[first:last] - self.start


def _noise_of(slices: Sequence[_Slice], trains: Sequence[Sequence[np.ndarray]], *, window: _Window) -> Whitener | None:
    """Noise, where no unit has a spike and nothing is as large as one."""
    busy, start = [], 0
    for piece in slices:
        large = np.flatnonzero(np.abs(piece.traces).max(axis=1) > _SPIKE_LEVEL)
        # No window is to reach from one slice into the next.
        busy += [start + times for times in (large, *(piece.times(train) for train in trains), np.zeros(1, dtype=int))]
        start += len(piece.traces)
    traces = np.concatenate([piece.traces for piece in slices])[:: window.step]
    windows = noise_windows(traces, np.concatenate(busy) // window.step, num_samples=window.length)
    return None if windows is None else Whitener.from_noise(windows)


def _whitened_spikes(
    waveforms: np.ndarray, *, times: np.ndarray, root: np.ndarray, window: _Window, nbefore: int
) -> _UnitSpikes | None:
    if len(waveforms) < _FEWEST_SPIKES:
        return None
    waveforms = waveforms.astype("float32")
    mean = waveforms.mean(axis=0)
    peak = int(np.abs(mean).max(axis=1).argmax())
    shifted = window.cut(waveforms, peak=peak) @ root
    mean = shifted[window.shift].mean(axis=0)
    for _ in range(2):
        distance = ((shifted - mean) ** 2).sum(axis=2)
        best = distance.argmin(axis=0)
        smallest = distance.min(axis=0)
        near = smallest <= np.quantile(smallest, _NEAR_SHARE)
        mean = shifted[best[near], np.flatnonzero(near)].mean(axis=0)
    points = shifted[best, np.arange(len(best))]
    # Each spike where it fits best, and all of them earlier and later by as much.
    aligned = np.stack(
        [np.roll(waveform, window.shift - at, axis=0) for waveform, at in zip(waveforms, best, strict=True)]
    )
    means = window.cut(aligned[near].mean(axis=0, keepdims=True), peak=peak)[:, 0] @ root
    slope = means[window.shift + 1] - means[window.shift - 1]
    num_parts = _NUM_PARTS if len(points) >= _NUM_PARTS * _FEWEST_IN_PART else 0
    parts = [part for part in np.array_split(points, max(num_parts, 1))] if num_parts else []
    return _UnitSpikes(
        points=points,
        mean=mean,
        slope=slope,
        shifted=means,
        parts=np.array([part.mean(axis=0) for part in parts]),
        part_sizes=np.array([len(part) for part in parts]),
        part_times=np.array([np.median(part) for part in np.array_split(times, len(parts))] if parts else []),
        offset=nbefore - window.start(waveforms.shape[1], peak=peak),
    )


def _alone(units: Sequence[_UnitSpikes]) -> dict[str, np.ndarray]:
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


def _among(units: Sequence[_UnitSpikes], *, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """How far units are from each other, and what they may have of each other's spikes."""
    num_units = len(units)
    everyone = np.stack([unit.shifted for unit in units])
    nearest, nearer = np.zeros(num_units), np.zeros(num_units)
    for index, unit in enumerate(units):
        others = np.delete(everyone, index, axis=0).reshape(-1, everyone.shape[2])
        nearest[index] = np.linalg.norm(others - unit.mean, axis=1).min()
        own = _misfit(unit.points, unit.mean[None])[:, 0]
        nearer[index] = np.mean(_misfit(unit.points, others).min(axis=1) < own)
    return {"neighbour_distance": nearest, "nearer_share": nearer, "overlap_share": _overlap(units, sizes=sizes)}


def _misfit(points: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Squared distance of spikes from mean waveforms of any amplitude that a neuron may have."""
    products, squares = points @ means.T, (means**2).sum(axis=1)
    amplitude = np.clip(products / np.maximum(squares, _LEAST), *_AMPLITUDES)
    return (points**2).sum(axis=1)[:, None] - 2 * amplitude * products + amplitude**2 * squares


def _overlap(units: Sequence[_UnitSpikes], *, sizes: np.ndarray) -> np.ndarray:
    together = np.concatenate([unit.points for unit in units])
    together = together - together.mean(axis=0)
    dim = together.shape[1]
    axes = eigh(together.T @ together, subset_by_index=[max(dim - _DIMENSIONS, 0), dim - 1])[1]
    points = [unit.points @ axes for unit in units]
    wrong = np.zeros(len(units))
    for unit, own in enumerate(points):
        for other, others in enumerate(points[:unit]):
            difference = others.mean(axis=0) - own.mean(axis=0)
            distance = np.sqrt(max(difference @ discriminant_axis(own, others), 1e-12))
            # Of two Gaussians, the larger one gets more of what lies between them.
            middle = distance / 2 + np.log(sizes[unit] / sizes[other]) / distance
            wrong[[unit, other]] += sizes[unit] * norm.sf(middle) + sizes[other] * norm.cdf(middle - distance)
    return wrong / sizes


def _companions(
    analyzer: SortingAnalyzer, units: Sequence[_UnitSpikes], trains: Sequence[list[np.ndarray]]
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


def _approach(unit: _UnitSpikes, other: _UnitSpikes) -> float:
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
    slices: Sequence[_Slice],
    units: Sequence[_UnitSpikes],
    *,
    trains: Sequence[list[np.ndarray]],
    everyone: Sequence[list[np.ndarray]],
    root: np.ndarray,
    window: _Window,
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
