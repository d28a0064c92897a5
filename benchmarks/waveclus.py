"""Single-channel simulations of Quiroga et al. 2004, read or built again by their recipe, as recordings of a tetrode.

References
----------
Quiroga, Nadasdy & Ben-Shaul 2004, Neural Comput 16:1661 (the simulations).
arXiv 2502.03198 (SimSort: four channels out of one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from probeinterface import generate_tetrode
from scipy.io import loadmat
from scipy.signal import butter, resample_poly, sosfiltfilt
from scipy.spatial.distance import pdist, squareform
from spikeinterface.core import BaseRecording, BaseSorting, NumpyRecording, NumpySorting

from benchmarks.hybrid import WAVEFORM_FILE, read_waves
from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.composition import random_streams
from spikeinterface_simsort.simulation.extracellular import lead_field
from spikeinterface_simsort.simulation.spiketrains import spike_train

SAMPLING_FREQUENCY = 24000.0
# Shapes are added at this many times that rate, so that their peaks fall between samples.
OVERSAMPLING = 4
NUM_CHANNELS = 4
# What stands for the peak of 1 that all shapes have.
PEAK_UV = 100.0
NOISE_LEVELS = (0.05, 0.1, 0.15, 0.2)

# Of the conversion to four channels.
SCALES = (0.5, 1.0)
MAX_SHIFT = 5
CHANNEL_NOISE = 0.01

NUM_UNITS = 3
FIRING_RATE_HZ = 20.0
REFRACTORY_MS = 2.0
# Three shapes are as far apart as the two nearest of them. A triple is drawn from those whose distance lies between
# these quantiles of the distances of all triples, and of these from the part whose two farthest are nearest: of three
# difficult shapes, none sticks out.
NUM_TRIPLES = 20_000
DISTANCE_QUANTILES = {"easy": (0.98, 1.0), "difficult": (0.5, 0.75)}
NEAREST_PART = {"easy": 1.0, "difficult": 0.25}

# A shape: so much before and after its peak, of which this much at either end fades away.
SHAPE_MS = (1.2, 1.4)
FADE_MS = 0.3
# A multiple of the oversampling: a spike whose peak falls on a sample shows it.
PEAK_SAMPLE = OVERSAMPLING * round(SHAPE_MS[0] * SAMPLING_FREQUENCY / 1000)
# What deflects so much, so far from its peak, is no one spike.
_SECOND_PEAK, _SECOND_PEAK_MS = 0.7, 0.5


# Where spikes are; recorded means were high-passed already.
_BAND_HZ = (300.0, 6000.0)
# A contact counts that shows a unit at this share of its largest amplitude or more.
_LEAST_SHARE = 0.4
_DISTANCE_UM = (15.0, 60.0)
# From the cells of young animals as they are to the narrow spikes of adults, as in training.
_SPIKE_SPEED = (1.0, 2.5)
# The published files mark the beginning of a spike: its peak follows within this time.
_PEAK_WITHIN_MS = 2.0


@dataclass(frozen=True)
class SpikeShapes:
    """A library of single-channel spikes.

    Attributes
    ----------
    waveforms : np.ndarray, float32 [num_shapes, num_samples]
        At ``OVERSAMPLING * SAMPLING_FREQUENCY``; the largest deflection is 1 and upwards, at sample `PEAK_SAMPLE`.
    neurons : np.ndarray, str [num_shapes]
        Whose spike each is: one neuron is seen from several places.
    """

    waveforms: np.ndarray
    neurons: np.ndarray

    def __len__(self) -> int:
        return len(self.waveforms)


@dataclass(frozen=True)
class SingleChannel:
    """One channel and what is true of it.

    Attributes
    ----------
    trace : np.ndarray, float64 [num_samples]
        In units of the spikes' peak.
    times : np.ndarray, int64 [num_spikes]
        Sample, from 0, of each spike's largest deflection, increasing.
    classes : np.ndarray, int64 [num_spikes]
        Unit of each spike, from 1.
    sampling_frequency : float
        In Hz.
    """

    trace: np.ndarray
    times: np.ndarray
    classes: np.ndarray
    sampling_frequency: float


@dataclass(frozen=True)
class FourChannels:
    """A trace as four channels show it.

    Attributes
    ----------
    traces : np.ndarray, float32 [num_samples, 4]
        In the trace's unit.
    gains : np.ndarray, float64 [4]
        Scale with its sign.
    shifts : np.ndarray, int64 [4]
        Samples by which each channel is late.
    """

    traces: np.ndarray
    gains: np.ndarray
    shifts: np.ndarray

    @property
    def peak_shift(self) -> int:
        """Samples by which the largest deflection over all channels is late."""
        return int(self.shifts[np.abs(self.gains).argmax()])


def read_waveclus(path: Path) -> SingleChannel:
    """Read one of the published files, ``C_Easy1_noise005.mat`` and the like.

    They mark the first sample of each spike, counted from 1; here a spike is marked by its largest deflection, as
    sorters do. In all spikes of a class it comes equally long after the mark: where the class's mean deflects most.

    Parameters
    ----------
    path : Path
        Of MATLAB, before version 7.3.

    Returns
    -------
    SingleChannel
        Without spikes whose largest deflection would come after the end.

    Raises
    ------
    ValueError
        A variable is missing or of another form, or classes and times differ in number.
    """
    variables = loadmat(path)
    missing = {"data", "spike_times", "spike_class", "samplingInterval"} - set(variables)
    if missing:
        raise ValueError(f"{path} is no simulation of wave_clus: it has no variable {', '.join(sorted(missing))}.")
    trace = np.asarray(variables["data"], dtype="float64").ravel()
    interval_ms = np.asarray(variables["samplingInterval"], dtype="float64").ravel()
    if trace.size == 0 or interval_ms.size != 1 or not interval_ms[0] > 0:
        raise ValueError(f"{path} needs samples in data, and one positive number, in ms, in samplingInterval.")
    marks = _first_cell(variables["spike_times"], name="spike_times", path=path) - 1
    classes = _first_cell(variables["spike_class"], name="spike_class", path=path)
    if len(marks) != len(classes):
        raise ValueError(f"{path} has {len(marks)} spike_times, but the spike_class of {len(classes)} spikes.")
    if marks.size and not 0 <= marks.min() <= marks.max() < trace.size:
        raise ValueError(f"{path} has spike_times outside of its {trace.size} samples.")

    sampling_frequency = 1000.0 / float(interval_ms[0])
    times = marks.copy()
    for unit in np.unique(classes):
        times[classes == unit] += _peak_delay(trace, marks[classes == unit], sampling_frequency=sampling_frequency)
    # Classes peak at different times after their marks.
    order = np.argsort(times, kind="stable")
    order = order[times[order] < trace.size]
    return SingleChannel(trace, times[order], classes[order], sampling_frequency)


def _first_cell(cells: np.ndarray, *, name: str, path: Path) -> np.ndarray:
    """Whole numbers of the first of MATLAB's cells, int64 [num]."""
    if cells.dtype != object or cells.size == 0:
        raise ValueError(f"{path} needs a cell array as {name}, not one of {cells.dtype}.")
    return np.asarray(cells.ravel()[0]).ravel().astype("int64")


