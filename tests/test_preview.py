"""The picture of a trial: what each panel shows, and that no trial is too odd for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.text import Text

from spikeinterface_simsort.simulation.composition import Trial
from spikeinterface_simsort.simulation.preview import draw_trial
from spikeinterface_simsort.simulation.trials import bundled_bank

RATE = 20000.0
BLUE, VERMILION = "#0072B2", "#D55E00"


def make_trial(
    *, num_units: int, num_channels: int = 4, duration_s: float = 2.0, names: list[str] | None = None
) -> Trial:
    """Noise of 5 uV; unit u has -100 - u uV on channel u, modulo their number, and -60 on the next one."""
    rng = np.random.default_rng(0)
    num_samples = int(duration_s * RATE)
    traces = 5.0 * rng.normal(size=(num_samples, num_channels))
    shape = np.zeros(100)
    shape[36:45] = -np.hanning(9)
    templates = np.zeros((num_units, 100, num_channels), dtype="float32")
    samples, labels = [], []
    for unit in range(num_units):
        main = unit % num_channels
        templates[unit, :, main] = (100.0 + unit) * shape
        if num_channels > 1:
            templates[unit, :, (main + 1) % num_channels] = 60.0 * shape
        train = np.sort(rng.choice(num_samples // 100 - 2, 20, replace=False)) * 100 + 50 + 3 * unit
        for sample in train:
            traces[sample - 40 : sample + 60] += templates[unit]
        samples.append(train)
        labels.append(np.full(len(train), unit))
    times = np.concatenate([*samples, np.empty(0)]).astype("float64")
    order = np.argsort(times, kind="stable")
    row = np.arange(num_channels) - (num_channels - 1) / 2
    return Trial(
        traces=traces.astype("float32"),
        sampling_frequency=RATE,
        spike_samples=times[order],
        spike_labels=np.concatenate([*labels, np.empty(0)]).astype("int64")[order],
        unit_names=names or [f"L5_TTPC1_cADpyr232_{unit}" for unit in range(num_units)],
        unit_positions=rng.uniform(-40.0, 40.0, size=(num_units, 3)),
        templates=templates,
        template_peak=np.full(num_units, 40, dtype="int64"),
        contact_positions=np.column_stack([np.zeros(num_channels), 20.0 * row, np.zeros(num_channels)]),
    )


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


def panel(figure: Figure, start: str) -> Axes:
    """The only panel whose title starts so."""
    (found,) = [axis for axis in figure.axes if axis.get_title(loc="left").startswith(start)]
    return found


def template_panels(figure: Figure) -> list[Axes]:
    return [axis for axis in figure.axes if "µV, ch" in axis.get_title(loc="left")]


def labelled(axis: Axes, start: str) -> list[Line2D]:
    return [line for line in axis.lines if str(line.get_label()).startswith(start)]


def circles(axis: Axes, colour: str) -> list[Circle]:
    patches = [patch for patch in axis.patches if isinstance(patch, Circle)]
    return [patch for patch in patches if np.allclose(patch.get_facecolor()[:3], to_rgb(colour))]


@pytest.mark.parametrize(
    "num_units, num_channels, num_drawn", [(0, 4, 4), (1, 1, 1), (1, 4, 4), (5, 4, 4), (20, 16, 8), (20, 1, 1)]
)
def test_content(num_units: int, num_channels: int, num_drawn: int, tmp_path: Path, figures: list[Figure]) -> None:
    trial = make_trial(num_units=num_units, num_channels=num_channels)
    path = draw_trial(trial, path=tmp_path / "trial.png", dpi=40.0)
    assert path == tmp_path / "trial.png" and list(tmp_path.iterdir()) == [path]
    assert imread(path).shape[1] == 680
    (figure,) = figures
    units = f"{num_units} unit{'s' * (num_units != 1)}"
    assert f"{units}, {num_channels} channel{'s' * (num_channels != 1)}, 2 s at 20 kHz" in texts(figure)

    plane, depth = panel(figure, "x and y"), panel(figure, "x and z")
    assert len(circles(plane, "0.25")) == num_channels
    assert len(labelled(depth, "contact")) == num_channels
    assert len(plane.patches) == num_channels + num_units and len(depth.patches) == num_units
    assert sorted(text.get_text() for text in plane.texts if "µm" not in text.get_text()) == sorted(
        str(unit) for unit in range(num_units)
    )

    drawn = template_panels(figure)
    assert len(drawn) == num_units
    assert all(len(labelled(axis, "channel")) == num_drawn for axis in drawn)

    traces = panel(figure, "traces")
    assert len(labelled(traces, "channel")) == num_drawn == len(traces.get_yticklabels())
    spikes_shown = sum(len(line.get_xdata()) for line in labelled(traces, "unit"))
    assert f": {spikes_shown} labelled spike" in traces.get_title(loc="left")
    assert (f"{num_drawn} of {num_channels} channels" in traces.get_title(loc="left")) == (num_channels > 8)

    assert len(labelled(panel(figure, "power"), "channel")) == num_drawn
    intervals = panel(figure, "intervals")
    if num_units > 6:
        (mesh,) = [child for child in intervals.collections if isinstance(child, QuadMesh)]
        assert mesh.get_array().shape == (num_units, 40)
        assert np.allclose(np.asarray(mesh.get_array()).sum(axis=1), 100.0)
    else:
        assert len([patch for patch in intervals.patches if str(patch.get_label()).startswith("unit")]) == num_units
    raster = panel(figure, "spike times")
    assert [len(line.get_xdata()) for line in labelled(raster, "unit")] == [20] * num_units
    assert [text.get_text() for text in raster.texts if "Hz" in text.get_text()] == ["10 Hz"] * num_units
    assert texts(figure).count("No units.") == (2 if num_units == 0 else 0)


def test_templates_are_those_of_the_trial(tmp_path: Path, figures: list[Figure]) -> None:
    trial = make_trial(num_units=2)
    draw_trial(trial, path=tmp_path / "trial.png", dpi=40.0)
    for unit, axis in enumerate(template_panels(figures[0])):
        title = axis.get_title(loc="left")
        assert title.startswith(f"{unit}  L5_TTPC1") and f"-{100 + unit} µV, ch {unit}" in title
        lines = labelled(axis, "channel")
        times = lines[0].get_xdata()
        assert times[0] == pytest.approx(-1.0) and times[-1] == pytest.approx(2.0)
        for channel, line in enumerate(lines):
            shape = line.get_ydata() + channel * (100.0 + unit)
            assert np.allclose(shape, trial.templates[unit, 20:81, channel], atol=1e-3)
        (scale,) = labelled(axis, "scale")
        assert np.ptp(scale.get_xdata()) == pytest.approx(1.0) and np.ptp(scale.get_ydata()) == pytest.approx(100.0)


def test_spikes_are_marked_where_they_are(tmp_path: Path, figures: list[Figure]) -> None:
    trial = make_trial(num_units=2)
    path = draw_trial(trial, path=tmp_path / "trial.png", duration_s=0.5)
    axis = panel(figures[0], "traces")
    start = float(axis.get_title(loc="left").split(" s on")[0].split()[-1])
    for unit, colour in enumerate((BLUE, VERMILION)):
        own = trial.spike_samples[trial.spike_labels == unit] / RATE
        own = own[(own >= start) & (own < start + 0.5)]
        (marks,) = [line for line in labelled(axis, "unit") if line.get_label() == f"unit {unit}"]
        # The start is told to the millisecond.
        assert np.allclose(marks.get_xdata(), (own - start) * 1000.0, atol=0.51)
        assert marks.get_color() == colour
        (piece,) = labelled(axis, f"spikes of unit {unit}")
        values = piece.get_ydata()
        # On its two channels, about 1.2 ms around each spike.
        assert np.isfinite(values).sum() == pytest.approx(2 * 24 * len(own), rel=0.1)
        assert np.mean(np.abs(imread(path)[..., :3] - np.array(to_rgb(colour))).max(axis=-1) < 0.02) > 5e-4


def test_overlaps_are_counted_and_shaded(tmp_path: Path, figures: list[Figure]) -> None:
    trial = make_trial(num_units=2)
    samples = np.array([2000.0, 2008.0, 3000.0, 3008.0, 3600.0, 3616.0])
    trial = replace(trial, spike_samples=samples, spike_labels=np.array([0, 1, 0, 0, 1, 0]))
    draw_trial(trial, path=tmp_path / "trial.png", dpi=40.0)
    # 0.4 ms apart, the same unit twice, and 0.8 ms apart.
    axis = panel(figures[0], "traces")
    assert "6 labelled spikes, 1 overlap within 0.5 ms" in axis.get_title(loc="left")
    assert len(axis.patches) == 1


def test_stretch_with_most_spikes_is_shown(tmp_path: Path, figures: list[Figure]) -> None:
    trial = make_trial(num_units=2)
    samples = np.array([100.0, 200.0, 300.0, 30000.0, 30100.0])
    trial = replace(trial, spike_samples=samples, spike_labels=np.array([0, 0, 0, 0, 1]))
    draw_trial(trial, path=tmp_path / "trial.png", duration_s=0.1)
    assert "traces from 1.498 s on" in panel(figures[0], "traces").get_title(loc="left")


def test_channels_of_many_are_those_with_units(tmp_path: Path, figures: list[Figure]) -> None:
    trial = make_trial(num_units=1, num_channels=32)
    templates = np.roll(trial.templates, 20, axis=2)
    draw_trial(replace(trial, templates=templates), path=tmp_path / "trial.png")
    shown = [label.get_text() for label in panel(figures[0], "traces").get_yticklabels()]
    assert len(shown) == 8 and {"ch 20", "ch 21"} <= set(shown)


def test_shapes_of_cells(tmp_path: Path, figures: list[Figure]) -> None:
    neurons = bundled_bank()[:2]
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    trial = make_trial(num_units=2, names=[neurons[0].name, "not in the bank"])
    trial.__dict__["unit_rotations"] = np.stack([turn, np.eye(3)])
    draw_trial(trial, path=tmp_path / "trial.png", dpi=40.0, neurons=neurons)
    for start, axes in (("x and y", [0, 1]), ("x and z", [0, 2])):
        (shape,) = [child for child in panel(figures[0], start).collections if isinstance(child, LineCollection)]
        neuron = neurons[0]
        dendrites = np.arange(len(neuron.seg_diam)) != neuron.soma
        wanted = (neuron.seg_end @ turn.T + trial.unit_positions[0])[dendrites][:, axes]
        assert np.allclose([segment[-1] for segment in shape.get_segments()], wanted)
        assert np.allclose(shape.get_color()[0][:3], to_rgb(BLUE))


@pytest.mark.parametrize("known", ["neurons", "rotations"])
def test_somata_alone(known: str, tmp_path: Path, figures: list[Figure]) -> None:
    neurons = bundled_bank()[:1]
    trial = make_trial(num_units=1, names=[neurons[0].name])
    trial.__dict__["unit_rotations"] = np.eye(3)[None] if known == "rotations" else None
    draw_trial(trial, path=tmp_path / "trial.png", dpi=40.0, neurons=neurons if known == "neurons" else None)
    plane = panel(figures[0], "x and y")
    assert not plane.collections and len(circles(plane, BLUE)) == 1


@pytest.mark.parametrize("num_samples", [1, 2, 30, 200])
def test_very_short_trials(num_samples: int, tmp_path: Path, figures: list[Figure]) -> None:
    trial = make_trial(num_units=2)
    trial = replace(
        trial, traces=trial.traces[:num_samples], spike_samples=np.zeros(1), spike_labels=np.zeros(1, dtype="int64")
    )
    draw_trial(trial, path=tmp_path / "trial.png", dpi=40.0)
    shown = texts(figures[0])
    assert ("Too short for a spectrum." in shown) == (num_samples < 64)
    assert "No unit has two spikes." in shown
    assert len(labelled(panel(figures[0], "traces"), "channel")[0].get_xdata()) == num_samples


def test_silent_channel_and_low_rate(tmp_path: Path, figures: list[Figure]) -> None:
    trial = make_trial(num_units=1)
    trial.traces[:, 2] = 0.0
    # No band from 300 Hz on is left.
    draw_trial(replace(trial, sampling_frequency=500.0), path=tmp_path / "trial.png", dpi=40.0)
    assert len(labelled(panel(figures[0], "power"), "channel")) == 3
    draw_trial(replace(trial, traces=np.zeros_like(trial.traces)), path=tmp_path / "trial.png", dpi=40.0)
    assert len(labelled(panel(figures[1], "power"), "channel")) == 0


def test_failure_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trial.png"
    path.write_bytes(b"old")

    def fail(figure: Figure, target: Path, **kwargs: object) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_trial(make_trial(num_units=1), path=path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_refusals(tmp_path: Path) -> None:
    trial = make_trial(num_units=1)
    with pytest.raises(ValueError, match="duration_s must be above 0"):
        draw_trial(trial, path=tmp_path / "trial.png", duration_s=0.0)
    with pytest.raises(ValueError, match="without samples"):
        draw_trial(replace(trial, traces=trial.traces[:0]), path=tmp_path / "trial.png")
    with pytest.raises(ValueError, match="jpgg"):
        draw_trial(trial, path=tmp_path / "trial.jpgg")
    with pytest.raises(FileNotFoundError):
        draw_trial(trial, path=tmp_path / "nowhere" / "trial.png")
    assert not list(tmp_path.iterdir())
