"""Size and width of a neuron bank's extracellular spikes, class by class, beside what recordings have shown."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.spike_measures import BAND_NAMES, BANDS, CLASSES, EXCITATORY, FAST_SPIKING, measure_bank
from benchmarks.spike_shapes_figure import draw
from spikeinterface_simsort.simulation.bank import load_bank


@dataclass(frozen=True, kw_only=True)
class Published:
    """A range that is published.

    Attributes
    ----------
    measure : str
        Column of the table of spikes.
    group : str
        Class of neurons that it holds for.
    low, high : float
        Its ends; an infinite one stands for none.
    text, source : str
        What it says, and who.
    """

    measure: str
    group: str
    low: float
    high: float
    text: str
    source: str


_WIDTHS = "e.g. Bartho et al. 2004, J Neurophysiol 92:600; Trainito et al. 2019, Curr Biol 29:2973"
_SIZES = "Henze et al. 2000, J Neurophysiol 84:390; Buzsaki 2004, Nat Neurosci 7:446 (hippocampal pyramidal cells)"
PUBLISHED = (
    *(
        Published(
            measure=f"trough_to_peak_{band}_ms",
            group=group,
            low=low,
            high=high,
            text=f"{text}, here {BAND_NAMES[band]}",
            source=_WIDTHS,
        )
        for band in BANDS
        for group, low, high, text in (
            (EXCITATORY, 0.4, 0.8, "regular-spiking units: 0.4 to 0.8 ms from trough to peak"),
            (FAST_SPIKING, 0.0, 0.4, "fast-spiking units: under 0.4 ms from trough to peak"),
        )
    ),
    Published(
        measure="amplitude_40um_uv",
        group=EXCITATORY,
        low=60.0,
        high=np.inf,
        text="spikes over 60 uV, large enough to be sorted, within 50 um; here at 40 um",
        source=_SIZES,
    ),
    Published(
        measure="amplitude_140um_uv",
        group=EXCITATORY,
        low=0.0,
        high=20.0,
        text="lost in the noise at about 140 um: taken here as under 20 uV",
        source=_SIZES,
    ),
)
# More spikes outside than this, and the bank is said to mismatch.
_TOLERATED = 0.2
_NARROWER = "narrower_than_excitatory_share"
# By e-type of the NMC portal: NAC and STUT, and all others.
_FIRINGS = ("non-accommodating", "accommodating or irregular")
_ELECTRICAL_TYPE = re.compile(r".*_[bcd](NAC|STUT|IR|AC|ACint)\d*_[^_]*")


def summarise(spikes: pd.DataFrame) -> pd.DataFrame:
    """Median and 10-90 % range of every measure in every class, and in the parts of the fast-spiking one.

    Parameters
    ----------
    spikes : pandas.DataFrame
        Of `measure_bank`.

    Returns
    -------
    pandas.DataFrame
        A row a class and measure: ``num_neurons``, ``num_spikes`` (those that have a value), ``median``, ``p10``,
        ``p90``; where a range is published, ``published_low``, ``published_high``, ``share_outside``, ``mismatch``
        and ``source``. Shares of positive-first spikes have a ``median`` that is the share, and no range.
    """
    ranges = {(entry.group, entry.measure): entry for entry in PUBLISHED}
    rows = []
    for group, label, part in _groups(spikes):
        for measure in spikes.columns.drop(["name", "class"]):
            values = part[measure].dropna().to_numpy(dtype=float)
            row: dict[str, object] = {
                "class": label,
                "measure": measure,
                "num_neurons": part["name"].nunique(),
                "num_spikes": len(values),
            }
            if spikes[measure].dtype == bool:
                row["measure"] = f"{measure}_share"
                row["median"] = float(values.mean())
            elif len(values):
                # Orders of the values themselves: an infinite one must not turn into nan.
                low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], method="lower")
                row |= {"median": middle, "p10": low, "p90": high}
            entry = ranges.get((group, measure))
            if entry is not None and len(values):
                outside = float(np.mean((values < entry.low) | (values >= entry.high)))
                row |= {
                    "published_low": entry.low,
                    "published_high": entry.high,
                    "share_outside": outside,
                    "mismatch": outside > _TOLERATED,
                    "source": entry.source,
                }
            rows.append(row)
    rows += _separation(spikes)
    columns = ["class", "measure", "num_neurons", "num_spikes", "median", "p10", "p90"]
    columns += ["published_low", "published_high", "share_outside", "mismatch", "source"]
    return pd.DataFrame(rows, columns=columns)


def _firing(name: str) -> str:
    """One of `_FIRINGS`, or nothing where the name has no e-type of an interneuron."""
    found = _ELECTRICAL_TYPE.fullmatch(name)
    return _FIRINGS[found[1] not in ("NAC", "STUT")] if found else ""


def _groups(spikes: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Class, what it is called, and its spikes; after the fast-spiking one, its parts by how they fire."""
    for group in CLASSES:
        part = spikes[spikes["class"] == group]
        if not part.empty:
            yield group, group, part
        if group == FAST_SPIKING:
            for firing, split in part.groupby(part["name"].map(_firing)):
                if firing:
                    yield group, f"{group} ({firing})", split


