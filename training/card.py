"""Model cards: what weights were made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from spikeinterface_simsort.simulation.bank import NeuronCurrents

_CARD = """\
---
library_name: spikeinterface-simsort
license: {license_id}
tags:
- spike-sorting
- electrophysiology
---
# {name}

Detector ({detector}) and embedder ({embedder}) of spikes for tetrodes, for the SpikeInterface sorter `simsort`.
Method after SimSort (arXiv 2502.03198).

## Training data
Trials composed during training from simulated neurons (recipe `{recipe}`); no recording was used.
{num_cells} cells: {kinds}.{cells}

## Training
| | detector | embedder |
| --- | --- | --- |
| batches | {detector_batches} | {embedder_batches} |
| trials | {detector_trials} | {embedder_trials} |
| loss | weighted binary cross-entropy | {loss} |

Sampling frequency {rate:g} Hz, seed {seed}, validation cells {validation}; cells of layer 6 were kept for tests.
Trained with {versions}.

## Scores
Trials of the validation cells, under all conditions of the recipe:

| | |
| --- | --- |
{scores}

## Licence
{licence}
"""
_LICENCES = {
    "other": "That of the cells: weights are derived from simulations of them. Name it before you share these.",
    "cc-by-nc-sa-4.0": (
        "The cell models are CC BY-NC-SA 4.0; these weights were derived from simulations of them and are shared "
        "alike. The code of the package is BSD-3-Clause."
    ),
}


def model_card(
    config: dict[str, Any],
    *,
    neurons: Sequence[NeuronCurrents],
    scores: Mapping[str, float],
    cells: str | None = None,
    license_id: str = "other",
) -> str:
    """Write the model card of weights.

    Parameters
    ----------
    config : dict
        The training configuration.
    neurons : sequence of NeuronCurrents
        Which the networks were trained on.
    scores : mapping
        What was measured, by its name.
    cells : str, optional
        Where the cells come from.
    license_id : str
        What follows from the cells' licence, as the HuggingFace hub abbreviates it.

    Returns
    -------
    str
        Markdown, with the front matter that the HuggingFace hub reads.
    """
    detector, embedder = config["detector"], config["embedder"]
    batches = {part: config[part]["epochs"] * config[part]["batches_per_epoch"] for part in ("detector", "embedder")}
    kinds = Counter(neuron.name.split("_")[0] for neuron in neurons)
    return _CARD.format(
        name=config["name"],
        detector=detector["architecture"],
        embedder=embedder["architecture"],
        recipe=config["recipe"],
        num_cells=len(neurons),
        kinds=", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
        cells="" if cells is None else f"\n{cells}",
        detector_batches=batches["detector"],
        embedder_batches=batches["embedder"],
        detector_trials=batches["detector"] * detector["trials_per_batch"],
        embedder_trials=batches["embedder"] * embedder["trials_per_batch"],
        loss=embedder["loss"].replace("_", " "),
        rate=config["sampling_frequency"],
        seed=config["seed"],
        validation=", ".join(config["validation_cells"]),
        versions=", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "numpy", "lfpykit")),
        scores="\n".join(f"| {name} | {value:.3f} |" for name, value in scores.items()),
        licence=_LICENCES.get(license_id, f"{license_id}, as follows from the licence of the cells."),
        license_id=license_id,
    )
