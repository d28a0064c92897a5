"""Clusters of one unit at two shifts are joined, those of two neurons are not."""

import numpy as np
import pytest

from spikeinterface_simsort.realignment import join_shifted

NUM_SAMPLES, NUM_CHANNELS, RATE = 48, 2, 30000.0
FRAMES_PER_SAMPLE = 1.5


def waveform(*, shift: float = 0.0, width: float = 3.0, scale: float = 10.0) -> np.ndarray:
    """[num_samples, num_channels]; its peak is at sample 16 + shift of the first channel."""
    at = np.arange(NUM_SAMPLES)[:, None] - 16 - shift
    peak = -np.exp(-((at / width) ** 2)) + 0.4 * np.exp(-(((at - 4 * width) / 8) ** 2))
    return scale * peak * np.array([1.0, 0.6])


def spikes(
    templates: list[np.ndarray], *, num: int = 400, seed: int = 0, spacing: int = 900
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Peaks, waveforms and labels of clusters that fire in turn, so that no two spikes are near each other."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num * len(templates)) % len(templates)
    peaks = np.zeros(len(labels), dtype=[("sample_index", "int64"), ("segment_index", "int64")])
    peaks["sample_index"] = 1000 + np.arange(len(labels)) * spacing
    waveforms = np.stack(templates)[labels] + rng.normal(size=(len(labels), NUM_SAMPLES, NUM_CHANNELS))
    return peaks, waveforms.reshape(len(labels), NUM_SAMPLES * NUM_CHANNELS).astype("float16"), labels


def join(
    peaks: np.ndarray, waveforms: np.ndarray, labels: np.ndarray, *, max_shift: int = 10, num_frames: int = 10**8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return join_shifted(
        peaks,
        waveforms,
        labels,
        num_channels=NUM_CHANNELS,
        frames_per_sample=FRAMES_PER_SAMPLE,
        max_shift=max_shift,
        sampling_frequency=RATE,
        num_frames=[num_frames, num_frames],
    )


@pytest.mark.parametrize("shift", [-6, -2, 2, 6])
def test_one_unit_at_two_shifts(shift: int) -> None:
    given = spikes([waveform(), waveform(shift=shift)])
    # The larger cluster keeps its times.
    kept = np.ones(len(given[2]), dtype=bool)
    kept[1:200:2] = False
    peaks, waveforms, labels = (part[kept] for part in given)
    joined, aligned, units = join(peaks, waveforms, labels)
    assert set(units) == {0}
    moved = np.isin(joined["sample_index"], peaks["sample_index"], invert=True)
    assert moved.sum() == (labels == 1).sum()
    expected = peaks["sample_index"] + np.where(labels == 1, round(shift * FRAMES_PER_SAMPLE), 0)
    np.testing.assert_array_equal(joined["sample_index"], np.sort(expected))
    means = [aligned[part].astype("float32").mean(axis=0).reshape(NUM_SAMPLES, -1) for part in (moved, ~moved)]
    assert means[0][:, 0].argmin() == means[1][:, 0].argmin() == 16
    # What was given is as it was.
    np.testing.assert_array_equal(peaks, given[0][kept])


@pytest.mark.parametrize(
    "other",
    [
        waveform(width=4.5),
        waveform(shift=4, width=4.5),
        waveform(scale=6.0),
        waveform(shift=4, scale=6.0),
        # Alike as they lie: something else parted them.
        waveform(shift=0.4),
        waveform(shift=14),
    ],
    ids=["wider", "wider and later", "smaller", "smaller and later", "hardly later", "too late"],
)
def test_other_waveforms_stay_apart(other: np.ndarray) -> None:
    peaks, waveforms, labels = spikes([waveform(), other])
    joined, _, units = join(peaks, waveforms, labels)
    np.testing.assert_array_equal(units, labels)
    np.testing.assert_array_equal(joined, peaks)


def test_two_neurons_fire_within_each_others_refractory_period() -> None:
    peaks, waveforms, labels = spikes([waveform(), waveform(shift=4)], num=4000)
    # A second neuron knows nothing of the first: some of its spikes follow within a millisecond.
    rng = np.random.default_rng(1)
    peaks["sample_index"] = np.sort(rng.integers(1000, 2_000_000, len(peaks)))
    labels = rng.permutation(labels)
    waveforms = np.where((labels == 1)[:, None], waveforms[1], waveforms[0]).astype("float16")
    assert set(join(peaks, waveforms, labels)[2]) == {0, 1}


def test_three_shifts_and_bystanders() -> None:
    given = spikes([waveform(shift=s) for s in (0, 3, -3)] + [waveform(width=5.0), waveform(shift=3)])
    peaks, waveforms, labels = given
    labels = np.where(labels == 4, -1, labels)
    _, _, units = join(peaks, waveforms, labels)
    # The shape of its own keeps its label, and noise remains noise.
    assert [int((units == unit).sum()) for unit in (-1, 0, 1, 2, 3)] == [400, 1200, 0, 0, 400]


@pytest.mark.parametrize("num", [0, 1, 19])
def test_few_spikes_are_left_alone(num: int) -> None:
    peaks, waveforms, labels = spikes([waveform(), waveform(shift=3)], num=num)
    _, _, units = join(peaks, waveforms, labels)
    np.testing.assert_array_equal(units, labels)


def test_times_stay_in_the_recording_and_sorted() -> None:
    peaks, waveforms, labels = spikes([waveform(), waveform(shift=-6)], num=401)
    peaks["sample_index"] -= 1000
    labels = 1 - labels
    waveforms = waveforms.reshape(-1, 2, NUM_SAMPLES * NUM_CHANNELS)[:, ::-1].reshape(len(labels), -1)
    labels[1::20] = 1
    joined, _, _ = join(peaks, waveforms, labels)
    assert joined["sample_index"].min() >= 0
    assert (np.diff(joined["sample_index"]) >= 0).all()


def test_no_spike_is_shifted_past_the_end() -> None:
    peaks, waveforms, labels = spikes([waveform(), waveform(shift=6)])
    # The last spike is one of those that are shifted to later frames, and the recording ends with it.
    peaks, waveforms, labels = peaks[3:], waveforms[3:], labels[3:]
    labels[0] = 0
    joined, _, units = join(peaks, waveforms, labels, num_frames=int(peaks["sample_index"].max()) + 1)
    assert set(units) == {0}
    assert (joined["sample_index"] != peaks["sample_index"]).any()
    assert joined["sample_index"].max() == peaks["sample_index"].max()


def test_segments_are_apart() -> None:
    peaks, waveforms, labels = spikes([waveform(), waveform(shift=3)])
    peaks["segment_index"][400:] = 1
    joined, _, units = join(peaks, waveforms, labels)
    assert set(units) == {0}
    np.testing.assert_array_equal(joined["segment_index"], peaks["segment_index"])
