"""Accuracy of sorters under changed conditions, one quantity at a time: `python -m benchmarks.conditions`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import spikeinterface as si
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from spikeinterface.core import BaseRecording, BaseSorting
from spikeinterface.preprocessing import common_reference, scale, whiten

from benchmarks.catalogue import DESCRIPTION_FILE, Dataset, as_stored, find_or_save
from benchmarks.peers import PEERS
from benchmarks.plots import line_handles, line_style, open_frame, save_figure
from benchmarks.recordings import spike_band
from benchmarks.runs import TIMEOUT_S, add_run_arguments, run_all
from benchmarks.score_runs import score_runs
from benchmarks.scores import DELTAS_MS
from benchmarks.tables import OURS, family_table, ordered
from spikeinterface_simsort.simulation.bank import NeuronCurrents, load_bank
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import make_trial

logger = logging.getLogger(__name__)

# 60 s of 5 units at 30 kHz, 5 uV of noise, no drift.
STANDARD = TrialConfig()
# The condition of recordings in which nothing is changed: they belong to every curve.
UNCHANGED = "standard"
# No other benchmark composes from these.
FIRST_SEED = 7000
SORTERS = (OURS, "kilosort4")
SCORE = f"accuracy_{DELTAS_MS[0]}ms"
_STANDARD_COLOUR = "0.88"

TREATMENT, AS_IS = "treatment", "as is"
# What is often done to recordings before they come to a sorter, which does not know of it.
TREATMENTS: dict[str, Callable[[BaseRecording], BaseRecording]] = {
    AS_IS: lambda recording: recording,
    "x10, float32": lambda recording: scale(recording, gain=10.0, dtype="float32"),
    "band-passed": spike_band,
    "band-passed, whitened": lambda recording: whiten(spike_band(recording), dtype="float32", seed=0),
    "common reference": lambda recording: common_reference(recording, reference="global", operator="median"),
}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A quantity that is varied while all others stay at the standard.

    Attributes
    ----------
    quantity : str
        Field of `TrialConfig`, or ``treatment``.
    values : tuple of float or of str
        What it is set to.
    label : str
        Of the axis, with the unit.
    unit : float
        Of the axis, in units of the quantity.
    is_logarithmic : bool
        Whether the axis is.
    """

    quantity: str
    values: tuple[float, ...] | tuple[str, ...]
    label: str
    unit: float = 1.0
    is_logarithmic: bool = False


