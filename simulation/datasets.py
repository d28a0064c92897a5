"""Data sets of many trials: made in parallel, resumable, whole."""

from __future__ import annotations

import csv
import hashlib
import logging
import shutil
import warnings
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from spikeinterface_simsort.simulation.bank import NeuronCurrents, load_bank
from spikeinterface_simsort.simulation.recipe import Recipe
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import TRIAL_FILE, TRUTH_FILE, bundled_bank, save_trial

logger = logging.getLogger(__name__)

DATASET_FILE, MANIFEST_FILE = "dataset.yaml", "manifest.csv"


class DatasetError(RuntimeError):
    """Some trials of a data set could not be made."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a data set is made of.

    Attributes
    ----------
    recipe : Recipe
        How its trials are drawn.
    num_trials : int
        How many.
    seed : int
        All trials follow from it and from their number.
    bank : str or None
        Neuron bank, see `bank.load_bank`; None is the bundled one. Workers on other machines find it by this path.
    format : {"binary", "zarr"}
        Of the recordings.
    most_waveforms : int
        Spikes of each unit to cut out as well, see `trials.labelled_waveforms`.
    """

    recipe: Recipe = field(default_factory=lambda: Recipe({}))
    num_trials: int = 1
    seed: int = 0
    bank: str | None = None
    format: str = "binary"
    most_waveforms: int = 0

    def trial_config(self, index: int) -> TrialConfig:
        """What trial number `index` looks like."""
        return self.recipe.draw(trial_seed(self.seed, index))


def trial_seed(seed: int, index: int) -> int:
    """Seed of one trial: runs with seeds 0 and 1 have no trial in common.

    Parameters
    ----------
    seed : int
        Of the data set.
    index : int
        Of the trial.

    Returns
    -------
    int
    """
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


def trial_folder(folder: Path, index: int) -> Path:
    """Folder of trial number `index` in the data set's `folder`."""
    return folder / f"trial_{index:04d}"


def make_dataset(
    folder: str | Path,
    dataset: Dataset,
    *,
    num_workers: int = 1,
    scheduler: str | None = None,
    progress: Callable[[Path], None] = lambda folder: None,
) -> list[Path]:
    """Make the trials of a data set that are not there yet.

    Parameters
    ----------
    folder : str or Path
        Of the data set: a folder ``trial_0000`` and so on a trial (see `trials.write_trial`), ``dataset.yaml``
        (what it is made of) and ``manifest.csv`` (a line a trial). One run at a time may write into it.
    dataset : Dataset
        What to make. More trials may be asked of a data set that is there; all else must be as it was.
    num_workers : int
        Processes on this machine; with one, trials are made in this process.
    scheduler : str, optional
        Address of a dask scheduler (``tcp://host:port``) whose workers make the trials instead.
    progress : callable
        Is told of each trial's folder when it is there.

    Returns
    -------
    list of Path
        The trials' folders, in order.

    Raises
    ------
    ValueError
        What is in the folder was made otherwise, or the recipe asks for what cannot be.
    DatasetError
        Some trials could not be made; all others are there.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be 1 or more, not {num_workers}.")
    folder = Path(folder)
    neurons = _load_neurons(dataset.bank)
    _check_settings(folder, dataset, fingerprint=bank_fingerprint(neurons))
    _sweep(folder)
    folders = [trial_folder(folder, index) for index in range(dataset.num_trials)]
    missing = []
    for index, trial in enumerate(folders):
        if trial.exists():
            check_trial(trial, config=dataset.trial_config(index), seed=trial_seed(dataset.seed, index))
            progress(trial)
        else:
            missing.append(index)

    errors: dict[int, str] = {}
    with closing(_results(folder, dataset, missing, num_workers=num_workers, scheduler=scheduler)) as results:
        for index, error in results:
            if error:
                errors[index] = error
                logger.error("%s: %s", trial_folder(folder, index).name, error)
            else:
                progress(trial_folder(folder, index))
    # Of workers that died while they wrote.
    _sweep(folder)
    if errors and not _made_trials(folder):
        # Nothing came of it; what others put here stays.
        for name in (DATASET_FILE, MANIFEST_FILE):
            (folder / name).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    else:
        write_manifest(folder)
    if errors:
        first = min(errors)
        raise DatasetError(
            f"{len(errors)} of {dataset.num_trials} trials could not be made, the first of them number {first}: "
            f"{errors[first]}"
        )
    return folders


def _results(
    folder: Path, dataset: Dataset, missing: list[int], *, num_workers: int, scheduler: str | None
) -> Generator[tuple[int, str]]:
    """Make trials wherever they are to be made; gives each one's number, and its error or an empty text."""
    if not missing:
        return
    if num_workers == 1 and scheduler is None:
        for index in missing:
            yield index, make_one_trial(folder, dataset, index)
        return
    # Here alone: it takes a second, and one process does without.
    from distributed import Client, LocalCluster, as_completed

    cluster = None
    if scheduler is None:
        # Port 0: any that is free, as others may use the usual one.
        cluster = LocalCluster(
            n_workers=min(num_workers, len(missing)), threads_per_worker=1, processes=True, dashboard_address=":0"
        )
    with cluster or nullcontext(), Client(cluster or scheduler) as client:
        waiting = iter(missing)
        # A few for each worker at a time: thousands at once would weigh on the scheduler.
        ahead = 3 * max(len(client.scheduler_info(n_workers=-1)["workers"]), 1)
        numbers: dict[Any, int] = {}

        def submit(index: int) -> Any:
            # A worker that dies has its trial made by another; three deaths over the same trial are an error.
            future = client.submit(make_one_trial, folder, dataset, index, pure=False)
            numbers[future.key] = index
            return future

        running = as_completed([submit(index) for _, index in zip(range(ahead), waiting, strict=False)])
        for future in running:
            index = numbers.pop(future.key)
            error = future.exception()
            yield index, f"{type(error).__name__}: {error}" if error is not None else future.result()
            following = next(waiting, None)
            if following is not None:
                running.add(submit(following))