def _peak_delay(trace: np.ndarray, marks: np.ndarray, *, sampling_frequency: float) -> int:
    """Samples from the marks of a unit's spikes to the largest deflection of their mean."""
    reach = np.arange(round(_PEAK_WITHIN_MS * sampling_frequency / 1000))
    whole = marks[marks + len(reach) <= len(trace)]
    if not len(whole):
        return 0
    mean = trace[whole[:, None] + reach].mean(axis=0) - np.median(trace)
    return int(np.abs(mean).argmax())


def to_tetrode(trace: np.ndarray, *, seed: int | np.random.Generator) -> FourChannels:
    """Make four channels of one, as SimSort's authors did.

    Parameters
    ----------
    trace : np.ndarray, [num_samples]
        In units of the spikes' peak.
    seed : int or np.random.Generator
        Of signs, scales, shifts and noise.

    Returns
    -------
    FourChannels
        Each is the trace, inverted or not, scaled by 0.5 to 1, up to 5 samples late, and with white noise of standard
        deviation 0.01. What a shift moves in at the beginning is 0.
    """
    rng = np.random.default_rng(seed)
    gains = rng.choice([-1.0, 1.0], size=NUM_CHANNELS) * rng.uniform(*SCALES, size=NUM_CHANNELS)
    shifts = rng.integers(0, MAX_SHIFT + 1, size=NUM_CHANNELS)
    traces = CHANNEL_NOISE * rng.standard_normal((len(trace), NUM_CHANNELS), dtype="float32")
    for channel, (gain, shift) in enumerate(zip(gains, shifts, strict=True)):
        traces[shift:, channel] += gain * trace[: len(trace) - shift]
    return FourChannels(traces, gains, shifts)


