"""Every sorter on every data set: `python -m benchmarks`, short or full."""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from pathlib import Path

import spikeinterface as si

from benchmarks.catalogue import FAMILIES, Dataset, Sources, prepare
from benchmarks.peers import ORACLES, PEERS
from benchmarks.published import import_published
from benchmarks.runs import add_run_arguments, run_all
from benchmarks.score_runs import score_runs
from benchmarks.tables import write_tables
from spikeinterface_simsort.weights import load_weights

logger = logging.getLogger(__name__)

# Recordings of each family in the short benchmark.
NUM_SHORT = 1


def datasets(families: list[str], *, num: int | None, folder: Path, sources: Sources) -> list[Dataset]:
    """Recordings of the families, all of them or so many of each; what has no source is left out, and said to be."""
    made = []
    for family in families:
        seeds = range(FAMILIES[family].num_full if num is None else num)
        try:
            made += [prepare(family, seed=seed, folder=folder, sources=sources) for seed in seeds]
        except FileNotFoundError as error:
            logger.warning("%s is left out: %s", family, error)
    return made


def weights_digest() -> str:
    """One sha256 of the bundled weights' files."""
    digests = load_weights("bundled").config["sha256"]
    return hashlib.sha256("".join(digests[name] for name in sorted(digests)).encode()).hexdigest()


def main(argv: list[str] | None = None) -> int:
    """Run what has not been run yet, and write tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/benchmarks/data"), help="made here once (%(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks/runs"), help="results (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="tables (%(default)s)")
    parser.add_argument("--bank", type=Path, help="neuron bank that holds layer-6 cells (names L6_...)")
    parser.add_argument("--waveforms", type=Path, help="folder with the recorded waveforms that hybrids are made of")
    parser.add_argument("--published", type=Path, help="folder of downloaded recordings, see benchmarks/published.py")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--num", type=int, default=NUM_SHORT, help="recordings of each family (%(default)s)")
    amount.add_argument("--full", action="store_true", help="as many as each family has, 20 of bbp_l6: many hours")
    parser.add_argument(
        "--families",
        nargs="+",
        choices=FAMILIES,
        default=list(FAMILIES),
        metavar="FAMILY",
        help=f"of {', '.join(FAMILIES)} (all)",
    )
    add_run_arguments(parser, sorters=[*PEERS, *ORACLES])
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    si.set_global_job_kwargs(progress_bar=False)
    sources = Sources(bank=arguments.bank, waveforms=arguments.waveforms, cache=arguments.data)
    num = None if arguments.full else arguments.num
    made = datasets(arguments.families, num=num, folder=arguments.data, sources=sources)
    if arguments.published:
        made += import_published(arguments.published, data=arguments.data)
    if not made:
        parser.error("there is no recording to sort: name --bank, --waveforms or --published")
    runs = run_all(made, arguments.sorters, folder=arguments.runs, timeout_s=arguments.timeout)
    if all(run.status == "missing" for run in runs):
        reasons = "; ".join(f"{run.sorter}: {run.message}" for run in runs[: len(arguments.sorters)])
        parser.error(f"none of the sorters can run here ({reasons})")
    units, recordings = score_runs(made, runs, folder=arguments.runs)
    sys.stdout.write(write_tables(units, recordings, folder=arguments.output, weights_sha256=weights_digest()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
