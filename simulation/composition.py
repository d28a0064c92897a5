"""Composition of labelled traces out of a neuron bank: the core, on plain arrays.

Needs neither NEURON nor SpikeInterface; `trials` makes recordings and sortings of what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.drift import drift_at, drift_course
from spikeinterface_simsort.simulation.electrodes import Contacts, make_contacts
from spikeinterface_simsort.simulation.noise import coloured_noise, line_hum, motion_artefacts
from spikeinterface_simsort.simulation.placement import PlacedNeuron, draw_far, draw_unit, drift_displacements
from spikeinterface_simsort.simulation.spike_synthesis import add_spikes, phase_basis
from spikeinterface_simsort.simulation.spiketrains import log_normal_rate, overlapping, spike_train, synchronise
from spikeinterface_simsort.simulation.trial_config import TrialConfig


@dataclass(frozen=True, kw_only=True)
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
    unit_rotations : np.ndarray or None, [num_units, 3, 3]
        Of each unit's neuron about its soma, where it is known.
    contact_radius_um : float
        Of the contacts.
    channel_gains : np.ndarray or None, [num_channels]
        Of the electrodes; 0 for a dead channel.
    drift_um : np.ndarray or None, [num, 3]
        Displacement of the somata every `drift.STEP_S`, where there is any.
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
    unit_rotations: np.ndarray | None = None
    contact_radius_um: float = 6.0
    channel_gains: np.ndarray | None = None
    drift_um: np.ndarray | None = None

    def overlapping(self, *, window_ms: float = 1.0) -> np.ndarray:
        """Tell which labelled spikes have one of another unit within `window_ms`, bool [num_spikes]."""
        return overlapping(self.spike_samples, self.spike_labels, window=window_ms * self.sampling_frequency / 1000.0)


def random_streams(seed: int | np.random.SeedSequence, *names: str) -> dict[str, np.random.Generator]:
    """Give one generator for each purpose, so that more noise, say, leaves the neurons where they are.

    Parameters
    ----------
    seed : int or np.random.SeedSequence
        The same seed gives the same streams.
    *names : str
        Purposes; each stream depends on its place among them.

    Returns
    -------
    dict
        Of np.random.Generator by name.
    """
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    # Not spawn(), which counts: the same sequence must give the same streams again.
    sequences = (np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, i)) for i in range(len(names)))
    return {name: np.random.default_rng(sequence) for name, sequence in zip(names, sequences, strict=True)}


def config_contacts(config: TrialConfig) -> Contacts:
    """Make the contacts of the electrode that a configuration describes."""
    return make_contacts(
        layout=config.layout,
        spacing_um=config.contact_spacing_um,
        num_channels=config.num_channels,
        radius_um=config.contact_radius_um,
    )


def compose_noise(*, config: TrialConfig, contacts: Contacts, rng: np.random.Generator) -> np.ndarray:
    """Draw all that is in the traces besides neurons: electrode noise, hum, artefacts of movement.

    Parameters
    ----------
    config : TrialConfig
        What the trial looks like.
    contacts : Contacts
        Of the electrode.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    np.ndarray, float32 [num_samples, num_channels]
        In uV.
    """
    rate = config.sampling_frequency
    num_samples = int(round(config.duration_s * rate))
    traces = coloured_noise(
        num_samples=num_samples,
        contact_positions=contacts.positions,
        sampling_frequency=rate,
        rng=rng,
        level_uv=config.noise_uv,
        exponent=config.noise_exponent,
        corner_hz=config.noise_corner_hz,
        length_constant_um=config.noise_length_um,
        correlation=config.noise_correlation,
    )
    traces = np.ascontiguousarray(traces)
    if config.hum_uv > 0:
        gains = config.hum_uv * (1.0 + 0.2 * rng.normal(size=len(contacts)))
        traces += line_hum(num_samples=num_samples, sampling_frequency=rate, hum_hz=config.hum_hz, gains=gains, rng=rng)
    if config.motion_rate_hz > 0:
        traces += motion_artefacts(
            num_samples=num_samples,
            sampling_frequency=rate,
            rate_hz=config.motion_rate_hz,
            amplitude_uv=config.motion_uv,
            num_channels=len(contacts),
            rng=rng,
        )
    return traces


def draw_gains(*, config: TrialConfig, num_channels: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the electrodes' gains: about 1, and 0 where a channel is dead.

    Parameters
    ----------
    config : TrialConfig
        What the trial looks like.
    num_channels : int
        Number of channels.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    np.ndarray, [num_channels]

    Raises
    ------
    ValueError
        No channel would be alive.
    """
    if config.num_dead_channels >= num_channels:
        raise ValueError(f"num_dead_channels must leave one of {num_channels} channels alive.")
    gains = np.clip(1.0 + config.gain_spread * rng.normal(size=num_channels), 0.5, 1.5)
    gains[rng.permutation(num_channels)[: config.num_dead_channels]] = 0.0
    return gains


