"""Reductions and clusterings: on blobs that each must tell apart, and what becomes of those that fail."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting

from benchmarks import clustering_ablation
from benchmarks.clustering_ablation import (
    CLUSTERINGS,
    COLUMNS,
    KNOWING_NUM_UNITS,
    REDUCTIONS,
    ablate,
    as_markdown,
    cluster,
    draw,
    main,
    reduce,
    run,
    score_ways,
    summarise,
)
from spikeinterface_simsort.weights import load_weights

# Of these no library takes long to load.
QUICK = {"reductions": ("none", "pca"), "clusterings": ("gmm", "kmeans")}


def need(method: str) -> None:
    """Skip where a library is not installed."""
    library = {"umap": "umap", "hdbscan": "hdbscan", "isosplit": "isosplit6"}.get(method)
    if library is not None:
        pytest.importorskip(library)


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Three clusters of unit variance, 40 apart: points [240, 6] and their labels."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(3), 80))
    return 28.0 * np.eye(3, 6)[labels] + rng.standard_normal((240, 6)), labels


@pytest.fixture
def dataset(trial_folder: Path, tmp_path: Path) -> Path:
    """A family of two recordings, which are the same, and folders that are none."""
    folder = tmp_path / "datasets"
    for name in ("9", "10"):
        shutil.copytree(trial_folder, folder / "family" / name)
    (folder / "other" / "1" / "recording").mkdir(parents=True)
    (folder / "family" / "README.md").write_text("of no concern")
    return folder


@pytest.mark.parametrize("method", CLUSTERINGS)
@pytest.mark.parametrize("dim", [2, 6])
def test_every_clustering_finds_blobs(blobs: tuple[np.ndarray, np.ndarray], method: str, dim: int) -> None:
    need(method)
    points, labels = blobs
    # With the default quantile MeanShift looks at a sixth of a blob, and finds several peaks in it.
    found = cluster(points[:, :dim], method=method, num_units=3, bandwidth_quantile=0.2)
    assert found.dtype == np.int64 and found.shape == (240,) and found.min() in (-1, 0)
    assert adjusted_rand_score(labels, found) > 0.95


@pytest.mark.parametrize("method", REDUCTIONS)
def test_every_reduction_keeps_blobs_apart(blobs: tuple[np.ndarray, np.ndarray], method: str) -> None:
    need(method)
    points, labels = blobs
    reduced = reduce(points, method=method, dim=2, seed=1)
    assert reduced.shape == (240, 6 if method == "none" else 2) and reduced.dtype == np.float64
    np.testing.assert_array_equal(reduced, reduce(points, method=method, dim=2, seed=1))
    assert adjusted_rand_score(labels, cluster(reduced, method="gmm", num_units=3)) > 0.95
    if method in ("tsne", "umap"):
        np.testing.assert_allclose(reduced.std(axis=0), 1.0)


@pytest.mark.parametrize("method", ["pca", "tsne", "umap"])
def test_reduces_to_more_dimensions(blobs: tuple[np.ndarray, np.ndarray], method: str) -> None:
    need(method)
    assert reduce(blobs[0][::6], method=method, dim=4).shape == (40, 4)


@pytest.mark.parametrize("method", CLUSTERINGS)
def test_clusters_come_from_the_seed(method: str) -> None:
    need(method)
    points = np.random.default_rng(3).standard_normal((120, 3))
    first, again = (cluster(points, method=method, num_units=4, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_identical_spikes_are_one_cluster() -> None:
    assert not cluster(np.ones((50, 4)), method="meanshift", num_units=2).any()


def test_unknown_methods() -> None:
    with pytest.raises(ValueError, match="one of .* not 'lda'"):
        reduce(np.ones((5, 2)), method="lda")
    with pytest.raises(ValueError, match="one of .* not 'dbscan'"):
        cluster(np.ones((5, 2)), method="dbscan", num_units=2)


def test_a_failure_is_a_row(blobs: tuple[np.ndarray, np.ndarray], caplog: pytest.LogCaptureFixture) -> None:
    points, labels = blobs
    with caplog.at_level(logging.ERROR):
        table = score_ways(
            {"embedding": points}, labels, reductions=("lda", "none"), clusterings=("dbscan", "gmm"), dim=2
        )
    assert list(table.columns) == list(COLUMNS) and len(table) == 4
    failed, scored = table[table["error"] != ""], table[table["error"] == ""]
    assert failed["ari"].isna().all() and (failed["num_clusters"] == 0).all()
    assert list(failed["reduction"]) == ["lda", "lda", "none"]
    assert failed["error"].str.startswith("ValueError: The ").all()
    assert "lda of embeddings failed" in caplog.text and "dbscan after none of embeddings failed" in caplog.text
    assert list(scored["clustering"]) == ["gmm"] and (scored["ari"] > 0.99).all()
    assert list(table["knows_num_units"]) == [False, True, False, True]


def test_a_library_that_is_not_installed_is_a_row(
    blobs: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hdbscan", None)
    table = score_ways({"waveform": blobs[0]}, blobs[1], reductions=("none",), clusterings=("hdbscan", "kmeans"))
    assert "hdbscan" in table.loc[0, "error"] and table.loc[1, "error"] == ""


def test_noise_is_no_cluster_but_counts(blobs: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    points, labels = blobs
    monkeypatch.setattr(clustering_ablation, "cluster", lambda points, **options: np.where(labels == 0, -1, labels))
    table = score_ways({"embedding": points}, labels, reductions=("none",), clusterings=("hdbscan",))
    assert table.loc[0, "num_clusters"] == 2 and table.loc[0, "ari"] == 1.0


def test_recording_is_scored(trial: tuple[BaseRecording, BaseSorting]) -> None:
    recording, truth = trial
    table = ablate(recording, truth, weights=load_weights(), max_spikes=300, dim=3, **QUICK)
    assert list(table["features"]) == ["embedding"] * 4 + ["waveform"] * 4 + ["embedding"]
    assert not table["error"].any() and (table["seconds"] > 0).all()
    told = table["clustering"].isin(KNOWING_NUM_UNITS)
    assert (table["knows_num_units"] == told).all() and (table.loc[told, "num_clusters"] == 4).all()
    scores = table.set_index(["features", "reduction", "clustering"])["ari"]
    assert scores["embedding", "none", "gmm"] > 0.9 and scores["embedding", "none", "simsort"] > 0.8
    again = ablate(recording, truth, weights=load_weights(), max_spikes=300, dim=3, **QUICK)
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), again.drop(columns="seconds"))


def test_one_unit_leaves_nothing_to_tell_apart(trial: tuple[BaseRecording, BaseSorting]) -> None:
    recording, truth = trial
    with pytest.raises(ValueError, match="fewer than two units"):
        ablate(recording, truth.select_units(truth.unit_ids[:1]), weights=load_weights(), **QUICK)


def test_finished_recordings_are_skipped(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights, parts = load_weights(), tmp_path / "parts"
    options = {"weights": weights, "parts": parts, "max_spikes": 200, **QUICK}
    first = run(dataset, num_recordings=1, **options)
    assert (parts / "family" / "9.csv").is_file() and not list(parts.rglob("*.unfinished"))

    done = []

    def counted(*arguments, **keywords):
        done.append(arguments[0])
        return ablate(*arguments, **keywords)

    monkeypatch.setattr(clustering_ablation, "ablate", counted)
    both = run(dataset, **options)
    assert len(done) == 1 and list(both["recording"].unique()) == ["9", "10"]
    again = run(dataset, **options)
    assert len(done) == 1
    pd.testing.assert_frame_equal(again, both)
    pd.testing.assert_frame_equal(again[:9], first)
    # What was made otherwise is not mixed with it.
    with pytest.raises(ValueError, match=r"other settings \(dim, seed\)"):
        run(dataset, seed=1, dim=3, **options)
    assert len(done) == 1

    # A recording of one unit is left out.
    NumpySorting.from_unit_dict([{0: np.array([500, 900])}], 30000.0).save(
        folder=dataset / "family" / "10" / "sorting", overwrite=True
    )
    (parts / "family" / "10.csv").unlink()
    with caplog.at_level(logging.WARNING):
        assert list(run(dataset, **options)["recording"].unique()) == ["9"]
    assert "family/10 has fewer than two units" in caplog.text


def test_means_and_their_picture(tmp_path: Path) -> None:
    way = {"features": "embedding", "reduction": "none", "clustering": "gmm", "knows_num_units": True, "seconds": 1.0}
    failure = {"ari": float("nan"), "num_clusters": 0, "error": "ValueError: no"}
    rows = [
        way | {"recording": "1", "ari": 0.4, "num_clusters": 2, "error": ""},
        way | {"recording": "2", "ari": 0.8, "num_clusters": 4, "error": ""},
        way | {"recording": "3"} | failure,
        way | {"recording": "1", "reduction": "umap", "clustering": "hdbscan", "knows_num_units": False} | failure,
        way | {"recording": "1", "clustering": "simsort", "ari": 0.9, "num_clusters": 3, "error": ""},
        way | {"recording": "1", "features": "waveform", "ari": 0.3, "num_clusters": 3, "error": ""},
    ]
    means = summarise(pd.DataFrame(rows))
    first = means.iloc[0]
    assert first["ari"] == pytest.approx(0.6) and first["ari_sem"] == pytest.approx(0.2)
    assert first["num_clusters"] == 3.0 and (first["num_recordings"], first["num_failed"]) == (3, 1)
    lines = as_markdown(means).splitlines()
    assert "| embedding | none | gmm* | 0.600 ± 0.200 | 3.0 | 1.0 | 1 of 3 |" in lines
    assert "| embedding | umap | hdbscan | – | – | 1.0 | 1 of 1 |" in lines
    draw(means, tmp_path / "pictures" / "ablation.png")
    assert (tmp_path / "pictures" / "ablation.png").stat().st_size > 5000


def test_command_line(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def quick(*arguments, **keywords):
        return ablate(*arguments, **keywords | QUICK)

    monkeypatch.setattr(clustering_ablation, "ablate", quick)
    output, figure = tmp_path / "out" / "ablation.csv", tmp_path / "out" / "ablation.png"
    arguments = ["--datasets", str(dataset), "--output", str(output), "--figure", str(figure)]
    assert main([*arguments, "--num-recordings", "1", "--max-spikes", "200"]) == 0
    assert "| embedding | none | simsort |" in capsys.readouterr().out
    assert list(pd.read_csv(output).columns) == ["family", "recording", *COLUMNS]
    assert (output.parent / "ablation.csv.parts" / "family" / "9.csv").is_file() and figure.is_file()
    with pytest.raises(SystemExit, match="2"):
        main(["--datasets", str(tmp_path / "nothing")])
    assert "holds no recordings" in capsys.readouterr().err
