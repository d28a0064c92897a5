"""Ten million spikes on one tetrode, time and memory: `python -m benchmarks.ten_million`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import spikeinterface as si

from benchmarks.catalogue import as_stored
from benchmarks.runs import watch_or_raise
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import make_trial

NUM_SPIKES = 10_000_000
PIECE_S = 60.0
NUM_UNITS, RATE_HZ = 5, 40.0
_TIMEOUT_S = 24 * 3600.0
# A process of its own: what it imports and compiles counts.
_SORT = """
import json, sys
import spikeinterface as si, spikeinterface.sorters as ss
import spikeinterface_simsort
si.set_global_job_kwargs(progress_bar=False)
sorting = ss.run_sorter("simsort", si.load(sys.argv[1]), folder=sys.argv[2])
print(json.dumps({"found": int(sorting.to_spike_vector().size), "units": len(sorting.unit_ids)}))
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A long and busy recording, and what it takes to sort it.

    Attributes
    ----------
    minutes : float
        Length of the recording.
    spikes : int
        True spikes of its units.
    found : int
        Spikes of the units that were found.
    units : int
        That were found.
    seconds : float
        For all of it, in a process of its own.
    peak_mb : float
        Memory of that process and its children.
    """

    minutes: float
    spikes: int
    found: int
    units: int
    seconds: float
    peak_mb: float


def make_recording(folder: Path, *, num_spikes: int, piece_s: float = PIECE_S) -> tuple[Path, int]:
    """Compose a minute of units that fire fast, and repeat it without writing more than that.

    Parameters
    ----------
    folder : Path
        Where to; what is there already is replaced.
    num_spikes : int
        Least number of true spikes.
    piece_s : float
        What counts as a minute.

    Returns
    -------
    path : Path
        JSON file of a recording, int16, 4 channels at 30 kHz.
    num_spikes : int
        True spikes in it.
    """
    config = TrialConfig(
        duration_s=piece_s,
        num_units=NUM_UNITS,
        firing_rate_hz=(RATE_HZ, RATE_HZ),
        firing_rate_spread=0.0,
        min_amplitude_uv=60.0,
    )
    piece, truth = as_stored(*make_trial(config=config, seed=0))
    saved: Any = piece.save(folder=folder / "piece", overwrite=True, verbose=False, progress_bar=False)
    spikes_per_piece = len(truth.to_spike_vector())
    repeats = -(-num_spikes // spikes_per_piece)
    path = folder / "recording.json"
    si.concatenate_recordings([saved] * repeats).dump(path)
    return path, repeats * spikes_per_piece


def measure(folder: Path, *, num_spikes: int, piece_s: float = PIECE_S) -> Measured:
    """Sort a recording of so many spikes.

    Parameters
    ----------
    folder : Path
        Recording and run; what is there already is replaced.
    num_spikes : int
        Least number of true spikes.
    piece_s : float
        What counts as a minute.

    Returns
    -------
    Measured

    Raises
    ------
    subprocess.CalledProcessError
        The run failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, spikes = make_recording(folder, num_spikes=num_spikes, piece_s=piece_s)
    output, log = folder / "sorted", folder / "sorted.log"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-c", _SORT, str(path), str(output)]
    seconds, peak = watch_or_raise(command, log=log, timeout_s=_TIMEOUT_S)
    recording: Any = si.load(path)
    return Measured(
        minutes=recording.get_total_duration() / 60.0,
        spikes=spikes,
        seconds=seconds,
        peak_mb=peak,
        **json.loads(log.read_text(encoding="utf8").splitlines()[-1]),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Sort, write one row as CSV, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ten_million", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/ten_million"), help="recording, run (%(default)s)")
    parser.add_argument("--spikes", type=int, default=NUM_SPIKES, help="at least (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    arguments = parser.parse_args(argv)
    table = pd.DataFrame([asdict(measure(arguments.runs, num_spikes=arguments.spikes, piece_s=PIECE_S))])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False, float_format="%.1f")
    sys.stdout.write(table.to_string(index=False, float_format="{:.1f}".format) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
