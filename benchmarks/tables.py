"""Tables of the benchmark: CSV to compute with, Markdown to read."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon

from benchmarks.peers import ORACLES, PEERS

OURS = "simsort"
UNITS_FILE, RECORDINGS_FILE, MANIFEST_FILE, TABLES_FILE = "units.csv", "recordings.csv", "manifest.json", "tables.md"
# Versions that scores depend on.
_PACKAGES = ("spikeinterface", "numpy", "scipy", "scikit-learn", "torch", "numba", "MEArec")


def family_table(recordings: pd.DataFrame, *, score: str) -> pd.DataFrame:
    """Mean and standard error over recordings of a score, of each sorter on each family.

    Parameters
    ----------
    recordings : pandas.DataFrame
        See `benchmarks.score_runs.score_runs`.
    score : str
        Column.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``sorter`` and ``family``: ``mean``, ``sem``, ``num`` recordings, ``num_lost`` of them to failures
        and time-outs, which score 0.
    """
    ran = recordings[recordings["status"] != "missing"]
    groups = ran.groupby(["sorter", "family"], sort=False)
    return pd.DataFrame(
        {
            "mean": groups[score].mean(),
            "sem": groups[score].sem(),
            "num": groups[score].size(),
            "num_lost": groups["status"].agg(lambda status: int((status != "ok").sum())),
        }
    )


def paired_tests(recordings: pd.DataFrame, *, score: str = "accuracy_1.0ms") -> pd.DataFrame:
    """Compare this sorter with each other one, recording by recording.

    Parameters
    ----------
    recordings : pandas.DataFrame
        See `benchmarks.score_runs.score_runs`.
    score : str
        Column.

    Returns
    -------
    pandas.DataFrame
        ``family`` (``all`` for all of them), ``sorter``, ``num`` recordings of both, ``difference`` (mean of ours less
        theirs), ``sem`` of it, ``p`` of Wilcoxon's signed-rank test, two-sided; no p where there are under six pairs,
        which cannot fall below 0.05.
    """
    ran = recordings[recordings["status"] != "missing"]
    wide = ran.pivot(index=["family", "dataset"], columns="sorter", values=score)
    rows = []
    if OURS not in wide:
        return pd.DataFrame(rows)
    for sorter in [name for name in wide.columns if name != OURS]:
        both = (wide[OURS] - wide[sorter]).dropna()
        for family, difference in [*both.groupby(level="family"), ("all", both)]:
            p = wilcoxon(difference).pvalue if len(difference) >= 6 and difference.any() else np.nan
            mean, sem = difference.mean(), difference.sem()
            rows.append(
                {"family": family, "sorter": sorter, "num": len(difference), "difference": mean, "sem": sem, "p": p}
            )
    return pd.DataFrame(rows)


def ordered(sorters: Sequence[str]) -> list[str]:
    """Sorters in the order of the peers, oracles last."""
    order = [*PEERS, *ORACLES]
    return sorted(set(sorters), key=lambda name: (order.index(name) if name in order else len(order), name))


def markdown_table(table: pd.DataFrame, *, digits: int = 2) -> str:
    """A `family_table` with a row a sorter and a column a family.

    Parameters
    ----------
    table : pandas.DataFrame
        See `family_table`.
    digits : int
        Behind the point.

    Returns
    -------
    str
        The best sorter of each family in bold; oracles do not compete.
    """
    families = list(dict.fromkeys(table.index.get_level_values("family")))
    sorters = ordered(table.index.get_level_values("sorter"))
    best = {}
    for family in families:
        column = table.xs(family, level="family")["mean"].drop(list(ORACLES), errors="ignore")
        best[family] = column.round(digits).max() if len(column) else np.nan
    lines = ["| sorter | " + " | ".join(families) + " |", "| --- |" + " --- |" * len(families)]
    for sorter in sorters:
        cells = []
        for family in families:
            if (sorter, family) not in table.index:
                cells.append("–")
                continue
            entry = table.loc[(sorter, family)]
            text = f"{entry['mean']:.{digits}f}"
            if sorter not in ORACLES and round(entry["mean"], digits) == best[family]:
                text = f"**{text}**"
            if not np.isnan(entry["sem"]):
                text += f" ± {entry['sem']:.{digits}f}"
            if entry["num_lost"]:
                text += f" ({entry['num_lost']:.0f} of {entry['num']:.0f} failed)"
            cells.append(text)
        lines.append(f"| {sorter} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tests_markdown(tests: pd.DataFrame) -> str:
    """`paired_tests` over all families, as a Markdown table."""
    lines = ["| against | recordings | accuracy, ours less theirs | p |", "| --- | --- | --- | --- |"]
    for row in tests[tests["family"] == "all"].itertuples():
        p = "–" if np.isnan(row.p) else f"{row.p:.2g}"
        # Of one recording there is no standard error.
        error = "" if np.isnan(row.sem) else f" ± {row.sem:.3f}"
        lines.append(f"| {row.sorter} | {row.num} | {row.difference:+.3f}{error} | {p} |")
    return "\n".join(lines)


def manifest(recordings: pd.DataFrame, *, weights_sha256: str) -> dict[str, object]:
    """What the scores depend on: versions, recordings, machine.

    Parameters
    ----------
    recordings : pandas.DataFrame
        See `benchmarks.score_runs.score_runs`.
    weights_sha256 : str
        Of this sorter's weights.

    Returns
    -------
    dict
    """
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    ran = recordings[recordings["status"] == "ok"]
    missing = recordings[recordings["status"] == "missing"]
    datasets: Mapping[str, list[str]] = recordings.groupby("family", sort=False)["dataset"].unique().map(list).to_dict()
    return {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": _num_cores(),
        "versions": versions,
        "weights_sha256": weights_sha256,
        # More than one where some runs were made with another.
        "sorters": ran.groupby("sorter", sort=False)["sorter_version"].unique().map(", ".join).to_dict(),
        "missing": missing.groupby("sorter", sort=False)["message"].first().to_dict(),
        "datasets": datasets,
    }


def _num_cores() -> int:
    # Of those that this process may use, which are not all where a container is given a share.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_tables(units: pd.DataFrame, recordings: pd.DataFrame, *, folder: Path, weights_sha256: str) -> str:
    """Write scores as CSV, the manifest, and the tables as Markdown.

    Parameters
    ----------
    units, recordings : pandas.DataFrame
        See `benchmarks.score_runs.score_runs`.
    folder : Path
        To write to.
    weights_sha256 : str
        Of this sorter's weights.

    Returns
    -------
    str
        The Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    units.to_csv(folder / UNITS_FILE, index=False, float_format="%.4f")
    recordings.to_csv(folder / RECORDINGS_FILE, index=False, float_format="%.4f")
    tests = paired_tests(recordings)
    tests.to_csv(folder / "paired_tests.csv", index=False, float_format="%.4g")
    known = json.dumps(manifest(recordings, weights_sha256=weights_sha256), indent=1)
    (folder / MANIFEST_FILE).write_text(known + "\n", encoding="utf8")
    parts = []
    for title, score, digits in (
        ("Accuracy, spikes within 1.0 ms", "accuracy_1.0ms", 2),
        ("Accuracy, spikes within 0.4 ms", "accuracy_0.4ms", 2),
        ("Precision, spikes within 1.0 ms", "precision_1.0ms", 2),
        ("Recall, spikes within 1.0 ms", "recall_1.0ms", 2),
        ("Detection: accuracy of all spikes whatever their units, 1.0 ms", "detection_accuracy", 2),
        ("Units found", "units_found", 1),
        ("Seconds", "seconds", 1),
        ("Peak memory, MB", "peak_mb", 0),
    ):
        table = family_table(recordings, score=score)
        best = markdown_table(table, digits=digits)
        # The most units, seconds and bytes are no virtue.
        parts += [f"## {title}", best if score.endswith(("ms", "accuracy")) else best.replace("**", "")]
    parts += ["## Paired, all families", tests_markdown(tests)] if len(tests) else []
    text = "\n\n".join(parts) + "\n"
    (folder / TABLES_FILE).write_text(text, encoding="utf8")
    return text
