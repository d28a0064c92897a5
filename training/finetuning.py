"""Fine-tuning of released networks on a recording that its lab has sorted, kept only where it helps."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, BaseSorting

from spikeinterface_simsort.compute import choose_device
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.training.labelled_recording import check_sorting, label_parts
from spikeinterface_simsort.training.own_recording import check_channels, describe_recording
from spikeinterface_simsort.training.tuned_weights import Report, check_folder, save_adapted
from spikeinterface_simsort.training.tuning import fit
from spikeinterface_simsort.weights import load_weights

logger = logging.getLogger(__name__)

# A small network can take larger steps than a Transformer.
_EMBEDDER_FACTOR = 10.0


def finetune(
    recording: BaseRecording,
    sorting: BaseSorting,
    *,
    folder: str | Path,
    weights: str | Path = "bundled",
    seed: int = 0,
    num_steps: int = 150,
    learning_rate: float = 1e-4,
    params: SimSortParams | None = None,
    overwrite: bool = False,
    progress: Callable[[], object] | None = None,
) -> Report:
    """Fine-tune the detector and the embedder on a recording and its sorting.

    The first 70 % of the recording train; the rest is held out and scores the networks before and after. A network
    whose score fell is not kept: the released one goes into the folder, and a warning says so. What the sorting leaves
    out is noise to the detector.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces of one tetrode.
    sorting : BaseSorting
        Its units, two or more, curated: the networks learn its mistakes as well.
    folder : str or Path
        Weights folder to be written, whole or not at all; also where both released networks are kept.
    weights : str or Path
        What to start from, see `resolve_weights`.
    seed : int
        The same seed gives the same weights.
    num_steps : int
        Of the training of either network.
    learning_rate : float
        Of the detector, at its highest; the embedder's is ten times that.
    params : SimSortParams, optional
        What sorts later with these weights: the band, the device, and jobs. Its weights and seed do not count.
    overwrite : bool
        Replace a weights folder that is there.
    progress : callable, optional
        Called after each step of either network.

    Returns
    -------
    Report
        Scores ``detection_accuracy``, ``detection_recall`` and ``detection_precision`` (spikes within 1 ms of the
        sorting's), ``ari`` (of a Gaussian mixture of embeddings that is told the number of units), and
        ``sorting_accuracy`` (mean over units); the last one, after, with the networks that are kept.

    Raises
    ------
    RecordingError
        The recording cannot be sorted, or has too many channels.
    SortingError
        The sorting is not one of this recording, or has too few units and spikes.
    WeightsError
        The weights cannot be had, or the folder is in the way.
    """
    check_folder(folder, overwrite=overwrite)
    check_sorting(recording, sorting)
    params = replace(params or SimSortParams(), weights=str(weights), seed=seed).resolve()
    released = load_weights(weights, device=choose_device(params.device))
    check_channels(recording, released)
    training, held_out = label_parts(recording, sorting, weights=released, params=params)
    logger.info("Scoring the released networks.")
    before_sorting = held_out.sort(released, params=params)
    before = {**before_sorting, "ari": held_out.ari(released.embedder)}
    tuned = replace(released, detector=copy.deepcopy(released.detector), embedder=copy.deepcopy(released.embedder))
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {
        "num_steps": num_steps,
        "learning_rate": learning_rate,
        "seed": seed,
        "progress": progress,
    }
    logger.info("Training the detector.")
    fit(tuned.detector, lambda: training.detection_loss(tuned, rng=rng), **options)
    logger.info("Training the embedder.")
    options["learning_rate"] *= _EMBEDDER_FACTOR
    fit(tuned.embedder, lambda: training.embedding_loss(tuned.embedder, rng=rng), **options)
    training.calibrate(tuned.embedder)
    after_detection = held_out.sort(replace(released, detector=tuned.detector), params=params)
    after = {**after_detection, "ari": held_out.ari(tuned.embedder)}
    # A network whose training diverged has a score of NaN or none, which is not kept.
    scores = {"detector": "detection_accuracy", "embedder": "ari"}
    kept = {role: after[score] >= before[score] for role, score in scores.items()}
    if kept["embedder"]:
        chosen = replace(tuned, detector=(tuned if kept["detector"] else released).detector)
        after["sorting_accuracy"] = held_out.sort(chosen, params=params)["sorting_accuracy"]
    elif not kept["detector"]:
        after["sorting_accuracy"] = before["sorting_accuracy"]
    report = Report(folder=Path(folder).expanduser(), before=before, after=after, kept=kept)
    num_units, num_spikes = len(np.unique(training.spikes["unit_index"])), len(training.spikes)
    save_adapted(
        report,
        released=released,
        networks={"detector": tuned.detector, "embedder": tuned.embedder},
        suffix="finetuned",
        method="fine-tuned on a sorting of it",
        data=f"{describe_recording(recording)}; {num_units} units, of which {num_spikes} spikes trained.",
        settings=f"{num_steps} steps of either network, learning rates {learning_rate:g} and "
        f"{_EMBEDDER_FACTOR * learning_rate:g}, seed {seed}",
        overwrite=overwrite,
    )
    return report
