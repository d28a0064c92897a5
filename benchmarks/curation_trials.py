"""Composed trials, and what sorters make of them, for the classifier of units: `python -m benchmarks.curation_trials`.

Cells and seeds of training and of validation are none of a benchmark's; those of the test are layer 6's.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spikeinterface as si
import spikeinterface.sorters as ss
from spikeinterface.sorters.utils import SpikeSortingError

from benchmarks.catalogue import Dataset, as_stored, find_or_save
from benchmarks.curation_units import collect_units
from benchmarks.peers import checked_params
from benchmarks.runs import run_folder
from benchmarks.spike_file import write_spikes
from benchmarks.worker import SPIKES_FILE
from spikeinterface_simsort.simulation.bank import NeuronCurrents, load_bank
from spikeinterface_simsort.simulation.recipe import Recipe
from spikeinterface_simsort.simulation.trials import make_trial

logger = logging.getLogger(__name__)

VALIDATION_CELLS = ("L23_MC", "L4_NBC", "L5_BP")
TEST_CELLS = ("L6",)
PARTS = ("train", "validation", "test")
# Far from those of the benchmarks.
_FIRST_SEED = {"train": 20_000, "validation": 30_000, "test": 40_000}
# As far as tetrodes of several labs go: what sorters get wrong differs with each of these.
RECIPE = Recipe(
    {
        "duration_s": {"choice": [45, 60, 60, 90]},
        "sampling_frequency": {"choice": [24000, 30000, 30000, 32000]},
        "layout": {"choice": ["square", "diamond"]},
        "contact_spacing_um": {"uniform": [12, 30]},
        "num_units": {"integers": [2, 12]},
        "cube_um": {"uniform": [70, 160]},
        "min_distance_um": {"uniform": [8, 20]},
        "min_amplitude_uv": {"log_uniform": [15, 50]},
        "max_amplitude_uv": 600,
        "firing_rate_hz": {"choice": [[0.5, 10], [1, 20], [3, 40]]},
        "firing_rate_spread": {"uniform": [0.3, 1]},
        "burst_fraction": {"uniform": [0, 0.6]},
        "spike_speed": [1, 2.5],
        "synchrony": {"choice": [0, 0, 0.15]},
        "num_far": {"integers": [0, 120]},
        "far_distance_um": {"choice": [[90, 250], [120, 250], [120, 300]]},
        "noise_uv": {"log_uniform": [3, 12]},
        "noise_exponent": {"uniform": [0, 2]},
        "noise_correlation": {"uniform": [0, 0.8]},
        "gain_spread": {"uniform": [0, 0.2]},
        "drift_kind": {"choice": ["linear", "sinusoid", "random_walk"]},
        "drift_um": {"choice": [0, 0, 5, 10, 20]},
        "drift_period_s": {"uniform": [20, 200]},
    }
)
# Sorters and what differs from their settings for tetrodes. SpikeInterface's simple sorter takes a second, and gets
# wrong what others do, more or less of it by its clustering: it merges, splits, and misses spikes. Units of k-means or
# of a mixture of a fixed number are wrong in ways of their own: the classifier then knew those of others less well.
SORTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "simsort": ("simsort", {}),
    "herdingspikes": ("herdingspikes", {}),
    "simple": ("simple", {"seed": 0}),
    "simple-low": ("simple", {"seed": 0, "detect_threshold": 4.0}),
    "simple-isosplit": ("simple", {"seed": 0, "clusterer": "isosplit"}),
    "mountainsort5": ("mountainsort5", {}),
    "kilosort4": ("kilosort4", {}),
    "spykingcircus2": ("spykingcircus2", {}),
}
# One trial in so many, where it is not every one: these take ten times as long.
_EVERY = {"mountainsort5": 3, "kilosort4": 24, "spykingcircus2": 24}


def sorters_of(number: int) -> tuple[str, ...]:
    """Which of `SORTERS` a trial is for."""
    return tuple(name for name in SORTERS if number % _EVERY.get(name, 1) == 0)


def make_dataset(part: str, number: int, *, neurons: Sequence[NeuronCurrents], folder: Path) -> Dataset:
    """Compose a trial, unless it is there already.

    Parameters
    ----------
    part : {"train", "validation", "test"}
        Whose cells they are.
    number : int
        Of the trial.
    neurons : sequence of NeuronCurrents
        The cells.
    folder : Path
        Of all trials.

    Returns
    -------
    Dataset
    """
    seed = _FIRST_SEED[part] + number
    config = RECIPE.draw(seed)
    description = {"config": config.to_dict(), "seed": seed}
    return find_or_save(
        folder,
        family=part,
        name=str(number),
        make=lambda: as_stored(*make_trial(neurons, config=config, seed=seed)),
        description=description,
    )


def sort_dataset(dataset: Dataset, sorter: str, *, folder: Path) -> bool:
    """Run a sorter in this process, unless that has been done: no time is measured, and starting takes longest.

    Parameters
    ----------
    dataset : Dataset
        The recording.
    sorter : str
        Key of `SORTERS`.
    folder : Path
        Of all runs.

    Returns
    -------
    bool
        Whether it went well; one that failed leaves no spikes.
    """
    target = run_folder(dataset, sorter, folder=folder)
    if (target / SPIKES_FILE).exists():
        return True
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    name, params = SORTERS[sorter]
    recording = si.load(dataset.folder / "recording")
    try:
        sorting = ss.run_sorter(name, recording, folder=target / "sorter", **{**checked_params(name), **params})
    except SpikeSortingError as error:
        logger.warning("%s/%s %s failed: %s", dataset.family, dataset.name, sorter, str(error).strip().splitlines()[-1])
        return False
    unfinished = target / f"unfinished-{SPIKES_FILE}"
    write_spikes(unfinished, sorting)
    unfinished.rename(target / SPIKES_FILE)
    # What sorters leave behind is large.
    shutil.rmtree(target / "sorter")
    logger.info("%s/%s %s: %d units", dataset.family, dataset.name, sorter, sorting.get_num_units())
    return True


def main(argv: list[str] | None = None) -> int:
    """Compose, sort and measure, but for what was done before."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curation_trials", description=__doc__)
    parser.add_argument("--bank", type=Path, required=True, help="folder of the neuron bank")
    parser.add_argument("--runs", type=Path, required=True, help="folder of trials, sortings and measured units")
    parser.add_argument("--part", choices=PARTS, default="train", help="whose cells (%(default)s)")
    parser.add_argument("--num", type=int, default=60, help="number of trials (%(default)s)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    include, exclude = {
        "train": (None, (*TEST_CELLS, *VALIDATION_CELLS)),
        "validation": (VALIDATION_CELLS, TEST_CELLS),
        "test": (TEST_CELLS, ()),
    }[arguments.part]
    neurons = load_bank(arguments.bank, include=include, exclude=exclude)
    si.set_global_job_kwargs(n_jobs=1, progress_bar=False)
    for number in range(arguments.num):
        dataset = make_dataset(arguments.part, number, neurons=neurons, folder=arguments.runs / "data")
        for sorter in sorters_of(number):
            sort_dataset(dataset, sorter, folder=arguments.runs / "runs")
        collect_units([dataset], list(SORTERS), runs=arguments.runs / "runs", parts=arguments.runs / "parts")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
