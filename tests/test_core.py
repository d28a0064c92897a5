"""The parts of the sorter that need no network, each alone."""

import json
import os
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from probeinterface import Probe
from scipy import signal
from sklearn.metrics import adjusted_rand_score
from spikeinterface.core import BaseRecording, NumpyRecording

from spikeinterface_simsort.clustering import cluster, has_valley, informative_axes, merge_components
from spikeinterface_simsort.compute import choose_device, job_arguments
from spikeinterface_simsort.detection import pad_channels, peak_dtype
from spikeinterface_simsort.groups import split_blocks, split_groups
from spikeinterface_simsort.model_rate import join
from spikeinterface_simsort.params import ParameterError, SimSortParams
from spikeinterface_simsort.peaks import find_peaks
from spikeinterface_simsort.refinement import Unit, refine, remove_double_spikes, remove_double_units
from spikeinterface_simsort.resampling import SamplingGrid
from spikeinterface_simsort.waveforms import align_peaks, extract_waveforms

PARAMS = SimSortParams().resolve()

# Waveforms


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("vertex", [49.6, 50.0, 50.25, 50.45])
def test_align_finds_vertex(sign: float, vertex: float) -> None:
    traces = np.zeros((100, 3), dtype="float32")
    traces[:, 1] = sign * 10 * np.exp(-0.5 * ((np.arange(100) - vertex) / 4) ** 2)
    traces[:, 2] = 5.0 * np.exp(-0.5 * ((np.arange(100) - 51) / 4) ** 2)
    times, channel = align_peaks(traces, np.array([48, 52]), search_samples=4)
    np.testing.assert_allclose(times, vertex, atol=0.02)
    assert channel.tolist() == [1, 1]


def test_align_parabola_is_exact() -> None:
    traces = (20 - (np.arange(40)[:, None] - 20.3) ** 2).astype("float32").clip(0)
    np.testing.assert_allclose(align_peaks(traces, np.array([19]), search_samples=3)[0], 20.3, atol=1e-5)


def test_align_with_neighbours_of_the_other_sign() -> None:
    traces = np.zeros((20, 1), dtype="float32")
    # The parabola through these three samples has its vertex to the right of the middle one.
    traces[9:12, 0] = -1.0, 2.0, 0.5
    times, _ = align_peaks(traces, np.array([10]), search_samples=2)
    np.testing.assert_allclose(times, 10 + 1 / 6, atol=1e-6)


def test_align_stays_in_reach() -> None:
    traces = np.zeros((100, 1), dtype="float32")
    traces[70] = 50.0
    traces[52] = 3.0
    assert align_peaks(traces, np.array([50]), search_samples=5)[0].tolist() == [52.0]


def test_align_at_the_edges() -> None:
    traces = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
    times, _ = align_peaks(traces, np.array([0, 49]), search_samples=3)
    assert np.isfinite(times).all() and times[0] >= 0 and times[1] <= 49


def test_align_nothing() -> None:
    times, channel = align_peaks(np.zeros((10, 2), dtype="float32"), np.empty(0, dtype="int64"), search_samples=3)
    assert times.shape == channel.shape == (0,)


@pytest.mark.parametrize("frequency", [0.02, 0.1, 0.25])
def test_waveforms_of_a_sine(frequency: float) -> None:
    samples = np.arange(400)
    traces = np.column_stack([np.sin(2 * np.pi * frequency * samples), np.cos(2 * np.pi * frequency * samples)])
    times = np.array([100.0, 150.1, 200.5, 250.73, 300.999])
    waveforms = extract_waveforms(traces.astype("float32"), times, num_before=8, num_after=12)
    at = times[:, None] + np.arange(-8, 12)
    assert waveforms.shape == (5, 20, 2) and waveforms.dtype == np.float32
    np.testing.assert_allclose(waveforms[..., 0], np.sin(2 * np.pi * frequency * at), atol=0.01)
    np.testing.assert_allclose(waveforms[..., 1], np.cos(2 * np.pi * frequency * at), atol=0.01)