def _separation(spikes: pd.DataFrame) -> list[dict[str, object]]:
    """How often a spike of the one class is narrower than one of the other: the row of the summary, or none."""
    measured = spikes.dropna(subset=["trough_to_peak_100_ms"])
    fast, slow = (measured[measured["class"] == group] for group in (FAST_SPIKING, EXCITATORY))
    if fast.empty or slow.empty:
        return []
    widths = np.sort(slow["trough_to_peak_100_ms"].to_numpy())
    ranks = np.searchsorted(widths, fast["trough_to_peak_100_ms"].to_numpy(), side="right")
    row = {"class": FAST_SPIKING, "measure": _NARROWER, "num_neurons": fast["name"].nunique(), "num_spikes": len(fast)}
    return [{**row, "median": float(1 - ranks.mean() / len(widths))}]


def report(summary: pd.DataFrame) -> str:
    """Write the summary as Markdown: the measures first, then how they compare with what is published.

    Parameters
    ----------
    summary : pandas.DataFrame
        Of `summarise`.

    Returns
    -------
    str
    """
    table = summary.set_index(["class", "measure"])
    groups = list(dict.fromkeys(summary["class"]))
    counts = {group: int(table.loc[group, "num_neurons"].iloc[0]) for group in groups}
    lines = ["| median (10-90 %) | " + " | ".join(f"{group}, {counts[group]} neurons" for group in groups) + " |"]
    lines.append("| --- " * (len(groups) + 1) + "|")
    for measure in dict.fromkeys(summary.loc[summary["measure"] != _NARROWER, "measure"]):
        cells = []
        for group in groups:
            row = table.loc[(group, measure)]
            if measure.endswith("_share"):
                cells.append(f"{100 * row['median']:.1f} %")
            elif row["num_spikes"]:
                cells.append(f"{_number(row['median'])} ({_number(row['p10'])} to {_number(row['p90'])})")
            else:
                cells.append("no such spike")
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    lines += ["", f"Against what is published (a mismatch: over {100 * _TOLERATED:.0f} % of the spikes outside):", ""]
    compared = [entry for entry in PUBLISHED if (entry.group, entry.measure) in table.index]
    for entry in compared:
        row = table.loc[(entry.group, entry.measure)]
        if row["num_spikes"]:
            verdict = "MISMATCH" if row["mismatch"] else "agrees"
            outside = f"{100 * row['share_outside']:.0f} % of {int(row['num_spikes'])} spikes outside"
            lines.append(f"- {verdict}, {entry.group}: {outside}, median {_number(row['median'])} ({entry.text}).")
    if (FAST_SPIKING, _NARROWER) in table.index:
        share = table.loc[(FAST_SPIKING, _NARROWER), "median"]
        pairs = f"pairs of a {FAST_SPIKING} and an {EXCITATORY} spike"
        lines.append(
            f"- In {100 * share:.0f} % of the {pairs}, the first is narrower from trough to peak "
            f"({BAND_NAMES['100']}; without a difference: 50 %)."
        )
    lines += ["", "Published by: " + "; ".join(dict.fromkeys(entry.source for entry in compared)) + "."]
    return "\n".join(lines)


def _number(value: float) -> str:
    return "over the range" if np.isinf(value) else f"{value:.3g}"


def main(argv: list[str] | None = None) -> int:
    """Print the summary as Markdown; write it as CSV, and the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spike_shapes", description=__doc__)
    parser.add_argument("--bank", type=Path, required=True, help="neuron bank: a folder, or one npz file")
    parser.add_argument("--output", type=Path, required=True, help="folder for spike_shapes.csv and spike_shapes.png")
    parser.add_argument("--figure", type=Path, help="where to put the figure instead")
    parser.add_argument("--num-placements", type=int, default=24, help="of each neuron (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.num_placements < 1:
        parser.error("--num-placements must be 1 or more")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    neurons = load_bank(arguments.bank)
    spikes, shapes = measure_bank(neurons, num_placements=arguments.num_placements, seed=arguments.seed)
    summary = summarise(spikes)
    arguments.output.mkdir(parents=True, exist_ok=True)
    summary.to_csv(arguments.output / "spike_shapes.csv", float_format="%.4g", index=False)
    title = f"Extracellular spikes of {len(neurons)} neurons, {arguments.num_placements} placements each"
    path = arguments.figure or arguments.output / "spike_shapes.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = draw(spikes, shapes, title=title, width_source=_WIDTHS, size_source=_SIZES)
    figure.savefig(path, dpi=110.0)
    sys.stdout.write(f"{title}\n\n{report(summary)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
