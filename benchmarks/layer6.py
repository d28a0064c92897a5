"""Accuracy on trials of layer-6 neurons, which no training has seen: sorting, detection, identification."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import spikeinterface as si
import spikeinterface.sorters as ss
from sklearn.decomposition import PCA
from spikeinterface.core import BaseRecording, BaseSorting
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

import spikeinterface_simsort  # noqa: F401  registers the sorter
from benchmarks.recordings import spike_band
from benchmarks.scores import SCORES, detection_scores, unit_scores
from spikeinterface_simsort.clustering import informative_axes
from spikeinterface_simsort.embedding import NetworkEmbedder
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.pipeline import detect_and_embed
from spikeinterface_simsort.preprocessing import preprocess
from spikeinterface_simsort.simulation.bank import load_bank
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import save_trial
from spikeinterface_simsort.training.evaluation import mixture_ari
from spikeinterface_simsort.waveforms import align_peaks, extract_waveforms
from spikeinterface_simsort.weights import Weights, load_weights

logger = logging.getLogger(__name__)

# 5 units of over 30 uV each, 5 uV of noise, 20 far neurons, 60 s.
TRIAL = TrialConfig()
# Spikes of two sortings match within this time.
DELTA_MS = 1.0
FIRST_SEED = 6000


def threshold_peaks(recording: BaseRecording, *, num_mads: float) -> np.ndarray:
    """Spike times of a threshold detector on the band-passed recording, in frames."""
    peaks = detect_peaks(
        spike_band(recording),
        method="locally_exclusive",
        method_kwargs={
            "peak_sign": "neg",
            "detect_threshold": num_mads,
            "exclude_sweep_ms": 0.4,
            "radius_um": 100.0,
            # Of the stretches that the noise is measured in.
            "random_slices_kwargs": {"seed": 0},
        },
        job_kwargs={"progress_bar": False},
    )
    return peaks["sample_index"]


def true_embeddings(
    recording: BaseRecording, truth: BaseSorting, *, weights: Weights, params: SimSortParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embed the true spikes of a recording, cut as the sorter cuts those that it detects.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        Of one segment.
    weights : Weights
        With the embedder.
    params : SimSortParams
        Resolved; of the preprocessing.

    Returns
    -------
    waveforms : np.ndarray, float32 [num_spikes, num_samples, num_channels]
        In units of noise.
    embedding : np.ndarray, float32 [num_spikes, embedding_dim]
    labels : np.ndarray, int [num_spikes]
        Units.
    """
    config = weights.config["embedder"]
    preprocessed = preprocess(recording, params=params)
    node = NetworkEmbedder(
        preprocessed,
        parents=[],
        network=weights.embedder,
        model_frequency=config["sampling_frequency"],
        ms_before=config["ms_before"],
    )
    spikes = truth.to_spike_vector()
    traces, _ = node.grid.resample(preprocessed.get_traces(), first_frame=0)
    rough = np.round(spikes["sample_index"] * node.grid.up / node.grid.down).astype("int64")
    times, _ = align_peaks(traces, rough, search_samples=node.align_samples)
    waveforms = extract_waveforms(
        traces, times, num_before=node.num_before, num_after=node.num_samples - node.num_before
    )
    return waveforms, node.embed(waveforms), spikes["unit_index"]


def embedding_ari(embedding: np.ndarray, labels: np.ndarray) -> float:
    """ARI of a Gaussian mixture of the true number of units, on the axes that tell units apart."""
    axes, centre = informative_axes(embedding)
    return mixture_ari((embedding - centre) @ axes, labels)


def identification_scores(recording: BaseRecording, truth: BaseSorting, *, weights: Weights) -> dict[str, float]:
    """ARI of embeddings and of principal components of the same waveforms, cut at the true spike times."""
    waveforms, embedding, labels = true_embeddings(recording, truth, weights=weights, params=SimSortParams().resolve())
    flat = waveforms.reshape(len(waveforms), -1)
    return {
        "ari_embedding": embedding_ari(embedding, labels),
        **{f"ari_pca{dim}": mixture_ari(PCA(dim, random_state=0).fit_transform(flat), labels) for dim in (3, 8)},
    }


