"""The embedder on spikes of a dense probe, against principal components, by the protocol of CEED's comparison.

Out of a set of labelled waveforms, ten units are drawn at random, and 100 spikes of each; a Gaussian mixture is told
the number of units, and its agreement with the labels is the score; this over 50 seeds. The set is a file that anyone
can export from IBL's recordings (`load_waveforms`), or built of simulated neurons near a Neuropixels probe
(`make_ibl_waveforms`).

References
----------
Vishnubhotla et al. 2023, NeurIPS 36 (CEED); arXiv 2502.03198, Table S4 (SimSort).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.signal import butter, sosfiltfilt
from sklearn.decomposition import PCA

from benchmarks.axona import Tetrode, model_waveforms
from spikeinterface_simsort.clustering import informative_axes
from spikeinterface_simsort.detection import pad_channels
from spikeinterface_simsort.simulation.bank import NeuronCurrents, load_bank
from spikeinterface_simsort.simulation.composition import Trial, compose_trial
from spikeinterface_simsort.simulation.electrodes import Contacts
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.training.evaluation import mixture_ari
from spikeinterface_simsort.weights import Weights, load_weights

logger = logging.getLogger(__name__)

NUM_UNITS, SPIKES_PER_UNIT = 10, 100
PCA_DIMENSIONS = (3, 5, 8)
# The sets of CEED: 4 ms, and five channels on either side of the main one.
NUM_SAMPLES, PEAK_SAMPLE, NUM_BESIDE = 121, 42, 5
NUM_EMBEDDED = 4

# Neuropixels 1.0: two contacts a row, in four columns; squares of 12 um.
_COLUMNS_UM = ((43.0, 11.0), (59.0, 27.0))
_ROW_UM = 20.0
_RADIUS_UM = 12.0 / np.sqrt(np.pi)
_NUM_ROWS = 14
# IBL's recordings are filtered above this frequency.
_HIGHPASS_HZ = 300.0
# Waveforms are aligned within this time of where most have their peak.
_ALIGN_MS = 0.3
# `model_waveforms` looks for peaks this long after the threshold was crossed; here is no threshold.
_CROSSING_MS = 0.1
_FIRST_SEED = 7000


@dataclass(frozen=True)
class DenseSpikes:
    """Labelled spikes of a dense probe.

    Attributes
    ----------
    waveforms : np.ndarray, float32 [num_spikes, num_samples, num_channels]
        In uV, or any other unit that is the same for all. Channels are in the order of the probe, cut around each
        spike's main channel, which is in the middle.
    labels : np.ndarray, int64 [num_spikes]
        Units.
    sampling_frequency : float
        In Hz.
    """

    waveforms: np.ndarray
    labels: np.ndarray
    sampling_frequency: float


def load_waveforms(path: Path) -> DenseSpikes:
    """Read labelled waveforms.

    Parameters
    ----------
    path : Path
        File of ``np.savez`` with ``waveforms`` [num_spikes, num_samples, num_channels], ``labels`` [num_spikes] and
        ``sampling_frequency`` in Hz. The main channel is in the middle of an odd number of channels, in the order of
        the probe: 11 or 21 in the sets of CEED, where the axis of channels comes before that of samples.

    Returns
    -------
    DenseSpikes

    Raises
    ------
    ValueError
        An array is missing or of another form.
    """
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"waveforms", "labels", "sampling_frequency"} - set(arrays.files)
        if missing:
            raise ValueError(f"{path} holds no set of waveforms: it lacks {', '.join(sorted(missing))}.")
        waveforms, labels, rate = (arrays[name] for name in ("waveforms", "labels", "sampling_frequency"))
    if waveforms.ndim != 3 or waveforms.shape[2] % 2 == 0 or waveforms.shape[2] < NUM_EMBEDDED:
        raise ValueError(
            f"{path} needs waveforms [num_spikes, num_samples, num_channels] of an odd number of channels, "
            f"{NUM_EMBEDDED + 1} or more, not {waveforms.shape}."
        )
    if labels.shape != waveforms.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path} needs a whole number as label of each of {len(waveforms)} spikes, not {labels.shape}."
        )
    if rate.size != 1 or not float(rate) > 0:
        raise ValueError(f"{path} needs one positive sampling_frequency, in Hz.")
    return DenseSpikes(waveforms.astype("float32"), labels.astype("int64"), float(rate))


def neuropixels_contacts(num_rows: int = _NUM_ROWS) -> Contacts:
    """Contacts of a stretch of a Neuropixels 1.0 probe, centred on the origin, in the x-y plane.

    Parameters
    ----------
    num_rows : int
        Of two contacts each.

    Returns
    -------
    Contacts
        In the order of the probe's channels: from the tip upwards, the two of a row one after the other.
    """
    plane = np.array([[x, row * _ROW_UM] for row in range(num_rows) for x in _COLUMNS_UM[row % 2]])
    positions = np.column_stack([plane - plane.mean(axis=0), np.zeros(len(plane))])
    return Contacts(positions, _RADIUS_UM, np.tile([0.0, 0.0, 1.0], (len(plane), 1)))


def make_ibl_waveforms(
    neurons: Sequence[NeuronCurrents],
    *,
    seed: int,
    num_units: int = 60,
    spikes_per_unit: int = 150,
    config: TrialConfig | None = None,
) -> DenseSpikes:
    """Build a set of waveforms of simulated neurons near a dense probe.

    Stretches of a recording are composed, with several units each, far neurons, noise that is coloured and correlated,
    and are filtered as IBL's are. Units whose main channel is too near to an end of the stretch are left out, and so
    are those with too few spikes. Spikes overlap with others where they happen to.

    Parameters
    ----------
    neurons : sequence of NeuronCurrents
        Of a bank.
    seed : int
        The same seed gives the same set.
    num_units : int
        How many.
    spikes_per_unit : int
        Of each.
    config : TrialConfig, optional
        Of a stretch; its layout does not count. Default six units of 40 to 400 uV within 60 um of the contacts, of
        3 to 20 Hz, 40 s long, with 8 uV of noise and spikes up to twice as fast as the cells'.

    Returns
    -------
    DenseSpikes
        At the rate of `config`: 121 samples, the peak at sample 42, and 11 channels.

    Raises
    ------
    ValueError
        Not one of several stretches gave a unit.
    """
    config = config or TrialConfig(
        duration_s=40.0,
        num_units=6,
        num_far=40,
        cube_um=120.0,
        min_amplitude_uv=40.0,
        max_amplitude_uv=400.0,
        firing_rate_hz=(3.0, 20.0),
        spike_speed=(1.0, 2.0),
        noise_uv=8.0,
    )
    contacts = neuropixels_contacts()
    waveforms: list[np.ndarray] = []
    tries = 0
    while len(waveforms) < num_units:
        tries += 1
        if tries > 10 * (1 + len(waveforms)):
            raise ValueError(
                f"{tries - 1} stretches gave {len(waveforms)} units with {spikes_per_unit} spikes: "
                "make them longer or their units fire faster."
            )
        stretch = np.random.SeedSequence([seed, tries, 0])
        trial = compose_trial(neurons, config=config, seed=stretch, contacts=contacts)
        rng = np.random.default_rng([seed, tries, 1])
        waveforms += _cut_units(trial, spikes_per_unit=spikes_per_unit, rng=rng)
    waveforms = waveforms[:num_units]
    labels = np.repeat(np.arange(num_units), spikes_per_unit)
    return DenseSpikes(np.concatenate(waveforms), labels, config.sampling_frequency)


def _cut_units(trial: Trial, *, spikes_per_unit: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Waveforms [spikes_per_unit, NUM_SAMPLES, 11] of each unit that has enough spikes and lies well inside."""
    highpass = butter(3, _HIGHPASS_HZ, btype="highpass", fs=trial.sampling_frequency, output="sos")
    traces = np.empty_like(trial.traces)
    # A channel at a time: the filter works in twice the precision.
    for channel in range(traces.shape[1]):
        traces[:, channel] = sosfiltfilt(highpass, trial.traces[:, channel])
    window = np.arange(-PEAK_SAMPLE, NUM_SAMPLES - PEAK_SAMPLE)
    cut = []
    for unit in range(len(trial.unit_names)):
        times = np.round(trial.spike_samples[trial.spike_labels == unit]).astype("int64")
        times = times[(times >= PEAK_SAMPLE) & (times + NUM_SAMPLES <= len(traces))]
        # A sorter crops around the channel on which a unit's mean is largest.
        main = int(np.abs(trial.templates[unit]).max(axis=0).argmax())
        if len(times) < spikes_per_unit or not NUM_BESIDE <= main < traces.shape[1] - NUM_BESIDE:
            continue
        chosen = np.sort(rng.choice(times, spikes_per_unit, replace=False))
        channels = np.arange(main - NUM_BESIDE, main + NUM_BESIDE + 1)
        cut.append(traces[(chosen[:, None] + window)[:, :, None], channels])
    return cut


