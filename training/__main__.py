"""From a neuron bank to a weights folder: ``python -m spikeinterface_simsort.training --bank BANK --output DIR``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from spikeinterface_simsort.training.card import model_card
from spikeinterface_simsort.training.export import export_weights
from spikeinterface_simsort.training.run import load_config, train

_EPILOG = """\
A run that was stopped goes on from its last epoch when the same command is given again.

example:
  python -m spikeinterface_simsort.training --bank neuron_bank/ --output runs/default
"""


def main(argv: list[str] | None = None) -> int:
    """Train the networks and export them.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; default those of the process.

    Returns
    -------
    int
        Exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m spikeinterface_simsort.training",
        description="Train the detector and the embedder on trials composed from a neuron bank, and export them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bank", required=True, type=Path, help="neuron bank: a folder of npz files, or one npz file")
    parser.add_argument("--output", required=True, type=Path, help="folder for checkpoints, logs and the weights")
    parser.add_argument("--config", default="default", help="default, paper, or a YAML file (%(default)s)")
    parser.add_argument("--only", choices=("detector", "embedder"), help="train this one and export nothing")
    parser.add_argument("--epochs", type=int, help="instead of those of the configuration, for both networks")
    parser.add_argument("--batches-per-epoch", type=int, help="likewise")
    parser.add_argument("--seed", type=int, help="instead of the configuration's")
    parser.add_argument("--threads", type=int, help="threads of torch (all cores)")
    parser.add_argument("--workers", type=int, default=0, help="processes that compose trials (%(default)s: this one)")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")

    config = load_config(arguments.config)
    if arguments.seed is not None:
        config["seed"] = arguments.seed
    checkpoints = {}
    for part in (arguments.only,) if arguments.only else ("detector", "embedder"):
        for name, value in (("epochs", arguments.epochs), ("batches_per_epoch", arguments.batches_per_epoch)):
            if value is not None:
                config[part][name] = value
        checkpoints[part] = train(
            part,
            bank=arguments.bank,
            config=config,
            output=arguments.output / part,
            num_threads=arguments.threads,
            num_workers=arguments.workers,
            progress_bar=not arguments.no_progress,
        )
    if not arguments.only:
        export_weights(
            arguments.output / "weights",
            detector_checkpoint=checkpoints["detector"],
            embedder_checkpoint=checkpoints["embedder"],
            config=config,
            bank=arguments.bank,
            card=model_card(config, cells=f"Cells of the neuron bank {arguments.bank.name}."),
            overwrite=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
