"""Released networks adapted to a recording: with a sorting of it, and without."""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import spikeinterface as si
import spikeinterface.sorters as ss
from spikeinterface.core import BaseRecording, BaseSorting, NumpyRecording, NumpySorting, append_recordings

from spikeinterface_simsort.cli_common import CommandError
from spikeinterface_simsort.cli_finetune import add_finetune_parser, read_sorting
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.preprocessing import RecordingError
from spikeinterface_simsort.training.adaptation import adapt, contrastive_loss
from spikeinterface_simsort.training.finetuning import finetune
from spikeinterface_simsort.training.labelled_recording import SortingError
from spikeinterface_simsort.training.own_recording import split_time
from spikeinterface_simsort.training.tuned_weights import Report
from spikeinterface_simsort.training.tuning import match_covariance
from spikeinterface_simsort.weights import WeightsError, load_weights

torch = pytest.importorskip("torch")

Trial = tuple[BaseRecording, BaseSorting]
PARAMS = SimSortParams(device="cpu", job_kwargs={"progress_bar": False})
STEPS = 4
NETWORKS = ("detector.safetensors", "embedder.safetensors")


@pytest.fixture(scope="module")
def finetuned(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return finetune(*trial, folder=tmp_path_factory.mktemp("finetuned") / "w", num_steps=STEPS, params=PARAMS)


@pytest.fixture(scope="module")
def adapted(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return adapt(trial[0], folder=tmp_path_factory.mktemp("adapted") / "w", num_steps=STEPS, params=PARAMS)


def digests(report_or_folder: Report | str) -> dict[str, str]:
    return load_weights(getattr(report_or_folder, "folder", report_or_folder)).config["sha256"]


def check_kept(report: Report, deciding: dict[str, str]) -> None:
    """What is kept is what did not get worse, and what is not kept is the released network, bit by bit."""
    released, saved = digests("bundled"), digests(report)
    assert set(report.kept) == set(deciding)
    for role in ("detector", "embedder"):
        name = f"{role}.safetensors"
        kept = report.kept.get(role, False)
        if role in deciding:
            assert kept == (report.after[deciding[role]] >= report.before[deciding[role]])
        assert (saved[name] != released[name]) == kept


def test_the_report_says_what_the_folder_holds(finetuned: Report) -> None:
    assert set(finetuned.before) == set(finetuned.after)
    assert set(finetuned.before) >= {"detection_accuracy", "ari", "sorting_accuracy"}
    assert all(0 <= value <= 1 for value in [*finetuned.before.values(), *finetuned.after.values()])
    check_kept(finetuned, {"detector": "detection_accuracy", "embedder": "ari"})
    assert any(finetuned.kept.values())


def test_the_adapted_folder_differs_in_the_embedder_alone(adapted: Report) -> None:
    kept = all(adapted.after[score] >= adapted.before[score] for score in ("retrieval", "stability"))
    assert adapted.kept == {"embedder": kept}
    released, saved = digests("bundled"), digests(adapted)
    assert saved["detector.safetensors"] == released["detector.safetensors"]
    assert (saved["embedder.safetensors"] != released["embedder.safetensors"]) == kept
    assert all(0 <= adapted.after[score] <= 1 for score in ("retrieval", "stability"))


def test_the_sorter_sorts_with_the_new_weights(trial: Trial, finetuned: Report, tmp_path: Path) -> None:
    sorting = ss.run_sorter("simsort", trial[0], folder=tmp_path / "out", weights=str(finetuned.folder))
    assert len(sorting.unit_ids) >= 2


def test_the_card_names_the_parent_and_keeps_its_licence(finetuned: Report) -> None:
    card = (finetuned.folder / "README.md").read_text()
    released = load_weights()
    front = card.split("---")[1]
    assert "license: cc-by-nc-sa-4.0" in front
    assert released.config["name"] in card
    assert all(digest in card for digest in released.config["sha256"].values())
    assert f"{finetuned.after['ari']:.4f}" in card
    assert "CC BY-NC-SA" in card.partition("## Licence")[2]
    # Nobody's folders are published with the weights.
    assert str(finetuned.folder.parent) not in card and str(Path.cwd()) not in card


def test_the_same_seed_gives_the_same_weights(trial: Trial, finetuned: Report, adapted: Report, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    again = finetune(*trial, folder=tmp_path / "a", num_steps=STEPS, params=PARAMS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert digests(again) == digests(finetuned) and again.after == finetuned.after
    again = adapt(trial[0], folder=tmp_path / "b", num_steps=STEPS, params=PARAMS)
    assert digests(again) == digests(adapted) and again.after == adapted.after
    assert again.before["loss"] != again.after["loss"]


# Smaller ones leave a detector of large spikes alone good enough for this trial.
@pytest.mark.parametrize("learning_rate", [100.0, 1e6])
def test_training_that_harms_is_thrown_away(
    trial: Trial, tmp_path: Path, caplog: pytest.LogCaptureFixture, learning_rate: float
) -> None:
    with caplog.at_level(logging.WARNING, logger="spikeinterface_simsort"):
        report = finetune(*trial, folder=tmp_path / "w", num_steps=5, learning_rate=learning_rate, params=PARAMS)
    assert report.kept == {"detector": False, "embedder": False}
    assert digests(report) == {name: digests("bundled")[name] for name in NETWORKS}
    assert report.after["sorting_accuracy"] == report.before["sorting_accuracy"]
    for role in report.kept:
        assert f"The {role}" in caplog.text
        assert f"{role}: the released one" in (report.folder / "README.md").read_text()


def test_adaptation_that_harms_is_thrown_away(trial: Trial, tmp_path: Path) -> None:
    report = adapt(trial[0], folder=tmp_path / "w", num_steps=5, learning_rate=10.0, params=PARAMS)
    assert report.kept == {"embedder": False}
    assert digests(report) == digests("bundled")


def test_a_sorting_of_another_session_is_refused(trial: Trial, tmp_path: Path) -> None:
    recording, sorting = trial
    rate = recording.get_sampling_frequency()
    spikes = sorting.to_spike_vector()
    other_rate = NumpySorting(spikes, rate / 2, sorting.unit_ids)
    with pytest.raises(SortingError, match="sampling frequency is 15000 Hz"):
        finetune(recording, other_rate, folder=tmp_path / "w", params=PARAMS)
    half = recording.frame_slice(0, recording.get_num_samples() // 2)
    with pytest.raises(SortingError, match="spikes of the sorting lie outside the recording"):
        finetune(half, sorting, folder=tmp_path / "w", params=PARAMS)
    trains = {0: np.array([100, 2000])}
    with pytest.raises(SortingError, match="2 segments"):
        finetune(recording, NumpySorting.from_unit_dict([trains, trains], rate), folder=tmp_path / "w", params=PARAMS)
    assert not (tmp_path / "w").exists()


def test_a_sorting_with_nothing_to_separate_is_refused(trial: Trial, tmp_path: Path) -> None:
    recording, sorting = trial
    nothing = NumpySorting(sorting.to_spike_vector()[:0], recording.get_sampling_frequency(), np.array([], dtype=int))
    with pytest.raises(SortingError, match="no spikes"):
        finetune(recording, nothing, folder=tmp_path / "w", params=PARAMS)
    with pytest.raises(SortingError, match="Only 1 of 1 units"):
        finetune(recording, sorting.select_units(sorting.unit_ids[:1]), folder=tmp_path / "w", params=PARAMS)
    assert not (tmp_path / "w").exists()


def test_silence_cannot_be_adapted_to(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(100000, 4)).astype("float32")
    with pytest.raises(RecordingError, match="Record for longer"):
        adapt(NumpyRecording([noise], 20000.0), folder=tmp_path / "w", params=PARAMS)


def test_more_channels_than_the_networks_read_are_refused(trial: Trial, tmp_path: Path) -> None:
    wide = si.aggregate_channels([trial[0], trial[0]])
    for call in (lambda: adapt(wide, folder=tmp_path / "w"), lambda: finetune(wide, trial[1], folder=tmp_path / "w")):
        with pytest.raises(RecordingError, match="8 channels"):
            call()


def test_a_folder_in_the_way_is_refused_before_anything_is_read(
    trial: Trial, finetuned: Report, tmp_path: Path
) -> None:
    before = digests(finetuned)
    with pytest.raises(WeightsError, match="overwrite"):
        finetune(*trial, folder=finetuned.folder, params=PARAMS)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WeightsError, match="not a weights folder"):
        adapt(trial[0], folder=tmp_path, overwrite=True, params=PARAMS)
    assert digests(finetuned) == before and (tmp_path / "notes.txt").read_text() == "mine"


def test_time_is_split_across_segments() -> None:
    rng = np.random.default_rng(0)
    lengths = (6000, 3000, 1000)
    segments = [NumpyRecording([rng.normal(size=(n, 2)).astype("float32")], 10000.0) for n in lengths]
    whole = append_recordings(segments)
    first, last = split_time(whole)
    assert [first.get_num_samples(i) for i in range(first.get_num_segments())] == [6000, 1000]
    assert [last.get_num_samples(i) for i in range(last.get_num_segments())] == [2000, 1000]
    np.testing.assert_array_equal(last.get_traces(0), segments[1].get_traces(start_frame=1000))


def test_the_covariance_becomes_the_one_asked_for() -> None:
    embedder = load_weights().embedder
    waveforms = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 48, 4)).astype("float32"))
    with torch.no_grad():
        embedding = embedder(waveforms).double().numpy()
    residuals = embedding - embedding.mean(axis=0)
    target = np.diag(np.linspace(0.5, 2.0, residuals.shape[1]))
    match_covariance(embedder, residuals, target=target)
    with torch.no_grad():
        matched = np.cov(embedder(waveforms).double().numpy(), rowvar=False)
    np.testing.assert_allclose(matched, target, atol=0.1)


def test_the_contrastive_loss_is_that_of_the_papers() -> None:
    rng = np.random.default_rng(0)
    first, second = (torch.from_numpy(rng.normal(size=(6, 3))) for _ in range(2))
    views = torch.cat([first, second]).numpy()
    similarity = np.exp(-0.5 * ((views[:, None] - views[None]) ** 2).sum(axis=2))
    plain, debiased = [], []
    for i in range(12):
        positive = similarity[i, (i + 6) % 12]
        negatives = np.delete(similarity[i], [i, (i + 6) % 12])
        plain.append(-np.log(positive / (positive + negatives.sum())))
        mean = max((negatives.mean() - 0.1 * positive) / 0.9, 1e-8)
        debiased.append(-np.log(positive / (positive + 10 * mean)))
    assert float(contrastive_loss(first, second, same_share=0.0, temperature=1.0)) == pytest.approx(np.mean(plain))
    # Clamped where the correction takes more than there is; the largest similarity scales the clamp.
    corrected = float(contrastive_loss(first, second, same_share=0.1, temperature=1.0))
    assert corrected == pytest.approx(np.mean(debiased), rel=1e-3)


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_finetune_parser(parser.add_subparsers())
    args = parser.parse_args(["finetune", *map(str, arguments)])
    args.progress_bar = False
    return args.handler(args)


def test_the_command_line_from_end_to_end(
    trial_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, sorting, output = trial_folder / "recording", trial_folder / "sorting", tmp_path / "w"
    assert run(recording, sorting, "--output", output, "--steps", 3, "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert "sorting accuracy" in printed and printed.splitlines()[-1] == str(output)
    assert json.loads((output / "config.json").read_text())["name"] == "simsort-default-finetuned"
    with pytest.raises(CommandError, match="--overwrite"):
        run(recording, "--output", output)
    assert run(recording, "--output", output, "--steps", 2, "--overwrite", "--device", "cpu") == 0
    assert "retrieval" in capsys.readouterr().out
    assert load_weights(output).config["name"] == "simsort-default-adapted"


def test_the_command_line_wants_one_group(trial_folder: Path, tmp_path: Path) -> None:
    for more, message in (((), r"choose one with --group \(0, 1\)"), (("--group", "7"), "no group '7'")):
        with pytest.raises(CommandError, match=message):
            run(trial_folder / "recording", "--group-size", 2, *more, "--output", tmp_path / "w")
    with pytest.raises(CommandError, match="There is no"):
        run(trial_folder / "recording", tmp_path / "nowhere", "--output", tmp_path / "w")


def test_sortings_are_read_from_what_sorters_leave(
    trial: Trial, sorted_folder: Path, trial_folder: Path, tmp_path: Path
) -> None:
    from spikeinterface.core import NpzSortingExtractor

    NpzSortingExtractor.write_sorting(trial[1], tmp_path / "units.npz")
    num_spikes = len(trial[1].to_spike_vector())
    assert len(read_sorting(tmp_path / "units.npz").to_spike_vector()) == num_spikes
    # The folder of a trial, as of `simsort sort`, holds a folder `sorting`.
    assert len(read_sorting(trial_folder).to_spike_vector()) == num_spikes
    assert len(read_sorting(sorted_folder).unit_ids) >= 2
    with pytest.raises(CommandError, match="is not a sorting"):
        read_sorting(trial_folder / "recording")
    with pytest.raises(CommandError, match="cannot|not a sorting that can be read"):
        read_sorting(tmp_path)