def draw_spikes(
    spikes: DenseSpikes, *, seed: int, num_units: int = NUM_UNITS, spikes_per_unit: int = SPIKES_PER_UNIT
) -> DenseSpikes:
    """Draw units at random, and spikes of each.

    Parameters
    ----------
    spikes : DenseSpikes
        The set.
    seed : int
        Of the draw.
    num_units, spikes_per_unit : int
        How many.

    Returns
    -------
    DenseSpikes
        Its labels are those of the set.

    Raises
    ------
    ValueError
        The set has too few units with so many spikes.
    """
    rng = np.random.default_rng(seed)
    units, counts = np.unique(spikes.labels, return_counts=True)
    eligible = units[counts >= spikes_per_unit]
    if len(eligible) < num_units:
        raise ValueError(f"{num_units} units with {spikes_per_unit} spikes are needed; there are {len(eligible)}.")
    chosen = [
        rng.choice(np.flatnonzero(spikes.labels == unit), spikes_per_unit, replace=False)
        for unit in rng.choice(eligible, num_units, replace=False)
    ]
    index = np.concatenate(chosen)
    return DenseSpikes(spikes.waveforms[index], spikes.labels[index], spikes.sampling_frequency)


def as_tetrode(spikes: DenseSpikes) -> Tetrode:
    """Keep the four channels that are next to the main one, in the order of the probe, and it among them.

    They are the main channel, the one after it and the two before it, for every spike: which channels are large is not
    looked at, as it would tell the unit. SimSort's authors chose the same.

    Parameters
    ----------
    spikes : DenseSpikes
        Of a dense probe.

    Returns
    -------
    Tetrode
        As if a threshold had been crossed shortly before most spikes have their largest deflection.
    """
    main = spikes.waveforms.shape[2] // 2
    first = main - NUM_EMBEDDED // 2
    peak = int(np.abs(spikes.waveforms[:, :, main]).mean(axis=0).argmax())
    crossing = round(_CROSSING_MS * spikes.sampling_frequency / 1000)
    return Tetrode(
        sampling_frequency=spikes.sampling_frequency,
        times_s=np.arange(len(spikes.waveforms), dtype="float64"),
        waveforms=spikes.waveforms[:, :, first : first + NUM_EMBEDDED],
        samples_before=max(peak - crossing, 0),
    )


