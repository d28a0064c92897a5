"""The embedder on layer-6 trials, against PCA, t-SNE and UMAP of the same waveforms (Table 5b of arXiv 2502.03198)."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import spikeinterface as si
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from umap import UMAP

from benchmarks.layer6 import embedding_ari, save_trials, true_embeddings
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.training.evaluation import mixture_ari
from spikeinterface_simsort.weights import Weights, load_weights

logger = logging.getLogger(__name__)

PCA_DIMENSIONS = (2, 3, 5, 8, 12)


def reduce_to_plane(features: np.ndarray, *, method: str, seed: int = 0) -> np.ndarray:
    """Reduce to two dimensions by UMAP or t-SNE, with the libraries' defaults.

    Parameters
    ----------
    features : np.ndarray, float32 [num_spikes, num_features]
        Of spikes.
    method : {"umap", "tsne"}
        Which.
    seed : int
        Of the method.

    Returns
    -------
    np.ndarray, [num_spikes, 2]
        Standardised.
    """
    with warnings.catch_warnings():
        # UMAP says that a seed costs it its threads.
        warnings.filterwarnings("ignore", message="n_jobs value", category=UserWarning)
        reducer = UMAP(random_state=seed) if method == "umap" else TSNE(random_state=seed)
        plane = np.asarray(reducer.fit_transform(features))
    return (plane - plane.mean(axis=0)) / plane.std(axis=0)


def score(recording: si.BaseRecording, truth: si.BaseSorting, *, weights: Weights) -> dict[str, float]:
    """ARI of a Gaussian mixture of the true number of units, on every kind of features of the true spikes.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        A trial.
    weights : Weights
        With the embedder.

    Returns
    -------
    dict
        By the features' name.
    """
    params = SimSortParams().resolve()
    waveforms, embedding, labels = true_embeddings(recording, truth, weights=weights, params=params)
    flat = waveforms.reshape(len(waveforms), -1)
    row = {"embedding": embedding_ari(embedding, labels)}
    row |= {f"PCA {dim}": mixture_ari(PCA(dim, random_state=0).fit_transform(flat), labels) for dim in PCA_DIMENSIONS}
    for method, name in (("tsne", "t-SNE"), ("umap", "UMAP")):
        row[name] = mixture_ari(reduce_to_plane(flat, method=method), labels)
    row["UMAP of the embedding"] = mixture_ari(reduce_to_plane(embedding, method="umap"), labels)
    return row


def main(argv: list[str] | None = None) -> int:
    """Print mean and standard error over trials, and write a row a trial as CSV."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedder", description=__doc__)
    parser.add_argument("--bank", type=Path, required=True, help="neuron bank that holds layer-6 cells (names L6_...)")
    parser.add_argument("--weights", default="bundled", help="bundled, a folder or hf://... (%(default)s)")
    parser.add_argument("--num-trials", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    weights = load_weights(arguments.weights)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in save_trials(arguments.bank, Path(folder), num_trials=arguments.num_trials):
            rows[path.name] = score(si.load(path / "recording"), si.load(path / "sorting"), weights=weights)
            logger.info("trial %s: ARI %.3f", path.name, rows[path.name]["embedding"])
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.output, float_format="%.4f")
    lines = ["| features | ARI | embedding ahead by |", "| --- | --- | --- |"]
    for name in table.columns:
        ahead = table["embedding"] - table[name]
        lines.append(
            f"| {name} | {table[name].mean():.3f} ± {table[name].sem():.3f} | {ahead.mean():.3f} ± {ahead.sem():.3f} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
