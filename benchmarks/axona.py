"""Embeddings of real tetrode spikes, in Axona's files, against clusters that were cut by hand."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA

from spikeinterface_simsort.clustering import informative_axes
from spikeinterface_simsort.detection import pad_channels
from spikeinterface_simsort.resampling import SamplingGrid
from spikeinterface_simsort.training.evaluation import mixture_ari
from spikeinterface_simsort.waveforms import align_peaks, extract_waveforms
from spikeinterface_simsort.weights import Weights, load_weights

logger = logging.getLogger(__name__)

FEATURES = ("embedding", "pca3", "pca8", "model_pca3", "model_pca8")
# Cluster 0 is what nobody sorted; of a cluster with fewer spikes than this no covariance can be told.
MIN_SPIKES = 20
MAX_SPIKES = 8000

# A mixture ends in another local optimum with a few spikes more or less: the score is a mean over draws.
_NUM_DRAWS = 10
_DRAWN_SHARE = 0.8

_DATA_START, _DATA_END = b"\r\ndata_start", b"\r\ndata_end"
# DACQ keeps 0.2 ms before the threshold is crossed; a spike file's own header does not tell.
_BEFORE_MS = 0.2
# A spike rises within 0.2 ms: its peak is looked for around this time after the crossing, and no further, lest it be
# taken for the trough that follows.
_PEAK_AFTER_MS = 0.1
# A time belongs to the window when this share of the snippets hold it.
_HELD_SHARE = 0.9


@dataclass(frozen=True)
class Tetrode:
    """Spikes of a tetrode, as they were recorded.

    Attributes
    ----------
    sampling_frequency : float
        Of the waveforms, in Hz.
    times_s : np.ndarray, float64 [num_spikes]
        When each spike crossed the threshold, in s.
    waveforms : np.ndarray, float32 [num_spikes, num_samples, num_channels]
        In steps of the converter.
    samples_before : int
        Samples of a waveform before the crossing.
    """

    sampling_frequency: float
    times_s: np.ndarray
    waveforms: np.ndarray
    samples_before: int


def read_tetrode(path: Path) -> Tetrode:
    """Read a spike file.

    Parameters
    ----------
    path : Path
        Named by its session and, as suffix, the tetrode's number.

    Returns
    -------
    Tetrode

    Raises
    ------
    ValueError
        The header lacks a field, the samples are of another type, or the file is truncated.
    """
    content = path.read_bytes()
    head, start, body = content.partition(_DATA_START)
    if not start:
        raise ValueError(f"{path} is no spike file: it has no line data_start.")
    fields = (line.partition(" ") for line in head.decode("latin-1").splitlines())
    header = {key: value for key, _, value in fields}

    def number(key: str) -> int:
        # Some have their unit behind them: "48000 hz".
        value = header.get(key, "").split()
        if not value or not value[0].isdigit():
            raise ValueError(f"The header of {path} has no number {key}.")
        return int(value[0])

    num_spikes, num_channels, num_samples = number("num_spikes"), number("num_chans"), number("samples_per_spike")
    sampling_frequency, timebase = number("sample_rate"), number("timebase")
    if (number("bytes_per_timestamp"), number("bytes_per_sample")) != (4, 1):
        raise ValueError(f"{path} holds time stamps or samples of another size than 4 bytes and 1 byte.")
    record = np.dtype([("time", ">u4"), ("samples", "i1", (num_samples,))])
    num_bytes = num_spikes * num_channels * record.itemsize
    if not body[num_bytes:].startswith(_DATA_END):
        raise ValueError(f"{path} is truncated: its header tells of {num_spikes} spikes, after which data_end follows.")
    records = np.frombuffer(body, dtype=record, count=num_spikes * num_channels).reshape(num_spikes, num_channels)
    return Tetrode(
        sampling_frequency=float(sampling_frequency),
        times_s=records["time"][:, 0] / timebase,
        waveforms=records["samples"].transpose(0, 2, 1).astype("float32"),
        samples_before=round(_BEFORE_MS * sampling_frequency / 1000),
    )


def read_cut(path: Path) -> np.ndarray:
    """Read the clusters that were cut by hand.

    Parameters
    ----------
    path : Path
        Cut file.

    Returns
    -------
    np.ndarray, int64 [num_spikes]
        Cluster of each spike; 0 is unsorted.

    Raises
    ------
    ValueError
        This is no cut file, or it holds another number of spikes than it says.
    """
    found = re.search(r"^Exact_cut_for:.*spikes:\s*(\d+)\s([\d\s]*)$", path.read_text("latin-1"), flags=re.M)
    if found is None:
        raise ValueError(f"{path} is no cut file: it has no clusters after a line Exact_cut_for.")
    labels = np.array(found[2].split(), dtype="int64")
    if len(labels) != int(found[1]):
        raise ValueError(f"{path} holds the clusters of {len(labels)} spikes; it says {found[1]}.")
    return labels


def model_waveforms(
    tetrode: Tetrode, *, sampling_frequency: float, num_before: int, num_after: int, align_ms: float = 0.1
) -> np.ndarray:
    """Bring snippets to what an embedder reads, as near as they can be to waveforms cut from a recording.

    They are not filtered again: a snippet is shorter than the response of a filter at 300 Hz. For the same reason they
    keep their offset, which is the slow part of the noise and of the spike itself.

    Parameters
    ----------
    tetrode : Tetrode
        As recorded.
    sampling_frequency : float
        Of the embedder, in Hz.
    num_before, num_after : int
        Samples before and from the largest deflection on.
    align_ms : float
        How far around its expected time the deflection is looked for, in ms.

    Returns
    -------
    np.ndarray, float32 [num_spikes, num_before + num_after, num_channels]
        In units of each channel's noise, spikes pointing down; a dead channel is zero, and so is what the snippets
        do not hold.
    """
    snippets = tetrode.waveforms * _unit_noise_gains(tetrode)
    num_spikes, num_samples, num_channels = snippets.shape
    # A jump at either end would ring into the snippet: there it goes on as its own reflection.
    reach = num_samples - 1
    padded = np.pad(snippets, ((0, 0), (reach, reach), (0, 0)), mode="reflect")
    grid = SamplingGrid.between(recording_frequency=tetrode.sampling_frequency, model_frequency=sampling_frequency)
    side_by_side = padded.transpose(1, 0, 2).reshape(padded.shape[1], -1)
    resampled, first_sample = grid.resample(side_by_side, first_frame=-reach)

    # One behind the other they are a recording.
    length = len(resampled)
    traces = resampled.reshape(length, num_spikes, num_channels).transpose(1, 0, 2).reshape(-1, num_channels)
    origin = np.arange(num_spikes) * length - first_sample
    expected = tetrode.samples_before * grid.up / grid.down + _PEAK_AFTER_MS * sampling_frequency / 1000
    search_samples = max(round(align_ms * sampling_frequency / 1000), 1)
    times, _ = align_peaks(traces, origin + round(expected), search_samples=search_samples)
    waveforms = extract_waveforms(traces, times, num_before=num_before, num_after=num_after)

    frames = grid.to_frames((times - origin)[:, None] + np.arange(-num_before, num_after))
    held = (frames >= 0) & (frames <= num_samples - 1)
    # One window for all: where it ends must not tell how late a spike's peak came.
    waveforms[~(held & (held.mean(axis=0) >= _HELD_SHARE))] = 0.0
    return waveforms


def _unit_noise_gains(tetrode: Tetrode) -> np.ndarray:
    """Gain of each channel [num_channels] that brings its noise to 1 and lets most spikes point down."""
    # Well before the crossing, where spikes have hardly begun to rise: what they have in common there is no noise.
    quiet = tetrode.waveforms[:, : tetrode.samples_before // 2]
    noise = np.median(np.abs(quiet - np.median(quiet, axis=0)), axis=(0, 1)) / 0.6745
    gains = np.where(noise > 0, 1.0 / np.where(noise > 0, noise, 1.0), 0.0)
    # Axona's amplifiers are mostly set to show extracellular spikes upwards.
    scaled = tetrode.waveforms * gains
    upwards = np.median(scaled.max(axis=(1, 2)) + scaled.min(axis=(1, 2))) > 0
    return (-gains if upwards else gains).astype("float32")


def score(path: Path, cut: Path, *, weights: Weights, seed: int = 0) -> dict[str, float]:
    """ARI of Gaussian mixtures, told the number of units, against the clusters cut by hand.

    Parameters
    ----------
    path, cut : Path
        Spike file and its clusters.
    weights : Weights
        Of the networks.
    seed : int
        Of the draws.

    Returns
    -------
    dict
        ``num_spikes``, ``num_units``, and for each of `FEATURES` mean ``ari_...`` and standard deviation ``sd_...``
        over draws: of the embedding, of 3 and 8 principal components of the snippets as recorded, and of the waveforms
        that are embedded. Fewer than two units leave nothing to tell apart: NaN.

    Raises
    ------
    ValueError
        As for `read_tetrode` and `read_cut`, or the cut is of other spikes.
    """
    tetrode, clusters = read_tetrode(path), read_cut(cut)
    if len(clusters) != len(tetrode.waveforms):
        raise ValueError(f"{cut} has clusters of {len(clusters)} spikes; {path} has {len(tetrode.waveforms)} spikes.")
    sorted_out = np.bincount(clusters, minlength=1) >= MIN_SPIKES
    sorted_out[0] = False
    kept = sorted_out[clusters]
    row: dict[str, float] = {"num_spikes": int(kept.sum()), "num_units": int(sorted_out.sum())}
    if sorted_out.sum() < 2:
        return row | {f"{kind}_{name}": float("nan") for name in FEATURES for kind in ("ari", "sd")}

    labels = np.unique(clusters[kept], return_inverse=True)[1]
    config = weights.config["embedder"]
    num_before = round(config["ms_before"] * config["sampling_frequency"] / 1000)
    num_after: int = weights.embedder.num_samples - num_before
    waveforms = model_waveforms(
        tetrode, sampling_frequency=config["sampling_frequency"], num_before=num_before, num_after=num_after
    )[kept]
    embedding = _embed(waveforms, network=weights.embedder)
    axes, centre = informative_axes(embedding)
    features = {"embedding": (embedding - centre) @ axes}
    for prefix, snippets in (("", tetrode.waveforms[kept]), ("model_", waveforms)):
        flat = snippets.reshape(len(snippets), -1)
        features |= {f"{prefix}pca{dim}": PCA(dim, random_state=seed).fit_transform(flat) for dim in (3, 8)}

    rng = np.random.default_rng(seed)
    num_drawn = min(round(_DRAWN_SHARE * len(labels)), MAX_SPIKES)
    draws = [rng.choice(len(labels), num_drawn, replace=False) for _ in range(_NUM_DRAWS)]
    for name in FEATURES:
        scores = [mixture_ari(features[name][drawn], labels[drawn]) for drawn in draws]
        row |= {f"ari_{name}": float(np.mean(scores)), f"sd_{name}": float(np.std(scores))}
    return row


def _embed(waveforms: np.ndarray, *, network: torch.nn.Module) -> np.ndarray:
    """Embed waveforms [num_spikes, num_samples, num_channels] -> [num_spikes, embedding_dim]."""
    padded = pad_channels(waveforms, num_channels=network.num_channels)  # pyright: ignore[reportArgumentType]
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in torch.from_numpy(padded).split(1024)]).numpy()


def cut_tetrodes(folder: Path) -> dict[Path, Path]:
    """Spike files of a folder that have a cut, and that cut."""
    files = sorted(path for path in folder.glob("*.*") if path.suffix[1:].isdigit())
    cuts = {path: path.with_name(f"{path.stem}_{path.suffix[1:]}.cut") for path in files}
    return {path: cut for path, cut in cuts.items() if cut.is_file()}


def as_markdown(table: pd.DataFrame) -> str:
    """Scores with their standard deviations, as a Markdown table."""

    def cell(row: pd.Series, feature: str) -> str:
        mean, spread = row[f"ari_{feature}"], row[f"sd_{feature}"]
        return "–" if np.isnan(mean) else f"{mean:.3f} ± {spread:.3f}"

    lines = [f"| file | spikes | units | {' | '.join(FEATURES)} |", "| --- |" + " --- |" * (2 + len(FEATURES))]
    for name, row in table.iterrows():
        cells = " | ".join(cell(row, feature) for feature in FEATURES)
        lines.append(f"| {name} | {row['num_spikes']:.0f} | {row['num_units']:.0f} | {cells} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Print the scores, a row a file; 1 if principal components do better than the embedding on one of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.axona", description=__doc__)
    parser.add_argument("--recordings", type=Path, required=True, help="folder of SESSION.N and SESSION_N.cut")
    parser.add_argument("--weights", default="bundled", help="(%(default)s)")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    arguments = parser.parse_args(argv)
    files = cut_tetrodes(arguments.recordings)
    if not files:
        parser.error(f"{arguments.recordings} holds no spike file SESSION.N with its cut SESSION_N.cut")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    weights = load_weights(arguments.weights)
    rows = {}
    for path, cut in files.items():
        rows[path.name] = score(path, cut, weights=weights)
        if rows[path.name]["num_units"] < 2:
            logger.warning("%s: fewer than two clusters were cut, nothing to score", path.name)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("file")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.output, float_format="%.4f")
    sys.stdout.write(as_markdown(table) + "\n")
    best_pca = table[[f"ari_{feature}" for feature in FEATURES if feature != "embedding"]].max(axis=1)
    return int((table["ari_embedding"] < best_pca).any())


if __name__ == "__main__":
    sys.exit(main())
