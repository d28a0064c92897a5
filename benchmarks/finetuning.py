"""What adapting the networks to a recording does to its sorting: with a sorting of the first part, and without.

Recordings of layer-6 cells under drift, noise or both. The last 30 % of each is held out; the truth of that part scores
the sorter before and after. Table 4 of arXiv 2502.03198 asks the same of a network that is fine-tuned.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.simulation.bank import load_bank
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import make_trial
from spikeinterface_simsort.training.adaptation import adapt
from spikeinterface_simsort.training.finetuning import finetune
from spikeinterface_simsort.training.labelled_recording import label_parts
from spikeinterface_simsort.weights import load_weights

logger = logging.getLogger(__name__)

CONDITIONS = {
    "drift of 10 um": TrialConfig(duration_s=120.0, num_units=8, drift_um=10.0),
    "noise of 8 uV": TrialConfig(duration_s=120.0, num_units=8, noise_uv=8.0),
    "both": TrialConfig(duration_s=120.0, num_units=8, noise_uv=8.0, drift_um=10.0),
}
FIRST_SEED = 7000
SCORES = ("detection_accuracy", "ari", "sorting_accuracy")


def run(bank: Path, *, num_trials: int) -> pd.DataFrame:
    """Adapt to each recording both ways.

    Parameters
    ----------
    bank : Path
        Neuron bank with cells of layer 6.
    num_trials : int
        Recordings of each condition.

    Returns
    -------
    pandas.DataFrame
        A row a recording and way: the scores against the truth before and after, which networks were kept, seconds.
    """
    neurons = load_bank(bank, include=("L6",))
    params = SimSortParams(job_kwargs={"progress_bar": False}).resolve()
    released = load_weights()
    rows = []
    for condition, config in CONDITIONS.items():
        for seed in range(FIRST_SEED, FIRST_SEED + num_trials):
            recording, truth = make_trial(neurons, config=config, seed=seed)
            _, held_out = label_parts(recording, truth, weights=released, params=params)
            before = held_out.sort(released, params=params) | {"ari": held_out.ari(released.embedder)}
            for way in ("with a sorting", "without"):
                with tempfile.TemporaryDirectory() as folder:
                    start = time.perf_counter()
                    options = {"folder": Path(folder) / "weights", "params": params}
                    report = (
                        finetune(recording, truth, **options)
                        if way == "with a sorting"
                        else adapt(recording, **options)
                    )
                    seconds = time.perf_counter() - start
                    tuned = load_weights(report.folder)
                after = held_out.sort(tuned, params=params) | {"ari": held_out.ari(tuned.embedder)}
                rows.append(
                    {"condition": condition, "seed": seed, "way": way}
                    | {f"{name}_before": before[name] for name in SCORES}
                    | {f"{name}_after": after[name] for name in SCORES}
                    | {"kept": " ".join(role for role, kept in report.kept.items() if kept), "seconds": seconds}
                )
                logger.info("%s", rows[-1])
    return pd.DataFrame(rows)


def main(argv: list[str] | None = None) -> int:
    """Print means by condition and way, and write a row a recording and way as CSV."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetuning", description=__doc__)
    parser.add_argument("--bank", type=Path, required=True, help="neuron bank that holds layer-6 cells (names L6_...)")
    parser.add_argument("--num-trials", type=int, default=3, help="of each condition (%(default)s)")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    table = run(arguments.bank, num_trials=arguments.num_trials)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.output, index=False, float_format="%.4f")
    lines = ["| | condition | detection | ARI | sorting | s |", "| --- | --- | --- | --- | --- | --- |"]
    for (way, condition), rows in table.groupby(["way", "condition"], sort=False):
        cells = [f"{rows[f'{name}_before'].mean():.3f} → {rows[f'{name}_after'].mean():.3f}" for name in SCORES]
        lines.append(f"| {way} | {condition} | {' | '.join(cells)} | {rows['seconds'].mean():.0f} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
