"""What labels of a person are worth, by how units are chosen for them: `python -m benchmarks.active_learning`.

The person is simulated: she knows the truth, and is wrong about some units. Takes recordings and sortings that
`python -m benchmarks` or `python -m benchmarks.curation_trials` has made and left; the units of all of them together
stand for one large sorting.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.curation_scores import binary_scores
from benchmarks.curation_units import collect_units, find_datasets
from benchmarks.peers import ORACLES
from benchmarks.plots import PALETTE, open_frame, save_figure
from benchmarks.worker import SPIKES_FILE
from spikeinterface_simsort.cli_common import format_table
from spikeinterface_simsort.curation.active import ActiveLearner
from spikeinterface_simsort.curation.metrics import metric_columns
from spikeinterface_simsort.curation.models import CLASSES, classify
from spikeinterface_simsort.curation.queries import STRATEGIES, Strategy

logger = logging.getLogger(__name__)

# Of the units that are labelled, in per cent.
PERCENTAGES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0)
# Of the simulated people's labels, those that are wrong.
ERROR_RATES = (0.0, 0.05, 0.15)
# What labels start from: the bundled classifier, or nothing.
PRIORS = ("bundled", "none")
# A person's labels are learnt from one by one; from here on in steps, which changes little and is much faster.
_SINGLY_UNTIL, _STEP = 5.0, 0.5
# The aim: so many labels, chosen well, are worth so many that are not chosen.
FEW, MANY = 3.0, 15.0
_COLOURS = dict(zip(STRATEGIES, ("0.45", PALETTE[0], PALETTE[1], "#D55E00"), strict=True))
_NAMES = {"random": "random", "cal": "CAL (boundary)", "dal": "DAL (diversity)", "dcal": "DCAL (both)"}


def simulate(
    units: pd.DataFrame, *, prior: np.ndarray, strategy: Strategy, error_rate: float, seed: int
) -> pd.DataFrame:
    """Let a simulated person label half of the units, and score what is known on the way.

    Parameters
    ----------
    units : pandas.DataFrame
        Of `benchmarks.curation_units.collect_units`.
    prior : np.ndarray, float [num_units]
        Probability of being good that labels start from.
    strategy : {"random", "cal", "dal", "dcal"}
        How units are chosen.
    error_rate : float
        Share of the labels that are wrong.
    seed : int
        Of choices and errors.

    Returns
    -------
    pandas.DataFrame
        A row for each of `PERCENTAGES`: ``percentage``, ``num_labelled``, ``may_stop``; of all units, with the person's
        labels where there are some and predictions of the others, ``balanced_accuracy``, ``true_positive_rate`` and
        ``true_negative_rate``; and ``predicted_balanced_accuracy`` of predictions alone.
    """
    good = (units["label"] == CLASSES[0]).to_numpy()
    wrong = np.random.default_rng(seed).random(len(good)) < error_rate
    said = good ^ wrong
    learner = ActiveLearner(
        unit_ids=range(len(units)), metrics=units[metric_columns()], prior=prior, strategy=strategy, seed=1000 * seed
    )
    labels: dict[Any, bool | None] = {}
    rows = []
    for percentage in PERCENTAGES:
        target = round(percentage / 100.0 * len(units))
        while len(labels) < target:
            step = 1 if len(labels) < _SINGLY_UNTIL / 100.0 * len(units) else round(_STEP / 100.0 * len(units))
            chosen: list[Any] = learner.query(min(max(step, 1), target - len(labels)))
            labels |= {index: bool(said[index]) for index in chosen}
            learner.set_labels(labels)
        predicted = learner.predicted_good
        known = predicted.copy()
        known[list(labels)] = [bool(label) for label in labels.values()]
        scores = binary_scores(good, known)
        rows.append(
            {
                "percentage": percentage,
                "num_labelled": len(labels),
                "may_stop": learner.progress().may_stop,
                "balanced_accuracy": scores["balanced_accuracy"],
                "true_positive_rate": scores["sensitivity"],
                "true_negative_rate": scores["specificity"],
                "predicted_balanced_accuracy": binary_scores(good, predicted)["balanced_accuracy"],
            }
        )
    return pd.DataFrame(rows)


def compare(
    units: pd.DataFrame, *, num_seeds: int, priors: Sequence[str] = PRIORS, error_rates: Sequence[float] = ERROR_RATES
) -> pd.DataFrame:
    """Simulate every kind of person with every strategy.

    Parameters
    ----------
    units : pandas.DataFrame
        Of `benchmarks.curation_units.collect_units`.
    num_seeds : int
        Repetitions.
    priors : sequence of {"bundled", "none"}
        What labels start from.
    error_rates : sequence of float
        Share of the labels that are wrong.

    Returns
    -------
    pandas.DataFrame
        ``prior``, ``error_rate``, ``strategy``, ``seed``, and the columns of `simulate`.
    """
    tables = []
    for prior in priors:
        known = classify(units)[CLASSES[0]].to_numpy() if prior == PRIORS[0] else np.full(len(units), 0.5)
        for error_rate in error_rates:
            for strategy in STRATEGIES:
                for seed in range(num_seeds):
                    table = simulate(units, prior=known, strategy=strategy, error_rate=error_rate, seed=seed)
                    table.insert(0, "prior", prior)
                    table.insert(1, "error_rate", error_rate)
                    table.insert(2, "strategy", strategy)
                    table.insert(3, "seed", seed)
                    tables.append(table)
                logger.info("%s, %g wrong, %s", prior, error_rate, strategy)
    return pd.concat(tables, ignore_index=True)


def labels_needed(results: pd.DataFrame, *, score: str = "balanced_accuracy") -> pd.DataFrame:
    """Say with how few labels each strategy is as good as random choice with `MANY` per cent.

    Parameters
    ----------
    results : pandas.DataFrame
        Of `compare`.
    score : str
        Column.

    Returns
    -------
    pandas.DataFrame
        A row a prior, error rate and strategy: ``unlabelled`` (score without labels), ``few`` and ``many`` (with `FEW`
        and `MANY` per cent), ``random_many`` (random choice with `MANY`), and ``needed``: the smallest of `PERCENTAGES`
        at which the mean over seeds is no less than that; NaN if it never is.
    """
    means = results.groupby(["prior", "error_rate", "strategy", "percentage"])[score].mean()
    rows = []
    for prior, error_rate, strategy in dict.fromkeys(index[:3] for index in means.index):
        curve = means.loc[(prior, error_rate, strategy)]
        goal = means.loc[(prior, error_rate, "random", MANY)]
        reached = curve.index[curve >= goal]
        rows.append(
            {
                "prior": prior,
                "error_rate": error_rate,
                "strategy": strategy,
                "unlabelled": curve[0.0],
                "few": curve[FEW],
                "many": curve[MANY],
                "random_many": goal,
                "needed": reached[0] if len(reached) else np.nan,
            }
        )
    return pd.DataFrame(rows)


def draw(results: pd.DataFrame, path: Path, *, prior: str = PRIORS[0]) -> None:
    """Draw scores against the share that is labelled, a column an error rate.

    Parameters
    ----------
    results : pandas.DataFrame
        Of `compare`.
    path : Path
        Picture to write.
    prior : {"bundled", "none"}
        What labels start from.
    """
    part = results[results["prior"] == prior]
    rates = sorted(part["error_rate"].unique())
    figure = Figure(figsize=(3.9 * len(rates), 6.6), layout="constrained")
    panels = figure.subplots(2, len(rates), sharex=True, sharey="row", squeeze=False)
    for column, rate in enumerate(rates):
        top, bottom = panels[:, column]
        for strategy in STRATEGIES:
            table = part[(part["error_rate"] == rate) & (part["strategy"] == strategy) & (part["percentage"] > 0)]
            curves = table.groupby("percentage")
            for axes, score, style in (
                (top, "balanced_accuracy", "-"),
                (bottom, "true_positive_rate", "-"),
                (bottom, "true_negative_rate", "--"),
            ):
                mean, error = curves[score].mean(), curves[score].sem()
                colour = _COLOURS[strategy]
                axes.plot(mean.index, mean, style, color=colour, linewidth=2.0 if strategy == "dcal" else 1.3)
                axes.fill_between(mean.index, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
        of_rate = part[part["error_rate"] == rate]
        top.axhline(of_rate.loc[of_rate["percentage"] == 0, "balanced_accuracy"].mean(), color="0.7", linestyle=":")
        title = "a person who is never wrong" if rate == 0 else f"{100 * rate:g} % of the labels are wrong"
        top.set_title(title, size=10)
        bottom.set_xlabel("units labelled (%)")
        bottom.set_xscale("log")
        bottom.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 3, 5, 10, 15, 30, 50]))
        bottom.xaxis.set_minor_locator(NullLocator())
        bottom.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for axes in (top, bottom):
            axes.grid(color="0.93")
            open_frame(axes)
    panels[0, 0].set_ylabel("balanced accuracy")
    panels[1, 0].set_ylabel("true positive and true negative rate")
    lines = [Line2D([], [], color=_COLOURS[strategy]) for strategy in STRATEGIES]
    start = "bundled classifier" if prior == PRIORS[0] else "without labels"
    panels[0, 0].legend(
        [*lines, Line2D([], [], color="0.7", linestyle=":")],
        [*(_NAMES[strategy] for strategy in STRATEGIES), start],
        fontsize=8,
        frameon=False,
    )
    panels[1, 0].legend(
        [Line2D([], [], color="0.2"), Line2D([], [], color="0.2", linestyle="--")],
        ["good units called good", "others called so"],
        fontsize=8,
        frameon=False,
    )
    save_figure(figure, path, dpi=130)


def main(argv: list[str] | None = None) -> int:
    """Simulate, print how many labels are needed, and write a row a share, and a picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.active_learning", description=__doc__)
    parser.add_argument(
        "--source",
        metavar=("DATA", "RUNS"),
        nargs=2,
        type=Path,
        action="append",
        required=True,
        help="folders of FAMILY/NAME recordings with their truth, and of FAMILY/NAME/SORTER sortings; may be repeated",
    )
    parser.add_argument("--parts", type=Path, required=True, help="folder in which measured sortings are kept")
    parser.add_argument("--families", nargs="+", help="only these kinds of recordings (all)")
    parser.add_argument("--seeds", type=int, default=10, help="repetitions (%(default)s)")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    parser.add_argument("--figure", type=Path, help="picture to write")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    tables = []
    for data, runs in arguments.source:
        # Oracles know the truth: nobody curates what they find.
        sorters = {path.parent.name for path in runs.glob(f"*/*/*/{SPIKES_FILE}")} - {*ORACLES}
        datasets = find_datasets(data, families=arguments.families)
        tables.append(collect_units(datasets, sorted(sorters), runs=runs, parts=arguments.parts))
    units = pd.concat([table for table in tables if len(table)] or [pd.DataFrame()], ignore_index=True)
    if not len(units):
        parser.error("there are no sortings of these recordings")
    counts = units.groupby("family")["label"].value_counts().unstack(fill_value=0)
    sys.stdout.write(f"{len(units)} units\n{counts.to_string()}\n\n")
    results = compare(units, num_seeds=arguments.seeds)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        results.to_csv(arguments.output, index=False, float_format="%.4f")
    if arguments.figure:
        draw(results, arguments.figure)
    for score in ("balanced_accuracy", "predicted_balanced_accuracy"):
        needed = labels_needed(results, score=score)
        sys.stdout.write(f"{score}\n{format_table(list(needed.columns), needed.to_numpy().tolist())}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
