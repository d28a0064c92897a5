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
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from spikeinterface_simsort.simulation.bank import NeuronCurrents, load_bank
from spikeinterface_simsort.simulation.recipe import Recipe, load_recipe
from spikeinterface_simsort.training.curves import write_loss_curves
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
    part: str,
    neurons: list[NeuronCurrents],
    *,
    config: dict[str, Any],
    seed: int,
    num_trials: int,
    training: bool = False,
) -> DetectionWindows | SpikeWaveforms:
    section, rate = config[part], config["sampling_frequency"]
    shared: dict[str, Any] = {
        "seed": seed,
        "trials_per_epoch": num_trials,
        "recipe": Recipe({**load_recipe(config["recipe"]).values, **section.get("conditions", {})}),
        "sampling_frequency": rate,
        "whiten": config.get("whiten", False),
    }
    if training:
        shared |= {"overlaps": config.get("overlaps", True), "num_trials": config.get("num_trials")}
    if part == "detector":
        return DetectionWindows(
            neurons,
            **shared,
            window_samples=section["kwargs"]["window_samples"],
            windows_per_trial=section["windows_per_trial"],
        )
    num_before = round(section["ms_before"] * rate / 1000)
    return SpikeWaveforms(
        neurons,
        **shared,
        num_before=num_before,
        num_after=section["kwargs"]["num_samples"] - num_before,
        search_samples=round(section["ms_align"] * rate / 1000),
    )


def trial_data(
    part: str, *, bank: str | Path, config: dict[str, Any], num_trials: int, held_out: bool
) -> DetectionWindows | SpikeWaveforms:
    """Trials that training has not seen, to calibrate a network with or to score it.

    Parameters
    ----------
    part : {"detector", "embedder"}
        For which network.
    bank : str or Path
        Neuron bank.
    config : dict
        See `load_config`.
    num_trials : int
        Length of the data set.
    held_out : bool
        Of the validation cells instead of the training cells.

    Returns
    -------
    DetectionWindows or SpikeWaveforms
    """
    training_cells, validation_cells = load_cells(bank, config=config)
    neurons = validation_cells if held_out else training_cells
    seed = int(np.random.SeedSequence(config["seed"]).generate_state(3)[2])
    return _data(part, neurons, config=config, seed=seed, num_trials=num_trials)


def load_cells(bank: str | Path, *, config: dict[str, Any]) -> tuple[list[NeuronCurrents], list[NeuronCurrents]]:
    """Cells of a bank to train on and cells for validation; those of layer 6 are left for tests.

    Parameters
    ----------
    bank : str or Path
        Neuron bank.
    config : dict
        See `load_config`; ``num_cells``, where it is given, is how many cells to train on, evenly spread over the bank.

    Returns
    -------
    training_cells, validation_cells : list of NeuronCurrents

    Raises
    ------
    ValueError
        The bank has no cells of either kind.
    """
    neurons = load_bank(bank, exclude=TEST_CELLS)
    held_out = tuple(config["validation_cells"])
    training_cells = [neuron for neuron in neurons if not neuron.name.startswith(held_out)]
    validation_cells = [neuron for neuron in neurons if neuron.name.startswith(held_out)]
    if not training_cells or not validation_cells:
        raise ValueError(
            f"Of the {len(neurons)} cells in the bank, {len(validation_cells)} are for validation (their names start "
            f"with {', '.join(held_out)}): give other validation_cells in the configuration, so that some are and some "
            "are not."
        )
    num_cells = config.get("num_cells")
    if num_cells:
        kept = np.linspace(0, len(training_cells) - 1, min(num_cells, len(training_cells))).round().astype(int)
        training_cells = [training_cells[i] for i in kept]
    return training_cells, validation_cells


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
        sequence = np.random.SeedSequence([self.data.seed, trainer.global_step, trainer.global_rank])
        torch.manual_seed(int(sequence.generate_state(1)[0]))


def _fit_svd_basis(module: EmbedderModule, data: SpikeWaveforms, *, num_trials: int = 40) -> None:
    """Fix the temporal components that waveforms are denoised with, from training waveforms alone."""
    network = module.network
    if network.svd_basis is None:
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
    num_devices: int = 1,
    num_nodes: int = 1,
    precision: str = "auto",
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
    num_devices : int
        GPUs of each node, or processes where there is no GPU. They share an epoch's trials: the batch is so many times
        larger, the steps so many times fewer.
    num_nodes : int
        Machines; each is started with the same arguments, as Lightning's documentation of clusters says.
    precision : str
        One of Lightning's, such as ``32-true`` and ``bf16-mixed``; ``auto`` is the latter on a GPU that knows it and
        else the former.
    progress_bar : bool
        Show one.

    Returns
    -------
    Path
        The last checkpoint; beside its folder lie ``logs``, ``loss.csv`` and ``loss.png``.

    Raises
    ------
    ValueError
        The bank has no cells to train or validate on.
    """
    section = config[part]
    output = Path(output)
    if num_threads:
        torch.set_num_threads(num_threads)
    lightning.seed_everything(config["seed"], workers=True, verbose=False)

    training_cells, validation_cells = load_cells(bank, config=config)
    logger.info("Training on %d cells, validating on %d.", len(training_cells), len(validation_cells))
    num_trials = section["batches_per_epoch"] * section["trials_per_batch"]
    training_seed, validation_seed = np.random.SeedSequence(config["seed"]).generate_state(2)
    data = _data(part, training_cells, config=config, seed=int(training_seed), num_trials=num_trials, training=True)
    validation = _data(part, validation_cells, config=config, seed=int(validation_seed), num_trials=VALIDATION_TRIALS)
    loading = {
        "batch_size": section["trials_per_batch"],
        "collate_fn": _list_of_trials if part == "embedder" else None,
        "num_workers": num_workers,
        "pin_memory": torch.cuda.is_available(),
    }

    module = (DetectorModule if part == "detector" else EmbedderModule)(section)
    last = output / "checkpoints" / "last.ckpt"
    if isinstance(module, EmbedderModule) and isinstance(data, SpikeWaveforms) and not last.exists():
        _fit_svd_basis(module, data)
    trainer = lightning.Trainer(
        default_root_dir=output,
        devices=num_devices,
        num_nodes=num_nodes,
        precision=_choose_precision(precision),  # pyright: ignore[reportArgumentType]
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
        # A checkpoint is a pickle, of which nothing but tensors and plain values is read.
        weights_only=True,
    )
    if trainer.is_global_zero:
        write_loss_curves(output)
    return last


def is_first_process() -> bool:
    """Whether this is the process that writes and prints, where several train together."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _choose_precision(precision: str) -> str:
    if precision != "auto":
        return precision
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"
