"""Waveforms of dense probes: what is read, how they are built, and how features are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.ibl_waveforms import (
    NUM_SAMPLES,
    PEAK_SAMPLE,
    DenseSpikes,
    all_features,
    as_tetrode,
    draw_spikes,
    embed,
    load_waveforms,
    main,
    make_ibl_waveforms,
    neuropixels_contacts,
    run,
    score,
    summary,
)
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import bundled_bank
from spikeinterface_simsort.weights import load_weights

RATE = 30000.0
# Short stretches whose units fire often.
CONFIG = TrialConfig(
    duration_s=4.0,
    num_units=4,
    num_far=2,
    cube_um=80.0,
    min_amplitude_uv=60.0,
    firing_rate_hz=(15.0, 25.0),
    noise_uv=5.0,
)


def units_of(*, num_units: int = 4, spikes_per_unit: int = 40, noise: float = 6.0, seed: int = 0) -> DenseSpikes:
    """Units whose spikes differ in width and in how they spread over the channels."""
    rng = np.random.default_rng(seed)
    offsets = np.arange(NUM_SAMPLES) - PEAK_SAMPLE
    labels = np.repeat(np.arange(num_units), spikes_per_unit)
    waveforms = noise * rng.standard_normal((len(labels), NUM_SAMPLES, 11))
    for unit in range(num_units):
        shape = np.exp(-0.5 * (offsets / (3.0 + 2.0 * unit)) ** 2)
        spread = np.exp(-0.5 * ((np.arange(11) - 5 - 0.4 * (unit - 1)) / 1.2) ** 2)
        waveforms[labels == unit] -= 150.0 * shape[:, None] * spread
    return DenseSpikes(waveforms.astype("float32"), labels, RATE)


def save(path: Path, spikes: DenseSpikes, *, without: str = "", **changed: Any) -> Path:
    arrays: dict[str, Any] = {
        "waveforms": spikes.waveforms,
        "labels": spikes.labels,
        "sampling_frequency": spikes.sampling_frequency,
    }
    arrays |= changed
    np.savez(path, **{name: array for name, array in arrays.items() if name != without})
    return path


@pytest.fixture(scope="module")
def built() -> DenseSpikes:
    return make_ibl_waveforms(bundled_bank(), seed=1, num_units=3, spikes_per_unit=20, config=CONFIG)


def test_perfect_features_score_one() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 100)
    features = 1000.0 * np.eye(10)[labels] + rng.normal(size=(1000, 10))
    assert score(features, labels) == 1.0
    # Whatever their unit.
    assert score(1e-6 * features, labels) == 1.0


def test_random_features_score_nothing() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 100)
    assert abs(score(rng.normal(size=(1000, 5)), labels)) < 0.02


def test_reads_what_was_written(tmp_path: Path) -> None:
    spikes = units_of()
    read = load_waveforms(save(tmp_path / "set.npz", spikes))
    np.testing.assert_array_equal(read.waveforms, spikes.waveforms)
    np.testing.assert_array_equal(read.labels, spikes.labels)
    assert read.sampling_frequency == RATE


@pytest.mark.parametrize("name", ["waveforms", "labels", "sampling_frequency"])
def test_missing_array(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"lacks {name}"):
        load_waveforms(save(tmp_path / "set.npz", units_of(), without=name))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"waveforms": np.zeros((160, 121))}, "odd number of channels"),
        ({"waveforms": np.zeros((160, 121, 10))}, "odd number of channels"),
        ({"waveforms": np.zeros((160, 121, 3))}, "odd number of channels"),
        ({"labels": np.zeros(12, dtype=int)}, "label of each of 160 spikes"),
        ({"labels": np.zeros(160)}, "whole number"),
        ({"sampling_frequency": 0.0}, "one positive sampling_frequency"),
    ],
)
def test_odd_array(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_waveforms(save(tmp_path / "set.npz", units_of(), **changed))


def test_contacts_of_a_neuropixels_probe() -> None:
    positions = neuropixels_contacts(4).positions
    assert positions.shape == (8, 3)
    np.testing.assert_allclose(positions.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.diff(positions[:, 1]), [0, 20, 0, 20, 0, 20, 0])
    # Four columns, of which the next row shows the other two.
    assert len(set(positions[:, 0])) == 4
    np.testing.assert_allclose(np.abs(np.diff(positions[::2, 0])), 16.0)


def test_set_that_is_built(built: DenseSpikes) -> None:
    assert built.waveforms.shape == (60, NUM_SAMPLES, 11) and built.waveforms.dtype == np.float32
    assert built.sampling_frequency == RATE
    np.testing.assert_array_equal(np.bincount(built.labels), [20, 20, 20])
    for unit in range(3):
        mean = np.abs(built.waveforms[built.labels == unit].mean(axis=0))
        sample, channel = np.unravel_index(mean.argmax(), mean.shape)
        # Filtered, contacts that are as near may change places.
        assert abs(sample - PEAK_SAMPLE) <= 3 and abs(channel - 5) <= 3
        assert mean[:, 5].max() > 0.7 * mean.max() > 20.0


def test_same_seed_same_set(built: DenseSpikes) -> None:
    again, other = (
        make_ibl_waveforms(bundled_bank(), seed=seed, num_units=3, spikes_per_unit=20, config=CONFIG) for seed in (1, 2)
    )
    np.testing.assert_array_equal(again.waveforms, built.waveforms)
    assert not np.array_equal(other.waveforms, built.waveforms)


def test_units_that_hardly_fire() -> None:
    config = TrialConfig(duration_s=0.2, num_units=1, num_far=0, cube_um=80.0)
    with pytest.raises(ValueError, match="gave 0 units with 1000 spikes"):
        make_ibl_waveforms(bundled_bank(), seed=0, num_units=1, spikes_per_unit=1000, config=config)


def test_draws() -> None:
    spikes = units_of(num_units=5)
    drawn = draw_spikes(spikes, seed=3, num_units=2, spikes_per_unit=30)
    assert np.unique(drawn.labels, return_counts=True)[1].tolist() == [30, 30]
    # No spike twice, and each with its own label.
    index = [int(np.flatnonzero((spikes.waveforms == waveform).all(axis=(1, 2)))[0]) for waveform in drawn.waveforms]
    assert len(set(index)) == 60
    np.testing.assert_array_equal(spikes.labels[index], drawn.labels)
    np.testing.assert_array_equal(draw_spikes(spikes, seed=3, num_units=2, spikes_per_unit=30).labels, drawn.labels)
    with pytest.raises(ValueError, match="2 units with 41 spikes are needed; there are 0"):
        draw_spikes(spikes, seed=0, num_units=2, spikes_per_unit=41)


def test_four_channels_around_the_main_one() -> None:
    spikes = units_of(num_units=1, noise=0.1)
    tetrode = as_tetrode(spikes)
    np.testing.assert_array_equal(tetrode.waveforms, spikes.waveforms[:, :, 3:7])
    assert tetrode.samples_before == PEAK_SAMPLE - 3


def test_features() -> None:
    spikes = units_of()
    features = all_features(spikes, weights=load_weights(), seed=0)
    assert list(features) == [
        "embedding",
        *(f"pca{dim}{suffix}" for suffix in ("", "_four_channels") for dim in (3, 5, 8)),
    ]
    assert all(len(feature) == len(spikes.labels) for feature in features.values())
    sizes = [features[name].shape[1] for name in list(features)[1:]]
    assert sizes == [3, 5, 8, 3, 5, 8]
    assert all(score(feature, spikes.labels) > 0.95 for feature in features.values())


def test_embedding_does_not_depend_on_the_unit_of_waveforms() -> None:
    spikes = units_of()
    scaled = DenseSpikes(1e-3 * spikes.waveforms, spikes.labels, RATE)
    weights = load_weights()
    distances = [np.linalg.norm(embed(s, weights=weights)[:20, None] - embed(s, weights=weights)[None, :20], axis=2)
                 for s in (spikes, scaled)]  # fmt: skip
    np.testing.assert_allclose(distances[0], distances[1], atol=0.05)


def test_table_and_summary(built: DenseSpikes) -> None:
    table = run(built, weights=load_weights(), num_seeds=2, num_units=3, spikes_per_unit=20)
    assert list(table.columns) == ["seed", "method", "ari"] and len(table) == 14
    assert table["ari"].between(-0.5, 1.0).all()
    lines = summary(table).splitlines()
    assert len(lines) == 9 and lines[2].startswith("| embedding | ") and lines[2].endswith("| 0.000 ± 0.000 |")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "set.npz", units_of(num_units=3, spikes_per_unit=20))
    output = tmp_path / "new" / "scores.csv"
    arguments = ["--waveforms", str(path), "--output", str(output), "--num-seeds", "2"]
    assert main([*arguments, "--num-units", "3", "--spikes-per-unit", "20"]) == 0
    assert "| pca5 |" in capsys.readouterr().out
    table = pd.read_csv(output)
    assert table.groupby("method").size().eq(2).all() and set(table["seed"]) == {0, 1}


def test_command_line_without_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "name a neuron bank or a file of waveforms" in capsys.readouterr().err
