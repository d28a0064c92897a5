"""The command ``simsort finetune``: released networks adapted to a lab's own recording."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeinterface_simsort.cli_common import (
    CommandError,
    add_logging_options,
    check_output,
    format_table,
    positive_int,
    progress_bar,
    require,
)
from spikeinterface_simsort.cli_parameters import add_parameter_options, parse_parameters
from spikeinterface_simsort.cli_recording import add_recording_options, check_recording_options, read_recording
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.weights import resolve_weights
from spikeinterface_simsort.weights_format import WEIGHTS_FILES, one_line

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording, BaseSorting

    from spikeinterface_simsort.training.adaptation import Report

# With a sorting and without one: enough to learn from minutes of a recording.
_STEPS, _STEPS_UNSORTED = 150, 100

_DESCRIPTION = """\
Adapt the networks to a recording of one tetrode. The first 70 % of it train, the rest tells whether that helped: a
network that got worse there is not kept, and the released one takes its place.

With SORTING, units that somebody has curated, the detector and the embedder learn from it. Without, the embedder alone
learns to recognise the recording's spikes in the recording's own noise. Nothing then tells for certain whether sorting
gets better: in simulations it did not always (docs/training.md), so compare both sortings before you trust it.

DIR will be a folder of weights, for `simsort sort --weights DIR` and run_sorter("simsort", recording, weights="DIR").
It appears when all is done; if neither network got better, it holds the released ones.
"""
_EPILOG = """\
examples:
  simsort finetune recording_folder curated_sorting --output my_weights
  simsort finetune recording_folder --output my_weights
  simsort finetune session_folder phy_folder --format openephys --stream-id 0 --group-size 4 --group 2 --output mine
"""


def add_finetune_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``finetune``; it sets ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    parser = subparsers.add_parser(
        "finetune",
        help="adapt the networks to a recording, sorted or not",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder of weights to be made")
    parser.add_argument("--overwrite", action="store_true", help="replace the weights in DIR, once the new ones are")
    parser.add_argument(
        "--steps",
        metavar="N",
        type=positive_int,
        help=f"of either network ({_STEPS}; without SORTING {_STEPS_UNSORTED})",
    )
    add_logging_options(parser)
    add_recording_options(parser)
    # After the recording's path, which the other options bring along.
    parser.add_argument(
        "sorting",
        metavar="SORTING",
        type=Path,
        nargs="?",
        help="its units: a folder, npz or json saved by SpikeInterface, a sorter's output folder, or Phy's",
    )
    parser.add_argument("--group", metavar="NAME", help="which tetrode, where the recording has several")
    add_parameter_options(parser)
    parser.set_defaults(handler=_finetune)


# The handler imports what it needs, so that `--help` does not wait for it.
def _finetune(args: argparse.Namespace) -> int:
    output = args.output.expanduser().resolve()
    check_recording_options(args)
    if args.sorting is not None:
        if not args.sorting.exists():
            raise CommandError(f"There is no {args.sorting}.")
        require("pandas", extra="training")
    check_output(output, overwrite=args.overwrite, contents=WEIGHTS_FILES)
    params = SimSortParams.from_dict(parse_parameters(args))
    resolve_weights(params.weights)
    recording = choose_group(read_recording(args), group=args.group)
    sorting = None if args.sorting is None else read_sorting(args.sorting.expanduser())
    num_steps = args.steps or (_STEPS_UNSORTED if sorting is None else _STEPS)
    total = num_steps if sorting is None else 2 * num_steps
    with progress_bar(total=total, unit="step", shown=args.progress_bar) as bar:
        options: dict[str, Any] = {
            "folder": output,
            "weights": params.weights,
            "seed": params.seed,
            "num_steps": num_steps,
            "params": params,
            "overwrite": args.overwrite,
            "progress": bar.update,
        }
        if sorting is None:
            from spikeinterface_simsort.training.adaptation import adapt

            report = adapt(recording, **options)
        else:
            from spikeinterface_simsort.training.finetuning import finetune

            report = finetune(recording, sorting, **options)
    sys.stdout.write(summarise(report))
    return 0


def summarise(report: Report) -> str:
    """Tell what training did: a table of scores, what is kept, and where it lies.

    Parameters
    ----------
    report : Report
        Of `finetune` or `adapt`.

    Returns
    -------
    str
        Lines, each with its end.
    """
    rows = [
        (name.replace("_", " "), f"{value:.4f}", f"{report.after[name]:.4f}") for name, value in report.before.items()
    ]
    kept = [f"{role}: {'trained' if kept else 'released'}" for role, kept in report.kept.items()]
    return f"{format_table(['held out', 'before', 'after'], rows)}{', '.join(kept)}\n{report.folder}\n"


def choose_group(recording: BaseRecording, *, group: str | None) -> BaseRecording:
    """Take one group of a recording.

    Parameters
    ----------
    recording : BaseRecording
        With or without the property ``group``.
    group : str, optional
        As the property is written.

    Returns
    -------
    BaseRecording

    Raises
    ------
    CommandError
        There is no such group, or several and none was named.
    """
    from spikeinterface_simsort.groups import split_groups

    groups = {str(name): part for name, part in split_groups(recording)}
    if group is None and len(groups) == 1:
        return recording
    if group is None or group not in groups:
        names = ", ".join(groups)
        what = "The recording has several groups" if group is None else f"The recording has no group {group!r}"
        raise CommandError(f"{what}: choose one with --group ({names}).")
    return groups[group]


def read_sorting(path: Path) -> BaseSorting:
    """Read the units of a recording.

    Parameters
    ----------
    path : Path
        What SpikeInterface saved (folder, zarr, npz, json), an output folder of ``run_sorter`` or of ``simsort sort``,
        or one of Phy, without the clusters that were called noise.

    Returns
    -------
    BaseSorting

    Raises
    ------
    CommandError
        It is none of these, or is broken.
    """
    from spikeinterface.core import BaseSorting, NpzSortingExtractor, load
    from spikeinterface.extractors import read_phy
    from spikeinterface.sorters import read_sorter_folder

    if (path / "spikeinterface_log.json").is_file():
        reader = read_sorter_folder
    elif (path / "params.py").is_file():
        # Of what somebody curated, noise is not spikes.
        reader = partial(read_phy, exclude_cluster_groups=["noise"])
    elif (path / "sorting").is_dir():
        path, reader = path / "sorting", load
    else:
        reader = NpzSortingExtractor if path.suffix == ".npz" else load
    try:
        sorting: Any = reader(path)
    except Exception as error:  # What a broken folder raises depends on what is broken.
        raise CommandError(
            f"{path} is not a sorting that can be read ({one_line(error)}). Give a folder, npz or json saved by "
            "SpikeInterface, the output folder of a sorter, or Phy's folder."
        ) from error
    # What SpikeInterface calls an analyzer brings its sorting along.
    sorting = getattr(sorting, "sorting", sorting)
    if not isinstance(sorting, BaseSorting):
        raise CommandError(f"{path} is not a sorting ({type(sorting).__name__}).")
    return sorting
