"""Labels of units against the truth, on kinds of recordings that trained none: `python -m benchmarks.curation`.

Takes recordings and sortings that `python -m benchmarks` has made and left.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import roc_curve

from benchmarks.curation_scores import binary_scores, calibration, calibration_error
from benchmarks.curation_units import KEYS, collect_units, find_datasets
from benchmarks.peers import PEERS
from benchmarks.plots import open_frame, save_figure
from spikeinterface_simsort.cli_common import format_table
from spikeinterface_simsort.curation.labels import THRESHOLDS
from spikeinterface_simsort.curation.models import classify

# What a hard label is worth as a score: the order of its words.
_BOMBCELL = {"noise": 0.0, "non_soma": 1.0, "mua": 1.0, "good": 2.0}
METHODS = ("classifier", "bombcell", "thresholds")
_NAMES = {"classifier": "bundled classifier", "bombcell": "Bombcell", "thresholds": "thresholds"}
_COLOURS = {"classifier": "#C8102E", "bombcell": "#1F77B4", "thresholds": "#7F7F7F"}


def label(units: pd.DataFrame) -> pd.DataFrame:
    """Add what the bundled classifier says.

    Parameters
    ----------
    units : pandas.DataFrame
        See `benchmarks.curation_units.labelled_units`.

    Returns
    -------
    pandas.DataFrame
        ``good`` (truly), and for each of `METHODS` ``said_...`` (bool) and ``score_...`` (the larger, the surer). The
        score of thresholds is how many a unit keeps to.
    """
    probability = classify(units)["sua"]
    kept = [_keeps(units[name], bounds) for name, bounds in THRESHOLDS.items()]
    return units.assign(
        good=units["label"] == "sua",
        said_classifier=probability >= 0.5,
        score_classifier=probability,
        said_bombcell=units["bombcell"] == "good",
        score_bombcell=units["bombcell"].map(_BOMBCELL),
        said_thresholds=units["thresholds"] == "good",
        score_thresholds=np.sum(kept, axis=0),
    )


def _keeps(values: pd.Series, bounds: Mapping[str, float]) -> np.ndarray:
    low, high = bounds.get("greater", -np.inf), bounds.get("less", np.inf)
    return (values.isna() | values.between(low, high)).to_numpy(dtype=float)


def score(units: pd.DataFrame) -> pd.DataFrame:
    """Score the methods on all units, and on those of each family and of each sorter.

    Parameters
    ----------
    units : pandas.DataFrame
        Of `label`.

    Returns
    -------
    pandas.DataFrame
        A row a part and method: ``part``, ``name``, ``method``, what `binary_scores` tells and, for the classifier,
        ``calibration_error`` and ``brier``.
    """
    parts = [("all", "all", units)]
    parts += [(part, str(name), table) for part in ("family", "sorter") for name, table in units.groupby(part)]
    rows = []
    for part, name, table in parts:
        good = table["good"].to_numpy()
        for method in METHODS:
            row = binary_scores(good, table[f"said_{method}"].to_numpy(), table[f"score_{method}"].to_numpy())
            if method == "classifier":
                probability = table["score_classifier"].to_numpy()
                row["calibration_error"] = calibration_error(good, probability)
                row["brier"] = float(np.mean((probability - good) ** 2))
            rows.append({"part": part, "name": name, "method": method, **row})
    return pd.DataFrame(rows)


def draw(units: pd.DataFrame, scores: pd.DataFrame, path: Path) -> None:
    """Draw ROC curves, the calibration, and the balanced accuracy of each family.

    Parameters
    ----------
    units : pandas.DataFrame
        Of `label`.
    scores : pandas.DataFrame
        Of `score`.
    path : Path
        Picture to write.
    """
    figure = Figure(figsize=(12.5, 4.1), layout="constrained")
    roc, reliable, families = figure.subplots(1, 3, width_ratios=[1, 1, 1.5])
    good = units["good"].to_numpy()
    overall = scores[scores["part"] == "all"].set_index("method")
    for method in METHODS:
        false, true, _ = roc_curve(good, units[f"score_{method}"])
        roc.plot(false, true, color=_COLOURS[method], linewidth=2.0 if method == METHODS[0] else 1.3)
        row = overall.loc[method]
        roc.plot(1 - row["specificity"], row["sensitivity"], "o", color=_COLOURS[method])
    roc.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
    roc.set(xlabel="others labelled good", ylabel="good units labelled good", title="ROC (dots: the labels)")
    roc.set_aspect("equal")
    roc.legend(
        [Line2D([], [], color=_COLOURS[method]) for method in METHODS],
        [f"{_NAMES[method]}, area {overall.loc[method, 'auc']:.2f}" for method in METHODS],
        fontsize=8,
        frameon=False,
        loc="lower right",
    )
    bins = calibration(good, units["score_classifier"].to_numpy())
    reliable.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
    reliable.plot(bins["probability"], bins["share"], "o-", color=_COLOURS["classifier"], clip_on=False)
    for row in bins.itertuples():
        reliable.annotate(
            f"{row.num_units}",
            (row.probability, row.share),
            (4, -9),
            textcoords="offset points",
            fontsize=7,
            color="0.4",
        )
    reliable.set(xlabel="classifier's probability", ylabel="share of good units", title="Calibration (number of units)")
    reliable.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    of_families = scores[scores["part"] == "family"].pivot(index="name", columns="method", values="balanced_accuracy")
    places = np.arange(len(of_families))
    for number, method in enumerate(METHODS):
        families.bar(places + 0.27 * (number - 1), of_families[method] - 0.5, 0.25, 0.5, color=_COLOURS[method])
    families.set_xticks(places, [name.replace("_", "\n") for name in of_families.index], fontsize=8)
    families.axhline(0.85, color="0.6", linewidth=0.8, linestyle=":")
    families.set(ylim=(0.4, 1), ylabel="balanced accuracy", title="Kinds of recordings (0.5: chance)")
    for axes in (roc, reliable, families):
        axes.title.set_fontsize(10)
        open_frame(axes)
    save_figure(figure, path, dpi=130)


def main(argv: list[str] | None = None) -> int:
    """Print scores, and write the units, the scores and a picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curation", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of FAMILY/NAME recordings with their truth")
    parser.add_argument("--runs", type=Path, required=True, help="folder of FAMILY/NAME/SORTER sortings")
    parser.add_argument("--parts", type=Path, required=True, help="folder in which measured sortings are kept")
    parser.add_argument("--output", type=Path, help="folder for curation_units.csv and curation.csv")
    parser.add_argument("--figure", type=Path, help="picture to write")
    parser.add_argument("--sorters", nargs="+", metavar="SORTER", default=list(PEERS), help="whose units (all)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    units = collect_units(find_datasets(arguments.data), arguments.sorters, runs=arguments.runs, parts=arguments.parts)
    if not len(units):
        parser.error(f"there are no sortings of these recordings in {arguments.runs}")
    units = label(units)
    scores = score(units)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        columns = [*KEYS, "num_spikes", "accuracy", "true_share", "label", "bombcell", "thresholds", "score_classifier"]
        units[columns].to_csv(arguments.output / "curation_units.csv", index=False, float_format="%.4f")
        scores.to_csv(arguments.output / "curation.csv", index=False, float_format="%.4f")
    if arguments.figure:
        draw(units, scores, arguments.figure)
    for part in ("family", "sorter"):
        table = scores[scores["part"] == part].pivot(index="name", columns="method", values="balanced_accuracy")
        sys.stdout.write(format_table([part, *METHODS], table[list(METHODS)].reset_index().to_numpy().tolist()) + "\n")
    overall = scores[scores["part"] == "all"].drop(columns=["part", "name"])
    sys.stdout.write(format_table(list(overall.columns), overall.to_numpy().tolist()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