def test_waveforms_at_whole_samples_are_the_samples() -> None:
    traces = np.random.default_rng(0).normal(size=(100, 4)).astype("float32")
    waveforms = extract_waveforms(traces, np.array([50.0]), num_before=10, num_after=15)
    np.testing.assert_allclose(waveforms[0], traces[40:65], atol=1e-5)


def test_waveforms_are_zero_outside() -> None:
    traces = np.ones((100, 2), dtype="float32")
    waveforms = extract_waveforms(traces, np.array([2.0, 98.0, -50.5, 300.5]), num_before=10, num_after=10)
    np.testing.assert_allclose(waveforms[0, :8], 0.0, atol=1e-6)
    np.testing.assert_allclose(waveforms[0, 8:], 1.0, atol=1e-6)
    np.testing.assert_allclose(waveforms[1, :12], 1.0, atol=1e-6)
    np.testing.assert_allclose(waveforms[1, 12:], 0.0, atol=1e-6)
    np.testing.assert_array_equal(waveforms[2:], 0.0)


def test_waveforms_leave_traces_alone() -> None:
    traces = np.ones((30, 2), dtype="float32")
    extract_waveforms(traces, np.array([1.5]), num_before=10, num_after=10)
    np.testing.assert_array_equal(traces, 1.0)


def test_waveforms_of_nothing() -> None:
    assert extract_waveforms(np.ones((30, 2), "float32"), np.empty(0), num_before=4, num_after=6).shape == (0, 10, 2)


# Resampling


@pytest.mark.parametrize("rate", [30000.0, 24414.0625, 15000.0, 48000.0, 20000.0])
def test_resampling_does_not_depend_on_the_chunk(rate: float) -> None:
    grid = SamplingGrid.between(recording_frequency=rate, model_frequency=20000.0)
    traces = np.random.default_rng(0).normal(size=(6000, 2)).astype("float32")
    margin = grid.margin_frames(5)
    whole, origin = grid.resample(traces, first_frame=0)
    assert origin == 0
    for start, stop in [(margin, 3000), (margin + 1, 3333), (2501, 4003), (3000, 6000 - margin)]:
        chunk, first_sample = grid.resample(traces[start - margin : stop + margin], first_frame=start - margin)
        low, high = grid.model_range(start, stop)
        # So many samples are exact beyond the chunk on either side.
        low, high = low - 5, high + 5
        assert low - first_sample >= 0 and high - first_sample <= len(chunk)
        np.testing.assert_array_equal(chunk[low - first_sample : high - first_sample], whole[low:high])


@pytest.mark.parametrize("rate", [30000.0, 24414.0625, 15000.0, 48000.0, 20000.0])
def test_resampling_before_the_recording(rate: float) -> None:
    grid = SamplingGrid.between(recording_frequency=rate, model_frequency=20000.0)
    traces = np.random.default_rng(1).normal(size=(3000, 1)).astype("float32")
    whole, _ = grid.resample(traces, first_frame=0)
    margin = grid.margin_frames(20)
    chunk, first_sample = grid.resample(np.pad(traces[:2000], ((margin, 0), (0, 0))), first_frame=-margin)
    assert first_sample <= -20
    np.testing.assert_allclose(chunk[-first_sample : 500 - first_sample], whole[:500], atol=1e-5)


@pytest.mark.parametrize("rate", [30000.0, 24414.0625, 15000.0, 48000.0, 10000.0, 40000.0, 31250.0])
@pytest.mark.parametrize("num_frames", [1, 60, 6001])
def test_resampling_is_that_of_scipy(rate: float, num_frames: int) -> None:
    grid = SamplingGrid.between(recording_frequency=rate, model_frequency=20000.0)
    traces = np.random.default_rng(2).normal(size=(num_frames, 3)).astype("float32")
    resampled, _ = grid.resample(traces, first_frame=0)
    assert resampled.dtype == np.float32
    np.testing.assert_allclose(resampled, signal.resample_poly(traces, grid.up, grid.down, axis=0), atol=1e-5)


