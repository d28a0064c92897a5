"""The command ``simsort export``: sorted units for Phy, and as NWB."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from spikeinterface_simsort.cli_common import CommandError, add_logging_options, require
from spikeinterface_simsort.cli_units import add_units_options, read_traces
from spikeinterface_simsort.cores import default_num_jobs

_DESCRIPTION = """\
Hand sorted units on to other programs, with their labels and all else that is known of them.

SOURCE is what `simsort sort` or a sorter of SpikeInterface wrote, or a SortingAnalyzer (folder or zarr). Segments are
put one after another.

  phy   a folder for Phy: `phy template-gui FOLDER/params.py`. The quality that `simsort curate` gave becomes the
        clusters' group, every other property of the units a column. Units without spikes are left out.
  nwb   a file with spike times, electrodes and all properties of the units, but no traces.
"""
_EPILOG = """\
examples:
  simsort export sorted --to phy                   writes the folder sorted_phy
  simsort export sorted --to nwb --session-start 2024-05-01T09:30:00+02:00
"""


def add_export_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``export``; it sets ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    parser = subparsers.add_parser(
        "export",
        help="write sorted units for Phy, or as NWB",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_units_options(parser)
    parser.add_argument("--to", choices=("phy", "nwb"), required=True, help="what to write")
    parser.add_argument(
        "--output", metavar="PATH", type=Path, help="folder or file to be made (beside SOURCE: SOURCE_phy, SOURCE.nwb)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what is there; what was curated in Phy is lost"
    )
    parser.add_argument("--no-traces", action="store_true", help="phy: leave out the traces, which it copies else")
    parser.add_argument(
        "--session-start", metavar="TIME", type=_time, help="nwb: when the recording began, with its time zone"
    )
    add_logging_options(parser)
    parser.set_defaults(handler=_export)


def _time(text: str) -> datetime:
    """Type of an option: a time with a time zone; without one, that of this computer is taken."""
    return datetime.fromisoformat(text).astimezone()


# The handler imports what it needs, so that `--help` does not wait for it.
def _export(args: argparse.Namespace) -> int:
    source = args.source.expanduser().resolve()
    if not source.exists():
        raise CommandError(f"There is no {source}.")
    require("pandas", *(["neuroconv"] if args.to == "nwb" else []), extra="export")
    if args.to == "phy" and args.session_start is not None:
        raise CommandError("--session-start is for --to nwb.")
    if args.to == "nwb" and args.no_traces:
        raise CommandError("--no-traces is for --to phy: an NWB file gets none.")
    ending = "_phy" if args.to == "phy" else ".nwb"
    output = source.with_name(source.stem + ending) if args.output is None else args.output.expanduser().resolve()
    if not output.parent.is_dir():
        raise CommandError(f"There is no folder {output.parent}.")
    recording = read_traces(args.recording)
    from spikeinterface_simsort.export import export_nwb, export_phy

    if args.to == "phy":
        export_phy(
            source,
            output,
            recording=recording,
            curation=args.curation,
            copy_traces=not args.no_traces,
            overwrite=args.overwrite,
            n_jobs=args.n_jobs or default_num_jobs(),
        )
    else:
        export_nwb(
            source,
            output,
            recording=recording,
            curation=args.curation,
            session_start=args.session_start,
            overwrite=args.overwrite,
        )
    sys.stdout.write(f"{output}\n")
    return 0