CONDITIONS: dict[str, Condition] = {
    "noise": Condition(
        quantity="noise_uv", values=(2.5, 3.5, 5.0, 7.0, 10.0), label="noise, 300 to 6000 Hz (uV)", is_logarithmic=True
    ),
    "units": Condition(quantity="num_units", values=(2, 5, 10, 15, 25), label="number of units"),
    "drift": Condition(
        quantity="drift_um", values=(0.0, 5.0, 10.0, 20.0, 30.0), label="amplitude of the drift, a sine of 60 s (um)"
    ),
    "sampling": Condition(
        quantity="sampling_frequency",
        values=(10e3, 15e3, 20e3, 30e3, 48e3),
        label="sampling frequency (kHz)",
        unit=1000.0,
    ),
    "duration": Condition(
        quantity="duration_s", values=(20.0, 60.0, 120.0, 300.0, 1200.0), label="duration (s)", is_logarithmic=True
    ),
    TREATMENT: Condition(quantity=TREATMENT, values=tuple(TREATMENTS), label="already treated upstream"),
}
QUANTITIES = tuple(condition.quantity for condition in CONDITIONS.values())


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A recording that is to be made.

    Attributes
    ----------
    condition : str
        Key of `CONDITIONS`, or ``standard``.
    name : str
        Of the data set, within the condition: the value and the seed.
    config : TrialConfig
        What it looks like.
    treatment : str
        Key of `TREATMENTS`.
    seed : int
        Of the composition: with the same seed, the same cells at the same places where the condition allows it.
    """

    condition: str
    name: str
    config: TrialConfig
    treatment: str = AS_IS
    seed: int

    def quantities(self) -> dict[str, float | str]:
        """Value of each quantity that some condition varies."""
        return {name: self.treatment if name == TREATMENT else getattr(self.config, name) for name in QUANTITIES}


def variants(conditions: Mapping[str, Condition], *, num: int, standard: TrialConfig = STANDARD) -> list[Variant]:
    """All recordings of some conditions.

    Parameters
    ----------
    conditions : mapping of str to Condition
        Of `CONDITIONS`.
    num : int
        Seeds.
    standard : TrialConfig
        Of what is not varied. A recording at the standard is there once, whatever the number of conditions.

    Returns
    -------
    list of Variant
        The longest last: who stops early has all else.
    """
    made = []
    for seed in range(FIRST_SEED, FIRST_SEED + num):
        unchanged = Variant(condition=UNCHANGED, name=str(seed), config=standard, seed=seed)
        made.append(unchanged)
        for name, condition in conditions.items():
            for value in condition.values:
                if value == unchanged.quantities()[condition.quantity]:
                    continue
                changed: dict[str, Any] = {TREATMENT: value}
                if condition.quantity != TREATMENT:
                    changed = {"config": replace(standard, **{condition.quantity: value})}
                # Some sorters do not go with spaces in a path.
                text = _text(value).replace(", ", "_").replace(" ", "_")
                made.append(replace(unchanged, condition=name, name=f"{text}_{seed}", **changed))
    return sorted(made, key=lambda variant: variant.config.duration_s)


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def prepare(variant: Variant, *, neurons: Sequence[NeuronCurrents], folder: Path) -> Dataset:
    """Make a recording, unless it is there already.

    Parameters
    ----------
    variant : Variant
        Which.
    neurons : sequence of NeuronCurrents
        Of a bank.
    folder : Path
        Of all data sets.

    Returns
    -------
    Dataset
        int16 where the treatment leaves it so, 4 channels.

    Raises
    ------
    ValueError
        One of this name is there that was made otherwise.
    """
    description = {"config": variant.config.to_dict(), TREATMENT: variant.treatment, "seed": variant.seed}

    def make() -> tuple[BaseRecording, BaseSorting]:
        recording, truth = as_stored(*make_trial(neurons, config=variant.config, seed=variant.seed))
        return TREATMENTS[variant.treatment](recording), truth

    dataset = find_or_save(folder, family=variant.condition, name=variant.name, make=make, description=description)
    known = json.loads((dataset.folder / DESCRIPTION_FILE).read_text(encoding="utf8"))
    # Results of other trials, such as those of other defaults, would go into one curve.
    if known != {**known, **description}:
        raise ValueError(f"{dataset.folder} was made with other settings: name another folder for the runs.")
    return dataset


def measure(
    wanted: Iterable[Variant],
    sorters: Sequence[str],
    *,
    neurons: Sequence[NeuronCurrents],
    folder: Path,
    timeout_s: float = TIMEOUT_S,
) -> pd.DataFrame:
    """Make recordings, run sorters on them and score, but for what has been made and run already.

    Parameters
    ----------
    wanted : iterable of Variant
        The recordings.
    sorters : sequence of str
        Keys of `benchmarks.peers.PEERS`.
    neurons : sequence of NeuronCurrents
        Of a bank.
    folder : Path
        Of recordings and runs.
    timeout_s : float
        After which a run is ended.

    Returns
    -------
    pandas.DataFrame
        A row a recording and sorter: ``condition``, ``seed``, the value of each quantity, and what
        `benchmarks.score_runs.score_runs` tells of a recording. After Ctrl-C, of those that were done.
    """
    rows: list[dict[str, Any]] = []
    try:
        for variant in wanted:
            dataset = prepare(variant, neurons=neurons, folder=folder / "data")
            runs = run_all([dataset], sorters, folder=folder / "runs", timeout_s=timeout_s)
            _, scores = score_runs([dataset], runs, folder=folder / "runs")
            known = {"condition": variant.condition, "seed": variant.seed, **variant.quantities()}
            # The family is the condition.
            rows += [{**known, **row} for row in scores.drop(columns="family").to_dict("records")]
    except KeyboardInterrupt:
        logger.warning("stopped: the results are those of what was done so far")
    return pd.DataFrame(rows)


def curve(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Mean accuracy against the quantity of a condition.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `measure`, with at least one run.
    name : str
        Key of `CONDITIONS`.

    Returns
    -------
    pandas.DataFrame
        A row a sorter and value: ``sorter``, ``value``, ``x`` (its place on the axis), ``mean`` and ``sem`` over
        recordings of the mean accuracy over units, ``num`` recordings, ``num_lost`` of them to failures and time-outs,
        which score 0. Increasing in ``x``; treatments have the order of `TREATMENTS`. Of a run that was stopped, only
        the seeds that have all values: points of one curve are of the same seeds.
    """
    condition = CONDITIONS[name]
    part = _part(table, name)
    means = family_table(part.assign(family=part[condition.quantity]), score=SCORE).reset_index()
    means = means.rename(columns={"family": "value"})
    means.insert(2, "x", _places(condition, means["value"]))
    return means.sort_values(["sorter", "x"], ignore_index=True)


