"""Simulations of wave_clus: what is read of them, how they become tetrodes, and how they are built again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks import waveclus
from benchmarks.waveclus import (
    PEAK_SAMPLE,
    PEAK_UV,
    SpikeShapes,
    choose_triple,
    make_channel,
    make_waveclus,
    read_waveclus,
    spike_shapes,
    tetrode_recording,
    to_tetrode,
    triple_distances,
)
from spikeinterface_simsort.simulation.composition import random_streams
from spikeinterface_simsort.simulation.trials import bundled_bank

RATE = 24000.0
# After the mark, of each class.
DELAYS = {1: 20, 2: 22, 3: 25}
SECONDS = 20.0


def cells(*contents: np.ndarray) -> np.ndarray:
    """MATLAB's cell array of one row."""
    row = np.empty((1, len(contents)), dtype=object)
    for i, content in enumerate(contents):
        row[0, i] = content
    return row


def write_waveclus(path: Path, *, without: str = "", **changed: Any) -> tuple[np.ndarray, np.ndarray]:
    """A file as those published. Gives the samples, from 0, of the spikes' peaks, and their classes."""
    rng = np.random.default_rng(0)
    marks = np.arange(100, 23900, 90)
    classes = rng.integers(1, 4, size=len(marks))
    trace = 0.05 * rng.standard_normal(24000) + 0.01
    peaks = marks + np.array([DELAYS[unit] for unit in classes])
    for peak, unit in zip(peaks, classes, strict=True):
        offsets = np.arange(-15, 16)
        trace[peak + offsets] += (1 if unit < 3 else -1) * np.exp(-0.5 * (offsets / (2 + unit)) ** 2)
    variables = {
        "data": trace[None],
        "spike_times": cells(marks[None] + 1),
        "spike_class": cells(classes[None], np.zeros_like(classes[None]), np.zeros_like(classes[None])),
        "samplingInterval": np.array([[1 / 24]]),
    }
    variables |= changed
    savemat(path, {name: value for name, value in variables.items() if name != without})
    return peaks, classes


@pytest.fixture(scope="module")
def library() -> SpikeShapes:
    return spike_shapes(bundled_bank())


@pytest.fixture(scope="module")
def built(library: SpikeShapes) -> tuple[BaseRecording, BaseSorting]:
    return make_waveclus(library, similarity="easy", noise_level=0.1, seed=3, duration_s=SECONDS)


def channel_of(library: SpikeShapes, *, similarity: str, noise_level: float, seed: int = 0) -> waveclus.SingleChannel:
    rngs = random_streams(seed, "shapes", "trains", "noise")
    return make_channel(library, similarity=similarity, noise_level=noise_level, rngs=rngs, duration_s=10.0)


def nearest_template_errors(channel: waveclus.SingleChannel) -> float:
    """Share of the spikes that lie nearer to the mean of another unit than to their own."""
    snippets = channel.trace[channel.times[:, None] + np.arange(-20, 31)]
    means = np.stack([snippets[channel.classes == unit].mean(axis=0) for unit in (1, 2, 3)])
    nearest = ((snippets[:, None] - means) ** 2).sum(axis=2).argmin(axis=1) + 1
    return float(np.mean(nearest != channel.classes))


def test_reads_what_was_written(tmp_path: Path) -> None:
    peaks, classes = write_waveclus(tmp_path / "C_Easy1_noise005.mat")
    channel = read_waveclus(tmp_path / "C_Easy1_noise005.mat")
    order = np.argsort(peaks, kind="stable")
    assert channel.sampling_frequency == pytest.approx(RATE)
    assert channel.trace.shape == (24000,)
    np.testing.assert_array_equal(channel.classes, classes[order])
    assert np.abs(channel.times - peaks[order]).max() <= 1


