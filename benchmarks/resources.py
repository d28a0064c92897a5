"""Time and memory of the sorter against the length of the recording, and the time of its import."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import spikeinterface as si
from spikeinterface.preprocessing import scale

from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import make_trial

# A process of its own for each run, so that its peak memory is the run's; compilation and imports count.
_SORT = """
import json, resource, sys, time
start = time.perf_counter()
import spikeinterface as si, spikeinterface.sorters as ss
import spikeinterface_simsort
recording = si.load(sys.argv[1])
sorting = ss.run_sorter("simsort", recording, folder=sys.argv[2])
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "spikes": int(sorting.to_spike_vector().size),
    "units": len(sorting.unit_ids),
}))
"""
_IMPORT = """
import time
import spikeinterface.sorters
start = time.perf_counter()
import spikeinterface_simsort
print(time.perf_counter() - start)
"""


def long_recording(folder: Path, *, minutes: int) -> Path:
    """Save a tetrode recording of several composed minutes, 4 channels at 30 kHz, int16."""
    trial, _ = make_trial(config=TrialConfig(duration_s=60.0), seed=0)
    # The same minute again and again: what is measured does not depend on it.
    minute = scale(trial, gain=5.0, dtype="int16").save(
        folder=folder / f"minute_{minutes}", verbose=False, progress_bar=False
    )
    path = folder / f"recording_{minutes}"
    si.concatenate_recordings([minute] * minutes).save(folder=path, verbose=False, progress_bar=False)
    return path


def run(*, minutes: Sequence[int]) -> list[dict[str, float]]:
    """Sort a recording of each length in a process of its own.

    Parameters
    ----------
    minutes : sequence of int
        Lengths.

    Returns
    -------
    list of dict
        ``minutes``, ``seconds``, ``peak_mb``, ``spikes`` and ``units``.

    Raises
    ------
    subprocess.CalledProcessError
        A run failed.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for length in minutes:
            path = long_recording(Path(folder), minutes=length)
            command = [sys.executable, "-c", _SORT, str(path), str(Path(folder) / f"out_{length}")]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rows.append({"minutes": length, **json.loads(output.splitlines()[-1])})
    return rows


def import_seconds(*, repeats: int = 5) -> float:
    """Median time that importing the package adds to ``import spikeinterface.sorters``."""
    command = [sys.executable, "-c", _IMPORT]
    times = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(repeats)]
    return sorted(times)[repeats // 2]


def main(argv: list[str] | None = None) -> int:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resources", description=__doc__)
    parser.add_argument("--minutes", type=int, nargs="+", default=[5, 10, 20], help="(%(default)s)")
    arguments = parser.parse_args(argv)
    lines = ["| minutes | seconds | peak MB | spikes | units |", "| --- | --- | --- | --- | --- |"]
    for row in run(minutes=arguments.minutes):
        lines.append(
            f"| {row['minutes']} | {row['seconds']:.1f} | {row['peak_mb']:.0f} | {row['spikes']} | {row['units']} |"
        )
    lines.append(f"\nimport spikeinterface_simsort adds {import_seconds():.3f} s")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
