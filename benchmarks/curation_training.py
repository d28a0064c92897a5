"""Train the classifier of units on composed trials, and write its card: `python -m benchmarks.curation_training`.

Trials and sortings come from `benchmarks.curation_trials`; what each unit is, is measured; nobody labels by hand.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import skops.io
from spikeinterface.curation import train_model
from spikeinterface.metrics import ComputeQualityMetrics, ComputeTemplateMetrics

from benchmarks.curation_scores import binary_scores, calibration_error
from benchmarks.curation_trials import PARTS, SORTERS, VALIDATION_CELLS
from benchmarks.curation_units import NOISE_SHARE, SINGLE_ACCURACY, collect_units, find_datasets
from spikeinterface_simsort.curation.metrics import OWN_METRICS, QUALITY_METRICS, TEMPLATE_METRICS, metric_columns
from spikeinterface_simsort.curation.models import BUNDLED_MODEL, CLASSES, classify

logger = logging.getLogger(__name__)

# A classifier must not depend on the unit of the traces, on how long the recording is, or on how many spikes there are.
NOT_FEATURES = (
    "num_spikes",
    "presence_ratio",
    "isi_violations_count",
    "rp_violations",
    "amplitude_median",
    "repolarization_slope",
    "recovery_slope",
)
MODEL, INFO, CARD = "best_model.skops", "model_info.json", "README.md"
# Types of trees that skops does not trust by itself, as it cannot tell whether their numbers make sense.
TRUSTED = ["numpy.dtype", "sklearn.tree._tree.Tree"]
# Chosen on trials of the validation cells and on recordings of seeds that the benchmark does not have. SpikeInterface
# searches: with one value each, it takes these.
SETTINGS = {
    "n_estimators": [100],
    "max_depth": [3],
    "learning_rate": [0.06],
    "subsample": [0.6],
    "min_samples_leaf": [10],
    "max_features": [0.3],
}
# Of the units that it learns from: sorters differ in how many they find. Of the validation trials about as many are.
GOOD_SHARE = 0.5


def features() -> list[str]:
    """Columns that the classifier looks at."""
    return [name for name in metric_columns() if name not in NOT_FEATURES]


def balance(units: pd.DataFrame, *, good_share: float = GOOD_SHARE, seed: int = 0) -> pd.DataFrame:
    """Repeat good units, or the others, until so many are good.

    Parameters
    ----------
    units : pandas.DataFrame
        See `benchmarks.curation_units.labelled_units`; with some of either.
    good_share : float
        Between 0 and 1.
    seed : int
        Which are repeated.

    Returns
    -------
    pandas.DataFrame
        All units, and some of them again.
    """
    good = units["label"] == "sua"
    missing = round(good_share / (1 - good_share) * (~good).sum()) - good.sum()
    if missing >= 0:
        again = units[good].sample(missing, replace=True, random_state=seed)
    else:
        more = round((1 - good_share) / good_share * good.sum()) - (~good).sum()
        again = units[~good].sample(more, replace=True, random_state=seed)
    return pd.concat([units, again], ignore_index=True)


def train(units: pd.DataFrame, *, folder: Path, seed: int = 0) -> None:
    """Train with SpikeInterface's `train_model`, and keep the model and its description.

    Parameters
    ----------
    units : pandas.DataFrame
        See `benchmarks.curation_units.labelled_units`; ``label`` is learnt.
    folder : Path
        For `MODEL` and `INFO`.
    seed : int
        Of the trees.
    """
    units = balance(units, seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "metrics.csv"
        units[features()].to_csv(table)
        train_model(
            mode="csv",
            labels=[units["label"].tolist()],
            metrics_paths=[str(table)],
            folder=Path(scratch) / "model",
            metric_names=features(),
            imputation_strategies=["median"],
            scaling_techniques=["standard_scaler"],
            classifiers={"GradientBoostingClassifier": SETTINGS},
            test_size=0.05,
            seed=seed,
            search_kwargs={"cv": 2, "n_iter": 1, "random_state": seed},
            verbose=False,
            n_jobs=1,
        )
        folder.mkdir(parents=True, exist_ok=True)
        compress(Path(scratch) / "model" / MODEL, folder / MODEL)
        info = json.loads((Path(scratch) / "model" / INFO).read_text(encoding="utf-8"))
    # From tables SpikeInterface cannot tell with which parameters metrics were computed: with its own.
    info["metric_params"] = {
        f"{name}_metric_params": {
            "metric_names": list(wanted),
            "metric_params": {metric: extension.get_default_metric_params()[metric] for metric in wanted},
        }
        for name, extension, wanted in (
            ("quality", ComputeQualityMetrics, QUALITY_METRICS),
            ("template", ComputeTemplateMetrics, TEMPLATE_METRICS),
        )
    }
    info["requirements"]["skops"] = version("skops")
    (folder / INFO).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def compress(source: Path, target: Path) -> None:
    """Write a model of trees a tenth as large: compressed, and without the state of the trees' random generator."""
    pipeline = skops.io.load(source, trusted=TRUSTED)
    for tree in pipeline[-1].estimators_.ravel():
        # They share one, of which each keeps a copy.
        tree.random_state = None
    skops.io.dump(pipeline, target, compression=zipfile.ZIP_DEFLATED, compresslevel=9)