@pytest.mark.parametrize("name", ["data", "spike_times", "spike_class", "samplingInterval"])
def test_missing_variable(tmp_path: Path, name: str) -> None:
    write_waveclus(tmp_path / "C.mat", without=name)
    with pytest.raises(ValueError, match=f"no variable {name}"):
        read_waveclus(tmp_path / "C.mat")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"spike_times": np.array([[1.0, 2.0]])}, "cell array as spike_times"),
        ({"spike_times": cells(np.array([[1, 2]]))}, "has 2 spike_times, but the spike_class of 265"),
        ({"samplingInterval": np.array([[0.0]])}, "one positive number"),
        ({"data": np.zeros((1, 100))}, "outside of its 100 samples"),
    ],
)
def test_odd_variable(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    write_waveclus(tmp_path / "C.mat", **changed)
    with pytest.raises(ValueError, match=message):
        read_waveclus(tmp_path / "C.mat")


def test_file_becomes_a_tetrode(tmp_path: Path) -> None:
    peaks, classes = write_waveclus(tmp_path / "C.mat")
    recording, sorting = tetrode_recording(read_waveclus(tmp_path / "C.mat"), seed=5)
    assert recording.get_num_channels() == 4 and recording.get_num_samples() == 24000
    assert sorting.unit_ids.tolist() == [1, 2, 3]
    assert sum(sorting.count_num_spikes_per_unit().values()) == len(peaks)


@pytest.mark.parametrize("seed", range(5))
def test_four_channels(seed: int) -> None:
    trace = np.random.default_rng(seed).normal(size=20000)
    four = to_tetrode(trace, seed=seed)
    assert four.traces.shape == (20000, 4) and four.traces.dtype == np.float32
    assert np.all((np.abs(four.gains) >= 0.5) & (np.abs(four.gains) <= 1.0))
    assert np.all((four.shifts >= 0) & (four.shifts <= 5))
    for channel, (gain, shift) in enumerate(zip(four.gains, four.shifts, strict=True)):
        residual = four.traces[5:, channel] - gain * trace[5 - shift : len(trace) - shift]
        assert residual.std() == pytest.approx(0.01, rel=0.05)
    assert four.peak_shift == four.shifts[np.abs(four.gains).argmax()]


def test_channels_differ_and_repeat() -> None:
    trace = np.random.default_rng(0).normal(size=100)
    drawn = [to_tetrode(trace, seed=seed) for seed in range(50)]
    gains = np.concatenate([four.gains for four in drawn])
    assert 0.35 < np.mean(gains < 0) < 0.65
    assert set(np.concatenate([four.shifts for four in drawn])) == set(range(6))
    np.testing.assert_array_equal(to_tetrode(trace, seed=7).traces, drawn[7].traces)


def test_shapes_of_neurons(library: SpikeShapes) -> None:
    assert len(library) > 150 and len(set(library.neurons)) == 19
    assert library.waveforms.dtype == np.float32 and library.waveforms.shape == (len(library.neurons), 250)
    np.testing.assert_array_equal(np.abs(library.waveforms).argmax(axis=1), PEAK_SAMPLE)
    np.testing.assert_allclose(library.waveforms[:, PEAK_SAMPLE], 1.0, rtol=1e-6)
    assert np.abs(library.waveforms[:, [0, -1]]).max() < 0.01


def test_recorded_shapes(shared_data: Path) -> None:
    folder = shared_data / "waveforms"
    if not (folder / waveclus.WAVEFORM_FILE).is_file():
        pytest.skip(f"the shared data hold no {waveclus.WAVEFORM_FILE}")
    recorded = spike_shapes(recorded=folder)
    assert len(set(recorded.neurons)) == 17 and len(recorded) > 100
    np.testing.assert_array_equal(np.abs(recorded.waveforms).argmax(axis=1), PEAK_SAMPLE)
    both = spike_shapes(bundled_bank(), recorded=folder)
    assert len(both) > 300


def test_no_source_of_shapes() -> None:
    with pytest.raises(ValueError, match="no spike shapes"):
        spike_shapes()


def test_triples_are_of_three_neurons(library: SpikeShapes) -> None:
    triples, distances = triple_distances(library, rng=np.random.default_rng(0), num_triples=500)
    assert triples.shape == distances.shape == (500, 3)
    assert all(len(set(library.neurons[triple])) == 3 for triple in triples)
    assert np.all(np.diff(distances, axis=1) >= 0)
    first, second, third = library.waveforms[triples[0], :: waveclus.OVERSAMPLING].astype("float64")
    expected = sorted(np.linalg.norm(a - b) for a, b in ((first, second), (first, third), (second, third)))
    np.testing.assert_allclose(distances[0], expected, rtol=1e-6)


def test_difficult_shapes_are_more_alike(library: SpikeShapes) -> None:
    nearest: dict[str, list[float]] = {"easy": [], "difficult": []}
    for similarity, found in nearest.items():
        for seed in range(10):
            chosen = choose_triple(library, similarity=similarity, rng=np.random.default_rng(seed))
            shapes = library.waveforms[chosen]
            found.append(min(float(np.linalg.norm(shapes[i] - shapes[j])) for i, j in ((0, 1), (0, 2), (1, 2))))
    assert max(nearest["difficult"]) < min(nearest["easy"])


def test_easy_shapes_are_told_apart_more_easily(library: SpikeShapes) -> None:
    errors = {
        similarity: np.mean(
            [
                nearest_template_errors(channel_of(library, similarity=similarity, noise_level=0.15, seed=seed))
                for seed in range(3)
            ]
        )
        for similarity in ("easy", "difficult")
    }
    assert 2 * errors["easy"] < errors["difficult"]


@pytest.mark.parametrize("noise_level", [0.05, 0.2])
def test_background_has_its_level(library: SpikeShapes, noise_level: float) -> None:
    channel = channel_of(library, similarity="easy", noise_level=noise_level)
    quiet = np.ones(len(channel.trace), dtype=bool)
    quiet[np.unique(channel.times[:, None] + np.arange(-35, 41))] = False
    assert quiet.sum() > 10000
    assert channel.trace[quiet].std() == pytest.approx(noise_level, rel=0.1)
    for unit in (1, 2, 3):
        mean = channel.trace[channel.times[channel.classes == unit]].mean()
        # Its samples catch a spike anywhere around its peak.
        assert mean == pytest.approx(1.0, abs=0.1)


def test_noise_leaves_spikes_where_they_are(library: SpikeShapes) -> None:
    quiet = channel_of(library, similarity="easy", noise_level=0.05)
    loud = channel_of(library, similarity="easy", noise_level=0.2)
    np.testing.assert_array_equal(quiet.times, loud.times)
    np.testing.assert_array_equal(quiet.classes, loud.classes)


def test_spikes_fall_between_samples(library: SpikeShapes) -> None:
    """A spike at a phase is the spike at the higher rate, filtered and taken apart."""
    phases = waveclus._phase_shapes(library.waveforms[:3])
    for phase in range(4):
        fine = library.waveforms[:3].astype("float64")
        held = fine[:, (-phase) % 4 :: 4]
        begin = 1 if phase else 0
        np.testing.assert_allclose(phases[:, phase, begin : begin + held.shape[1]], held, atol=0.02)


def test_trains(built: tuple[BaseRecording, BaseSorting]) -> None:
    _, sorting = built
    assert sorting.unit_ids.tolist() == [1, 2, 3]
    trains = [sorting.get_unit_spike_train(unit) for unit in sorting.unit_ids]
    for train in trains:
        # 400 spikes, of a process that is a little more regular than Poisson's.
        assert len(train) / SECONDS == pytest.approx(20.0, abs=4.0)
        assert np.diff(train).min() >= 48
    everything = np.sort(np.concatenate(trains))
    # Overlaps are kept.
    assert np.mean(np.diff(everything) < 24) > 0.02


def test_recording(built: tuple[BaseRecording, BaseSorting]) -> None:
    recording, _ = built
    assert recording.get_sampling_frequency() == RATE and recording.get_num_samples() == SECONDS * RATE
    assert recording.get_dtype() == "float32" and recording.has_scaleable_traces()
    np.testing.assert_array_equal(recording.get_channel_gains(), 1.0)
    np.testing.assert_array_equal(recording.get_probe().device_channel_indices, range(4))
    assert len(np.unique(recording.get_channel_locations(), axis=0)) == 4


@pytest.mark.parametrize(("similarity", "seed"), [("easy", 3), ("difficult", 4), ("difficult", 5)])
def test_labels_lie_at_the_largest_deflection(library: SpikeShapes, similarity: str, seed: int) -> None:
    recording, sorting = make_waveclus(library, similarity=similarity, noise_level=0.05, seed=seed, duration_s=10.0)
    traces = recording.get_traces(return_in_uV=True)
    offsets = np.arange(-20, 21)
    for unit in sorting.unit_ids:
        train = sorting.get_unit_spike_train(unit)
        mean = traces[train[:, None] + offsets].mean(axis=0)
        largest = np.abs(mean).max(axis=1)
        assert abs(offsets[largest.argmax()]) <= 1
        assert 0.45 * PEAK_UV < largest.max() < 1.1 * PEAK_UV


def test_same_seed_same_recording(library: SpikeShapes, built: tuple[BaseRecording, BaseSorting]) -> None:
    again, other = (
        make_waveclus(library, similarity="easy", noise_level=0.1, seed=seed, duration_s=SECONDS) for seed in (3, 4)
    )
    np.testing.assert_array_equal(again[0].get_traces(), built[0].get_traces())
    np.testing.assert_array_equal(again[1].to_spike_vector(), built[1].to_spike_vector())
    assert not np.array_equal(other[0].get_traces(), built[0].get_traces())


def test_what_cannot_be_built(library: SpikeShapes) -> None:
    with pytest.raises(ValueError, match="similarity must be one of easy, difficult"):
        make_waveclus(library, similarity="hard", noise_level=0.1, seed=0)
    with pytest.raises(ValueError, match="larger than 0"):
        make_waveclus(library, similarity="easy", noise_level=0.0, seed=0)
    two = np.isin(library.neurons, np.unique(library.neurons)[:2])
    with pytest.raises(ValueError, match="of 3 neurons"):
        make_waveclus(
            SpikeShapes(library.waveforms[two], library.neurons[two]), similarity="easy", noise_level=0.1, seed=0
        )
