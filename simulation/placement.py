"""Neurons of a bank put next to an electrode: their waveforms at its contacts, over the way that they drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.electrodes import Contacts
from spikeinterface_simsort.simulation.extracellular import contact_field, random_rotation
from spikeinterface_simsort.simulation.trial_config import TrialConfig

# Speeds are rounded to whole numbers of these steps, so that what depends on them can be kept.
SPEED_STEP = 1.05
# In between, potentials are near enough to linear.
DRIFT_STEP_UM = 5.0
MAX_DRAWS = 4000


@dataclass(frozen=True)
class PlacedNeuron:
    """A neuron at a place.

    Attributes
    ----------
    neuron : NeuronCurrents
        The neuron.
    soma_position : np.ndarray, [3]
        In um, without drift.
    rotation : np.ndarray, [3, 3]
        About its soma.
    coef : np.ndarray, float32 [num_displacements, num_spikes, num_channels, num_components]
        Waveforms on the neuron's basis, in uV.
    """

    neuron: NeuronCurrents
    soma_position: np.ndarray
    rotation: np.ndarray
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
    contacts: Contacts,
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
    contacts : Contacts
        Of the electrode.
    displacements : np.ndarray, [num_displacements, 3]
        Offsets of the soma that drift goes through, the middle one being zero.

    Returns
    -------
    PlacedNeuron
    """
    fields = contact_field(
        neuron, soma_position=soma_position, rotation=rotation, contacts=contacts, displacements=displacements
    )
    coef = np.matmul(fields[:, None], neuron.spike_currents[None])
    return PlacedNeuron(neuron=neuron, soma_position=np.asarray(soma_position), rotation=rotation, coef=coef)


def drift_displacements(*, drift_um: float, direction: np.ndarray) -> np.ndarray:
    """Offsets that a soma goes through between the two ends of its way.

    Parameters
    ----------
    drift_um : float
        Half the way.
    direction : np.ndarray, [3]
        Unit vector.

    Returns
    -------
    np.ndarray, [num_displacements, 3]
        In um, at most `DRIFT_STEP_UM` apart, the middle one zero.
    """
    num = 2 * int(np.ceil(drift_um / DRIFT_STEP_UM)) + 1
    return np.linspace(-drift_um, drift_um, num)[:, None] * direction


def speed_up(placed: PlacedNeuron, *, limits: tuple[float, float], rng: np.random.Generator) -> PlacedNeuron:
    """Let a neuron's spikes run faster.

    Parameters
    ----------
    placed : PlacedNeuron
        The neuron.
    limits : tuple of float
        Lowest and highest factor; it is drawn log-uniformly.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    PlacedNeuron
        With the same amplitudes.
    """
    low, high = np.log(limits) / np.log(SPEED_STEP)
    speed = float(SPEED_STEP ** np.round(rng.uniform(low, high)))
    return placed if speed == 1.0 else replace(placed, neuron=replace(placed.neuron, dt=placed.neuron.dt / speed))


def draw_unit(
    neurons: Sequence[NeuronCurrents],
    *,
    config: TrialConfig,
    contacts: Contacts,
    displacements: np.ndarray,
    alive: np.ndarray | None = None,
    rng: np.random.Generator,
) -> PlacedNeuron:
    """Draw neurons and places until a unit's amplitude is within the limits asked for.

    Parameters
    ----------
    neurons : sequence of NeuronCurrents
        Of a bank.
    config : TrialConfig
        Gives the limits.
    contacts : Contacts
        Of the electrode.
    displacements : np.ndarray, [num_displacements, 3]
        Offsets that drift goes through.
    alive : np.ndarray, bool [num_channels], optional
        Channels that show neurons: an amplitude elsewhere does not count. Default all.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    PlacedNeuron

    Raises
    ------
    ValueError
        No draw was within the limits.
    """
    seen = np.ones(len(contacts), dtype=bool) if alive is None else alive
    half = config.cube_um / 2 + _long_sides(contacts, config=config) / 2
    for _ in range(MAX_DRAWS):
        neuron = neurons[int(rng.integers(len(neurons)))]
        position = rng.uniform(-half, half, size=3)
        if np.linalg.norm(contacts.positions - position, axis=1).min() < config.min_distance_um:
            continue
        rotation = random_rotation(rng)
        # A look at the centres alone is cheap and off by little: only what may pass is placed in full.
        rough = contact_field(
            neuron, soma_position=position, rotation=rotation, contacts=contacts, num_surface_points=1
        )
        amplitude = np.abs(rough[seen] @ neuron.mean_currents).max()
        if not 0.8 * config.min_amplitude_uv <= amplitude <= 1.25 * config.max_amplitude_uv:
            continue
        placed = place_neuron(
            neuron, soma_position=position, rotation=rotation, contacts=contacts, displacements=displacements
        )
        if config.min_amplitude_uv <= np.abs(placed.template()[seen]).max() <= config.max_amplitude_uv:
            return speed_up(placed, limits=config.spike_speed, rng=rng)
    raise ValueError(
        f"No neuron of the bank gives an amplitude between {config.min_amplitude_uv} and {config.max_amplitude_uv} uV "
        f"within a cube of {config.cube_um} um: widen the limits or make the cube smaller."
    )


def _long_sides(contacts: Contacts, *, config: TrialConfig) -> np.ndarray:
    """How long an electrode is along each axis, in um [3]; 0 where it fits into the cube of the units."""
    length = np.ptp(contacts.positions, axis=0)
    return np.where(length > config.cube_um, length, 0.0)


def draw_far(
    neurons: Sequence[NeuronCurrents], *, config: TrialConfig, contacts: Contacts, rng: np.random.Generator
) -> PlacedNeuron:
    """Draw a neuron of the hash, somewhere in the shell that holds it.

    Parameters
    ----------
    neurons : sequence of NeuronCurrents
        Of a bank.
    config : TrialConfig
        Gives the shell.
    contacts : Contacts
        Of the electrode.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    PlacedNeuron
        Without drift, and with one waveform, the mean of its spikes: so far away they differ by less than the noise.
    """
    neuron = neurons[int(rng.integers(len(neurons)))]
    low, high = config.far_distance_um
    is_long = bool(_long_sides(contacts, config=config).any())
    while True:
        # Uniform in the volume of a shell; along a long electrode, about one of its contacts and far from all others.
        direction = rng.normal(size=3)
        distance = rng.uniform(low**3, high**3) ** (1 / 3)
        origin = contacts.positions[int(rng.integers(len(contacts)))] if is_long else np.zeros(3)
        position = origin + direction / np.linalg.norm(direction) * distance
        if not is_long or np.linalg.norm(contacts.positions - position, axis=1).min() >= 0.999 * low:
            break
    rotation = random_rotation(rng)
    field = contact_field(neuron, soma_position=position, rotation=rotation, contacts=contacts, num_surface_points=1)
    coef = (field @ neuron.spike_currents.mean(axis=0))[None, None]
    placed = PlacedNeuron(neuron=neuron, soma_position=position, rotation=rotation, coef=coef)
    return speed_up(placed, limits=config.spike_speed, rng=rng)
