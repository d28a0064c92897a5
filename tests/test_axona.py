"""Axona's spike files: what is read of them, and how snippets become waveforms of the embedder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import axona
from benchmarks.axona import Tetrode, cut_tetrodes, main, model_waveforms, read_cut, read_tetrode, score
from spikeinterface_simsort.weights import load_weights

HEADER = {
    "trial_date": "Monday, 1 Jan 2001",
    "comments": "",
    "num_chans": "4",
    "timebase": "96000 hz",
    "bytes_per_timestamp": "4",
    "samples_per_spike": "50",
    "sample_rate": "48000 hz",
    "bytes_per_sample": "1",
    "spike_format": "t,ch1,t,ch2,t,ch3,t,ch4",
}
RATE = 48000.0
CUT_HEADER = "n_clusters: 3\r\nn_channels: 4\r\n cluster: 0 center:    0    0\r\n\r\n"


def write_tetrode(path: Path, *, ticks: np.ndarray, samples: np.ndarray, without: str = "", cut_bytes: int = 0) -> Path:
    """Samples are int8 [num_spikes, num_samples, num_channels]; `cut_bytes` are missing at the end."""
    header = HEADER | {"num_spikes": f"{len(samples)}      "}
    lines = "".join(f"{key} {value}\r\n" for key, value in header.items() if key != without)
    body = b"".join(
        int(tick).to_bytes(4, "big") + channel.tobytes()
        for tick, spike in zip(ticks, samples, strict=True)
        for channel in spike.T
    )
    content = lines.encode() + b"data_start" + body + b"\r\ndata_end\r\n"
    path.write_bytes(content[: len(content) - cut_bytes])
    return path


def write_cut(path: Path, labels: np.ndarray, *, claimed: int | None = None) -> Path:
    rows = [labels[i : i + 25] for i in range(0, len(labels), 25)]
    text = "\r\n".join("".join(f"{label:3d}" for label in row) for row in rows)
    num_spikes = len(labels) if claimed is None else claimed
    path.write_bytes(f"{CUT_HEADER}Exact_cut_for: session spikes: {num_spikes}\r\n{text}".encode())
    return path


def tetrode_of(snippet: np.ndarray, *, num_spikes: int = 200, noise: float = 10.0) -> Tetrode:
    """Copies of a snippet [num_samples, num_channels], in noise."""
    rng = np.random.default_rng(0)
    waveforms = snippet + noise * rng.standard_normal((num_spikes, *snippet.shape))
    return Tetrode(
        sampling_frequency=RATE,
        times_s=np.arange(num_spikes) * 0.01,
        waveforms=waveforms.astype("float32"),
        samples_before=10,
    )


def spike(*, peak: float, height: float, sigma: float = 4.0) -> np.ndarray:
    """A Gaussian on channel 1, half as large on channel 2: [50, 4]."""
    shape = np.exp(-0.5 * ((np.arange(50) - peak) / sigma) ** 2)
    return height * shape[:, None] * np.array([0.0, 1.0, 0.5, 0.0])


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A spike file, its time stamps and its samples."""
    rng = np.random.default_rng(1)
    samples = rng.integers(-128, 128, size=(7, 50, 4)).astype("int8")
    ticks = np.array([0, 96, 9600, 96000, 2**31, 2**31 + 5, 2**32 - 1])
    return write_tetrode(tmp_path / "session.3", ticks=ticks, samples=samples), ticks, samples


@pytest.fixture
def recordings(shared_data: Path) -> dict[Path, Path]:
    files = cut_tetrodes(shared_data / "recordings" / "axona")
    if not files:
        pytest.skip("the shared data hold no spike files")
    return files


def test_reads_what_was_written(recorded: tuple[Path, np.ndarray, np.ndarray]) -> None:
    path, ticks, samples = recorded
    tetrode = read_tetrode(path)
    assert tetrode.sampling_frequency == RATE and tetrode.samples_before == 10
    assert tetrode.waveforms.dtype == np.float32
    np.testing.assert_array_equal(tetrode.waveforms, samples)
    np.testing.assert_allclose(tetrode.times_s, ticks / 96000.0, rtol=1e-15)


def test_no_spike_is_a_recording_too(tmp_path: Path) -> None:
    path = write_tetrode(tmp_path / "session.1", ticks=np.empty(0), samples=np.empty((0, 50, 4), dtype="int8"))
    assert read_tetrode(path).waveforms.shape == (0, 50, 4)


@pytest.mark.parametrize("cut_bytes", [5, 12, 13, 400])
def test_truncated_file(tmp_path: Path, cut_bytes: int) -> None:
    samples = np.zeros((3, 50, 4), dtype="int8")
    path = write_tetrode(tmp_path / "session.1", ticks=np.arange(3), samples=samples, cut_bytes=cut_bytes)
    with pytest.raises(ValueError, match="truncated.* 3 spikes"):
        read_tetrode(path)


