"""Ways to reduce and to cluster the embeddings, and the waveforms, of true spikes (Figure S4 of arXiv 2502.03198).

Every reduction of dimensions goes with every clustering, some of which are told the number of units. The sorter's own
clustering of embeddings is one more.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import spikeinterface as si
from sklearn.cluster import KMeans, MeanShift, SpectralClustering, estimate_bandwidth
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from benchmarks.layer6 import true_embeddings
from benchmarks.parts import find_recordings, parts_folder, score_recordings
from spikeinterface_simsort import clustering as own_clustering
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.weights import Weights, load_weights

logger = logging.getLogger(__name__)

REDUCTIONS = ("none", "pca", "tsne", "umap")
CLUSTERINGS = ("gmm", "kmeans", "spectral", "meanshift", "hdbscan", "isosplit")
KNOWING_NUM_UNITS = ("gmm", "kmeans", "spectral")
# Of MeanShift, as the sorter's preset `paper` has it.
BANDWIDTH_QUANTILE = SimSortParams().bandwidth_quantile
# The sorter's own clustering, in the tables.
OWN = "simsort"
FEATURES = ("embedding", "waveform")
COLUMNS = ("features", "reduction", "clustering", "knows_num_units", "ari", "num_clusters", "seconds", "error")

_NAMES = {
    "none": "none",
    "pca": "PCA",
    "tsne": "t-SNE",
    "umap": "UMAP",
    "gmm": "GMM",
    "kmeans": "k-means",
    "spectral": "spectral",
    "meanshift": "MeanShift",
    "hdbscan": "HDBSCAN",
    "isosplit": "ISO-SPLIT",
}
# MeanShift can start from the cells of a grid; beyond so many dimensions each spike has a cell to itself, whose corner
# may be nobody's neighbour.
_MAX_GRID_DIMENSIONS = 3
# t-SNE's tree divides space in 2 or 3 dimensions.
_MAX_TREE_DIMENSIONS = 3


def reduce(features: np.ndarray, *, method: str, dim: int = 2, seed: int = 0) -> np.ndarray:
    """Reduce the number of dimensions.

    Parameters
    ----------
    features : np.ndarray, float [num_spikes, num_features]
        Of spikes.
    method : {"none", "pca", "tsne", "umap"}
        Which.
    dim : int
        Of the result; does not matter to ``"none"``.
    seed : int
        Of the method.

    Returns
    -------
    np.ndarray, float64 [num_spikes, dim]
        t-SNE and UMAP, whose scale means nothing, have unit variance along each dimension.

    Raises
    ------
    ValueError
        There is no such method, or it cannot make so many dimensions of these features.
    ImportError
        umap-learn is not installed.
    """
    if method not in REDUCTIONS:
        raise ValueError(f"The reduction must be one of {REDUCTIONS}, not {method!r}.")
    points = np.ascontiguousarray(features, dtype="float64")
    if method == "none":
        return points
    if method == "pca":
        return PCA(dim, random_state=seed).fit_transform(points)
    # Both that are left look at fewer neighbours than there are spikes.
    if method == "tsne":
        reducer = TSNE(
            dim,
            perplexity=min(30.0, (len(points) - 1) / 3),
            method="barnes_hut" if dim <= _MAX_TREE_DIMENSIONS else "exact",
            random_state=seed,
        )
    else:
        from umap import UMAP

        # One thread, as several would give another result each time.
        reducer = UMAP(n_components=dim, n_neighbors=min(15, len(points) - 1), random_state=seed, n_jobs=1)
    reduced = np.asarray(reducer.fit_transform(points), dtype="float64")
    return (reduced - reduced.mean(axis=0)) / np.maximum(reduced.std(axis=0), 1e-12)


def cluster(
    features: np.ndarray,
    *,
    method: str,
    num_units: int,
    seed: int = 0,
    bandwidth_quantile: float = BANDWIDTH_QUANTILE,
) -> np.ndarray:
    """Label spikes.

    Parameters
    ----------
    features : np.ndarray, float [num_spikes, num_features]
        Of spikes.
    method : {"gmm", "kmeans", "spectral", "meanshift", "hdbscan", "isosplit"}
        Which.
    num_units : int
        The true one, for those of `KNOWING_NUM_UNITS`.
    seed : int
        Of the method; HDBSCAN and ISO-SPLIT draw nothing.
    bandwidth_quantile : float
        Of the distances between spikes, for MeanShift; see `sklearn.cluster.estimate_bandwidth`.

    Returns
    -------
    np.ndarray, int64 [num_spikes]
        Labels from 0; -1 is what HDBSCAN takes for noise.

    Raises
    ------
    ValueError
        There is no such method, or it cannot make so many clusters of these spikes.
    ImportError
        hdbscan or isosplit6 is not installed.
    """
    points = np.ascontiguousarray(features, dtype="float64")
    if method == "gmm":
        # As `mixture_ari` has it, the score of the other benchmarks.
        model = GaussianMixture(num_units, n_init=10, reg_covar=1e-3, random_state=seed)
        with warnings.catch_warnings():
            # Where the last decimals go does not matter.
            warnings.simplefilter("ignore", ConvergenceWarning)
            labels = model.fit_predict(points)
    elif method == "kmeans":
        labels = KMeans(num_units, n_init=10, random_state=seed).fit_predict(points)
    elif method == "spectral":
        # The neighbours, as a kernel would need to know the scale of each kind of features.
        model = SpectralClustering(
            num_units, affinity="nearest_neighbors", n_neighbors=min(10, len(points)), random_state=seed
        )
        with warnings.catch_warnings():
            # Units that lie far apart make several graphs, which is as it should be.
            warnings.filterwarnings("ignore", message="Graph is not fully connected", category=UserWarning)
            labels = model.fit_predict(points)
    elif method == "meanshift":
        labels = _meanshift(points, quantile=bandwidth_quantile, seed=seed)
    elif method == "hdbscan":
        from hdbscan import HDBSCAN  # pyright: ignore[reportMissingImports]

        # A smaller cluster would be no unit to the sorter either.
        labels = HDBSCAN(min_cluster_size=SimSortParams().min_spikes).fit_predict(points)
    elif method == "isosplit":
        from isosplit6 import isosplit6  # pyright: ignore[reportMissingImports]

        labels = isosplit6(points) - 1
    else:
        raise ValueError(f"The clustering must be one of {CLUSTERINGS}, not {method!r}.")
    return np.asarray(labels).astype("int64")


def _meanshift(points: np.ndarray, *, quantile: float, seed: int) -> np.ndarray:
    """MeanShift with an estimated bandwidth, as the preset ``paper`` has it."""
    bandwidth = estimate_bandwidth(points, quantile=quantile, n_samples=2000, random_state=seed)
    if bandwidth <= 0:
        return np.zeros(len(points), dtype="int64")
    grid = points.shape[1] <= _MAX_GRID_DIMENSIONS
    return MeanShift(bandwidth=bandwidth, bin_seeding=grid).fit_predict(points)


def ablate(
    recording: si.BaseRecording,
    truth: si.BaseSorting,
    *,
    weights: Weights,
    seed: int = 0,
    max_spikes: int = 2000,
    dim: int = 2,
    bandwidth_quantile: float = BANDWIDTH_QUANTILE,
    reductions: Sequence[str] = REDUCTIONS,
    clusterings: Sequence[str] = CLUSTERINGS,
) -> pd.DataFrame:
    """Score all ways on the true spikes of a recording.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        Of one segment.
    weights : Weights
        With the embedder.
    seed : int
        Of the methods, and of the spikes that are drawn.
    max_spikes : int
        Of more spikes so many are drawn, for all methods alike: some take time and memory with their square.
    dim : int
        Of what PCA, t-SNE and UMAP reduce to.
    bandwidth_quantile : float
        See `cluster`.
    reductions, clusterings : sequence of str
        Of `REDUCTIONS` and `CLUSTERINGS`.

    Returns
    -------
    pandas.DataFrame
        A row a way, with the columns `COLUMNS`, see `score_ways`; last the sorter's own clustering of the embedding.

    Raises
    ------
    ValueError
        Fewer than two units have spikes: nothing is to be told apart.
    """
    params = SimSortParams(seed=seed).resolve()
    waveforms, embedding, labels = true_embeddings(recording, truth, weights=weights, params=params)
    if len(labels) > max_spikes:
        drawn = np.sort(np.random.default_rng(seed).choice(len(labels), max_spikes, replace=False))
        waveforms, embedding, labels = waveforms[drawn], embedding[drawn], labels[drawn]
    if len(np.unique(labels)) < 2:
        raise ValueError("The recording has fewer than two units with spikes: there is nothing to tell apart.")
    features = {"embedding": embedding, "waveform": waveforms.reshape(len(waveforms), -1)}
    table = score_ways(
        features,
        labels,
        seed=seed,
        dim=dim,
        bandwidth_quantile=bandwidth_quantile,
        reductions=reductions,
        clusterings=clusterings,
    )
    found, error, seconds = _attempt(
        partial(own_clustering.cluster, embedding, params=params), what="The sorter's own clustering"
    )
    way = {"features": "embedding", "reduction": "none", "clustering": OWN, "knows_num_units": False}
    own = pd.DataFrame([way | _scores(found, labels) | {"seconds": seconds, "error": error}], columns=list(COLUMNS))
    return pd.concat([table, own], ignore_index=True)


def score_ways(
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    seed: int = 0,
    dim: int = 2,
    bandwidth_quantile: float = BANDWIDTH_QUANTILE,
    reductions: Sequence[str] = REDUCTIONS,
    clusterings: Sequence[str] = CLUSTERINGS,
) -> pd.DataFrame:
    """Score every reduction with every clustering. What fails is a row that says why.

    Parameters
    ----------
    features : mapping of str to np.ndarray, float [num_spikes, num_features]
        Of the same spikes.
    labels : np.ndarray, int [num_spikes]
        Their units.
    seed, dim, bandwidth_quantile, reductions, clusterings
        See `ablate`.

    Returns
    -------
    pandas.DataFrame
        A row a way: ``features``, ``reduction``, ``clustering``; ``knows_num_units``, whether it was told; ``ari``,
        NaN if it failed, where what HDBSCAN takes for noise is one more cluster; ``num_clusters``, without the noise;
        ``seconds`` on one thread, of the reduction and the clustering together, where the first to use a library loads
        it; ``error``, empty if all went well.
    """
    options = {"num_units": len(np.unique(labels)), "seed": seed, "bandwidth_quantile": bandwidth_quantile}
    rows = []
    for name, points in features.items():
        for reduction in reductions:
            reduced, failure, reduction_seconds = _attempt(
                partial(reduce, points, method=reduction, dim=dim, seed=seed), what=f"{reduction} of {name}s"
            )
            for method in clusterings:
                found, error, seconds = None, failure, 0.0
                if reduced is not None:
                    found, error, seconds = _attempt(
                        partial(cluster, reduced, method=method, **options),
                        what=f"{method} after {reduction} of {name}s",
                    )
                way = {"features": name, "reduction": reduction, "clustering": method}
                told = {"knows_num_units": method in KNOWING_NUM_UNITS}
                cost = {"seconds": reduction_seconds + seconds, "error": error}
                rows.append(way | told | _scores(found, labels) | cost)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _attempt(method: Callable[[], np.ndarray], *, what: str) -> tuple[np.ndarray | None, str, float]:
    """Call a method on one thread -> its result or None, what went wrong or nothing, and seconds."""
    result, error = None, ""
    start = time.perf_counter()
    try:
        with threadpool_limits(1):
            result = method()
    except Exception as problem:  # Each library has errors of its own; the other methods go on.
        logger.exception("%s failed.", what)
        error = " ".join(f"{type(problem).__name__}: {problem}".split())
    return result, error, time.perf_counter() - start


def _scores(found: np.ndarray | None, labels: np.ndarray) -> dict[str, Any]:
    if found is None:
        return {"ari": float("nan"), "num_clusters": 0}
    return {"ari": float(adjusted_rand_score(labels, found)), "num_clusters": len(np.unique(found[found >= 0]))}


def run(
    folder: Path,
    *,
    weights: Weights,
    parts: Path | None = None,
    num_recordings: int | None = None,
    seed: int = 0,
    max_spikes: int = 2000,
    dim: int = 2,
    bandwidth_quantile: float = BANDWIDTH_QUANTILE,
    reductions: Sequence[str] = REDUCTIONS,
    clusterings: Sequence[str] = CLUSTERINGS,
) -> pd.DataFrame:
    """Score all ways on all recordings of a folder; those that are finished are skipped.

    A recording with fewer than two units is left out, and a warning logged.

    Parameters
    ----------
    folder : Path
        See `benchmarks.parts.find_recordings`.
    weights : Weights
        With the embedder.
    parts : Path, optional
        See `benchmarks.parts.score_recordings`.
    num_recordings : int, optional
        See `benchmarks.parts.find_recordings`.
    seed, max_spikes, dim, bandwidth_quantile, reductions, clusterings
        See `ablate`.

    Returns
    -------
    pandas.DataFrame
        As from `ablate`, with the columns ``family`` and ``recording`` before.

    Raises
    ------
    ValueError
        There is no recording, none has two units, or what `parts` holds was made with other settings.
    """
    options: dict[str, Any] = {
        "seed": seed,
        "max_spikes": max_spikes,
        "dim": dim,
        "bandwidth_quantile": bandwidth_quantile,
    }
    options |= {"reductions": list(reductions), "clusterings": list(clusterings)}
    recordings = {}
    for (family, name), path in find_recordings(folder, num_recordings=num_recordings).items():
        if len(si.load(path / "sorting").get_non_empty_unit_ids()) < 2:
            logger.warning("%s/%s has fewer than two units: there is nothing to tell apart", family, name)
        else:
            recordings[family, name] = path
    if not recordings:
        raise ValueError(f"No recording of {folder} has two units.")
    if parts is not None:
        _check_settings(parts, options | {"embedder": weights.config["sha256"]["embedder.safetensors"]})
    return score_recordings(recordings, partial(_ablate_and_tell, weights=weights, **options), parts=parts)


def _ablate_and_tell(recording: si.BaseRecording, truth: si.BaseSorting, **options: Any) -> pd.DataFrame:
    table = ablate(recording, truth, **options)
    if table["ari"].notna().any():
        best = table.loc[table["ari"].idxmax()]
        logger.info("best ARI %.3f: %s of %ss", best["ari"], best["clustering"], best["features"])
    return table


def _check_settings(parts: Path, settings: dict[str, Any]) -> None:
    """Write down what the parts are made with; raise ValueError if there are some of another make."""
    path = parts / "settings.json"
    if not path.exists():
        parts.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept != settings:
        differing = sorted(name for name in kept.keys() | settings.keys() if kept.get(name) != settings.get(name))
        raise ValueError(f"{parts} was made with other settings ({', '.join(differing)}): remove it to start again.")


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Means over recordings.

    Parameters
    ----------
    table : pandas.DataFrame
        From `run`.

    Returns
    -------
    pandas.DataFrame
        A row a way, in the order of `table`: ``ari`` and its standard error ``ari_sem``, over recordings where it
        did not fail; ``num_clusters`` and ``seconds``, likewise; ``num_recordings``, and ``num_failed`` of them.
    """
    table = table.assign(num_clusters=table["num_clusters"].where(table["ari"].notna()))
    ways = table.groupby(["features", "reduction", "clustering", "knows_num_units"], sort=False)
    means = ways[["ari", "num_clusters", "seconds"]].mean()
    means.insert(1, "ari_sem", ways["ari"].sem())
    means["num_recordings"] = ways["ari"].size()
    means["num_failed"] = means["num_recordings"] - ways["ari"].count()
    return means.reset_index()


