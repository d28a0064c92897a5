"""The picture and the table of units: what they show, and that no sorting is too odd for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from spikeinterface.core import BaseRecording, BaseSorting, NumpyRecording, NumpySorting

from spikeinterface_simsort.report import draw_units
from spikeinterface_simsort.unit_table import describe_units, violation_share

RATE = 10000.0
COLOURS = ["#0072B2", "#D55E00", "#009E73"]


def make_recording(
    *, num_units: int, num_channels: int = 4, durations: tuple[float, ...] = (3.0,), spikes_a_segment: int = 25
) -> tuple[BaseRecording, BaseSorting]:
    """Noise of 5 uV and units of 100 uV, each largest on a channel of its own; gain 1, no probe."""
    rng = np.random.default_rng(0)
    shape = -100.0 * np.hanning(9)
    traces, trains = [], []
    for duration in durations:
        num_samples = int(duration * RATE)
        segment = 5.0 * rng.normal(size=(num_samples, num_channels))
        train = {}
        for unit in range(num_units):
            # At least 2 ms apart.
            train[unit] = 20 + np.sort(rng.choice(num_samples // 20 - 5, spikes_a_segment, replace=False)) * 20
            for sample in train[unit]:
                segment[sample - 4 : sample + 5, unit % num_channels] += shape
        traces.append(segment.astype("float32"))
        trains.append(train)
    recording = NumpyRecording(traces, RATE)
    recording.set_channel_gains(1.0)
    recording.set_channel_offsets(0.0)
    return recording, NumpySorting.from_unit_dict(trains, RATE)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """Figures that are saved meanwhile."""
    saved: list[Figure] = []
    save = Figure.savefig

    def remember(figure: Figure, *args: object, **kwargs: object) -> None:
        saved.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", remember)
    yield saved


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def share_of_colour(path: Path, colour: str) -> float:
    pixels = imread(path)[..., :3]
    return float(np.mean(np.abs(pixels - np.array(to_rgb(colour))).max(axis=-1) < 0.02))


# The table


def test_rows_of_units_with_properties() -> None:
    recording, _ = make_recording(num_units=0, durations=(2.0, 2.0))
    trains = [{3: np.array([100, 110, 1000, 5000]), 7: np.array([50])}, {3: np.array([5000, 9000]), 7: np.array([60])}]
    sorting = NumpySorting.from_unit_dict(trains, RATE)
    for name, values in (
        ("group", ["a", "b"]),
        ("main_channel_id", [1, 3]),
        ("snr", [8.5, 4.0]),
        ("probability", [0.9, 0.7]),
        ("predicted_accuracy", [0.95, 0.4]),
    ):
        sorting.set_property(name, np.array(values))
    first, second = describe_units(recording, sorting)
    assert (first.unit_id, first.group, first.main_channel) == (3, "a", 1)
    assert (first.num_spikes, first.rate_hz) == (6, 1.5)
    assert (first.snr, first.probability, first.predicted_accuracy) == (8.5, 0.9, 0.95)
    # One interval of 1 ms among the three of one segment and the one of the other: none reaches over both.
    assert first.violations == pytest.approx(1 / 4)
    assert (second.unit_id, second.num_spikes, second.violations) == (7, 2, 0.0)


def test_rows_of_units_without_properties() -> None:
    recording, sorting = make_recording(num_units=2)
    rows = describe_units(recording, sorting)
    assert [row.unit_id for row in rows] == [0, 1]
    assert all(row.group is row.main_channel is row.snr is row.probability is None for row in rows)
    assert all(row.predicted_accuracy is None for row in rows)
    assert describe_units(recording, NumpySorting.from_unit_dict([{}], RATE)) == []


def test_violations_begin_below_the_refractory_period() -> None:
    train = np.cumsum([100, 14, 15, 16])
    assert violation_share([train], sampling_frequency=RATE) == pytest.approx(1 / 3)
    assert violation_share([train[:1], train[:0]], sampling_frequency=RATE) == 0.0


# The picture


def test_several_units(tmp_path: Path, figures: list[Figure]) -> None:
    recording, sorting = make_recording(num_units=3)
    sorting.set_property("snr", np.array([5.0, 9.0, 7.0]))
    sorting.set_property("predicted_accuracy", np.array([0.3, 0.96, 0.8]))
    path = draw_units(recording, sorting, tmp_path / "units.png", title="session")
    assert path == tmp_path / "units.png"
    assert imread(path).shape[0] > 500
    for colour in COLOURS:
        assert share_of_colour(path, colour) > 5e-4
    shown = texts(figures[0])
    assert "session: 3 units, 4 channels, 3 s" in shown
    # The largest first.
    assert [text for text in shown if text.startswith("unit ")] == ["unit 1", "unit 2", "unit 0"]
    facts = ("8.33 Hz", "25 spikes", "SNR 9.0", "pred. accuracy 0.96")
    assert any(all(fact in text for fact in facts) for text in shown)
    assert shown.count("µV") == 6 and "a.u." not in shown
    assert "0 % of intervals < 1.5 ms" in shown
    assert {"PC 1", "PC 2", "PC 3"} <= set(shown)


def test_waveforms_and_amplitudes_are_those_of_the_recording(tmp_path: Path, figures: list[Figure]) -> None:
    recording, sorting = make_recording(num_units=1)
    draw_units(recording, sorting, tmp_path / "units.png")
    # The filter takes some of a slow spike.
    axes = {axis.get_title(loc="left"): axis for axis in figures[0].findobj() if hasattr(axis, "get_title")}
    waveform = next(axis for title, axis in axes.items() if title.startswith("mean waveform"))
    lows = [line.get_ydata().min() for line in waveform.lines if len(line.get_ydata()) > 10]
    assert len(lows) == 4
    assert -120 < lows[0] < -60 and all(low > -10 for low in lows[1:])
    times, amplitudes = axes["amplitude on the main channel"].lines[0].get_data()
    assert np.allclose(times, sorting.get_unit_spike_train(0) / RATE)
    assert -120 < np.median(amplitudes) < -60


def test_no_units(tmp_path: Path, figures: list[Figure]) -> None:
    recording, _ = make_recording(num_units=0)
    path = draw_units(recording, NumpySorting.from_unit_dict([{}], RATE), tmp_path / "units.png")
    assert texts(figures[0]) == ["0 units, 4 channels, 3 s", "No units were found."]
    assert np.mean(imread(path)[..., :3] < 0.5) > 1e-3


def test_units_of_one_spike_and_of_none(tmp_path: Path, figures: list[Figure]) -> None:
    recording, _ = make_recording(num_units=0)
    sorting = NumpySorting.from_unit_dict([{0: np.array([2]), 1: np.array([], dtype="int64")}], RATE)
    draw_units(recording, sorting, tmp_path / "units.png")
    shown = texts(figures[0])
    assert "the 1 of 2 units with the most spikes, 4 channels, 3 s" in shown
    assert "PC 1" not in shown


def test_segments_are_put_one_after_another(tmp_path: Path, figures: list[Figure]) -> None:
    recording, sorting = make_recording(num_units=1, durations=(2.0, 1.0))
    draw_units(recording, sorting, tmp_path / "units.png")
    assert "1 unit, 4 channels, 3 s in 2 segments" in texts(figures[0])
    axis = next(axis for axis in figures[0].findobj() if getattr(axis, "get_xlabel", str)() == "time (s)")
    dots, boundary = axis.lines[:2]
    assert len(dots.get_xdata()) == 50 and dots.get_xdata().max() > 2.0
    assert list(boundary.get_xdata()) == [2.0, 2.0]
    assert axis.get_xlim() == (0.0, 3.0)


def test_groups_are_shown_on_their_own_channels(tmp_path: Path, figures: list[Figure]) -> None:
    recording, sorting = make_recording(num_units=3, num_channels=6)
    recording.set_property("group", np.array(["left"] * 2 + ["right"] * 4))
    sorting.set_property("group", np.array(["left", "left", "right"]))
    draw_units(recording, sorting, tmp_path / "units.png")
    shown = texts(figures[0])
    planes = [text for text in shown if text.startswith("PCA")]
    assert planes == [f"PCA of waveforms, channels concatenated, group {name}" for name in ("left", "right")]
    assert sum(text.startswith("ch ") for text in shown) == 2 * 2 + 4


def test_only_the_largest_of_many_units_are_shown(tmp_path: Path, figures: list[Figure]) -> None:
    recording, sorting = make_recording(num_units=5, spikes_a_segment=5)
    sorting.set_property("snr", np.arange(5.0))
    draw_units(recording, sorting, tmp_path / "units.png", max_units=2)
    shown = texts(figures[0])
    assert "the 2 of 5 units with the largest SNR, 4 channels, 3 s" in shown
    assert [text for text in shown if text.startswith("unit ")] == ["unit 4", "unit 3"]


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_no_gains_and_no_probe(tmp_path: Path, figures: list[Figure], dtype: str) -> None:
    recording, sorting = make_recording(num_units=1)
    traces = recording.get_traces() + (2**15 if dtype == "uint16" else 0)
    bare = NumpyRecording([traces.astype(dtype)], RATE)
    draw_units(bare, sorting, tmp_path / "units.png")
    shown = texts(figures[0])
    assert shown.count("a.u.") == 2 and "µV" not in shown
    # The recording is somebody else's.
    assert not bare.has_probe()
