"""Trials whose cells are simulated all the way through, and what composition makes of the same cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.faithful import compare_templates
from spikeinterface_simsort.simulation.cell_models import CellModel
from spikeinterface_simsort.simulation.cells import read_cells
from spikeinterface_simsort.simulation.composition import Trial
from spikeinterface_simsort.simulation.faithful import FaithfulUnit, faithful_trial, save_faithful_trial
from spikeinterface_simsort.simulation.own_cells import own_cells_folder
from spikeinterface_simsort.simulation.trial_config import TrialConfig

CONFIG = TrialConfig(
    duration_s=3.0, num_units=2, num_far=0, noise_uv=1e-3, cube_um=60.0, min_amplitude_uv=15.0, firing_rate_hz=(4, 25)
)


@pytest.fixture(scope="module")
def models() -> list[CellModel]:
    with own_cells_folder() as folder:
        return read_cells(folder)


@pytest.fixture(scope="module")
def simulated(models: list[CellModel]) -> tuple[Trial, list[FaithfulUnit]]:
    return faithful_trial(models, config=CONFIG, seed=1, num_processes=2)


def test_templates_are_those_of_composed_trials(simulated: tuple[Trial, list[FaithfulUnit]]) -> None:
    for unit in simulated[1]:
        compared = compare_templates(unit, sampling_frequency=CONFIG.sampling_frequency)
        assert compared["spikes"] >= 5
        assert compared["correlation"] > 0.99
        assert compared["amplitude_uv"] == pytest.approx(compared["composed_amplitude_uv"], rel=0.25)


def test_traces_are_the_sum_of_the_units(simulated: tuple[Trial, list[FaithfulUnit]]) -> None:
    trial, units = simulated
    expected = sum(unit.potentials for unit in units) * trial.channel_gains
    assert np.abs(expected).max() > 15.0
    # What is left is the noise.
    np.testing.assert_allclose(trial.traces, expected, atol=0.05)


def test_spikes_lie_at_the_largest_deflection(simulated: tuple[Trial, list[FaithfulUnit]]) -> None:
    trial, units = simulated
    for label, unit in enumerate(units):
        samples = trial.spike_samples[trial.spike_labels == label]
        assert len(samples) == len(unit.times)
        size = np.abs(unit.potentials * trial.channel_gains).max(axis=1)
        around = np.round(samples).astype(int)[:, None] + np.arange(-15, 16)
        inside = (around[:, 0] >= 0) & (around[:, -1] < len(size))
        nearest = size[around[inside]].argmax(axis=1) - 15
        # 0.1 ms: a cell's spikes are not all alike.
        assert np.median(np.abs(nearest)) <= 3


def test_units_are_drawn_from_the_cells(simulated: tuple[Trial, list[FaithfulUnit]], models: list[CellModel]) -> None:
    trial, _ = simulated
    assert set(trial.unit_names) <= {model.name for model in models}
    assert len(trial.unit_names) == CONFIG.num_units


@pytest.mark.parametrize(
    "change", [{"num_far": 1}, {"drift_um": 5.0}, {"spike_speed": (1.0, 2.0)}, {"num_units": 0}], ids=str
)
def test_what_this_mode_does_not_have(models: list[CellModel], change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        faithful_trial(models, config=replace(CONFIG, **change), seed=0)  # type: ignore[arg-type]


def test_a_trial_that_is_there_is_left(models: list[CellModel], tmp_path) -> None:
    with pytest.raises(FileExistsError, match="exists already"):
        save_faithful_trial(tmp_path, models, config=CONFIG, seed=0)
