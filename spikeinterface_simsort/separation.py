"""Units split where their waveforms are of two kinds, and merged where they are of one.

Waveforms are compared in whitened coordinates, in which noise has variance 1 in every direction. A neuron's amplitude
varies, and so does the time at which its spikes are aligned: along a template and along its derivative in time, units
do not differ. What the tissue's movement does to waveforms is taken off them. What else makes a neuron's waveforms vary
is learned from most units of the recording: waveforms that vary by more are of two neurons, if these also fire within
each other's refractory period.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from spikeinterface_simsort.clustering import discriminant_axis
from spikeinterface_simsort.drift import MovingMean, follow
from spikeinterface_simsort.intervals import (
    differ_by_pauses,
    fire_in_turns,
    fire_independently,
    fire_together,
    share_refractory_period,
)
from spikeinterface_simsort.mixture import part_in_two
from spikeinterface_simsort.template_matching import shift_matrix
from spikeinterface_simsort.whitening import Whitener

# Principal directions of all waveforms in which units are compared, and of two units in which they are parted.
_DIMENSIONS, _LOCAL_DIMENSIONS = 16, 6
_SPIKES_PER_COVARIANCE = 10_000
_SPIKES_PER_FIT = 3000

# Templates that differ by less than this share of the larger are one neuron's, if their amplitudes are alike.
_SAME, _SAME_AMPLITUDES = 0.18, (0.67, 1.5)
# Two neurons are aligned alike: what is alike only when shifted is one neuron's, aligned now here, now there.
_SAME_SHIFTED = 0.30
# Those that differ by more of it, or by so many standard deviations of the noise, or whose amplitudes are too unlike,
# are two.
_OTHER, _OTHER_DISTANCE, _OTHER_AMPLITUDES = 0.6, 8.0, (0.5, 2.0)
_MAX_SHIFT_MS = 1.0
# Where spikes of two units are aligned differently by more samples, only their templates are compared.
_ALIGNED = 2.0
# Two Gaussians of one width are better than one by this log likelihood, a spike and altogether, and lie so far apart.
_LOG_LIKELIHOOD, _PER_SPIKE, _LEAST_GAP = 25.0, 0.01, 2.2
# One neuron's spikes differ by less than this. If pauses before its halves' spikes are different, and these do not fire
# together, they differ because of them.
_VARIATION = 0.3
# Two neurons that look alike, or more different, are taken for one that fires in series by this chance.
_BY_CHANCE, _BY_CHANCE_IF_CLEAR = 0.002, 0.0001
# Two that fire together may lie nearer to each other: neither is wider than most neurons of the recording by more than
# this.
_LEAST_GAP_KNOWN, _MOST_WIDER = 1.5, 1.08
_LEAST_WEIGHT, _NUM_STEPS = 0.04, 100
_MIN_SPIKES_SPLIT = 30
# Templates of a neuron that moves differ by less than this.
_DRIFT = 0.45
_MAX_DEPTH = 3


@dataclass(frozen=True)
class Difference:
    """How one template differs from another.

    Attributes
    ----------
    shift : float
        Samples by which the other has to be delayed to be most alike.
    share : float
        What then differs, but for amplitude and time, as a share of the first.
    amplitude : float
        Of the other, as a multiple of the first.
    distance : float
        Whole difference, in standard deviations of the noise.
    """

    shift: float
    share: float
    amplitude: float
    distance: float

    @property
    def is_none(self) -> bool:
        """Whether both are one neuron's."""
        limit = _SAME if abs(self.shift) <= _ALIGNED else _SAME_SHIFTED
        return self.share < limit and _SAME_AMPLITUDES[0] < self.amplitude < _SAME_AMPLITUDES[1]

    @property
    def is_drift(self) -> bool:
        """Whether one neuron may look like either, as it moves."""
        low, high = _OTHER_AMPLITUDES
        return self.share < _DRIFT and low < self.amplitude < high and abs(self.shift) <= _ALIGNED

    @property
    def is_slight(self) -> bool:
        """Whether one neuron's spikes may vary so much."""
        return self.share < _VARIATION and self.distance <= _OTHER_DISTANCE

    @property
    def is_clear(self) -> bool:
        """Whether they are two neurons' without a look at the spikes."""
        if abs(self.shift) > _ALIGNED:
            return True
        alike = _OTHER_AMPLITUDES[0] < self.amplitude < _OTHER_AMPLITUDES[1]
        return self.share > _OTHER or self.distance > _OTHER_DISTANCE or not alike


