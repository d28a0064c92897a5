"""The detector on layer-6 trials, as spikes: by signal-to-noise ratio, by overlap, by threshold."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import spikeinterface as si
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks.layer6 import save_trials, threshold_peaks
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.peaks import match_spikes
from spikeinterface_simsort.pipeline import detect_and_embed
from spikeinterface_simsort.preprocessing import preprocess
from spikeinterface_simsort.waveforms import extract_waveforms
from spikeinterface_simsort.weights import Weights, load_weights

logger = logging.getLogger(__name__)

SNR_EDGES = (0.0, 4.0, 6.0, 8.0, 12.0, np.inf)
# Distance to the nearest spike of another unit, in ms.
DISTANCE_EDGES_MS = (0.0, 0.2, 0.4, 0.7, 1.0, 2.0, np.inf)
# Detections below the lowest are not looked at.
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
DELTAS_MS = (1.0, 0.4)
MADS = (3, 4, 5)
# What the recall of small spikes is compared at.
PRECISION = 0.9


@dataclass(frozen=True)
class DetectedTrial:
    """True and detected spikes of a trial.

    Attributes
    ----------
    times_ms : np.ndarray, [num_spikes]
        True spikes, increasing.
    snr : np.ndarray, [num_spikes]
        Of each spike's unit: largest deflection of its mean waveform, in units of the channel's noise.
    distance_ms : np.ndarray, [num_spikes]
        To the nearest spike of another unit.
    found : dict of str to np.ndarray
        Detected times in ms, by method: ``network``, which holds all down to the lowest of `THRESHOLDS`, and ``3 MAD``,
        and so on.
    probability : np.ndarray, [num_found]
        Of the network's.
    """

    times_ms: np.ndarray
    snr: np.ndarray
    distance_ms: np.ndarray
    found: dict[str, np.ndarray]
    probability: np.ndarray

    def at(self, threshold: float) -> np.ndarray:
        """What the network finds at a threshold, in ms."""
        return self.found["network"][self.probability >= threshold]


def detect_trial(recording: BaseRecording, truth: BaseSorting, *, weights: Weights) -> DetectedTrial:
    """Detect the spikes of a trial with every method.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        The trial.
    weights : Weights
        With the detector.

    Returns
    -------
    DetectedTrial
    """
    params = SimSortParams(detect_threshold=THRESHOLDS[0], job_kwargs={"progress_bar": False}).resolve()
    preprocessed = preprocess(recording, params=params)
    peaks, _, _ = detect_and_embed(preprocessed, weights=weights, params=params)
    to_ms = 1000.0 / recording.get_sampling_frequency()
    found = {"network": peaks["sample_index"] * to_ms}
    found |= {f"{num} MAD": threshold_peaks(recording, num_mads=num) * to_ms for num in MADS}

    spikes = truth.to_spike_vector()
    waveforms = extract_waveforms(
        preprocessed.get_traces(), spikes["sample_index"].astype("float64"), num_before=30, num_after=30
    )
    units = spikes["unit_index"]
    unit_snr = np.array([np.abs(waveforms[units == unit].mean(axis=0)).max() for unit in range(units.max() + 1)])
    times = spikes["sample_index"] * to_ms
    distance = np.full(len(times), np.inf)
    for unit in range(units.max() + 1):
        others = np.concatenate([[-np.inf], times[units != unit], [np.inf]])
        after = np.searchsorted(others, times[units == unit])
        gaps = np.stack([times[units == unit] - others[after - 1], others[after] - times[units == unit]])
        distance[units == unit] = gaps.min(axis=0)
    return DetectedTrial(
        times_ms=times, snr=unit_snr[units], distance_ms=distance, found=found, probability=peaks["probability"]
    )


def _hits(trial: DetectedTrial, found: np.ndarray, delta_ms: float) -> np.ndarray:
    """Whether each true spike was found."""
    hit = np.zeros(len(trial.times_ms), dtype=bool)
    hit[match_spikes(found, trial.times_ms, delta=delta_ms)[1]] = True
    return hit


def by_method(trials: list[DetectedTrial], *, threshold: float) -> pd.DataFrame:
    """Accuracy, recall and precision of every method, mean and standard error over trials.

    Parameters
    ----------
    trials : list of DetectedTrial
        Of `detect_trial`.
    threshold : float
        Of the network.

    Returns
    -------
    pandas.DataFrame
        A row a method and largest distance of a match.
    """
    rows = []
    for method in trials[0].found:
        for delta in DELTAS_MS:
            scores = []
            for trial in trials:
                found = trial.at(threshold) if method == "network" else trial.found[method]
                hits = int(_hits(trial, found, delta).sum())
                num = len(trial.times_ms)
                scores.append((hits / (num + len(found) - hits), hits / num, hits / max(len(found), 1)))
            table = np.array(scores)
            row: dict[str, object] = {"method": method, "delta_ms": delta}
            for i, name in enumerate(("accuracy", "recall", "precision")):
                row |= {name: table[:, i].mean(), f"{name}_sem": table[:, i].std(ddof=1) / np.sqrt(len(table))}
            rows.append(row)
    return pd.DataFrame(rows)


def by_threshold(trials: list[DetectedTrial]) -> pd.DataFrame:
    """Pooled accuracy, recall and precision at 1.0 ms against the network's threshold; also recall at SNR 4 to 6."""
    rows = []
    for threshold in THRESHOLDS:
        hits = [_hits(trial, trial.at(threshold), 1.0) for trial in trials]
        hit, num_found = np.concatenate(hits), sum(len(trial.at(threshold)) for trial in trials)
        small = np.concatenate([(trial.snr >= 4.0) & (trial.snr < 6.0) for trial in trials])
        rows.append(
            {
                "threshold": threshold,
                "accuracy": hit.sum() / (len(hit) + num_found - hit.sum()),
                "recall": hit.mean(),
                "precision": hit.sum() / max(num_found, 1),
                "recall_snr_4_to_6": hit[small].mean() if small.any() else np.nan,
            }
        )
    return pd.DataFrame(rows)


