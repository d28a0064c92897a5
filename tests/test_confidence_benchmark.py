"""The benchmark of predicted accuracy: its trials, its measures, and that one command fits, writes and draws."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks import confidence
from benchmarks.confidence import ALL, MERGED, TRAINING, VALIDATION, calibration, draw, main, scores, summarise, trials
from spikeinterface_simsort.confidence import FEATURES, AccuracyModel
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.simulation.bank import save_bank
from spikeinterface_simsort.simulation.trials import bundled_bank


def test_trials_of_training_and_validation_differ() -> None:
    neurons = bundled_bank()
    training, validation = (trials(family, neurons, num_trials=4) for family in (TRAINING, VALIDATION))
    assert not {seed for _, seed in training} & {seed for _, seed in validation}
    # More trials are the same ones and others.
    assert list(trials(TRAINING, neurons, num_trials=6))[:4] == list(training)
    assert len({make.keywords["config"].duration_s for make in training.values()}) == 4


# Measures


def test_calibration_is_of_bins_of_equally_many() -> None:
    predicted = np.linspace(0.05, 0.95, 100)
    units = pd.DataFrame({"predicted": predicted[::-1], "accuracy": predicted[::-1] ** 2})
    curve = calibration(units)
    assert curve["num_units"].tolist() == [10] * 10
    np.testing.assert_allclose(curve["predicted"], predicted.reshape(10, 10).mean(axis=1))
    np.testing.assert_allclose(curve["accuracy"], curve["predicted"] ** 2, atol=0.01)
    # No bin has less than ten, but where all have.
    assert calibration(units[:35])["num_units"].tolist() == [12, 12, 11]
    assert calibration(units[:3])["num_units"].tolist() == [3]


def test_scores() -> None:
    units = pd.DataFrame({"predicted": [0.1, 0.4, 0.7, 0.9], "accuracy": [0.0, 0.5, 0.8, 0.95]})
    known = scores(units)
    assert known["num_units"] == 4 and known["auc"] == 1.0 and known["pearson"] > 0.98
    assert known["accuracy"] == pytest.approx(0.5625) and known["predicted"] == pytest.approx(0.525)
    assert known["mean_error"] == pytest.approx(0.35 / 4)
    assert known["calibration_error"] == pytest.approx(0.0375)
    assert np.isnan(scores(units.iloc[:2])["auc"])


def test_what_is_too_much_here_and_too_little_there_does_not_cancel() -> None:
    predicted = np.repeat([0.2, 0.8], 10)
    units = pd.DataFrame({"predicted": predicted, "accuracy": np.full(20, 0.5)})
    assert scores(units)["calibration_error"] == pytest.approx(0.3)


def test_families_and_all_of_them() -> None:
    table = pd.DataFrame({"predicted": np.linspace(0, 1, 60), "accuracy": np.linspace(0, 1, 60)})
    table["family"] = np.repeat([TRAINING, VALIDATION, "easy", "hard"], 15)
    table["is_merged"] = np.arange(60) % 15 == 0
    summary = summarise(pd.concat([table.assign(way="matched"), table[:30].assign(way="clusters")]))
    assert summary.groupby("way")["family"].apply(list).to_dict() == {
        "matched": [TRAINING, VALIDATION, "easy", "hard", ALL, MERGED],
        "clusters": [TRAINING, VALIDATION, MERGED],
    }
    assert summary[summary["way"] == "matched"]["num_units"].tolist() == [14, 14, 14, 14, 28, 3]


# The command


@pytest.fixture
def families(trial_folder: Path, tmp_path: Path) -> Path:
    """Two families of one recording each, which are the same."""
    for name in ("easy/0", "hard/007"):
        shutil.copytree(trial_folder, tmp_path / "datasets" / name)
    return tmp_path / "datasets"


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether templates were matched, for each recording that is scored; units are made up."""
    asked: list[bool] = []

    def score(
        recording: BaseRecording, truth: BaseSorting, *, weights: object, params: SimSortParams, num_merged: int
    ) -> pd.DataFrame:
        rng = np.random.default_rng(len(asked))
        asked.append(bool(params.match_templates))
        table = pd.DataFrame(rng.normal(size=(30, len(FEATURES))), columns=list(FEATURES))
        accuracy = np.clip(1 / (1 + np.exp(-2 * table[FEATURES[1]])) + rng.normal(0, 0.05, 30), 0, 1)
        table = table.assign(num_spikes=100, is_merged=np.arange(30) < num_merged, accuracy=accuracy)
        # In one recording, nothing is found.
        return table[:0] if len(asked) == 4 else table

    monkeypatch.setattr(confidence, "score_units", score)
    monkeypatch.setattr(confidence, "make_trial", lambda neurons, *, config, seed: (None, None))
    monkeypatch.setattr(confidence, "load_cells", lambda bank, *, config: (bundled_bank(), bundled_bank()))
    return asked


def test_one_command_fits_writes_and_draws(
    families: Path, scored: list[bool], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_bank(tmp_path / "bank.npz", bundled_bank())
    arguments = ["--bank", tmp_path / "bank.npz", "--datasets", families, "--num-trials", 5, "--num-validation", 2]
    arguments += ["--parts", tmp_path / "parts", "--asset", tmp_path / "model.json", "--output", tmp_path / "results"]
    arguments = [str(argument) for argument in [*arguments, "--figure", tmp_path / "curve.png"]]
    assert main(arguments) == 0
    # Five, two and two recordings, and every fourth of them without matching.
    assert scored == [True] * 9 + [False] * 3
    assert AccuracyModel.load(tmp_path / "model.json").coefficients.any()
    table = pd.read_csv(tmp_path / "results" / "confidence.csv").set_index(["way", "family"])
    assert table.loc[("matched", TRAINING), "num_units"] == 4 * 28
    assert table.loc[("matched", ALL), "num_units"] == 56 and table.loc[("matched", ALL), "pearson"] > 0.9
    curve = pd.read_csv(tmp_path / "results" / "confidence_curve.csv")
    assert curve.groupby("recordings")["num_units"].sum().to_dict() == {ALL: 56, VALIDATION: 56}
    assert imread(tmp_path / "curve.png").shape[1] > 600
    assert ALL in capsys.readouterr().out
    # What was scored is not scored again.
    written = (tmp_path / "model.json").read_bytes()
    assert main(arguments) == 0 and len(scored) == 12
    assert (tmp_path / "model.json").read_bytes() == written


def test_the_curve_is_that_of_the_bins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: figures.append(figure))
    predicted = np.linspace(0.05, 0.95, 100)
    units = pd.DataFrame({"predicted": predicted, "accuracy": predicted**2})
    units = units.assign(family=VALIDATION, way="matched", is_merged=False)
    draw(units, tmp_path / "curve.png")
    (axes,) = figures[0].axes
    drawn = axes.containers[0].lines[0].get_xydata()  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(drawn, calibration(units)[["predicted", "accuracy"]])
    assert axes.get_title(loc="left").startswith(f"{VALIDATION}: 100 units")