def _made_trials(folder: Path) -> list[Path]:
    """Folders of a data set's whole trials, in order of their numbers."""
    found = [path for path in folder.glob("trial_*") if path.name.removeprefix("trial_").isdecimal()]
    return sorted(
        (path for path in found if (path / TRIAL_FILE).exists()), key=lambda path: int(path.name.removeprefix("trial_"))
    )


def _sweep(folder: Path) -> None:
    """Remove what a writer that was cut off left behind."""
    for torn in folder.glob("trial_*.partial-*"):
        logger.info("Removing %s, which a run that was cut off left behind.", torn)
        shutil.rmtree(torn, ignore_errors=True)


def make_one_trial(folder: Path, dataset: Dataset, index: int) -> str:
    """Make one trial of a data set, in whichever process.

    Parameters
    ----------
    folder : Path
        Of the data set.
    dataset : Dataset
        What it is made of.
    index : int
        Number of the trial.

    Returns
    -------
    str
        Why the trial cannot be made, or an empty text.
    """
    target = trial_folder(folder, index)
    try:
        with warnings.catch_warnings():
            # A trial's provenance is its configuration and its seed, which are written.
            warnings.filterwarnings("ignore", message="The extractor is not serializable to file")
            save_trial(
                target,
                _load_neurons(dataset.bank),
                config=dataset.trial_config(index),
                seed=trial_seed(dataset.seed, index),
                format=dataset.format,
                most_waveforms=dataset.most_waveforms,
            )
    except FileExistsError:
        # A worker that died after its last step had made it.
        logger.info("%s is there already.", target)
    except (ValueError, OSError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@lru_cache(maxsize=2)
def _load_neurons(bank: str | None) -> list[NeuronCurrents]:
    return bundled_bank() if bank is None else load_bank(bank)


def bank_fingerprint(neurons: list[NeuronCurrents]) -> str:
    """Digest of a bank's content, by which a data set knows its neurons again.

    Parameters
    ----------
    neurons : list of NeuronCurrents
        The bank.

    Returns
    -------
    str
        Of sha256, in hexadecimal digits.
    """
    digest = hashlib.sha256()
    for neuron in neurons:
        for name in NeuronCurrents.__dataclass_fields__:
            value = np.asarray(getattr(neuron, name))
            digest.update(f"{name} {value.dtype} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _check_settings(folder: Path, dataset: Dataset, *, fingerprint: str) -> None:
    settings = {
        "seed": dataset.seed,
        "format": dataset.format,
        "most_waveforms": dataset.most_waveforms,
        "bank_sha256": fingerprint,
        "recipe": dataset.recipe.to_dict(),
    }
    # As it is read again: a tuple comes back as a list.
    settings = yaml.safe_load(yaml.safe_dump(settings, sort_keys=False))
    path = folder / DATASET_FILE
    if path.exists():
        made = yaml.safe_load(path.read_text(encoding="utf-8"))
        changed = [key for key, value in settings.items() if not isinstance(made, dict) or made.get(key) != value]
        if changed:
            raise ValueError(
                f"{folder} was made with other settings ({', '.join(changed)}): choose another folder, or remove it."
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other files: choose another folder, or an empty one.")
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    partial.replace(path)


def check_trial(folder: Path, *, config: TrialConfig, seed: int) -> None:
    """Refuse to keep what is not this trial, as it would pass for it.

    Parameters
    ----------
    folder : Path
        Of a trial.
    config : TrialConfig
        What it should look like.
    seed : int
        Of the trial.

    Raises
    ------
    ValueError
        It was made otherwise, or is no trial.
    """
    try:
        made = yaml.safe_load((folder / TRIAL_FILE).read_text(encoding="utf-8"))
        same = made["seed"] == seed and made["config"] == config.to_dict()
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not a trial: remove it, or choose another folder.") from error
    if not same:
        raise ValueError(f"{folder} was made with other settings: remove it, or choose another folder.")


def write_manifest(folder: Path) -> Path:
    """Write a line for each trial of a data set.

    Parameters
    ----------
    folder : Path
        Of the data set.

    Returns
    -------
    Path
        ``manifest.csv`` in it: folder, seed, length, rate, numbers of units and spikes, share of spikes that overlap
        with another unit's within 1 ms, cells.
    """
    path = folder / MANIFEST_FILE
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["trial", "seed", "duration_s", "sampling_frequency", "num_units", "num_spikes", "overlapping", "cells"]
        )
        for trial in _made_trials(folder):
            made = yaml.safe_load((trial / TRIAL_FILE).read_text(encoding="utf-8"))
            with np.load(trial / TRUTH_FILE) as truth:
                overlapping = truth["overlapping"]
            config = made["config"]
            row = [trial.name, made["seed"], config["duration_s"], config["sampling_frequency"], len(made["cells"])]
            share = f"{overlapping.mean():.4f}" if overlapping.size else ""
            writer.writerow([*row, overlapping.size, share, " ".join(made["cells"])])
    partial.replace(path)
    return path
