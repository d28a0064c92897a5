"""One recording's spikes as the embedder sees them and as PCA does: `python -m benchmarks.embedding_case`.

The case study of the SimSort paper (Figure 6 of arXiv 2502.03198), on a recording whose truth is known.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import spikeinterface as si
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks.layer6 import embedding_ari, true_embeddings
from benchmarks.plots import PALETTE, open_frame, save_figure
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.training.evaluation import mixture_ari
from spikeinterface_simsort.weights import Weights, load_weights

logger = logging.getLogger(__name__)

# Of the waveforms, as many as are compared with the embedding elsewhere (`benchmarks.layer6`).
PCA_DIMENSIONS = 8
# As many as a hybrid recording has units at most.
_COLOURS = ("#D55E00", *PALETTE, "#332288", "#999933", "#661100", "#AA4499", "#117733", "#6699CC")
_MARKERS = ("o", "^", "s")


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Spikes in two dimensions, which know nothing of the units.

    Attributes
    ----------
    name : str
        What they are.
    points : np.ndarray, [num_spikes, 2]
        The plane.
    axes : tuple of str
        Names of its axes.
    ari : float
        Adjusted Rand index of a Gaussian mixture that is told the number of units, on the plane.
    ari_before, before : float, str
        The same on what was projected to the plane, and what that is.
    """

    name: str
    points: np.ndarray
    axes: tuple[str, str]
    ari: float
    ari_before: float
    before: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is drawn of a recording.

    Attributes
    ----------
    planes : dict of Plane
        ``embedding`` and ``pca``; ``umap_embedding`` and ``umap_waveforms`` where asked for.
    labels : np.ndarray, int [num_spikes]
        Index of each spike's true unit.
    unit_ids : list
        Of the truth.
    means : np.ndarray, float32 [num_units, num_samples, num_channels]
        Mean waveforms in noise levels; NaN of a unit without spikes.
    times_ms : np.ndarray, float [num_samples]
        After the spike.
    channel_ids : list
        Of the recording.
    """

    planes: dict[str, Plane]
    labels: np.ndarray
    unit_ids: list[Any]
    means: np.ndarray
    times_ms: np.ndarray
    channel_ids: list[Any]


def make_case(
    recording: BaseRecording, truth: BaseSorting, *, weights: Weights, with_umap: bool = False, seed: int = 0
) -> Case:
    """Embed the true spikes of a recording, and project them.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        Of one segment, four channels.
    weights : Weights
        With the embedder.
    with_umap : bool
        Also project by UMAP, which must be installed.
    seed : int
        Of UMAP.

    Returns
    -------
    Case

    Raises
    ------
    ValueError
        Under two units have spikes, or there are fewer spikes than components.
    ImportError
        UMAP is asked for and not installed.
    """
    waveforms, embedding, labels = true_embeddings(
        recording, truth, weights=weights, params=SimSortParams(job_kwargs={"progress_bar": False}).resolve()
    )
    if len(np.unique(labels)) < 2 or len(labels) < PCA_DIMENSIONS:
        raise ValueError(f"a case takes two units and {PCA_DIMENSIONS} spikes, not {len(labels)} spikes")
    flat = waveforms.reshape(len(waveforms), -1)
    of_embedding = embedding_ari(embedding, labels)
    components = PCA(PCA_DIMENSIONS, random_state=0)
    scores = components.fit_transform(flat)
    of_scores = mixture_ari(scores, labels)
    pca_text = f"{PCA_DIMENSIONS} components"
    plane = PCA(2, random_state=0)
    planes = {
        "embedding": _plane(
            "PCA of the embedding",
            plane.fit_transform(embedding),
            labels,
            kind=plane,
            before=("informative axes", of_embedding),
        ),
        "pca": _plane("PCA of waveforms", scores[:, :2], labels, kind=components, before=(pca_text, of_scores)),
    }
    if with_umap:
        # Takes seconds to load, and only some have it.
        from benchmarks.embedder import reduce_to_plane

        points = reduce_to_plane(embedding, method="umap", seed=seed)
        before = ("informative axes", of_embedding)
        planes["umap_embedding"] = _plane("UMAP of the embedding", points, labels, kind="UMAP", before=before)
        points = reduce_to_plane(flat, method="umap", seed=seed)
        before = (pca_text, of_scores)
        planes["umap_waveforms"] = _plane("UMAP of waveforms", points, labels, kind="UMAP", before=before)
    means = np.full((len(truth.unit_ids), *waveforms.shape[1:]), np.nan, dtype="float32")
    for unit in np.unique(labels):
        means[unit] = waveforms[labels == unit].mean(axis=0)
    config: Mapping[str, Any] = weights.config["embedder"]
    return Case(
        planes=planes,
        labels=labels,
        unit_ids=list(truth.unit_ids),
        means=means,
        times_ms=np.arange(waveforms.shape[1]) * 1000.0 / config["sampling_frequency"] - config["ms_before"],
        channel_ids=list(recording.channel_ids),
    )


def _plane(name: str, points: np.ndarray, labels: np.ndarray, *, kind: PCA | str, before: tuple[str, float]) -> Plane:
    if isinstance(kind, str):
        first, second = (f"{kind} {i + 1} (standard deviations)" for i in range(2))
    else:
        shares = kind.explained_variance_ratio_
        first, second = (f"component {i + 1} ({100 * shares[i]:.0f} % of the variance)" for i in range(2))
    ari = mixture_ari(points, labels)
    return Plane(name=name, points=points, axes=(first, second), ari=ari, before=before[0], ari_before=before[1])


def draw(case: Case, path: Path, *, title: str = "", seed: int = 0) -> None:
    """Draw the planes side by side, and mean waveforms of the units on every channel below.

    Parameters
    ----------
    case : Case
        From `make_case`.
    path : Path
        Picture to write.
    title : str
        Of the figure.
    seed : int
        Of the order in which spikes are drawn: so that no unit covers another.
    """
    num_units, num_planes = len(case.unit_ids), len(case.planes)
    figure = Figure(figsize=(5.0 * min(num_planes, 2), 4.6 * -(-num_planes // 2) + 2.8), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    subfigures: Any = figure.subfigures(2, 1, height_ratios=[4.6 * -(-num_planes // 2), 2.6])
    above, below = subfigures
    colours = [_COLOURS[unit % len(_COLOURS)] for unit in range(num_units)]
    rng = np.random.default_rng(seed)
    panels = above.subplots(-(-num_planes // 2), min(num_planes, 2), squeeze=False).ravel()
    for axes, plane in zip(panels, case.planes.values(), strict=True):
        _draw_plane(axes, plane, case=case, colours=colours, rng=rng)
    panels = below.subplots(1, case.means.shape[2], sharey=True, squeeze=False)[0]
    for channel, axes in enumerate(panels):
        for mean, colour in zip(case.means, colours, strict=True):
            axes.plot(case.times_ms, mean[:, channel], color=colour, linewidth=1.5)
        axes.axhline(0.0, color="0.8", linewidth=0.6, zorder=0)
        axes.set_title(f"channel {case.channel_ids[channel]}", fontsize=9, loc="left")
        axes.set_xlabel("time (ms)", fontsize=9)
        open_frame(axes)
    panels[0].set_ylabel("mean waveform (noise levels)", fontsize=9)
    save_figure(figure, path, dpi=100)


def _draw_plane(axes: Axes, plane: Plane, *, case: Case, colours: list[str], rng: np.random.Generator) -> None:
    order = rng.permutation(len(case.labels))
    points, labels = plane.points[order], case.labels[order]
    # Where colours repeat, the marker changes; a call of scatter has one.
    group = labels // len(_COLOURS)
    for index in np.unique(group):
        chosen = group == index
        axes.scatter(
            *points[chosen].T,
            s=9,
            c=[colours[unit] for unit in labels[chosen]],
            marker=_MARKERS[index % len(_MARKERS)],
            alpha=0.5,
            linewidths=0,
        )
    for unit in np.unique(labels):
        x, y = np.median(points[labels == unit], axis=0)
        box = {"facecolor": "white", "alpha": 0.85, "edgecolor": colours[unit], "boxstyle": "round,pad=0.2"}
        axes.annotate(str(case.unit_ids[unit]), (x, y), ha="center", va="center", fontsize=8, bbox=box)
    axes.set_title(
        f"{plane.name}\nARI {plane.ari_before:.2f} ({plane.before}), {plane.ari:.2f} (plane)", fontsize=9, loc="left"
    )
    axes.set_xlabel(plane.axes[0], fontsize=9)
    axes.set_ylabel(plane.axes[1], fontsize=9)
    open_frame(axes)


def main(argv: list[str] | None = None) -> int:
    """Draw the figure and print the scores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedding_case", description=__doc__)
    parser.add_argument("dataset", type=Path, help="folder with recording and sorting")
    parser.add_argument("--figure", type=Path, required=True, help="picture to write")
    parser.add_argument("--weights", default="bundled", help="bundled, a folder or hf://... (%(default)s)")
    parser.add_argument("--umap", action="store_true", help="also project by UMAP (umap-learn)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parts = [arguments.dataset / name for name in ("recording", "sorting")]
    for part in parts:
        if not part.exists():
            parser.error(f"there is no {part}")
    recording, truth = (si.load(part) for part in parts)
    case = make_case(recording, truth, weights=load_weights(arguments.weights), with_umap=arguments.umap)
    title = f"{arguments.dataset.parent.name}/{arguments.dataset.name}".removeprefix("/")
    draw(case, arguments.figure, title=f"{title}: {len(case.labels)} spikes of {len(case.unit_ids)} units")
    lines = ["| plane | ARI | ARI before |", "| --- | --- | --- |"]
    for plane in case.planes.values():
        lines.append(f"| {plane.name} | {plane.ari:.3f} | {plane.ari_before:.3f} ({plane.before}) |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