def binned_recall(
    trials: list[DetectedTrial], *, field: str, edges: tuple[float, ...], threshold: float
) -> pd.DataFrame:
    """Recall of every method against a property of the spikes, pooled over trials.

    Parameters
    ----------
    trials : list of DetectedTrial
        Of `detect_trial`.
    field : {"snr", "distance_ms"}
        The property.
    edges : tuple of float
        Of the bins.
    threshold : float
        Of the network.

    Returns
    -------
    pandas.DataFrame
        A row a bin: its bounds, ``num_spikes``, and recall by method and largest distance of a match.
    """
    value = np.concatenate([getattr(trial, field) for trial in trials])
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (value >= low) & (value < high)
        row: dict[str, object] = {f"{field}_from": low, f"{field}_to": high, "num_spikes": int(inside.sum())}
        for method in trials[0].found:
            for delta in DELTAS_MS:
                hit = np.concatenate(
                    [
                        _hits(trial, trial.at(threshold) if method == "network" else trial.found[method], delta)
                        for trial in trials
                    ]
                )
                row[f"{method}, {delta} ms"] = hit[inside].mean() if inside.any() else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def draw(tables: dict[str, pd.DataFrame], path: Path, *, threshold: float) -> None:
    """Draw recall against SNR and against overlap, and scores against the threshold.

    Parameters
    ----------
    tables : dict of pandas.DataFrame
        ``methods``, ``snr``, ``overlap`` and ``threshold``.
    path : Path
        Picture to write.
    threshold : float
        Of the network.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    methods = tables["methods"]
    precision = methods[methods["delta_ms"] == 0.4].set_index("method")["precision"]
    labels = {"snr": "SNR of the unit", "overlap": "ms to the nearest other spike"}
    for axes, (name, label) in zip(panels, labels.items(), strict=False):
        table = tables[name]
        bins = table.iloc[:, :2].to_numpy()
        texts = [f"{low:g}–{high:g}" if np.isfinite(high) else f"> {low:g}" for low, high in bins]
        for method in ("network", *(f"{num} MAD" for num in MADS)):
            axes.plot(
                texts, table[f"{method}, 0.4 ms"], marker="o", label=f"{method} (precision {precision[method]:.2f})"
            )
        axes.set(xlabel=label, ylabel="recall (0.4 ms)", ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    table = tables["threshold"]
    for column, label in (
        ("accuracy", "accuracy"),
        ("recall", "recall"),
        ("precision", "precision"),
        ("recall_snr_4_to_6", "recall, SNR 4–6"),
    ):
        panels[2].plot(table["threshold"], table[column], label=label)
    panels[2].axvline(threshold, color="0.6", linewidth=1.0)
    panels[2].set(xlabel="threshold of the network", ylabel="score (1.0 ms)", ylim=(0.5, 1.02))
    panels[2].grid(alpha=0.3)
    panels[2].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> int:
    """Print the scores, and write them as CSV."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detector", description=__doc__)
    parser.add_argument("--bank", type=Path, required=True, help="neuron bank that holds layer-6 cells (names L6_...)")
    parser.add_argument("--weights", default="bundled", help="bundled, a folder or hf://... (%(default)s)")
    parser.add_argument("--num-trials", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for detector_*.csv")
    parser.add_argument("--figure", type=Path, help="picture to write")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    weights = load_weights(arguments.weights)
    threshold = weights.config["detector"]["threshold"]
    trials = []
    with tempfile.TemporaryDirectory() as folder:
        for path in save_trials(arguments.bank, Path(folder), num_trials=arguments.num_trials):
            trials.append(detect_trial(si.load(path / "recording"), si.load(path / "sorting"), weights=weights))
    tables = {
        "methods": by_method(trials, threshold=threshold),
        "snr": binned_recall(trials, field="snr", edges=SNR_EDGES, threshold=threshold),
        "overlap": binned_recall(trials, field="distance_ms", edges=DISTANCE_EDGES_MS, threshold=threshold),
        "threshold": by_threshold(trials),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(arguments.output / f"detector_{name}.csv", index=False, float_format="%.4f")
        sys.stdout.write(f"{table.round(3).to_string(index=False)}\n\n")
    precise = tables["threshold"][tables["threshold"]["precision"] >= PRECISION]
    if len(precise):
        row = precise.iloc[0]
        sys.stdout.write(
            f"at precision {row['precision']:.3f} (threshold {row['threshold']:g}) recall at SNR 4 to 6 is "
            f"{row['recall_snr_4_to_6']:.3f}\n"
        )
    if arguments.figure:
        draw(tables, arguments.figure, threshold=threshold)
    return 0


if __name__ == "__main__":
    sys.exit(main())
