"""The command ``simsort demo``: simulate a recording, sort it, and compare with the truth."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeinterface_simsort.cli_common import (
    add_logging_options,
    check_output,
    format_table,
    positive_float,
    positive_int,
    require_simulation,
    staged_folder,
)
from spikeinterface_simsort.cli_parameters import add_parameter_options, parse_parameters
from spikeinterface_simsort.cli_sort import SORTED_CONTENTS, sort_into, summarise, write_report
from spikeinterface_simsort.weights import resolve_weights

if TYPE_CHECKING:
    from spikeinterface.core import BaseSorting

logger = logging.getLogger(__name__)

_CONTENTS = (*SORTED_CONTENTS, "trial", "accuracy.csv")
# Two spikes closer than this are the same: as in the paper.
_DELTA_MS = 1.0
_HEADER = ("true unit", "cell", "peak (uV)", "true spikes", "found as", "accuracy", "precision", "recall")

_DESCRIPTION = """\
Simulate a tetrode recording from the bundled neurons, sort it, and compare what was found with the truth.

DIR will hold what `simsort sort` writes, and
  trial/         the recording and its true units
  accuracy.csv   how well each true unit was found (spikes closer than 1 ms are the same)
"""
_EPILOG = """\
examples:
  simsort demo --output demo
  simsort demo --output demo --duration 120 --num-units 8 --trial-seed 5 --overwrite
"""


def add_demo_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``demo``; it sets ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    parser = subparsers.add_parser(
        "demo",
        help="simulate a recording, sort it, and compare with the truth",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder to be made")
    parser.add_argument("--overwrite", action="store_true", help="replace DIR, once the new output is complete")
    parser.add_argument("--duration", metavar="S", type=positive_float, default=60.0, help="of the recording (60)")
    parser.add_argument("--num-units", metavar="N", type=positive_int, default=5, help="neurons to be found (5)")
    parser.add_argument("--trial-seed", metavar="SEED", type=int, default=0, help="of the simulation (0)")
    add_logging_options(parser)
    add_parameter_options(parser)
    parser.set_defaults(handler=_demo)


# The handlers import what they need, so that `--help` does not wait for it.
def _demo(args: argparse.Namespace) -> int:
    output = args.output.expanduser().resolve()
    check_output(output, overwrite=args.overwrite, contents=_CONTENTS)
    params = parse_parameters(args)
    resolve_weights(params.get("weights", "bundled"))
    require_simulation("pandas")
    from spikeinterface.core import load

    from spikeinterface_simsort.simulation.trial_config import TrialConfig
    from spikeinterface_simsort.simulation.trials import save_trial

    config = TrialConfig(duration_s=args.duration, num_units=args.num_units)
    with staged_folder(output, overwrite=args.overwrite, contents=_CONTENTS) as folder:
        logger.info("Simulating %g s with %d neurons.", args.duration, args.num_units)
        trial = save_trial(folder / "trial", config=config, seed=args.trial_seed)
        recording: Any = load(trial / "recording")
        truth: Any = load(trial / "sorting")
        sorting = sort_into(recording, folder=folder, params=params, moves_along=True)
        rows = write_report(recording, sorting, folder=folder, title="simsort demo", job_kwargs=params["job_kwargs"])
        accuracy = _compare(truth, sorting, path=folder / "accuracy.csv")
    sys.stdout.write(f"{summarise(rows, folder=output)}\n{accuracy}")
    return 0


def _compare(truth: BaseSorting, sorting: BaseSorting, *, path: Path) -> str:
    """Write how well each true unit was found, and tell it in a table with the mean."""
    from spikeinterface.comparison import compare_sorter_to_ground_truth

    comparison: Any = compare_sorter_to_ground_truth(truth, sorting, delta_time=_DELTA_MS, exhaustive_gt=True)
    performance = comparison.get_performance()[["accuracy", "precision", "recall"]].astype(float)
    # The comparison's mark for a unit that was not found is -1, or nothing where units have names.
    found_as = [None if match in (-1, "") else match for match in comparison.hungarian_match_12]
    performance.insert(0, "found_as", np.array(found_as, dtype=object))
    performance.to_csv(path)
    counts = truth.count_num_spikes_per_unit()
    cells, peaks = truth.get_property("cell"), truth.get_property("amplitude_uv")
    rows: list[list[Any]] = []
    for index, unit_id in enumerate(truth.unit_ids):
        match, *scores = performance.loc[unit_id]
        rows.append([unit_id, cells[index], float(peaks[index]), counts[unit_id], match, *map(float, scores)])
    mean = performance["accuracy"].mean()
    return f"{format_table(_HEADER, rows)}mean accuracy {mean:.3f}\n"
