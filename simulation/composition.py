"""Composition of labelled tetrode traces out of a neuron bank: the core, on plain arrays.

Needs neither NEURON nor SpikeInterface; `trials` makes recordings and sortings of what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.extracellular import lead_field, random_rotation, tetrode_positions
from spikeinterface_simsort.simulation.noise import coloured_noise
from spikeinterface_simsort.simulation.spiketrains import spike_train

# Sub-sample positions at which a spike may start: a tenth of a sample is finer than any jitter of detection.
NUM_PHASES = 10


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """What a trial looks like.

    Attributes
    ----------
    duration_s : float
        Length in s.
    sampling_frequency : float
        In Hz.
    num_units : int
        Neurons that are labelled.
    num_far : int
        Unlabelled neurons far away: their spikes are the hash.
    cube_um : float
        Edge of the cube, centred on the tetrode, that holds the somata of the units.
    far_distance_um : tuple of float
        Range of the far neurons' distances from the tetrode.
    min_distance_um : float
        No soma is closer to a contact.
    min_amplitude_uv, max_amplitude_uv : float
        A unit's largest deflection over contacts lies in between.
    firing_rate_hz : tuple of float
        Range of the units' rates, drawn log-uniformly.
    far_rate_hz : tuple of float
        The same for far neurons.
    burst_fraction : float
        Share of units that burst.
    noise_uv : float
        Standard deviation of the noise between 300 and 6000 Hz.
    noise_exponent, noise_corner_hz, noise_correlation : float
        Shape of the noise, see `noise.coloured_noise`.
    gain_spread : float
        Standard deviation of the electrodes' gains about 1.
    drift_um : float
        Amplitude of a slow sinusoidal displacement of all somata; 0 for none.
    drift_period_s : float
        Its period.
    contact_spacing_um : float
        Of the tetrode.
    layout : {"square", "diamond"}
        Of the tetrode.
    """

    duration_s: float = 60.0
    sampling_frequency: float = 30000.0
    num_units: int = 5
    num_far: int = 20
    cube_um: float = 100.0
    far_distance_um: tuple[float, float] = (120.0, 250.0)
    min_distance_um: float = 15.0
    min_amplitude_uv: float = 30.0
    max_amplitude_uv: float = 500.0
    firing_rate_hz: tuple[float, float] = (1.0, 15.0)
    far_rate_hz: tuple[float, float] = (0.5, 10.0)
    burst_fraction: float = 0.3
    noise_uv: float = 5.0
    noise_exponent: float = 1.0
    noise_corner_hz: float = 500.0
    noise_correlation: float = 0.3
    gain_spread: float = 0.05
    drift_um: float = 0.0
    drift_period_s: float = 60.0
    contact_spacing_um: float = 20.0
    layout: str = "square"


@dataclass(frozen=True)
class Trial:
    """Traces with their ground truth.

    Attributes
    ----------
    traces : np.ndarray, float32 [num_samples, num_channels]
        In uV.
    sampling_frequency : float
        In Hz.
    spike_samples : np.ndarray, float64 [num_spikes]
        Time of each labelled spike's largest deflection, in samples, increasing.
    spike_labels : np.ndarray, int64 [num_spikes]
        Its unit, 0 to num_units - 1.
    unit_names : list of str
        The neuron that each unit was made of.
    unit_positions : np.ndarray, [num_units, 3]
        Somata, in um.
    templates : np.ndarray, float32 [num_units, num_template_samples, num_channels]
        Mean waveform of each unit, in uV, largest deflection at `template_peak`.
    template_peak : np.ndarray, int64 [num_units]
        Sample of each template's largest deflection.
    contact_positions : np.ndarray, [num_channels, 3]
        In um.
    """

    traces: np.ndarray
    sampling_frequency: float
    spike_samples: np.ndarray
    spike_labels: np.ndarray
    unit_names: list[str]
    unit_positions: np.ndarray
    templates: np.ndarray
    template_peak: np.ndarray
    contact_positions: np.ndarray


@dataclass(frozen=True)
class PlacedNeuron:
    """A neuron at a place: all its waveforms at the contacts, over the way that it drifts.

    Attributes
    ----------
    neuron : NeuronCurrents
        The neuron.
    soma_position : np.ndarray, [3]
        In um, without drift.
    coef : np.ndarray, float32 [num_displacements, num_spikes, num_channels, num_components]
        Waveforms on the neuron's basis, in uV.
    """

    neuron: NeuronCurrents
    soma_position: np.ndarray
    coef: np.ndarray

    def template(self) -> np.ndarray:
        """Mean waveform without drift, in uV, at the bank's time step [num_channels, num_basis_samples]."""
        undisplaced = self.coef[self.coef.shape[0] // 2]
        return undisplaced.mean(axis=0) @ self.neuron.basis


def place_neuron(
    neuron: NeuronCurrents,
    *,
    soma_position: np.ndarray,
    rotation: np.ndarray,
    contact_positions: np.ndarray,
    displacements: np.ndarray,
) -> PlacedNeuron:
    """Turn a neuron's membrane currents into potentials at the contacts.

    Parameters
    ----------
    neuron : NeuronCurrents
        From a bank.
    soma_position : np.ndarray, [3]
        In um.
    rotation : np.ndarray, [3, 3]
        About the soma.
    contact_positions : np.ndarray, [num_channels, 3]
        In um.
    displacements : np.ndarray, [num_displacements, 3]
        Offsets of the soma that drift goes through, the middle one being zero.

    Returns
    -------
    PlacedNeuron
    """
    # A displaced soma sees what a soma at rest sees of contacts displaced the other way.
    contacts = (contact_positions[None] - displacements[:, None]).reshape(-1, 3)
    fields = lead_field(neuron, soma_position=soma_position, rotation=rotation, contact_positions=contacts)
    fields = fields.reshape(len(displacements), 1, len(contact_positions), -1)
    coef = np.matmul(fields, neuron.spike_currents[None])
    return PlacedNeuron(neuron=neuron, soma_position=np.asarray(soma_position), coef=coef)


@lru_cache(maxsize=32)
def _interpolation_matrix(num_basis: int, dt: float, peak_index: int, sampling_frequency: float) -> np.ndarray:
    """Band-limited interpolation from the bank's time step to each sub-sample phase of the recording.

    Returns [num_basis, num_phases * num_waveform_samples] and is exact for what lies below both Nyquist rates.
    The sample `num_before` of a phase-0 waveform is the bank's `peak_index`, with
    ``num_before = floor(peak_index * dt * rate)``.
    """
    padded = 2 * num_basis
    rate = sampling_frequency / 1000.0
    before, after = int(peak_index * dt * rate), int((num_basis - 1 - peak_index) * dt * rate) - 1
    offsets = np.arange(-before, after + 1)
    phases = np.arange(NUM_PHASES) / NUM_PHASES
    # A spike that falls `phase` after a sample shows at that sample what the waveform was `phase` earlier.
    times = peak_index * dt + (offsets[None, :] - phases[:, None]) / rate
    frequencies = np.fft.rfftfreq(padded, dt)
    # A raised cosine edge below the recording's Nyquist frequency stands for its anti-aliasing filter.
    edge = np.clip((frequencies / (rate / 2) - 0.85) / 0.15, 0.0, 1.0)
    forward = np.exp(-2j * np.pi * np.outer(np.arange(num_basis) * dt, frequencies))
    weight = np.where((frequencies == 0) | (np.arange(frequencies.size) == frequencies.size - 1), 1.0, 2.0)
    weight = weight * 0.5 * (1 + np.cos(np.pi * edge)) / padded
    backward = np.exp(2j * np.pi * np.outer(frequencies, times.ravel()))
    return ((forward * weight) @ backward).real.astype("float32")


def phase_basis(neuron: NeuronCurrents, *, sampling_frequency: float) -> tuple[np.ndarray, int]:
    """A neuron's basis at the recording's rate, at each sub-sample phase.

    Parameters
    ----------
    neuron : NeuronCurrents
        From a bank.
    sampling_frequency : float
        Of the recording, in Hz.

    Returns
    -------
    basis : np.ndarray, float32 [num_phases, num_components, num_waveform_samples]
        Basis for a spike that falls ``phase / num_phases`` after a sample.
    num_before : int
        Samples before the somatic voltage peak.
    """
    num_components, num_basis = neuron.basis.shape
    matrix = _interpolation_matrix(num_basis, neuron.dt, neuron.peak_index, float(sampling_frequency))
    basis = (neuron.basis.astype("float32") @ matrix).reshape(num_components, NUM_PHASES, -1)
    return np.ascontiguousarray(basis.swapaxes(0, 1)), int(neuron.peak_index * neuron.dt * sampling_frequency / 1000.0)


def choose_variants(neuron: NeuronCurrents, intervals_ms: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Choose for each spike one of the neuron's simulated spikes by the interval before it.

    Parameters
    ----------
    neuron : NeuronCurrents
        With `isi` of its simulated spikes.
    intervals_ms : np.ndarray, [num_spikes]
        Intervals before the spikes wanted.
    rng : np.random.Generator
        Breaks the tie among the five nearest intervals.

    Returns
    -------
    np.ndarray, int [num_spikes]
        Indices into the neuron's spikes.
    """
    order = np.argsort(neuron.isi)
    known = np.log(np.maximum(neuron.isi[order], 0.1))
    nearest = np.searchsorted(known, np.log(np.maximum(intervals_ms, 0.1)))
    nearest = nearest + rng.integers(-2, 3, size=nearest.shape)
    return order[np.clip(nearest, 0, len(order) - 1)]


def add_spikes(
    traces: np.ndarray,
    placed: PlacedNeuron,
    *,
    times: np.ndarray,
    displacement: np.ndarray,
    channel_gains: np.ndarray,
    sampling_frequency: float,
    rng: np.random.Generator,
) -> None:
    """Add a placed neuron's spikes to traces, in place.

    Parameters
    ----------
    traces : np.ndarray, float32 [num_samples, num_channels]
        In uV.
    placed : PlacedNeuron
        The neuron.
    times : np.ndarray, [num_spikes]
        Times of its somatic voltage peaks in s, increasing.
    displacement : np.ndarray, [num_spikes]
        Where on its way each spike finds it, from 0 to ``num_displacements - 1``, interpolated linearly.
    channel_gains : np.ndarray, [num_channels]
        Gains of the electrodes.
    sampling_frequency : float
        In Hz.
    rng : np.random.Generator
        For the choice of waveforms.
    """
    if times.size == 0:
        return
    basis, num_before = phase_basis(placed.neuron, sampling_frequency=sampling_frequency)
    num_after = basis.shape[2] - num_before
    variants = choose_variants(placed.neuron, np.diff(times, prepend=-1e6) * 1000.0, rng=rng)
    step = np.clip(displacement.astype("int64"), 0, max(len(placed.coef) - 2, 0))
    share = (displacement - step).astype("float32")[:, None, None]
    coef = (1 - share) * placed.coef[step, variants]
    if share.any():
        coef += share * placed.coef[step + 1, variants]
    coef *= channel_gains[:, None].astype("float32")
    ticks = np.round(times * sampling_frequency * NUM_PHASES).astype("int64")
    centres, phases = ticks // NUM_PHASES, ticks % NUM_PHASES
    for phase in range(NUM_PHASES):
        chosen = np.flatnonzero(phases == phase)
        waveforms = np.matmul(basis[phase].T, coef[chosen].swapaxes(1, 2))
        for centre, waveform in zip(centres[chosen], waveforms, strict=True):
            start, stop = centre - num_before, centre + num_after
            inside = slice(max(-start, 0), len(waveform) - max(stop - len(traces), 0))
            if inside.start < inside.stop:
                traces[max(start, 0) : min(stop, len(traces))] += waveform[inside]


def _draw_unit(
    neurons: Sequence[NeuronCurrents],
    *,
    config: TrialConfig,
    contacts: np.ndarray,
    displacements: np.ndarray,
    rng: np.random.Generator,
) -> PlacedNeuron:
    """Draw neurons and places until a unit's amplitude is within the limits asked for."""
    for _ in range(2000):
        neuron = neurons[int(rng.integers(len(neurons)))]
        position = rng.uniform(-config.cube_um / 2, config.cube_um / 2, size=3)
        if np.linalg.norm(contacts - position, axis=1).min() < config.min_distance_um:
            continue
        rotation = random_rotation(rng)
        at_rest = lead_field(neuron, soma_position=position, rotation=rotation, contact_positions=contacts)
        amplitude = np.abs(at_rest @ neuron.mean_currents).max()
        if config.min_amplitude_uv <= amplitude <= config.max_amplitude_uv:
            return place_neuron(
                neuron,
                soma_position=position,
                rotation=rotation,
                contact_positions=contacts,
                displacements=displacements,
            )
    raise ValueError(
        f"No neuron of the bank gives an amplitude between {config.min_amplitude_uv} and {config.max_amplitude_uv} uV "
        f"within a cube of {config.cube_um} um: widen the limits or make the cube smaller."
    )


def _draw_far(
    neurons: Sequence[NeuronCurrents], *, config: TrialConfig, contacts: np.ndarray, rng: np.random.Generator
) -> PlacedNeuron:
    direction = rng.normal(size=3)
    low, high = config.far_distance_um
    # Uniform in the volume of the shell.
    distance = rng.uniform(low**3, high**3) ** (1 / 3)
    return place_neuron(
        neurons[int(rng.integers(len(neurons)))],
        soma_position=direction / np.linalg.norm(direction) * distance,
        rotation=random_rotation(rng),
        contact_positions=contacts,
        displacements=np.zeros((1, 3)),
    )


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))


