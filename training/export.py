"""From checkpoints to a weights folder that the sorter reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spikeinterface_simsort.training.modules import DetectorModule, EmbedderModule
from spikeinterface_simsort.weights import save_weights


def export_weights(
    folder: str | Path,
    *,
    detector_checkpoint: str | Path,
    embedder_checkpoint: str | Path,
    config: dict[str, Any],
    card: str,
    overwrite: bool = False,
) -> Path:
    """Write the networks of two checkpoints as a weights folder.

    Parameters
    ----------
    folder : str or Path
        To be written.
    detector_checkpoint, embedder_checkpoint : str or Path
        As `run.train` returns them.
    config : dict
        The training configuration that both were trained with.
    card : str
        Model card, in Markdown.
    overwrite : bool
        Replace a weights folder that is there.

    Returns
    -------
    Path
        The folder.
    """
    detector = DetectorModule.load_from_checkpoint(detector_checkpoint, map_location="cpu").eval()
    embedder = EmbedderModule.load_from_checkpoint(embedder_checkpoint, map_location="cpu").eval()
    rate = config["sampling_frequency"]
    weights_config = {
        "name": config["name"],
        "detector": {
            "architecture": detector.config["architecture"],
            "sampling_frequency": rate,
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
    return save_weights(
        folder,
        detector=detector.network,
        embedder=embedder.network,
        config=weights_config,
        card=card,
        overwrite=overwrite,
    )
