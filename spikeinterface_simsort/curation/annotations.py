"""What people say of units: files in SpikeInterface's curation format, and how well two people agree."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.metrics import cohen_kappa_score
from spikeinterface.curation.curation_model import Curation

from spikeinterface_simsort.weights_format import one_line

CATEGORY = "quality"
GOOD, MUA, NOISE = "good", "MUA", "noise"
# Of units that a person has looked at and cannot decide about.
UNSURE = "unsure"
LABELS = (GOOD, MUA, NOISE, UNSURE)
# What people do to units, other than labelling them.
_EDITS = ("removed", "merges", "splits")


class AnnotationError(ValueError):
    """A file of labels cannot be used; the message says why, and what to do."""


def new_annotations(unit_ids: Sequence[Hashable]) -> dict[str, Any]:
    """Start a curation in which nothing is labelled.

    Parameters
    ----------
    unit_ids : sequence of int or str
        Of the sorting.

    Returns
    -------
    dict
        In SpikeInterface's curation format, version 2. Its labels are `LABELS`, of the category ``quality``.
    """
    return {
        "format_version": "2",
        # numpy's numbers are none to JSON.
        "unit_ids": [getattr(unit_id, "tolist", lambda unit_id=unit_id: unit_id)() for unit_id in unit_ids],
        "label_definitions": {CATEGORY: {"label_options": list(LABELS), "exclusive": True}},
        "manual_labels": [],
        "removed": [],
        "merges": [],
        "splits": [],
    }


def read_annotations(path: Path, *, unit_ids: Sequence[Hashable] | None = None) -> dict[str, Any]:
    """Read a curation file.

    Parameters
    ----------
    path : Path
        JSON in SpikeInterface's curation format, any version that SpikeInterface converts.
    unit_ids : sequence of int or str, optional
        Units that it must be about.

    Returns
    -------
    dict
        In version 2 of the format. Its labels of the category ``quality`` may be any of `LABELS`.

    Raises
    ------
    AnnotationError
        It is no such file, is about other units, or knows other labels.
    """
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        curation = Curation(**content).model_dump(mode="json")
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} cannot be read: {error}") from error
    # What a wrong content raises in the validators depends on what is wrong.
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AnnotationError(
            f"{path} is no curation in SpikeInterface's format ({one_line(error)}). Choose another file, or move it "
            "away to start anew."
        ) from error
    if unit_ids is not None and set(curation["unit_ids"]) != {*unit_ids}:
        raise AnnotationError(f"{path} is about other units than the sorting's: choose another file for its labels.")
    options = curation["label_definitions"].get(CATEGORY, {}).get("label_options", [])
    strange = sorted({*options} - {*LABELS})
    if strange:
        raise AnnotationError(
            f"{path} has the {CATEGORY} label {strange[0]!r}; those known are {', '.join(LABELS)}. Rename it there."
        )
    curation["label_definitions"][CATEGORY] = {
        "name": CATEGORY,
        "label_options": list(LABELS),
        "exclusive": True,
    }
    return curation


def write_annotations(path: Path, curation: Mapping[str, Any]) -> None:
    """Write a curation file, so that after a crash either it or the one before is there.

    Parameters
    ----------
    path : Path
        JSON file, replaced if it exists.
    curation : mapping
        In SpikeInterface's curation format.

    Raises
    ------
    OSError
        It cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf8") as file:
        # Checked, so that what cannot be read back is never written.
        json.dump(Curation(**curation).model_dump(mode="json"), file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def unit_labels(curation: Mapping[str, Any]) -> dict[Hashable, str]:
    """Labels of units.

    Parameters
    ----------
    curation : mapping
        In SpikeInterface's curation format, version 2.

    Returns
    -------
    dict
        From units to their label of the category ``quality``, in the order in which they were given. Units without one
        are not in it.
    """
    labels = {entry["unit_id"]: entry["labels"].get(CATEGORY, []) for entry in curation["manual_labels"]}
    return {unit_id: values[0] for unit_id, values in labels.items() if values}


def goodness(labels: Mapping[Hashable, str]) -> dict[Hashable, bool | None]:
    """What labels say to `active.ActiveLearner`: good or not, None for those that are unsure."""
    return {unit_id: None if label == UNSURE else label == GOOD for unit_id, label in labels.items()}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well two people agree, and what they agree on.

    Attributes
    ----------
    curation : dict
        What both say, or one says where the other says nothing: a curation in SpikeInterface's format.
    num_both : int
        Units that both labelled; ``unsure`` is no label.
    num_agreed : int
        Of these, those with the same label.
    kappa : float or None
        Cohen's kappa over them (Cohen 1960): 1 where they always agree, 0 as often as by chance. None where it is not
        defined: no unit has two labels, or all labels are the same.
    disputed : dict
        From units to both labels, where these differ. They have no label in `curation`.
    one_sided_edits : list of str
        Which of ``removed``, ``merges`` and ``splits`` hold what only one of them did. That is not in `curation`.
    """

    curation: dict[str, Any]
    num_both: int
    num_agreed: int
    kappa: float | None
    disputed: dict[Hashable, tuple[str, str]]
    one_sided_edits: list[str]


def merge_annotations(first: Mapping[str, Any], second: Mapping[str, Any]) -> Agreement:
    """Merge what two people said of the units of one sorting.

    Parameters
    ----------
    first, second : mapping
        Curations in SpikeInterface's format, see `read_annotations`.

    Returns
    -------
    Agreement

    Raises
    ------
    AnnotationError
        They are not about the same units.
    """
    if set(first["unit_ids"]) != set(second["unit_ids"]):
        raise AnnotationError("The files are not about the same units: both must be of one sorting.")
    merged = new_annotations(first["unit_ids"])
    one, other = unit_labels(first), unit_labels(second)
    both = [unit_id for unit_id in one if unit_id in other and UNSURE not in (one[unit_id], other[unit_id])]
    disputed = {unit_id: (one[unit_id], other[unit_id]) for unit_id in both if one[unit_id] != other[unit_id]}
    for unit_id in [*one, *(unit_id for unit_id in other if unit_id not in one)]:
        said = {labels[unit_id] for labels in (one, other) if unit_id in labels}
        decided = (said - {UNSURE}) or said
        if len(decided) == 1:
            merged["manual_labels"].append({"unit_id": unit_id, "labels": {CATEGORY: [decided.pop()]}})
    one_sided = []
    for edit in _EDITS:
        merged[edit] = [entry for entry in first[edit] if entry in second[edit]]
        if len(merged[edit]) < max(len(first[edit]), len(second[edit])):
            one_sided.append(edit)
    labels_of_both = [[labels[unit_id] for unit_id in both] for labels in (one, other)]
    is_defined = len({label for labels in labels_of_both for label in labels}) > 1
    return Agreement(
        curation=merged,
        num_both=len(both),
        num_agreed=len(both) - len(disputed),
        kappa=float(cohen_kappa_score(*labels_of_both)) if is_defined else None,
        disputed=disputed,
        one_sided_edits=one_sided,
    )
