"""Training runs: from a neuron bank and a configuration to a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from spikeinterface_simsort.models import RecurrentEmbedder
from spikeinterface_simsort.simulation.bank import NeuronCurrents, load_bank
from spikeinterface_simsort.simulation.recipe import load_recipe
from spikeinterface_simsort.training.data import DetectionWindows, SpikeWaveforms
from spikeinterface_simsort.training.modules import DetectorModule, EmbedderModule

logger = logging.getLogger(__name__)

# Only tests see these cells.
TEST_CELLS = ("L6",)
VALIDATION_TRIALS = 24


def load_config(name_or_path: str | Path) -> dict[str, Any]:
    """Read a training configuration.

    Parameters
    ----------
    name_or_path : str or Path
        ``default``, ``paper``, or the path of a YAML file.

    Returns
    -------
    dict

    Raises
    ------
    FileNotFoundError
        It is neither.
    """
    shipped = Path(__file__).parent / "configs" / f"{name_or_path}.yaml"
    path = shipped if shipped.exists() else Path(name_or_path)
    if not path.exists():
        raise FileNotFoundError(f"No training configuration {name_or_path!r}: give default, paper or a YAML file.")
    return yaml.safe_load(path.read_text(encoding="utf8"))


def _list_of_trials(batch: list[Any]) -> list[Any]:
    """Trials have different numbers of spikes: they stay a list."""
    return batch


def _data(
    part: str, neurons: list[NeuronCurrents], *, config: dict[str, Any], seed: int, num_trials: int
) -> DetectionWindows | SpikeWaveforms:
    section, rate, recipe = config[part], config["sampling_frequency"], load_recipe(config["recipe"])
    if part == "detector":
        return DetectionWindows(
            neurons,
            seed=seed,
            trials_per_epoch=num_trials,
            recipe=recipe,
            sampling_frequency=rate,
            window_samples=section["kwargs"]["window_samples"],
            windows_per_trial=section["windows_per_trial"],
        )
    num_before = round(section["ms_before"] * rate / 1000)
    return SpikeWaveforms(
        neurons,
        seed=seed,
        trials_per_epoch=num_trials,
        recipe=recipe,
        sampling_frequency=rate,
        num_before=num_before,
        num_after=section["kwargs"]["num_samples"] - num_before,
        search_samples=round(section["ms_align"] * rate / 1000),
    )


def embedder_data(bank: str | Path, *, config: dict[str, Any], num_trials: int) -> SpikeWaveforms:
    """Labelled waveforms of the training cells, from trials that training has not seen.

    Parameters
    ----------
    bank : str or Path
        Neuron bank.
    config : dict
        See `load_config`.
    num_trials : int
        Length of the data set.

    Returns
    -------
    SpikeWaveforms
    """
    neurons = load_bank(bank, exclude=(*TEST_CELLS, *config["validation_cells"]))
    seed = int(np.random.SeedSequence(config["seed"]).generate_state(3)[2])
    data = _data("embedder", neurons, config=config, seed=seed, num_trials=num_trials)
    assert isinstance(data, SpikeWaveforms)
    return data


class _NewTrialsEachEpoch(Callback):
    """Numbers the trials of an epoch and seeds each batch, so that a resumed run goes on as if it had not stopped."""

    def __init__(self, data: DetectionWindows | SpikeWaveforms) -> None:
        self.data = data

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.data.epoch = trainer.current_epoch

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Dropout and triplets draw from torch's generator, whose state a checkpoint does not hold.
        seed = np.random.SeedSequence([self.data.seed, trainer.global_step]).generate_state(1)[0]
        torch.manual_seed(int(seed))


def _fit_svd_basis(module: EmbedderModule, data: SpikeWaveforms, *, num_trials: int = 40) -> None:
    """Fix the temporal components that waveforms are denoised with, from training waveforms alone."""
    network = module.network
    if not isinstance(network, RecurrentEmbedder) or network.svd_basis is None:
        return
    waveforms = torch.cat([data[i][0] for i in range(num_trials)])
    flat = waveforms.transpose(1, 2).reshape(-1, waveforms.shape[1])
    _, _, components = torch.linalg.svd(flat, full_matrices=False)
    network.svd_basis.copy_(components[: len(network.svd_basis)])


def train(
    part: str,
    *,
    bank: str | Path,
    config: dict[str, Any],
    output: str | Path,
    num_threads: int | None = None,
    num_workers: int = 0,
    progress_bar: bool = True,
) -> Path:
    """Train the detector or the embedder; a run that was stopped goes on from its last epoch.

    Parameters
    ----------
    part : {"detector", "embedder"}
        What to train.
    bank : str or Path
        Neuron bank; cells of layer 6 in it are left for tests, those named in ``validation_cells``
        for validation.
    config : dict
        See `load_config`.
    output : str or Path
        Folder for checkpoints and logs.
    num_threads : int, optional
        Threads of torch.
    num_workers : int
        Processes that compose trials; 0 for this one.
    progress_bar : bool
        Show one.

    Returns
    -------
    Path
        The last checkpoint.
    """
    section = config[part]
    output = Path(output)
    if num_threads:
        torch.set_num_threads(num_threads)
    lightning.seed_everything(config["seed"], workers=True, verbose=False)

    held_out = tuple(config["validation_cells"])
    training_cells = load_bank(bank, exclude=(*TEST_CELLS, *held_out))
    validation_cells = load_bank(bank, include=held_out)
    logger.info("Training on %d cells, validating on %d.", len(training_cells), len(validation_cells))
    num_trials = section["batches_per_epoch"] * section["trials_per_batch"]
    training_seed, validation_seed = np.random.SeedSequence(config["seed"]).generate_state(2)
    data = _data(part, training_cells, config=config, seed=int(training_seed), num_trials=num_trials)
    validation = _data(part, validation_cells, config=config, seed=int(validation_seed), num_trials=VALIDATION_TRIALS)
    loading = {
        "batch_size": section["trials_per_batch"],
        "collate_fn": _list_of_trials if part == "embedder" else None,
        "num_workers": num_workers,
    }

    module = (DetectorModule if part == "detector" else EmbedderModule)(section)
    last = output / "checkpoints" / "last.ckpt"
    if isinstance(module, EmbedderModule) and isinstance(data, SpikeWaveforms) and not last.exists():
        _fit_svd_basis(module, data)
    trainer = lightning.Trainer(
        default_root_dir=output,
        max_epochs=section["epochs"],
        # A resumed run logs into a folder of its own: Lightning would overwrite the first one's.
        logger=CSVLogger(output, name="logs"),
        callbacks=[
            _NewTrialsEachEpoch(data),
            # The newest epoch, under a name that does not change.
            ModelCheckpoint(
                dirpath=last.parent,
                filename=last.stem,
                save_top_k=1,
                enable_version_counter=False,
                save_on_train_epoch_end=True,
            ),
        ],
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        log_every_n_steps=10,
        gradient_clip_val=1.0,
    )
    trainer.fit(
        module,
        DataLoader(data, **loading),
        DataLoader(validation, **loading),
        ckpt_path=str(last) if last.exists() else None,
    )
    return last
