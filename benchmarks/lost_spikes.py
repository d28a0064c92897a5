"""Where sorters lose spikes: missed, taken by another unit, in a unit too many: `python -m benchmarks.lost_spikes`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import spikeinterface as si
import spikeinterface.comparison as sc
from spikeinterface.core import BaseSorting

from benchmarks.curation_units import find_datasets
from benchmarks.runs import run_folder
from benchmarks.spike_file import read_spikes
from benchmarks.worker import SPIKES_FILE
from spikeinterface_simsort.cli_common import format_table

DELTA_MS = 1.0
# Shares of the true spikes: they add up to 1. False ones are spikes of no neuron of the truth, as a share of the same.
KINDS = ("found", "missed", "in_another", "in_extra_unit")
COLUMNS = (*KINDS, "lost_in_overlap", "false")


def count_losses(truth: BaseSorting, sorting: BaseSorting) -> dict[str, float]:
    """Say what became of the spikes of all true units.

    Parameters
    ----------
    truth : BaseSorting
        Ground truth, of one segment.
    sorting : BaseSorting
        What a sorter found.

    Returns
    -------
    dict
        ``found``: in the unit that the Hungarian method assigns to the neuron; ``missed``: no unit has a spike there;
        ``in_another``: a unit that is assigned to another neuron has; ``in_extra_unit``: only one that is assigned to
        none has. All as shares of the true spikes, as is ``lost_in_overlap``: those that are not found and lie within 1
        ms of another neuron's; and ``false``: found spikes that are within 1 ms of no true one.
    """
    rate = truth.get_sampling_frequency()
    delta = round(DELTA_MS * rate / 1000)
    assigned = {}
    if sorting.get_num_units():
        comparison = sc.compare_sorter_to_ground_truth(
            truth, sorting, delta_time=DELTA_MS, exhaustive_gt=True, match_score=0.0
        )
        # SpikeInterface writes -1 for none.
        assigned = {
            unit: match for unit, match in comparison.hungarian_match_12.items() if match in set(sorting.unit_ids)
        }
    trains = {unit: truth.get_unit_spike_train(unit, segment_index=0) for unit in truth.unit_ids}
    found = {unit: sorting.get_unit_spike_train(unit, segment_index=0) for unit in sorting.unit_ids}
    in_use = set(assigned.values())
    of_neurons = _together(train for unit, train in found.items() if unit in in_use)
    of_extra = _together(train for unit, train in found.items() if unit not in in_use)
    counts = dict.fromkeys(COLUMNS, 0)
    for unit, train in trains.items():
        right = _is_near(train, found[assigned[unit]] if unit in assigned else np.empty(0, dtype="int64"), delta)
        elsewhere, extra = ~right & _is_near(train, of_neurons, delta), _is_near(train, of_extra, delta)
        others = _together(other for name, other in trains.items() if name != unit)
        counts["found"] += int(right.sum())
        counts["in_another"] += int(elsewhere.sum())
        counts["in_extra_unit"] += int((~right & ~elsewhere & extra).sum())
        counts["missed"] += int((~right & ~elsewhere & ~extra).sum())
        counts["lost_in_overlap"] += int((~right & _is_near(train, others, delta)).sum())
    everything = _together(trains.values())
    counts["false"] = sum(int((~_is_near(train, everything, delta)).sum()) for train in found.values())
    return {kind: count / max(len(everything), 1) for kind, count in counts.items()}


def _together(trains: Iterable[np.ndarray]) -> np.ndarray:
    arrays = list(trains)
    return np.sort(np.concatenate(arrays)) if arrays else np.empty(0, dtype="int64")


def _is_near(train: np.ndarray, others: np.ndarray, distance: int) -> np.ndarray:
    """Whether sorted others have one within a distance, in samples; bool [num_spikes]."""
    return np.searchsorted(others, train + distance, "right") > np.searchsorted(others, train - distance, "left")


def main(argv: list[str] | None = None) -> int:
    """Print a row a kind of recordings and sorter, and write a row a recording and sorter."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lost_spikes", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of FAMILY/NAME recordings with their truth")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the benchmark's sortings")
    parser.add_argument("--sorters", nargs="+", default=["simsort"], help="which sorters (%(default)s)")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    arguments = parser.parse_args(argv)
    rows = []
    for dataset in find_datasets(arguments.data):
        truth = si.load(dataset.folder / "sorting")
        for sorter in arguments.sorters:
            path = run_folder(dataset, sorter, folder=arguments.runs) / SPIKES_FILE
            if path.exists():
                losses = count_losses(truth, read_spikes(path))
                rows.append({"family": dataset.family, "dataset": dataset.name, "sorter": sorter, **losses})
    if not rows:
        parser.error(f"there are no sortings of {', '.join(arguments.sorters)} in {arguments.runs}")
    table = pd.DataFrame(rows)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.output, index=False, float_format="%.4f")
    means = table.groupby(["sorter", "family"], sort=False)[list(COLUMNS)].mean().reset_index()
    cells = [[*row[:2], *(f"{value:.3f}" for value in row[2:])] for row in means.to_numpy().tolist()]
    sys.stdout.write(format_table(list(means.columns), cells) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
