from __future__ import annotations

from dataclasses import replace
from importlib.resources import as_file, files

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from spikeinterface_simsort.simulation.bank import load_bank, save_bank
from spikeinterface_simsort.simulation.reduced_cells import REGULAR_SPIKING, ReducedCell, make_cell
from spikeinterface_simsort.simulation.reduced_simulation import (
    AXIAL_RESISTIVITY,
    BUNDLED,
    E_K,
    E_NA,
    axial_matrix,
    find_rheobase,
    gate_rates,
    simulate,
    spike_triggered_currents,
)
from spikeinterface_simsort.simulation.spike_currents import DT, compress_windows, spike_samples
from spikeinterface_simsort.simulation.stimuli import pink_noise


def cylinders(*, parent: list[int], length: list[float], diam: list[float], active: bool = False) -> ReducedCell:
    """Cylinders in a row: only their lengths, diameters and parents matter to the solver."""
    num = len(parent)
    start, end = np.zeros((num, 3)), np.zeros((num, 3))
    end[:, 0] = length
    membrane = REGULAR_SPIKING
    scale = np.full(num, float(active))
    return ReducedCell(
        name="cylinders",
        parent=np.array(parent),
        start=start,
        end=end,
        diam=np.array(diam, dtype=float),
        g_na=scale * membrane.g_na,
        g_kd=scale * membrane.g_kd,
        g_m=scale * membrane.g_m,
        g_leak=np.full(num, membrane.g_leak),
        v_t=np.full(num, membrane.v_t),
        membrane=membrane,
    )


def input_conductance(cell: ReducedCell) -> float:
    """In uS, of a passive cell seen from its soma."""
    total = axial_matrix(cell=cell) + np.diag(cell.g_leak * cell.area * 1e-5)
    return 1.0 / np.linalg.inv(total)[cell.soma, cell.soma]


def cable_conductance(*, length: float, diam: float, g_leak: float) -> float:
    """Input conductance in uS of a passive cable with a sealed end (Rall 1959)."""
    space_constant = 1e4 * np.sqrt(diam * 1e-4 / 4 / (g_leak * 1e-3 * AXIAL_RESISTIVITY))  # um
    endless = 1e6 * np.pi / 2 * (diam * 1e-4) ** 1.5 * np.sqrt(g_leak * 1e-3 / AXIAL_RESISTIVITY)
    return float(endless * np.tanh(length / space_constant))


@pytest.fixture(scope="module")
def cell() -> ReducedCell:
    return make_cell(shape="bipolar", firing="fs", name="bipolar_fs", rng=np.random.default_rng(1))


@pytest.fixture(scope="module")
def rheobase(cell) -> float:
    return find_rheobase(cell=cell, duration_ms=40.0, num_runs=4)


@pytest.fixture(scope="module")
def neuron(cell, rheobase):
    return spike_triggered_currents(
        cell=cell, rng=np.random.default_rng(2), rheobase=rheobase, num_spikes=6, num_runs=3, duration_ms=150.0
    )


@pytest.fixture(scope="module")
def bundled():
    with as_file(files("spikeinterface_simsort") / "assets" / "neuron_bank.npz") as path:
        return load_bank(path), path.stat().st_size


def test_isolated_soma_charges_exponentially():
    soma = cylinders(parent=[-1], length=[20.0], diam=[20.0])
    current = np.full((1, 4000), 0.02)
    v_soma, currents = simulate(cell=soma, current=current)
    conductance = soma.g_leak[0] * soma.area[0] * 1e-5
    time = DT * np.arange(1, 4001)
    expected = soma.membrane.e_leak + 0.02 / conductance * (1 - np.exp(-time * soma.g_leak[0]))
    np.testing.assert_allclose(v_soma[0] - soma.membrane.e_leak, expected - soma.membrane.e_leak, rtol=0.01)
    np.testing.assert_allclose(currents, 0.0, atol=1e-6)


def test_ball_and_stick_has_the_input_resistance_of_a_cable():
    pieces, length, diam = 30, 600.0, 4.0
    stick = cylinders(
        parent=list(range(-1, pieces)), length=[20.0] + pieces * [length / pieces], diam=[20.0] + pieces * [diam]
    )
    g_leak = stick.g_leak[0]
    expected = np.pi * 20.0 * 20.0 * 1e-5 * g_leak + cable_conductance(length=length, diam=diam, g_leak=g_leak)
    assert input_conductance(stick) == pytest.approx(expected, rel=0.01)
    # The solver settles where the matrix says.
    v_soma, _ = simulate(cell=stick, current=np.full((1, 6000), 0.02))
    assert v_soma[0, -1] - stick.membrane.e_leak == pytest.approx(0.02 / expected, rel=0.01)


