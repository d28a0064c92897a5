"""The command ``simsort simulate``: recordings whose spikes are known."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeinterface_simsort.cli_common import CommandError, add_logging_options

if TYPE_CHECKING:
    from spikeinterface_simsort.simulation.composition import TrialConfig

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Make tetrode recordings whose spikes are known: neurons of a bank, placed around a tetrode, with noise.

DIR/trial_0000 and so on will hold
  recording/   the traces, in uV: spikeinterface.load("DIR/trial_0000/recording")
  sorting/     the true units: spikeinterface.load("DIR/trial_0000/sorting")
  trial.json   how it was made
Trials that are there already are kept: an interrupted run goes on where it was.
"""
_EPILOG = """\
examples:
  simsort simulate --num-trials 10 --output trials
  simsort simulate --num-trials 10 --duration 300 --num-units 8 --drift-um 10 --seed 1 --output drifting
  simsort simulate --bank neuron_bank --output trials
"""


def positive_int(text: str) -> int:
    """Type of an option: a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return value


def positive_float(text: str) -> float:
    """Type of an option: a finite number larger than 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be larger than 0, not {text}")
    return value


def _natural_float(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text}")
    return value


def _natural_int(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text}")
    return value


# The option, the field of TrialConfig that it sets, its type, and what it says.
_CONFIG_OPTIONS: tuple[tuple[str, str, Callable[[str], Any], str], ...] = (
    ("--duration", "duration_s", positive_float, "length of a recording, in s (60)"),
    ("--sampling-frequency", "sampling_frequency", positive_float, "in Hz (30000)"),
    ("--num-units", "num_units", positive_int, "neurons whose spikes are told (5)"),
    ("--num-far", "num_far", _natural_int, "neurons far away, whose spikes are not told (20)"),
    ("--min-amplitude-uv", "min_amplitude_uv", _natural_float, "of a unit's mean spike (30)"),
    ("--max-amplitude-uv", "max_amplitude_uv", positive_float, "of a unit's mean spike (500)"),
    ("--burst-fraction", "burst_fraction", _natural_float, "share of the units that burst (0.3)"),
    ("--noise-uv", "noise_uv", _natural_float, "standard deviation of the noise, 300 to 6000 Hz (5)"),
    ("--drift-um", "drift_um", _natural_float, "amplitude of the neurons' slow movement (0)"),
    ("--drift-period-s", "drift_period_s", positive_float, "its period (60)"),
    ("--contact-spacing-um", "contact_spacing_um", positive_float, "of the tetrode (20)"),
)


def add_simulate_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``simulate``; it sets ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    parser = subparsers.add_parser(
        "simulate",
        help="make recordings whose spikes are known",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder for the trials")
    parser.add_argument("--num-trials", metavar="N", type=positive_int, default=1, help="(1)")
    parser.add_argument("--seed", type=_natural_int, default=0, help="the same seed makes the same trials (0)")
    parser.add_argument("--bank", metavar="PATH", type=Path, help="folder or npz file of neurons (the bundled ones)")
    add_logging_options(parser)
    config = parser.add_argument_group("what a trial looks like")
    for flag, field, kind, text in _CONFIG_OPTIONS:
        config.add_argument(flag, dest=field, metavar="X", type=kind, help=text)
    parser.set_defaults(handler=_simulate)


def require_simulation(*more: str) -> None:
    """Refuse to go on without the packages of the extra ``simulation``.

    Parameters
    ----------
    *more : str
        Packages that are needed besides what every simulation needs.

    Raises
    ------
    CommandError
        One is missing.
    """
    missing = [name for name in ("lfpykit", *more) if not _is_installed(name)]
    if missing:
        raise CommandError(f"{missing[0]} is not installed: pip install 'spikeinterface-simsort[simulation]'")


# The handlers import what they need, so that `--help` does not wait for it.
def _simulate(args: argparse.Namespace) -> int:
    output = args.output.expanduser()
    if output.exists() and not output.is_dir():
        raise CommandError(f"{output} is a file: choose another folder.")
    if args.bank is not None and not args.bank.exists():
        raise CommandError(f"There is no neuron bank at {args.bank}.")
    require_simulation()
    from spikeinterface_simsort.simulation.bank import load_bank
    from spikeinterface_simsort.simulation.composition import TrialConfig
    from spikeinterface_simsort.simulation.trials import bundled_bank, save_trial

    fields = [field for _, field, _, _ in _CONFIG_OPTIONS]
    config = TrialConfig(**{name: getattr(args, name) for name in fields if getattr(args, name) is not None})
    folders = [output / f"trial_{index:04d}" for index in range(args.num_trials)]
    seeds = [trial_seed(args.seed, index) for index in range(args.num_trials)]
    for folder, seed in zip(folders, seeds, strict=True):
        _check_same(folder, config=config, seed=seed)
    neurons = None
    for index, (folder, seed) in enumerate(zip(folders, seeds, strict=True)):
        if folder.exists():
            logger.info("%s is there already.", folder)
            continue
        if neurons is None:
            neurons = bundled_bank() if args.bank is None else load_bank(args.bank)
        save_trial(folder, neurons, config=config, seed=seed)
        logger.info("Made %s, %d of %d.", folder, index + 1, len(folders))
    sys.stdout.write("".join(f"{folder}\n" for folder in folders))
    return 0


def trial_seed(seed: int, index: int) -> int:
    """Seed of one trial: runs with seeds 0 and 1 have no trial in common.

    Parameters
    ----------
    seed : int
        Of the run.
    index : int
        Of the trial.

    Returns
    -------
    int
    """
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def _check_same(folder: Path, *, config: TrialConfig, seed: int) -> None:
    """Refuse to keep a trial that was made otherwise, as it would pass for one of this run."""
    from dataclasses import asdict

    if not folder.exists():
        return
    description = folder / "trial.json"
    try:
        made = json.loads(description.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandError(f"{folder} is not a trial: choose another folder.") from error
    # JSON knows no tuples.
    wanted = json.loads(json.dumps({"seed": seed, "config": asdict(config)}))
    if any(made.get(key) != value for key, value in wanted.items()):
        raise CommandError(f"{folder} was made with other settings: choose another folder, or remove it.")


def _is_installed(name: str) -> bool:
    # What was imported, or put in its place by None, needs no search.
    return sys.modules[name] is not None if name in sys.modules else find_spec(name) is not None
