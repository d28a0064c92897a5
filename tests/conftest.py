"""Fixtures that any test may ask for."""

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import spikeinterface as si
import spikeinterface.sorters as ss
from spikeinterface.core import BaseRecording, BaseSorting

import spikeinterface_simsort  # noqa: F401  registers the sorter
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import save_trial


@pytest.fixture(scope="module", autouse=True)
def cheap_collections() -> None:
    """Spare the garbage collector what lives already, modules above all.

    SpikeInterface calls it for every second of a recording that it writes, and each call would look through it all.
    """
    gc.freeze()


def elsewhere(recording: Any, channel_ids: Sequence[str]) -> BaseRecording:
    """The same traces under other names, a millimetre away: SpikeInterface 0.104 joins none that are at one place."""
    moved = recording.rename_channels(channel_ids)
    contacts = moved.get_property("contact_vector")
    if contacts is not None:
        contacts = contacts.copy()
        contacts["x"] += 1000.0
        moved.set_property("contact_vector", contacts)
    places = moved.get_property("location")
    if places is not None:
        moved.set_property("location", places + 1000.0)
    return moved


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the data that cannot be kept in the repository: cells, reference traces, recordings."""
    beside_checkout = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SIMSORT_SHARED", beside_checkout))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data: there is no folder {folder}; name it with SIMSORT_SHARED")
    return folder


@pytest.fixture(scope="session")
def trial_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved trial of 20 s: four units of the bundled bank near a tetrode."""
    config = TrialConfig(duration_s=20.0, num_units=4, num_far=8, min_amplitude_uv=45.0, firing_rate_hz=(5.0, 15.0))
    return save_trial(tmp_path_factory.mktemp("trial") / "trial", config=config, seed=3)


@pytest.fixture(scope="session")
def trial(trial_folder: Path) -> tuple[BaseRecording, BaseSorting]:
    """Recording and ground truth of the saved trial."""
    return si.load(trial_folder / "recording"), si.load(trial_folder / "sorting")


@pytest.fixture(scope="session")
def sorted_folder(trial: tuple[BaseRecording, BaseSorting], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of the sorter on the trial, all parameters at their defaults."""
    folder = tmp_path_factory.mktemp("sorted") / "out"
    ss.run_sorter("simsort", trial[0], folder=folder)
    return folder


@pytest.fixture(scope="session")
def sorted_trial(sorted_folder: Path) -> BaseSorting:
    """What the sorter found in the trial."""
    return ss.read_sorter_folder(sorted_folder)
