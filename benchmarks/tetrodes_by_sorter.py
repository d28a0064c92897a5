"""Time of several sorters on one and on many tetrodes, side by side: `python -m benchmarks.tetrodes_by_sorter`."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import spikeinterface as si

from benchmarks.many_tetrodes import PIECE_S, make_tetrodes
from benchmarks.peers import PEERS
from benchmarks.runs import TIMEOUT_S, add_run_arguments, watch

logger = logging.getLogger(__name__)

SIZES = ((1, 1), (1, 10), (4, 1), (4, 10), (32, 1))
SORTERS = ("simsort", "kilosort4", "mountainsort5", "lupin")
# As a lab would: ours sorts the groups itself, the others are called for one after the other, each on all cores.
_SORT = """
import sys
import spikeinterface as si
import spikeinterface.sorters as ss
from benchmarks.peers import checked_params
from spikeinterface_simsort import sort_by_group
sorter, recording, output = sys.argv[1:]
si.set_global_job_kwargs(n_jobs=-1, progress_bar=False)
if sorter == "simsort":
    sort_by_group(si.load(recording), output)
else:
    ss.run_sorter_by_property(sorter, si.load(recording), "group", folder=output, **checked_params(sorter))
"""


def measure(
    folder: Path,
    *,
    sizes: Sequence[tuple[int, int]],
    sorters: Sequence[str],
    timeout_s: float = TIMEOUT_S,
    piece_s: float = PIECE_S,
) -> pd.DataFrame:
    """Run sorters on recordings of several tetrodes, unless that has been done.

    Parameters
    ----------
    folder : Path
        Recordings and runs.
    sizes : sequence of (int, int)
        Tetrodes, and minutes of each.
    sorters : sequence of str
        Keys of `benchmarks.peers.PEERS` that run in this environment.
    timeout_s : float
        After which a run is ended.
    piece_s : float
        What counts as a minute, see `make_tetrodes`.

    Returns
    -------
    pandas.DataFrame
        A row a run: ``tetrodes``, ``minutes``, ``sorter``, ``seconds`` of the whole process, ``peak_mb``, ``status``
        (``ok``, ``failed`` or ``timeout``), and ``ratio``: its seconds over those of the first sorter.
    """
    rows: list[dict[str, Any]] = []
    for tetrodes, minutes in sizes:
        # In one piece: a minute that comes again and again holds spikes that are alike to the last bit, at which some
        # clusterings never end.
        recording, _ = make_tetrodes(folder / "data", num_tetrodes=tetrodes, minutes=1, piece_s=minutes * piece_s)
        size = {"tetrodes": tetrodes, "minutes": minutes}
        first = len(rows)
        for sorter in sorters:
            output = folder / "runs" / f"{recording.stem}_{sorter}"
            path = output.with_suffix(".json")
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(output, ignore_errors=True)
                command = [sys.executable, "-c", _SORT, sorter, str(recording), str(output)]
                seconds, peak_mb, code = watch(command, log=output.with_suffix(".log"), timeout_s=timeout_s)
                status = "timeout" if code is None else "failed" if code else "ok"
                shutil.rmtree(output, ignore_errors=True)
                path.write_text(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "status": status}), "utf8")
            run = json.loads(path.read_text("utf8"))
            logger.info("%d x %d min, %s: %.1f s (%s)", tetrodes, minutes, sorter, run["seconds"], run["status"])
            rows.append({**size, "sorter": sorter, **run})
        for row in rows[first:]:
            row["ratio"] = row["seconds"] / rows[first]["seconds"]
    return pd.DataFrame(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what has not been run yet, write a row a run as CSV, and print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tetrodes_by_sorter", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/tetrodes_by_sorter"), help="(%(default)s)")
    default = [f"{tetrodes}x{minutes}" for tetrodes, minutes in SIZES]
    parser.add_argument("--sizes", nargs="+", default=default, help=f"tetrodes x minutes of each ({' '.join(default)})")
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    here = [sorter for sorter, peer in PEERS.items() if not peer.own_environment]
    add_run_arguments(parser, sorters=here, default=SORTERS)
    arguments = parser.parse_args(argv)
    try:
        sizes = [(int(tetrodes), int(minutes)) for tetrodes, minutes in (size.split("x") for size in arguments.sizes)]
    except ValueError:
        parser.error(f"--sizes are tetrodes x minutes, as in 4x10, not {' '.join(arguments.sizes)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    si.set_global_job_kwargs(progress_bar=False)
    table = measure(arguments.runs, sizes=sizes, sorters=arguments.sorters, timeout_s=arguments.timeout)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False, float_format="%.4g")
    sys.stdout.write(table.to_string(index=False, float_format="{:.3g}".format) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
