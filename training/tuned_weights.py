"""Weights of networks that were adapted to a recording: which of them are kept, and their model card."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from torch import nn

from spikeinterface_simsort.training.own_recording import TRAINING_SHARE
from spikeinterface_simsort.weights import Weights, WeightsError, save_weights
from spikeinterface_simsort.weights_format import CARD_FILE, DefectError, check_replaceable

logger = logging.getLogger(__name__)

_CARD = """\
---
library_name: spikeinterface-simsort
license: {license_id}
tags:
- spike-sorting
- electrophysiology
---
# {name}

The networks of {parent}, adapted to one recording for the SpikeInterface sorter `simsort`: {method}.

## Where they come from
{parent}:
{digests}

{kept}

## Recording
{data} The first {share:.0%} of it trained, the rest was held out.

## Training
{settings}; {versions}.

## Scores on the part held out
{scores}

A network is kept where its score did not fall, on the same part: what is kept looks a little better here than it is.

## Licence
{licence}
"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an adaptation did.

    Attributes
    ----------
    folder : Path
        The weights folder.
    before, after : dict of float
        Scores on the part held out, of the released networks and of the trained ones.
    kept : dict of bool
        Whether a network, "detector" or "embedder", is the trained one. If not, the folder holds the released one.
    """

    folder: Path
    before: dict[str, float]
    after: dict[str, float]
    kept: dict[str, bool]


def check_folder(folder: str | Path, *, overwrite: bool) -> None:
    """Refuse a folder that could not be replaced in the end; raises WeightsError."""
    try:
        check_replaceable(Path(folder).expanduser(), overwrite=overwrite)
    except DefectError as defect:
        raise WeightsError(str(defect)) from defect


def save_adapted(
    report: Report,
    *,
    released: Weights,
    networks: dict[str, nn.Module],
    suffix: str,
    method: str,
    data: str,
    settings: str,
    overwrite: bool,
) -> None:
    """Save the networks that are kept, and the released ones in place of the others, with a model card.

    Parameters
    ----------
    report : Report
        What is kept, and where it goes.
    released : Weights
        What training started from.
    networks : dict of torch.nn.Module
        The trained ones, by role.
    suffix : str
        Of the weights' name.
    method, data, settings : str
        What the card says of the training.
    overwrite : bool
        Replace a weights folder that is there.
    """
    for role, kept in report.kept.items():
        if not kept:
            logger.warning("The %s did not get better on the part held out: the released one is kept.", role)
    chosen = {
        role: networks[role] if report.kept.get(role) else getattr(released, role) for role in ("detector", "embedder")
    }
    config = {key: value for key, value in released.config.items() if key not in ("format_version", "sha256")}
    card = released.folder / CARD_FILE
    parent = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    license_id = re.search(r"\A---\n(?:.*\n)*?license:\s*(\S+)", parent)
    licence = re.search(r"^## Licence\n(.*?)(?=^## |\Z)", parent, flags=re.DOTALL | re.MULTILINE)
    rows = [f"| {name} | {before:.4f} | {report.after[name]:.4f} |" for name, before in report.before.items()]
    save_weights(
        report.folder,
        **chosen,
        config={**config, "name": f"{released.config['name']}-{suffix}"},
        card=_CARD.format(
            license_id=license_id[1] if license_id else "other",
            name=f"{released.config['name']}-{suffix}",
            parent=released.config["name"],
            digests="\n".join(f"- {file}: {digest}" for file, digest in released.config["sha256"].items()),
            kept="\n".join(
                f"- {role}: {'trained on this recording' if report.kept.get(role) else 'the released one'}"
                for role in chosen
            ),
            method=method,
            data=data,
            share=TRAINING_SHARE,
            settings=settings,
            versions=", ".join(
                f"{name} {version(name)}" for name in ("spikeinterface-simsort", "spikeinterface", "torch", "numpy")
            ),
            scores="\n".join(["| | before | after |", "| --- | --- | --- |", *rows]),
            licence=licence[1].strip() if licence else "That of the weights that these come from.",
        ),
        overwrite=overwrite,
    )