def score_trial(recording: BaseRecording, truth: BaseSorting, *, folder: Path, weights: Weights) -> pd.Series:
    """All scores of one trial.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        The trial.
    folder : Path
        For the sorter's output.
    weights : Weights
        Of the networks.

    Returns
    -------
    pandas.Series
    """
    sorting = ss.run_sorter("simsort", recording, folder=folder, remove_existing_folder=True, weights=weights.source)
    row: dict[str, float] = {}
    for delta in (DELTA_MS, 0.4):
        units = unit_scores(truth, sorting, delta_ms=delta)
        row |= {f"sorting_{score}_{delta}ms": float(units[score].mean()) for score in SCORES}
    row["units_found"] = len(sorting.unit_ids)

    frames = truth.to_spike_vector()["sample_index"]
    rate = recording.get_sampling_frequency()
    params = SimSortParams(weights=weights.source, job_kwargs={"progress_bar": False}).resolve()
    peaks, _, _ = detect_and_embed(preprocess(recording, params=params), weights=weights, params=params)
    detectors = {"network": peaks["sample_index"]}
    detectors |= {f"{num}mad": threshold_peaks(recording, num_mads=num) for num in (3, 4, 5)}
    for delta in (DELTA_MS, 0.4):
        for name, found in detectors.items():
            scores = detection_scores(found, frames, delta_frames=int(delta * rate / 1000))
            row |= {f"{name}_{score}_{delta}ms": value for score, value in scores.items()}
    row |= identification_scores(recording, truth, weights=weights)
    return pd.Series(row)


def save_trials(bank: Path, folder: Path, *, num_trials: int) -> list[Path]:
    """Compose trials of a bank's layer-6 cells; those that lie there are kept.

    Parameters
    ----------
    bank : Path
        Neuron bank.
    folder : Path
        Where they go.
    num_trials : int
        How many; trial `i` has the seed ``FIRST_SEED + i``.

    Returns
    -------
    list of Path
        A folder a trial, named after its seed.
    """
    neurons = load_bank(bank, include=("L6",))
    paths = [folder / str(seed) for seed in range(FIRST_SEED, FIRST_SEED + num_trials)]
    for path in paths:
        if not path.exists():
            save_trial(path, neurons, config=TRIAL, seed=int(path.name))
    return paths


def run(bank: Path, *, num_trials: int, weights: str = "bundled") -> pd.DataFrame:
    """Score a number of trials composed of a bank's cells.

    Parameters
    ----------
    bank : Path
        Neuron bank.
    num_trials : int
        How many; trial `i` has the seed ``FIRST_SEED + i``.
    weights : str
        See `load_weights`.

    Returns
    -------
    pandas.DataFrame
        A row a trial.
    """
    networks = load_weights(weights)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for trial in save_trials(bank, Path(folder), num_trials=num_trials):
            recording, truth = si.load(trial / "recording"), si.load(trial / "sorting")
            rows.append(score_trial(recording, truth, folder=Path(folder) / "sorter", weights=networks))
            logger.info("trial %s: accuracy %.3f", trial.name, rows[-1][f"sorting_accuracy_{DELTA_MS}ms"])
    return pd.DataFrame(rows, index=pd.Index(range(FIRST_SEED, FIRST_SEED + num_trials), name="seed"))


def summary(table: pd.DataFrame) -> str:
    """Mean and standard error of every score, as a Markdown table."""
    lines = ["| score | mean | standard error |", "| --- | --- | --- |"]
    for name in table.columns:
        lines.append(f"| {name} | {table[name].mean():.3f} | {table[name].sem():.3f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Print the scores and write a row a trial as CSV."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layer6", description=__doc__)
    parser.add_argument("--bank", type=Path, required=True, help="neuron bank that holds layer-6 cells (names L6_...)")
    parser.add_argument("--num-trials", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--weights", default="bundled", help="bundled, a folder or hf://... (%(default)s)")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    table = run(arguments.bank, num_trials=arguments.num_trials, weights=arguments.weights)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.output, float_format="%.4f")
    sys.stdout.write(summary(table) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
