"""The command ``simsort bank``: from cell models to a neuron bank."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from spikeinterface_simsort.cli_common import (
    CommandError,
    add_logging_options,
    format_table,
    natural_int,
    positive_float,
    positive_int,
    require_simulation,
)
from spikeinterface_simsort.cli_common import progress_bar as show_progress

if TYPE_CHECKING:
    from spikeinterface_simsort.simulation.bank_building import BankConfig, CellOutcome

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Simulate cells in NEURON and keep the membrane currents around their spikes: a neuron bank. Recordings are made of it.

CELLS is what `simsort fetch` brings: cells of NetPyNE (one JSON file, a folder or a tar archive of them) or packages of
the NMC portal (a folder or zip with template.hoc, or a folder of such). Without it, the project's own reduced cells
are simulated. DIR will hold
  CELL.npz      a neuron
  report.csv    a line a neuron: spikes, intervals, explained variance, rheobase, time
  me_types.csv  a line a morpho-electrical type
  failures.csv  cells that could not be simulated, and why
  bank.json     how it was made
Neurons that are there already are kept: an interrupted run goes on where it was.
"""
_EPILOG = """\
examples:
  simsort bank --output own_bank
  simsort bank nmc_cells.tar.xz --jobs 4 --output neuron_bank
  simsort bank nmc_cells.tar.xz --exclude "L6_.*" --jobs 4 --output train_bank
  simsort bank nmc_cells.tar.xz --include "L6_.*" --jobs 4 --output test_bank
  simsort simulate --bank neuron_bank --num-trials 10 --output trials
"""


def add_bank_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``bank``; it sets ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    parser = subparsers.add_parser(
        "bank",
        help="simulate cell models into a neuron bank",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cells", metavar="CELLS", type=Path, nargs="?", help="cell models (the project's own)")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder of the bank")
    parser.add_argument("--jobs", metavar="N", type=positive_int, default=1, help="cells at a time (1)")
    parser.add_argument("--include", metavar="REGEX", type=_pattern, help="only cells whose name starts like this")
    parser.add_argument("--exclude", metavar="REGEX", type=_pattern, help="no cells whose name starts like this")
    parser.add_argument("--seed", type=natural_int, default=0, help="of the stimuli (0)")
    parser.add_argument("--num-spikes", metavar="N", type=positive_int, default=40, help="kept of each neuron (40)")
    parser.add_argument(
        "--time-limit", metavar="S", type=positive_float, default=1800.0, help="for one cell, in s (1800)"
    )
    add_logging_options(parser)
    parser.set_defaults(handler=_bank)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error


# The handler imports what it needs, so that `--help` does not wait for it.
def _bank(args: argparse.Namespace) -> int:
    require_simulation("neuron")
    from spikeinterface_simsort.simulation.bank_building import BankConfig
    from spikeinterface_simsort.simulation.cell_models import me_type
    from spikeinterface_simsort.simulation.drive import DriveConfig

    def wanted(name: str) -> bool:
        included = args.include is None or bool(args.include.match(name))
        return included and not (args.exclude is not None and args.exclude.match(name))

    drive = DriveConfig(num_spikes=args.num_spikes, min_spikes=min(args.num_spikes, DriveConfig().min_spikes))
    outcomes = make_bank(
        None if args.cells is None else args.cells.expanduser(),
        args.output.expanduser(),
        config=BankConfig(seed=args.seed, drive=drive),
        wanted=wanted,
        num_processes=args.jobs,
        time_limit_s=args.time_limit,
        progress_bar=args.progress_bar,
    )
    failed = [outcome for outcome in outcomes if outcome.error]
    rows = [(o.name, me_type(o.name), o.error) for o in failed]
    if rows:
        sys.stderr.write(format_table(["cell", "ME-type", "error"], rows))
    logger.info("%d neurons, %d cells failed.", len(outcomes) - len(failed), len(failed))
    sys.stdout.write(f"{args.output}\n")
    return 0


def make_bank(
    cells: Path | None,
    folder: Path,
    *,
    config: BankConfig | None = None,
    wanted: Callable[[str], bool] = lambda name: True,
    num_processes: int,
    time_limit_s: float = 1800.0,
    progress_bar: bool,
) -> list[CellOutcome]:
    """Make a neuron bank and show how far it is; see `bank_building.build_bank`.

    Parameters
    ----------
    cells : Path or None
        Cell models; None are the project's own.
    folder : Path
        Of the bank.
    config, wanted, num_processes, time_limit_s
        See `bank_building.build_bank`.
    progress_bar : bool
        Whether to show a bar, or else a line a cell.

    Returns
    -------
    list of CellOutcome

    Raises
    ------
    CommandError
        There are no cells, or the folder is a file, or mechanisms could not be compiled.
    """
    from spikeinterface_simsort.simulation.bank_building import build_bank
    from spikeinterface_simsort.simulation.own_cells import own_cells_folder

    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is a file: choose another folder.")
    if cells is not None and not cells.exists():
        raise CommandError(f"There are no cells at {cells}.")

    def progress(outcome: CellOutcome) -> None:
        bar.update()
        if not progress_bar or outcome.error:
            logger.info("%s: %s", outcome.name, outcome.error or "done")

    with own_cells_folder() as own, show_progress(total=None, unit="cell", shown=progress_bar) as bar:
        try:
            return build_bank(
                own if cells is None else cells,
                folder,
                config=config,
                wanted=wanted,
                num_processes=num_processes,
                time_limit_s=time_limit_s,
                progress=progress,
            )
        except RuntimeError as error:
            raise CommandError(str(error)) from error