@dataclass
class _Unit:
    """Spikes of a unit, by index, and their mean."""

    spikes: np.ndarray
    mean: MovingMean
    middle: float


class Separation:
    """What tells the units of one recording apart, and of how many neurons each is.

    Parameters
    ----------
    waveforms : np.ndarray, float32 [num_spikes, num_samples, num_channels]
        In units of noise.
    labels : np.ndarray, int64 [num_spikes]
        Their units.
    displacement : np.ndarray, float64 [num_spikes]
        Of the tissue, at each spike.
    seconds : np.ndarray, float64 [num_spikes]
        When each was.
    duration_s : float
        How long all of it lasted, in s.
    whitener : Whitener
        The noise.
    sampling_frequency : float
        Of the waveforms, in Hz.
    seed : int
        Of what is drawn.
    """

    def __init__(
        self,
        waveforms: np.ndarray,
        labels: np.ndarray,
        *,
        displacement: np.ndarray,
        seconds: np.ndarray,
        duration_s: float,
        whitener: Whitener,
        sampling_frequency: float,
        seed: int,
    ) -> None:
        self.waveforms, self.labels, self.displacement, self.seconds = waveforms, labels, displacement, seconds
        self.duration_s, self.seed = duration_s, seed
        num_samples = waveforms.shape[1]
        self._whitener = whitener
        self._axes = _principal_axes(self._whiten(_thinned(waveforms, _SPIKES_PER_COVARIANCE)), _DIMENSIONS)
        self._axes = self._axes.astype("float32")
        self._projection = whitener.root @ self._axes
        reach = _MAX_SHIFT_MS * sampling_frequency / 1000
        self._shifts = np.arange(-reach, reach + 0.1, 0.25)
        self._shift_matrices = np.stack([shift_matrix(num_samples, shift) for shift in self._shifts])
        origin = np.arange(num_samples) - self._shifts[:, None]
        self._held = ((origin >= 0) & (origin <= num_samples - 1)).astype("float32")[:, :, None]
        self._mismatch = self._usual_mismatch()

    def split(self) -> np.ndarray:
        """Split each unit in two, and each part again, as long as its waveforms are of two neurons.

        Returns
        -------
        np.ndarray, int64 [num_spikes]
            Labels from 0.
        """
        parts, num_parts = np.empty(len(self.labels), dtype="int64"), 0
        for label in np.unique(self.labels):
            unit = self._unit(np.flatnonzero(self.labels == label))
            parts[unit.spikes] = (
                self._split(self._steady(unit), self.seconds[unit.spikes], depth=_MAX_DEPTH) + num_parts
            )
            num_parts = int(parts[unit.spikes].max()) + 1
        return parts

    def merge(self, labels: np.ndarray, *, take_turns: bool) -> tuple[np.ndarray, np.ndarray]:
        """Merge units that are one neuron's, the most alike first.

        Parameters
        ----------
        labels : np.ndarray, int64 [num_spikes]
            The units.
        take_turns : bool
            Whether units that look alike are one that drifts, if they hardly ever fire in the same seconds, or one
            whose spikes vary, if they never fire in each other's refractory period.

        Returns
        -------
        labels : np.ndarray, int64 [num_spikes]
            The larger unit gives the label.
        shifts : np.ndarray, float64 [num_spikes]
            Samples that a spike is to be moved to be aligned like its unit.
        """
        labels, shifts, own = labels.copy(), np.zeros(len(labels)), self.waveforms
        self.waveforms = own.copy()
        units = {int(label): self._unit(np.flatnonzero(labels == label)) for label in np.unique(labels)}
        differences: dict[tuple[int, int], Difference] = {}
        two: set[tuple[int, int]] = set()
        merged = True
        while merged:
            merged = False
            ordered = sorted(units, key=lambda label: -len(units[label].spikes))
            pairs = [(one, other) for index, one in enumerate(ordered) for other in ordered[index + 1 :]]
            for one, other in pairs:
                if (one, other) not in differences:
                    differences[one, other] = self._difference(units[one], units[other])
            for pair in sorted(pairs, key=lambda pair: differences[pair].share):
                if pair in two:
                    continue
                one, other = (units[label] for label in pair)
                if not self._are_one(one, other, differences[pair], take_turns=take_turns):
                    two.add(pair)
                    continue
                shift = differences[pair].shift
                self.waveforms[other.spikes] = _delayed(self.waveforms[other.spikes], shift)
                shifts[other.spikes] -= shift
                labels[other.spikes] = pair[0]
                units[pair[0]] = self._unit(np.concatenate([one.spikes, units.pop(pair[1]).spikes]))
                # What was known of either is no longer true of both together.
                differences = {known: value for known, value in differences.items() if not set(pair) & set(known)}
                two = {known for known in two if not set(pair) & set(known)}
                merged = True
                break
        self.waveforms = own
        return labels, shifts

    def _usual_mismatch(self) -> float:
        """By how much the waveforms of most units vary more than noise does, as a share of their energy."""
        shares = []
        for label in np.unique(self.labels):
            spikes = np.flatnonzero(self.labels == label)
            if len(spikes) >= 2 * _MIN_SPIKES_SPLIT:
                waveforms = self._steady(self._unit(spikes))
                points = self._without_invariant(self._project(waveforms), template=waveforms.mean(axis=0))
                largest = float(np.linalg.eigvalsh(np.cov(_nearest(points), rowvar=False))[-1])
                noise = _largest_of_noise(_DIMENSIONS - 2, num_spikes=len(spikes))
                shares.append((largest / noise - 1) / self._energy(waveforms))
        return max(float(np.median(shares)), 0.0) if shares else np.inf

    def _widest(self, waveforms: np.ndarray) -> float:
        """Largest variance, in a direction that is chosen for it, of the waveforms of one neuron."""
        of_noise = _largest_of_noise(_LOCAL_DIMENSIONS, num_spikes=len(waveforms))
        return _MOST_WIDER * (1 + self._mismatch * self._energy(waveforms)) * of_noise

    def _energy(self, waveforms: np.ndarray) -> float:
        return float((self._whiten(waveforms.mean(axis=0)[None]) ** 2).sum())

    def _unit(self, spikes: np.ndarray) -> _Unit:
        displacement = self.displacement[spikes]
        mean = follow(self.waveforms[spikes], displacement, precision=self._whitener.precision)
        return _Unit(spikes=spikes, mean=mean, middle=float(displacement.mean()))

    def _steady(self, unit: _Unit, *, at: float = 0.0, most: int | None = None) -> np.ndarray:
        """Waveforms of a unit, or of every so many-th of its spikes, as they would be at one displacement."""
        spikes = unit.spikes if most is None else _thinned(unit.spikes, most)
        if not unit.mean.slope.any():
            return self.waveforms[spikes]
        away = (self.displacement[spikes] - at).astype("float32")
        return self.waveforms[spikes] - away[:, None, None] * unit.mean.slope

    def _project(self, waveforms: np.ndarray) -> np.ndarray:
        """Whitened coordinates of waveforms, float32 [num_spikes, num_dimensions]."""
        return waveforms.reshape(len(waveforms), -1) @ self._projection

    def _difference(self, one: _Unit, other: _Unit) -> Difference:
        """Compare a unit with a smaller one, where the tissue was when that one fired."""
        templates = (
            self.waveforms[unit.spikes].mean(axis=0) + np.float32(other.middle - unit.middle) * unit.mean.slope
            for unit in (one, other)
        )
        return self.compare(*templates, num_spikes=(len(one.spikes), len(other.spikes)))

    def compare(self, template: np.ndarray, other: np.ndarray, *, num_spikes: tuple[int, int]) -> Difference:
        """Compare two mean waveforms, float32 [num_samples, num_channels], of so many spikes each."""
        # Over the samples that both hold.
        firsts, shifted = self._whiten(self._held * template), self._whiten(self._shift_matrices @ other)
        lengths = np.linalg.norm(firsts, axis=1) * np.linalg.norm(shifted, axis=1)
        best = int(((firsts * shifted).sum(axis=1) / np.maximum(lengths, 1e-6)).argmax())
        first, difference = firsts[best], shifted[best] - firsts[best]
        invariant = self._invariant_axes(self._held[best] * template)
        energy = max(float(first @ first), 1e-6)
        remaining = difference - invariant @ (invariant.T @ difference)
        # What noise alone makes two means differ by.
        noise = len(first) * (1 / num_spikes[0] + 1 / num_spikes[1])
        return Difference(
            shift=float(self._shifts[best]),
            share=float(np.sqrt(max(remaining @ remaining - noise, 0.0) / energy)),
            amplitude=float(first @ shifted[best]) / energy,
            distance=float(np.sqrt(max(difference @ difference - noise, 0.0))),
        )

    def _are_one(self, one: _Unit, other: _Unit, difference: Difference, *, take_turns: bool) -> bool:
        trains = self.seconds[one.spikes], self.seconds[other.spikes]
        if difference.is_none and not fire_independently(*trains):
            return True
        by_chance = _BY_CHANCE_IF_CLEAR if difference.is_clear else _BY_CHANCE
        if take_turns and difference.is_drift:
            if fire_in_turns(*trains) or share_refractory_period(*trains, by_chance=by_chance):
                return True
        if difference.is_clear and not difference.is_none:
            return False
        waveforms, others = (self._steady(unit, at=other.middle, most=_SPIKES_PER_FIT) for unit in (one, other))
        points, moved = self._project(waveforms), self._project(_delayed(others, difference.shift))
        return not self._are_two(points, moved, trains=trains, difference=difference, widest=self._widest(waveforms))

    def _are_two(
        self,
        points: np.ndarray,
        others: np.ndarray,
        *,
        trains: tuple[np.ndarray, np.ndarray],
        difference: Difference,
        widest: float,
    ) -> bool:
        if fire_together(*trains, duration_s=self.duration_s):
            return are_two(points, others) or are_two(points, others, widest=widest)
        return are_two(points, others) and not (difference.is_slight and differ_by_pauses(*trains))

    def _split(self, waveforms: np.ndarray, seconds: np.ndarray, *, depth: int) -> np.ndarray:
        labels = np.zeros(len(waveforms), dtype="int64")
        if len(waveforms) < 2 * _MIN_SPIKES_SPLIT or depth == 0:
            return labels
        points, widest = self._project(waveforms), self._widest(waveforms)
        for second in self._halves(points, template=waveforms.mean(axis=0), widest=widest):
            if min(second.sum(), (~second).sum()) < _MIN_SPIKES_SPLIT:
                continue
            larger, smaller = (second, ~second) if second.mean() > 0.5 else (~second, second)
            difference = self.compare(
                waveforms[larger].mean(axis=0),
                waveforms[smaller].mean(axis=0),
                num_spikes=(int(larger.sum()), int(smaller.sum())),
            )
            trains = seconds[~second], seconds[second]
            is_other = difference.share >= _SAME or fire_independently(*trains)
            halves = points[~second], points[second]
            if is_other and self._are_two(*halves, trains=trains, difference=difference, widest=widest):
                for step, side in enumerate((~second, second)):
                    labels[side] = self._split(waveforms[side], seconds[side], depth=depth - 1) + labels.max() + step
                break
        return labels

    def _whiten(self, waveforms: np.ndarray) -> np.ndarray:
        return waveforms.reshape(len(waveforms), -1) @ self._whitener.root

    def _invariant_axes(self, template: np.ndarray) -> np.ndarray:
        """Orthonormal whitened directions of amplitude and of time, [dim, 2]."""
        return np.linalg.qr(self._whiten(np.stack([template, np.gradient(template, axis=0)])).T)[0]

    def _without_invariant(self, points: np.ndarray, *, template: np.ndarray) -> np.ndarray:
        """Points about their mean, without what amplitude and time change."""
        invariant = np.linalg.qr(self._axes.T @ self._invariant_axes(template))[0]
        centred = points - points.mean(axis=0)
        return centred - (centred @ invariant) @ invariant.T

    def _halves(self, points: np.ndarray, *, template: np.ndarray, widest: float) -> Iterator[np.ndarray]:
        """Ways to part a unit in two: which spikes are the second's, bool [num_spikes]."""
        centred = self._without_invariant(points, template=template)
        # Overlaps that were not resolved must not give the directions.
        reduced = centred @ _principal_axes(_nearest(centred), _LOCAL_DIMENSIONS)
        yield _halves_along(reduced[:, 0], widest=widest)
        radius = (reduced**2).sum(axis=1)
        fitted = _thinned(reduced[radius <= np.quantile(radius, 0.98)], _SPIKES_PER_FIT)
        axis, threshold = part_in_two(fitted, seed=self.seed)
        yield reduced @ axis > threshold