def _part(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Recordings of a condition, of the seeds that are there at each value.

    In a run that was stopped some values have fewer seeds, and seeds differ by more than what is varied does.
    """
    part = table[table["condition"].isin([UNCHANGED, name])]
    values = part.groupby("seed")[CONDITIONS[name].quantity].nunique()
    return part[part["seed"].isin(values.index[values == values.max()])]


def _places(condition: Condition, values: pd.Series) -> np.ndarray:
    if condition.quantity == TREATMENT:
        return np.array([list(TREATMENTS).index(value) for value in values], dtype=float)
    return values.to_numpy(dtype=float) / condition.unit


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw accuracy against each quantity: a panel a condition, a line a sorter, with standard errors.

    Small dots are recordings, marks that are not filled are means in which failed runs count 0. A grey line marks the
    standard, whose recordings belong to all panels.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `measure`.
    path : Path
        Picture to write.

    Raises
    ------
    ValueError
        No condition has a run.
    """
    ran = table[table["status"] != "missing"]
    shown = [name for name in CONDITIONS if (ran["condition"] == name).any()]
    if not shown:
        raise ValueError("there are no runs to draw")
    sorters = ordered(ran["sorter"])
    num_columns = min(len(shown), 3)
    num_rows = -(-len(shown) // num_columns)
    figure = Figure(figsize=(max(0.6 + 3.3 * num_columns, 8.5), 0.8 + 2.5 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, shown, strict=False):
        _draw_panel(axes, ran, name=name, sorters=sorters)
    panels[0].set_ylim(-0.03, 1.03)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.supylabel(f"accuracy (0 to 1), spikes within {DELTAS_MS[0]:g} ms", fontsize=9)
    handles = line_handles(sorters)
    grey: dict[str, Any] = {"color": "0.35", "linestyle": "none"}
    handles.append(Line2D([], [], marker="|", markersize=9, label="standard error", **grey))
    handles.append(Line2D([], [], marker=".", markersize=4, alpha=0.5, label="a recording", **grey))
    handles.append(Line2D([], [], color=_STANDARD_COLOUR, linewidth=5.0, label="standard"))
    if (ran["status"] != "ok").any():
        handles.append(Line2D([], [], marker="o", markerfacecolor="white", label="failed runs count 0", **grey))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8)
    save_figure(figure, path, dpi=150)


def _draw_panel(axes: Axes, ran: pd.DataFrame, *, name: str, sorters: Sequence[str]) -> None:
    condition, means = CONDITIONS[name], curve(ran, name)
    is_treatment = condition.quantity == TREATMENT
    recordings = _part(ran, name)
    for place in _places(condition, recordings[recordings["condition"] == UNCHANGED].head(1)[condition.quantity]):
        axes.axvline(place, color=_STANDARD_COLOUR, linewidth=5.0, zorder=0)
    for number, sorter in enumerate(sorters):
        # Between treatments there is nothing: no line joins their marks, which stand side by side.
        shift = 0.14 * (number - (len(sorters) - 1) / 2) if is_treatment else 0.0
        look = line_style(sorter)
        dots = recordings[recordings["sorter"] == sorter]
        x = _places(condition, dots[condition.quantity]) + shift
        axes.plot(x, dots[SCORE], ".", color=look["color"], alpha=0.35, markersize=4, zorder=2)
        line = means[means["sorter"] == sorter]
        axes.errorbar(
            line["x"] + shift,
            line["mean"],
            yerr=line["sem"].fillna(0.0),
            linestyle="none" if is_treatment else "-",
            elinewidth=1.4,
            capsize=2.5,
            **look,
        )
        lost = line[line["num_lost"] > 0]
        axes.plot(lost["x"] + shift, lost["mean"], linestyle="none", markerfacecolor="white", **look)
    open_frame(axes)
    if condition.is_logarithmic:
        axes.set_xscale("log")
    ticks = means.drop_duplicates("x")
    if is_treatment:
        labels = [textwrap.fill(value, width=10) for value in ticks["value"]]
        axes.tick_params(axis="x", labelsize=6.5)
        axes.set_xlim(-0.5, len(TREATMENTS) - 0.5)
    else:
        labels = [_text(place) for place in ticks["x"]]
    axes.set_xticks(ticks["x"], labels)
    axes.set_xticks([], minor=True)
    axes.set_xlabel(condition.label, fontsize=9)
    num = recordings["seed"].nunique()
    axes.set_title(f"{num} recording{'' if num == 1 else 's'} a point", fontsize=8, loc="left")
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def main(argv: list[str] | None = None) -> int:
    """Run what has not been run yet, write a row a recording and sorter as CSV, and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conditions", description=__doc__)
    parser.add_argument("--bank", type=Path, required=True, help="neuron bank that holds layer-6 cells (names L6_...)")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/benchmarks/conditions"), help="recordings, runs (%(default)s)"
    )
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--figure", type=Path, help="picture to write")
    parser.add_argument(
        "--conditions",
        nargs="+",
        choices=CONDITIONS,
        default=list(CONDITIONS),
        metavar="CONDITION",
        help=f"of {', '.join(CONDITIONS)} (all)",
    )
    parser.add_argument("--num", type=int, default=3, help="recordings of each value (%(default)s)")
    add_run_arguments(parser, sorters=PEERS, default=SORTERS)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    si.set_global_job_kwargs(progress_bar=False)
    conditions = {name: CONDITIONS[name] for name in arguments.conditions}
    table = measure(
        variants(conditions, num=arguments.num, standard=STANDARD),
        arguments.sorters,
        neurons=load_bank(arguments.bank, include=("L6",)),
        folder=arguments.runs,
        timeout_s=arguments.timeout,
    )
    if table.empty or (table["status"] == "missing").all():
        parser.error("nothing was run: it was stopped at once, or none of the sorters is installed")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False, float_format="%.6g")
    if arguments.figure:
        draw(table, arguments.figure)
    curves = pd.concat({name: curve(table, name).drop(columns="x") for name in conditions}, names=["condition"])
    curves = curves.assign(value=curves["value"].map(_text)).reset_index(level="condition")
    text = curves.to_string(index=False, float_format="%.3f")
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
