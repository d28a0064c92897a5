"""The command ``simsort simulate``: recordings whose spikes are known."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeinterface_simsort.cli_bank import make_bank
from spikeinterface_simsort.cli_common import (
    CommandError,
    add_logging_options,
    natural_float,
    natural_int,
    positive_float,
    positive_int,
    progress_bar,
    require_simulation,
)

if TYPE_CHECKING:
    from spikeinterface_simsort.simulation.datasets import Dataset
    from spikeinterface_simsort.simulation.recipe import Recipe

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Make recordings whose spikes are known: neurons of a bank, placed around an electrode, with noise.

DIR/trial_0000 and so on will hold
  recording/     the traces, in uV: spikeinterface.load("DIR/trial_0000/recording"); recording.zarr with --format zarr
  sorting/       the true units: spikeinterface.load("DIR/trial_0000/sorting")
  truth.npz      what a sorting cannot hold: sub-sample times, overlaps, templates, positions, gains, drift
  trial.yaml     how it was made
  waveforms.npz  with --waveforms: labelled spikes cut out of the traces
DIR/dataset.yaml says what all trials are made of, DIR/manifest.csv has a line for each.
Trials that are there already are kept: an interrupted run goes on where it was.
"""
_EPILOG = """\
examples:
  simsort simulate --num-trials 10 --output trials
  simsort simulate --num-trials 10 --duration 300 --num-units 8 --drift-um 10 --seed 1 --output drifting
  simsort simulate --recipe varied --num-trials 1000 --jobs 8 --bank neuron_bank --output varied
  simsort simulate --cells nmc_cells.tar.xz --num-trials 100 --output trials
      simulate the cells first: their bank will be in trials_bank
  simsort simulate --num-trials 1 --preview --output trials

A recipe is a YAML file with a line for each thing that differs from the default, such as
  num_units: {integers: [1, 20]}
  noise_uv: {log_uniform: [3, 12]}
  layout: {choice: [square, diamond]}
  duration_s: 60
The bundled ones are `paper` and `varied`. Options like --duration go before the recipe.
"""