@pytest.mark.parametrize("rate", [30000.0, 24414.0625, 15000.0, 48000.0])
def test_resampled_sine_keeps_its_time(rate: float) -> None:
    grid = SamplingGrid.between(recording_frequency=rate, model_frequency=20000.0)
    assert rate * grid.up / grid.down == pytest.approx(20000.0, rel=1e-3)
    frames = np.arange(4000, 8000)
    sine = np.sin(2 * np.pi * 500.0 * frames / rate)[:, None].astype("float32")
    resampled, first_sample = grid.resample(sine, first_frame=4000)
    at = grid.to_frames(first_sample + np.arange(len(resampled)))
    expected = np.sin(2 * np.pi * 500.0 * at / rate)
    np.testing.assert_allclose(resampled[50:-50, 0], expected[50:-50], atol=0.01)


def test_same_rate_is_untouched() -> None:
    traces = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
    grid = SamplingGrid.between(recording_frequency=20000.0, model_frequency=20000.0)
    resampled, first_sample = grid.resample(traces, first_frame=-7)
    assert first_sample == -7
    np.testing.assert_array_equal(resampled, traces)


def test_model_ranges_of_neighbours_meet() -> None:
    grid = SamplingGrid(up=2, down=3)
    borders = [0, 7, 10, 11, 30]
    ranges = [grid.model_range(*pair) for pair in zip(borders, borders[1:], strict=False)]
    assert ranges[0][0] == 0 and ranges[-1][1] == 20
    assert all(first[1] == second[0] for first, second in zip(ranges, ranges[1:], strict=False))
    for (start, stop), (low, high) in zip(zip(borders, borders[1:], strict=False), ranges, strict=True):
        frames = grid.to_frames(np.arange(low, high))
        assert ((frames >= start) & (frames < stop)).all()


# In memory


def test_pieces_that_follow_each_other_are_joined_without_a_copy() -> None:
    whole = np.arange(20.0).reshape(10, 2)
    joined = join([whole[:3], whole[3:4], whole[4:9]])
    np.testing.assert_array_equal(joined, whole[:9])
    assert np.shares_memory(joined, whole)


@pytest.mark.parametrize(
    "pieces",
    [
        [np.ones((3, 2)), np.zeros((2, 2))],
        [np.ones((6, 2))[:3], np.zeros((6, 2))[:3]],
        [np.arange(12.0).reshape(6, 2)[3:], np.arange(12.0).reshape(6, 2)[:3]],
        [np.arange(24.0).reshape(6, 4)[:3, :2], np.arange(24.0).reshape(6, 4)[3:, :2]],
    ],
)
def test_other_pieces_are_copied(pieces: list[np.ndarray]) -> None:
    np.testing.assert_array_equal(join(pieces), np.concatenate(pieces))


def test_pieces_of_one_array_in_another_order() -> None:
    whole = np.arange(20.0).reshape(10, 2)
    for pieces in ([whole[5:], whole[:5]], [whole[:3], whole[4:]], [whole[:3], whole[:3]], [whole[::2], whole[1::2]]):
        np.testing.assert_array_equal(join(pieces), np.concatenate(pieces))


# Peaks


def test_peaks_over_threshold() -> None:
    probability = np.zeros(50, dtype="float32")
    probability[[10, 20, 30]] = 0.5, 0.49, 0.9
    assert find_peaks(probability, threshold=0.5, exclude_samples=4).tolist() == [10, 30]


def test_first_of_a_plateau() -> None:
    probability = np.zeros(50, dtype="float32")
    probability[10:30] = 0.8
    assert find_peaks(probability, threshold=0.5, exclude_samples=4).tolist() == [10]


