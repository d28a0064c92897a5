"""Kilosort4 and MountainSort5 called as their users call them, to see whether they score what the table says.

Nothing of the benchmark's machinery takes part: SpikeInterface loads, sorts and compares, in this process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd
import spikeinterface as si
import spikeinterface.comparison as sc
import spikeinterface.sorters as ss

import spikeinterface_simsort  # noqa: F401  registers the sorter

# Written out once more, so that a slip in `benchmarks.peers` shows.
SETTINGS = {
    "kilosort4": {"nblocks": 0, "do_CAR": False, "nearest_chans": 4},
    "mountainsort5": {"scheme": "2", "whitening_seed": 0},
    "simsort": {},
}
# Sorters that draw random numbers, or add them up in another order, may move a spike or two.
TOLERANCE = 0.01


def score(dataset: Path, *, sorter: str, folder: Path) -> float:
    """Mean accuracy at 1.0 ms of a sorter on a recording.

    Parameters
    ----------
    dataset : Path
        With ``recording`` and ``sorting``.
    sorter : str
        Key of `SETTINGS`.
    folder : Path
        For the sorter's output.

    Returns
    -------
    float
    """
    sorting = ss.run_sorter(sorter, si.load(dataset / "recording"), folder=folder / sorter, **SETTINGS[sorter])
    comparison = sc.compare_sorter_to_ground_truth(
        si.load(dataset / "sorting"), sorting, delta_time=1.0, match_score=0.0, exhaustive_gt=True
    )
    return float(comparison.get_performance()["accuracy"].astype(float).mean())


def main(argv: list[str] | None = None) -> int:
    """Print both scores; the exit status is 1 if they differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.by_hand", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/benchmarks/data"), help="(%(default)s)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="with recordings.csv")
    parser.add_argument("--datasets", nargs="+", default=["hybrid_static/0"], help="FAMILY/NAME (%(default)s)")
    arguments = parser.parse_args(argv)
    table = pd.read_csv(arguments.results / "recordings.csv", dtype={"dataset": str})
    table = table.set_index(["family", "dataset", "sorter"])["accuracy_1.0ms"]
    differ = False
    lines = ["| recording | sorter | by hand | table |", "| --- | --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.datasets:
            family, _, seed = name.partition("/")
            for sorter in SETTINGS:
                by_hand = score(arguments.data / family / seed, sorter=sorter, folder=Path(folder) / name)
                in_table = float(table.loc[family, seed, sorter])
                differ |= not abs(by_hand - in_table) <= TOLERANCE
                lines.append(f"| {name} | {sorter} | {by_hand:.4f} | {in_table:.4f} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