def tetrode_recording(channel: SingleChannel, *, seed: int | np.random.Generator) -> tuple[BaseRecording, BaseSorting]:
    """Make a tetrode's recording of one channel, and the sorting that is true for it.

    Parameters
    ----------
    channel : SingleChannel
        Read or built.
    seed : int or np.random.Generator
        See `to_tetrode`.

    Returns
    -------
    recording : BaseRecording
        In uV (gain 1), the spikes' peak on a channel of scale 1 being `PEAK_UV`, with a tetrode's probe. Save it
        (``recording.save()``) before sorting it with a sorter of SpikeInterface.
    sorting : BaseSorting
        Units are called as the classes; times are those of the largest deflection over the four channels.
    """
    four = to_tetrode(channel.trace, seed=seed)
    recording = NumpyRecording([four.traces * np.float32(PEAK_UV)], sampling_frequency=channel.sampling_frequency)
    recording.set_channel_gains(1.0)
    recording.set_channel_offsets(0.0)
    probe = generate_tetrode()
    probe.set_contact_ids([str(contact) for contact in range(NUM_CHANNELS)])
    probe.set_device_channel_indices(np.arange(NUM_CHANNELS))
    recording.set_probe(probe)

    times = channel.times + four.peak_shift
    inside = times < len(channel.trace)
    units = np.unique(channel.classes)
    trains = {int(unit): times[inside & (channel.classes == unit)] for unit in units}
    sorting = NumpySorting.from_unit_dict([trains], channel.sampling_frequency)
    return recording, sorting


def spike_shapes(
    neurons: Sequence[NeuronCurrents] = (),
    *,
    recorded: Path | None = None,
    positions_per_neuron: int = 12,
    seed: int = 0,
) -> SpikeShapes:
    """Gather single-channel spikes, of simulated neurons and of recorded units.

    Parameters
    ----------
    neurons : sequence of NeuronCurrents
        Of a bank: their mean spike, from 300 to 6000 Hz, at points around the soma.
    recorded : Path, optional
        Folder with `WAVEFORM_FILE`: mean waveforms of 17 units on a dense probe (eMouse drift simulation of
        Kilosort2). Of each unit, contacts count that show it at 40 % of its largest amplitude or more.
    positions_per_neuron : int
        Points, in directions drawn at random, at 15 to 60 um.
    seed : int
        Of the points.

    Returns
    -------
    SpikeShapes

    Raises
    ------
    FileNotFoundError
        The folder does not hold the file.
    ValueError
        There is nothing to gather shapes from, or the file holds something else.
    """
    rng = np.random.default_rng(seed)
    waveforms, names = [], []
    for neuron in neurons:
        shapes = _neuron_shapes(neuron, num_positions=positions_per_neuron, rng=rng)
        waveforms.append(shapes)
        names += [neuron.name] * len(shapes)
    if recorded is not None:
        for unit, shapes in enumerate(_recorded_shapes(recorded / WAVEFORM_FILE)):
            waveforms.append(shapes)
            names += [f"recorded_{unit}"] * len(shapes)
    if not names:
        raise ValueError("There are no spike shapes: give neurons, a folder of recorded ones, or both.")
    return SpikeShapes(np.concatenate(waveforms).astype("float32"), np.array(names))


