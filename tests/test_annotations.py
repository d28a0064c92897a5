import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from spikeinterface.core import NumpySorting
from spikeinterface.curation import apply_curation, load_curation

from spikeinterface_simsort.cli import main
from spikeinterface_simsort.cli_annotate import find_analyzer, labels_file
from spikeinterface_simsort.cli_common import CommandError
from spikeinterface_simsort.curation.active import ActiveLearner
from spikeinterface_simsort.curation.annotation_run import QUEUE_LENGTH, AnnotationRun
from spikeinterface_simsort.curation.annotations import (
    AnnotationError,
    goodness,
    merge_annotations,
    new_annotations,
    read_annotations,
    unit_labels,
    write_annotations,
)

NUM = 30


def labelled(labels: dict, *, num: int = NUM, **edits: list) -> dict:
    curation = new_annotations(np.arange(num))
    curation["manual_labels"] = [{"unit_id": unit, "labels": {"quality": [label]}} for unit, label in labels.items()]
    return {**curation, **edits}


def make_learner(num: int = NUM) -> ActiveLearner:
    metrics = pd.DataFrame(np.random.default_rng(0).normal(size=(num, 4)), columns=list("abcd"))
    return ActiveLearner(unit_ids=list(range(num)), metrics=metrics, prior=np.linspace(0.1, 0.9, num))


def test_spikeinterface_reads_and_applies_the_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    write_annotations(path, labelled({2: "good", 0: "noise"}, num=3))
    sorting = NumpySorting.from_unit_dict([{unit: np.arange(5) * 100 for unit in range(3)}], 30000.0)
    curated = apply_curation(sorting, load_curation(path))
    assert curated.get_property("quality").tolist() == ["noise", "", "good"]
    assert unit_labels(read_annotations(path, unit_ids=[0, 1, 2])) == {2: "good", 0: "noise"}
    assert goodness({1: "good", 2: "MUA", 3: "noise", 4: "unsure"}) == {1: True, 2: False, 3: False, 4: None}


def test_names_of_units_may_be_text(tmp_path: Path) -> None:
    curation = new_annotations(np.array(["0#1", "a/b"]))
    curation["manual_labels"] = [{"unit_id": "a/b", "labels": {"quality": ["MUA"]}}]
    write_annotations(tmp_path / "labels.json", curation)
    assert unit_labels(read_annotations(tmp_path / "labels.json", unit_ids=["0#1", "a/b"])) == {"a/b": "MUA"}