def test_fork_with_ralls_law_is_a_cable():
    # Daughters of 2**(-2/3) of the diameter, as long in units of their space constant, continue the cable.
    pieces, diam, longer = 10, 4.0, 2.0 ** (-1 / 3)
    thin, short = diam * 2 ** (-2 / 3), 30.0 * longer
    trunk = list(range(-1, pieces))
    daughters = [pieces, *range(pieces + 1, 2 * pieces)], [pieces, *range(2 * pieces + 1, 3 * pieces)]
    fork = cylinders(
        parent=trunk + daughters[0] + daughters[1],
        length=[20.0] + pieces * [30.0] + 2 * pieces * [short],
        diam=[20.0] + pieces * [diam] + 2 * pieces * [thin],
    )
    cable = cylinders(
        parent=list(range(-1, 2 * pieces)), length=[20.0] + 2 * pieces * [30.0], diam=[20.0] + 2 * pieces * [diam]
    )
    assert input_conductance(fork) == pytest.approx(input_conductance(cable), rel=1e-6)


def test_active_soma_follows_the_differential_equations():
    soma = cylinders(parent=[-1], length=[20.0], diam=[20.0], active=True)
    membrane, density = soma.membrane, 0.1 / (soma.area[0] * 1e-5)  # 0.1 nA in uA/cm2

    def derivative(_, state):
        v, gates = state[0], state[1:]
        steady, rate = gate_rates(u=np.array([v - membrane.v_t]), v=np.array([v]), membrane=membrane)
        m, h, n, p = gates
        ionic = membrane.g_leak * (v - membrane.e_leak) + membrane.g_na * m**3 * h * (v - E_NA)
        ionic += (membrane.g_kd * n**4 + membrane.g_m * p) * (v - E_K)
        return np.concatenate([[density - ionic], rate[0] * (steady[0] - gates)])

    rest = np.array([membrane.e_leak])
    gates = gate_rates(u=rest - membrane.v_t, v=rest, membrane=membrane)[0][0]
    exact = solve_ivp(
        derivative, (0, 25), np.concatenate([rest, gates]), t_eval=DT * np.arange(1, 1001), method="LSODA", rtol=1e-8
    ).y[0]
    v_soma, _ = simulate(cell=soma, current=np.full((1, 1000), 0.1))
    spikes, exact_spikes = spike_samples(v_soma=v_soma[0]), spike_samples(v_soma=exact)
    assert len(spikes) == len(exact_spikes) > 0
    assert abs(spikes[0] - exact_spikes[0]) * DT < 0.1
    assert v_soma[0, spikes[0]] == pytest.approx(exact[exact_spikes[0]], abs=2.0)


def test_currents_sum_to_zero(cell, rheobase):
    current = np.zeros((2, 3000))
    current[:, 400:] = 1.5 * rheobase * np.array([[1.0], [-1.0]])
    v_soma, currents = simulate(cell=cell, current=current)
    assert len(spike_samples(v_soma=v_soma[0])) > 0
    assert len(spike_samples(v_soma=v_soma[1])) == 0
    assert np.abs(currents.sum(axis=1)).max() < 1e-4 * np.abs(currents).max()


def test_rheobase_is_the_smallest_step_that_makes_spikes(cell, rheobase):
    step = np.zeros(round(60.0 / DT))
    step[round(20.0 / DT) :] = rheobase
    v_soma, _ = simulate(cell=cell, current=np.array([[1.0], [0.95], [0.8]]) * step)
    assert [len(spike_samples(v_soma=v)) > 0 for v in v_soma] == [True, False, False]


def test_no_rheobase_of_a_passive_cell(cell):
    none = np.zeros(len(cell.diam))
    passive = replace(cell, g_na=none, g_kd=none, g_m=none)
    with pytest.raises(ValueError, match="has no rheobase"):
        find_rheobase(cell=passive, duration_ms=20.0, num_runs=2)


def test_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="There is no cell"):
        make_cell(shape="granule", firing="rs", name="x", rng=np.random.default_rng(0))