def embed(spikes: DenseSpikes, *, weights: Weights) -> np.ndarray:
    """Embed spikes, and keep the axes that tell units apart.

    Parameters
    ----------
    spikes : DenseSpikes
        Their noise is measured well before their peaks.
    weights : Weights
        With the embedder.

    Returns
    -------
    np.ndarray, float64 [num_spikes, num_axes]
    """
    config, network = weights.config["embedder"], weights.embedder
    rate = config["sampling_frequency"]
    num_before = round(config["ms_before"] * rate / 1000)
    num_samples: int = network.num_samples  # pyright: ignore[reportAssignmentType]
    waveforms = model_waveforms(
        as_tetrode(spikes),
        sampling_frequency=rate,
        num_before=num_before,
        num_after=num_samples - num_before,
        align_ms=_ALIGN_MS,
    )
    padded = pad_channels(waveforms, num_channels=network.num_channels)  # pyright: ignore[reportArgumentType]
    with torch.inference_mode():
        embedding = torch.cat([network(batch) for batch in torch.from_numpy(padded).split(1024)]).numpy()
    axes, centre = informative_axes(embedding)
    return (embedding - centre) @ axes


def all_features(spikes: DenseSpikes, *, weights: Weights, seed: int, umap: bool = False) -> dict[str, np.ndarray]:
    """Features of spikes, by every method.

    Parameters
    ----------
    spikes : DenseSpikes
        Of one draw: what methods learn, they learn of these, without labels.
    weights : Weights
        With the embedder.
    seed : int
        Of the methods.
    umap : bool
        Also reduce waveforms and embedding to the plane.

    Returns
    -------
    dict
        ``embedding``; ``pca3``, ``pca5`` and ``pca8`` of all channels; ``pca3_four_channels`` and so on of those that
        are embedded; with `umap`, ``umap`` and ``embedding_umap``. Each [num_spikes, num_features].
    """
    flat = spikes.waveforms.reshape(len(spikes.waveforms), -1)
    four = as_tetrode(spikes).waveforms.reshape(len(flat), -1)
    features = {"embedding": embed(spikes, weights=weights)}
    for suffix, points in (("", flat), ("_four_channels", four)):
        features |= {f"pca{dim}{suffix}": PCA(dim, random_state=seed).fit_transform(points) for dim in PCA_DIMENSIONS}
    if umap:
        # It takes seconds to import.
        from benchmarks.embedder import reduce_to_plane

        features["umap"] = reduce_to_plane(flat, method="umap", seed=seed)
        features["embedding_umap"] = reduce_to_plane(features["embedding"], method="umap", seed=seed)
    return features


