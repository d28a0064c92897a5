"""What training needs: scores against the number of neurons and trials, and with one choice changed at a time.

Every row is a short training of its own, from the same seed, scored on the same trials of layer-6 cells: the rows
compare with each other, not with the released weights, which trained for longer.
"""

from __future__ import annotations

import argparse
import copy
import csv
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import spikeinterface as si
import yaml

from benchmarks.layer6 import DELTA_MS, embedding_ari, save_trials, true_embeddings
from benchmarks.scores import detection_scores, unit_scores
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.pipeline import detect_and_embed, sort
from spikeinterface_simsort.preprocessing import preprocess
from spikeinterface_simsort.simulation.bank import load_bank
from spikeinterface_simsort.simulation.recipe import load_recipe
from spikeinterface_simsort.training.export import calibrated_embedder, export_weights
from spikeinterface_simsort.training.run import load_config, train
from spikeinterface_simsort.weights import load_weights, save_weights

logger = logging.getLogger(__name__)

PARTS = ("detector", "embedder")
SCORES = ("sorting", "detection", "ari")
# Of the validation cells, for the choice of a threshold.
_SCORED_TRIALS = 10
# Of the embedders here: a third of the released one's, which trains for longer.
_WIDTH = 256


@dataclass(frozen=True)
class Variant:
    """A training that differs from the default's in what it names.

    Attributes
    ----------
    config : mapping
        Values of the configuration; of a section, those that change.
    recipe : mapping
        Values of the recipe that trials are drawn from.
    params : mapping
        Parameters of the sorter.
    parts : tuple of str
        Networks that are trained; the others are the bundled ones.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = PARTS


def _at_rate(rate: float) -> Variant:
    samples = {"num_before": 28, "num_samples": 72, "window_samples": 2048}
    return Variant(
        config={
            "sampling_frequency": rate,
            "detector": {"kwargs": {name: round(count * rate / 20000.0) for name, count in samples.items()}},
            "embedder": {"kwargs": {"num_samples": round(2.4 * rate / 1000)}},
        }
    )


def _embedder(**changes: Any) -> Variant:
    return Variant(config={"embedder": changes}, parts=("embedder",))


STUDIES: dict[str, dict[str, Variant]] = {
    "scaling": {
        "all neurons, new trials": Variant(),
        "10 neurons": Variant(config={"num_cells": 10}),
        "40 neurons": Variant(config={"num_cells": 40}),
        "160 neurons": Variant(config={"num_cells": 160}),
        "10 trials": Variant(config={"num_trials": 10}),
        "40 trials": Variant(config={"num_trials": 40}),
        "160 trials": Variant(config={"num_trials": 160}),
    },
    "ablations": {
        "default": Variant(),
        "10 kHz": _at_rate(10000.0),
        "30 kHz": _at_rate(30000.0),
        "whitened": Variant(config={"whiten": True}, params={"whiten": True}),
        "SVD of rank 5": Variant(config={"embedder": {"kwargs": {"svd_rank": 5}}}),
        "white noise, no hash": Variant(recipe={"noise_exponent": 0, "noise_correlation": 0, "num_far": 0}),
        "no overlaps in training": Variant(config={"overlaps": False}),
        "spikes as slow as the cells'": Variant(recipe={"spike_speed": [1, 1]}),
    },
    # The embedder alone, beside the bundled detector.
    "embedders": {
        "prototypes (default)": _embedder(),
        "triplets": _embedder(loss="triplet"),
        "hard triplets": _embedder(loss="hard_triplet"),
        "NT-Xent": _embedder(loss="nt_xent"),
        "supervised contrastive": _embedder(loss="supervised_contrastive"),
        "8 dimensions": _embedder(kwargs={"embedding_dim": 8}),
        "48 dimensions": _embedder(kwargs={"embedding_dim": 48}),
        "width 768": _embedder(kwargs={"hidden_size": 768}),
    },
}


def make_config(variant: Variant, *, folder: Path, num_batches: int, seed: int) -> dict[str, Any]:
    """Write what a variant changes into the default configuration.

    Parameters
    ----------
    variant : Variant
        What changes.
    folder : Path
        Where a changed recipe is written to.
    num_batches : int
        Of either network.
    seed : int
        Of the training.

    Returns
    -------
    dict
    """
    config = _updated(load_config("default"), {"embedder": {"kwargs": {"hidden_size": _WIDTH}}})
    config = _updated(config, variant.config)
    config["seed"] = seed
    for part in PARTS:
        config[part] |= {"epochs": 2, "batches_per_epoch": num_batches // 2}
    config["detector"]["trials_per_batch"] = 2
    if variant.recipe:
        recipe = {**load_recipe(config["recipe"]).to_dict(), **variant.recipe}
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        config["recipe"] = str(path)
    return config


def _updated(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes put in, section by section."""
    result = copy.deepcopy(values)
    for name, change in changes.items():
        result[name] = _updated(result[name], change) if isinstance(change, Mapping) else change
    return result


