"""The command ``simsort report``: sorted units as one HTML page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spikeinterface_simsort.cli_common import CommandError, add_logging_options
from spikeinterface_simsort.cli_units import add_units_options, read_traces
from spikeinterface_simsort.cores import default_num_jobs
from spikeinterface_simsort.run_folders import GROUPS_FOLDER, REPORT_FILE, SORTING_FOLDER

_DESCRIPTION = """\
Show sorted units in one HTML page, which needs nothing else: to be looked at, sent, printed.

SOURCE is what `simsort sort` or a sorter of SpikeInterface wrote, or a SortingAnalyzer (folder or zarr). The page
holds a summary of the recording and the sort, and a table of all units, which any column sorts, with the labels of
`simsort curate` where there are any; for each unit its waveforms, autocorrelogram and amplitudes over time; for each
group, principal components and how alike the units are.
"""
_EPILOG = """\
examples:
  simsort report sorted                        writes sorted/report.html
  simsort report sorted --output page.html
  simsort report analyzer.zarr --curation labels/curation.json
"""


def add_report_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``report``; it sets ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    parser = subparsers.add_parser(
        "report",
        help="show sorted units in one HTML page",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_units_options(parser)
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help=f"page to be written (SOURCE/{REPORT_FILE}; beside an analyzer)"
    )
    parser.add_argument("--title", default="", help="of the page (name of SOURCE)")
    add_logging_options(parser)
    parser.set_defaults(handler=_report)


# The handler imports what it needs, so that `--help` does not wait for it.
def _report(args: argparse.Namespace) -> int:
    source = args.source.expanduser().resolve()
    if not source.exists():
        raise CommandError(f"There is no {source}.")
    output = _default_page(source) if args.output is None else args.output.expanduser().resolve()
    if output.suffix.lower() not in (".html", ".htm"):
        raise CommandError(f"{output} is no name for a page: let it end in .html.")
    if not output.parent.is_dir():
        raise CommandError(f"There is no folder {output.parent}.")
    recording = read_traces(args.recording)
    from spikeinterface_simsort.html_report import write_html_report

    page = write_html_report(
        source,
        output,
        recording=recording,
        curation=args.curation,
        title=args.title,
        n_jobs=args.n_jobs or default_num_jobs(),
    )
    sys.stdout.write(f"{page}\n")
    return 0


def _default_page(source: Path) -> Path:
    """Into what `simsort sort` wrote; beside anything else, which is not simsort's."""
    if (source / SORTING_FOLDER).is_dir() and any((source / name).is_dir() for name in ("sorter", GROUPS_FOLDER)):
        return source / REPORT_FILE
    return source.with_name(f"{source.stem}_{REPORT_FILE}")
