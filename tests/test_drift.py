"""Drift, seen in the clusters' waveforms, and followed."""

import numpy as np
import pytest
from spikeinterface.core import NumpyRecording

from spikeinterface_simsort.drift import Drift, estimate_drift, follow
from spikeinterface_simsort.excerpt import choose_excerpt
from spikeinterface_simsort.learning import choose_stretch, learn_templates
from spikeinterface_simsort.matching import TemplatePeakDetector
from spikeinterface_simsort.resampling import SamplingGrid
from spikeinterface_simsort.whitening import Whitener, noise_windows
from tests.test_template_matching import NUM_BEFORE, NUM_SAMPLES, RATE, add_spikes, noise, peaks_of, template

DIM = 24


def course(seconds: np.ndarray) -> np.ndarray:
    return np.sqrt(2) * np.sin(2 * np.pi * seconds / 70)


def points(*, moving: float, seed: int, num_spikes: int = 6000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whitened waveforms of six units, their labels and times; some units are seen in one half of the time only."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, num_spikes)
    seconds = np.sort(rng.uniform(0, 140, num_spikes))
    seen = (labels > 1) | ((course(seconds) > 0) == (labels == 0))
    centres, slopes = 4 * rng.standard_normal((6, DIM)), rng.standard_normal((6, DIM)) / np.sqrt(DIM)
    values = centres[labels] + moving * course(seconds)[:, None] * slopes[labels]
    values += rng.standard_normal((num_spikes, DIM))
    return values[seen].astype("float32"), labels[seen], seconds[seen]


def test_course_of_the_tissue_is_found() -> None:
    values, labels, seconds = points(moving=1.5, seed=0)
    drift = estimate_drift(values, labels, seconds=seconds, duration_s=140.0, root=np.eye(DIM, dtype="float32"))
    assert drift is not None
    times = np.linspace(2, 138, 300)
    assert abs(np.corrcoef(drift.at(times), course(times))[0, 1]) > 0.97
    assert drift.displacement.std() == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_where_nothing_moves_there_is_no_drift(seed: int) -> None:
    values, labels, seconds = points(moving=0.0, seed=seed)
    assert estimate_drift(values, labels, seconds=seconds, duration_s=140.0, root=np.eye(DIM, dtype="float32")) is None


def test_drift_of_few_spikes_is_not_looked_for() -> None:
    root = np.eye(DIM, dtype="float32")
    values, labels, seconds = points(moving=3.0, seed=1)
    assert estimate_drift(values[:500:4], labels[:500:4], seconds=seconds[:500:4], duration_s=140.0, root=root) is None
    assert estimate_drift(values, labels, seconds=seconds / 100, duration_s=1.4, root=root) is None
    assert estimate_drift(values, np.full(len(labels), -1), seconds=seconds, duration_s=140.0, root=root) is None


def test_drift_is_interpolated_only_where_it_is_slow() -> None:
    pieces = np.concatenate([start + np.arange(1, 10, 2) for start in range(0, 1200, 60)])
    for period_s, is_seamless in ((70, False), (1000, True)):
        drift = Drift(centres=pieces.astype("float64"), displacement=np.sin(2 * np.pi * pieces / period_s))
        assert drift.is_seamless is is_seamless
    assert Drift(centres=np.arange(60.0), displacement=np.sin(np.arange(60.0))).is_seamless


def test_rare_spikes_are_binned_in_longer_bins() -> None:
    values, labels, seconds = points(moving=3.0, seed=2)
    drift = estimate_drift(
        values, labels, seconds=100 * seconds, duration_s=14_000.0, root=np.eye(DIM, dtype="float32")
    )
    assert drift is not None
    assert np.diff(drift.centres)[0] > 50
    assert abs(np.corrcoef(drift.displacement, course(drift.centres / 100))[0, 1]) > 0.95


def test_mean_follows_a_unit() -> None:
    rng = np.random.default_rng(0)
    mean, slope = template((10, 6, 3, 2)), template((-1.0, 1.5, 0, 0))
    displacement = rng.uniform(0.2, 1.8, 400)
    waveforms = mean + displacement[:, None, None] * slope + rng.standard_normal((400, *mean.shape))
    waveforms[::10] += template((0, 0, 30, 0), shift=6)  # overlaps
    moving = follow(np.float32(waveforms), displacement, precision=np.eye(mean.size, dtype="float32"))
    assert moving.seen == pytest.approx((0.2, 1.8), abs=0.1)
    for at in (0.5, 1.5):
        assert np.abs(moving.at(np.array([at]))[0] - mean - at * slope).max() < 0.4


def test_mean_of_a_unit_that_stays_has_no_slope() -> None:
    rng = np.random.default_rng(1)
    mean = template((10, 6, 3, 2))
    waveforms = np.float32(mean + rng.standard_normal((200, *mean.shape)))
    precision = np.eye(mean.size, dtype="float32")
    assert not follow(waveforms, np.zeros(200), precision=precision).slope.any()
    moving = follow(waveforms, rng.standard_normal(200), precision=precision)
    assert np.abs(moving.slope).max() < 0.1


def test_a_unit_that_moves_is_one_and_keeps_its_spikes() -> None:
    rng = np.random.default_rng(2)
    traces = noise(140.0, seed=3)
    times = np.sort(rng.uniform(100, len(traces) - 100, 3000))
    times = times[np.diff(times, prepend=0) > 60]
    labels = rng.integers(0, 3, len(times))
    displacement = course(times / RATE)
    means = template((9, 6, 3, 2)), template((3, 5, 9, 6), width=4.0), template((6, 9, 4, 2), width=3.3)
    slopes = template((-2, 2, 0, 0)), template((1, 1, -2, 0)), template((0, -2, 0, 2))
    for time, label, at in zip(times, labels, displacement, strict=True):
        add_spikes(traces, np.array([time]), means[label] + np.float32(at) * slopes[label])
    # As a clustering sees it: each unit is two, here and there.
    clusters = 2 * labels + (displacement > 0)
    recording = NumpyRecording([traces], RATE)
    grid = SamplingGrid.between(recording_frequency=RATE, model_frequency=RATE)
    stretch = choose_stretch(choose_excerpt(recording), peaks_of(times), grid=grid)
    windows = noise_windows(traces, times.astype("int64"), num_samples=NUM_SAMPLES)
    assert windows is not None
    drift = Drift(centres=np.arange(0, 141, 1.0), displacement=course(np.arange(0, 141, 1.0)))
    learned = learn_templates(
        stretch,
        clusters,
        whitener=Whitener.from_noise(windows),
        drift=drift,
        num_before=NUM_BEFORE,
        num_samples=NUM_SAMPLES,
        seed=0,
    )
    assert learned is not None
    assert len(np.unique(learned.units[learned.units >= 0])) == 3
    # As a node of a pipeline, whose chunks begin anywhere: it knows what time it is.
    node = TemplatePeakDetector(recording, templates=learned, grid=grid)
    start, margin = round(35 * RATE), node.get_margin()
    end = start + round(35 * RATE)
    peaks, units, _ = node.compute(traces[start - margin : end + margin], start, end, 0, margin)
    inside = np.flatnonzero((times >= start) & (times < end))
    for label in range(3):
        train = times[inside[labels[inside] == label]]
        unit = np.bincount(
            [units[np.abs(peaks["sample_index"] - margin + start - time).argmin()] for time in train]
        ).argmax()
        found = peaks["sample_index"][units == unit] - margin + start
        hits = np.mean([np.abs(found - time).min() < 4 for time in train])
        assert hits > 0.95
        assert len(found) < 1.05 * len(train)
