from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import welch

from spikeinterface_simsort.simulation.stimuli import ornstein_uhlenbeck, pink_noise, steps

DT = 0.025  # ms
SECOND = 40_000


def test_pink_noise_has_unit_variance_and_no_mean():
    noise = pink_noise(num_runs=3, num_samples=SECOND, dt=DT, rng=np.random.default_rng(0))
    assert noise.shape == (3, SECOND)
    np.testing.assert_allclose(noise.std(axis=1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(noise.mean(axis=1), 0.0, atol=1e-9)
    assert abs(np.corrcoef(noise)[0, 1]) < 0.4


@pytest.mark.parametrize("num_samples", [SECOND, SECOND + 1])
def test_pink_noise_falls_with_frequency_inside_its_band(num_samples):
    noise = pink_noise(num_runs=20, num_samples=num_samples, dt=DT, rng=np.random.default_rng(1))
    frequency = np.fft.rfftfreq(noise.shape[1], DT * 1e-3)
    power = (np.abs(np.fft.rfft(noise)) ** 2).mean(axis=0)
    outside = (frequency < 5.0) | (frequency > 500.0)
    assert power[outside].max() < 1e-12 * power.max()
    inside = (frequency > 6.0) & (frequency < 490.0)
    slope = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.1)


def test_pink_noise_in_another_band():
    noise = pink_noise(num_runs=1, num_samples=SECOND, dt=DT, rng=np.random.default_rng(1), band_hz=(100.0, 200.0))
    frequency, power = welch(noise[0], fs=1e3 / DT, nperseg=8000)
    assert power[(frequency > 90) & (frequency < 210)].sum() > 0.98 * power.sum()


def test_ornstein_uhlenbeck_is_stationary_from_the_first_sample():
    rng = np.random.default_rng(2)
    runs = np.stack([ornstein_uhlenbeck(num_samples=400, dt=DT, rng=rng) for _ in range(2000)])
    assert runs.shape == (2000, 400)
    # 2000 independent values each: a standard error of 3 % of the variance.
    assert runs[:, 0].var() == pytest.approx(1.0, abs=0.1)
    assert runs[:, -1].var() == pytest.approx(1.0, abs=0.1)
    assert runs.mean() == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("tau_ms", [2.0, 5.0])
def test_ornstein_uhlenbeck_forgets_exponentially(tau_ms):
    num_samples = 60 * SECOND
    current = ornstein_uhlenbeck(num_samples=num_samples, dt=DT, rng=np.random.default_rng(3), tau_ms=tau_ms)
    for lag_ms in (0.5 * tau_ms, tau_ms, 2 * tau_ms):
        lag = round(lag_ms / DT)
        correlation = np.mean(current[lag:] * current[:-lag]) / current.var()
        assert correlation == pytest.approx(np.exp(-lag_ms / tau_ms), abs=0.03)


def test_steps_and_pauses_alternate():
    current = steps(num_samples=10 * SECOND, dt=DT, rng=np.random.default_rng(4))
    assert current.shape == (10 * SECOND,)
    edges = np.flatnonzero(np.diff(current)) + 1
    lengths, heights = np.diff(edges) * DT, current[edges[:-1]]
    # It begins with a pause.
    assert current[0] == 0.0
    np.testing.assert_array_equal(heights[1::2], 0.0)
    assert heights[::2].min() >= 0.5 and heights[::2].max() <= 1.0 and heights[::2].std() > 0.1
    assert lengths.min() >= 30.0 - DT and lengths.max() <= 120.0


def test_steps_of_another_length():
    current = steps(num_samples=SECOND, dt=DT, rng=np.random.default_rng(4), length_ms=(10.0, 10.0))
    np.testing.assert_array_equal(np.flatnonzero(np.diff(current)) + 1, np.arange(400, SECOND, 400))


@pytest.mark.parametrize("draw", [ornstein_uhlenbeck, steps])
def test_same_seed_same_stimulus(draw):
    one, same, other = (draw(num_samples=8000, dt=DT, rng=np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