@pytest.mark.parametrize("key", ["num_chans", "timebase", "samples_per_spike", "sample_rate", "bytes_per_sample"])
def test_missing_field(tmp_path: Path, key: str) -> None:
    samples = np.zeros((3, 50, 4), dtype="int8")
    path = write_tetrode(tmp_path / "session.1", ticks=np.arange(3), samples=samples, without=key)
    with pytest.raises(ValueError, match=f"no number {key}"):
        read_tetrode(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "session.1"
    path.write_bytes(b"num_spikes 3\r\n")
    with pytest.raises(ValueError, match="data_start"):
        read_tetrode(path)
    with pytest.raises(ValueError, match="Exact_cut_for"):
        read_cut(path)


def test_cut_reads_what_was_written(tmp_path: Path) -> None:
    labels = np.random.default_rng(2).integers(0, 30, size=61)
    np.testing.assert_array_equal(read_cut(write_cut(tmp_path / "session_1.cut", labels)), labels)


def test_cut_of_another_length(tmp_path: Path, recorded: tuple[Path, np.ndarray, np.ndarray]) -> None:
    cut = write_cut(tmp_path / "session_3.cut", np.arange(6), claimed=7)
    with pytest.raises(ValueError, match="6 spikes; it says 7"):
        read_cut(cut)
    write_cut(cut, np.arange(6))
    with pytest.raises(ValueError, match="of 6 spikes; .* has 7 spikes"):
        score(recorded[0], cut, weights=load_weights())


@pytest.mark.parametrize("height", [90.0, -90.0])
@pytest.mark.parametrize("peak", [10.0, 12.4, 16.7])
def test_spike_lies_where_the_embedder_expects_it(peak: float, height: float) -> None:
    tetrode = tetrode_of(spike(peak=peak, height=height))
    waveforms = model_waveforms(tetrode, sampling_frequency=20000.0, num_before=16, num_after=32)
    assert waveforms.shape == (200, 48, 4) and waveforms.dtype == np.float32
    mean = waveforms.mean(axis=0)
    assert np.unravel_index(np.abs(mean).argmax(), mean.shape) == (16, 1)
    # Whatever the amplifier's sign, down; and in units of noise.
    assert mean[16, 1] == pytest.approx(-9.0, rel=0.1)
    assert mean[16, 2] == pytest.approx(-4.5, rel=0.1)
    assert np.abs(mean[:, [0, 3]]).max() < 0.5

    # A snippet holds the peak and what is 48 kHz / 20 kHz = 2.4 frames a sample away.
    held = np.abs(waveforms).max(axis=(0, 2)) > 0
    before, after = peak / 2.4, (49 - peak) / 2.4
    assert 16 - np.flatnonzero(held)[0] == pytest.approx(before, abs=1.5)
    assert np.flatnonzero(held)[-1] - 16 == pytest.approx(after, abs=1.5)
    assert not waveforms[:, ~held].any() and held.sum() == np.ptp(np.flatnonzero(held)) + 1


def test_ends_of_a_snippet_do_not_ring() -> None:
    """A constant stays one as far as the snippet reaches."""
    tetrode = tetrode_of(spike(peak=11.0, height=60.0, sigma=1000.0))
    # The same without noise, whose estimate would be zero.
    quiet = Tetrode(RATE, tetrode.times_s, np.full_like(tetrode.waveforms, 60.0), 10)
    quiet.waveforms[::2, :5] += 10.0
    waveforms = model_waveforms(quiet, sampling_frequency=20000.0, num_before=16, num_after=32)[1::2]
    level = waveforms[waveforms != 0]
    np.testing.assert_allclose(level, level[0], rtol=0.01)


def test_dead_channel_stays_silent() -> None:
    tetrode = tetrode_of(spike(peak=11.0, height=90.0))
    tetrode.waveforms[:, :, 3] = 0.0
    waveforms = model_waveforms(tetrode, sampling_frequency=20000.0, num_before=16, num_after=32)
    assert np.isfinite(waveforms).all() and not waveforms[:, :, 3].any()


def test_well_separated_units_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, size=400)
    shapes = np.stack([np.zeros((50, 4)), spike(peak=11.0, height=90.0), spike(peak=11.0, height=90.0)[:, ::-1]])
    samples = (shapes[labels] + 8.0 * rng.standard_normal((400, 50, 4))).clip(-128, 127).astype("int8")
    path = write_tetrode(tmp_path / "session.2", ticks=np.arange(400) * 960, samples=samples)
    cut = write_cut(tmp_path / "session_2.cut", labels)
    row = score(path, cut, weights=load_weights())
    assert row["num_spikes"] == np.sum(labels > 0) and row["num_units"] == 2
    assert all(row[f"ari_{name}"] > 0.99 for name in axona.FEATURES)
    # The same from the command line.
    assert main(["--recordings", str(tmp_path), "--output", str(tmp_path / "scores.csv")]) == 0
    assert "| session.2 |" in capsys.readouterr().out and (tmp_path / "scores.csv").is_file()


def test_one_unit_has_no_score(tmp_path: Path) -> None:
    samples = np.ones((50, 50, 4), dtype="int8")
    path = write_tetrode(tmp_path / "session.2", ticks=np.arange(50), samples=samples)
    row = score(path, write_cut(tmp_path / "session_2.cut", np.ones(50, dtype="int64")), weights=load_weights())
    assert row["num_units"] == 1 and np.isnan(row["ari_embedding"])


def test_folder_without_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--recordings", str(tmp_path)])
    assert "no spike file" in capsys.readouterr().err


def test_recordings_agree_with_their_cuts(recordings: dict[Path, Path]) -> None:
    for path, cut in recordings.items():
        tetrode, clusters = read_tetrode(path), read_cut(cut)
        assert tetrode.waveforms.shape == (len(clusters), 50, 4) and tetrode.sampling_frequency == RATE
        # The header's duration is about 400 s.
        assert np.all(np.diff(tetrode.times_s) >= 0) and 390.0 < tetrode.times_s[-1] < 410.0
        mean = np.abs(tetrode.waveforms[clusters > 0].mean(axis=0)).max(axis=1)
        assert tetrode.samples_before <= mean.argmax() <= tetrode.samples_before + 5