def test_a_write_that_fails_leaves_the_labels_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "labels.json"
    with AnnotationRun(path=path, learner=make_learner()) as run:
        run.set_label(3, "good")
        before = path.read_text()

        def fail(*_: object, **__: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="No space"):
            run.set_label(4, "noise")
        assert path.read_text() == before
        assert run.labels == {3: "good"}
        with pytest.raises(ValueError, match="unknown label|not in the unit list"):
            run.set_label("nobody", "good")
        assert path.read_text() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no curation"),
        ("[]", "is no curation"),
        ('{"format_version": "9", "unit_ids": [1]}', "is no curation"),
        (json.dumps(new_annotations([7, 8])), "other units"),
        (
            json.dumps(
                {
                    **new_annotations(range(NUM)),
                    "label_definitions": {"quality": {"label_options": ["good", "great"], "exclusive": True}},
                }
            ),
            "'great'",
        ),
    ],
)
def test_files_that_cannot_be_gone_on_with_are_refused_and_kept(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    for _ in range(2):  # The first refusal does not leave the file locked.
        with pytest.raises(AnnotationError, match=message):
            AnnotationRun(path=path, learner=make_learner())
    assert path.read_text() == text


def test_labels_survive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    with AnnotationRun(path=path, learner=make_learner()) as run:
        assert len(run.queue) == QUEUE_LENGTH
        for label in ("good", "noise", "unsure"):
            run.set_label(run.queue[0], label)
        labels, queue, probability = run.labels, run.queue, run.learner.probability
        with pytest.raises(AnnotationError, match="another process"):
            AnnotationRun(path=path, learner=make_learner())
    with AnnotationRun(path=path, learner=make_learner()) as run:
        assert list(run.labels.items()) == list(labels.items())
        assert list(labels.values()) == ["good", "noise", "unsure"]
        assert run.queue == queue
        assert not {*labels} & {*queue}
        assert np.array_equal(run.learner.probability, probability)
    table = pd.read_csv(run.table_path, keep_default_na=False)
    assert table["unit_id"].tolist() == list(range(NUM))
    assert table["probability_good"].to_numpy() == pytest.approx(probability, abs=1e-4)
    assert table["predicted_good"].tolist() == (probability >= np.mean(probability)).tolist()
    assert dict(zip(table["unit_id"], table["label"], strict=True)) == {
        **dict.fromkeys(range(NUM), ""),
        **labels,
    }


def test_labels_are_changed_and_taken_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    with AnnotationRun(path=path, learner=make_learner()) as run:
        before = run.learner.probability
        for unit, label in [(1, "good"), (2, "MUA"), (3, "noise"), (1, "MUA")]:
            run.set_label(unit, label)
        # A label that was changed is the last one.
        assert list(run.labels.items()) == [(2, "MUA"), (3, "noise"), (1, "MUA")]
        for unit in (1, 2, 3):
            run.set_label(unit, None)
        assert run.labels == {} == unit_labels(read_annotations(path))
        assert run.learner.probability == pytest.approx(before)


def test_what_other_programs_say_of_units_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    curation = labelled({5: "good"}, merges=[{"unit_ids": [7, 8]}], removed=[9])
    curation["label_definitions"]["place"] = {"label_options": ["soma", "axon"], "exclusive": True}
    curation["manual_labels"].append({"unit_id": 6, "labels": {"place": ["axon"]}})
    write_annotations(path, curation)
    with AnnotationRun(path=path, learner=make_learner()) as run:
        assert run.labels == {5: "good"}
        run.set_label(6, "noise")
        run.set_label(5, None)
        run.set_label(6, None)
    kept = read_annotations(path)
    assert kept["manual_labels"] == [{"unit_id": 6, "labels": {"place": ["axon"]}}]
    assert kept["removed"] == [9]
    assert [merge["unit_ids"] for merge in kept["merges"]] == [[7, 8]]


def test_agreement_is_that_of_a_textbook_example() -> None:
    # Of 50 units both say good of 20 and noise of 15, only the first says good of 5, only the second of 10: 0.4.
    first = labelled({**dict.fromkeys(range(25), "good"), **dict.fromkeys(range(25, 50), "noise")}, num=60)
    second = {**dict.fromkeys(range(20), "good"), **dict.fromkeys(range(20, 25), "noise")}
    second |= {**dict.fromkeys(range(25, 35), "good"), **dict.fromkeys(range(35, 50), "noise"), 55: "MUA"}
    merged = merge_annotations(first, labelled(second, num=60))
    assert (merged.num_both, merged.num_agreed) == (50, 35)
    assert merged.kappa == pytest.approx(0.4)
    assert {*merged.disputed} == {*range(20, 35)}
    assert merged.disputed[20] == ("good", "noise")
    labels = unit_labels(merged.curation)
    assert labels[0] == "good" and labels[40] == "noise" and labels[55] == "MUA"
    assert not {*labels} & {*merged.disputed}


def test_who_is_unsure_does_not_dispute() -> None:
    merged = merge_annotations(
        labelled({1: "good", 2: "unsure", 3: "unsure"}), labelled({1: "good", 2: "noise", 3: "unsure"})
    )
    assert unit_labels(merged.curation) == {1: "good", 2: "noise", 3: "unsure"}
    assert (merged.num_both, merged.disputed) == (1, {})
    # One label only: chance would agree as well.
    assert merged.kappa is None


def test_what_only_one_did_to_units_is_told() -> None:
    both = {"unit_ids": [1, 2], "new_unit_id": None}
    first = labelled({}, merges=[both], removed=[3, 4])
    merged = merge_annotations(first, labelled({}, merges=[both], removed=[4]))
    assert merged.curation["removed"] == [4]
    assert merged.curation["merges"] == [both]
    assert merged.one_sided_edits == ["removed"]
    with pytest.raises(AnnotationError, match="not about the same units"):
        merge_annotations(first, labelled({}, num=3))


def test_command_merges_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, output = (tmp_path / f"{name}.json" for name in ("first", "second", "merged"))
    write_annotations(first, labelled({1: "good", 2: "noise", 3: "good"}))
    write_annotations(second, labelled({1: "good", 2: "noise", 3: "MUA", 4: "good"}))
    command = ["agree", str(first), str(second), "--output", str(output)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "2 of 3 units that both labelled have one label" in said
    assert "Cohen's kappa: 0.500" in said
    assert unit_labels(read_annotations(output)) == {1: "good", 2: "noise", 4: "good"}
    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert main(["agree", str(first), str(tmp_path / "nothing.json")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_analyzers_are_found(tmp_path: Path) -> None:
    curated, alone, other = (tmp_path / name for name in ("curated", "alone", "other"))
    (curated / "analyzer").mkdir(parents=True)
    for folder in (alone, other, tmp_path / "zarr.zarr"):
        folder.mkdir()
    (alone / "spikeinterface_info.json").write_text("{}")
    assert find_analyzer(curated) == curated / "analyzer"
    assert find_analyzer(alone) == alone
    assert labels_file(find_analyzer(tmp_path / "zarr.zarr")) == tmp_path / "zarr_labels.json"
    with pytest.raises(CommandError, match="simsort curate"):
        find_analyzer(other)
    with pytest.raises(CommandError, match="There is no"):
        find_analyzer(tmp_path / "nowhere")


def test_annotating_what_is_no_analyzer_fails_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", str(tmp_path)]) == 1
    assert "is no SortingAnalyzer" in capsys.readouterr().err
