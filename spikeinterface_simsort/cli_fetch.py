"""The command ``simsort fetch``: detailed cells from public sources."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from spikeinterface_simsort.cli_common import CommandError, add_logging_options, require_simulation

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Fetch detailed cells to make a neuron bank of. None come with simsort: they are others' work, under others' terms.

SOURCE is one of
  s1      cells of the rat's somatosensory cortex as NetPyNE's JSON: CC BY-NC-SA 4.0,
          Markram et al. 2015, Borges et al. 2022
  nmc     all cell packages of the NMC portal, as hoc templates: CC BY-NC-SA 4.0, Markram et al. 2015
  hf://owner/name@<commit or tag>
          a data set of such files on the HuggingFace hub, under the terms on its card

DIR will hold the archive, SOURCE.json (where it came from, its sha256, its terms) and cells/, whose path is printed.
A download that was cut goes on when the command is given again, and what is complete is not fetched again.
"""
_EPILOG = """\
examples:
  simsort fetch s1 --accept-licence --output s1
  simsort fetch nmc --accept-licence --output nmc --url https://mirror.example.org/allzips.tar
  simsort fetch hf://owner/cells@v1.0 --accept-licence --output cells
  simsort bank "$(simsort fetch s1 --accept-licence)" --output neuron_bank
"""


def add_fetch_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``fetch``; it sets ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    parser = subparsers.add_parser(
        "fetch",
        help="fetch detailed cells from public sources",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="s1, nmc, or hf://owner/name@<commit or tag>")
    parser.add_argument("--output", metavar="DIR", type=Path, help="folder for it (one in the user's cache)")
    parser.add_argument("--accept-licence", action="store_true", help="say that you have read the terms and keep them")
    parser.add_argument("--url", help="another place that has the same archive")
    parser.add_argument("--sha256", metavar="HEX", help="what the archive must have")
    add_logging_options(parser)
    parser.set_defaults(handler=_fetch)


# The handler imports what it needs, so that `--help` does not wait for it.
def _fetch(args: argparse.Namespace) -> int:
    from spikeinterface_simsort.simulation.fetch import SOURCES, FetchError, fetch_hub, fetch_source

    is_hub = args.source.startswith("hf://")
    if not is_hub and args.source not in SOURCES:
        raise CommandError(f"There is no source {args.source!r}: choose {', '.join(SOURCES)}, or hf://owner/name@v1.0.")
    if is_hub and (args.url or args.sha256):
        raise CommandError("--url and --sha256 are for archives: a data set of the hub is pinned by its revision.")
    folder = _folder(args.source, args.output)
    if is_hub:
        _require_consent(args, f"The data set {args.source}: its card on huggingface.co says under which terms.")
    else:
        source = SOURCES[args.source]
        terms = f"{source.name}: {source.title}, about {source.approx_mb} MB. Licence: {source.licence}"
        _require_consent(args, f"{terms} ({source.licence_url}). Cite: {source.citation}.")
    try:
        if is_hub:
            cells = fetch_hub(args.source, folder)
        else:
            cells = fetch_source(
                source, folder, url=args.url, sha256=args.sha256, progress_bar=getattr(args, "progress_bar", False)
            )
    except FetchError as error:
        raise CommandError(str(error)) from error
    sys.stdout.write(f"{cells}\n")
    return 0


def _folder(source: str, output: Path | None) -> Path:
    if output is None:
        require_simulation("platformdirs")
        from spikeinterface_simsort.simulation.mechanisms import cache_folder

        return cache_folder() / "sources" / source.removeprefix("hf://").replace("/", "--")
    folder = output.expanduser()
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is a file: choose another folder.")
    return folder


def _require_consent(args: argparse.Namespace, terms: str) -> None:
    logger.info("%s", terms)
    if not args.accept_licence:
        raise CommandError(f"{terms} Read them, and pass --accept-licence if you keep them.")