def score(features: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> float:
    """ARI of a Gaussian mixture, told the number of units, of features that are brought to a common size.

    Parameters
    ----------
    features : np.ndarray, [num_spikes, num_features]
        Of one method.
    labels : np.ndarray, int [num_spikes]
        Units.
    seed : int
        Of the mixture.

    Returns
    -------
    float
        1 for the units themselves, about 0 for chance.
    """
    # Covariances are regularised by a fixed number, which must not be large or small against uV.
    scale = np.sqrt(features.var(axis=0).mean())
    return mixture_ari(features / (scale or 1.0), labels, num_starts=3, seed=seed)


def run(
    spikes: DenseSpikes,
    *,
    weights: Weights,
    num_seeds: int = 50,
    num_units: int = NUM_UNITS,
    spikes_per_unit: int = SPIKES_PER_UNIT,
    umap: bool = False,
) -> pd.DataFrame:
    """Score every method on a number of draws.

    Parameters
    ----------
    spikes : DenseSpikes
        The set.
    weights : Weights
        With the embedder.
    num_seeds : int
        Draws.
    num_units, spikes_per_unit : int
        Of each draw.
    umap : bool
        See `all_features`.

    Returns
    -------
    pandas.DataFrame
        Columns ``seed``, ``method`` and ``ari``, a row for each of either.

    Raises
    ------
    ValueError
        As for `draw_spikes`.
    """
    rows = []
    for seed in range(num_seeds):
        drawn = draw_spikes(spikes, seed=seed, num_units=num_units, spikes_per_unit=spikes_per_unit)
        for method, features in all_features(drawn, weights=weights, seed=seed, umap=umap).items():
            rows.append({"seed": seed, "method": method, "ari": score(features, drawn.labels, seed=seed)})
        logger.info("seed %d of %d", seed + 1, num_seeds)
    return pd.DataFrame(rows, columns=["seed", "method", "ari"])


def summary(table: pd.DataFrame) -> str:
    """Mean and standard error of every method, and how far the embedding is ahead, as a Markdown table."""
    wide = table.pivot(index="seed", columns="method", values="ari")[list(dict.fromkeys(table["method"]))]
    lines = ["| features | ARI | embedding ahead by |", "| --- | --- | --- |"]
    for method in wide.columns:
        ahead = wide["embedding"] - wide[method]
        lines.append(
            f"| {method} | {wide[method].mean():.3f} ± {wide[method].sem():.3f} "
            f"| {ahead.mean():.3f} ± {ahead.sem():.3f} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Print mean and standard error over seeds, and write a row for each seed and method as CSV."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ibl_waveforms", description=__doc__)
    parser.add_argument("--bank", type=Path, help="neuron bank that holds layer-6 cells (names L6_...), to simulate")
    parser.add_argument("--waveforms", type=Path, help="NPZ file of recorded waveforms (load_waveforms), in its place")
    parser.add_argument("--cells", default="L6", help="beginning of the cells' names in the bank (%(default)s)")
    parser.add_argument("--num-seeds", type=int, default=50, help="(%(default)s)")
    parser.add_argument("--num-units", type=int, default=NUM_UNITS, help="of each draw (%(default)s)")
    parser.add_argument("--spikes-per-unit", type=int, default=SPIKES_PER_UNIT, help="of each draw (%(default)s)")
    parser.add_argument("--weights", default="bundled", help="bundled, a folder or hf://... (%(default)s)")
    parser.add_argument("--umap", action="store_true", help="also reduce to the plane by UMAP")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.waveforms:
        spikes = load_waveforms(arguments.waveforms)
    elif arguments.bank:
        spikes = make_ibl_waveforms(load_bank(arguments.bank, include=(arguments.cells,)), seed=_FIRST_SEED)
    else:
        parser.error("name a neuron bank or a file of waveforms")
    table = run(
        spikes,
        weights=load_weights(arguments.weights),
        num_seeds=arguments.num_seeds,
        num_units=arguments.num_units,
        spikes_per_unit=arguments.spikes_per_unit,
        umap=arguments.umap,
    )
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.output, index=False, float_format="%.4f")
    sys.stdout.write(summary(table) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
