"""Whether a unit keeps its label while the tissue moves slowly: `python -m benchmarks.slow_drift`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import spikeinterface as si
import spikeinterface.comparison as sc
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks.catalogue import as_stored
from benchmarks.scores import DELTAS_MS
from spikeinterface_simsort.pipeline import sort
from spikeinterface_simsort.simulation.bank import NeuronCurrents, load_bank
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import make_trial

logger = logging.getLogger(__name__)

# No other benchmark composes from these.
FIRST_SEED = 8000
MINUTES, DRIFT_UM = 30.0, 10.0
WINDOW_S = 300.0
# A unit that is found this well in a window has a label there.
LEAST_ACCURACY = 0.5


def make_drifting(
    neurons: Sequence[NeuronCurrents] | None, *, minutes: float, drift_um: float, seed: int
) -> tuple[BaseRecording, BaseSorting]:
    """Compose a recording in which the tissue moves steadily from one end to the other.

    Parameters
    ----------
    neurons : sequence of NeuronCurrents, optional
        Of a bank; the bundled one if not given.
    minutes : float
        Length; half an hour wants 5 GB of memory.
    drift_um : float
        How far the tissue has moved in the middle; twice that at the end.
    seed : int
        Of the composition.

    Returns
    -------
    recording, truth : BaseRecording, BaseSorting
        int16, 4 channels at 30 kHz, five units.
    """
    config = TrialConfig(duration_s=60.0 * minutes, drift_kind="linear", drift_um=drift_um)
    return as_stored(*make_trial(neurons, config=config, seed=seed))


def labels_over_time(truth: BaseSorting, sorting: BaseSorting, *, num_frames: int, window_s: float) -> pd.DataFrame:
    """Compare a sorting with the truth in each window of time by itself.

    Parameters
    ----------
    truth, sorting : BaseSorting
        Of one segment.
    num_frames : int
        Length of the recording.
    window_s : float
        Length of a window in s; what is left over at the end belongs to none.

    Returns
    -------
    pandas.DataFrame
        A row for each true unit and window: ``unit``, ``minute`` at which the window begins, ``label`` (the unit of the
        sorting that agrees best there, -1 where none does with an accuracy of `LEAST_ACCURACY`), ``accuracy``.
    """
    window = round(window_s * truth.get_sampling_frequency())
    rows = []
    for start in range(0, num_frames - window + 1, window):
        here: list[Any] = [some.frame_slice(start, start + window) for some in (truth, sorting)]
        agreement = sc.compare_sorter_to_ground_truth(*here, delta_time=DELTAS_MS[0]).agreement_scores
        for unit in truth.unit_ids:
            accuracy = agreement.loc[unit].max() if len(sorting.unit_ids) else 0.0
            label = int(agreement.loc[unit].idxmax()) if accuracy >= LEAST_ACCURACY else -1
            rows.append(
                {"unit": int(unit), "minute": start / window * window_s / 60, "label": label} | {"accuracy": accuracy}
            )
    return pd.DataFrame(rows)


def summarise(windows: pd.DataFrame) -> pd.DataFrame:
    """How each true unit fares over time.

    Parameters
    ----------
    windows : pandas.DataFrame
        Of `labels_over_time`, for one recording or, with a column ``seed``, for several.

    Returns
    -------
    pandas.DataFrame
        A row for each true unit that has a label somewhere: ``found`` (windows with a label), ``kept`` (share of these
        with the unit's most frequent label), ``first`` and ``last`` (accuracy in the first and in the last window).
    """
    keys = [key for key in ("seed", "unit") if key in windows]
    rows = []
    for name, unit in windows.sort_values("minute").groupby(keys):
        labels = unit["label"][unit["label"] >= 0]
        if labels.empty:
            continue
        rows.append(
            dict(zip(keys, name, strict=True))
            | {"found": len(labels), "kept": labels.value_counts().iloc[0] / len(labels)}
            | {"first": unit["accuracy"].iloc[0], "last": unit["accuracy"].iloc[-1]}
        )
    return pd.DataFrame(rows, columns=[*keys, "found", "kept", "first", "last"])


def measure(
    neurons: Sequence[NeuronCurrents] | None, *, seeds: Iterable[int], minutes: float, drift_um: float, window_s: float
) -> pd.DataFrame:
    """Sort drifting recordings with all parameters at their defaults.

    Parameters
    ----------
    neurons, minutes, drift_um
        See `make_drifting`.
    seeds : iterable of int
        A recording each.
    window_s : float
        See `labels_over_time`.

    Returns
    -------
    pandas.DataFrame
        The columns of `labels_over_time`, and ``seed``.
    """
    tables = []
    for seed in seeds:
        recording, truth = make_drifting(neurons, minutes=minutes, drift_um=drift_um, seed=seed)
        num_frames = recording.get_num_samples()
        windows = labels_over_time(truth, sort(recording), num_frames=num_frames, window_s=window_s)
        logger.info("Seed %d: %d windows with a label.", seed, (windows["label"] >= 0).sum())
        tables.append(windows.assign(seed=seed))
    return pd.concat(tables, ignore_index=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Sort, write a row for each unit and window as CSV, and print a row for each unit and the whole."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slow_drift", description=__doc__)
    parser.add_argument("--bank", type=Path, help="neuron bank (default: the bundled one)")
    parser.add_argument("--num", type=int, default=2, help="recordings (%(default)s)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="length of each (%(default)s)")
    parser.add_argument("--drift", type=float, default=DRIFT_UM, help="half of the way, in um (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    si.set_global_job_kwargs(progress_bar=False)
    windows = measure(
        load_bank(arguments.bank) if arguments.bank else None,
        seeds=range(FIRST_SEED, FIRST_SEED + arguments.num),
        minutes=arguments.minutes,
        drift_um=arguments.drift,
        window_s=WINDOW_S,
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    windows.to_csv(arguments.output, index=False, float_format="%.4f")
    units = summarise(windows)
    sys.stdout.write(units.to_string(index=False, float_format="{:.2f}".format) + "\n")
    kept = np.average(units["kept"], weights=units["found"])
    sys.stdout.write(f"{kept:.3f} of {units['found'].sum()} windows with a label have that of their unit\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
