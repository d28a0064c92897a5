"""The commands ``simsort annotate`` and ``simsort agree``: units labelled by people."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeinterface_simsort.cli_common import (
    CommandError,
    add_logging_options,
    format_table,
    natural_int,
    require,
)
from spikeinterface_simsort.cli_units import add_jobs_option, read_traces
from spikeinterface_simsort.cores import default_num_jobs

if TYPE_CHECKING:
    from spikeinterface.core import SortingAnalyzer

    from spikeinterface_simsort.curation.annotations import Agreement

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Label the units of a sorting in the browser. spikeinterface-gui shows them; a list beside it says which units to label
next: those whose labels teach most. A classifier starts from the one that comes with simsort and learns from each
label, so that a few per cent of the units are often enough; the page says when.

keys: g good, m MUA, n noise, u unsure; left and right arrow show the other units of the list; backspace takes the last
label back.

Labels are written at once, as a curation that SpikeInterface and spikeinterface-gui read. The same command goes on
where it was stopped. Beside the file lies a table of all units, LABELS.csv: label, and probability of being good.
"""
_EPILOG = """\
examples:
  simsort annotate sorted                       what `simsort curate sorted` left
  simsort annotate analyzer.zarr --labels anna.json --strategy random
  simsort annotate analyzer --address 0.0.0.0 --port 5006 --no-browser
      for another computer to open; whoever reaches the port can label
"""
_AGREE_DESCRIPTION = """\
Compare two people's labels of one sorting, and merge them. Units that they label differently are left without a label;
`simsort annotate --labels MERGED` asks for these again. What only one of them labelled is taken over.
"""


