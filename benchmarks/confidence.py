"""What the predicted accuracy of a unit is worth: fitted on trials, compared with the truth on other recordings.

Trials of the cells that the networks were trained on are sorted and scored, the model is fitted to them and written to
the package. Trials of the validation cells, and recordings of other families, tell how far it can be trusted.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks.matching_ablation import gather
from benchmarks.parts import score_recordings
from benchmarks.plots import PALETTE, open_frame, save_figure
from spikeinterface_simsort._version import __version__
from spikeinterface_simsort.confidence import ASSET, FEATURES
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.recipe import load_recipe
from spikeinterface_simsort.simulation.trials import make_trial
from spikeinterface_simsort.training.confidence import fit_model, score_units
from spikeinterface_simsort.training.run import load_cells, load_config
from spikeinterface_simsort.weights import load_weights

RECIPE = "confidence"
TRAINING, VALIDATION, ALL = "training trials", "validation trials", "all families"
FIRST_SEEDS = {TRAINING: 30_000, VALIDATION: 40_000}
MATCHED, CLUSTERS = "matched", "clusters"
# Without matching, as in the preset `paper`, is what few ask for: it takes its share of the recordings.
EVERY = {MATCHED: 1, CLUSTERS: 4}
# A unit that is as accurate as this is a good one.
GOOD = 0.8
MAX_BINS, UNITS_PER_BIN = 10, 10
# Units of each recording that are made of two: for the fit, and to see what becomes of such.
NUM_MERGED = 2
MERGED = "two units made one"
SCORES = ("num_units", "accuracy", "predicted", "calibration_error", "mean_error", "pearson", "auc")


def trials(
    family: str, neurons: Sequence[NeuronCurrents], *, num_trials: int
) -> dict[tuple[str, str], Callable[[], tuple[BaseRecording, BaseSorting]]]:
    """Trials of the recipe `RECIPE`, to be made when their turn comes.

    Parameters
    ----------
    family : str
        Training or validation: seeds differ.
    neurons : sequence of NeuronCurrents
        Of which trials are composed.
    num_trials : int
        How many.

    Returns
    -------
    dict of (str, str) to callable
        By family and seed; see `benchmarks.parts.score_recordings`.
    """
    recipe = load_recipe(RECIPE)
    first = FIRST_SEEDS[family]
    return {
        (family, str(seed)): partial(make_trial, neurons, config=recipe.draw(seed), seed=seed)
        for seed in range(first, first + num_trials)
    }


def calibration(units: pd.DataFrame) -> pd.DataFrame:
    """Predicted and true accuracy in bins of equally many units, at most ten, of ten units at least.

    Parameters
    ----------
    units : pandas.DataFrame
        With ``predicted`` and ``accuracy``.

    Returns
    -------
    pandas.DataFrame
        A row a bin: ``num_units``, mean ``predicted`` and ``accuracy``, and the standard error ``sem`` of the latter.
    """
    num_bins = int(np.clip(len(units) // UNITS_PER_BIN, 1, MAX_BINS))
    order = np.argsort(units["predicted"].to_numpy(), kind="stable")
    bins = [units.iloc[chosen] for chosen in np.array_split(order, num_bins)]
    return pd.DataFrame(
        {
            "num_units": [len(part) for part in bins],
            "predicted": [part["predicted"].mean() for part in bins],
            "accuracy": [part["accuracy"].mean() for part in bins],
            "sem": [part["accuracy"].sem() for part in bins],
        }
    )


def scores(units: pd.DataFrame) -> dict[str, float]:
    """What predictions are worth.

    Parameters
    ----------
    units : pandas.DataFrame
        With ``predicted`` and ``accuracy``.

    Returns
    -------
    dict
        `SCORES`: number of units, their mean true and predicted accuracy, the expected calibration error (mean distance
        of both over the bins of `calibration`), the mean distance of both over units, their correlation, and the area
        under the ROC curve for an accuracy of at least `GOOD`; NaN where units do not differ.
    """
    curve, accuracy, predicted = calibration(units), units["accuracy"], units["predicted"]
    is_good = accuracy >= GOOD
    values = (
        len(units),
        accuracy.mean(),
        predicted.mean(),
        np.average((curve["predicted"] - curve["accuracy"]).abs(), weights=curve["num_units"]),
        (predicted - accuracy).abs().mean(),
        predicted.corr(accuracy),
        roc_auc_score(is_good, predicted) if is_good.nunique() > 1 else np.nan,
    )
    return dict(zip(SCORES, map(float, values), strict=True))


def summarise(units: pd.DataFrame) -> pd.DataFrame:
    """Scores of each family, of all that are no trials, and of units made of two that were not fitted.

    Parameters
    ----------
    units : pandas.DataFrame
        With ``way``, ``family``, ``is_merged``, ``predicted`` and ``accuracy``.

    Returns
    -------
    pandas.DataFrame
        A row a way and family (units made of two count as `MERGED`, and nowhere else): see `scores`.
    """
    rows = []
    for way, part in units.groupby("way", sort=False):
        found, merged = part[~part["is_merged"]], part[part["is_merged"] & (part["family"] != TRAINING)]
        families = dict(iter(found.groupby("family", sort=False)))
        families |= {ALL: found[~found["family"].isin(FIRST_SEEDS)], MERGED: merged}
        rows += [{"way": way, "family": name, **scores(table)} for name, table in families.items() if len(table)]
    return pd.DataFrame(rows).astype({"num_units": int})


def draw(units: pd.DataFrame, path: Path) -> None:
    """Draw the calibration curve: a panel for the validation trials, one for the other families.

    Small dots are units; large ones are means of bins, with the standard error of the true accuracy.

    Parameters
    ----------
    units : pandas.DataFrame
        As in `summarise`; of those matched.
    path : Path
        Picture to write.
    """
    panels = _judged(units)
    figure = Figure(figsize=(4.4 * len(panels), 4.7), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, table) in zip(row, panels.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.75", linewidth=1.0, zorder=1)
        for colour, (family, part) in zip(PALETTE, table.groupby("family"), strict=False):
            axes.scatter(part["predicted"], part["accuracy"], s=12, color=colour, alpha=0.5, linewidths=0, label=family)
        curve = calibration(table)
        axes.errorbar(
            curve["predicted"], curve["accuracy"], yerr=curve["sem"], fmt="o-", color="black", markersize=5, capsize=2.5
        )
        error = scores(table)["calibration_error"]
        axes.set_title(f"{title}: {len(table)} units, calibration error {error:.3f}", fontsize=9, loc="left")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="predicted accuracy")
        axes.set_ylabel("true accuracy (1.0 ms)")
        if table["family"].nunique() > 1:
            axes.legend(frameon=False, fontsize=7, loc="upper left", handletextpad=0.1)
        open_frame(axes)
    save_figure(figure, path, dpi=150)


def _judged(units: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Units found by matching in validation trials, and in all families that are no trials, where there are any."""
    matched = units[(units["way"] == MATCHED) & ~units["is_merged"]]
    others = matched[~matched["family"].isin(FIRST_SEEDS)]
    kinds = {VALIDATION: matched[matched["family"] == VALIDATION], ALL: others}
    return {kind: table for kind, table in kinds.items() if len(table)}


