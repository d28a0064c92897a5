"""Recordings that are scored one by one: found in their order, skipped where they are finished."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks.parts import find_recordings, parts_folder, score_recordings


@pytest.fixture
def dataset(trial_folder: Path, tmp_path: Path) -> Path:
    """Two families, the recordings of which are the same."""
    folder = tmp_path / "datasets"
    for name in ("b/9", "b/10", "a/07"):
        shutil.copytree(trial_folder, folder / name)
    return folder


def test_recordings_are_found_in_order(dataset: Path) -> None:
    found = find_recordings(dataset)
    assert list(found) == [("a", "07"), ("b", "9"), ("b", "10")] and found["b", "9"] == dataset / "b" / "9"
    assert list(find_recordings(dataset, num_recordings=1)) == [("a", "07"), ("b", "9")]
    # A recording without its truth is none.
    shutil.rmtree(dataset / "b" / "9" / "sorting")
    assert list(find_recordings(dataset)) == [("a", "07"), ("b", "10")]
    with pytest.raises(ValueError, match="no recordings FAMILY/NAME"):
        find_recordings(dataset / "b")


def test_finished_recordings_are_skipped(dataset: Path) -> None:
    parts = parts_folder(dataset / "table.csv")
    done = []

    def score(recording: BaseRecording, truth: BaseSorting) -> pd.DataFrame:
        done.append(recording)
        if len(done) == 3:
            raise KeyboardInterrupt
        return pd.DataFrame(
            {"way": ["none", "null"], "score": [np.nan, 1 / 3], "num_units": len(truth.unit_ids), "error": ["", ""]}
        )

    with pytest.raises(KeyboardInterrupt):
        score_recordings(find_recordings(dataset), score, parts=parts)
    assert len(list(parts.rglob("*.csv"))) == 2 and not list(parts.rglob("*.unfinished"))
    whole = score_recordings(find_recordings(dataset), score, parts=parts)
    assert len(done) == 4
    assert whole["family"].tolist() == ["a", "a", "b", "b", "b", "b"]
    assert whole["recording"].tolist() == ["07", "07", "9", "9", "10", "10"]
    # What comes from the files is what was written: two were read here, one was not.
    assert whole["way"].tolist() == ["none", "null"] * 3 and whole["error"].tolist() == [""] * 6
    assert whole["score"].isna().tolist() == [True, False] * 3 and whole["score"].max() == pytest.approx(1 / 3)
    assert set(whole["num_units"]) == {4}
    pd.testing.assert_frame_equal(score_recordings(find_recordings(dataset), score, parts=parts), whole)
    assert len(done) == 4
    # Nothing is kept unless a place is named.
    score_recordings(find_recordings(dataset, num_recordings=1), score)
    assert len(done) == 6


def test_recordings_are_made_when_their_turn_comes(dataset: Path, trial: tuple[BaseRecording, BaseSorting]) -> None:
    made = []

    def make() -> tuple[BaseRecording, BaseSorting]:
        made.append(True)
        return trial

    def score(recording: BaseRecording, truth: BaseSorting) -> pd.DataFrame:
        return pd.DataFrame({"num_units": [len(truth.unit_ids)]})

    recordings = {("made", "1"): make, **find_recordings(dataset, num_recordings=1)}
    table = score_recordings(recordings, score, parts=dataset / "parts")
    assert table["family"].tolist() == ["made", "a", "b"] and table["num_units"].tolist() == [4, 4, 4]
    score_recordings(recordings, score, parts=dataset / "parts")
    assert len(made) == 1
