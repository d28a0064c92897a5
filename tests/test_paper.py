"""The paper's preset, and its networks inside the sorter: they need not have learned anything to be run."""

import pytest
import spikeinterface.sorters as ss
import torch

from spikeinterface_simsort.models import build_detector, build_embedder
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.pipeline import detect_and_embed
from spikeinterface_simsort.preprocessing import preprocess
from spikeinterface_simsort.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def paper_weights(tmp_path_factory):
    torch.manual_seed(0)
    detector = {"width": 16, "num_layers": 1, "num_heads": 2, "window_samples": 200}
    embedder = {"num_samples": 60, "hidden_size": 32, "svd_rank": 5}
    config = {
        "name": "tiny-paper",
        "detector": {
            "architecture": "sample_transformer",
            "sampling_frequency": 10000.0,
            "threshold": 0.97,
            "kwargs": detector,
        },
        "embedder": {
            "architecture": "gru",
            "sampling_frequency": 10000.0,
            "ms_before": 2.0,
            "ms_after": 4.0,
            "kwargs": embedder,
        },
    }
    return save_weights(
        tmp_path_factory.mktemp("paper") / "weights",
        detector=build_detector(architecture="sample_transformer", **detector),
        embedder=build_embedder(architecture="gru", **embedder),
        config=config,
        card="# Tiny\n",
    )


def test_threshold_of_the_paper(trial, paper_weights):
    params = SimSortParams(preset="paper", weights=str(paper_weights), job_kwargs={"progress_bar": False}).resolve()
    weights = load_weights(params.weights)
    preprocessed = preprocess(trial[0].frame_slice(0, 3 * 30000), params=params)
    certain, _, _ = detect_and_embed(preprocessed, weights=weights, params=params)
    assert (certain["probability"] >= 0.97).all()
    likely = SimSortParams(preset="paper", detect_threshold=0.3, job_kwargs={"progress_bar": False}).resolve()
    peaks, waveforms, embedding = detect_and_embed(preprocessed, weights=weights, params=likely)
    assert len(peaks) > len(certain)
    assert waveforms.shape == (len(peaks), 60 * 4)
    assert embedding.shape == (len(peaks), 32)
    # Nothing outside the five components reaches the network.
    basis = weights.embedder.svd_basis
    assert basis.shape == (5, 60)
    example = torch.randn(3, 60, 4)
    projected = basis.T @ (basis @ example)
    torch.testing.assert_close(weights.embedder(example), weights.embedder(projected))


def test_run_sorter(trial, paper_weights, tmp_path):
    pytest.importorskip("umap")
    sorting = ss.run_sorter(
        "simsort",
        trial[0].frame_slice(0, 2 * 30000),
        folder=tmp_path / "out",
        preset="paper",
        weights=str(paper_weights),
        detect_threshold=0.3,
        min_snr=0.0,
    )
    assert len(sorting.unit_ids) >= 1


def test_preset_with_the_bundled_weights(trial, tmp_path):
    pytest.importorskip("umap")
    sorting = ss.run_sorter("simsort", trial[0], folder=tmp_path / "out", preset="paper")
    assert len(sorting.unit_ids) >= 1
