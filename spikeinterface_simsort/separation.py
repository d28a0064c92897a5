"""Units split where their waveforms are of two kinds, and merged where they are of one.

Waveforms are compared in whitened coordinates, in which noise has variance 1 in every direction. A neuron's amplitude
varies, and so does the time at which its spikes are aligned: along a template and along its derivative in time, units
do not differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from spikeinterface_simsort.clustering import discriminant_axis
from spikeinterface_simsort.template_matching import shift_matrix

# Principal directions of all waveforms in which units are compared, and of two units in which they are parted.
_DIMENSIONS, _LOCAL_DIMENSIONS = 16, 6
_SPIKES_PER_COVARIANCE = 10_000
_SPIKES_PER_FIT = 3000

# Templates that differ by less than this share of the larger are one neuron's, if their amplitudes are alike.
_SAME, _SAME_AMPLITUDES = 0.18, (0.67, 1.5)
# Two neurons are aligned alike: what is alike only when shifted is one neuron's, aligned now here, now there.
_SAME_SHIFTED = 0.25
# Those that differ by more of it, or by so many standard deviations of the noise, or whose amplitudes are too unlike,
# are two.
_OTHER, _OTHER_DISTANCE, _OTHER_AMPLITUDES = 0.6, 8.0, (0.5, 2.0)
_MAX_SHIFT_MS = 1.0
# Where spikes of two units are aligned differently by more samples, only their templates are compared.
_ALIGNED = 2.0
# Two Gaussians of one width are better than one by this log likelihood, a spike and altogether, and lie so far apart.
_LOG_LIKELIHOOD, _PER_SPIKE, _LEAST_GAP = 25.0, 0.01, 2.2
_LEAST_WEIGHT, _NUM_STEPS = 0.04, 100
_MIN_SPIKES_SPLIT = 30
# Templates of a neuron that moves differ by less than this; it looks like one of them at a time.
_DRIFT, _MOST_TOGETHER = 0.45, 0.35
_BIN_S, _MIN_SPIKES_TURNS = 5.0, 50
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
    def is_clear(self) -> bool:
        """Whether they are two neurons' without a look at the spikes."""
        if abs(self.shift) > _ALIGNED:
            return True
        alike = _OTHER_AMPLITUDES[0] < self.amplitude < _OTHER_AMPLITUDES[1]
        return self.share > _OTHER or self.distance > _OTHER_DISTANCE or not alike