@pytest.mark.parametrize(("distance", "expected"), [(4, [20]), (5, [20, 25])])
def test_largest_within_reach(distance: int, expected: list[int]) -> None:
    probability = np.zeros(50, dtype="float32")
    probability[[20, 20 + distance]] = 0.9, 0.8
    assert find_peaks(probability, threshold=0.5, exclude_samples=4).tolist() == expected
    # The order does not matter.
    mirrored = find_peaks(probability[::-1], threshold=0.5, exclude_samples=4)
    assert sorted((49 - mirrored).tolist()) == expected


def test_peaks_at_the_edges() -> None:
    probability = np.zeros(20, dtype="float32")
    probability[[0, 19]] = 0.9
    assert find_peaks(probability, threshold=0.5, exclude_samples=4).tolist() == [0, 19]


def test_no_peaks() -> None:
    assert find_peaks(np.zeros(20, dtype="float32"), threshold=0.5, exclude_samples=4).size == 0
    assert find_peaks(np.zeros(0, dtype="float32"), threshold=0.5, exclude_samples=4).size == 0


def test_peaks_keep_their_distance() -> None:
    probability = np.random.default_rng(0).random(2000).astype("float32")
    peaks = find_peaks(probability, threshold=0.6, exclude_samples=6)
    assert len(peaks) > 50 and np.diff(peaks).min() > 6
    for start in (17, 200):
        local = find_peaks(probability[start : start + 900], threshold=0.6, exclude_samples=6)
        local = local[(local >= 6) & (local < 894)] + start
        np.testing.assert_array_equal(local, peaks[(peaks >= start + 6) & (peaks < start + 894)])


def test_pad_channels() -> None:
    traces = np.ones((5, 3), dtype="float32")
    padded = pad_channels(traces, num_channels=4)
    assert padded.shape == (5, 4) and (padded[:, 3] == 0).all() and (padded[:, :3] == 1).all()
    assert pad_channels(traces, num_channels=3) is traces


# Clusters


def gaussians(sizes: list[int], *, distance: float, dim: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Of unit variance, in random order, each along an axis of its own."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    points = rng.normal(size=(len(truth), dim)) + distance / np.sqrt(2) * np.eye(len(sizes), dim)[truth]
    return points.astype("float32"), truth


@pytest.mark.parametrize("seed", range(3))
def test_gaussians_are_recovered(seed: int) -> None:
    embedding, truth = gaussians([2000, 300, 60], distance=10.0, seed=seed)
    labels = cluster(embedding, params=PARAMS)
    assert labels.dtype == np.int64
    assert set(labels.tolist()) == set(range(labels.max() + 1))
    assert adjusted_rand_score(truth, labels) > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_one_gaussian_stays_one(seed: int) -> None:
    embedding, _ = gaussians([2000], distance=0.0, seed=seed)
    labels = cluster(embedding, params=PARAMS)
    assert np.bincount(labels).max() > 0.95 * len(labels)


@pytest.mark.parametrize("num_spikes", [0, 1, 2, 29])
def test_few_spikes_are_one_cluster(num_spikes: int) -> None:
    embedding = np.random.default_rng(0).normal(size=(num_spikes, 10)).astype("float32")
    labels = cluster(embedding, params=PARAMS)
    assert labels.tolist() == [0] * num_spikes and labels.dtype == np.int64


@pytest.mark.parametrize("num_spikes", [30, 31, 500])
def test_identical_points(num_spikes: int) -> None:
    embedding = np.full((num_spikes, 10), 3.0, dtype="float32")
    assert cluster(embedding, params=PARAMS).tolist() == [0] * num_spikes


def test_more_spikes_than_are_fitted() -> None:
    embedding, truth = gaussians([3000, 1500, 600], distance=10.0)
    labels = cluster(embedding, params=replace(PARAMS, max_spikes_fit=1000))
    assert len(labels) == len(truth)
    assert adjusted_rand_score(truth, labels) > 0.95


def test_clusters_are_deterministic() -> None:
    embedding, _ = gaussians([900, 400, 100], distance=5.0)
    params = replace(PARAMS, max_spikes_fit=700, seed=7)
    np.testing.assert_array_equal(cluster(embedding, params=params), cluster(embedding, params=params))


def test_informative_axes() -> None:
    embedding, _ = gaussians([1000, 1000, 1000], distance=10.0)
    axes, centre = informative_axes(embedding)
    assert axes.shape == (10, 2)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(centre, embedding.mean(axis=0), atol=1e-4)
    # The three means lie in the plane that these axes span.
    plane = np.linalg.svd(np.eye(3, 10) - np.eye(3, 10).mean(axis=0))[2][:2]
    np.testing.assert_allclose(np.linalg.norm(plane @ axes, ord="fro"), np.sqrt(2), rtol=0.02)


@pytest.mark.parametrize("sizes", [(1000, 1000), (1000, 100)])
def test_valley_between_two_gaussians(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(sizes[0], 3))
    others = rng.normal(size=(sizes[1], 3)) + [6.0, 0.0, 0.0]
    assert has_valley(points, others)
    assert has_valley(others, points)


def test_no_valley_in_one_gaussian() -> None:
    points = np.random.default_rng(0).normal(size=(3000, 3))
    half = points[:, 0] < 0
    assert not has_valley(points[half], points[~half])
    tail = points[:, 0] > 1.0
    assert not has_valley(points[~tail], points[tail])


def test_no_valley_between_clusters_of_one_mean() -> None:
    points = np.random.default_rng(0).normal(size=(200, 3))
    assert not has_valley(points, points.copy())


def test_merge_components() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(1000, 2)), rng.normal(size=(500, 2)) + [12.0, 0.0]])
    # Three parts of the first, labels with gaps.
    labels = np.concatenate([np.digitize(points[:1000, 1], [-0.5, 0.5]) * 3, np.full(500, 20)])
    merged = merge_components(points, labels)
    assert merged.tolist() == [0] * 1000 + [1] * 500


