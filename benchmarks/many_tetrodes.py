"""Many tetrodes at a time against one after the other: `python -m benchmarks.many_tetrodes`."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import spikeinterface as si
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting

from benchmarks.recordings import tetrode_recording
from benchmarks.runs import TIMEOUT_S, watch_or_raise
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import make_trial

logger = logging.getLogger(__name__)

PIECE_S = 60.0
# Tetrodes differ, but not all of them: composing takes longer than sorting.
NUM_PIECES = 4
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# A process of its own for each run: what it imports and compiles counts.
_SORT = """
import sys
import spikeinterface as si
from spikeinterface_simsort import sort_by_group
si.set_global_job_kwargs(progress_bar=False)
sort_by_group(si.load(sys.argv[1]), sys.argv[2], n_jobs=int(sys.argv[3]))
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One way to sort tetrodes, and what it takes.

    Attributes
    ----------
    way : str
        What is done at a time.
    tetrodes : int
        That were sorted.
    minutes : float
        Length of each.
    seconds : float
        For all of them.
    throughput : float
        Minutes of a tetrode sorted in a minute.
    peak_mb : float
        Memory of all processes together, shared memory counted once.
    """

    way: str
    tetrodes: int
    minutes: float
    seconds: float
    throughput: float
    peak_mb: float


def make_tetrodes(
    folder: Path, *, num_tetrodes: int, minutes: int, piece_s: float = PIECE_S, num_units: int | None = None
) -> tuple[Path, BaseSorting]:
    """Put tetrodes side by side, each a composed minute again and again, without writing more than those minutes.

    Parameters
    ----------
    folder : Path
        Where to; what is there already is kept.
    num_tetrodes : int
        Groups of four channels.
    minutes : int
        How often the piece is repeated.
    piece_s : float
        Its length in s.
    num_units : int, optional
        Neurons near each tetrode; default `TrialConfig`'s.

    Returns
    -------
    recording : Path
        JSON file of a recording, int16 at 30 kHz, with the property ``group``.
    truth : BaseSorting
        Its neurons, with the property ``group``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = TrialConfig(duration_s=piece_s)
    if num_units is not None:
        config = replace(config, num_units=num_units)
    pieces = [_make_piece(folder, config=config, seed=seed) for seed in range(min(NUM_PIECES, num_tetrodes))]
    parts, trains, groups = [], {}, []
    for tetrode in range(num_tetrodes):
        piece, sorting = pieces[tetrode % len(pieces)]
        names = [f"{tetrode}.{channel}" for channel in range(4)]
        parts.append(si.concatenate_recordings([piece] * minutes).rename_channels(names))
        starts = piece.get_num_samples() * np.arange(minutes)[:, None]
        for unit in sorting.unit_ids:
            trains[len(trains)] = (starts + sorting.get_unit_spike_train(unit)).reshape(-1)
            groups.append(tetrode)
    whole: Any = si.aggregate_channels(parts)
    whole.set_property("group", [tetrode for tetrode in range(num_tetrodes) for _ in range(4)])
    path = folder / f"tetrodes_{num_tetrodes}x{minutes}x{piece_s:g}s_{config.num_units}.json"
    whole.dump(path)
    truth = NumpySorting.from_unit_dict([trains], whole.get_sampling_frequency())
    truth.set_property("group", groups)
    return path, truth


