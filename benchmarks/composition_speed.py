"""How fast trials are composed, in recorded seconds a second of one core."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

from threadpoolctl import threadpool_limits

from spikeinterface_simsort.simulation.bank import load_bank
from spikeinterface_simsort.simulation.composition import compose_trial
from spikeinterface_simsort.simulation.recipe import Recipe, load_recipe
from spikeinterface_simsort.simulation.trial_config import TrialConfig

# 5 neurons, 20 far ones, a tetrode at 30 kHz, 60 s.
DEFAULT = TrialConfig()


def measure(*, configs: list[TrialConfig], bank: Path, repeats: int) -> list[float]:
    """Compose each trial once, after one that warms up.

    Parameters
    ----------
    configs : list of TrialConfig
        In turn, until there are enough.
    bank : Path
        Neuron bank.
    repeats : int
        Number of trials.

    Returns
    -------
    list of float
        Seconds of recording for each second of processor time.
    """
    neurons = load_bank(bank)
    ratios = []
    with threadpool_limits(1):
        compose_trial(neurons, config=configs[0], seed=0)
        for seed in range(repeats):
            config = configs[seed % len(configs)]
            began = time.process_time()
            compose_trial(neurons, config=config, seed=seed)
            ratios.append(config.duration_s / (time.process_time() - began))
    return ratios


def main(argv: list[str] | None = None) -> int:
    """Print the speed of the default trial and of the recipe ``varied``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.composition_speed", description=__doc__)
    parser.add_argument("--bank", type=Path, required=True, help="neuron bank: a folder or an npz file")
    parser.add_argument("--repeats", type=int, default=10, help="trials of each kind (10)")
    arguments = parser.parse_args(argv)
    # As long as the default, so that the two compare.
    recipe = Recipe({**load_recipe("varied").values, "duration_s": DEFAULT.duration_s})
    kinds = {
        "5 neurons, 20 far, 30 kHz": [DEFAULT],
        "recipe varied: up to 20 neurons, 300 far": [recipe.draw(seed) for seed in range(arguments.repeats)],
    }
    sys.stdout.write("| trial | times real time, one core: median | slowest |\n| --- | --- | --- |\n")
    for name, configs in kinds.items():
        ratios = measure(configs=configs, bank=arguments.bank, repeats=arguments.repeats)
        sys.stdout.write(f"| {name} | {statistics.median(ratios):.0f} | {min(ratios):.0f} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
