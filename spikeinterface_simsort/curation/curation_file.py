"""Labels of units as files: a table, and a curation that SpikeInterface and spikeinterface-gui read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from spikeinterface_simsort.curation.labels import METHODS, QUALITIES

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.curation.curation_model import Curation

CURATION_FILE, LABELS_FILE, METRICS_FILE = "curation.json", "labels.csv", "metrics.csv"


def to_curation(table: pd.DataFrame) -> Curation:
    """Labels in SpikeInterface's curation format, version 2.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `label_units`: its ``quality`` and the label of each method become a category each, of which a unit has one
        label or, where it was not judged, none.

    Returns
    -------
    spikeinterface.curation.curation_model.Curation
        Nothing is removed, merged or split.
    """
    from spikeinterface.curation.curation_model import Curation

    options = {"quality": QUALITIES, **{name: labels for name, labels in METHODS.items() if name in table}}
    # UnitRefine's models may have words of their own.
    options = {name: [*labels, *sorted(set(table[name]) - {*labels, ""})] for name, labels in options.items()}
    unit_ids = table.index.tolist()
    labels = [
        {"unit_id": unit_id, "labels": {name: [row[name]] for name in options if row[name]}}
        for unit_id, row in zip(unit_ids, table.to_dict("records"), strict=True)
    ]
    return Curation.model_validate(
        {
            "format_version": "2",
            "unit_ids": unit_ids,
            "label_definitions": {
                name: {"name": name, "label_options": names, "exclusive": True} for name, names in options.items()
            },
            "manual_labels": labels,
        }
    )


def write_curation(folder: Path, *, labels: pd.DataFrame, metrics: pd.DataFrame) -> None:
    """Write ``labels.csv``, ``metrics.csv`` and ``curation.json``, each whole or not at all.

    Parameters
    ----------
    folder : Path
        Where to; earlier files are replaced.
    labels : pandas.DataFrame
        Of `label_units`.
    metrics : pandas.DataFrame
        Of `compute_metrics`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    curation = to_curation(labels).model_dump(mode="json", exclude={"supported_versions"})
    _replace(folder / METRICS_FILE, lambda path: metrics.to_csv(path, index_label="unit_id"))
    _replace(folder / LABELS_FILE, lambda path: labels.to_csv(path, index_label="unit_id", float_format="%.4f"))
    # Last: where it is, all is.
    text = json.dumps(curation, indent=1) + "\n"
    _replace(folder / CURATION_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