def as_markdown(means: pd.DataFrame) -> str:
    """Means over recordings as a Markdown table; a star marks what was told the number of units.

    Parameters
    ----------
    means : pandas.DataFrame
        From `summarise`.

    Returns
    -------
    str
    """
    lines = ["| features | reduction | clustering | ARI | clusters | s | failed |", "| --- |" + " --- |" * 6]
    for row in means.to_dict("records"):
        star = "*" if row["knows_num_units"] else ""
        spread = "" if np.isnan(row["ari_sem"]) else f" ± {row['ari_sem']:.3f}"
        score = "– | –" if np.isnan(row["ari"]) else f"{row['ari']:.3f}{spread} | {row['num_clusters']:.1f}"
        failed = f"{row['num_failed']} of {row['num_recordings']}"
        lines.append(
            f"| {row['features']} | {row['reduction']} | {row['clustering']}{star} | {score} | "
            f"{row['seconds']:.1f} | {failed} |"
        )
    return "\n".join(lines)


def draw(means: pd.DataFrame, path: Path) -> None:
    """Draw mean ARI of reductions and clusterings, embeddings and waveforms side by side.

    A star marks what was told the number of units; where a method failed on some recordings, the mean over the others
    says of how many.

    Parameters
    ----------
    means : pandas.DataFrame
        From `summarise`.
    path : Path
        Picture to write.
    """
    from matplotlib.figure import Figure

    kinds = [kind for kind in FEATURES if kind in set(means["features"])]
    reductions = [name for name in REDUCTIONS if name in set(means["reduction"])]
    clusterings = [name for name in CLUSTERINGS if name in set(means["clustering"])]
    figure = Figure(figsize=(1.0 + 4.6 * len(kinds), 1.6 + 0.55 * len(reductions)), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    image = None
    for axes, kind in zip(panels, kinds, strict=True):
        rows = means[means["features"] == kind].set_index(["reduction", "clustering"])
        scores = np.full((len(reductions), len(clusterings)), np.nan)
        for i, reduction in enumerate(reductions):
            for j, method in enumerate(clusterings):
                if (reduction, method) not in rows.index:
                    continue
                row = rows.loc[(reduction, method)]
                scores[i, j] = row["ari"]
                num_scored = row["num_recordings"] - row["num_failed"]
                text = "failed" if np.isnan(row["ari"]) else f"{row['ari']:.2f}"
                if 0 < num_scored < row["num_recordings"]:
                    text += f"\n({num_scored} of {row['num_recordings']})"
                # The colours are dark below the middle.
                dark = np.isfinite(row["ari"]) and row["ari"] < 0.5
                axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
        image = axes.imshow(scores, vmin=0.0, vmax=1.0, cmap="viridis", aspect="auto")
        stars = ["*" if name in KNOWING_NUM_UNITS else "" for name in clusterings]
        labels = [_NAMES[name] + star for name, star in zip(clusterings, stars, strict=True)]
        axes.set_xticks(range(len(clusterings)), labels, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(reductions)), [_NAMES[name] for name in reductions])
        title = f"{kind}s"
        if ("none", OWN) in rows.index:
            title += f" (the sorter's own clustering: {rows.loc[('none', OWN)]['ari']:.2f})"
        axes.set_title(title, fontsize=10)
    panels[0].set_ylabel("reduction")
    if image is not None:
        figure.colorbar(image, ax=list(panels), label="mean ARI")
    figure.supxlabel("clustering (*: told the number of units)", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> int:
    """Print means over recordings, write a row a recording and way as CSV, and draw them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clustering_ablation", description=__doc__)
    parser.add_argument("--datasets", type=Path, required=True, help="folder of FAMILY/NAME/{recording,sorting}")
    parser.add_argument("--weights", default="bundled", help="bundled, a folder or hf://... (%(default)s)")
    parser.add_argument("--output", type=Path, help="CSV file to write; what is done is kept in OUTPUT.parts")
    parser.add_argument("--figure", type=Path, help="picture to write")
    parser.add_argument("--num-recordings", type=int, help="of each family (all)")
    parser.add_argument("--max-spikes", type=int, default=2000, help="of a recording (%(default)s)")
    parser.add_argument("--dim", type=int, default=2, help="to reduce to (%(default)s)")
    parser.add_argument(
        "--bandwidth-quantile", type=float, default=BANDWIDTH_QUANTILE, help="of MeanShift (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    output = arguments.output
    try:
        find_recordings(arguments.datasets)
    except ValueError as error:
        parser.error(str(error))
    table = run(
        arguments.datasets,
        weights=load_weights(arguments.weights),
        parts=None if output is None else parts_folder(output),
        num_recordings=arguments.num_recordings,
        seed=arguments.seed,
        max_spikes=arguments.max_spikes,
        dim=arguments.dim,
        bandwidth_quantile=arguments.bandwidth_quantile,
    )
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(output, index=False, float_format="%.4f")
    means = summarise(table)
    if arguments.figure:
        draw(means, arguments.figure)
    sys.stdout.write(as_markdown(means) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
