"""Predicted accuracy: what units are described by, what the model says of good and bad ones, and how it is fitted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from spikeinterface.core import BaseRecording, BaseSorting

from spikeinterface_simsort.confidence import ASSET, FEATURES, AccuracyModel, unit_features
from spikeinterface_simsort.detection import peak_dtype
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.pipeline import sort
from spikeinterface_simsort.refinement import Unit
from spikeinterface_simsort.training.confidence import best_accuracies, fit_model, score_units
from spikeinterface_simsort.weights import load_weights

RATE, SECONDS = 20_000.0, 100.0
NUM_SAMPLES, NUM_CHANNELS = 48, 4


def template(amplitudes: tuple[float, ...], *, width: float = 3.0) -> np.ndarray:
    """A trough and a slower peak, in units of noise, float64 [num_samples * num_channels]."""
    samples = np.arange(NUM_SAMPLES) - 16
    shape = -np.exp(-((samples / width) ** 2)) + 0.3 * np.exp(-(((samples - 4 * width) / (2 * width)) ** 2))
    return (shape[:, None] * np.array(amplitudes)).reshape(-1)


LEFT, RIGHT = template((12, 6, 3, 2)), template((2, 4, 12, 7), width=4.0)


def train(num_spikes: int, *, rng: np.random.Generator) -> np.ndarray:
    """Frames of a neuron that is silent for 2 ms after each spike."""
    free = int(SECONDS * RATE) - num_spikes * 40
    return np.sort(rng.choice(free, num_spikes, replace=False)) + 40 * np.arange(num_spikes)


def make_units(
    neurons: list[list[tuple[np.ndarray, int]]], *, probability: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[Unit]]:
    """Peaks, waveforms and units, each of which holds the spikes of some neurons: mean waveform, number of spikes."""
    rng = np.random.default_rng(seed)
    frames, waveforms, labels = [], [], []
    for label, members in enumerate(neurons):
        for mean, num_spikes in members:
            frames.append(train(num_spikes, rng=rng))
            amplitude = rng.normal(1.0, 0.05, (num_spikes, 1))
            waveforms.append(amplitude * mean + rng.standard_normal((num_spikes, NUM_SAMPLES * NUM_CHANNELS)))
            labels.append(np.full(num_spikes, label))
    order = np.argsort(np.concatenate(frames), kind="stable")
    peaks = np.zeros(len(order), dtype=peak_dtype)
    peaks["sample_index"], peaks["probability"] = np.concatenate(frames)[order], probability
    label_of = np.concatenate(labels)[order]
    units = [as_unit(np.flatnonzero(label_of == label), probability=probability) for label in range(len(neurons))]
    return peaks, np.concatenate(waveforms)[order].astype("float16"), units


def as_unit(spikes: np.ndarray, *, probability: float = 1.0, snr: float = 12.0) -> Unit:
    mean = np.zeros((NUM_SAMPLES, NUM_CHANNELS), dtype="float32")
    return Unit(spikes=spikes, template=mean, snr=snr, channel_index=0, probability=probability)


def features_of(
    peaks: np.ndarray,
    waveforms: np.ndarray,
    units: list[Unit],
    *,
    is_matched: bool = True,
    num_frames: tuple[int, ...] = (int(SECONDS * RATE),),
) -> dict[str, np.ndarray]:
    table = unit_features(
        peaks, waveforms, units, is_matched=is_matched, sampling_frequency=RATE, num_frames=num_frames, seed=0
    )
    assert table.shape == (len(units), len(FEATURES)) and np.isfinite(table).all()
    return dict(zip(FEATURES, table.T, strict=True))


def predicted(features: dict[str, np.ndarray]) -> np.ndarray:
    accuracies = AccuracyModel.load().predict(np.column_stack(list(features.values())))
    assert ((accuracies >= 0) & (accuracies <= 1)).all()
    return accuracies


# What units are described by


def test_features_of_a_clean_unit() -> None:
    features = features_of(*make_units([[(LEFT, 1000)], [(RIGHT, 500)]]))
    assert (features["is_matched"] == 1).all()
    np.testing.assert_allclose(features["doubt"], np.log(1e-3))
    np.testing.assert_allclose(features["rate"], np.log([10.0, 5.0]))
    np.testing.assert_allclose(np.exp(features["snr"]), 12.0)
    # Noise has variance 1; amplitudes that vary leave nothing.
    np.testing.assert_allclose(features["residual"], 0.0, atol=0.05)
    assert (features["violations"] == 0).all() and (features["unevenness"] < -1.8).all()
    assert (features["overlap"] < -6.5).all()


def test_two_neurons_in_one_unit_show() -> None:
    features = features_of(*make_units([[(LEFT, 1000), (RIGHT, 1000)], [(LEFT, 1000)]]))
    # Half of the pairs of a mixture of two are of both.
    assert 0.3 < features["violations"][0] < 0.7 and features["violations"][1] == 0
    assert features["residual"][0] > features["residual"][1] + 0.5
    assert features["elongation"][0] > 1.0 > 0.3 > features["elongation"][1]


@pytest.mark.parametrize("gap", [2.0, 3.0])
def test_overlap_is_that_of_two_gaussians(gap: float) -> None:
    offset = np.zeros_like(LEFT)
    offset[60], offset[90] = 0.6 * gap, 0.8 * gap
    features = features_of(*make_units([[(LEFT, 2000)], [(LEFT + offset, 2000)]]))
    # Of either, so many are the other's, and as many of the other's are its own.
    np.testing.assert_allclose(np.exp(features["overlap"]), 2 * norm.cdf(-gap / 2), rtol=0.35)


def test_of_two_that_overlap_the_smaller_one_suffers_more() -> None:
    offset = np.zeros_like(LEFT)
    offset[60] = 2.0
    features = features_of(*make_units([[(LEFT, 3000)], [(LEFT + offset, 300)]]))
    assert features["overlap"][1] > features["overlap"][0] + 1


def test_a_unit_that_comes_and_goes_is_uneven() -> None:
    peaks, waveforms, units = make_units([[(LEFT, 600)], [(RIGHT, 600)]])
    late = units[0].spikes[300:]
    features = features_of(peaks, waveforms, [as_unit(late), units[1]])
    assert features["unevenness"][0] > features["unevenness"][1] + 1


def test_segments_are_apart() -> None:
    peaks, waveforms, units = make_units([[(LEFT, 1000)]])
    whole = features_of(peaks, waveforms, units)
    half = int(SECONDS * RATE / 2)
    parts = peaks.copy()
    parts["segment_index"] = peaks["sample_index"] >= half
    parts["sample_index"] -= half * parts["segment_index"]
    cut = features_of(parts, waveforms, units, num_frames=(half, half))
    for name in FEATURES:
        np.testing.assert_allclose(cut[name], whole[name])
    # One after the other, and not at the same time.
    first = parts[parts["segment_index"] == 0]
    both = np.concatenate([first, first])
    both["segment_index"] = np.repeat([0, 1], len(first))
    twice = features_of(
        both,
        np.resize(waveforms, (len(both), waveforms.shape[1])),
        [as_unit(np.arange(len(both)))],
        num_frames=(half, half),
    )
    assert twice["violations"][0] == 0


# What is predicted


def test_a_mixture_gets_less_than_either_neuron_alone() -> None:
    other = template((10, 8, 4, 2))
    alone = predicted(features_of(*make_units([[(LEFT, 800)], [(other, 800)], [(RIGHT, 800)]])))
    mixed = predicted(features_of(*make_units([[(LEFT, 800), (other, 800)], [(RIGHT, 800)]])))
    assert alone.min() > 0.85
    assert mixed[0] < alone.min() - 0.1
    assert mixed[1] > 0.85


def test_clear_units_get_more_than_units_that_overlap() -> None:
    offset = np.zeros_like(LEFT)
    offset[60] = 1.5
    apart = predicted(features_of(*make_units([[(LEFT, 500)], [(RIGHT, 500)]])))
    near = predicted(features_of(*make_units([[(LEFT, 500)], [(LEFT + offset, 500)]])))
    assert near.max() < apart.min() - 0.2


@pytest.mark.parametrize("is_matched", [True, False])
def test_noise_gets_little(is_matched: bool) -> None:
    faint = template((2.5, 1, 0, 0))
    peaks, waveforms, units = make_units([[(LEFT, 800)], [(faint, 60)]], probability=0.97)
    units[1] = as_unit(units[1].spikes, probability=0.55, snr=2.5)
    accuracies = predicted(features_of(peaks, waveforms, units, is_matched=is_matched))
    assert accuracies[1] < 0.35 < 0.7 < accuracies[0]


def test_the_same_units_get_the_same() -> None:
    units = make_units([[(LEFT, 1500)], [(RIGHT, 1500)]])
    first = features_of(*units)
    np.random.seed(1)  # noqa: NPY002  whatever others do to it
    second = features_of(*units)
    for name in FEATURES:
        np.testing.assert_array_equal(first[name], second[name])


def test_no_unit() -> None:
    peaks, waveforms, _ = make_units([[(LEFT, 10)]])
    assert predicted(features_of(peaks, waveforms, [])).shape == (0,)


@pytest.mark.parametrize("num_spikes", [1, 2, 10])
@pytest.mark.parametrize("num_units", [1, 2])
def test_few_spikes(num_spikes: int, num_units: int) -> None:
    accuracies = predicted(features_of(*make_units([[(LEFT, num_spikes)], [(RIGHT, num_spikes)]][:num_units])))
    many = predicted(features_of(*make_units([[(LEFT, 1000)], [(RIGHT, 1000)]][:num_units])))
    assert (accuracies < many).all()


@pytest.mark.parametrize("value", [0.0, 3.0, np.inf])
def test_identical_waveforms(value: float) -> None:
    peaks, waveforms, units = make_units([[(LEFT, 50)], [(RIGHT, 50)]])
    predicted(features_of(peaks, np.full_like(waveforms, value), units))


def test_one_channel() -> None:
    peaks, waveforms, units = make_units([[(LEFT, 300)], [(RIGHT, 300)]])
    units = [replace(unit, template=unit.template[:, :1]) for unit in units]
    predicted(features_of(peaks, waveforms[:, ::NUM_CHANNELS], units))


def test_what_lies_beyond_the_fitted_range_counts_as_its_end() -> None:
    model = AccuracyModel.load()
    inside = np.stack([model.low, model.high])
    np.testing.assert_array_equal(model.predict(inside + [[-1e6], [1e6]]), model.predict(inside))


# In a sorting


def test_units_of_a_sorting_have_it(sorted_trial: BaseSorting, trial: tuple[BaseRecording, BaseSorting]) -> None:
    accuracies = sorted_trial.get_property("predicted_accuracy")
    assert accuracies.dtype.kind == "f" and ((accuracies > 0) & (accuracies < 1)).all()
    trains = [sorted_trial.get_unit_spike_train(unit) for unit in sorted_trial.unit_ids]
    truth = [trial[1].get_unit_spike_train(unit) for unit in trial[1].unit_ids]
    true_accuracies = best_accuracies(trains, truth, delta_frames=trial[0].sampling_frequency / 1000)
    assert abs(accuracies.mean() - true_accuracies.mean()) < 0.2


@pytest.mark.parametrize("match_templates", [True, False])
def test_scored_units_are_those_of_the_sorting(
    match_templates: bool, sorted_trial: BaseSorting, trial: tuple[BaseRecording, BaseSorting]
) -> None:
    params = SimSortParams(match_templates=match_templates, job_kwargs={"progress_bar": False}).resolve()
    sorting = sorted_trial if match_templates else sort(trial[0], params=params)
    table = score_units(*trial, weights=load_weights(), params=params)
    assert list(table["num_spikes"]) == list(sorting.count_num_spikes_per_unit(outputs="array"))
    assert table["accuracy"].max() > 0.7 and (table["is_matched"] == match_templates).all()
    assert not table["is_merged"].any()
    expected = AccuracyModel.load().predict(table[list(FEATURES)].to_numpy())
    # One was computed with NumPy, the other with torch.
    np.testing.assert_allclose(sorting.get_property("predicted_accuracy"), expected, rtol=1e-5)


# How it is fitted


def test_two_units_made_one(trial: tuple[BaseRecording, BaseSorting]) -> None:
    params = SimSortParams(match_templates=False, job_kwargs={"progress_bar": False}).resolve()
    table = score_units(*trial, weights=load_weights(), params=params, num_merged=2)
    merged, found = table[table["is_merged"]], table[~table["is_merged"]]
    assert len(merged) == 2 and len(found) >= 3
    sizes = found["num_spikes"].to_numpy()
    sums = sizes[:, None] + sizes
    assert set(merged["num_spikes"]) <= set(sums[np.triu_indices(len(sizes), 1)])
    assert merged["accuracy"].max() < found["accuracy"].max() and (merged["accuracy"] > 0.2).all()


def make_model(*, seed: int = 0) -> AccuracyModel:
    rng, num = np.random.default_rng(seed), len(FEATURES)
    return AccuracyModel(
        low=np.full(num, -2.0),
        high=np.full(num, 2.0),
        centre=np.zeros(num),
        scale=np.ones(num),
        coefficients=np.concatenate([[0.3], rng.normal(0, 0.6, num), rng.normal(0, 0.15, num * (num + 1) // 2)]),
    )


def test_the_asset_is_what_a_fit_writes(tmp_path: Path) -> None:
    written = tmp_path / "confidence.json"
    AccuracyModel.load().save(written, made=json.loads(ASSET.read_text("utf-8"))["made"])
    assert written.read_text("utf-8") == ASSET.read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["confidence.json"]


def test_a_model_survives_writing(tmp_path: Path) -> None:
    model = make_model(seed=1)
    model.save(tmp_path / "model.json", made={})
    features = np.random.default_rng(3).normal(size=(20, len(FEATURES)))
    read = AccuracyModel.load(tmp_path / "model.json")
    np.testing.assert_allclose(read.predict(features), model.predict(features), atol=1e-4)


def test_a_model_of_other_features_is_refused(tmp_path: Path) -> None:
    content = json.loads(ASSET.read_text("utf-8")) | {"features": ["rate"]}
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="fit it again"):
        AccuracyModel.load(tmp_path / "model.json")


def test_a_fit_finds_the_model_that_made_the_accuracies() -> None:
    rng = np.random.default_rng(0)
    features, others = (rng.normal(size=(num, len(FEATURES))) for num in (3000, 500))
    truth = make_model()
    # What is seen are noisy accuracies.
    seen = np.clip(truth.predict(features) + rng.normal(0, 0.1, len(features)), 0, 1)
    model = fit_model(features, seen)
    assert np.corrcoef(model.predict(others), truth.predict(others))[0, 1] > 0.98
    assert np.abs(model.predict(others) - truth.predict(others)).mean() < 0.04


def test_a_feature_that_never_varies_says_nothing() -> None:
    features = np.random.default_rng(0).normal(size=(500, len(FEATURES)))
    features[:, 3] = 1.0
    model = fit_model(features, make_model().predict(features))
    changed = features.copy()
    changed[:, 3] = 7.0
    np.testing.assert_array_equal(model.predict(changed), model.predict(features))


@pytest.mark.parametrize("accuracies", [np.linspace(0, 1, 20), np.full(200, 0.5), np.empty(0)])
def test_too_little_to_fit(accuracies: np.ndarray) -> None:
    features = np.random.default_rng(0).normal(size=(len(accuracies), len(FEATURES)))
    with pytest.raises(ValueError, match="simulate more"):
        fit_model(features, accuracies)


def test_accuracy_of_trains() -> None:
    truth = [np.arange(0, 1000, 100), np.arange(50, 1000, 100)]
    found = [truth[0] + 5, truth[1][:5], np.arange(20, 1000, 100), np.sort(np.concatenate(truth))]
    np.testing.assert_allclose(best_accuracies(found, truth, delta_frames=10), [1.0, 0.5, 0.0, 0.5])
    np.testing.assert_allclose(best_accuracies(found, [], delta_frames=10), 0.0)
