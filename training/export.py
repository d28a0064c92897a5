"""From checkpoints to a weights folder that the sorter reads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikeinterface_simsort.models import PerceptronEmbedder
from spikeinterface_simsort.training.card import model_card
from spikeinterface_simsort.training.data import DetectionWindows, SpikeWaveforms
from spikeinterface_simsort.training.evaluation import THRESHOLDS, detection_scores, embedding_scores
from spikeinterface_simsort.training.modules import DetectorModule, EmbedderModule
from spikeinterface_simsort.training.run import load_cells, trial_data
from spikeinterface_simsort.training.tuning import fold_into
from spikeinterface_simsort.weights import save_weights

logger = logging.getLogger(__name__)

_CALIBRATION_TRIALS = 150
_SCORED_TRIALS = 40
# An embedding cannot be scaled by what a handful of spikes say of their spread.
_MIN_SPIKES = 8


def within_unit_covariance(embedder: nn.Module, data: SpikeWaveforms) -> torch.Tensor:
    """Covariance of embeddings about the means of their units, over all trials of a data set.

    Parameters
    ----------
    embedder : torch.nn.Module
        [num_spikes, num_samples, num_channels] -> [num_spikes, embedding_dim].
    data : SpikeWaveforms
        Labelled waveforms, trial by trial.

    Returns
    -------
    torch.Tensor, float64 [embedding_dim, embedding_dim]

    Raises
    ------
    ValueError
        No unit has enough spikes.
    """
    scatter, count = torch.zeros(()), 0
    for index in range(len(data)):
        waveforms, labels = data[index]
        for label in torch.unique(labels):
            if int((labels == label).sum()) < _MIN_SPIKES:
                continue
            with torch.inference_mode():
                embedding = embedder(waveforms[labels == label]).double()
            residual = embedding - embedding.mean(dim=0)
            scatter = scatter + residual.T @ residual
            count += len(residual) - 1
    if not count:
        raise ValueError(f"No unit of {len(data)} trials has {_MIN_SPIKES} spikes: measure over more trials.")
    return scatter / count


def whiten_embedder(embedder: PerceptronEmbedder, covariance: torch.Tensor) -> None:
    """Fold a linear map into an embedder's last layers so that this covariance becomes the identity.

    Clustering then knows how wide a unit is, on every recording.

    Parameters
    ----------
    embedder : PerceptronEmbedder
        Changed in place.
    covariance : torch.Tensor, float64 [embedding_dim, embedding_dim]
        See `within_unit_covariance`.
    """
    variance, vectors = torch.linalg.eigh(covariance)
    fold_into(embedder, vectors @ torch.diag(variance.rsqrt()) @ vectors.T)


def calibrated_embedder(checkpoint: str | Path, *, config: dict[str, Any], bank: str | Path) -> EmbedderModule:
    """Load an embedder; the default's with unit variance within units.

    Parameters
    ----------
    checkpoint : str or Path
        As `run.train` returns it.
    config : dict
        The training configuration.
    bank : str or Path
        Neuron bank of the training.

    Returns
    -------
    EmbedderModule
        In evaluation mode.
    """
    embedder = EmbedderModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
    if isinstance(embedder.network, PerceptronEmbedder):
        data = trial_data("embedder", bank=bank, config=config, num_trials=_CALIBRATION_TRIALS, held_out=False)
        assert isinstance(data, SpikeWaveforms)
        whiten_embedder(embedder.network, within_unit_covariance(embedder.network, data))
    return embedder


def export_weights(
    folder: str | Path,
    *,
    detector_checkpoint: str | Path,
    embedder_checkpoint: str | Path,
    config: dict[str, Any],
    bank: str | Path,
    cells: str | None = None,
    license_id: str = "other",
    num_scored: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the networks of two checkpoints as a weights folder, calibrated and scored, with a model card.

    Parameters
    ----------
    folder : str or Path
        To be written.
    detector_checkpoint, embedder_checkpoint : str or Path
        As `run.train` returns them.
    config : dict
        The training configuration that both were trained with. Where the detector's ``threshold`` is not given, it is
        the one that finds the spikes of the validation cells with the highest accuracy.
    bank : str or Path
        Neuron bank of the training: its training cells calibrate the default embedder, its validation cells score.
    cells : str, optional
        Where the cells come from, for the model card.
    license_id : str
        What follows from the cells' licence, as the HuggingFace hub abbreviates it.
    num_scored : int, optional
        Trials of the validation cells that the threshold is chosen on and the networks are scored on.
    overwrite : bool
        Replace a weights folder that is there.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    WeightsError
        The folder exists.
    """
    detector = DetectorModule.load_from_checkpoint(detector_checkpoint, map_location="cpu", weights_only=True).eval()
    embedder = calibrated_embedder(embedder_checkpoint, config=config, bank=bank)
    threshold, scores = _score(
        detector.network, embedder.network, config=config, bank=bank, num_trials=num_scored or _SCORED_TRIALS
    )
    rate = config["sampling_frequency"]
    weights_config = {
        "name": config["name"],
        "detector": {
            "architecture": detector.config["architecture"],
            "sampling_frequency": rate,
            "threshold": threshold,
            "kwargs": detector.config["kwargs"],
        },
        "embedder": {
            "architecture": embedder.config["architecture"],
            "sampling_frequency": rate,
            "ms_before": embedder.config["ms_before"],
            "ms_after": embedder.config["ms_after"],
            "kwargs": embedder.config["kwargs"],
        },
    }
    training_cells, _ = load_cells(bank, config=config)
    return save_weights(
        folder,
        detector=detector.network,
        embedder=embedder.network,
        config=weights_config,
        card=model_card(config, neurons=training_cells, cells=cells, license_id=license_id, scores=scores),
        overwrite=overwrite,
    )


def _score(
    detector: nn.Module, embedder: nn.Module, *, config: dict[str, Any], bank: str | Path, num_trials: int
) -> tuple[float, dict[str, float]]:
    """Choose the threshold, and score the networks on cells that they were not trained on."""
    shared = {"bank": bank, "config": config, "num_trials": num_trials, "held_out": True}
    windows, waveforms = trial_data("detector", **shared), trial_data("embedder", **shared)
    assert isinstance(windows, DetectionWindows) and isinstance(waveforms, SpikeWaveforms)
    given = config["detector"].get("threshold")
    candidates = detection_scores(detector, windows, thresholds=THRESHOLDS if given is None else [given])
    for candidate in candidates:
        logger.info("threshold %.2f: detection accuracy %.3f", candidate.threshold, candidate.accuracy)
    best = max(candidates, key=lambda candidate: candidate.accuracy)
    ari = embedding_scores(embedder, waveforms)
    return best.threshold, {
        f"detection accuracy at 1.0 ms, threshold {best.threshold:g}": best.accuracy,
        "... recall": best.recall,
        "... precision": best.precision,
        "ARI of the embedding, Gaussian mixture of the true number of units": ari["embedding"],
        "... of 8 principal components of the same waveforms": ari["pca"],
    }