def are_two(points: np.ndarray, others: np.ndarray, *, widest: float = np.inf) -> bool:
    """Whether two clusters are two, on the line that parts them best.

    Their spikes are compared with two Gaussians of one width, and with one Gaussian. Where a single cluster was cut in
    two, the one explains them as well.

    Parameters
    ----------
    points, others : np.ndarray, float32 [num_spikes, num_dimensions]
        Members of either.
    widest : float
        Largest variance of one cluster, where that is known.

    Returns
    -------
    bool
    """
    difference = others.mean(axis=0) - points.mean(axis=0)
    residual = np.concatenate([points - points.mean(axis=0), others - others.mean(axis=0)])
    axes = _principal_axes(residual, _LOCAL_DIMENSIONS - 1)
    axes = np.linalg.qr(np.column_stack([difference, axes]))[0]
    points, others = points @ axes, others @ axes
    axis = discriminant_axis(points, others)
    along = np.concatenate([points, others]) @ (axis / max(float(np.linalg.norm(axis)), 1e-12))
    return is_bimodal(along, first=np.arange(len(along)) < len(points), widest=widest)


def is_bimodal(values: np.ndarray, *, first: np.ndarray, widest: float = np.inf) -> bool:
    """Whether values come from two Gaussians of one width rather than from one.

    Parameters
    ----------
    values : np.ndarray, float [num_values]
        One number a spike.
    first : np.ndarray, bool [num_values]
        Which are thought to belong to the first of two: where the fit begins.
    widest : float
        Largest variance of one Gaussian, where that is known: then they may lie nearer to each other.

    Returns
    -------
    bool
    """
    low, high = np.quantile(values, [0.01, 0.99])
    margin = (high - low) / 6
    values = np.clip(values, low - margin, high + margin).astype("float64")
    share = np.where(first, 0.0, 1.0)
    least = min(_LEAST_WEIGHT, min(first.mean(), 1 - first.mean()) / 3)
    if least <= 0 or values.std() == 0:
        return False
    one = two = variance = log_likelihood = 0.0
    for _ in range(_NUM_STEPS):
        weight = share.mean()
        if not least < weight < 1 - least:
            return False
        one, two = float(np.average(values, weights=1 - share)), float(np.average(values, weights=share))
        variance = min(float(np.mean((1 - share) * (values - one) ** 2 + share * (values - two) ** 2)), widest)
        if variance <= 0:
            return True
        log_one = np.log(1 - weight) - (values - one) ** 2 / (2 * variance)
        log_two = np.log(weight) - (values - two) ** 2 / (2 * variance)
        together = np.logaddexp(log_one, log_two)
        share = np.exp(log_two - together)
        log_likelihood = float(together.sum()) - 0.5 * len(values) * np.log(variance)
    single = min(float(values.var()), widest)
    gain = log_likelihood + 0.5 * len(values) * (np.log(single) + values.var() / single)
    gap = abs(two - one) / np.sqrt(variance)
    least_gap = _LEAST_GAP if np.isinf(widest) else _LEAST_GAP_KNOWN
    return bool(gap > least_gap and gain > _LOG_LIKELIHOOD + _PER_SPIKE * len(values))