def _neuron_shapes(neuron: NeuronCurrents, *, num_positions: int, rng: np.random.Generator) -> np.ndarray:
    """A neuron's mean spike at points around it, float64 [num_kept, num_samples]."""
    direction = rng.normal(size=(num_positions, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points = direction * rng.uniform(*_DISTANCE_UM, size=(num_positions, 1))
    field = lead_field(neuron, soma_position=np.zeros(3), contact_positions=points)
    potentials = field.astype("float64") @ neuron.mean_currents
    potentials -= potentials[:, :8].mean(axis=1, keepdims=True)
    shapes = []
    for potential, speed in zip(
        potentials, np.exp(rng.uniform(*np.log(_SPIKE_SPEED), size=num_positions)), strict=True
    ):
        rate = 1000.0 * speed / neuron.dt
        band = butter(2, _BAND_HZ, btype="bandpass", fs=rate, output="sos")
        shapes.append(_as_shapes(sosfiltfilt(band, potential[None], axis=1, padlen=len(potential) - 1), rate=rate))
    return np.concatenate(shapes)


def _recorded_shapes(path: Path) -> list[np.ndarray]:
    """Recorded mean waveforms, float64 [num_contacts, num_samples] for each unit."""
    units, rate = read_waves(path)
    smooth = butter(2, _BAND_HZ[1], fs=rate, output="sos")
    shapes = []
    for unit in units:
        amplitude = np.abs(unit.waves).max(axis=1)
        seen = unit.waves[amplitude >= _LEAST_SHARE * amplitude.max()]
        # The mean of the two ends is the rest, as far as there is one.
        seen = seen - seen[:, [0, -1]].mean(axis=1, keepdims=True)
        shapes.append(_as_shapes(sosfiltfilt(smooth, seen, axis=1), rate=rate))
    return shapes


def _as_shapes(potentials: np.ndarray, *, rate: float) -> np.ndarray:
    """Bring waveforms [num, num_samples] to a library's rate and window, float64 [num_kept, num_shape_samples]."""
    fine_rate = OVERSAMPLING * SAMPLING_FREQUENCY
    ratio = Fraction(fine_rate / rate).limit_denominator(100)
    fine = resample_poly(potentials, ratio.numerator, ratio.denominator, axis=1)
    before, after = PEAK_SAMPLE, round(SHAPE_MS[1] * fine_rate / 1000)
    # Windows end early after some peaks and begin late before others: there is nothing beyond.
    padded = np.pad(fine, ((0, 0), (before, after)))
    peaks = np.abs(padded).argmax(axis=1)
    shapes = np.take_along_axis(padded, peaks[:, None] + np.arange(-before, after), axis=1)
    length = round(FADE_MS * fine_rate / 1000)
    fade = np.ones(before + after)
    fade[:length] = 0.5 - 0.5 * np.cos(np.pi * np.arange(length) / length)
    fade[-length:] = fade[:length][::-1]
    shapes = fade * shapes / shapes[:, [before]]
    beside = np.abs(np.arange(-before, after)) >= _SECOND_PEAK_MS * fine_rate / 1000
    return shapes[np.abs(shapes[:, beside]).max(axis=1) < _SECOND_PEAK]


def triple_distances(
    templates: SpikeShapes, *, rng: np.random.Generator, num_triples: int = NUM_TRIPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Draw triples of shapes of three neurons, and measure how far apart they are.

    Parameters
    ----------
    templates : SpikeShapes
        Library.
    rng : np.random.Generator
        Source of randomness.
    num_triples : int
        How many are drawn.

    Returns
    -------
    triples : np.ndarray, int64 [num_triples, 3]
        Indices of shapes, no two of the same neuron.
    distances : np.ndarray, float64 [num_triples, 3]
        Between the two nearest shapes of each triple first, between the two farthest last: root of the summed squared
        difference over the samples at `SAMPLING_FREQUENCY`, in units of the peak.

    Raises
    ------
    ValueError
        The library holds fewer than three neurons.
    """
    neurons = np.unique(templates.neurons, return_inverse=True)[1]
    num_neurons = len(np.unique(neurons))
    if num_neurons < NUM_UNITS:
        raise ValueError(f"Shapes of {NUM_UNITS} neurons are needed; the library has shapes of {num_neurons}.")
    triples = np.empty((0, NUM_UNITS), dtype="int64")
    while len(triples) < num_triples:
        drawn = rng.integers(len(templates), size=(num_triples, NUM_UNITS))
        differ = (np.diff(np.sort(neurons[drawn], axis=1), axis=1) > 0).all(axis=1)
        triples = np.concatenate([triples, drawn[differ]])
    triples = triples[:num_triples]
    between = squareform(pdist(templates.waveforms[:, ::OVERSAMPLING].astype("float64")))
    first, second = np.triu_indices(NUM_UNITS, k=1)
    return triples, np.sort(between[triples[:, first], triples[:, second]], axis=1)


def choose_triple(templates: SpikeShapes, *, similarity: str, rng: np.random.Generator) -> np.ndarray:
    """Choose three shapes that are easy or difficult to tell apart.

    Of `NUM_TRIPLES` random triples, each is as far apart as its two nearest shapes. An easy one is any of the 2 % that
    are farthest apart. A difficult one lies between the median and the 75 % quantile, where each pair of the three can
    still be told apart at low noise; it is of the quarter of these whose two farthest shapes are nearest.

    Parameters
    ----------
    templates : SpikeShapes
        Library.
    similarity : {"easy", "difficult"}
        Which.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    np.ndarray, int64 [3]
        Indices of shapes.

    Raises
    ------
    ValueError
        There is no such similarity, or the library holds fewer than three neurons.
    """
    if similarity not in DISTANCE_QUANTILES:
        raise ValueError(f"similarity must be one of {', '.join(DISTANCE_QUANTILES)}, not {similarity!r}.")
    triples, distances = triple_distances(templates, rng=rng)
    low, high = np.quantile(distances[:, 0], DISTANCE_QUANTILES[similarity])
    within = np.flatnonzero((distances[:, 0] >= low) & (distances[:, 0] <= high))
    farthest = distances[within, -1]
    return triples[rng.choice(within[farthest <= np.quantile(farthest, NEAREST_PART[similarity])])]


def make_channel(
    templates: SpikeShapes,
    *,
    similarity: str,
    noise_level: float,
    rngs: dict[str, np.random.Generator],
    duration_s: float = 60.0,
) -> SingleChannel:
    """Build one channel by the recipe of 2004: three neurons on a background of other spikes.

    Parameters
    ----------
    templates, similarity, noise_level, duration_s
        See `make_waveclus`.
    rngs : dict of np.random.Generator
        ``shapes``, ``trains`` and ``noise``: the same stream of one leaves its part the same, whatever the others are.

    Returns
    -------
    SingleChannel

    Raises
    ------
    ValueError
        `noise_level` or `duration_s` is negative or zero, or as for `choose_triple`.
    """
    if not (noise_level > 0 and duration_s > 0):
        raise ValueError(f"noise_level and duration_s must be larger than 0, not {noise_level} and {duration_s}.")
    chosen = choose_triple(templates, similarity=similarity, rng=rngs["shapes"])
    num_samples = round(duration_s * SAMPLING_FREQUENCY)
    phases = _phase_shapes(templates.waveforms)
    length = phases.shape[2]
    num_before = PEAK_SAMPLE // OVERSAMPLING

    trace = background(templates, num_samples=num_samples, rng=rngs["noise"])
    trace *= noise_level / trace.std()
    times, classes = [], []
    for unit, shape in enumerate(chosen, start=1):
        train = spike_train(
            duration_s=duration_s,
            firing_rate_hz=FIRING_RATE_HZ,
            rng=rngs["trains"],
            # A sample more: rounding to samples brings no two closer than they may be.
            refractory_ms=REFRACTORY_MS + 1000.0 / SAMPLING_FREQUENCY,
            regularity=1.0,
        )
        ticks = np.round(train * SAMPLING_FREQUENCY * OVERSAMPLING).astype("int64")
        starts = ticks // OVERSAMPLING - num_before
        # Whole spikes only, on the latest of the four channels as well.
        inside = (starts >= 0) & (starts + length + MAX_SHIFT <= num_samples)
        ticks, starts = ticks[inside], starts[inside]
        # A neuron's own spikes may overlap beyond their refractory period: they add up.
        np.add.at(trace, starts[:, None] + np.arange(length), phases[shape, ticks % OVERSAMPLING])
        times.append(np.round(ticks / OVERSAMPLING).astype("int64"))
        classes.append(np.full(len(ticks), unit))
    order = np.argsort(np.concatenate(times), kind="stable")
    return SingleChannel(trace, np.concatenate(times)[order], np.concatenate(classes)[order], SAMPLING_FREQUENCY)


def background(templates: SpikeShapes, *, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Superimpose spikes of a library at random times and with random amplitudes: the hash of far neurons.

    Parameters
    ----------
    templates : SpikeShapes
        Library.
    num_samples : int
        At `SAMPLING_FREQUENCY`.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    np.ndarray, float64 [num_samples]
        Of mean 0 and arbitrary size: as many spikes as half the samples at the higher rate, each of any shape, with
        its amplitude uniform between 0 and 1.
    """
    phases = _phase_shapes(templates.waveforms)
    length = phases.shape[2]
    # Spikes that began before the recording are in it, too.
    num_ticks = OVERSAMPLING * (num_samples + length)
    num_spikes = num_ticks // 2
    ticks = rng.integers(num_ticks, size=num_spikes, dtype="int32")
    shapes = rng.integers(len(templates), size=num_spikes, dtype="int32")
    amplitudes = rng.random(num_spikes, dtype="float32")
    start, row = ticks // OVERSAMPLING, shapes * OVERSAMPLING + ticks % OVERSAMPLING
    table = phases.reshape(-1, length)
    trace = np.zeros(num_samples + 2 * length)
    for sample in range(length):
        added = np.bincount(start, weights=amplitudes * table[row, sample], minlength=num_samples + length)
        trace[sample : sample + len(added)] += added
    trace = trace[length : length + num_samples]
    return trace - trace.mean()


def _phase_shapes(waveforms: np.ndarray) -> np.ndarray:
    """Shapes at `SAMPLING_FREQUENCY` that begin 0 to 3 ticks of the higher rate late, [num_shapes, 4, num_samples].

    Adding these is the same as adding shapes at the higher rate and resampling the whole, at a fraction of the work.
    """
    num_shapes, num_fine = waveforms.shape
    phases = []
    for phase in range(OVERSAMPLING):
        late = np.zeros((num_shapes, num_fine + OVERSAMPLING))
        late[:, phase : phase + num_fine] = waveforms
        phases.append(resample_poly(late, 1, OVERSAMPLING, axis=1))
    return np.stack(phases, axis=1)


def make_waveclus(
    templates: SpikeShapes, *, similarity: str, noise_level: float, seed: int, duration_s: float = 60.0
) -> tuple[BaseRecording, BaseSorting]:
    """Build a simulation by the recipe of 2004, and four channels of it.

    Three spikes of peak 1 out of a library fire as Poisson processes at 20 Hz, with 2 ms refractory period, on a
    background of superimposed spikes of the library. Peaks fall between samples and spikes of different neurons
    overlap. A recording of the same seed has the same shapes and spikes at every level of noise.

    Parameters
    ----------
    templates : SpikeShapes
        Library, of `spike_shapes`.
    similarity : {"easy", "difficult"}
        How alike the three are, see `choose_triple`.
    noise_level : float
        Standard deviation of the background, in units of the spikes' peak; in the paper one of `NOISE_LEVELS`.
    seed : int
        The same seed gives the same recording.
    duration_s : float
        In s.

    Returns
    -------
    recording : BaseRecording
    sorting : BaseSorting
        See `tetrode_recording`.

    Raises
    ------
    ValueError
        As for `make_channel`.
    """
    rngs = random_streams(seed, "shapes", "trains", "noise", "tetrode")
    channel = make_channel(templates, similarity=similarity, noise_level=noise_level, rngs=rngs, duration_s=duration_s)
    return tetrode_recording(channel, seed=rngs["tetrode"])