def card(units: pd.DataFrame, held_out: pd.DataFrame, *, folder: Path) -> str:
    """Say what the model is, what it learnt from, and how good it is.

    Parameters
    ----------
    units, held_out : pandas.DataFrame
        Of training and of validation cells.
    folder : Path
        Of the model.

    Returns
    -------
    str
        Markdown with the hub's front matter.
    """
    probability = classify(held_out, model=folder)["sua"].to_numpy()
    good = (held_out["label"] == "sua").to_numpy()
    scores = binary_scores(good, probability >= 0.5, probability)
    others = [
        f"| balanced accuracy of {name} | {binary_scores(good, held_out[column] == 'good')['balanced_accuracy']:.2f} |"
        for name, column in (("Bombcell", "bombcell"), ("thresholds", "thresholds"))
    ]
    counts = units["label"].value_counts().to_dict()
    requirements = json.loads((folder / INFO).read_text(encoding="utf-8"))["requirements"]
    values = {
        "num_features": len(features()),
        "num_own": len(OWN_METRICS),
        "num_units": len(units),
        "counts": ", ".join(f"{counts.get(name, 0)} {name}" for name in CLASSES),
        "num_trials": units.groupby(["family", "dataset"]).ngroups,
        "sorters": ", ".join(sorted(set(units["sorter"]))),
        "held_out_cells": ", ".join(VALIDATION_CELLS),
        "left_out": ", ".join(NOT_FEATURES),
        "versions": ", ".join(f"{name} {number}" for name, number in sorted(requirements.items())),
        "num_held_out": len(held_out),
        "num_good": int(good.sum()),
        "calibration_error": calibration_error(good, probability),
        "others": "\n".join(others),
        **{f"score_{name}": value for name, value in scores.items()},
    }
    return _CARD.format(single=SINGLE_ACCURACY, noise=NOISE_SHARE, good_share=GOOD_SHARE, **values)


_CARD = """\
---
library_name: spikeinterface
license: cc-by-nc-sa-4.0
tags:
- spike-sorting
- tabular-classification
---
# simsort-units

Tells of sorted units on tetrodes whether they are single, well-sorted neurons (`sua`), several neurons or a part of one
(`mua`), or `noise`, from {num_features} quality and template metrics, {num_own} of them of our own. `simsort curate`
uses it. Its format is that of UnitRefine's models: `spikeinterface.curation.model_based_label_units` does, too, with
`trusted=["numpy.dtype", "sklearn.tree._tree.Tree"]`, on an analyzer that has the metrics of
`spikeinterface_simsort.curation.metrics.compute_metrics`.

## Training
{num_units} units ({counts}) of {num_trials} composed trials, found by
{sorters}.
The trials are made of simulated cells of layers 1 to 5, but for the ME-types {held_out_cells}, and differ in their
number of neurons, rates, noise, hash, drift, electrodes and length (`benchmarks/curation_trials.py`).

Nobody labelled. A unit is `sua` whose accuracy against a true neuron is {single:g} or more (matches within 1 ms),
`noise` where less than {noise:.0%} of its spikes are within 0.4 ms of any true spike, else `mua`.

Trained by SpikeInterface's `train_model`: medians in place of what is not known, standard scaling, gradient-boosted
trees. Good units were repeated until they were {good_share:.0%} of all, as sorters differ in how many they find.
Settings and share were chosen on the trials below and on recordings of other kinds (not those of `docs/curation.md`).
Trained with {versions}.

So that nothing depends on gains or on how long a recording is, these values are not looked at:
{left_out}.

## Scores
On {num_held_out} units ({num_good} good) of trials of the held-out ME-types, good (`sua`) against not good:

| | |
| --- | --- |
| balanced accuracy at a probability of 0.5 | {score_balanced_accuracy:.2f} |
| good units found, others rejected | {score_sensitivity:.2f}, {score_specificity:.2f} |
| area under the ROC | {score_auc:.2f} |
| calibration error | {calibration_error:.2f} |
{others}

On recordings of other kinds: `docs/curation.md` of the project, by `python -m benchmarks.curation`.

## Limits
It has seen tetrodes of 45 to 90 s only, and no person's judgement. What a unit misses it knows from 40 s of the traces,
by the mean waveform of the unit's own spikes: a neuron's spikes that look otherwise are not looked for.

## Licence
The cell models are CC BY-NC-SA 4.0 (NMC portal, Markram et al. 2015); this model was derived from simulations of them
and is shared alike. The code of the package is BSD-3-Clause.
"""


def main(argv: list[str] | None = None) -> int:
    """Measure the units, train, and write model, description and card."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curation_training", description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of benchmarks.curation_trials")
    parser.add_argument("--output", type=Path, default=BUNDLED_MODEL, help="folder for the model (the bundled one)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    training, validation = (
        collect_units(
            find_datasets(arguments.runs / "data", families=[part]),
            list(SORTERS),
            runs=arguments.runs / "runs",
            parts=arguments.runs / "parts",
        )
        for part in PARTS[:2]
    )
    train(training, folder=arguments.output, seed=arguments.seed)
    text = card(training, validation, folder=arguments.output)
    (arguments.output / CARD).write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