def main(argv: list[str] | None = None) -> int:
    """Score what has not been scored yet, fit, write the model to the package, and say what it is worth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.confidence", description=__doc__)
    parser.add_argument("--bank", type=Path, required=True, help="neuron bank with training and validation cells")
    parser.add_argument(
        "--datasets", type=Path, nargs="*", default=[], help="folders of FAMILY/NAME/{recording,sorting}"
    )
    parser.add_argument("--num-trials", type=int, default=120, help="that are fitted (%(default)s)")
    parser.add_argument("--num-validation", type=int, default=40, help="trials of validation cells (%(default)s)")
    parser.add_argument(
        "--parts",
        type=Path,
        default=Path("runs/benchmarks/confidence"),
        help="units of each recording, kept; remove it after a change of the sorter (%(default)s)",
    )
    parser.add_argument("--asset", type=Path, default=ASSET, help="file of the model to write (the package's)")
    parser.add_argument("--output", type=Path, required=True, help="folder for confidence.csv and confidence_curve.csv")
    parser.add_argument("--figure", type=Path, help="picture to write")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    weights, config = load_weights(), load_config("default")
    training_cells, validation_cells = load_cells(arguments.bank, config=config)
    recordings = {
        **trials(TRAINING, training_cells, num_trials=arguments.num_trials),
        **trials(VALIDATION, validation_cells, num_trials=arguments.num_validation),
        **gather(arguments.datasets),
    }
    tables = []
    for way, step in EVERY.items():
        params = replace(
            SimSortParams(job_kwargs={"n_jobs": 1, "progress_bar": False}), match_templates=way == MATCHED
        ).resolve()
        chosen = dict(list(recordings.items())[::step])
        score = partial(score_units, weights=weights, params=params, num_merged=NUM_MERGED)
        tables.append(score_recordings(chosen, score, parts=arguments.parts / way).assign(way=way))
    # Where no unit was found, columns have no type.
    units = pd.concat(tables, ignore_index=True).astype(
        {"is_merged": bool, **dict.fromkeys((*FEATURES, "accuracy"), "float64")}
    )
    fitted = units[units["family"] == TRAINING]
    model = fit_model(fitted[list(FEATURES)].to_numpy(), fitted["accuracy"].to_numpy())
    made = {"version": __version__, "recipe": RECIPE, "num_trials": arguments.num_trials, "num_units": len(fitted)}
    model.save(arguments.asset, made=made)
    units["predicted"] = model.predict(units[list(FEATURES)].to_numpy())
    summary = summarise(units)
    curve = pd.concat({kind: calibration(part) for kind, part in _judged(units).items()}, names=["recordings", None])
    arguments.output.mkdir(parents=True, exist_ok=True)
    summary.to_csv(arguments.output / "confidence.csv", index=False, float_format="%.4f")
    curve.reset_index("recordings").to_csv(arguments.output / "confidence_curve.csv", index=False, float_format="%.4f")
    if arguments.figure:
        draw(units, arguments.figure)
    sys.stdout.write(f"{summary.round(3).to_string(index=False)}\n\n{curve.round(3).to_string()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
