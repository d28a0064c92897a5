"""What is measured of extracellular spikes: widths and decays that are known, and the bundled bank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import spike_shapes
from benchmarks.spike_measures import (
    DISTANCES_UM,
    EXCITATORY,
    FAST_SPIKING,
    NEAR_UM,
    OTHER,
    UNKNOWN,
    PlacedSpikes,
    at_recording_rate,
    class_of,
    decay_distance,
    decay_exponent,
    filter_band,
    half_width,
    is_positive_first,
    measure_bank,
    measure_spikes,
    place_spikes,
    trough_to_peak,
)
from benchmarks.spike_shapes import report, summarise
from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.trials import bundled_bank

RATE = 30000.0
TIME = np.arange(-5.0, 10.0, 1000.0 / RATE)


@pytest.fixture(scope="module")
def bank() -> list[NeuronCurrents]:
    return [neuron for neuron in bundled_bank() if neuron.name.endswith(("rs_0", "fs_0"))]


@pytest.fixture(scope="module")
def spikes(bank: list[NeuronCurrents]) -> pd.DataFrame:
    return measure_bank(bank, num_placements=4)[0]


def gaussian(*, centre: float, sigma: float) -> np.ndarray:
    return np.exp(-0.5 * ((TIME - centre) / sigma) ** 2)


@pytest.mark.parametrize("start", [0.0, 0.013])
@pytest.mark.parametrize("sigma", [0.06, 0.15, 0.3])
def test_half_width_of_a_gaussian(sigma: float, start: float) -> None:
    wanted = 2 * np.sqrt(2 * np.log(2)) * sigma
    assert half_width(-70.0 * gaussian(centre=start, sigma=sigma)) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("interval", [0.25, 0.41, 0.75, 1.6])
def test_trough_to_peak_of_two_gaussians(interval: float) -> None:
    # Narrow enough to leave each other's extremum where it is.
    spike = -60.0 * gaussian(centre=0.0, sigma=0.05) + 20.0 * gaussian(centre=interval, sigma=0.06)
    assert trough_to_peak(spike) == pytest.approx(interval, abs=0.01)


def test_derivative_of_a_gaussian() -> None:
    """Its extrema are two sigma apart."""
    spike = (TIME / 0.2) * gaussian(centre=0.0, sigma=0.2)
    assert trough_to_peak(spike) == pytest.approx(0.4, abs=0.005)


def test_spikes_without_an_end() -> None:
    assert trough_to_peak(TIME**2) == np.inf
    assert np.isnan(half_width(np.linspace(0.0, -1.0, 50)))
    assert np.isnan(half_width(gaussian(centre=0.0, sigma=0.2) + 1.0))


def test_positive_first() -> None:
    first, second = gaussian(centre=-0.5, sigma=0.1), gaussian(centre=0.3, sigma=0.1)
    assert is_positive_first(2 * first - second)
    assert not is_positive_first(first - 2 * second)
    assert not is_positive_first(2 * second - first)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 2.7])
def test_decay_of_a_power(exponent: float) -> None:
    distances = np.array(DISTANCES_UM, dtype=float)
    amplitudes = 1e5 * distances**-exponent
    assert decay_exponent(amplitudes) == pytest.approx(exponent)
    found = decay_distance(amplitudes)
    assert found == pytest.approx(20.0 * np.exp(1 / exponent), rel=0.1)


def test_decay_of_an_exponential_is_exact() -> None:
    assert decay_distance(np.exp(-np.array(DISTANCES_UM) / 50.0)) == pytest.approx(70.0)
    assert decay_distance(np.ones(7)) == np.inf


@pytest.mark.parametrize(
    "name, group",
    [
        ("L5_TTPC1_cADpyr232_1", EXCITATORY),
        ("L6_TPC_L4_cADpyr231_3", EXCITATORY),
        ("L6_BPC_cADpyr231_1", EXCITATORY),
        ("L4_SS_cADpyr230_1", EXCITATORY),
        ("L4_SP_cADpyr230_1", EXCITATORY),
        ("L23_LBC_dNAC222_1", FAST_SPIKING),
        ("L6_ChC_dNAC222_5", FAST_SPIKING),
        ("L1_NGC-DA_cSTUT189_3", OTHER),
        ("L23_BP_bAC217_1", OTHER),
        ("L1_DLAC_cNAC187_3", OTHER),
        ("L5_XYZ_cNAC187_3", UNKNOWN),
        ("pyramidal_rs_4", EXCITATORY),
        ("ball_and_stick_fs_0", FAST_SPIKING),
        ("Lucifer_1", UNKNOWN),
    ],
)
def test_classes(name: str, group: str) -> None:
    assert class_of(name) == group


@pytest.mark.parametrize("dt", [0.025, 0.02500000037252903, 0.05])
def test_resampling_keeps_size_and_width(dt: float) -> None:
    time = np.arange(-3.0, 5.0, dt)
    spike = -80.0 * np.exp(-0.5 * (time / 0.15) ** 2)
    traces = at_recording_rate(np.stack([spike, spike + 7.0]), dt=dt)
    # What was there before the spike is no part of it.
    assert np.allclose(traces[0], traces[1], atol=1e-9)
    assert traces[0].min() == pytest.approx(-80.0, rel=0.01)
    assert half_width(traces[0]) == pytest.approx(2 * np.sqrt(2 * np.log(2)) * 0.15, abs=0.01)


def test_filters_pass_their_band_alone() -> None:
    time = np.arange(0.0, 1.0, 1.0 / RATE)
    for frequency, gain in ((30.0, 0.0), (1500.0, 1.0), (14000.0, 0.0)):
        filtered = filter_band(np.sin(2 * np.pi * frequency * time)[None], band=(300.0, 6000.0))
        assert np.abs(filtered[0, 10000:-10000]).max() == pytest.approx(gain, abs=0.02)
    assert np.array_equal(filter_band(time[None], band=None), time[None])


def test_quiet_around_a_window_that_ends_in_currents() -> None:
    """An offset at the end of the window is not to ring as large as the spike."""
    window = np.zeros((1, 320))
    window[0, 120:] = 1.0
    filtered = filter_band(at_recording_rate(window, dt=0.025), band=(300.0, 6000.0))
    peak = np.abs(filtered[0]).argmax()
    assert np.abs(filtered[0, peak + 200 :]).max() < 0.02


# The bundled bank


def test_rows_of_the_bundled_bank(bank: list[NeuronCurrents], spikes: pd.DataFrame) -> None:
    assert len(spikes) == 4 * len(bank)
    assert set(spikes["class"]) == {EXCITATORY, FAST_SPIKING}
    assert spikes["distance_um"].between(*NEAR_UM).all()
    sizes = spikes[[f"amplitude_{far}um_uv" for far in DISTANCES_UM]].to_numpy()
    assert np.all(sizes > 0)
    assert np.all(np.diff(np.median(sizes, axis=0)) < 0)
    # The project's own cells were made to differ so.
    widths = spikes.groupby("class")["trough_to_peak_100_ms"].median()
    assert widths[FAST_SPIKING] < 0.5 < widths[EXCITATORY] < 0.9


def test_placements_depend_on_seed_and_name_alone(bank: list[NeuronCurrents]) -> None:
    def measure(neurons: list[NeuronCurrents], seed: int) -> pd.DataFrame:
        table, _ = measure_bank(neurons, num_placements=2, seed=seed)
        return table[table["name"] == bank[1].name].reset_index(drop=True)

    pd.testing.assert_frame_equal(measure(bank[:2], 3), measure(bank[1:3], 3))
    assert not measure(bank[1:2], 3).equals(measure(bank[1:2], 4))


def test_filtering_makes_spikes_no_larger_far_from_them(bank: list[NeuronCurrents]) -> None:
    placed = place_spikes(bank[0], num_placements=3)
    assert set(placed.traces) == {"wide", "100", "300"}
    for traces in placed.traces.values():
        assert traces.shape[:2] == (3, 1 + len(DISTANCES_UM))
    energies = [np.square(placed.traces[band]).sum() for band in ("wide", "100", "300")]
    assert energies[0] >= energies[1] >= energies[2]


def test_upward_spikes_have_no_width() -> None:
    spike = 50.0 * gaussian(centre=-0.4, sigma=0.1) - 20.0 * gaussian(centre=0.0, sigma=0.1)
    traces = np.tile(spike, (1, 1 + len(DISTANCES_UM), 1))
    distances = np.array([[40.0, *DISTANCES_UM]])
    placed = PlacedSpikes(distances, {"wide": traces, "100": traces, "300": traces})
    row = measure_spikes(placed, name="L4_SS_cADpyr230_1").iloc[0]
    assert row["positive_first_300"]
    assert np.isnan(row["trough_to_peak_100_ms"]) and np.isnan(row["half_width_100_ms"])
    assert row["amplitude_uv"] == pytest.approx(20.0, rel=0.05)


def test_summary_counts_what_is_outside() -> None:
    bundle = {
        "name": [f"pyramidal_rs_{i}" for i in range(4)] * 2 + ["stellate_fs_0"] * 2,
        "class": [EXCITATORY] * 8 + [FAST_SPIKING] * 2,
        "trough_to_peak_100_ms": [0.3, 0.5, 0.6, 0.7, 0.75, 0.9, np.inf, np.nan, 0.3, 0.4],
        "positive_first_300": [False] * 7 + [True] + [False] * 2,
    }
    summary = summarise(pd.DataFrame(bundle)).set_index(["class", "measure"])
    widths = summary.loc[(EXCITATORY, "trough_to_peak_100_ms")]
    assert (widths["num_neurons"], widths["num_spikes"]) == (4, 7)
    assert (widths["median"], widths["share_outside"]) == (0.7, pytest.approx(3 / 7))
    assert widths["mismatch"]
    fast = summary.loc[(FAST_SPIKING, "trough_to_peak_100_ms")]
    # 0.4 ms is no longer under 0.4 ms.
    assert fast["share_outside"] == 0.5
    assert summary.loc[(EXCITATORY, "positive_first_300_share"), "median"] == pytest.approx(1 / 8)
    narrower = summary.loc[(FAST_SPIKING, "narrower_than_excitatory_share"), "median"]
    assert narrower == pytest.approx((6 / 7 + 6 / 7) / 2)
    text = report(summary.reset_index())
    assert "MISMATCH, excitatory: 43 % of 7 spikes outside, median 0.7" in text
    assert "Bartho et al. 2004" in text


def test_summary_splits_fast_spiking_neurons_by_firing() -> None:
    widths = {
        "L23_LBC_dNAC222_1": 0.3,
        "L6_ChC_cNAC187_2": 0.35,
        "L4_NBC_bSTUT213_2": 0.32,
        "L4_SBC_cACint209_1": 0.6,
        "L5_LBC_bAC217_1": 0.7,
        "L6_NBC_bIR215_5": 0.3,
        "stellate_fs_0": 0.2,
        "L1_NGC-DA_cSTUT189_3": 0.5,
    }
    bundle = {"name": list(widths), "class": map(class_of, widths), "trough_to_peak_100_ms": widths.values()}
    summary = summarise(pd.DataFrame({key: list(values) for key, values in bundle.items()}))
    slowing, steady = f"{FAST_SPIKING} (accommodating or irregular)", f"{FAST_SPIKING} (non-accommodating)"
    assert list(summary["class"]) == [FAST_SPIKING, slowing, steady, OTHER]
    # One whose name does not tell counts in the class alone.
    assert list(summary["num_neurons"]) == [7, 3, 3, 1]
    assert list(summary["median"][1:3]) == [0.6, 0.32] and list(summary["mismatch"][1:3]) == [True, False]
    assert f"{steady}, 3 neurons" in report(summary)


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    neurons = bundled_bank()[:3] + bundled_bank()[-1:]
    monkeypatch.setattr(spike_shapes, "load_bank", lambda path: neurons)
    arguments = ["--bank", "bank", "--output", str(tmp_path / "out"), "--num-placements", "2"]
    assert spike_shapes.main([*arguments, "--figure", str(tmp_path / "figure.png")]) == 0
    table = pd.read_csv(tmp_path / "out" / "spike_shapes.csv")
    assert set(table["class"]) == {EXCITATORY, FAST_SPIKING}
    assert table.loc[table["class"] == EXCITATORY, "num_neurons"].eq(2).all()
    assert (tmp_path / "figure.png").stat().st_size > 10000
    assert not (tmp_path / "out" / "spike_shapes.png").exists()
    printed = capsys.readouterr().out
    assert "4 neurons, 2 placements each" in printed and "excitatory, 2 neurons" in printed
