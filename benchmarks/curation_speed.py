"""How long many units of many tetrodes take to be curated and reported: `python -m benchmarks.curation_speed`.

Composed tetrodes side by side, their neurons as the sorted units, in the folders that `simsort sort` would leave.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import spikeinterface as si
from spikeinterface.core import BaseSorting

from benchmarks.many_tetrodes import make_tetrodes
from benchmarks.runs import TIMEOUT_S, watch_or_raise
from spikeinterface_simsort.run_folders import GROUPS_FOLDER, SORTING_FOLDER


def write_sorted(folder: Path, *, recording: Path, sorting: BaseSorting) -> Path:
    """Leave units as `simsort sort` does.

    Parameters
    ----------
    folder : Path
        To be written anew.
    recording : Path
        JSON file of the recording, with the property ``group``.
    sorting : BaseSorting
        The units, with the property ``group``.

    Returns
    -------
    Path
        The folder.
    """
    shutil.rmtree(folder, ignore_errors=True)
    sorting.save(folder=folder / SORTING_FOLDER)
    for name, part in si.load(recording).split_by("group").items():
        group = folder / GROUPS_FOLDER / str(name)
        group.mkdir(parents=True)
        part.dump(group / "spikeinterface_recording.json")
        (group / "spikeinterface_log.json").write_text(json.dumps({"sorter_name": "truth", "run_time": None}))
    return folder


def measure(source: Path, *, n_jobs: int) -> pd.DataFrame:
    """Run `simsort curate` and then `simsort report`, each as a user does.

    Parameters
    ----------
    source : Path
        Sorted units.
    n_jobs : int
        Processes.

    Returns
    -------
    pandas.DataFrame
        A row a command: ``command``, ``seconds``, ``peak_mb``.

    Raises
    ------
    subprocess.CalledProcessError
        A command failed.
    """
    rows = []
    for name in ("curate", "report"):
        command = [sys.executable, "-m", "spikeinterface_simsort.cli", name, str(source), "--n-jobs", str(n_jobs)]
        log = source.with_name(f"{name}.log")
        seconds, peak_mb = watch_or_raise(command, log=log, timeout_s=TIMEOUT_S)
        rows.append({"command": name, "seconds": seconds, "peak_mb": peak_mb})
    return pd.DataFrame(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Compose what is not there yet, curate, report, and print the seconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curation_speed", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/curation_speed"), help="folder (%(default)s)")
    parser.add_argument("--tetrodes", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--units", type=int, default=300, help="of all tetrodes, at least (%(default)s)")
    parser.add_argument("--minutes", type=int, default=10, help="length of each (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    arguments = parser.parse_args(argv)
    recording, truth = make_tetrodes(
        arguments.runs / "data",
        num_tetrodes=arguments.tetrodes,
        minutes=arguments.minutes,
        num_units=-(-arguments.units // arguments.tetrodes),
    )
    source = write_sorted(arguments.runs / "sorted", recording=recording, sorting=truth)
    table = measure(source, n_jobs=arguments.jobs)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.output, index=False, float_format="%.4g")
    spikes = sum(truth.count_num_spikes_per_unit().values())
    sys.stdout.write(
        f"{arguments.tetrodes} tetrodes of {arguments.minutes} min, {truth.get_num_units()} units, {spikes} spikes\n"
        f"{table.to_string(index=False, float_format='{:.1f}'.format)}\ntogether {table['seconds'].sum():.0f} s\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
