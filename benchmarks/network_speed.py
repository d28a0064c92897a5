"""How fast the networks are on this machine: the detector against real time, the embedder in spikes a second."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from spikeinterface_simsort.detection import NetworkPeakDetector
from spikeinterface_simsort.embedding import NetworkEmbedder
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.preprocessing import preprocess
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import make_trial
from spikeinterface_simsort.weights import Weights, load_weights


def median_seconds(task: Callable[[], object], *, repeats: int = 5) -> float:
    """Median wall time of a task, once it has been run."""
    task()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def measure(weights: Weights, *, duration_s: float = 20.0, num_spikes: int = 20_000) -> dict[str, float]:
    """Time the networks within their nodes, resampling and peak search included.

    Parameters
    ----------
    weights : Weights
        The networks.
    duration_s : float
        Of the tetrode recording, at 30 kHz.
    num_spikes : int
        To embed.

    Returns
    -------
    dict
        ``detector`` in times real time, ``embedder`` in spikes a second.
    """
    recording, _ = make_trial(config=TrialConfig(duration_s=duration_s), seed=0)
    preprocessed = preprocess(recording, params=SimSortParams().resolve())
    config = weights.config
    detector = NetworkPeakDetector(
        preprocessed,
        network=weights.detector,
        model_frequency=config["detector"]["sampling_frequency"],
        threshold=config["detector"]["threshold"],
    )
    margin = detector.get_margin()
    traces = preprocessed.get_traces()
    inner = (margin, len(traces) - margin)
    seconds = median_seconds(lambda: detector.compute(traces, *inner, 0, margin))
    embedder = NetworkEmbedder(
        preprocessed,
        parents=[],
        network=weights.embedder,
        model_frequency=config["embedder"]["sampling_frequency"],
        ms_before=config["embedder"]["ms_before"],
    )
    waveforms = np.random.default_rng(0).normal(size=(num_spikes, embedder.num_samples, 4)).astype("float32")
    return {
        "detector": (inner[1] - inner[0]) / recording.get_sampling_frequency() / seconds,
        "embedder": num_spikes / median_seconds(lambda: embedder.embed(waveforms)),
    }


def main(argv: list[str] | None = None) -> int:
    """Print both speeds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network_speed", description=__doc__)
    parser.add_argument("--weights", default="bundled", help="bundled, a folder or hf://... (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (%(default)s)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    speed = measure(load_weights(arguments.weights))
    sys.stdout.write(
        f"detector: {speed['detector']:.1f} x real time (4 channels, 30 kHz)\n"
        f"embedder: {speed['embedder']:.0f} spikes a second\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