def _make_piece(folder: Path, *, config: TrialConfig, seed: int) -> tuple[BaseRecording, BaseSorting]:
    path = folder / f"piece_{config.duration_s:g}s_{config.num_units}_{seed}"
    if not path.exists():
        trial, truth = make_trial(config=config, seed=seed)
        piece = tetrode_recording(
            trial.get_traces(return_in_uV=True),
            rate=config.sampling_frequency,
            contacts_um=trial.get_channel_locations(),
        )
        partial = path.with_name(f"{path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        piece.save(folder=partial / "recording", verbose=False, progress_bar=False)
        truth.save(folder=partial / "truth")
        partial.rename(path)
    return si.load(path / "recording"), si.load(path / "truth")


def measure(recording: Path, output: Path, *, way: str, n_jobs: int, one_thread: bool) -> Measured:
    """Sort a recording in a process of its own, and watch it.

    Parameters
    ----------
    recording : Path
        JSON file.
    output : Path
        Folder that does not exist.
    way : str
        Name of the way.
    n_jobs : int
        Groups at a time.
    one_thread : bool
        Whether a process uses one thread, also where it is alone.

    Returns
    -------
    Measured

    Raises
    ------
    subprocess.CalledProcessError
        The run failed.
    """
    loaded: Any = si.load(recording)
    minutes = loaded.get_total_duration() / 60.0
    num_tetrodes = loaded.get_num_channels() // 4
    threads = [f"{name}=1" for name in _THREAD_VARIABLES] if one_thread else []
    unset = [word for name in _THREAD_VARIABLES for word in ("-u", name)]
    # A run that was stopped would go on, and seem fast.
    shutil.rmtree(output, ignore_errors=True)
    command = ["env", *unset, *threads, sys.executable, "-c", _SORT, str(recording), str(output), str(n_jobs)]
    seconds, peak = watch_or_raise(command, log=output.with_suffix(".log"), timeout_s=TIMEOUT_S)
    return Measured(
        way=way,
        tetrodes=num_tetrodes,
        minutes=minutes,
        seconds=seconds,
        throughput=num_tetrodes * minutes / (seconds / 60.0),
        peak_mb=peak,
    )


def compare(folder: Path, *, num_tetrodes: int, minutes: int, n_jobs: int, piece_s: float = PIECE_S) -> pd.DataFrame:
    """Measure one tetrode with one thread and on all cores, and all tetrodes several at a time.

    Parameters
    ----------
    folder : Path
        Recordings and runs. Runs that are there are not done again.
    num_tetrodes, minutes, n_jobs : int
        Size of the recording, and how many tetrodes are sorted at a time.
    piece_s : float
        What counts as a minute.

    Returns
    -------
    pandas.DataFrame
        A row a way, the fields of `Measured` and ``ratio``: throughput over that of the first row.
    """
    one, _ = make_tetrodes(folder / "data", num_tetrodes=1, minutes=minutes, piece_s=piece_s)
    many, _ = make_tetrodes(folder / "data", num_tetrodes=num_tetrodes, minutes=minutes, piece_s=piece_s)
    rows = []
    for way, recording, jobs, one_thread in (
        ("one tetrode, one thread", one, 1, True),
        ("one tetrode, all cores", one, n_jobs, False),
        (f"{num_tetrodes} tetrodes, {n_jobs} at a time", many, n_jobs, True),
    ):
        output = (
            folder / "runs" / f"{recording.stem}, {jobs} at a time, {'one thread' if one_thread else 'all threads'}"
        )
        path = output.with_suffix(".json")
        output.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            measured = measure(recording, output, way=way, n_jobs=jobs, one_thread=one_thread)
            path.write_text(json.dumps(asdict(measured)), encoding="utf8")
        rows.append(json.loads(path.read_text(encoding="utf8")))
        logger.info("%s: %.1f s", way, rows[-1]["seconds"])
    table = pd.DataFrame(rows)
    table["ratio"] = table["throughput"] / table["throughput"][0]
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Run what has not been run yet, write a row a way as CSV, and print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_tetrodes", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/many_tetrodes"), help="recordings, runs (%(default)s)")
    parser.add_argument("--tetrodes", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--minutes", type=int, default=10, help="length of each (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="tetrodes at a time (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    table = compare(
        arguments.runs,
        num_tetrodes=arguments.tetrodes,
        minutes=arguments.minutes,
        n_jobs=arguments.jobs,
        piece_s=PIECE_S,
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False, float_format="%.4g")
    sys.stdout.write(table.to_string(index=False, float_format="{:.3g}".format) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
