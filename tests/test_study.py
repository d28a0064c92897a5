"""The benchmark as a study of SpikeInterface's: it runs, and its scores are those of the benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import spikeinterface as si
from spikeinterface.benchmark import SorterStudy
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks import study as study_module
from benchmarks.catalogue import Dataset, save_dataset
from benchmarks.scores import SCORES, unit_scores
from benchmarks.study import make_study, study_scores

KEY = ("composed", "3", "simsort")


@pytest.fixture(scope="module")
def dataset(trial: tuple[BaseRecording, BaseSorting], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data")
    return save_dataset(folder, family="composed", name="3", recording=trial[0], truth=trial[1])


@pytest.fixture(scope="module")
def study(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> SorterStudy:
    made = make_study([dataset], sorters=["simsort"], folder=tmp_path_factory.mktemp("studies") / "study")
    with pytest.raises(ValueError, match="has been run"):
        study_scores(made, delta_ms=1.0)
    made.run()
    return made


def test_study_sorts_the_recording_as_it_is(study: SorterStudy, dataset: Dataset, sorted_trial: BaseSorting) -> None:
    assert list(study.cases) == [KEY] and study.cases[KEY]["params"] == {"sorter_name": "simsort"}
    assert study.levels == ["family", "dataset", "sorter"]
    recording, truth = study.datasets["composed--3"]
    np.testing.assert_array_equal(recording.get_traces(), si.load(dataset.folder / "recording").get_traces())
    assert truth.get_property("snr") is not None
    assert study.get_result(KEY)["sorting"].to_spike_vector().size == sorted_trial.to_spike_vector().size


def test_scores_are_those_of_the_study(study: SorterStudy, trial: tuple[BaseRecording, BaseSorting]) -> None:
    study.compute_results(match_score=0.0)
    performance = study.get_performance_by_unit().loc[KEY]
    scores = study_scores(study, delta_ms=0.4)
    assert (scores[["family", "dataset", "sorter"]] == list(KEY)).all(axis=None)
    assert scores["unit"].tolist() == trial[1].unit_ids.astype(str).tolist()
    assert scores["accuracy"].max() > 0.8
    for score in SCORES:
        np.testing.assert_array_equal(scores[score], performance[score].to_numpy(dtype=float))
    # By default the study has no scores of units that are matched by less than half.
    study.compute_results()
    performance = study.get_performance_by_unit().loc[KEY]
    expected = np.where(scores["accuracy"] >= 0.5, scores["accuracy"], 0.0)
    np.testing.assert_array_equal(performance["accuracy"].to_numpy(dtype=float), expected)


def test_scores_at_another_window(study: SorterStudy, trial: tuple[BaseRecording, BaseSorting]) -> None:
    wide, narrow = (study_scores(study, delta_ms=delta_ms) for delta_ms in (1.0, 0.05))
    expected = unit_scores(trial[1], study.get_result(KEY)["sorting"], delta_ms=1.0)
    for score in SCORES:
        np.testing.assert_array_equal(wide[score], expected[score])
    assert (wide["delta_ms"] == 1.0).all() and narrow["accuracy"].mean() < wide["accuracy"].mean()


def test_study_is_opened_again(study: SorterStudy, dataset: Dataset) -> None:
    again = SorterStudy(study.folder)
    assert study_scores(again, delta_ms=1.0).equals(study_scores(study, delta_ms=1.0))
    with pytest.raises(FileExistsError, match="SorterStudy"):
        make_study([dataset], sorters=["simsort"], folder=study.folder)


def test_what_cannot_be_studied(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study"
    with pytest.raises(ValueError, match="nonesuch cannot be part of a study: no such sorter"):
        make_study([dataset], sorters=["simsort", "nonesuch"], folder=folder)
    with pytest.raises(ValueError, match="named twice"):
        make_study([dataset, dataset], sorters=["simsort"], folder=folder)
    with pytest.raises(ValueError, match="needs a data set"):
        make_study([], sorters=["simsort"], folder=folder)
    monkeypatch.setattr(study_module, "missing", lambda sorter: None)
    with pytest.raises(ValueError, match="environment of its own"):
        make_study([dataset], sorters=["mountainsort4"], folder=folder)
    assert not folder.exists()