# The option, the field of TrialConfig that it sets, its type, and what it says.
_CONFIG_OPTIONS: tuple[tuple[str, str, Callable[[str], Any], str], ...] = (
    ("--duration", "duration_s", positive_float, "length of a recording, in s (60)"),
    ("--sampling-frequency", "sampling_frequency", positive_float, "in Hz (30000)"),
    ("--num-units", "num_units", positive_int, "neurons whose spikes are told (5)"),
    ("--num-far", "num_far", natural_int, "neurons far away, whose spikes are not told (20)"),
    ("--min-amplitude-uv", "min_amplitude_uv", natural_float, "of a unit's mean spike (30)"),
    ("--max-amplitude-uv", "max_amplitude_uv", positive_float, "of a unit's mean spike (500)"),
    ("--burst-fraction", "burst_fraction", natural_float, "share of the units that burst (0.3)"),
    ("--synchrony", "synchrony", natural_float, "share of spikes that fall next to another unit's (0)"),
    ("--noise-uv", "noise_uv", natural_float, "standard deviation of the noise, 300 to 6000 Hz (5)"),
    ("--drift-um", "drift_um", natural_float, "amplitude of the neurons' movement (0)"),
    ("--drift-kind", "drift_kind", str, "linear, sinusoid, steps or random_walk (sinusoid)"),
    ("--drift-period-s", "drift_period_s", positive_float, "its period (60)"),
    ("--layout", "layout", str, "square, diamond, stereotrode, single or linear (square)"),
    ("--num-channels", "num_channels", positive_int, "of a linear probe (16)"),
    ("--contact-spacing-um", "contact_spacing_um", positive_float, "between neighbouring contacts (20)"),
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
    parser.add_argument("--seed", type=natural_int, default=0, help="the same seed makes the same trials (0)")
    parser.add_argument("--recipe", metavar="NAME", help="paper, varied or a YAML file: how trials are drawn")
    neurons = parser.add_mutually_exclusive_group()
    neurons.add_argument("--bank", metavar="PATH", type=Path, help="folder or npz file of neurons (the bundled ones)")
    neurons.add_argument("--cells", metavar="PATH", type=Path, help="cell models to make a bank of, see simsort bank")
    parser.add_argument("--format", choices=("binary", "zarr"), default="binary", help="of the recordings (binary)")
    parser.add_argument(
        "--waveforms", metavar="N", type=natural_int, default=0, help="cut out up to N spikes of each unit, too (0)"
    )
    parser.add_argument(
        "--faithful",
        action="store_true",
        help="simulate the cells all the way through, 100 times slower: no bank, far neurons or drift",
    )
    parser.add_argument("--preview", action="store_true", help="draw the first trial: DIR_preview.png")
    parser.add_argument("--jobs", metavar="N", type=positive_int, default=1, help="trials at a time (1)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="dask scheduler to work on instead: tcp://host:port")
    add_logging_options(parser)
    config = parser.add_argument_group("what a trial looks like")
    for flag, field, kind, text in _CONFIG_OPTIONS:
        config.add_argument(flag, dest=field, metavar="X", type=kind, help=text)
    parser.set_defaults(handler=_simulate)


# The handlers import what they need, so that `--help` does not wait for it.
def _simulate(args: argparse.Namespace) -> int:
    output = args.output.expanduser()
    if output.exists() and not output.is_dir():
        raise CommandError(f"{output} is a file: choose another folder.")
    if args.bank is not None and not args.bank.exists():
        raise CommandError(f"There is no neuron bank at {args.bank}.")
    many = args.scheduler is not None or args.jobs > 1
    require_simulation(*(["distributed"] if many else []), *(["neuron"] if args.cells else []))
    from spikeinterface_simsort.simulation.datasets import Dataset, DatasetError, make_dataset

    recipe = _recipe(args)
    if args.faithful:
        return _simulate_faithfully(args, output, recipe)
    bank = None if args.bank is None else str(args.bank.expanduser().resolve())
    if args.cells is not None:
        folder = output.with_name(f"{output.name}_bank")
        make_bank(args.cells.expanduser(), folder, num_processes=args.jobs, progress_bar=args.progress_bar)
        bank = str(folder.resolve())
    dataset = Dataset(
        recipe=recipe,
        num_trials=args.num_trials,
        seed=args.seed,
        bank=bank,
        format=args.format,
        most_waveforms=args.waveforms,
    )
    made = 0

    def progress(folder: Path) -> None:
        nonlocal made
        made += 1
        bar.update()
        if not args.progress_bar:
            logger.info("%s is there, %d of %d.", folder, made, args.num_trials)

    with progress_bar(total=args.num_trials, unit="trial", shown=args.progress_bar) as bar:
        try:
            folders = make_dataset(output, dataset, num_workers=args.jobs, scheduler=args.scheduler, progress=progress)
        except DatasetError as error:
            raise CommandError(str(error)) from error
    if args.preview:
        _preview(dataset, path=output.with_name(f"{output.name}_preview.png"))
    sys.stdout.write("".join(f"{folder}\n" for folder in folders))
    return 0


def _simulate_faithfully(args: argparse.Namespace, output: Path, recipe: Recipe) -> int:
    if args.bank is not None or args.scheduler is not None or args.preview:
        raise CommandError("--faithful goes with --cells and --jobs, not with --bank, --scheduler or --preview.")
    require_simulation("neuron")
    from spikeinterface_simsort.simulation.cells import read_cells
    from spikeinterface_simsort.simulation.datasets import check_trial, trial_folder, trial_seed
    from spikeinterface_simsort.simulation.faithful import save_faithful_trial
    from spikeinterface_simsort.simulation.own_cells import own_cells_folder

    with own_cells_folder() as own:
        models = read_cells(own if args.cells is None else args.cells.expanduser())
    folders = [trial_folder(output, index) for index in range(args.num_trials)]
    for index, folder in enumerate(folders):
        seed = trial_seed(args.seed, index)
        config = recipe.draw(seed)
        if folder.exists():
            check_trial(folder, config=config, seed=seed)
        else:
            save_faithful_trial(
                folder,
                models,
                config=config,
                seed=seed,
                num_processes=args.jobs,
                format=args.format,
                most_waveforms=args.waveforms,
            )
        logger.info("%s is there, %d of %d.", folder, index + 1, len(folders))
    sys.stdout.write("".join(f"{folder}\n" for folder in folders))
    return 0


def _recipe(args: argparse.Namespace) -> Recipe:
    from spikeinterface_simsort.simulation.recipe import Recipe, load_recipe

    given = {} if args.recipe is None else load_recipe(args.recipe).to_dict()
    options = {name: getattr(args, name) for _, name, _, _ in _CONFIG_OPTIONS if getattr(args, name) is not None}
    without = {"num_far": 0, "drift_um": 0, "spike_speed": [1, 1]} if args.faithful else {}
    return Recipe({**given, **without, **options})


def _preview(dataset: Dataset, *, path: Path) -> None:
    from spikeinterface_simsort.simulation.bank import load_bank
    from spikeinterface_simsort.simulation.composition import compose_trial
    from spikeinterface_simsort.simulation.datasets import trial_seed
    from spikeinterface_simsort.simulation.preview import draw_trial
    from spikeinterface_simsort.simulation.trials import bundled_bank

    neurons = bundled_bank() if dataset.bank is None else load_bank(dataset.bank)
    trial = compose_trial(neurons, config=dataset.trial_config(0), seed=trial_seed(dataset.seed, 0))
    draw_trial(trial, neurons=neurons, path=path)
    logger.info("Drew the first trial: %s", path)