# Units


def make_peaks(
    samples: list[int], *, probability: list[float] | None = None, segment: list[int] | None = None
) -> np.ndarray:
    peaks = np.zeros(len(samples), dtype=peak_dtype)
    peaks["sample_index"] = samples
    peaks["probability"] = 0.9 if probability is None else probability
    peaks["segment_index"] = 0 if segment is None else segment
    return peaks


def test_the_likelier_of_two_spikes_stays() -> None:
    peaks = make_peaks([100, 105, 200, 205, 300], probability=[0.6, 0.9, 0.8, 0.7, 0.5])
    kept = remove_double_spikes(peaks, np.arange(5), duplicate_frames=10)
    assert kept.tolist() == [1, 2, 4]


def test_run_of_close_spikes() -> None:
    # The middle one is the least likely: without it, the outer two are far enough from each other.
    peaks = make_peaks([100, 108, 116], probability=[0.9, 0.6, 0.8])
    assert remove_double_spikes(peaks, np.arange(3), duplicate_frames=10).tolist() == [0, 2]
    peaks["probability"] = 0.6, 0.7, 0.9
    assert remove_double_spikes(peaks, np.arange(3), duplicate_frames=10).tolist() == [2]


def test_double_spikes_need_one_segment_and_one_unit() -> None:
    peaks = make_peaks([100, 102, 104], segment=[0, 1, 1])
    assert remove_double_spikes(peaks, np.array([0, 1]), duplicate_frames=10).tolist() == [0, 1]
    assert remove_double_spikes(peaks, np.array([0, 2]), duplicate_frames=10).tolist() == [0, 2]


@pytest.mark.parametrize("spikes", [[], [0]])
def test_nothing_double(spikes: list[int]) -> None:
    kept = remove_double_spikes(make_peaks([100]), np.array(spikes, dtype="int64"), duplicate_frames=10)
    assert kept.tolist() == spikes


def test_distance_of_double_spikes() -> None:
    peaks = make_peaks([100, 110, 119])
    assert remove_double_spikes(peaks, np.arange(2), duplicate_frames=10).tolist() == [0, 1]
    assert remove_double_spikes(peaks, np.array([1, 2]), duplicate_frames=10).tolist() == [1]