def _halves_along(values: np.ndarray, *, widest: float) -> np.ndarray:
    """Which values belong to the upper of two Gaussians of one width, bool [num_values]."""
    values = np.clip(values, *np.quantile(values, [0.02, 0.98])).astype("float64")
    one, two = np.quantile(values, [0.15, 0.85])
    weight, variance, share = 0.5, max(min(widest, float(values.var())), 1e-9), np.zeros(len(values))
    for _ in range(_NUM_STEPS):
        share = expit(np.log(weight / (1 - weight)) + ((values - one) ** 2 - (values - two) ** 2) / (2 * variance))
        weight = float(np.clip(share.mean(), 0.02, 0.98))
        one, two = float(np.average(values, weights=1 - share)), float(np.average(values, weights=share))
        variance = float(np.mean((1 - share) * (values - one) ** 2 + share * (values - two) ** 2))
        variance = max(min(widest, variance), 1e-9)
    return share > 0.5


def _largest_of_noise(num_dimensions: int, *, num_spikes: int) -> float:
    """Largest variance in any direction of so many points of variance 1 (Marchenko and Pastur)."""
    return (1 + np.sqrt(num_dimensions / num_spikes)) ** 2


def _nearest(points: np.ndarray) -> np.ndarray:
    """Points but for the farthest twentieth."""
    energy = (points**2).sum(axis=1)
    return points[energy <= np.quantile(energy, 0.95)]


def _principal_axes(points: np.ndarray, num_axes: int) -> np.ndarray:
    """Orthonormal axes of the largest variances, [num_dimensions, num_axes]."""
    _, axes = np.linalg.eigh(np.cov(points, rowvar=False))
    return axes[:, ::-1][:, :num_axes]


def _delayed(waveforms: np.ndarray, shift: float) -> np.ndarray:
    return shift_matrix(waveforms.shape[1], shift) @ waveforms


def _thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """Every so many-th row, so that no more than so many are left."""
    return rows[:: max(1, -(-len(rows) // most))]
