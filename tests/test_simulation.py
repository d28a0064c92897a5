"""The simulation, from a bank of neurons to a trial on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import spikeinterface.core as si
import yaml
from scipy import signal

from spikeinterface_simsort import __version__
from spikeinterface_simsort.simulation.bank import NeuronCurrents, load_bank, save_bank
from spikeinterface_simsort.simulation.composition import Trial, compose_trial
from spikeinterface_simsort.simulation.electrodes import make_contacts
from spikeinterface_simsort.simulation.extracellular import CONDUCTIVITY, contact_field, lead_field, random_rotation
from spikeinterface_simsort.simulation.noise import coloured_noise
from spikeinterface_simsort.simulation.placement import place_neuron
from spikeinterface_simsort.simulation.spike_synthesis import NUM_PHASES, add_spikes, choose_variants, phase_basis
from spikeinterface_simsort.simulation.spiketrains import enforce_refractory, spike_train
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import bundled_bank, make_trial, save_trial, to_recording, to_sorting

RATE = 30000.0
QUIET = TrialConfig(duration_s=4.0, num_units=1, num_far=0, noise_uv=1e-3, firing_rate_hz=(15.0, 20.0))


@pytest.fixture(scope="module")
def bank() -> list[NeuronCurrents]:
    return bundled_bank()


@pytest.fixture(scope="module")
def small_trial(bank: list[NeuronCurrents]) -> Trial:
    return compose_trial(bank, config=TrialConfig(duration_s=3.0, num_units=3, num_far=2), seed=5)


def assert_equal_neurons(neuron: NeuronCurrents, other: NeuronCurrents) -> None:
    for name, value in vars(neuron).items():
        # What is cached is computed from the fields.
        if name in NeuronCurrents.__dataclass_fields__:
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


# Bank


def test_bank_round_trip(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    save_bank(tmp_path / "bank.npz", [bank[2], bank[0]])
    assert [path.name for path in tmp_path.iterdir()] == ["bank.npz"]
    loaded = load_bank(tmp_path / "bank.npz")
    assert [neuron.name for neuron in loaded] == [bank[0].name, bank[2].name]
    assert_equal_neurons(loaded[0], bank[0])
    assert_equal_neurons(loaded[1], bank[2])


def test_bank_folder(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    for neuron in bank[:2]:
        np.savez(tmp_path / f"{neuron.name}.npz", **{name: getattr(neuron, name) for name in neuron.__match_args__})
    loaded = load_bank(tmp_path)
    assert len(loaded) == 2
    for neuron, other in zip(loaded, bank, strict=False):
        assert_equal_neurons(neuron, other)


def test_bank_selection(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    path = tmp_path / "bank.npz"
    save_bank(path, bank)
    names = [neuron.name for neuron in bank]
    assert names == sorted(names)
    assert [n.name for n in load_bank(path, include=["bipolar"])] == [n for n in names if n.startswith("bipolar")]
    assert [n.name for n in load_bank(path, exclude=["bipolar"])] == [n for n in names if not n.startswith("bipolar")]
    with pytest.raises(ValueError, match="no neuron that is asked for"):
        load_bank(path, include=["no such cell"])


def test_bank_missing_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no neuron bank at"):
        load_bank(tmp_path / "nothing.npz")


def test_bank_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no neuron"):
        load_bank(tmp_path)


def test_bank_missing_field(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    arrays = {f"cell/{name}": getattr(bank[0], name) for name in bank[0].__match_args__ if name != "coef"}
    np.savez(tmp_path / "bank.npz", **arrays)
    with pytest.raises(ValueError, match=r"bank\.npz:cell is not a neuron bank entry: it lacks \['coef'\]"):
        load_bank(tmp_path / "bank.npz")


def test_bank_duplicate_names(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="distinct names"):
        save_bank(tmp_path / "bank.npz", [bank[0], bank[0]])
    assert not list(tmp_path.iterdir())


def test_currents_are_conserved(bank: list[NeuronCurrents]) -> None:
    for neuron in bank:
        mean = np.mean([neuron.membrane_currents(spike) for spike in range(neuron.num_spikes)], axis=0)
        np.testing.assert_allclose(neuron.mean_currents, mean, atol=1e-4)
        # No current leaves the cell: what enters a segment comes out of another.
        assert np.abs(mean.sum(axis=0)).max() < 1e-4 * np.abs(mean).max()


# Potentials


def test_far_contact_sees_point_sources(bank: list[NeuronCurrents]) -> None:
    soma = np.array([3000.0, -4000.0, 2000.0])
    neuron = bank[-1]
    contacts = make_contacts().positions
    middle = soma + (neuron.seg_start + neuron.seg_end) / 2
    distance_um = np.linalg.norm(contacts[:, None] - middle[None], axis=2)
    # 1 nA at 1 um in a medium of 1 S/m gives 1 mV / (4 pi).
    expected = 1000.0 / (4 * np.pi * CONDUCTIVITY * distance_um)
    field = lead_field(neuron, soma_position=soma, contact_positions=contacts)
    assert field.shape == (4, len(neuron.seg_diam))
    np.testing.assert_allclose(field, expected, rtol=0.02)


def test_line_source_closed_form(bank: list[NeuronCurrents]) -> None:
    length, distance = 40.0, 25.0
    wire = replace(
        bank[0], seg_start=np.zeros((1, 3)), seg_end=np.array([[length, 0.0, 0.0]]), seg_diam=np.array([1.0])
    )
    contact = np.array([[length / 2, distance, 0.0]])
    field = lead_field(wire, soma_position=np.zeros(3), contact_positions=contact)
    # The integral of 1 / r along a wire, seen from beside its middle.
    expected = 1000.0 / (4 * np.pi * CONDUCTIVITY * length) * 2 * np.arcsinh(length / 2 / distance)
    np.testing.assert_allclose(field, expected, rtol=1e-3)


def test_conductivity_divides(bank: list[NeuronCurrents]) -> None:
    soma, contacts = np.array([30.0, 20.0, 10.0]), make_contacts().positions
    field = lead_field(bank[0], soma_position=soma, contact_positions=contacts, conductivity=0.3)
    doubled = lead_field(bank[0], soma_position=soma, contact_positions=contacts, conductivity=0.6)
    np.testing.assert_allclose(field, 2 * doubled, rtol=1e-5)


def test_rotating_neuron_and_contacts_changes_nothing(bank: list[NeuronCurrents]) -> None:
    rotation = random_rotation(np.random.default_rng(1))
    soma, contacts = np.array([30.0, 20.0, 40.0]), make_contacts().positions
    field = lead_field(bank[5], soma_position=soma, contact_positions=contacts)
    turned = lead_field(
        bank[5], soma_position=rotation @ soma, contact_positions=contacts @ rotation.T, rotation=rotation
    )
    np.testing.assert_allclose(turned, field, rtol=1e-3)
    alone = lead_field(bank[5], soma_position=soma, contact_positions=contacts, rotation=rotation)
    assert np.abs(alone / field - 1).max() > 0.1


@pytest.mark.parametrize("layout", ["square", "diamond"])
def test_tetrode_layout(layout: str) -> None:
    positions = make_contacts(spacing_um=25.0, layout=layout).positions
    assert positions.shape == (4, 3)
    np.testing.assert_allclose(positions.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_array_equal(positions[:, 2], 0.0)
    np.testing.assert_allclose(np.linalg.norm(positions - np.roll(positions, 1, axis=0), axis=1), 25.0)
    sides_upright = np.isclose(np.abs(positions[:, 0]), 12.5).all()
    assert sides_upright == (layout == "square")


def test_tetrode_layout_unknown() -> None:
    with pytest.raises(ValueError, match="not 'round'"):
        make_contacts(layout="round")


def test_random_rotation() -> None:
    rng = np.random.default_rng(0)
    rotations = np.array([random_rotation(rng) for _ in range(2000)])
    np.testing.assert_allclose(
        rotations @ rotations.swapaxes(1, 2), np.broadcast_to(np.eye(3), (2000, 3, 3)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)
    # Uniform: an axis points everywhere alike.
    assert np.abs(rotations.mean(axis=0)).max() < 0.06
    np.testing.assert_allclose((rotations**2).mean(axis=0), 1 / 3, atol=0.03)


# Spike trains


@pytest.mark.parametrize("burst_probability", [0.0, 0.5])
@pytest.mark.parametrize("rate", [2.0, 15.0, 60.0])
def test_refractory_period(rate: float, burst_probability: float) -> None:
    train = spike_train(
        duration_s=300.0,
        firing_rate_hz=rate,
        rng=np.random.default_rng(2),
        refractory_ms=3.0,
        regularity=0.8,
        burst_probability=burst_probability,
    )
    assert np.diff(train).min() >= 0.003
    assert train[0] >= 0 and train[-1] < 300.0


@pytest.mark.parametrize("burst_probability", [0.0, 0.3])
@pytest.mark.parametrize("rate", [1.0, 5.0, 15.0])
def test_firing_rate(rate: float, burst_probability: float) -> None:
    train = spike_train(
        duration_s=10000.0, firing_rate_hz=rate, rng=np.random.default_rng(3), burst_probability=burst_probability
    )
    assert train.size / 10000.0 == pytest.approx(rate, rel=0.05)
    # It neither begins late nor ends early.
    assert train[0] < 10 / rate
    assert train[-1] > 10000.0 - 20 / rate


def test_bursts_give_short_intervals() -> None:
    def short_share(burst_probability: float) -> float:
        train = spike_train(
            duration_s=2000.0, firing_rate_hz=3.0, rng=np.random.default_rng(4), burst_probability=burst_probability
        )
        return float((np.diff(train) < 0.012).mean())

    assert short_share(0.0) < 0.05
    assert short_share(0.4) > 0.25


def test_regularity() -> None:
    def variation(regularity: float) -> float:
        train = spike_train(duration_s=2000.0, firing_rate_hz=5.0, rng=np.random.default_rng(4), regularity=regularity)
        return float(np.diff(train).std() / np.diff(train).mean())

    assert variation(1.0) == pytest.approx(1.0, abs=0.05)
    assert variation(4.0) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("duration_s", "rate"), [(10.0, 0.0), (0.0, 5.0)])
def test_no_spikes(duration_s: float, rate: float) -> None:
    assert spike_train(duration_s=duration_s, firing_rate_hz=rate, rng=np.random.default_rng(0)).shape == (0,)


def test_enforce_refractory() -> None:
    # The third is far enough from the first, which stays, though not from the second, which goes.
    kept = enforce_refractory(np.array([0.0, 1.5, 2.5, 3.0, 5.0]), refractory_s=2.0)
    assert kept.tolist() == [0.0, 2.5, 5.0]
    assert enforce_refractory(np.empty(0), refractory_s=2.0).size == 0


# Noise


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("rate", [20000.0, 30000.0])
def test_noise_level(exponent: float, rate: float) -> None:
    noise = coloured_noise(
        num_samples=int(20 * rate) + 1,
        contact_positions=make_contacts().positions,
        sampling_frequency=rate,
        rng=np.random.default_rng(0),
        level_uv=7.0,
        exponent=exponent,
    )
    assert noise.shape == (int(20 * rate) + 1, 4)
    assert noise.dtype == np.float32
    band = signal.butter(8, [300.0, 6000.0], "bandpass", fs=rate, output="sos")
    np.testing.assert_allclose(signal.sosfiltfilt(band, noise, axis=0).std(axis=0), 7.0, rtol=0.05)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_noise_exponent(exponent: float) -> None:
    noise = coloured_noise(
        num_samples=600000,
        contact_positions=np.zeros((1, 3)),
        sampling_frequency=RATE,
        rng=np.random.default_rng(1),
        level_uv=5.0,
        exponent=exponent,
        # The floor lies far below the coloured part.
        corner_hz=1e8,
    )
    frequency, power = signal.welch(noise[:, 0], fs=RATE, nperseg=30000)
    band = (frequency >= 20) & (frequency <= 5000)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)


def test_noise_floor_is_flat() -> None:
    noise = coloured_noise(
        num_samples=600000,
        contact_positions=np.zeros((1, 3)),
        sampling_frequency=RATE,
        rng=np.random.default_rng(1),
        level_uv=5.0,
        corner_hz=500.0,
    )
    frequency, power = signal.welch(noise[:, 0], fs=RATE, nperseg=3000)
    floor = power[(frequency > 10000) & (frequency < 14000)].mean()
    at_corner = power[(frequency > 450) & (frequency < 550)].mean()
    assert at_corner / floor == pytest.approx(2.0, rel=0.1)


def test_noise_correlation_falls_with_distance() -> None:
    positions = np.array([[0.0, 0, 0], [10, 0, 0], [50, 0, 0], [200, 0, 0]])
    noise = coloured_noise(
        num_samples=600000,
        contact_positions=positions,
        sampling_frequency=RATE,
        rng=np.random.default_rng(2),
        level_uv=5.0,
        exponent=0.0,
        length_constant_um=50.0,
        correlation=0.6,
    )
    measured = np.corrcoef(noise.T)[0, 1:]
    np.testing.assert_allclose(measured, 0.6 * np.exp(-np.array([10, 50, 200]) / 50), atol=0.01)
    assert (np.diff(measured) < 0).all()


# Composition


def test_same_seed_same_trial(bank: list[NeuronCurrents], small_trial: Trial) -> None:
    config = TrialConfig(duration_s=3.0, num_units=3, num_far=2)
    again, other = (compose_trial(bank, config=config, seed=seed) for seed in (5, 6))
    for name, value in vars(small_trial).items():
        np.testing.assert_array_equal(getattr(again, name), value, err_msg=name)
    assert not np.array_equal(other.traces, small_trial.traces)
    assert not np.array_equal(other.spike_samples, small_trial.spike_samples)
    assert not np.array_equal(other.unit_positions, small_trial.unit_positions)


def test_trial_is_consistent(small_trial: Trial) -> None:
    trial = small_trial
    assert trial.traces.shape == (90000, 4) and trial.traces.dtype == np.float32
    assert np.isfinite(trial.traces).all()
    assert trial.spike_samples.shape == trial.spike_labels.shape
    assert (np.diff(trial.spike_samples) >= 0).all()
    assert trial.spike_samples.min() >= 0 and trial.spike_samples.max() <= 89999
    assert set(trial.spike_labels.tolist()) == {0, 1, 2}
    assert trial.templates.shape[::2] == (3, 4)
    for template, peak in zip(trial.templates, trial.template_peak, strict=True):
        assert np.abs(template).max(axis=1).argmax() == peak
    np.testing.assert_array_equal(trial.contact_positions, make_contacts().positions)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rate", [20000.0, 24414.0625, 30000.0])
def test_spikes_lie_at_largest_deflection(bank: list[NeuronCurrents], seed: int, rate: float) -> None:
    trial = compose_trial(bank, config=replace(QUIET, sampling_frequency=rate), seed=seed)
    centre = np.round(trial.spike_samples).astype(int)
    centre = centre[(centre >= 60) & (centre < len(trial.traces) - 60)]
    assert len(centre) > 20
    average = trial.traces[centre[:, None] + np.arange(-60, 60)].mean(axis=0)
    assert abs(int(np.abs(average).max(axis=1).argmax()) - 60) <= 1
    # And it is the template that lies there; the rounding to a sample costs the narrowest spikes some percent.
    start = 60 - trial.template_peak[0]
    shared = slice(max(-start, 0), min(len(trial.templates[0]), 120 - start))
    template, found = trial.templates[0][shared], average[max(start, 0) : start + shared.stop]
    assert np.corrcoef(template.ravel(), found.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("limits", [(40.0, 60.0), (80.0, 150.0)])
def test_amplitude_bounds(bank: list[NeuronCurrents], limits: tuple[float, float]) -> None:
    config = TrialConfig(
        duration_s=0.1,
        num_units=20,
        num_far=0,
        gain_spread=0.0,
        min_amplitude_uv=limits[0],
        max_amplitude_uv=limits[1],
    )
    trial = compose_trial(bank, config=config, seed=0)
    amplitude = np.abs(trial.templates).max(axis=(1, 2))
    # The recording's low pass and its samples take a little off the bank's waveforms.
    assert amplitude.min() > 0.9 * limits[0]
    assert amplitude.max() < 1.02 * limits[1]
    distance = np.linalg.norm(trial.unit_positions[:, None] - trial.contact_positions[None], axis=2)
    assert distance.min() >= config.min_distance_um
    assert np.abs(trial.unit_positions).max() <= config.cube_um / 2


def test_impossible_amplitude(bank: list[NeuronCurrents]) -> None:
    config = TrialConfig(duration_s=0.1, min_amplitude_uv=1e6, max_amplitude_uv=2e6, num_far=0)
    with pytest.raises(ValueError, match="widen the limits"):
        compose_trial(bank[:1], config=config, seed=0)


def spike_amplitudes(trial: Trial) -> np.ndarray:
    centre = np.round(trial.spike_samples).astype(int)
    window = np.clip(centre[:, None] + np.arange(-3, 4), 0, len(trial.traces) - 1)
    return np.abs(trial.traces[window]).max(axis=(1, 2))


def test_drift_changes_amplitude(bank: list[NeuronCurrents]) -> None:
    config = replace(QUIET, drift_period_s=4.0, burst_fraction=0.0)
    still, drifting = (compose_trial(bank, config=replace(config, drift_um=d), seed=1) for d in (0.0, 20.0))
    np.testing.assert_allclose(drifting.spike_samples, still.spike_samples, atol=3)
    ratio = spike_amplitudes(drifting) / spike_amplitudes(still)
    assert ratio.max() / ratio.min() > 1.3
    # Slow: neighbouring spikes are alike.
    assert np.median(np.abs(np.diff(ratio))) < 0.3 * ratio.std()


def test_no_drift_no_change(bank: list[NeuronCurrents]) -> None:
    placed = place_neuron(
        bank[0],
        soma_position=np.array([20.0, 20.0, 20.0]),
        rotation=np.eye(3),
        contacts=make_contacts(),
        displacements=np.array([[-10.0, 0, 0], [0, 0, 0], [10, 0, 0]]),
    )
    field = contact_field(bank[0], soma_position=np.array([30.0, 20.0, 20.0]), contacts=make_contacts())
    np.testing.assert_allclose(placed.coef[2], field @ bank[0].spike_currents, rtol=1e-3, atol=1e-2)
    rest = contact_field(bank[0], soma_position=np.array([20.0, 20.0, 20.0]), contacts=make_contacts())
    np.testing.assert_allclose(placed.template(), rest @ bank[0].mean_currents, rtol=1e-3, atol=1e-2)


def smooth_neuron(neuron: NeuronCurrents) -> NeuronCurrents:
    """Of one spike and one component, a Gaussian of 0.1 ms around the peak: nothing of it is beyond 6 kHz."""
    time_ms = (np.arange(neuron.basis.shape[1]) - neuron.peak_index) * neuron.dt
    return replace(neuron, basis=np.exp(-0.5 * (time_ms / 0.1) ** 2)[None], coef=neuron.coef[:, :, :1])


@pytest.mark.parametrize("rate", [20000.0, 24414.0625, 30000.0])
def test_phase_basis(bank: list[NeuronCurrents], rate: float) -> None:
    basis, num_before = phase_basis(smooth_neuron(bank[0]), sampling_frequency=rate)
    assert basis.shape[:2] == (NUM_PHASES, 1)
    for phase in range(NUM_PHASES):
        time_ms = (np.arange(basis.shape[2]) - num_before - phase / NUM_PHASES) / rate * 1000
        np.testing.assert_allclose(basis[phase, 0], np.exp(-0.5 * (time_ms / 0.1) ** 2), atol=2e-3)


def test_spike_between_samples(bank: list[NeuronCurrents]) -> None:
    neuron = bank[-1]
    placed = place_neuron(
        neuron,
        soma_position=np.array([25.0, 0.0, 10.0]),
        rotation=np.eye(3),
        contacts=make_contacts(),
        displacements=np.zeros((1, 3)),
    )

    def traces_of(sample: float) -> np.ndarray:
        traces = np.zeros((400, 4), dtype="float32")
        add_spikes(
            traces,
            placed,
            times=np.array([sample / RATE]),
            displacement=np.zeros(1),
            channel_gains=np.ones(4),
            sampling_frequency=RATE,
            rng=np.random.default_rng(0),
        )
        return traces

    frequency = np.fft.rfftfreq(400)
    shift = np.exp(-2j * np.pi * frequency * 0.5)[:, None]
    expected = np.fft.irfft(np.fft.rfft(traces_of(200.0), axis=0) * shift, n=400, axis=0)
    found = traces_of(200.5)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert np.abs(found - traces_of(200.0)).max() > 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("sample", [-20.0, 0.0, 10.0, 395.0, 410.0])
def test_spikes_at_the_edges_are_cut(bank: list[NeuronCurrents], sample: float) -> None:
    placed = place_neuron(
        bank[0],
        soma_position=np.array([25.0, 0.0, 10.0]),
        rotation=np.eye(3),
        contacts=make_contacts(),
        displacements=np.zeros((1, 3)),
    )

    def traces_of(sample: float, length: int) -> np.ndarray:
        traces = np.zeros((length, 4), dtype="float32")
        add_spikes(
            traces,
            placed,
            times=np.array([sample / RATE]),
            displacement=np.zeros(1),
            channel_gains=np.ones(4),
            sampling_frequency=RATE,
            rng=np.random.default_rng(0),
        )
        return traces

    np.testing.assert_allclose(traces_of(sample, 400), traces_of(sample + 500, 1400)[500:900], atol=1e-3)


def test_variants_follow_the_interval(bank: list[NeuronCurrents]) -> None:
    neuron = bank[0]
    rng = np.random.default_rng(0)
    order = np.argsort(neuron.isi)
    short = choose_variants(neuron, np.full(200, 0.5), rng=rng)
    long = choose_variants(neuron, np.full(200, 1e9), rng=rng)
    assert set(short) <= set(order[:3])
    assert set(long) <= set(order[-3:])


def test_units_are_of_the_neurons_given(bank: list[NeuronCurrents]) -> None:
    given = [neuron for neuron in bank if neuron.name.startswith("stellate")][:2]
    config = TrialConfig(duration_s=0.5, num_units=8, num_far=3)
    trial = compose_trial(given, config=config, seed=0, far_neurons=bank[:1])
    assert set(trial.unit_names) == {neuron.name for neuron in given}


def test_far_neurons_are_not_labelled(bank: list[NeuronCurrents]) -> None:
    config = TrialConfig(duration_s=2.0, num_units=0, num_far=10, noise_uv=1e-3, far_rate_hz=(5.0, 10.0))
    trial = compose_trial(bank, config=config, seed=0)
    assert trial.spike_samples.size == trial.spike_labels.size == len(trial.templates) == 0
    assert trial.unit_names == []
    assert 0.5 < np.abs(trial.traces).max() < 60.0


# Trials


def test_recording_agrees_with_trial(small_trial: Trial) -> None:
    recording = to_recording(small_trial)
    assert recording.get_sampling_frequency() == 30000.0
    np.testing.assert_array_equal(recording.get_traces(), small_trial.traces)
    np.testing.assert_array_equal(recording.get_channel_gains(), 1.0)
    np.testing.assert_array_equal(recording.get_channel_offsets(), 0.0)
    np.testing.assert_array_equal(recording.get_channel_locations(), small_trial.contact_positions[:, :2])


def test_sorting_agrees_with_trial(small_trial: Trial) -> None:
    sorting = to_sorting(small_trial)
    assert sorting.unit_ids.tolist() == [0, 1, 2]
    for unit in sorting.unit_ids:
        expected = np.round(small_trial.spike_samples[small_trial.spike_labels == unit])
        np.testing.assert_array_equal(sorting.get_unit_spike_train(unit), expected)
    assert sorting.get_property("cell").tolist() == small_trial.unit_names
    np.testing.assert_array_equal(sorting.get_property("gt_unit_locations"), small_trial.unit_positions)
    np.testing.assert_allclose(sorting.get_property("amplitude_uv"), np.abs(small_trial.templates).max(axis=(1, 2)))


def test_make_trial_defaults_to_bundled_bank(small_trial: Trial) -> None:
    recording, sorting = make_trial(config=TrialConfig(duration_s=3.0, num_units=3, num_far=2), seed=5)
    np.testing.assert_array_equal(recording.get_traces(), small_trial.traces)
    assert sorting.get_property("cell").tolist() == small_trial.unit_names


def test_save_trial(bank: list[NeuronCurrents], tmp_path: Path, small_trial: Trial) -> None:
    folder = tmp_path / "deep" / "trial"
    config = TrialConfig(duration_s=3.0, num_units=3, num_far=2)
    assert save_trial(folder, bank, config=config, seed=5) == folder
    assert [path.name for path in folder.parent.iterdir()] == ["trial"]
    assert {path.name for path in folder.iterdir()} == {"recording", "sorting", "trial.yaml", "truth.npz"}

    np.testing.assert_array_equal(si.load(folder / "recording").get_traces(), small_trial.traces)
    saved = si.load(folder / "sorting")
    np.testing.assert_array_equal(saved.to_spike_vector()["sample_index"], np.sort(np.round(small_trial.spike_samples)))
    description = yaml.safe_load((folder / "trial.yaml").read_text(encoding="utf8"))
    assert description == {
        "seed": 5,
        "config": config.to_dict(),
        "version": __version__,
        "cells": small_trial.unit_names,
    }
    assert TrialConfig.from_dict(description["config"]) == config
    with np.load(folder / "truth.npz") as truth:
        np.testing.assert_array_equal(truth["spike_samples"], small_trial.spike_samples)
        np.testing.assert_array_equal(truth["templates"], small_trial.templates)
        np.testing.assert_array_equal(truth["overlapping"], small_trial.overlapping())


def test_save_trial_leaves_what_is_there(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "mine").write_text("x")
    with pytest.raises(FileExistsError, match="exists already"):
        save_trial(tmp_path / "trial", bank, config=TrialConfig(duration_s=0.1))
    assert (tmp_path / "trial" / "mine").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["trial"]


def test_failed_trial_leaves_no_folder(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    config = TrialConfig(duration_s=0.1, min_amplitude_uv=1e6, max_amplitude_uv=2e6)
    with pytest.raises(ValueError, match="widen the limits"):
        save_trial(tmp_path / "trial", bank[:1], config=config)
    assert not list(tmp_path.iterdir())


def test_save_trial_without_units(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    folder = save_trial(tmp_path / "trial", bank, config=TrialConfig(duration_s=0.5, num_units=0, num_far=1))
    assert yaml.safe_load((folder / "trial.yaml").read_text(encoding="utf8"))["cells"] == []
    assert len(si.load(folder / "sorting").unit_ids) == 0