def make_unit(spikes: list[int], snr: float) -> Unit:
    return Unit(
        spikes=np.array(spikes), template=np.zeros((2, 1), "float32"), snr=snr, channel_index=0, probability=0.9
    )


@pytest.mark.parametrize(("num_shared", "num_kept"), [(5, 2), (6, 1), (10, 1)])
def test_double_units(num_shared: int, num_kept: int) -> None:
    samples = np.arange(20) * 1000
    copies = np.where(np.arange(10) < num_shared, samples[:10] + 3, samples[:10] + 500)
    peaks = make_peaks([*samples, *copies])
    units = [make_unit(list(range(20)), 9.0), make_unit(list(range(20, 30)), 4.0)]
    kept = remove_double_units(peaks, units, duplicate_frames=10)
    assert kept == units[:num_kept]


def test_units_of_different_segments_are_not_double() -> None:
    samples = (np.arange(10) * 1000).tolist()
    peaks = make_peaks([*samples, *samples], segment=[0] * 10 + [1] * 10)
    units = [make_unit(list(range(10)), 9.0), make_unit(list(range(10, 20)), 4.0)]
    assert len(remove_double_units(peaks, units, duplicate_frames=10)) == 2


def test_double_units_over_segments() -> None:
    # The same spikes in both segments, the last of one close to the first of the other.
    samples, segment = [0, 1000, 2000, 2, 1002, 2002] * 2, [0] * 6 + [1] * 6
    units = [make_unit([0, 1, 2, 6, 7, 8], 9.0), make_unit([3, 4, 5, 9, 10, 11], 4.0)]
    assert len(remove_double_units(make_peaks(samples, segment=segment), units, duplicate_frames=10)) == 1