def score(weights_folder: Path, *, trials: list[Path], params: Mapping[str, Any]) -> dict[str, list[float]]:
    """Sorting accuracy, detection accuracy and ARI of each trial.

    Parameters
    ----------
    weights_folder : Path
        Of the networks.
    trials : list of Path
        As `save_trial` wrote them.
    params : mapping
        Of the sorter.

    Returns
    -------
    dict
        Keys as `SCORES`: a score a trial.
    """
    weights = load_weights(weights_folder)
    resolved = SimSortParams(weights=str(weights_folder), job_kwargs={"progress_bar": False}, **params).resolve()
    scores: dict[str, list[float]] = {name: [] for name in SCORES}
    for trial in trials:
        recording, truth = si.load(trial / "recording"), si.load(trial / "sorting")
        units = unit_scores(truth, sort(recording, params=resolved), delta_ms=DELTA_MS)
        peaks, _, _ = detect_and_embed(preprocess(recording, params=resolved), weights=weights, params=resolved)
        detection = detection_scores(
            peaks["sample_index"],
            truth.to_spike_vector()["sample_index"],
            delta_frames=int(DELTA_MS * recording.get_sampling_frequency() / 1000),
        )
        _, embedding, labels = true_embeddings(recording, truth, weights=weights, params=resolved)
        scores["sorting"].append(float(units["accuracy"].mean()))
        scores["detection"].append(detection["accuracy"])
        scores["ari"].append(embedding_ari(embedding, labels))
    return scores


def compare(scores: Mapping[str, Mapping[str, list[float]]]) -> pd.DataFrame:
    """Compare variants with the first one, trial by trial.

    Parameters
    ----------
    scores : mapping of mapping
        Of each variant, as `score` gives them.

    Returns
    -------
    pandas.DataFrame
        A row a variant; of each score the mean, how far it is ahead of the first variant's, and the standard error of
        that.
    """
    first = next(iter(scores.values()))
    rows = []
    for variant, of_variant in scores.items():
        row: dict[str, object] = {"variant": variant}
        for name in SCORES:
            ahead = np.array(of_variant[name]) - np.array(first[name])
            sem = ahead.std(ddof=1) / np.sqrt(len(ahead)) if len(ahead) > 1 else np.nan
            row |= {name: np.mean(of_variant[name]), f"{name}_ahead": ahead.mean(), f"{name}_ahead_sem": sem}
        rows.append(row)
    return pd.DataFrame(rows).set_index("variant")


def run(
    study: str,
    *,
    bank: Path,
    test_bank: Path,
    output: Path,
    num_batches: int,
    num_trials: int,
    seed: int = 0,
    only: list[str] | None = None,
) -> pd.DataFrame:
    """Train and score every variant of a study; those scored already are kept.

    Parameters
    ----------
    study : str
        One of `STUDIES`.
    bank : Path
        Neuron bank to train on.
    test_bank : Path
        Neuron bank with cells of layer 6.
    output : Path
        Folder for runs and scores.
    num_batches : int
        Of either network.
    num_trials : int
        To score on.
    seed : int
        Of the trainings.
    only : list of str, optional
        Names of variants; default all.

    Returns
    -------
    pandas.DataFrame
        See `compare`.
    """
    trials = save_trials(test_bank, output / "trials", num_trials=num_trials)
    scores = {}
    for name, variant in STUDIES[study].items():
        if only is not None and name not in only:
            continue
        # The default is the same in every study: it is trained once.
        key = "default" if variant == Variant() else f"{study} {name}"
        folder = output / key.replace(" ", "_").replace(",", "").replace("'", "")
        path = folder / "scores.yaml"
        if not path.exists():
            config = make_config(variant, folder=folder, num_batches=num_batches, seed=seed)
            weights = _train_variant(variant, config=config, bank=bank, folder=folder)
            path.write_text(yaml.safe_dump(score(weights, trials=trials, params=variant.params)), encoding="utf-8")
        scores[name] = yaml.safe_load(path.read_text(encoding="utf-8"))
        logger.info("%s: %s", name, {score: round(float(np.mean(scores[name][score])), 3) for score in SCORES})
    return compare(scores)


