"""The default networks in NumPy say what their torch modules say, and a CPU sorts without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeinterface_simsort.inference import TorchFunction, as_function
from spikeinterface_simsort.models import build_detector, build_embedder
from spikeinterface_simsort.perceptrons import PeakPerceptron, WaveformPerceptron, build_perceptron, gelu
from spikeinterface_simsort.weights import load_weights

DETECTOR = {"num_before": 6, "num_samples": 16, "hidden_size": 24, "num_layers": 2, "least_energy": 8.0}
EMBEDDER = {"num_samples": 20, "hidden_size": 24, "num_layers": 2, "embedding_dim": 5}


def tensors_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in network.state_dict().items()}


def noise(*shape: int, scale: float = 3.0) -> np.ndarray:
    return (scale * np.random.default_rng(0).normal(size=shape)).astype("float32")


def test_activation() -> None:
    values = np.concatenate([np.linspace(-9, 9, 2001), [0.0, -40.0, 40.0]]).astype("float32")
    before = values.copy()
    expected = torch.nn.functional.gelu(torch.from_numpy(values).double()).numpy()
    np.testing.assert_allclose(gelu(values), expected, atol=1e-6)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("num_windows", [1, 3])
def test_detector(num_windows: int) -> None:
    torch.manual_seed(0)
    network = build_detector(architecture="peak_perceptron", window_samples=256, **DETECTOR).eval()
    fast = PeakPerceptron(tensors_of(network), window_samples=256, **DETECTOR)
    traces = noise(num_windows, 256, 4)
    with torch.inference_mode():
        expected = network(torch.from_numpy(traces)).numpy()
    assert (expected > expected.min()).sum() > 20 * num_windows
    np.testing.assert_allclose(fast(traces), expected, atol=1e-5)
    # Windows that share their samples are read where they lie.
    overlapping = np.lib.stride_tricks.as_strided(traces[0], (5, 256, 4), (0, *traces[0].strides))
    np.testing.assert_allclose(fast(overlapping)[4], expected[0], atol=1e-5)


def test_detector_where_nothing_is() -> None:
    network = build_detector(architecture="peak_perceptron", window_samples=256, **DETECTOR).eval()
    fast = PeakPerceptron(tensors_of(network), window_samples=256, **DETECTOR)
    silent = np.zeros((2, 256, 4), dtype="float32")
    np.testing.assert_array_equal(fast(silent), network(torch.from_numpy(silent)).detach().numpy())


@pytest.mark.parametrize("num_spikes", [0, 1, 1500])
def test_embedder(num_spikes: int) -> None:
    torch.manual_seed(0)
    network = build_embedder(architecture="perceptron", **EMBEDDER).eval()
    fast = WaveformPerceptron(tensors_of(network), **EMBEDDER)
    waveforms = noise(num_spikes, 20, 4, scale=10.0)
    with torch.inference_mode():
        expected = network(torch.from_numpy(waveforms)).numpy()
    np.testing.assert_allclose(fast(waveforms), expected, atol=1e-5)


def test_released_networks() -> None:
    slow, fast = load_weights(), load_weights(trainable=False)
    assert isinstance(fast.detector, PeakPerceptron) and isinstance(fast.embedder, WaveformPerceptron)
    waveforms, windows = noise(200, 48, 4, scale=8.0), noise(2, 2048, 4, scale=4.0)
    for role, inputs in (("detector", windows), ("embedder", waveforms)):
        one, other = (as_function(getattr(w, role), device="cpu", batch_size=64)(inputs) for w in (slow, fast))
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert slow.config == fast.config


def test_torch_in_batches() -> None:
    network = build_embedder(architecture="perceptron", **EMBEDDER)
    waveforms = noise(10, 20, 4)
    whole, batches = (TorchFunction(network, device="cpu", batch_size=size)(waveforms) for size in (10, 3))
    assert whole.dtype == np.float32 and not network.training
    np.testing.assert_allclose(whole, batches, atol=1e-5)


@pytest.mark.parametrize(
    ("role", "architecture", "kwargs"),
    [
        ("detector", "patch_transformer", {}),
        ("embedder", "gru", {}),
        ("embedder", "perceptron", {**EMBEDDER, "svd_rank": 5}),
        ("embedder", "perceptron", {**EMBEDDER, "hidden_size": 25}),
        ("embedder", "perceptron", {**EMBEDDER, "num_layers": 3}),
        ("embedder", "perceptron", {**EMBEDDER, "num_layers": 1}),
        ("embedder", "perceptron", {}),
        ("detector", "perceptron", EMBEDDER),
    ],
)
def test_other_networks_are_left_to_torch(role: str, architecture: str, kwargs: dict) -> None:
    tensors = tensors_of(build_embedder(architecture="perceptron", **EMBEDDER))
    assert build_perceptron(role, architecture=architecture, kwargs=kwargs, tensors=tensors) is None


def test_a_network_with_temporal_components_is_left_to_torch() -> None:
    network = build_embedder(architecture="perceptron", svd_rank=5, **EMBEDDER)
    tensors = tensors_of(network)
    assert build_perceptron("embedder", architecture="perceptron", kwargs=EMBEDDER, tensors=tensors) is None


SORT = """
import json, sys
import spikeinterface as si
import spikeinterface.sorters as ss
import spikeinterface_simsort
recording = si.load(sys.argv[1])
sorting = ss.run_sorter("simsort", recording, folder=sys.argv[2], device=sys.argv[3])
slow = ("torch", "scipy.signal", "scipy.stats", "sklearn", "pandas", "matplotlib.pyplot", "huggingface_hub")
print(json.dumps([len(sorting.unit_ids), [name for name in slow if name in sys.modules]]))
"""


def test_nothing_slow_is_loaded(trial_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SORT, str(trial_folder / "recording"), str(tmp_path / "sorted"), "cpu"]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    num_units, loaded = json.loads(result.stdout.splitlines()[-1])
    assert num_units >= 3 and loaded == []