def refined(snrs: list[float], counts: list[int], **kwargs: float) -> list[Unit]:
    """Units of the given sizes, taking turns, each with a deflection at one sample of one of two channels."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    peaks = make_peaks((np.arange(len(labels)) * 100).tolist())
    waveforms = np.zeros((len(labels), 5, 2), dtype="float16")
    waveforms[np.arange(len(labels)), 2, labels % 2] = -np.array(snrs)[labels]
    arguments = {"duplicate_frames": 10, "min_spikes": 20, "min_snr": 2.5, "seed": 0, **kwargs}
    return refine(peaks, waveforms.reshape(len(labels), -1), labels, num_channels=2, **arguments)


def test_units_by_snr() -> None:
    units = refined([4.0, 16.0, 8.0], [50, 100, 600])
    assert [unit.snr for unit in units] == [16.0, 8.0, 4.0]
    assert [len(unit.spikes) for unit in units] == [100, 600, 50]
    assert [unit.channel_index for unit in units] == [1, 0, 0]
    for unit in units:
        assert unit.template.shape == (5, 2)
        assert unit.template[2, unit.channel_index] == -unit.snr
        assert unit.probability == pytest.approx(0.9)


def test_small_units_are_dropped() -> None:
    assert [len(unit.spikes) for unit in refined([8.0, 6.0, 4.0], [20, 19, 30])] == [20, 30]
    assert len(refined([8.0, 6.0, 4.0], [20, 19, 30], min_spikes=1)) == 3


def test_weak_units_are_dropped() -> None:
    assert [unit.snr for unit in refined([8.0, 2.5, 2.25], [30, 30, 30])] == [8.0, 2.5]


def test_double_spikes_do_not_count() -> None:
    peaks = make_peaks([*range(0, 10000, 1000), *range(3, 10000, 1000)], probability=[0.9] * 10 + [0.8] * 10)
    order = np.argsort(peaks["sample_index"])
    waveforms = np.full((20, 4), 9.0, dtype="float16")
    arguments = {"num_channels": 2, "duplicate_frames": 10, "min_snr": 2.5, "seed": 0}
    labels = np.zeros(20, dtype="int64")
    (unit,) = refine(peaks[order], waveforms, labels, min_spikes=10, **arguments)
    assert (peaks[order]["probability"][unit.spikes] > 0.85).all() and len(unit.spikes) == 10
    assert refine(peaks[order], waveforms, labels, min_spikes=11, **arguments) == []


def test_noise_is_no_unit() -> None:
    arguments = {"num_channels": 2, "duplicate_frames": 10, "min_spikes": 1, "min_snr": 0.0, "seed": 0}
    waveforms = np.ones((3, 4), dtype="float16")
    assert refine(make_peaks([1, 100, 200]), waveforms, np.full(3, -1), **arguments) == []
    assert refine(make_peaks([]), waveforms[:0], np.empty(0, dtype="int64"), **arguments) == []


# Groups


def make_recording(num_channels: int, *, probe: bool = False) -> BaseRecording:
    recording = NumpyRecording([np.zeros((100, num_channels), dtype="float32")], 30000.0)
    if not probe:
        return recording
    # Along y, in no order.
    y = np.random.default_rng(0).permutation(num_channels) * 20.0
    made = Probe(ndim=2, si_units="um")
    made.set_contacts(positions=np.column_stack([np.arange(num_channels) % 2 * 5.0, y]))
    made.set_device_channel_indices(np.arange(num_channels))
    probed = recording.set_probe(made)
    return recording if probed is None else probed


def test_numbers_of_numpy_are_parameters() -> None:
    params = SimSortParams(seed=np.int64(3), min_snr=np.float32(2.0))
    assert (params.seed, params.min_snr) == (3, 2.0)
    assert json.loads(json.dumps(asdict(params)))["seed"] == 3


@pytest.mark.parametrize(
    "groups",
    [np.array([1.0, np.nan, 1.0, np.nan]), np.array(["b", 1, "b", 1], dtype=object)],
    ids=["some without", "names of two types"],
)
def test_groups_of_any_kind_keep_every_channel(groups: np.ndarray) -> None:
    recording = make_recording(4)
    recording.set_property("group", groups)
    parts = split_groups(recording)
    assert [part.get_num_channels() for _, part in parts] == [2, 2]
    assert sorted(channel for _, part in parts for channel in part.channel_ids) == [0, 1, 2, 3]


def test_groups_keep_every_channel() -> None:
    recording = make_recording(6)
    recording.set_property("group", [1, 0, 1, 2, 0, 1])
    groups = split_groups(recording)
    assert [group for group, _ in groups] == [0, 1, 2]
    assert [part.channel_ids.tolist() for _, part in groups] == [[1, 4], [0, 2, 5], [3]]


def test_one_group_is_the_recording() -> None:
    recording = make_recording(4)
    assert split_groups(recording) == [(0, recording)]
    recording.set_property("group", ["a"] * 4)
    assert split_groups(recording) == [("a", recording)]


@pytest.mark.parametrize("num_channels", [1, 3, 4])
def test_small_group_is_one_block(num_channels: int) -> None:
    recording = make_recording(num_channels)
    assert split_blocks(recording, max_channels=4) == [recording]


@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize("num_channels", [5, 8, 13])
def test_blocks_keep_every_channel(num_channels: int, probe: bool, caplog: pytest.LogCaptureFixture) -> None:
    recording = make_recording(num_channels, probe=probe)
    blocks = split_blocks(recording, max_channels=4)
    assert len(blocks) == -(-num_channels // 4)
    assert all(1 <= block.get_num_channels() <= 4 for block in blocks)
    channels = [channel for block in blocks for channel in block.channel_ids]
    assert sorted(channels) == sorted(recording.channel_ids)
    assert f"A group of {num_channels} channels" in caplog.text
    if probe:
        heights = np.concatenate([block.get_channel_locations()[:, 1] for block in blocks])
        assert (np.diff(heights) > 0).all()
    else:
        assert channels == recording.channel_ids.tolist()


# Parameters


def test_every_parameter_is_described() -> None:
    descriptions = SimSortParams.describe()
    assert list(descriptions) == [parameter.name for parameter in fields(SimSortParams)]
    for description in descriptions.values():
        assert len(description) > 10 and description.endswith(".")


@pytest.mark.parametrize(
    ("parameter", "bound"),
    [(p, bound) for p in fields(SimSortParams) for bound in ("minimum", "maximum") if bound in p.metadata],
    ids=lambda value: getattr(value, "name", value),
)
def test_bounds(parameter, bound: str) -> None:
    limit = parameter.metadata[bound]
    assert getattr(SimSortParams(**{parameter.name: limit}), parameter.name) == limit
    step = type(limit)(1) if bound == "maximum" else -type(limit)(1)
    for value in (limit + step, float("nan")):
        with pytest.raises(ParameterError, match=f"^{parameter.name} must be"):
            SimSortParams(**{parameter.name: value})
    assert str(limit) in SimSortParams.describe()[parameter.name]


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 1.5},
        {"seed": True},
        {"seed": "0"},
        {"seed": None},
        {"whiten": 1},
        {"min_snr": True},
        {"weights": None},
        {"job_kwargs": None},
        {"preset": "best"},
        {"clustering": "kmeans"},
        {"freq_min": 3000.0, "freq_max": 3000.0},
        {"freq_min": 99.0},
    ],
    ids=str,
)
def test_wrong_values(values: dict) -> None:
    with pytest.raises(ParameterError, match=next(iter(values))):
        SimSortParams.from_dict(values)


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_presets_resolve(preset: str) -> None:
    resolved = SimSortParams(preset=preset).resolve()
    # Only the weights know this one.
    assert [name for name, value in asdict(resolved).items() if value is None] == ["detect_threshold"]
    assert resolved.resolve() == resolved


def test_given_values_win_over_the_preset() -> None:
    resolved = SimSortParams(preset="paper", freq_min=400.0, whiten=False).resolve()
    assert (resolved.freq_min, resolved.freq_max, resolved.whiten) == (400.0, 10000.0, False)
    assert resolved.clustering == "meanshift"


def test_band_that_the_preset_makes_empty() -> None:
    with pytest.raises(ParameterError, match="freq_max"):
        SimSortParams(freq_min=7000.0).resolve()


def test_unknown_parameters() -> None:
    with pytest.raises(ParameterError, match=r"Unknown parameters \['treshold'\]; known are .*'detect_threshold'"):
        SimSortParams.from_dict({"treshold": 0.5, "seed": 1})


def test_parameters_through_json() -> None:
    params = SimSortParams(detect_threshold=0.7, job_kwargs={"n_jobs": 2})
    for some in (params, params.resolve(), SimSortParams(preset="paper").resolve()):
        assert SimSortParams.from_dict(json.loads(json.dumps(asdict(some)))) == some


def test_defaults_are_not_shared() -> None:
    SimSortParams().job_kwargs["n_jobs"] = 3
    assert SimSortParams().job_kwargs == {}


# Devices and jobs


def test_job_arguments() -> None:
    assert job_arguments({})["chunk_duration"] == "10s"
    assert job_arguments({})["pool_engine"] == "thread"
    assert job_arguments({})["n_jobs"] == min(len(os.sched_getaffinity(0)), 8)
    given = job_arguments({"n_jobs": 2, "chunk_size": 5000, "pool_engine": "process"})
    assert (given["n_jobs"], given["chunk_size"], given["pool_engine"]) == (2, 5000, "process")
    assert "chunk_duration" not in given


def test_unknown_job_argument() -> None:
    with pytest.raises(ParameterError, match="job_kwargs: .*n_job"):
        job_arguments({"n_job": 2})


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(ParameterError, match="no device 'abacus' here"):
        choose_device("abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_missing_cuda() -> None:
    with pytest.raises(ParameterError, match="no device 'cuda' here"):
        choose_device("cuda")
