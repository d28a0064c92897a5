"""The embedding's case study: planes and mean waveforms of a trial whose units are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks import embedding_case
from benchmarks.embedding_case import Case, draw, main, make_case
from benchmarks.recordings import sorting_of
from spikeinterface_simsort.weights import load_weights


@pytest.fixture(scope="module")
def case(trial: tuple[BaseRecording, BaseSorting]) -> Case:
    return make_case(*trial, weights=load_weights())


def test_case_of_a_trial(case: Case, trial: tuple[BaseRecording, BaseSorting]) -> None:
    truth = trial[1]
    assert list(case.planes) == ["embedding", "pca"]
    num_spikes = len(truth.to_spike_vector())
    for plane in case.planes.values():
        assert plane.points.shape == (num_spikes, 2) and np.isfinite(plane.points).all()
        assert "% of the variance" in plane.axes[0]
        assert plane.ari <= 1.0
    assert case.planes["embedding"].ari_before > 0.9
    assert case.unit_ids == list(truth.unit_ids) and case.means.shape == (4, len(case.times_ms), 4)
    # The spike is where the time is 0, or a sample or two beside.
    deepest = np.abs(case.means).max(axis=2).argmax(axis=1)
    assert (np.abs(case.times_ms[deepest]) < 0.2).all()
    # In noise levels.
    assert 3.0 < np.abs(case.means).max() < 200.0


def test_planes_know_nothing_of_the_units(case: Case, trial: tuple[BaseRecording, BaseSorting]) -> None:
    recording, truth = trial
    spikes = truth.to_spike_vector()
    half = {0: spikes["sample_index"][::2], 1: spikes["sample_index"][1::2]}
    other = make_case(recording, sorting_of(half, rate=truth.get_sampling_frequency()), weights=load_weights())
    assert len(other.labels) == len(case.labels)
    for name, plane in case.planes.items():
        # Components have no sign.
        np.testing.assert_allclose(np.abs(other.planes[name].points), np.abs(plane.points), atol=0.02)
        # Every other spike is no unit.
        assert other.planes[name].ari < 0.2


def test_few_spikes_are_refused(trial: tuple[BaseRecording, BaseSorting]) -> None:
    recording, truth = trial
    rate = truth.get_sampling_frequency()
    one = sorting_of({0: truth.get_unit_spike_train(truth.unit_ids[0])}, rate=rate)
    few = sorting_of({0: np.array([3000]), 1: np.array([9000])}, rate=rate)
    for sorting in (one, few):
        with pytest.raises(ValueError, match="two units"):
            make_case(recording, sorting, weights=load_weights())


def test_silent_units_have_no_mean(trial: tuple[BaseRecording, BaseSorting], tmp_path: Path) -> None:
    recording, truth = trial
    trains = {int(unit): truth.get_unit_spike_train(unit) for unit in truth.unit_ids}
    silent = sorting_of({**trains, 9: np.empty(0, dtype="int64")}, rate=truth.get_sampling_frequency())
    case = make_case(recording, silent, weights=load_weights())
    assert np.isnan(case.means[4]).all() and np.isfinite(case.means[:4]).all()
    draw(case, tmp_path / "silent.png")
    assert (tmp_path / "silent.png").stat().st_size > 20_000


@pytest.mark.parametrize("num_planes", [2, 4])
def test_figure_of_many_units(case: Case, num_planes: int, tmp_path: Path) -> None:
    """More units than colours, and the panels that UMAP adds."""
    labels = np.arange(len(case.labels)) % 25
    means = np.repeat(case.means, 7, axis=0)[:25]
    many = replace(case, labels=labels, unit_ids=[f"u{unit}" for unit in range(25)], means=means)
    planes = [*case.planes.items(), *((f"umap_{name}", plane) for name, plane in case.planes.items())]
    draw(replace(many, planes=dict(planes[:num_planes])), tmp_path / "new" / "many.png", title="many")
    assert (tmp_path / "new" / "many.png").stat().st_size > 20_000


def test_main_draws(trial_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(trial_folder), "--figure", str(tmp_path / "case.png")]) == 0
    assert (tmp_path / "case.png").stat().st_size > 20_000
    assert "| PCA of the embedding |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--figure", str(tmp_path / "none.png")])


@pytest.mark.slow
def test_umap_adds_planes(trial: tuple[BaseRecording, BaseSorting]) -> None:
    pytest.importorskip("umap")
    case = make_case(*trial, weights=load_weights(), with_umap=True)
    assert list(case.planes) == ["embedding", "pca", "umap_embedding", "umap_waveforms"]
    assert case.planes["umap_embedding"].ari > 0.8


def test_titles_carry_scores(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(embedding_case, "save_figure", lambda figure, path, *, dpi: written.append(figure))
    draw(case, tmp_path / "case.png")
    panels = written[0].axes
    plane = case.planes["embedding"]
    assert f"ARI {plane.ari_before:.2f} (informative axes), {plane.ari:.2f} (plane)" in panels[0].get_title(loc="left")
    assert f"({embedding_case.PCA_DIMENSIONS} components)" in panels[1].get_title(loc="left")
    assert [panel.get_xlabel() for panel in panels[2:]] == ["time (ms)"] * 4
    assert panels[2].get_ylabel() == "mean waveform (noise levels)"