def draw_trains(*, config: TrialConfig, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the spike trains of all units, in company where the trial asks for synchrony.

    Parameters
    ----------
    config : TrialConfig
        What the trial looks like.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    list of np.ndarray, [num_spikes]
        Increasing times of the somatic voltage peaks, in s.
    """
    trains, refractory_s = [], []
    for _ in range(config.num_units):
        bursts = rng.random() < config.burst_fraction
        refractory_s.append(rng.uniform(1.5, 4.0) / 1000.0)
        rate = log_normal_rate(rng, limits=config.firing_rate_hz, spread=config.firing_rate_spread)
        trains.append(
            spike_train(
                duration_s=config.duration_s,
                firing_rate_hz=rate,
                rng=rng,
                refractory_ms=refractory_s[-1] * 1000.0,
                regularity=rng.uniform(0.8, 2.5),
                burst_probability=rng.uniform(0.1, 0.5) if bursts else 0.0,
                burst_isi_ms=rng.uniform(4.0, 10.0),
            )
        )
    if config.synchrony == 0:
        return trains
    return synchronise(
        trains,
        share=config.synchrony,
        window_ms=config.synchrony_window_ms,
        refractory_s=refractory_s,
        duration_s=config.duration_s,
        rng=rng,
    )


# Sums over several threads are rounded otherwise: the same seed is to give the same bits in every process.
@threadpool_limits.wrap(limits=1)
def compose_trial(
    neurons: Sequence[NeuronCurrents],
    *,
    config: TrialConfig,
    seed: int | np.random.SeedSequence,
    far_neurons: Sequence[NeuronCurrents] | None = None,
    contacts: Contacts | None = None,
) -> Trial:
    """Compose one trial: units near an electrode, far neurons, noise.

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
    contacts : Contacts, optional
        Of an electrode of one's own; default what `config` says.

    Returns
    -------
    Trial

    Raises
    ------
    ValueError
        No placement gives the amplitude asked for, or no channel is alive.
    """
    rngs = random_streams(seed, "noise", "electrode", "drift", "units", "trains", "spikes", "far")
    rate = config.sampling_frequency
    contacts = config_contacts(config) if contacts is None else contacts
    gains = draw_gains(config=config, num_channels=len(contacts), rng=rngs["electrode"])
    traces = compose_noise(config=config, contacts=contacts, rng=rngs["noise"])

    kind = config.drift_kind if config.drift_um > 0 else "none"
    course = drift_course(kind=kind, duration_s=config.duration_s, rng=rngs["drift"], period_s=config.drift_period_s)
    direction = rngs["drift"].normal(size=3)
    direction /= np.linalg.norm(direction)

    placed_units, samples, labels, templates, peaks = [], [], [], [], []
    for unit, times in enumerate(draw_trains(config=config, rng=rngs["trains"])):
        share = max(1.0 + config.drift_nonrigidity * rngs["drift"].normal(), 0.0)
        displacements = drift_displacements(drift_um=config.drift_um * share, direction=direction)
        placed = draw_unit(
            neurons,
            config=config,
            contacts=contacts,
            displacements=displacements,
            alive=gains > 0,
            rng=rngs["units"],
        )
        add_spikes(
            traces,
            placed,
            times=times,
            displacement=(drift_at(course, times) + 1) / 2 * (len(displacements) - 1),
            channel_gains=gains,
            sampling_frequency=rate,
            rng=rngs["spikes"],
        )
        template, peak, spike_samples = unit_truth(placed, times=times, channel_gains=gains, sampling_frequency=rate)
        inside = (spike_samples >= 0) & (spike_samples <= len(traces) - 1)
        samples.append(spike_samples[inside])
        labels.append(np.full(int(inside.sum()), unit))
        templates.append(template)
        peaks.append(peak)
        placed_units.append(placed)

    for _ in range(config.num_far):
        placed = draw_far(far_neurons or neurons, config=config, contacts=contacts, rng=rngs["far"])
        far_rate = log_normal_rate(rngs["far"], limits=config.far_rate_hz, spread=config.firing_rate_spread)
        times = spike_train(duration_s=config.duration_s, firing_rate_hz=far_rate, rng=rngs["far"])
        add_spikes(
            traces,
            placed,
            times=times,
            displacement=np.zeros(times.size),
            channel_gains=gains,
            sampling_frequency=rate,
            rng=rngs["far"],
        )
    if config.saturation_uv is not None:
        np.clip(traces, -config.saturation_uv, config.saturation_uv, out=traces)

    return assemble_trial(
        traces=traces,
        config=config,
        contacts=contacts,
        placed_units=placed_units,
        samples=samples,
        labels=labels,
        templates=templates,
        peaks=peaks,
        channel_gains=gains,
        drift_um=None if kind == "none" else config.drift_um * course[:, None] * direction,
    )


def unit_truth(
    placed: PlacedNeuron, *, times: np.ndarray, channel_gains: np.ndarray, sampling_frequency: float
) -> tuple[np.ndarray, int, np.ndarray]:
    """A unit's mean waveform, and when each of its spikes deflects the traces most.

    Parameters
    ----------
    placed : PlacedNeuron
        The unit.
    times : np.ndarray, [num_spikes]
        Somatic voltage peaks, in s.
    channel_gains : np.ndarray, [num_channels]
        Gains of the electrodes.
    sampling_frequency : float
        In Hz.

    Returns
    -------
    template : np.ndarray, float32 [num_template_samples, num_channels]
        In uV.
    peak : int
        Sample of its largest deflection.
    spike_samples : np.ndarray, [num_spikes]
        In samples.
    """
    fine = placed.template() * channel_gains[:, None]
    delay_ms = (np.abs(fine).max(axis=0).argmax() - placed.neuron.peak_index) * placed.neuron.dt
    basis, _ = phase_basis(placed.neuron, sampling_frequency=sampling_frequency)
    middle = placed.coef[len(placed.coef) // 2].mean(axis=0)
    template = (middle * channel_gains[:, None] @ basis[0]).T.astype("float32")
    peak = int(np.abs(template).max(axis=1).argmax())
    return template, peak, (times + delay_ms / 1000.0) * sampling_frequency


def assemble_trial(
    *,
    traces: np.ndarray,
    config: TrialConfig,
    contacts: Contacts,
    placed_units: Sequence[PlacedNeuron],
    samples: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    templates: Sequence[np.ndarray],
    peaks: Sequence[int],
    channel_gains: np.ndarray,
    drift_um: np.ndarray | None,
) -> Trial:
    """Put the units of a trial together, spikes in order of time; see `Trial` and `unit_truth` for the parts."""
    all_samples = np.concatenate(samples) if samples else np.empty(0)
    all_labels = np.concatenate(labels).astype("int64") if labels else np.empty(0, dtype="int64")
    order = np.argsort(all_samples, kind="stable")
    length = min((len(template) for template in templates), default=0)
    num_units, num_channels = len(placed_units), len(contacts)
    return Trial(
        traces=traces,
        sampling_frequency=config.sampling_frequency,
        spike_samples=all_samples[order],
        spike_labels=all_labels[order],
        unit_names=[placed.neuron.name for placed in placed_units],
        unit_positions=np.array([placed.soma_position for placed in placed_units]).reshape(num_units, 3),
        templates=np.array([t[:length] for t in templates], dtype="float32").reshape(num_units, length, num_channels),
        template_peak=np.array(peaks, dtype="int64"),
        contact_positions=contacts.positions,
        unit_rotations=np.array([placed.rotation for placed in placed_units]).reshape(num_units, 3, 3),
        contact_radius_um=contacts.radius_um,
        channel_gains=channel_gains,
        drift_um=drift_um,
    )