@pytest.mark.parametrize("shape", ["ball_and_stick", "pyramidal", "stellate", "bipolar"])
def test_trees_are_connected(shape):
    grown = [make_cell(shape=shape, firing="rs", name="x", rng=np.random.default_rng(seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(grown[0].end, grown[1].end)
    assert grown[0].diam[grown[0].soma] != grown[2].diam[grown[2].soma]
    for tree in grown:
        assert 30 <= len(tree.parent) <= 120
        assert np.linalg.norm(tree.end - tree.start, axis=1).max() <= 80.0
        np.testing.assert_allclose(tree.start[tree.soma] + tree.end[tree.soma], 0.0)
        beyond = (tree.parent >= 0) & (tree.parent != tree.soma)
        np.testing.assert_allclose(tree.start[beyond], tree.end[tree.parent[beyond]])
        on_soma = tree.parent == tree.soma
        np.testing.assert_allclose(np.linalg.norm(tree.start[on_soma], axis=1), tree.diam[tree.soma] / 2)
        # One current can flow everywhere, and none out.
        axial = axial_matrix(cell=tree)
        np.testing.assert_allclose(axial.sum(axis=1), 0.0, atol=1e-9)
        assert np.linalg.matrix_rank(axial) == len(axial) - 1


def test_pink_noise_falls_as_one_over_f():
    noise = pink_noise(dt=DT, num_runs=40, num_samples=40_000, rng=np.random.default_rng(0))
    np.testing.assert_allclose(noise.std(axis=1), 1.0)
    power, frequency = np.mean(np.abs(np.fft.rfft(noise)) ** 2, axis=0), np.fft.rfftfreq(40_000, DT * 1e-3)
    low, high = ((frequency >= f) & (frequency <= 1.5 * f) for f in (20.0, 200.0))
    assert power[low].mean() / power[high].mean() == pytest.approx(10.0, rel=0.2)
    assert power[frequency > 510.0].max() < 1e-12 * power.max()


def test_compression_keeps_the_energy():
    rng = np.random.default_rng(0)
    windows = np.einsum("k,sck,kt->sct", [5.0, 1.0, 0.2], rng.normal(size=(6, 40, 3)), rng.normal(size=(3, 320)))
    windows -= windows.mean(axis=1, keepdims=True)
    coef, scale, basis = compress_windows(windows=windows, lost=1e-4)
    assert basis.shape == (3, 320) and basis.dtype == "float32"
    assert coef.shape == (6, 40, 3) and coef.dtype == "float16"
    assert np.abs(coef).max() == 1.0
    assert np.all(coef.astype(float).sum(axis=1) == 0.0)
    assert np.sum((coef.astype(float) @ basis * scale - windows) ** 2) < 2e-4 * np.sum(windows**2)
    assert len(compress_windows(windows=windows, lost=0.1)[2]) == 1


def test_spike_triggered_currents(neuron, tmp_path):
    currents = np.stack([neuron.membrane_currents(spike) for spike in range(neuron.num_spikes)])
    assert np.abs(currents.sum(axis=1)).max() < 1e-3 * np.abs(currents).max()
    assert np.abs(currents[..., [0, -1]]).max() < 1e-3
    # Sodium enters the soma while its voltage rises.
    trough = currents[:, neuron.soma].argmin(axis=-1)
    assert np.all((trough <= neuron.peak_index) & (trough > neuron.peak_index - 0.3 / DT))
    assert np.all(np.diff(neuron.isi) >= 0) and neuron.isi[0] > 4.0
    save_bank(tmp_path / "bank.npz", [neuron])
    (loaded,) = load_bank(tmp_path / "bank.npz")
    np.testing.assert_array_equal(loaded.membrane_currents(0), neuron.membrane_currents(0))


def test_bundled_bank_has_its_neurons(bundled):
    neurons, size = bundled
    assert size < 700_000
    names = {f"{shape}_{firing}_{i}" for (shape, firing), count in BUNDLED.items() for i in range(count)}
    assert {neuron.name for neuron in neurons} == names
    for neuron in neurons:
        num_segments, num_components = len(neuron.seg_diam), len(neuron.basis)
        assert 30 <= num_segments <= 120
        assert neuron.seg_start.shape == neuron.seg_end.shape == (num_segments, 3)
        assert neuron.basis.shape == (num_components, 320) and neuron.basis.dtype == "float32"
        assert neuron.coef.shape == (neuron.num_spikes, num_segments, num_components)
        assert neuron.coef.dtype == "float16" and np.abs(neuron.coef).max() <= 1.0
        assert 25 <= neuron.num_spikes == len(neuron.isi) == len(neuron.v_peak)
        assert (neuron.dt, neuron.peak_index) == (0.025, 120)
        assert 4.0 < neuron.isi.min() < 12.0 and neuron.isi.max() == np.float32(2.5e7)
        assert np.all(neuron.v_peak > 0.0) and 0.02 < neuron.rheobase < 1.0
        np.testing.assert_allclose(neuron.seg_start[neuron.soma] + neuron.seg_end[neuron.soma], 0.0, atol=1e-5)


def test_bundled_bank_has_cortical_amplitudes_and_widths(bundled):
    directions = np.random.default_rng(0).normal(size=(200, 3))
    contacts = 40.0 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    for neuron in bundled[0]:
        currents = np.mean([neuron.membrane_currents(spike) for spike in range(neuron.num_spikes)], axis=0)
        assert np.abs(currents.sum(axis=0)).max() < 1e-3 * np.abs(currents).max()
        # Point sources at a tenth of each segment, no closer than 10 um; nA, um and 0.3 S/m give mV.
        places = neuron.seg_start + (np.arange(0.05, 1, 0.1)[:, None, None] * (neuron.seg_end - neuron.seg_start))
        distance = np.linalg.norm(contacts[:, None, None] - places, axis=-1).clip(
            min=10.0
        )  # contacts x tenths x segments
        potential = 1e3 * np.mean(1 / distance, axis=1) / (4 * np.pi * 0.3) @ currents
        amplitude = np.abs(potential).max(axis=1)
        assert 15.0 < np.quantile(amplitude, 0.95) < 200.0
        largest = np.argsort(amplitude)[-20:]
        trough = potential[largest].argmin(axis=1)
        assert np.mean(potential[largest].min(axis=1) == -amplitude[largest]) > 0.9
        width = [DT * np.argmax(v[t : t + 60]) for v, t in zip(potential[largest], trough, strict=True)]
        low, high = (0.25, 0.5) if "_fs_" in neuron.name else (0.5, 0.9)
        assert low < np.median(width) < high
