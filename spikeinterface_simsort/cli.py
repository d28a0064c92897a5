"""The command line: puts the commands together, sets up the log, and turns errors into a line and an exit code."""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from spikeinterface_simsort._version import __version__
from spikeinterface_simsort.cli_annotate import add_annotate_parsers
from spikeinterface_simsort.cli_bank import add_bank_parser
from spikeinterface_simsort.cli_common import CommandError, add_logging_options
from spikeinterface_simsort.cli_curate import add_curate_parser
from spikeinterface_simsort.cli_demo import add_demo_parser
from spikeinterface_simsort.cli_export import add_export_parser
from spikeinterface_simsort.cli_fetch import add_fetch_parser
from spikeinterface_simsort.cli_finetune import add_finetune_parser
from spikeinterface_simsort.cli_report import add_report_parser
from spikeinterface_simsort.cli_simulate import add_simulate_parser
from spikeinterface_simsort.cli_sort import add_sort_parser
from spikeinterface_simsort.cli_train import add_train_parser
from spikeinterface_simsort.cli_weights import add_weights_parser
from spikeinterface_simsort.weights import WeightsError

logger = logging.getLogger(__name__)

# SpikeInterface regrets that it does not save what it is not asked to save.
_NEEDLESS_WARNINGS = ("The recording registered to this sorting object", "The extractor is not serializable to file")

_DESCRIPTION = """\
Sort the spikes of tetrode recordings with networks trained on biophysical simulations.

Inside Python the same is one line of SpikeInterface:
  spikeinterface.sorters.run_sorter("simsort", recording)
"""
_EPILOG = """\
first commands:
  simsort demo --output demo
      simulate a recording, sort it, and compare what was found with the truth
  simsort sort recording_folder --output sorted
      sort a recording that SpikeInterface saved: units, a table and a picture of them
  simsort sort session.raw --sampling-frequency 30000 --num-channels 4 --dtype int16 --output sorted
      sort a raw binary file
  simsort sort session_folder --format neuralynx --group-size 4 --output sorted
      sort each tetrode of an acquisition system's session
  simsort curate sorted
      label the sorted units: single neurons, several, noise
  simsort report sorted
      show all units of a sort in one HTML page
  simsort export sorted --to phy
      hand the units on to Phy, or as NWB
  simsort simulate --num-trials 10 --output trials
      make recordings whose spikes are known
  simsort bank cells --output neuron_bank
      simulate detailed cell models, which recordings can then be made of
  simsort train all --bank neuron_bank --output run
      train the networks on such recordings
  simsort finetune recording_folder curated_sorting --output my_weights
      adapt the networks to a recording of one's own
  simsort weights show
      say which networks sort, and what they were trained on

`simsort COMMAND --help` explains a command. Exit codes: 0 done, 1 failed, 2 misused, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; default those of the process.

    Returns
    -------
    int
        Exit code: 0 if the command did what it should, 1 if it failed, 2 without a command, 130 if interrupted.

    Raises
    ------
    SystemExit
        By argparse: 0 after help, 2 after a misuse.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    if not hasattr(args, "handler"):
        parser.print_help(sys.stderr)
        return 2
    verbose, quiet = getattr(args, "verbose", False), getattr(args, "quiet", False)
    args.progress_bar = not quiet and sys.stderr.isatty()
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    with _logging_to_stderr(level), warnings.catch_warnings():
        for message in _NEEDLESS_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        try:
            return args.handler(args)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            return 130
        # ValueError: ParameterError, RecordingError, and what the simulation says of its arguments.
        except (CommandError, WeightsError, OSError, ValueError) as error:
            logger.debug("Where the error came from:", exc_info=True)
            sys.stderr.write(f"error: {textwrap.shorten(str(error), width=2000, placeholder=' ...')}\n")
            return 1


def make_parser() -> argparse.ArgumentParser:
    """Put the commands together; `handler` of what it parses runs the one that was given."""
    parser = argparse.ArgumentParser(
        prog="simsort",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"simsort {__version__}")
    add_logging_options(parser)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_sort_parser(subparsers)
    add_curate_parser(subparsers)
    add_report_parser(subparsers)
    add_export_parser(subparsers)
    add_demo_parser(subparsers)
    add_fetch_parser(subparsers)
    add_bank_parser(subparsers)
    add_simulate_parser(subparsers)
    add_train_parser(subparsers)
    add_finetune_parser(subparsers)
    add_annotate_parsers(subparsers)
    add_weights_parser(subparsers)
    return parser


@contextmanager
def _logging_to_stderr(level: int) -> Iterator[None]:
    """Show this package's log, as long as a command runs."""
    package = logging.getLogger("spikeinterface_simsort")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    before = package.level
    package.addHandler(handler)
    package.setLevel(level)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(before)


if __name__ == "__main__":
    sys.exit(main())
