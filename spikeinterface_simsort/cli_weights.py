"""The command ``simsort weights``: pull, push and show weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_weights_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``weights`` with its subcommands; each sets ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    summary = "fetch, publish or describe the networks' weights"
    weights = subparsers.add_parser("weights", help=summary, description=f"{summary.capitalize()}.")
    commands = weights.add_subparsers(metavar="COMMAND", required=True)
    _add_pull(commands)
    _add_push(commands)
    _add_show(commands)


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, *, summary: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_pull(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add_command(
        commands,
        "pull",
        summary="download weights to the hub's cache and verify them",
        example="simsort weights pull hf://owner/name@v1.0 --output my_weights",
    )
    parser.add_argument("source", metavar="SOURCE", help="hf://owner/name@<commit or tag>, a folder, or bundled")
    parser.add_argument("--output", metavar="DIR", type=Path, help="also copy them to this folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the weights in that folder")
    parser.set_defaults(handler=_pull)


def _add_push(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add_command(
        commands,
        "push",
        summary="verify weights and publish them on the HuggingFace hub (log in first: hf auth login)",
        example="simsort weights push my_weights owner/name",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a weights folder with its model card")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="repository on the hub, made where it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.set_defaults(handler=_push)


def _add_show(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add_command(
        commands,
        "show",
        summary="describe weights: networks, sampling rates, sizes, sha256 and the head of the model card",
        example="simsort weights show hf://owner/name@v1.0",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        default="bundled",
        help="hf://owner/name@<commit or tag>, a folder, or bundled (the default)",
    )
    parser.set_defaults(handler=_show)


# The handlers import what they need, so that `--help` does not wait for torch.
def _pull(args: argparse.Namespace) -> int:
    from spikeinterface_simsort.weights import pull_weights

    sys.stdout.write(f"{pull_weights(args.source, folder=args.output, overwrite=args.overwrite)}\n")
    return 0


def _push(args: argparse.Namespace) -> int:
    from spikeinterface_simsort.weights import push_weights

    sys.stdout.write(f"{push_weights(args.folder, repo_id=args.repo_id, private=args.private)}\n")
    return 0


def _show(args: argparse.Namespace) -> int:
    from spikeinterface_simsort.weights import describe_weights

    sys.stdout.write(f"{describe_weights(args.source)}\n")
    return 0
