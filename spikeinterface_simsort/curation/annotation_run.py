"""Labels that one person gives the units of one sorting: on disk, in a classifier, and which unit is next."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from spikeinterface_simsort.curation.active import ActiveLearner
from spikeinterface_simsort.curation.annotations import (
    CATEGORY,
    AnnotationError,
    goodness,
    new_annotations,
    read_annotations,
    unit_labels,
    write_annotations,
)

# Few enough to be seen at a time; they are chosen anew after each label.
QUEUE_LENGTH = 10


class AnnotationRun:
    """Labels of the units of a sorting, written to disk as they come.

    The file is locked: no other process can annotate it meanwhile. Use it as a context manager, or `close` it.

    Parameters
    ----------
    path : Path
        JSON file in SpikeInterface's curation format; what it holds is gone on with. Its folder must exist.
    learner : ActiveLearner
        Of the sorting. It gets the labels.

    Raises
    ------
    AnnotationError
        The file is not about these units or is none, or somebody is annotating it.

    Attributes
    ----------
    path : Path
        The file.
    curation : dict
        What it holds.
    queue : list
        Units to be labelled next, the most informative first.
    """

    def __init__(self, *, path: Path, learner: ActiveLearner) -> None:
        self.path = path
        self.learner = learner
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise AnnotationError(
                f"{path} is being annotated by another process: stop that one, or choose another file for the labels."
            ) from error
        try:
            self.curation = (
                read_annotations(path, unit_ids=learner.unit_ids)
                if path.exists()
                else new_annotations(learner.unit_ids)
            )
        except AnnotationError:
            self.close()
            raise
        self._learn()

    def __enter__(self) -> AnnotationRun:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others annotate the file."""
        self.close()

    def close(self) -> None:
        """Let others annotate the file; what it holds is on disk already."""
        self._lock.release()

    @property
    def labels(self) -> dict[Hashable, str]:
        """Labels of units, in the order in which they were given."""
        return unit_labels(self.curation)

    @property
    def table_path(self) -> Path:
        """Table of all units beside the file: ``unit_id``, ``label``, ``probability_good`` and ``predicted_good``."""
        return self.path.with_suffix(".csv")

    def save(self, curation: Mapping[str, Any]) -> None:
        """Take a curation in place of the one before, write it, and learn from its labels.

        Parameters
        ----------
        curation : mapping
            In SpikeInterface's curation format, about the same units.

        Raises
        ------
        OSError
            It cannot be written; then all stays as it was.
        """
        before, now = self.labels, unit_labels(curation)
        # The order of labels is that in which they were given: new and changed ones come last.
        entries = {entry["unit_id"]: entry for entry in curation["manual_labels"]}
        kept = [unit_id for unit_id in before if before[unit_id] == now.get(unit_id)]
        order = [*kept, *(unit_id for unit_id in entries if unit_id not in kept)]
        ordered = {**curation, "manual_labels": [entries[unit_id] for unit_id in order]}
        write_annotations(self.path, ordered)
        self.curation = ordered
        self._learn()

    def set_label(self, unit_id: Hashable, label: str | None) -> None:
        """Label a unit, or take its label away, and write that.

        Parameters
        ----------
        unit_id : int or str
            Of the sorting.
        label : str or None
            One of `annotations.LABELS`; None for none.

        Raises
        ------
        OSError
            It cannot be written; then all stays as it was.
        """
        entries = {entry["unit_id"]: entry["labels"] for entry in self.curation["manual_labels"]}
        # Other categories, which other programs may have added, stay.
        entry = {name: values for name, values in entries.pop(unit_id, {}).items() if name != CATEGORY}
        if label is not None:
            entry[CATEGORY] = [label]
        if entry:
            entries[unit_id] = entry
        manual = [{"unit_id": unit_id, "labels": labels} for unit_id, labels in entries.items()]
        self.save({**self.curation, "manual_labels": manual})

    def _learn(self) -> None:
        labels = self.labels
        self.learner.set_labels(goodness(labels))
        self.queue = self.learner.query(QUEUE_LENGTH)
        table = pd.DataFrame(
            {
                "unit_id": self.learner.unit_ids,
                "label": [labels.get(unit_id, "") for unit_id in self.learner.unit_ids],
                "probability_good": self.learner.probability.round(4),
                "predicted_good": self.learner.predicted_good,
            }
        )
        partial = self.table_path.with_name(f"{self.table_path.name}.partial")
        table.to_csv(partial, index=False)
        os.replace(partial, self.table_path)