def _train_variant(variant: Variant, *, config: dict[str, Any], bank: Path, folder: Path) -> Path:
    """Train what a variant trains, and write its weights."""
    checkpoints = {
        part: train(part, bank=bank, config=config, output=folder / part, num_threads=1, progress_bar=False)
        for part in variant.parts
    }
    if variant.parts == PARTS:
        return export_weights(
            folder / "weights",
            detector_checkpoint=checkpoints["detector"],
            embedder_checkpoint=checkpoints["embedder"],
            bank=bank,
            config=config,
            num_scored=_SCORED_TRIALS,
            overwrite=True,
        )
    bundled = load_weights()
    embedder = calibrated_embedder(checkpoints["embedder"], config=config, bank=bank)
    weights_config = {key: value for key, value in bundled.config.items() if key not in ("format_version", "sha256")}
    weights_config["embedder"] = {**weights_config["embedder"], "kwargs": config["embedder"]["kwargs"]}
    return save_weights(
        folder / "weights",
        detector=bundled.detector,
        embedder=embedder.network,
        config=weights_config,
        card="# Of a study\n",
        overwrite=True,
    )


def draw_scaling(table: pd.DataFrame, path: Path) -> None:
    """Draw scores against the number of neurons and of trials; bars are errors of the difference to the largest.

    Parameters
    ----------
    table : pandas.DataFrame
        Of the study ``scaling``, with the columns ``num_neurons`` and ``num_trials``.
    path : Path
        Picture to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    for axes, (what, label) in zip(
        figure.subplots(1, 2, sharey=True),
        (("num_neurons", "training neurons"), ("num_trials", "training trials")),
        strict=True,
    ):
        largest = table[["num_neurons", "num_trials"]].max()
        other = "num_trials" if what == "num_neurons" else "num_neurons"
        rows = table[table[other] == largest[other]].sort_values(what)
        for name, text in zip(SCORES, ("sorting accuracy", "detection accuracy", "ARI of embeddings"), strict=True):
            axes.errorbar(rows[what], rows[name], rows[f"{name}_ahead_sem"], marker="o", capsize=2, label=text)
        axes.set(xscale="log", xlabel=label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("score on layer-6 trials")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def _cell(row: pd.Series, score: str) -> str:
    return f"{row[score]:.3f} ({row[f'{score}_ahead']:+.3f} ± {row[f'{score}_ahead_sem']:.3f})"


def main(argv: list[str] | None = None) -> int:
    """Run a study, print it as a Markdown table and write it as CSV."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_studies", description=__doc__)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--bank", type=Path, required=True, help="neuron bank to train on")
    parser.add_argument("--test-bank", type=Path, required=True, help="neuron bank with layer-6 cells")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the trainings; what is done is kept")
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--figure", type=Path, help="picture to write (scaling)")
    parser.add_argument("--num-batches", type=int, default=200, help="of either network (%(default)s)")
    parser.add_argument("--num-trials", type=int, default=6, help="to score on (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings (%(default)s)")
    parser.add_argument("--only", nargs="+", help="variants to run")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    table = run(
        arguments.study,
        bank=arguments.bank,
        test_bank=arguments.test_bank,
        output=arguments.runs,
        num_batches=arguments.num_batches,
        num_trials=arguments.num_trials,
        seed=arguments.seed,
        only=arguments.only,
    )
    if arguments.study == "scaling":
        config = load_config("default")
        exclude = ("L6", *config["validation_cells"])
        num_neurons = len(load_bank(arguments.bank, exclude=exclude))
        trials_seen = arguments.num_batches * config["embedder"]["trials_per_batch"]
        variants = [STUDIES["scaling"][name].config for name in table.index]
        table["num_neurons"] = [min(variant.get("num_cells", num_neurons), num_neurons) for variant in variants]
        table["num_trials"] = [min(variant.get("num_trials", trials_seen), trials_seen) for variant in variants]
        if arguments.figure:
            draw_scaling(table, arguments.figure)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, float_format="%.4f", quoting=csv.QUOTE_MINIMAL)
    lines = ["| variant | sorting accuracy | detection accuracy | ARI |", "| --- | --- | --- | --- |"]
    for name, row in table.iterrows():
        lines.append(f"| {name} | " + " | ".join(_cell(row, score) for score in SCORES) + " |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