def add_annotate_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``annotate`` and ``agree``; they set ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    parser = subparsers.add_parser(
        "annotate",
        help="label units by eye, the most informative first",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "analyzer",
        metavar="ANALYZER",
        type=Path,
        help="SortingAnalyzer (folder or zarr), or a folder in which `simsort curate` left one",
    )
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="JSON file for the labels (beside ANALYZER, ANALYZER_labels.json)"
    )
    parser.add_argument(
        "--recording", metavar="PATH", type=Path, help="raw traces that SpikeInterface saved, where ANALYZER lacks them"
    )
    parser.add_argument(
        "--strategy",
        choices=("dcal", "cal", "dal", "random"),
        default="dcal",
        help="what to ask for: units unlike those labelled at first, later those at the classifier's boundary (dcal); "
        "only the latter (cal), only the former (dal); any (%(default)s)",
    )
    parser.add_argument("--address", default="localhost", help="that the page is served at (%(default)s)")
    parser.add_argument("--port", type=natural_int, default=0, help="(any that is free)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page, only tell its address")
    add_jobs_option(parser)
    add_logging_options(parser)
    parser.set_defaults(handler=_annotate)

    parser = subparsers.add_parser(
        "agree",
        help="compare and merge two people's labels",
        description=_AGREE_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first", metavar="FIRST", type=Path, help="JSON file of labels")
    parser.add_argument("second", metavar="SECOND", type=Path, help="another, of the same units")
    parser.add_argument("--output", metavar="FILE", type=Path, help="JSON file for what both say")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    add_logging_options(parser)
    parser.set_defaults(handler=_agree)


# The handlers import what they need, so that `--help` does not wait for it.
def _annotate(args: argparse.Namespace) -> int:
    folder = find_analyzer(args.analyzer.expanduser().resolve())
    labels = labels_file(folder) if args.labels is None else args.labels.expanduser().resolve()
    if not labels.parent.is_dir():
        raise CommandError(f"There is no folder {labels.parent} for the labels.")
    require("panel", "spikeinterface_gui", "skops", extra="annotation")
    from spikeinterface_simsort.curation.active import ActiveLearner
    from spikeinterface_simsort.curation.annotate import VIEW_EXTENSIONS, serve_annotation
    from spikeinterface_simsort.curation.annotation_run import AnnotationRun
    from spikeinterface_simsort.curation.metrics import compute_metrics
    from spikeinterface_simsort.curation.models import CLASSES, classify

    analyzer = load_analyzer(folder, recording=args.recording)
    jobs: dict[str, Any] = {"n_jobs": args.n_jobs or default_num_jobs(), "progress_bar": args.progress_bar}
    metrics = compute_metrics(analyzer, job_kwargs=jobs)
    analyzer.compute([name for name in VIEW_EXTENSIONS if not analyzer.has_extension(name)], **jobs)
    learner = ActiveLearner(
        unit_ids=analyzer.unit_ids.tolist(),
        metrics=metrics,
        prior=classify(metrics)[CLASSES[0]].to_numpy(),
        strategy=args.strategy,
    )
    with AnnotationRun(path=labels, learner=learner) as run:
        serve_annotation(analyzer, run, address=args.address, port=args.port, open_browser=not args.no_browser)
    return 0


def find_analyzer(folder: Path) -> Path:
    """Find the analyzer in what was named.

    Parameters
    ----------
    folder : Path
        An analyzer's folder or zarr, or a folder with one named ``analyzer``.

    Returns
    -------
    Path

    Raises
    ------
    CommandError
        There is none.
    """
    if not folder.exists():
        raise CommandError(f"There is no {folder}.")
    inside = folder / "analyzer"
    if inside.is_dir() and folder.suffix != ".zarr":
        return inside
    if folder.suffix == ".zarr" or (folder / "spikeinterface_info.json").is_file():
        return folder
    raise CommandError(f"{folder} is no SortingAnalyzer: `simsort curate {folder}` makes one of sorted units.")


def labels_file(analyzer: Path) -> Path:
    """Where labels of an analyzer's units go, if nothing else is said: beside it."""
    return analyzer.with_name(f"{analyzer.name.removesuffix('.zarr')}_labels.json")


def load_analyzer(folder: Path, *, recording: Path | None) -> SortingAnalyzer:
    """Load an analyzer with at least one unit.

    Parameters
    ----------
    folder : Path
        Folder or zarr.
    recording : Path, optional
        Traces that SpikeInterface saved, where the analyzer does not find its own.

    Returns
    -------
    SortingAnalyzer

    Raises
    ------
    SourceError
        It cannot be read.
    CommandError
        The recording cannot be read, or there are no units.
    """
    from spikeinterface.core import load_sorting_analyzer

    from spikeinterface_simsort.sorted_units import open_units

    traces = read_traces(recording)
    # Says what is wrong with a folder, and opens no pickle. What it gives is not to be written to.
    open_units(folder)
    analyzer = load_sorting_analyzer(folder)
    if traces is not None:
        analyzer.set_temporary_recording(traces)
    if not len(analyzer.unit_ids):
        raise CommandError(f"{folder} has no units: there is nothing to label.")
    return analyzer


def _agree(args: argparse.Namespace) -> int:
    require("pandas", extra="curation")
    from spikeinterface_simsort.curation.annotations import merge_annotations, read_annotations, write_annotations

    output = None if args.output is None else args.output.expanduser().resolve()
    if output is not None and output.exists() and not args.overwrite:
        raise CommandError(f"{output} exists: choose another file, or pass --overwrite to replace it.")
    merged = merge_annotations(*(read_annotations(path.expanduser()) for path in (args.first, args.second)))
    if merged.one_sided_edits:
        logger.warning(
            "Only one of them has some of these: %s. They are left out of what both say.",
            ", ".join(merged.one_sided_edits),
        )
    if output is not None:
        write_annotations(output, merged.curation)
    sys.stdout.write(summarise(merged, output=output))
    return 0


def summarise(merged: Agreement, *, output: Path | None) -> str:
    """Tell how well two people agree, and on which units they do not.

    Parameters
    ----------
    merged : Agreement
        Of `merge_annotations`.
    output : Path, optional
        Where it was written.

    Returns
    -------
    str
        Lines, each with its end.
    """
    if merged.num_both == 0:
        text = "no unit was labelled by both\n"
    else:
        kappa = "not defined, all labels are the same" if merged.kappa is None else f"{merged.kappa:.3f}"
        text = f"{merged.num_agreed} of {merged.num_both} units that both labelled have one label\n"
        text += f"Cohen's kappa: {kappa}\n"
    if merged.disputed:
        rows = [(str(unit_id), *labels) for unit_id, labels in merged.disputed.items()]
        text += format_table(["unit", "first", "second"], rows)
    return text if output is None else f"{text}{output}\n"
