"""Spikes grouped where the tissue moves."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from spikeinterface_simsort.drift import Drift
from spikeinterface_simsort.regrouping import group_moving, regroup
from spikeinterface_simsort.whitening import Whitener

DIMENSIONS = 12


def course(num_spikes: int, *, duration_s: float = 100.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Times of spikes, and a sine of variance 1 there."""
    seconds = np.sort(np.random.default_rng(seed).uniform(0, duration_s, num_spikes))
    return seconds, np.sqrt(2) * np.sin(2 * np.pi * seconds / 40)


def neurons_that_change_places(num_spikes: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, the displacement at each, and of which of two neurons it is; one is now where the other was."""
    rng = np.random.default_rng(seed)
    _, displacement = course(num_spikes, seed=seed)
    truth = rng.integers(0, 2, num_spikes)
    points = rng.standard_normal((num_spikes, DIMENSIONS))
    points[:, 0] += 10
    points[:, 1] += np.where(truth == 0, -3, 3) * displacement
    points[:, 2] += np.where(truth == 0, -2, 2)
    return points, displacement, truth


def agreement(labels: np.ndarray, truth: np.ndarray) -> float:
    """Share of the spikes whose label is the one that most of their neuron's have."""
    return sum(int(np.bincount(labels[truth == neuron]).max()) for neuron in np.unique(truth)) / len(truth)


def test_neurons_that_change_places_are_told_apart() -> None:
    points, displacement, truth = neurons_that_change_places(2000)
    labels = group_moving(points, displacement, seed=0)
    assert len(np.unique(labels)) == 2
    assert agreement(labels, truth) > 0.95
    # What does not know of the movement cannot do it.
    still = GaussianMixture(2, random_state=0).fit_predict(points)
    assert agreement(still, truth) < 0.9


@pytest.mark.parametrize("amplitude", [8.0, 30.0])
def test_a_neuron_that_moves_is_one(amplitude: float) -> None:
    rng = np.random.default_rng(1)
    _, displacement = course(1500)
    mean = np.zeros(DIMENSIONS)
    mean[0] = amplitude
    points = (1 + 0.1 * rng.standard_normal((1500, 1))) * mean + rng.standard_normal((1500, DIMENSIONS))
    points[:, 1] += 5 * displacement
    assert not group_moving(points, displacement, seed=0).any()


def test_all_spikes_of_many_have_a_group() -> None:
    points, displacement, truth = neurons_that_change_places(40_000)
    labels = group_moving(points, displacement, seed=0)
    assert labels.shape == (40_000,)
    assert agreement(labels, truth) > 0.95
    np.testing.assert_array_equal(labels, group_moving(points, displacement, seed=0))


@pytest.mark.parametrize("num_spikes", [2, 15, 40])
def test_few_spikes(num_spikes: int) -> None:
    points, displacement, _ = neurons_that_change_places(num_spikes)
    labels = group_moving(points, displacement, seed=0)
    assert labels.shape == (num_spikes,)
    assert set(labels) == set(range(labels.max() + 1))


def whitened_recording(num_spikes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Whitener]:
    """Waveforms of six samples on two channels, their times, the displacement, the neurons, and noise that is white."""
    points, displacement, truth = neurons_that_change_places(num_spikes)
    seconds, _ = course(num_spikes)
    whitener = Whitener.from_noise(np.random.default_rng(2).standard_normal((20_000, 6, 2)).astype("float32"))
    return points.reshape(-1, 6, 2).astype("float32"), seconds, displacement, truth, whitener


def test_the_course_is_estimated_anew() -> None:
    waveforms, seconds, displacement, truth, whitener = whitened_recording(3000)
    centres = np.arange(1.0, 100.0, 2.0)
    rng = np.random.default_rng(3)
    # All that is known of it first is that it goes to and fro.
    rough = np.interp(centres, seconds, displacement) + rng.standard_normal(len(centres))
    drift = Drift(centres=centres, displacement=(rough - rough.mean()) / rough.std())
    labels, better = regroup(waveforms, seconds=seconds, duration_s=100.0, drift=drift, whitener=whitener, seed=0)
    assert abs(np.corrcoef(better.at(seconds), displacement)[0, 1]) > 0.98
    assert abs(np.corrcoef(drift.at(seconds), displacement)[0, 1]) < 0.9
    assert agreement(labels, truth) > 0.95


def test_pieces_do_not_tell_of_the_course_of_the_whole() -> None:
    waveforms, seconds, displacement, truth, whitener = whitened_recording(3000)
    centres = np.arange(1.0, 600.0, 2.0)
    drift = Drift(centres=centres, displacement=np.sqrt(2) * np.sin(2 * np.pi * centres / 40))
    labels, kept = regroup(waveforms, seconds=seconds, duration_s=100.0, drift=drift, whitener=whitener, seed=0)
    assert kept is drift
    assert agreement(labels, truth) > 0.95