class Separation:
    """What tells the waveforms of one recording apart.

    Parameters
    ----------
    waveforms : np.ndarray, float32 [num_spikes, num_samples, num_channels]
        Of all units, in units of noise.
    root : np.ndarray, float32 [dim, dim]
        Whitens them.
    sampling_frequency : float
        Of the waveforms, in Hz.
    seed : int
        Of what is drawn.
    """

    def __init__(self, waveforms: np.ndarray, *, root: np.ndarray, sampling_frequency: float, seed: int) -> None:
        self.seed = seed
        num_samples = waveforms.shape[1]
        whitened = _thinned(waveforms, _SPIKES_PER_COVARIANCE).reshape(-1, len(root)) @ root
        self._axes = _principal_axes(whitened, _DIMENSIONS).astype("float32")
        self._root, self._projection = root, root @ self._axes
        reach = _MAX_SHIFT_MS * sampling_frequency / 1000
        self._shifts = np.arange(-reach, reach + 0.1, 0.25)
        self._shift_matrices = np.stack([shift_matrix(num_samples, shift) for shift in self._shifts])
        origin = np.arange(num_samples) - self._shifts[:, None]
        self._held = ((origin >= 0) & (origin <= num_samples - 1)).astype("float32")[:, :, None]

    def project(self, waveforms: np.ndarray) -> np.ndarray:
        """Whitened coordinates of waveforms, float32 [num_spikes, num_dimensions]."""
        return waveforms.reshape(len(waveforms), -1) @ self._projection

    def difference(self, waveforms: np.ndarray, others: np.ndarray) -> Difference:
        """Compare the mean waveform of a unit with another's, float32 [num_spikes, num_samples, num_channels] each."""
        template, other = waveforms.mean(axis=0), others.mean(axis=0)
        # Over the samples that both hold.
        firsts, shifted = self._whiten(self._held * template), self._whiten(self._shift_matrices @ other)
        lengths = np.linalg.norm(firsts, axis=1) * np.linalg.norm(shifted, axis=1)
        best = int(((firsts * shifted).sum(axis=1) / np.maximum(lengths, 1e-6)).argmax())
        first, difference = firsts[best], shifted[best] - firsts[best]
        invariant = self._invariant_axes(self._held[best] * template)
        energy = max(float(first @ first), 1e-6)
        remaining = difference - invariant @ (invariant.T @ difference)
        # What noise alone makes two means differ by.
        noise = len(first) * (1 / len(waveforms) + 1 / len(others))
        return Difference(
            shift=float(self._shifts[best]),
            share=float(np.sqrt(max(remaining @ remaining - noise, 0.0) / energy)),
            amplitude=float(first @ shifted[best]) / energy,
            distance=float(np.sqrt(max(difference @ difference - noise, 0.0))),
        )

    def split(self, waveforms: np.ndarray, *, depth: int = _MAX_DEPTH) -> np.ndarray:
        """Split a unit in two, and each half again, as long as its waveforms are of two kinds.

        Parameters
        ----------
        waveforms : np.ndarray, float32 [num_spikes, num_samples, num_channels]
            Of one unit.
        depth : int
            How often.

        Returns
        -------
        np.ndarray, int64 [num_spikes]
            Labels from 0.
        """
        labels = np.zeros(len(waveforms), dtype="int64")
        if len(waveforms) < 2 * _MIN_SPIKES_SPLIT or depth == 0:
            return labels
        points = self.project(waveforms)
        half = self._halves(points, template=waveforms.mean(axis=0))
        sizes = np.bincount(half, minlength=2)
        if sizes.min() < _MIN_SPIKES_SPLIT:
            return labels
        larger = int(sizes.argmax())
        difference = self.difference(waveforms[half == larger], waveforms[half != larger])
        if difference.share < _SAME or not are_two(points[half == 0], points[half == 1]):
            return labels
        for side in (0, 1):
            members = np.flatnonzero(half == side)
            labels[members] = self.split(waveforms[members], depth=depth - 1) + labels.max() + side
        return labels

    def merge(
        self, waveforms: np.ndarray, labels: np.ndarray, *, times: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Merge units that are one, the most alike first.

        Parameters
        ----------
        waveforms : np.ndarray, float32 [num_spikes, num_samples, num_channels]
            Of all units.
        labels : np.ndarray, int64 [num_spikes]
            Their units.
        times : np.ndarray, float64 [num_spikes], optional
            In seconds. Without them, no two units are taken for one that drifts.

        Returns
        -------
        labels : np.ndarray, int64 [num_spikes]
            The larger unit gives the label.
        shifts : np.ndarray, float64 [num_spikes]
            Samples that a spike is to be moved to be aligned like its unit.
        """
        labels, shifts, waveforms = labels.copy(), np.zeros(len(labels)), waveforms.copy()
        members = {int(unit): np.flatnonzero(labels == unit) for unit in np.unique(labels)}
        differences: dict[tuple[int, int], Difference] = {}
        two: set[tuple[int, int]] = set()
        while True:
            units = sorted(members, key=lambda unit: -len(members[unit]))
            pairs = [(unit, other) for index, unit in enumerate(units) for other in units[index + 1 :]]
            for pair in pairs:
                if pair not in differences:
                    differences[pair] = self.difference(*(waveforms[members[unit]] for unit in pair))
            for unit, other in sorted(pairs, key=lambda pair: differences[pair].share):
                difference = differences[unit, other]
                if (unit, other) in two:
                    continue
                pair_times = None if times is None else (times[members[unit]], times[members[other]])
                if not self._are_one(difference, waveforms[members[unit]], waveforms[members[other]], times=pair_times):
                    two.add((unit, other))
                    continue
                waveforms[members[other]] = _delayed(waveforms[members[other]], difference.shift)
                shifts[members[other]] -= difference.shift
                labels[members[other]] = unit
                members[unit] = np.concatenate([members[unit], members.pop(other)])
                # What was known of either is no longer true of both together.
                differences = {pair: known for pair, known in differences.items() if not {unit, other} & set(pair)}
                two = {pair for pair in two if not {unit, other} & set(pair)}
                break
            else:
                return labels, shifts

    def _are_one(
        self,
        difference: Difference,
        waveforms: np.ndarray,
        others: np.ndarray,
        *,
        times: tuple[np.ndarray, np.ndarray] | None,
    ) -> bool:
        if difference.is_none or (times is not None and difference.is_drift and take_turns(*times)):
            return True
        if difference.is_clear:
            return False
        moved = _delayed(_thinned(others, _SPIKES_PER_FIT), difference.shift)
        return not are_two(self.project(_thinned(waveforms, _SPIKES_PER_FIT)), self.project(moved))

    def _whiten(self, waveforms: np.ndarray) -> np.ndarray:
        return waveforms.reshape(len(waveforms), -1) @ self._root

    def _invariant_axes(self, template: np.ndarray) -> np.ndarray:
        """Orthonormal whitened directions of amplitude and of time, [dim, 2]."""
        return np.linalg.qr(self._whiten(np.stack([template, np.gradient(template, axis=0)])).T)[0]

    def _halves(self, points: np.ndarray, *, template: np.ndarray) -> np.ndarray:
        """The two clusters that a unit would be made of; 0 or 1 for each spike."""
        invariant = np.linalg.qr(self._axes.T @ self._invariant_axes(template))[0]
        centred = points - points.mean(axis=0)
        centred -= (centred @ invariant) @ invariant.T
        # Overlaps that were not resolved must not give the directions.
        energy = (centred**2).sum(axis=1)
        usual = centred[energy <= np.quantile(energy, 0.95)]
        axes = _principal_axes(usual, _LOCAL_DIMENSIONS)
        reduced = centred @ axes
        radius = (reduced**2).sum(axis=1)
        fitted = _thinned(reduced[radius <= np.quantile(radius, 0.98)], _SPIKES_PER_FIT)
        mixture = GaussianMixture(2, covariance_type="tied", n_init=3, random_state=self.seed, reg_covar=0.1)
        with threadpool_limits(1):
            return mixture.fit(fitted).predict(reduced)


def are_two(points: np.ndarray, others: np.ndarray) -> bool:
    """Whether two clusters are two, on the line that parts them best.

    Their spikes are compared with two Gaussians of one width, and with one Gaussian. Where a single cluster was cut in
    two, the one explains them as well.

    Parameters
    ----------
    points, others : np.ndarray, float32 [num_spikes, num_dimensions]
        Members of either.

    Returns
    -------
    bool
    """
    difference = others.mean(axis=0) - points.mean(axis=0)
    residual = np.concatenate([points - points.mean(axis=0), others - others.mean(axis=0)])
    axes = _principal_axes(residual, _LOCAL_DIMENSIONS - 1)
    axes = np.linalg.qr(np.column_stack([difference, axes]))[0]
    points, others = points @ axes, others @ axes
    along = np.concatenate([points, others]) @ discriminant_axis(points, others)
    return is_bimodal(along, first=np.arange(len(along)) < len(points))


def take_turns(times: np.ndarray, others: np.ndarray) -> bool:
    """Whether two units hardly ever fire in the same seconds, as one neuron's halves do that moves to and fro.

    Parameters
    ----------
    times, others : np.ndarray, float64 [num_spikes]
        In seconds.

    Returns
    -------
    bool
    """
    if min(len(times), len(others)) < _MIN_SPIKES_TURNS:
        return False
    edges = np.arange(min(times.min(), others.min()), max(times.max(), others.max()) + _BIN_S, _BIN_S)
    shares = [np.histogram(train, edges)[0] / len(train) for train in (times, others)]
    return float(np.minimum(*shares).sum()) < _MOST_TOGETHER


def is_bimodal(values: np.ndarray, *, first: np.ndarray) -> bool:
    """Whether values come from two Gaussians of one width rather than from one.

    Parameters
    ----------
    values : np.ndarray, float [num_values]
        One number a spike.
    first : np.ndarray, bool [num_values]
        Which are thought to belong to the first of two: where the fit begins.

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
        variance = float(np.mean((1 - share) * (values - one) ** 2 + share * (values - two) ** 2))
        if variance <= 0:
            return True
        log_one = np.log(1 - weight) - (values - one) ** 2 / (2 * variance)
        log_two = np.log(weight) - (values - two) ** 2 / (2 * variance)
        together = np.logaddexp(log_one, log_two)
        share = np.exp(log_two - together)
        log_likelihood = float(together.sum()) - 0.5 * len(values) * np.log(variance)
    gain = log_likelihood + 0.5 * len(values) * (np.log(values.var()) + 1)
    gap = abs(two - one) / np.sqrt(variance)
    return bool(gap > _LEAST_GAP and gain > _LOG_LIKELIHOOD + _PER_SPIKE * len(values))


def _principal_axes(points: np.ndarray, num_axes: int) -> np.ndarray:
    """Orthonormal axes of the largest variances, [num_dimensions, num_axes]."""
    _, axes = np.linalg.eigh(np.cov(points, rowvar=False))
    return axes[:, ::-1][:, :num_axes]


def _delayed(waveforms: np.ndarray, shift: float) -> np.ndarray:
    return shift_matrix(waveforms.shape[1], shift) @ waveforms


def _thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """Every so many-th row, so that no more than so many are left."""
    return rows[:: max(1, -(-len(rows) // most))]
