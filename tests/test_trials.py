"""Trials: how the tissue moves, what disturbs, how units fire together, and what is composed and written of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spikeinterface.core as si
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.composition import Trial, compose_trial
from spikeinterface_simsort.simulation.drift import KINDS, STEP_S, drift_at, drift_course
from spikeinterface_simsort.simulation.electrodes import Contacts
from spikeinterface_simsort.simulation.noise import coloured_noise, line_hum, motion_artefacts
from spikeinterface_simsort.simulation.spiketrains import log_normal_rate, overlapping, spike_train, synchronise
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import bundled_bank, labelled_waveforms, save_trial, write_trial

RATE = 10000.0
SMALL = TrialConfig(duration_s=1.0, sampling_frequency=RATE, num_units=3, num_far=2, firing_rate_hz=(10.0, 30.0))
QUIET = replace(SMALL, num_far=0, noise_uv=1e-3, num_units=1, burst_fraction=0.0, gain_spread=0.0)


@pytest.fixture(scope="module")
def bank() -> list[NeuronCurrents]:
    return bundled_bank()


@pytest.fixture(scope="module")
def small_trial(bank: list[NeuronCurrents]) -> Trial:
    return compose_trial(bank, config=SMALL, seed=2)


# Drift


def course_of(kind: str, *, seed: int = 0, duration_s: float = 30.0, **more: Any) -> np.ndarray:
    return drift_course(kind=kind, duration_s=duration_s, rng=np.random.default_rng(seed), **more)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_course_stays_in_range(kind: str, seed: int) -> None:
    assert np.abs(course_of(kind, seed=seed)).max() <= 1.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("duration_s", [0.01, 0.3, 0.7, 1.1, 29.95])
def test_course_lasts_to_the_end(kind: str, duration_s: float) -> None:
    course = course_of(kind, duration_s=duration_s)
    assert duration_s <= (len(course) - 1) * STEP_S + 1e-9 < duration_s + 2 * STEP_S


@pytest.mark.parametrize("kind", KINDS)
def test_course_is_reproducible(kind: str) -> None:
    np.testing.assert_array_equal(course_of(kind, seed=3), course_of(kind, seed=3))


@pytest.mark.parametrize("kind", ["sinusoid", "steps", "random_walk"])
def test_courses_differ(kind: str) -> None:
    assert not np.array_equal(course_of(kind, seed=3), course_of(kind, seed=4))


def test_no_course() -> None:
    np.testing.assert_array_equal(course_of("none"), np.zeros(301))


def test_linear_course_goes_either_way() -> None:
    ends = {(course_of("linear", seed=seed)[0], course_of("linear", seed=seed)[-1]) for seed in range(20)}
    assert ends == {(-1.0, 1.0), (1.0, -1.0)}


def test_linear_course_is_steady() -> None:
    np.testing.assert_allclose(np.diff(course_of("linear"), n=2), 0.0, atol=1e-12)


def test_sinusoid_has_its_period() -> None:
    course = course_of("sinusoid", period_s=5.0)
    np.testing.assert_allclose(course[50:], course[:-50], atol=1e-9)
    np.testing.assert_allclose(course[25:], -course[:-25], atol=1e-9)
    assert course.max() > 0.99


@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_number_of_jumps(num_steps: int) -> None:
    # So long that no two jumps fall into the same step.
    course = course_of("steps", duration_s=2000.0, num_steps=num_steps)
    assert np.count_nonzero(np.diff(course)) == num_steps


def test_random_walk_spreads_as_said() -> None:
    # The variance of a quarter of the period, 150 steps, is 1/3.
    changes = [np.diff(course_of("random_walk", seed=seed, period_s=60.0)) for seed in range(30)]
    steps = np.abs(np.concatenate(changes))
    # Half of the steps of a Gaussian are below 0.674 of its standard deviation; few are folded.
    assert np.median(steps) == pytest.approx(0.6745 * np.sqrt(STEP_S / 45.0), rel=0.05)


def test_random_walk_goes_everywhere() -> None:
    course = course_of("random_walk", duration_s=20000.0, period_s=20.0)
    counts, _ = np.histogram(course, bins=4, range=(-1, 1))
    np.testing.assert_allclose(counts / len(course), 0.25, atol=0.05)


def test_unknown_course() -> None:
    with pytest.raises(ValueError, match="one of none, linear.*not 'circle'"):
        course_of("circle")


@pytest.mark.parametrize(("time", "value"), [(0.0, 0.0), (0.1, 1.0), (0.05, 0.5), (0.125, 0.5), (9.0, -1.0)])
def test_drift_at(time: float, value: float) -> None:
    assert drift_at(np.array([0.0, 1.0, -1.0]), np.array([time]))[0] == pytest.approx(value)


# Hum and artefacts


@pytest.mark.parametrize("hum_hz", [50.0, 60.0])
def test_hum_spectrum(hum_hz: float) -> None:
    wave = line_hum(
        num_samples=10000,
        sampling_frequency=RATE,
        hum_hz=hum_hz,
        gains=np.array([20.0]),
        rng=np.random.default_rng(0),
    )
    amplitude = np.abs(np.fft.rfft(wave[:, 0])) / 5000
    lines = (hum_hz * np.array([1, 3, 5])).astype(int)
    np.testing.assert_allclose(amplitude[lines], [20.0, 6.0, 2.0], rtol=1e-3)
    assert np.delete(amplitude, lines).max() < 1e-3


def test_hum_is_in_phase_on_all_channels() -> None:
    gains = np.array([1.0, 2.0, -0.5])
    wave = line_hum(num_samples=500, sampling_frequency=RATE, hum_hz=50.0, gains=gains, rng=np.random.default_rng(0))
    np.testing.assert_allclose(wave, wave[:, :1] * gains, atol=1e-5)


def artefacts(*, seconds: float = 60.0, rate_hz: float = 0.5, seed: int = 0, num_channels: int = 4) -> np.ndarray:
    return motion_artefacts(
        num_samples=int(seconds * RATE),
        sampling_frequency=RATE,
        rate_hz=rate_hz,
        amplitude_uv=100.0,
        num_channels=num_channels,
        rng=np.random.default_rng(seed),
    )


def test_artefacts_come_at_their_rate() -> None:
    # Seldom: hardly two meet.
    busy = np.abs(artefacts(seconds=1000.0, rate_hz=0.1, num_channels=1)[:, 0]) > 0
    starts = np.count_nonzero(np.diff(busy[:: int(0.01 * RATE)].astype(int)) == 1)
    assert 75 <= starts <= 125


def test_artefacts_lie_below_800_hz() -> None:
    frequency, power = signal.welch(artefacts()[:, 0], fs=RATE, nperseg=4096)
    # The hanning window of a stretch of 40 ms smears little beyond the band.
    assert power[frequency > 900].sum() < 1e-3 * power.sum()
    assert power[(frequency > 300) & (frequency < 800)].sum() > 1e-2 * power.sum()


def test_artefacts_are_nearly_the_same_on_all_channels() -> None:
    wave = artefacts(num_channels=32)
    np.testing.assert_allclose(np.corrcoef(wave.T), 1.0, atol=1e-4)
    assert 0.03 < (wave.std(axis=0) / wave.std(axis=0).mean()).std() < 0.2


def test_no_artefacts() -> None:
    assert not artefacts(rate_hz=0.0).any()


@pytest.mark.parametrize("num_samples", [1, 10, 300])
def test_artefacts_longer_than_the_trial(num_samples: int) -> None:
    wave = artefacts(seconds=num_samples / RATE, rate_hz=1e4)
    assert wave.shape == (num_samples, 4) and np.isfinite(wave).all()


def test_noise_without_a_band_is_refused() -> None:
    with pytest.raises(ValueError, match="300"):
        coloured_noise(
            num_samples=1000,
            contact_positions=np.zeros((1, 3)),
            sampling_frequency=500.0,
            rng=np.random.default_rng(0),
            level_uv=5.0,
        )


# Firing


def rates(limits: tuple[float, float], spread: float, *, count: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.array([log_normal_rate(rng, limits=limits, spread=spread) for _ in range(count)])


@pytest.mark.parametrize(("limits", "spread"), [((1.0, 15.0), 0.8), ((0.3, 30.0), 1.0), ((1.0, 1.05), 2.0)])
def test_rates_keep_their_limits(limits: tuple[float, float], spread: float) -> None:
    drawn = rates(limits, spread)
    assert drawn.min() >= limits[0] * (1 - 1e-9) and drawn.max() <= limits[1] * (1 + 1e-9)


@pytest.mark.parametrize(("limits", "spread"), [((1.0, 16.0), 0.8), ((0.3, 30.0), 1.0), ((1.0, 1.05), 2.0)])
def test_median_rate_is_the_geometric_mean(limits: tuple[float, float], spread: float) -> None:
    width = min(spread, np.log(limits[1] / limits[0]))
    assert np.median(np.log(rates(limits, spread))) == pytest.approx(np.log(limits).mean(), abs=0.06 * width)


def test_spread_of_rates() -> None:
    # So wide that nothing is cut.
    assert np.log(rates((1e-4, 1e4), 0.7)).std() == pytest.approx(0.7, rel=0.05)


def test_no_heap_at_the_limits() -> None:
    logs = np.log(rates((1.0, 2.0), 0.6)) / np.log(2.0)
    counts, _ = np.histogram(logs, bins=10, range=(0, 1))
    assert counts[[0, -1]].max() < counts[3:7].mean()


@pytest.mark.parametrize(("limits", "spread"), [((4.0, 9.0), 0.0), ((6.0, 6.0), 0.0), ((6.0, 6.0), 1.0)])
def test_rate_without_spread(limits: tuple[float, float], spread: float) -> None:
    np.testing.assert_allclose(rates(limits, spread, count=5), 6.0)


def trains_of(num_units: int, *, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [spike_train(duration_s=300.0, firing_rate_hz=4.0, rng=rng) for _ in range(num_units)]


def synchronised(trains: list[np.ndarray], share: float, *, window_ms: float = 1.0) -> list[np.ndarray]:
    return synchronise(
        trains,
        share=share,
        window_ms=window_ms,
        refractory_s=[0.002] * len(trains),
        duration_s=300.0,
        rng=np.random.default_rng(1),
    )


def share_in_company(trains: list[np.ndarray], *, window_ms: float = 1.0) -> float:
    times = np.concatenate(trains)
    labels = np.repeat(np.arange(len(trains)), [len(train) for train in trains])
    order = np.argsort(times)
    return float(overlapping(times[order], labels[order], window=window_ms / 1000 + 1e-9).mean())


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_synchrony_keeps_rates(share: float) -> None:
    trains = trains_of(4)
    for train, moved in zip(trains, synchronised(trains, share), strict=True):
        assert 0.9 * len(train) <= len(moved) <= len(train)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 1.0])
def test_moved_spikes_are_in_company(share: float) -> None:
    # The moved ones at least, up to those of the first unit, which has nowhere to go when all others move as well.
    found = share_in_company(synchronised(trains_of(6), share))
    assert found >= 0.97 * share - (1 / 6 if share == 1.0 else 0)


def test_company_grows_with_synchrony() -> None:
    found = [share_in_company(synchronised(trains_of(4), share)) for share in (0.0, 0.1, 0.3, 0.6)]
    assert np.diff(found).min() > 0.05


@pytest.mark.parametrize("window_ms", [0.3, 2.0])
def test_company_is_within_the_window(window_ms: float) -> None:
    moved = synchronised(trains_of(6), 0.5, window_ms=window_ms)
    assert share_in_company(moved, window_ms=window_ms) > 0.5


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_synchrony_keeps_refractory_periods(share: float) -> None:
    for train in synchronised(trains_of(4), share):
        assert np.diff(train).min() >= 0.002
        assert train[0] >= 0 and train[-1] < 300.0


def test_no_synchrony_no_change() -> None:
    trains = trains_of(3)
    for train, same in zip(trains, synchronised(trains, 0.0), strict=True):
        np.testing.assert_array_equal(train, same)


def test_single_unit_has_no_company() -> None:
    (train,) = trains_of(1)
    np.testing.assert_array_equal(synchronised([train], 0.5)[0], train)


def test_silent_units_in_company() -> None:
    assert [len(train) for train in synchronised([np.empty(0), np.empty(0)], 0.5)] == [0, 0]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=40),
    st.integers(0, 20),
)
def test_overlapping_as_each_with_each(spikes: list[tuple[int, int]], window: int) -> None:
    spikes = sorted(spikes)
    samples, labels = np.array(spikes, dtype=int).reshape(-1, 2).T
    expected = [
        any(label != other and abs(sample - time) <= window for time, other in spikes) for sample, label in spikes
    ]
    assert overlapping(samples, labels, window=window).tolist() == expected


# Configuration


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"duration_s": 0.0}, "duration_s must be larger than 0, not 0"),
        ({"duration_s": np.inf}, "duration_s must be larger than 0, not inf"),
        ({"sampling_frequency": np.nan}, "sampling_frequency must be"),
        ({"num_units": -1}, "num_units must be 0 or more, not -1"),
        ({"noise_uv": -0.1}, "noise_uv must be 0 or more"),
        ({"synchrony": 1.1}, "synchrony must be between 0 and 1, not 1.1"),
        ({"burst_fraction": np.nan}, "burst_fraction must be between 0 and 1"),
        ({"firing_rate_hz": (5.0, 1.0)}, "firing_rate_hz must be two numbers, 0 < low <= high"),
        ({"far_rate_hz": (0.0, 1.0)}, "far_rate_hz must be two numbers"),
        ({"far_distance_um": (100.0, np.inf)}, "far_distance_um must be two numbers"),
        ({"min_amplitude_uv": 500.0}, "max_amplitude_uv must be above min_amplitude_uv"),
        ({"layout": "round"}, "layout must be one of square, .*not 'round'"),
        ({"drift_kind": "circle"}, "drift_kind must be one of none, .*not 'circle'"),
        ({"saturation_uv": 0.0}, "saturation_uv must be larger than 0, or none"),
        ({"num_channels": 0}, "num_channels must be larger than 0"),
    ],
)
def test_bad_config(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrialConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_unit": 3}, "A trial has no num_unit. It has duration_s, .*num_channels"),
        ({1: 3, "foo": 2}, "A trial has no 1, foo"),
        ({"num_units": 2.5}, "num_units must be int, not 2.5"),
        ({"num_units": float("inf")}, "num_units must be int, not inf"),
        ({"num_units": float("nan")}, "num_units must be int, not nan"),
        ({"num_units": True}, "num_units must be int, not True"),
        ({"noise_uv": "5"}, "noise_uv must be float, not '5'"),
        ({"noise_uv": None}, "noise_uv must be float, not None"),
        ({"layout": 4}, "layout must be str, not 4"),
        ({"firing_rate_hz": [1.0]}, "firing_rate_hz must be two numbers"),
        ({"firing_rate_hz": [1.0, "a"]}, "firing_rate_hz must be two numbers"),
    ],
)
def test_bad_table(values: dict[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrialConfig.from_dict(values)


def test_whole_number_with_a_point_counts() -> None:
    assert repr(TrialConfig.from_dict({"num_units": 5.0}).num_units) == "5"


@pytest.mark.parametrize(
    "config",
    [TrialConfig(), TrialConfig(saturation_uv=300.0, firing_rate_hz=(2, 3), layout="linear", drift_kind="steps")],
)
def test_config_round_trip(config: TrialConfig) -> None:
    assert TrialConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_config_of_numpy_numbers_round_trip() -> None:
    config = TrialConfig(noise_uv=np.linspace(4, 5, 3)[1], firing_rate_hz=tuple(np.array([1.0, 2.0])))
    assert TrialConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


# Composition


def compose(bank: list[NeuronCurrents], config: TrialConfig = SMALL, *, seed: int = 2, **changes: Any) -> Trial:
    return compose_trial(bank, config=replace(config, **changes), seed=seed)


def test_dead_channel_shows_noise_alone(bank: list[NeuronCurrents]) -> None:
    trial = compose(bank, num_dead_channels=1)
    noise = compose(bank, num_dead_channels=1, num_units=0, num_far=0)
    assert trial.channel_gains is not None
    dead = trial.channel_gains == 0
    assert dead.sum() == 1
    np.testing.assert_array_equal(trial.traces[:, dead], noise.traces[:, dead])
    assert (np.abs(trial.traces - noise.traces)[:, ~dead].max(axis=0) > 10.0).all()


def test_no_template_on_a_dead_channel(bank: list[NeuronCurrents]) -> None:
    trial = compose(bank, num_dead_channels=2)
    assert trial.channel_gains is not None
    assert not trial.templates[:, :, trial.channel_gains == 0].any()


def test_amplitude_counts_on_live_channels(bank: list[NeuronCurrents]) -> None:
    limits = {"min_amplitude_uv": 60.0, "max_amplitude_uv": 90.0}
    trial = compose(bank, num_dead_channels=3, num_units=15, gain_spread=0.0, sampling_frequency=30000.0, **limits)
    amplitude = np.abs(trial.templates).max(axis=(1, 2))
    # The recording's low pass takes a little off the bank's waveforms.
    assert amplitude.min() > 0.9 * 60.0 and amplitude.max() < 1.02 * 90.0


@pytest.mark.parametrize("num_dead", [4, 5])
def test_no_channel_alive(bank: list[NeuronCurrents], num_dead: int) -> None:
    with pytest.raises(ValueError, match="num_dead_channels must leave one of 4"):
        compose(bank, num_dead_channels=num_dead)


def test_saturation_clips(bank: list[NeuronCurrents]) -> None:
    free, cut = compose(bank), compose(bank, saturation_uv=25.0)
    np.testing.assert_array_equal(cut.traces, np.clip(free.traces, -25.0, 25.0))
    assert np.abs(free.traces).max() > 25.0


def test_gains_scale_templates(bank: list[NeuronCurrents]) -> None:
    even, uneven = compose(bank, gain_spread=0.0), compose(bank, gain_spread=0.2)
    assert uneven.channel_gains is not None and even.channel_gains is not None
    np.testing.assert_array_equal(even.channel_gains, 1.0)
    assert uneven.channel_gains.std() > 0.03
    np.testing.assert_allclose(uneven.templates, even.templates * uneven.channel_gains, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "channels"),
    [
        ({"layout": "linear", "num_channels": 16}, 16),
        ({"layout": "single"}, 1),
        ({"layout": "stereotrode"}, 2),
        ({"layout": "diamond"}, 4),
        ({"num_units": 20}, 4),
        ({"num_units": 0, "num_far": 0}, 4),
        ({"hum_uv": 20.0, "motion_rate_hz": 5.0}, 4),
        ({"contact_radius_um": 0.0}, 4),
        ({"duration_s": 0.001}, 4),
    ],
)
def test_trials_of_many_kinds(bank: list[NeuronCurrents], changes: dict[str, Any], channels: int) -> None:
    trial = compose(bank, **changes)
    num_units = changes.get("num_units", 3)
    assert trial.traces.shape == (round(RATE * changes.get("duration_s", 1.0)), channels)
    assert np.isfinite(trial.traces).all()
    assert len(trial.unit_names) == len(trial.templates) == len(trial.template_peak) == num_units
    assert trial.unit_positions.shape == (num_units, 3)
    assert trial.templates.shape[2] == len(trial.contact_positions) == channels
    assert set(trial.spike_labels) <= set(range(num_units))


def test_units_lie_all_along_a_linear_probe(bank: list[NeuronCurrents]) -> None:
    trial = compose(bank, layout="linear", num_channels=32, contact_spacing_um=25.0, num_units=20, num_far=0)
    assert np.ptp(trial.unit_positions[:, 1]) > 400.0


@pytest.fixture(scope="module")
def own_contacts() -> Contacts:
    positions = np.array([[0.0, 0.0, 0.0], [25.0, 0.0, 0.0], [0.0, 20.0, 5.0], [0.0, 0.0, 30.0], [9.0, -20.0, 2.0]])
    return Contacts(positions, 4.0, np.tile([0.0, 1.0, 0.0], (5, 1)))


def test_own_contacts(bank: list[NeuronCurrents], own_contacts: Contacts) -> None:
    trial = compose_trial(bank, config=SMALL, seed=0, contacts=own_contacts)
    assert trial.traces.shape == (10000, 5)
    np.testing.assert_array_equal(trial.contact_positions, own_contacts.positions)
    assert trial.contact_radius_um == 4.0


def test_synchrony_gives_labelled_overlaps(bank: list[NeuronCurrents]) -> None:
    config = replace(SMALL, duration_s=10.0, num_units=4, num_far=0)
    apart, together = (compose(bank, config, synchrony=synchrony).overlapping().mean() for synchrony in (0.0, 0.5))
    assert apart < 0.3 and together > apart + 0.3


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_uv": 20.0},
        {"noise_exponent": 2.0, "noise_correlation": 0.0},
        {"hum_uv": 30.0},
        {"motion_rate_hz": 3.0},
        {"num_far": 7},
        {"gain_spread": 0.2},
        {"saturation_uv": 50.0},
    ],
)
def test_disturbance_leaves_units_in_place(bank: list[NeuronCurrents], changes: dict[str, Any]) -> None:
    trial, other = compose(bank), compose(bank, **changes)
    assert other.unit_names == trial.unit_names
    np.testing.assert_array_equal(other.unit_positions, trial.unit_positions)
    np.testing.assert_array_equal(other.unit_rotations, trial.unit_rotations)
    np.testing.assert_array_equal(other.spike_labels, trial.spike_labels)
    np.testing.assert_allclose(other.spike_samples, trial.spike_samples, atol=5.0)
    assert not np.array_equal(other.traces, trial.traces)


def test_same_sequence_same_trial(bank: list[NeuronCurrents]) -> None:
    seed = np.random.SeedSequence(3).spawn(2)[1]
    first, second = (compose_trial(bank, config=SMALL, seed=seed) for _ in range(2))
    np.testing.assert_array_equal(first.traces, second.traces)
    np.testing.assert_array_equal(first.spike_samples, second.spike_samples)


def test_spawned_sequences_differ(bank: list[NeuronCurrents]) -> None:
    first, second = (compose_trial(bank, config=SMALL, seed=seed) for seed in np.random.SeedSequence(3).spawn(2))
    assert not np.array_equal(first.traces, second.traces)


def amplitudes_of(trial: Trial, *, unit: int = 0) -> np.ndarray:
    centres = np.round(trial.spike_samples[trial.spike_labels == unit]).astype(int)
    centres = centres[(centres > 3) & (centres < len(trial.traces) - 4)]
    return np.abs(trial.traces[centres[:, None] + np.arange(-3, 4)]).max(axis=(1, 2))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_drift_changes_amplitudes(bank: list[NeuronCurrents], kind: str) -> None:
    drift = {"duration_s": 4.0, "drift_period_s": 4.0, "drift_kind": kind}
    still, moving = (compose(bank, QUIET, drift_um=drift_um, **drift) for drift_um in (0.0, 20.0))
    ratio = amplitudes_of(moving) / amplitudes_of(still)
    assert ratio.max() / ratio.min() > 1.1


@pytest.mark.parametrize("changes", [{"drift_kind": "none", "drift_um": 20.0}, {"drift_um": 0.0}])
def test_no_drift(bank: list[NeuronCurrents], changes: dict[str, Any]) -> None:
    trial = compose(bank, QUIET, **changes)
    assert trial.drift_um is None
    np.testing.assert_array_equal(amplitudes_of(trial), amplitudes_of(compose(bank, QUIET)))


def test_drift_is_told_in_um(bank: list[NeuronCurrents]) -> None:
    drift = compose(bank, drift_kind="linear", drift_um=12.0).drift_um
    assert drift is not None
    assert np.linalg.norm(drift[-1] - drift[0]) == pytest.approx(24.0)
    # Along one direction.
    assert np.linalg.matrix_rank(drift, tol=1e-6) == 1


def test_nonrigid_drift(bank: list[NeuronCurrents]) -> None:
    drift = {"duration_s": 2.0, "drift_kind": "linear", "drift_um": 15.0}
    rigid, loose = (compose(bank, QUIET, drift_nonrigidity=share, **drift) for share in (0.0, 0.5))
    np.testing.assert_array_equal(loose.drift_um, rigid.drift_um)
    np.testing.assert_array_equal(loose.unit_positions, rigid.unit_positions)
    assert np.abs(loose.traces - rigid.traces).max() > 1.0


# Waveforms


@pytest.mark.parametrize("most", [0, 1, 3, 10**6])
def test_number_of_waveforms(small_trial: Trial, most: int) -> None:
    cut = labelled_waveforms(small_trial, most_per_unit=most)
    centres = np.round(small_trial.spike_samples)
    inside = (centres >= 10) & (centres + 20 <= len(small_trial.traces))
    available = np.bincount(small_trial.spike_labels[inside], minlength=3)
    assert np.bincount(cut["labels"], minlength=3).tolist() == np.minimum(available, most).tolist()
    assert cut["waveforms"].shape == (len(cut["labels"]), 30, 4)


def test_waveforms_are_cut_from_the_traces(small_trial: Trial) -> None:
    cut = labelled_waveforms(small_trial, before_ms=0.7, after_ms=1.1)
    assert cut["waveforms"].dtype == np.float32 and cut["labels"].dtype == cut["samples"].dtype == np.int64
    for waveform, sample in zip(cut["waveforms"], cut["samples"], strict=True):
        np.testing.assert_array_equal(waveform, small_trial.traces[sample - 7 : sample + 11])


def test_labels_of_waveforms(small_trial: Trial) -> None:
    cut = labelled_waveforms(small_trial, most_per_unit=5)
    known = dict(
        zip(
            zip(np.round(small_trial.spike_samples).astype(int), small_trial.spike_labels, strict=True),
            small_trial.overlapping(),
            strict=True,
        )
    )
    found = zip(cut["samples"], cut["labels"], cut["overlapping"], strict=True)
    assert all(known[sample, label] == overlaps for sample, label, overlaps in found)


def test_waveforms_are_aligned(bank: list[NeuronCurrents]) -> None:
    trial = compose(bank, QUIET, duration_s=3.0, sampling_frequency=30000.0)
    mean = labelled_waveforms(trial)["waveforms"].mean(axis=0)
    assert abs(int(np.abs(mean).max(axis=1).argmax()) - 30) <= 1


def test_waveforms_are_spread_over_the_trial(small_trial: Trial) -> None:
    every, some = (labelled_waveforms(small_trial, most_per_unit=most) for most in (10**6, 2))
    for unit in range(3):
        samples = every["samples"][every["labels"] == unit]
        assert some["samples"][some["labels"] == unit].tolist() == [samples[0], samples[-1]]


def test_waveforms_at_the_edges_are_left_out(small_trial: Trial) -> None:
    edges = replace(
        small_trial, spike_samples=np.array([9.4, 10.0, 9980.0, 9981.0]), spike_labels=np.zeros(4, dtype="int64")
    )
    assert labelled_waveforms(edges)["samples"].tolist() == [10, 9980]


def test_no_waveforms(bank: list[NeuronCurrents]) -> None:
    assert labelled_waveforms(compose(bank, num_units=0))["waveforms"].shape == (0, 30, 4)


# On disk


@pytest.mark.parametrize(("format", "name"), [("binary", "recording"), ("zarr", "recording.zarr")])
def test_written_trial_loads(small_trial: Trial, tmp_path: Path, format: str, name: str) -> None:
    folder = write_trial(tmp_path / "trial", small_trial, description={"seed": 2}, format=format)
    recording = si.load(folder / name)
    np.testing.assert_array_equal(recording.get_traces(), small_trial.traces)
    np.testing.assert_array_equal(recording.get_channel_locations(), small_trial.contact_positions[:, :2])
    assert recording.get_probe().contact_shape_params[0]["radius"] == 6.0
    assert recording.get_sampling_frequency() == RATE
    assert {path.name for path in tmp_path.iterdir()} == {"trial"}


@pytest.mark.parametrize(("format", "name"), [("binary", "recording"), ("zarr", "recording.zarr")])
def test_contacts_in_space_load(
    bank: list[NeuronCurrents], own_contacts: Contacts, tmp_path: Path, format: str, name: str
) -> None:
    trial = compose_trial(bank, config=SMALL, seed=0, contacts=own_contacts)
    folder = write_trial(tmp_path / "trial", trial, description={}, format=format)
    locations = si.load(folder / name).get_channel_locations(axes="xyz")
    np.testing.assert_allclose(locations, own_contacts.positions)


def test_folder_that_exists(small_trial: Trial, tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        write_trial(tmp_path / "trial", small_trial, description={})
    assert not list((tmp_path / "trial").iterdir())


def test_unknown_format(small_trial: Trial, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of binary, zarr, not 'nwb'"):
        write_trial(tmp_path / "trial", small_trial, description={}, format="nwb")
    assert not list(tmp_path.iterdir())


def test_description_that_cannot_be_written_leaves_nothing(small_trial: Trial, tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError):
        write_trial(tmp_path / "trial", small_trial, description={"made by": object()})
    assert not list(tmp_path.iterdir())


def test_truth(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    trial = compose(bank, drift_um=5.0)
    folder = write_trial(tmp_path / "trial", trial, description={})
    with np.load(folder / "truth.npz") as truth:
        assert set(truth.files) == {
            "spike_samples", "spike_labels", "overlapping", "templates", "template_peak", "unit_positions",
            "unit_rotations", "contact_positions", "channel_gains", "drift_um",
        }  # fmt: skip
        np.testing.assert_array_equal(truth["overlapping"], trial.overlapping())
        for name in set(truth.files) - {"overlapping"}:
            np.testing.assert_array_equal(truth[name], getattr(trial, name), err_msg=name)


def test_truth_without_drift(small_trial: Trial, tmp_path: Path) -> None:
    with np.load(write_trial(tmp_path / "trial", small_trial, description={}) / "truth.npz") as truth:
        assert "drift_um" not in truth.files


def test_waveforms_on_disk(small_trial: Trial, tmp_path: Path) -> None:
    folder = write_trial(tmp_path / "trial", small_trial, description={}, most_waveforms=4)
    with np.load(folder / "waveforms.npz") as written:
        for name, value in labelled_waveforms(small_trial, most_per_unit=4).items():
            np.testing.assert_array_equal(written[name], value, err_msg=name)


def test_numpy_numbers_can_be_saved(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    config = replace(SMALL, noise_uv=np.linspace(4, 5, 3)[1])
    folder = save_trial(tmp_path / "trial", bank, config=config, seed=0)
    assert yaml.safe_load((folder / "trial.yaml").read_text(encoding="utf-8"))["config"]["noise_uv"] == 4.5
