"""Model cards: what released weights were made of."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

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
Trials composed during training from simulated neurons; no recording was used.
{cells}

## Training
| | detector | embedder |
| --- | --- | --- |
| batches | {detector_batches} | {embedder_batches} |
| trials | {detector_trials} | {embedder_trials} |
| loss | weighted binary cross-entropy | {loss} |

Sampling frequency {rate:g} Hz, seed {seed}, validation cells {validation}; cells of layer 6 were kept for tests.
Trained with {versions}.

## Scores
{scores}

## Licence
{licence}
"""


def model_card(
    config: dict[str, Any],
    *,
    cells: str,
    licence: str = "That of the cells: weights are derived from simulations of them. Name it before you share these.",
    license_id: str = "other",
    scores: str = "Not measured yet.",
) -> str:
    """Write the model card of weights.

    Parameters
    ----------
    config : dict
        The training configuration.
    cells : str
        Which cells the weights were trained on.
    licence : str
        What follows from the cells' licence.
    license_id : str
        The same as the HuggingFace hub abbreviates it.
    scores : str
        Measured scores, as a Markdown table, with the command that prints them.

    Returns
    -------
    str
        Markdown, with the front matter that the HuggingFace hub reads.
    """
    detector, embedder = config["detector"], config["embedder"]
    batches = {part: config[part]["epochs"] * config[part]["batches_per_epoch"] for part in ("detector", "embedder")}
    return _CARD.format(
        name=config["name"],
        detector=detector["architecture"],
        embedder=embedder["architecture"],
        cells=cells,
        detector_batches=batches["detector"],
        embedder_batches=batches["embedder"],
        detector_trials=batches["detector"] * detector["trials_per_batch"],
        embedder_trials=batches["embedder"] * embedder["trials_per_batch"],
        loss=embedder["loss"],
        rate=config["sampling_frequency"],
        seed=config["seed"],
        validation=", ".join(config["validation_cells"]),
        versions=", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "numpy", "lfpykit")),
        scores=scores,
        licence=licence,
        license_id=license_id,
    )