def compose_trial(
    neurons: Sequence[NeuronCurrents],
    *,
    config: TrialConfig,
    seed: int | np.random.SeedSequence,
    far_neurons: Sequence[NeuronCurrents] | None = None,
) -> Trial:
    """Compose one trial: units near a tetrode, far neurons, noise.

    Parameters
    ----------
    neurons : sequence of NeuronCurrents
        Units are drawn from these.
    config : TrialConfig
        What the trial looks like.
    seed : int or np.random.SeedSequence
        The same seed gives the same trial.
    far_neurons : sequence of NeuronCurrents, optional
        Far neurons are drawn from these; default the same as units.

    Returns
    -------
    Trial

    Raises
    ------
    ValueError
        No placement gives the amplitude asked for.
    """
    rng = np.random.default_rng(seed)
    rate = config.sampling_frequency
    contacts = tetrode_positions(spacing_um=config.contact_spacing_um, layout=config.layout)
    num_samples = int(round(config.duration_s * rate))
    traces = coloured_noise(
        num_samples=num_samples,
        contact_positions=contacts,
        sampling_frequency=rate,
        rng=rng,
        level_uv=config.noise_uv,
        exponent=config.noise_exponent,
        corner_hz=config.noise_corner_hz,
        correlation=config.noise_correlation,
    )
    traces = np.ascontiguousarray(traces)
    gains = np.clip(1.0 + config.gain_spread * rng.normal(size=len(contacts)), 0.5, 1.5)

    # Every 5 um at least: in between, potentials are near enough to linear.
    steps = 2 * int(np.ceil(config.drift_um / 5.0)) + 1
    axis = rng.normal(size=3)
    displacements = np.linspace(-config.drift_um, config.drift_um, steps)[:, None] * (axis / np.linalg.norm(axis))
    drift_phase = rng.uniform(0, 2 * np.pi)

    units, samples, labels, templates, peaks = [], [], [], [], []
    for unit in range(config.num_units):
        placed = _draw_unit(neurons, config=config, contacts=contacts, displacements=displacements, rng=rng)
        bursts = rng.random() < config.burst_fraction
        times = spike_train(
            duration_s=config.duration_s,
            firing_rate_hz=_log_uniform(rng, config.firing_rate_hz),
            rng=rng,
            refractory_ms=rng.uniform(1.5, 4.0),
            regularity=rng.uniform(0.8, 2.5),
            burst_probability=rng.uniform(0.1, 0.5) if bursts else 0.0,
            burst_isi_ms=rng.uniform(4.0, 10.0),
        )
        place = np.sin(2 * np.pi * times / config.drift_period_s + drift_phase)
        add_spikes(
            traces,
            placed,
            times=times,
            displacement=(place + 1) / 2 * (steps - 1),
            channel_gains=gains,
            sampling_frequency=rate,
            rng=rng,
        )
        fine = placed.template() * gains[:, None]
        delay_ms = (np.abs(fine).max(axis=0).argmax() - placed.neuron.peak_index) * placed.neuron.dt
        spike_samples = times * rate + delay_ms * rate / 1000.0
        inside = (spike_samples >= 0) & (spike_samples <= num_samples - 1)
        samples.append(spike_samples[inside])
        labels.append(np.full(int(inside.sum()), unit))
        basis, _ = phase_basis(placed.neuron, sampling_frequency=rate)
        template = (placed.coef[steps // 2].mean(axis=0) * gains[:, None] @ basis[0]).T
        templates.append(template.astype("float32"))
        peaks.append(np.abs(template).max(axis=1).argmax())
        units.append(placed)

    for _ in range(config.num_far):
        placed = _draw_far(far_neurons or neurons, config=config, contacts=contacts, rng=rng)
        times = spike_train(duration_s=config.duration_s, firing_rate_hz=_log_uniform(rng, config.far_rate_hz), rng=rng)
        add_spikes(
            traces,
            placed,
            times=times,
            displacement=np.zeros(times.size),
            channel_gains=gains,
            sampling_frequency=rate,
            rng=rng,
        )

    all_samples = np.concatenate(samples) if samples else np.empty(0)
    all_labels = np.concatenate(labels).astype("int64") if labels else np.empty(0, dtype="int64")
    order = np.argsort(all_samples, kind="stable")
    length = min((len(t) for t in templates), default=0)
    return Trial(
        traces=traces,
        sampling_frequency=rate,
        spike_samples=all_samples[order],
        spike_labels=all_labels[order],
        unit_names=[placed.neuron.name for placed in units],
        unit_positions=np.array([placed.soma_position for placed in units]).reshape(-1, 3),
        templates=np.stack([t[:length] for t in templates])
        if templates
        else np.empty((0, 0, len(contacts)), "float32"),
        template_peak=np.array(peaks, dtype="int64"),
        contact_positions=contacts,
    )
