"""Ways to match templates: on a short trial that all of them must score, and what becomes of those that fail."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting

from benchmarks import matching_ablation
from benchmarks.matching_ablation import (
    COLUMNS,
    ENGINES,
    ablate,
    as_markdown,
    gather,
    main,
    match_once,
    match_with,
    mean_templates,
    summarise,
)
from benchmarks.recordings import sorting_of, spike_band
from spikeinterface_simsort import learning

WAYS = ["clusters", *ENGINES, "own, once", "own, 1 round", "own, 2 rounds", "own, 3 rounds", "true templates"]


@pytest.fixture
def dataset(trial_folder: Path, tmp_path: Path) -> Path:
    """A family of two recordings, which are the same."""
    folder = tmp_path / "datasets"
    for name in ("9", "10"):
        shutil.copytree(trial_folder, folder / "family" / name)
    return folder


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[BaseRecording]:
    """Recordings that are scored, each way with an accuracy of 0.5."""
    recordings = []

    def scored(recording: BaseRecording, truth: BaseSorting) -> pd.DataFrame:
        recordings.append(recording)
        return pd.DataFrame([(way, 0.5, 3, len(truth.unit_ids), 1.0) for way in WAYS], columns=list(COLUMNS))

    monkeypatch.setattr(matching_ablation, "ablate", scored)
    return recordings


def test_every_way_is_scored(trial: tuple[BaseRecording, BaseSorting], caplog: pytest.LogCaptureFixture) -> None:
    recording, truth = (data.frame_slice(0, 300_000) for data in trial)
    num_rounds = learning._NUM_ROUNDS
    with caplog.at_level(logging.ERROR):
        table = ablate(recording, truth)
    assert not caplog.records and learning._NUM_ROUNDS == num_rounds
    assert list(table.columns) == list(COLUMNS) and list(table["way"]) == WAYS
    assert (table["seconds"] > 0).all() and (table["num_true_units"] == 4).all()
    rows = table.set_index("way")
    assert rows["accuracy"].between(0.3, 1.0).all() and rows["num_units"].between(2, 8).all()
    assert rows.loc["true templates", "accuracy"] > 0.9 and rows.loc["true templates", "num_units"] == 4
    assert rows.loc["own, 3 rounds", "accuracy"] > 0.8
    # The clusters come first.
    assert (rows.loc[[*ENGINES, "own, once"], "seconds"] > rows.loc["clusters", "seconds"]).all()


def test_a_failure_is_a_row(
    trial: tuple[BaseRecording, BaseSorting], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recording, truth = trial

    def failing(*arguments, **keywords):
        raise RuntimeError("no such templates")

    for name in ("match_with", "match_once"):
        monkeypatch.setattr(matching_ablation, name, failing)
    monkeypatch.setattr(matching_ablation, "sort", lambda recording, params: truth)
    with caplog.at_level(logging.ERROR):
        table = ablate(recording, truth)
    failed = table["way"].isin([*ENGINES, "own, once", "true templates"])
    assert table.loc[failed, ["accuracy", "num_units"]].isna().all(axis=None)
    assert (table.loc[~failed, "accuracy"] == 1.0).all()
    assert "wobble failed" in caplog.text and "no such templates" in caplog.text


def test_templates_are_moved_to_their_trough(trial: tuple[BaseRecording, BaseSorting]) -> None:
    recording, truth = spike_band(trial[0]), trial[1]
    late = {unit: truth.get_unit_spike_train(unit) + 12 for unit in truth.unit_ids}
    moved = NumpySorting.from_unit_dict([late], recording.get_sampling_frequency())
    templates = mean_templates(recording, moved, ms_before=1.0, ms_after=2.0)
    assert templates.templates_array.shape == (4, 90, 4) and templates.nbefore == 30
    troughs = templates.templates_array.min(axis=2).argmin(axis=1)
    assert (np.abs(troughs - 30) <= 1).all()


@pytest.mark.parametrize("method", ["once", "wobble"])
def test_no_unit_leaves_nothing_to_find(trial: tuple[BaseRecording, BaseSorting], method: str) -> None:
    recording, nothing = trial[0].frame_slice(0, 90_000), sorting_of({}, rate=30000.0)
    found = match_once(recording, nothing) if method == "once" else match_with(recording, nothing, method=method)
    assert len(found.unit_ids) == 0


def test_recordings_of_one_name(dataset: Path) -> None:
    with pytest.raises(ValueError, match="both hold family/10"):
        gather([dataset, dataset])


def test_means_over_recordings() -> None:
    columns = ["family", "recording", *COLUMNS]
    rows = [
        ("a", "1", "clusters", 0.4, 2, 4, 1.0),
        ("a", "2", "clusters", 0.8, 4, 6, 3.0),
        ("a", "1", "wobble", float("nan"), float("nan"), 4, 1.0),
        ("b", "1", "clusters", 0.2, 1, 1, 1.0),
        ("b", "1", "wobble", 0.3, 1, 1, 1.0),
    ]
    means = summarise(pd.DataFrame(rows, columns=columns))
    assert list(means["num_recordings"]) == [2, 1, 1, 1]
    assert means.loc[0, "accuracy"] == pytest.approx(0.6) and means.loc[0, "num_units"] == 3.0
    lines = as_markdown(means).splitlines()
    assert lines[0] == "| way | a | b | mean | units (true) | s |"
    assert "| clusters | 0.600 | 0.200 | 0.400 | 2.0 (3.0) | 1.5 |" in lines
    assert any(line.startswith("| wobble | – | 0.300 |") for line in lines)


def test_command_line(
    dataset: Path,
    tmp_path: Path,
    done: list[BaseRecording],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out" / "matching.csv"
    with caplog.at_level(logging.INFO):
        assert main(["--datasets", str(dataset), "--num-recordings", "1", "--output", str(output)]) == 0
    assert list(pd.read_csv(output).columns) == ["family", "recording", *COLUMNS] and len(done) == 1
    assert "| true templates | 0.500 | 0.500 | 3.0 (4.0) | 1.0 |" in caplog.text
    assert (tmp_path / "out" / "matching.csv.parts" / "family" / "9.csv").is_file()
    with pytest.raises(SystemExit, match="2"):
        main(["--datasets", str(tmp_path / "nothing"), "--output", str(output)])
    assert "holds no recordings" in capsys.readouterr().err
