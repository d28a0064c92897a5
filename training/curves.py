"""Loss curves of a training run, out of the logs of all its parts: a table and a picture."""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = ("epoch", "train_loss", "val_loss")


def read_losses(logs: Path) -> list[dict[str, float]]:
    """Losses of each epoch, out of Lightning's CSV logs.

    Parameters
    ----------
    logs : Path
        Folder with one folder ``version_N`` for each time that the run was started.

    Returns
    -------
    list of dict
        Keys as `COLUMNS`, by epoch; where a run was stopped within an epoch, what came last counts.
    """
    epochs: dict[int, dict[str, float]] = {}
    for path in sorted(logs.glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1])):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values = {name: float(row[name]) for name in COLUMNS[1:] if row.get(name)}
                epochs.setdefault(int(row["epoch"]), {"epoch": float(row["epoch"])}).update(values)
    return [epochs[epoch] for epoch in sorted(epochs) if epochs[epoch].keys() >= set(COLUMNS)]


def write_loss_curves(output: Path) -> list[dict[str, float]]:
    """Write ``loss.csv`` and ``loss.png`` into the folder of a run.

    Parameters
    ----------
    output : Path
        Folder that `run.train` was given.

    Returns
    -------
    list of dict
        See `read_losses`.
    """
    losses = read_losses(output / "logs")
    if not losses:
        return losses
    with (output / "loss.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([int(row["epoch"]), f"{row['train_loss']:.6f}", f"{row['val_loss']:.6f}"] for row in losses)

    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    epoch = [row["epoch"] + 1 for row in losses]
    for name, label in (("train_loss", "training cells"), ("val_loss", "cells held out")):
        axes.plot(epoch, [row[name] for row in losses], label=label, marker="." if len(losses) < 3 else None)
    axes.set(xlabel="epoch", ylabel="loss", title=output.name, yscale="log")
    # Losses are seldom powers of ten.
    axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 3.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    figure.savefig(output / "loss.png", dpi=150)
    return losses
