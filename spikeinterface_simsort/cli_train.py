"""The command ``simsort train``: from a neuron bank to the networks' weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from spikeinterface_simsort.cli_common import (
    CommandError,
    add_logging_options,
    natural_int,
    positive_int,
    require,
)

PARTS = ("detector", "embedder")

_DESCRIPTION = """\
Train the sorter's networks on trials composed from a neuron bank, never the same twice.

WHAT is detector, embedder, or all: both, one after the other, then calibrated, scored on the cells that the
configuration holds out, and exported as a weights folder with its model card. DIR will hold
  detector/checkpoints, embedder/checkpoints   where a stopped run goes on
  detector/loss.png, loss.csv, logs            how the loss fell; likewise of the embedder
  weights                                      for `simsort sort --weights DIR/weights`
Cells whose names start with L6 are never trained on: they are kept for tests.
A run that was stopped goes on from its last epoch when the same command is given again, to the same weights.
"""
_EPILOG = """\
examples:
  simsort bank nmc_cells.tar.xz --exclude "L6_.*" --jobs 2 --output train_bank
  simsort train all --bank train_bank --output runs/default
  simsort train embedder --bank train_bank --config paper --devices 4 --output runs/paper
  simsort weights push runs/default/weights OWNER/NAME

Configurations are YAML files; `default` and `paper` come with the package (spikeinterface_simsort/training/configs).
On a cluster, start the same command on each node by srun, with --nodes and --devices as the job has them.
"""


def add_train_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``train``; it sets ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    parser = subparsers.add_parser(
        "train",
        help="train the networks on a neuron bank",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", metavar="WHAT", choices=(*PARTS, "all"), help="detector, embedder or all")
    parser.add_argument("--bank", metavar="BANK", type=Path, required=True, help="folder of npz files, or one npz file")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", metavar="NAME", default="default", help="default, paper or a YAML file (default)")
    parser.add_argument("--seed", type=natural_int, help="instead of the configuration's")
    parser.add_argument("--epochs", metavar="N", type=positive_int, help="instead of the configuration's")
    parser.add_argument("--batches-per-epoch", metavar="N", type=positive_int, help="instead of the configuration's")
    parser.add_argument("--precision", metavar="P", default="auto", help="32-true, bf16-mixed, 16-mixed, ... (auto)")
    parser.add_argument("--devices", metavar="N", type=positive_int, default=1, help="GPUs of each node (1)")
    parser.add_argument("--nodes", metavar="N", type=positive_int, default=1, help="machines (1)")
    parser.add_argument("--workers", metavar="N", type=natural_int, default=0, help="processes that compose trials (0)")
    parser.add_argument("--threads", metavar="N", type=positive_int, help="threads of torch (all cores)")
    parser.add_argument("--cells", metavar="TEXT", help="where the cells come from, for the model card")
    parser.add_argument("--license", metavar="ID", default="other", help="of the weights, as the hub names it (other)")
    add_logging_options(parser)
    parser.set_defaults(handler=_train)


# The handler imports what it needs, so that `--help` does not wait for it.
def _train(args: argparse.Namespace) -> int:
    require("lfpykit", "lightning", extra="training")
    from spikeinterface_simsort.training.run import is_first_process, load_config, train

    config = _with_options(load_config(args.config), args)
    output = args.output.expanduser()
    if output.exists() and not output.is_dir():
        raise CommandError(f"{output} is a file: choose another folder.")
    checkpoints = {}
    for part in PARTS if args.what == "all" else (args.what,):
        checkpoints[part] = train(
            part,
            bank=args.bank.expanduser(),
            config=config,
            output=output / part,
            num_threads=args.threads,
            num_workers=args.workers,
            num_devices=args.devices,
            num_nodes=args.nodes,
            precision=args.precision,
            progress_bar=args.progress_bar,
        )
        if is_first_process():
            sys.stdout.write(f"{checkpoints[part]}\n")
    if args.what == "all" and is_first_process():
        from spikeinterface_simsort.training.export import export_weights

        weights = export_weights(
            output / "weights",
            detector_checkpoint=checkpoints["detector"],
            embedder_checkpoint=checkpoints["embedder"],
            config=config,
            bank=args.bank.expanduser(),
            cells=args.cells,
            license_id=args.license,
            overwrite=True,
        )
        sys.stdout.write(f"{weights}\n")
    return 0


def _with_options(config: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Put what the command line says in the place of what the configuration says."""
    if args.seed is not None:
        config["seed"] = args.seed
    for part in PARTS:
        for name in ("epochs", "batches_per_epoch"):
            value = getattr(args, name)
            if value is not None:
                config[part][name] = value
    return config
