"""Training: losses, data, runs that stop and go on, and what is exported; tiny networks on the bundled bank."""

import copy
import functools
import hashlib
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from spikeinterface_simsort.cli import main
from spikeinterface_simsort.models import build_embedder
from spikeinterface_simsort.peaks import match_spikes
from spikeinterface_simsort.simulation.bank import save_bank
from spikeinterface_simsort.simulation.composition import compose_trial
from spikeinterface_simsort.simulation.recipe import Recipe, load_recipe
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import bundled_bank
from spikeinterface_simsort.training import export, run
from spikeinterface_simsort.training.card import model_card
from spikeinterface_simsort.training.curves import write_loss_curves
from spikeinterface_simsort.training.data import (
    DetectionWindows,
    SpikeWaveforms,
    prepare_trial,
)
from spikeinterface_simsort.training.evaluation import (
    DetectionScores,
    detection_scores,
    embedding_scores,
    mixture_ari,
)
from spikeinterface_simsort.training.losses import (
    hard_triplet_loss,
    nt_xent_loss,
    prototype_loss,
    supervised_contrastive_loss,
    triplet_loss,
)
from spikeinterface_simsort.training.modules import DetectorModule, EmbedderModule
from spikeinterface_simsort.training.targets import PreparedTrial, detection_targets
from spikeinterface_simsort.weights import load_weights

DATA_SETS = {"detector": DetectionWindows, "embedder": SpikeWaveforms}
CONFIG = {
    "name": "simsort-tiny",
    "sampling_frequency": 20000.0,
    "validation_cells": ["stellate"],
    "recipe": "training",
    "seed": 5,
    "detector": {
        "architecture": "patch_transformer",
        "kwargs": {"width": 16, "num_layers": 1, "num_heads": 2, "stem_channels": 4, "window_samples": 256},
        "threshold": 0.35,
        "windows_per_trial": 4,
        "trials_per_batch": 2,
        "learning_rate": 0.001,
        "weight_decay": 0.01,
        "positive_weight": 3.0,
        "epochs": 2,
        "batches_per_epoch": 2,
    },
    "embedder": {
        "architecture": "perceptron",
        "kwargs": {"num_samples": 48, "hidden_size": 16, "num_layers": 1, "embedding_dim": 4},
        "ms_before": 0.8,
        "ms_after": 1.6,
        "ms_align": 0.2,
        "loss": "prototype",
        "trials_per_batch": 2,
        "learning_rate": 0.002,
        "weight_decay": 0.01,
        "epochs": 2,
        "batches_per_epoch": 2,
    },
}


def paper_config(rate=10000.0):
    """The paper's configuration as it ships, with small networks and few batches."""
    config = run.load_config("paper")
    config.update(validation_cells=["stellate"], sampling_frequency=rate)
    config["detector"]["kwargs"].update(width=16, num_layers=1, num_heads=2, window_samples=256)
    config["detector"].update(windows_per_trial=4)
    config["embedder"]["kwargs"].update(hidden_size=16, num_samples=round(6.0 * rate / 1000))
    for part in DATA_SETS:
        config[part].update(epochs=2, batches_per_epoch=2, trials_per_batch=2)
    return config


@pytest.fixture(autouse=True)
def small_and_tidy(monkeypatch):
    """Little validation and calibration; what a run sets for the whole process is put back."""
    # Set here, so that monkeypatch removes what seed_everything writes.
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("PL_SEED_WORKERS", "0")
    monkeypatch.setattr(run, "VALIDATION_TRIALS", 2)
    monkeypatch.setattr(run, "_fit_svd_basis", functools.partial(run._fit_svd_basis, num_trials=3))
    monkeypatch.setattr(export, "_CALIBRATION_TRIALS", 3)
    monkeypatch.setattr(export, "_SCORED_TRIALS", 3)
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def neurons():
    return bundled_bank()


@pytest.fixture(scope="module")
def bank(neurons, tmp_path_factory):
    """The bundled bank, with two of its cells under names of layer 6."""
    path = tmp_path_factory.mktemp("bank") / "bank.npz"
    save_bank(path, [*neurons, *(replace(neuron, name=f"L6_{neuron.name}") for neuron in neurons[:2])])
    return path


def data_set(part, neurons, *, seed=1):
    common = {"seed": seed, "trials_per_epoch": 3, "recipe": load_recipe("training"), "sampling_frequency": 20000.0}
    if part == "detector":
        return DetectionWindows(neurons, window_samples=256, windows_per_trial=4, **common)
    return SpikeWaveforms(neurons, num_before=16, num_after=32, search_samples=4, **common)


def train(part, *, bank, output, config=CONFIG):
    return run.train(part, bank=bank, config=copy.deepcopy(config), output=output, num_threads=1, progress_bar=False)


def with_epochs(config, epochs):
    return {**config, **{part: {**config[part], "epochs": epochs} for part in DATA_SETS}}


def network_state(checkpoint):
    return torch.load(checkpoint, map_location="cpu", weights_only=False)["state_dict"]


def assert_same_weights(first, second):
    states = network_state(first), network_state(second)
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


# Losses


def test_prototype_loss_by_hand():
    embedding, labels = torch.tensor([[0.0], [2.0], [3.0], [5.0]]), torch.tensor([0, 0, 1, 1])
    # Means 1 and 4. The outer spikes: 2 from their own unit's other spike, 4 from the other mean; the inner: 2 and 2.
    outer, inner = math.log1p(math.exp(-0.5 * (16.0 - 4.0))), math.log(2.0)
    assert prototype_loss(embedding, labels).item() == pytest.approx((outer + inner) / 2, rel=1e-5)


def test_prototype_loss_at_its_ends():
    labels = torch.arange(5).repeat_interleave(6)
    separated = 20.0 * torch.eye(5)[labels] + 0.1 * torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    assert prototype_loss(separated, labels).item() < 1e-6
    assert prototype_loss(torch.ones(30, 3), labels).item() == pytest.approx(math.log(5.0), rel=1e-5)


def test_prototype_loss_takes_any_labels():
    embedding = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2] * 4)
    assert torch.equal(prototype_loss(embedding, labels), prototype_loss(embedding, 7 * labels + 3))


def test_triplet_loss():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    assert triplet_loss(10.0 * labels[:, None].float(), labels).item() == 0.0
    assert triplet_loss(torch.zeros(6, 2), labels, margin=0.7).item() == pytest.approx(0.7, abs=1e-4)


def two_units(*, angle):
    """Two spikes of each of two units, on the circle, `angle` apart."""
    directions = torch.tensor([0.0, 0.0, angle, angle])
    return torch.stack([directions.cos(), directions.sin()], dim=1), torch.tensor([0, 0, 1, 1])


def test_hard_triplet_loss():
    embedding = torch.tensor([[0.0, 0.0], [0.0, 1.0], [3.0, 0.0], [3.0, 1.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert hard_triplet_loss(embedding, labels, margin=2.5).item() == pytest.approx(1.0 - 3.0 + 2.5)
    assert hard_triplet_loss(embedding, labels, margin=1.0).item() == 0.0


def test_contrastive_losses_by_hand():
    # Opposite units: the logits are 1 / t of the own unit and -1 / t of the other's two.
    embedding, labels = two_units(angle=math.pi)
    expected = math.log(1 + 2 * math.exp(-2 / 0.5))
    assert nt_xent_loss(embedding, labels, temperature=0.5).item() == pytest.approx(expected, rel=1e-5)
    # Two spikes a unit: the only partner is the same, and so is the loss.
    assert supervised_contrastive_loss(embedding, labels, temperature=0.5).item() == pytest.approx(expected, rel=1e-5)
    # Length says nothing.
    assert nt_xent_loss(3 * embedding, labels, temperature=0.5).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [nt_xent_loss, supervised_contrastive_loss])
def test_contrastive_losses_fall_as_units_part(loss):
    values = [loss(*two_units(angle=angle)).item() for angle in (0.1, 1.0, 2.0, 3.0)]
    assert values == sorted(values, reverse=True)


def test_supervised_contrastive_loss_counts_every_partner():
    generator = torch.Generator().manual_seed(0)
    embedding, labels = torch.randn(7, 3, generator=generator), torch.tensor([0, 0, 0, 1, 1, 2, 2])
    unit_length = torch.nn.functional.normalize(embedding, dim=1)
    terms = []
    for i in range(7):
        others = [k for k in range(7) if k != i]
        total = torch.stack([(unit_length[i] @ unit_length[k] / 0.1).exp() for k in others]).sum().log()
        partners = [k for k in others if labels[k] == labels[i]]
        terms.append(torch.stack([total - unit_length[i] @ unit_length[k] / 0.1 for k in partners]).mean())
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(supervised_contrastive_loss(embedding, labels), expected)


# Scores


def test_match_spikes():
    found, truth = np.array([10.0, 12.0, 50.0]), np.array([9.0, 30.0, 51.5])
    first, second = match_spikes(found, truth, delta=2.0)
    assert first.tolist() == [0, 2] and second.tolist() == [0, 2]
    assert [len(index) for index in match_spikes(found, truth[:0], delta=2.0)] == [0, 0]


def test_match_spikes_makes_as_many_pairs_as_can_be():
    # The first could take the second's only partner.
    first, second = match_spikes(np.array([10.0, 11.0]), np.array([9.5, 10.5]), delta=1.0)
    assert first.tolist() == [0, 1] and second.tolist() == [0, 1]


class Oracle(torch.nn.Module):
    """Detector that is told the targets, trial by trial."""

    def __init__(self, data):
        super().__init__()
        self.targets = [detection_targets(data.prepared(i)[0], sampling_frequency=20000.0)[0] for i in range(len(data))]
        self.calls = 0

    def forward(self, windows):
        target = torch.from_numpy(self.targets[self.calls].reshape(windows.shape[:2]))
        self.calls += 1
        return torch.logit(target.clamp(1e-6, 1 - 1e-6))


def test_detection_scores(neurons):
    data = data_set("detector", neurons)
    (scores,) = detection_scores(Oracle(data), data, thresholds=[0.5])
    # Spikes nearer than 0.4 ms are one peak, and those at the borders of windows may be on either side.
    assert scores.precision > 0.95 and scores.recall > 0.8
    (nothing,) = detection_scores(lambda windows: torch.full(windows.shape[:2], -9.0), data, thresholds=[0.5])
    assert nothing.accuracy == nothing.recall == nothing.precision == 0.0


def test_embedding_scores(neurons):
    data = data_set("embedder", neurons)
    scores = embedding_scores(torch.nn.Flatten(), data)
    assert scores["embedding"] == pytest.approx(scores["pca"], abs=0.05) and scores["pca"] > 0.3
    noise = embedding_scores(lambda waveforms: torch.rand(len(waveforms), 8), data)
    assert noise["embedding"] < 0.1


def test_mixture_ari():
    rng = np.random.default_rng(0)
    labels = np.repeat([4, 7, 9], 40)
    assert mixture_ari(rng.normal(size=(120, 2)) + 10 * labels[:, None], labels) == 1.0
    assert mixture_ari(rng.normal(size=(120, 2)), labels) < 0.1


# Data


def test_detection_targets():
    trial = PreparedTrial(
        traces=np.zeros((600, 4), dtype="float32"),
        spike_samples=np.array([100.0, 200.0, 300.0, 302.0, 1.0, 599.0]),
        spike_labels=np.array([0, 1, 2, 0, 0, 0]),
        unit_snr=np.array([8.0, 3.0, 1.0]),
    )
    target, weight = detection_targets(trial, sampling_frequency=20000.0)
    assert target.shape == weight.shape == (600,) and target.dtype == weight.dtype == np.float32
    assert np.array_equal(np.flatnonzero(target == 1.0), [1, 100, 302, 599])
    # 0.1 ms are two samples.
    assert target[102] == pytest.approx(math.exp(-0.5))
    # Nothing is asked of a unit between the bounds; one below them is noise.
    assert np.all(target[190:211] == 0.0) and np.all(weight[194:207] == 0.0)
    assert np.all(weight[:190] == 1.0) and np.all(weight[211:] == 1.0)


def test_detection_targets_ask_for_a_spike_beside_an_ignored_one():
    trial = PreparedTrial(
        traces=np.zeros((200, 4), dtype="float32"),
        spike_samples=np.array([100.0, 102.0]),
        spike_labels=np.array([0, 1]),
        unit_snr=np.array([8.0, 3.0]),
    )
    target, weight = detection_targets(trial, sampling_frequency=20000.0)
    assert target[100] == 1.0 and weight[100] == 1.0


@pytest.mark.parametrize("part", DATA_SETS)
def test_items_come_again_from_the_same_seed(part, neurons):
    first, again = data_set(part, neurons), data_set(part, neurons)
    item = first[1]
    assert all(torch.equal(a, b) for a, b in zip(item, again[1], strict=True))
    others = [first[0], data_set(part, neurons, seed=2)[1]]
    again.epoch = 1
    others.append(again[1])
    assert not any(item[0].shape == other[0].shape and torch.equal(item[0], other[0]) for other in others)


def test_detection_items(neurons):
    traces, target, weight = data_set("detector", neurons)[0]
    assert traces.shape == (4, 256, 4) and target.shape == weight.shape == (4, 256)
    assert traces.dtype == target.dtype == weight.dtype == torch.float32
    assert torch.isfinite(traces).all() and 0.0 <= target.min() and target.max() <= 1.0


def test_embedding_items(neurons):
    data = data_set("embedder", neurons)
    for waveforms, labels in (data[index] for index in range(len(data))):
        assert waveforms.shape == (len(labels), 48, 4) and waveforms.dtype == torch.float32
        _, counts = torch.unique(labels, return_counts=True)
        assert counts.min() >= 4 and counts.max() <= 24
        # Peaks lie where the sorter would cut them, within the alignment's reach.
        peaks = waveforms.abs().amax(dim=2).mean(dim=0).argmax().item()
        assert abs(peaks - 16) <= 2


@pytest.mark.parametrize("augment", [True, False])
def test_trials_at_ten_kilohertz(neurons, augment):
    """The paper's rate: the band has to end below half of it, whatever is drawn."""
    config = TrialConfig(duration_s=0.2, sampling_frequency=10000.0, num_units=2, num_far=2)
    trial = compose_trial(neurons, config=config, seed=0)
    for seed in range(10):
        prepared = prepare_trial(trial, rng=np.random.default_rng(seed), augment=augment)
        assert np.isfinite(prepared.traces).all()


@pytest.mark.parametrize("part", DATA_SETS)
def test_held_out_cells_are_not_trained_on(part, bank, tmp_path, monkeypatch):
    used, make_data = [], run._data

    def recording_data(part, neurons, **kwargs):
        used.append({neuron.name for neuron in neurons})
        return make_data(part, neurons, **kwargs)

    monkeypatch.setattr(run, "_data", recording_data)
    train(part, bank=bank, output=tmp_path)
    run.trial_data("embedder", bank=bank, config=CONFIG, num_trials=1, held_out=False)
    training, validation, calibration = used
    assert training == calibration and len(training) == 14
    assert not any(name.startswith(("L6", "stellate")) for name in training)
    assert len(validation) == 5 and all(name.startswith("stellate") for name in validation)


def test_calibration_trials_are_new(bank, monkeypatch):
    seeds, make_data = [], run._data

    def recording_data(*args, **kwargs):
        seeds.append(kwargs["seed"])
        return make_data(*args, **kwargs)

    monkeypatch.setattr(run, "_data", recording_data)
    run.trial_data("embedder", bank=bank, config=CONFIG, num_trials=1, held_out=False)
    training, validation = np.random.SeedSequence(CONFIG["seed"]).generate_state(2)
    assert seeds[0] not in (int(training), int(validation))


def test_whitened_trials(neurons):
    trial = compose_trial(neurons, config=TrialConfig(duration_s=2.0, sampling_frequency=20000.0), seed=3)
    plain = prepare_trial(trial, rng=np.random.default_rng(0), augment=False)
    whitened = prepare_trial(trial, rng=np.random.default_rng(0), augment=False, whiten=True)
    assert np.abs(np.cov(plain.traces, rowvar=False) - np.eye(4)).max() > 0.1
    np.testing.assert_allclose(np.cov(whitened.traces, rowvar=False), np.eye(4), atol=1e-3)


def test_trials_without_overlaps(neurons):
    crowded = load_recipe("training").values | {"synchrony": 0.5, "synchrony_window_ms": 0.5}
    recipe = Recipe(crowded)
    with_them, without = (
        SpikeWaveforms(
            neurons,
            seed=1,
            trials_per_epoch=3,
            recipe=recipe,
            sampling_frequency=20000.0,
            num_before=16,
            num_after=32,
            search_samples=4,
            spikes_per_unit=1000,
            overlaps=overlaps,
        )
        for overlaps in (True, False)
    )
    trial, _ = without.prepared(0)
    apart = np.array(
        [
            np.abs(trial.spike_samples[trial.spike_labels != label] - time).min() > 20.0
            for time, label in zip(trial.spike_samples, trial.spike_labels, strict=True)
        ]
    )
    asked = trial.unit_snr[trial.spike_labels] >= 3.5

    def num_spikes(chosen):
        counts = np.bincount(trial.spike_labels[chosen])
        return counts[counts >= 4].sum()

    assert len(with_them[0][1]) == num_spikes(asked)
    assert len(without[0][1]) == num_spikes(asked & apart) < 0.8 * num_spikes(asked)


def test_detection_without_overlaps_asks_nothing_of_them(neurons):
    with_them, without = (
        DetectionWindows(
            neurons,
            seed=1,
            trials_per_epoch=4,
            recipe=load_recipe("training"),
            sampling_frequency=20000.0,
            window_samples=1024,
            windows_per_trial=8,
            overlaps=overlaps,
        )
        for overlaps in (True, False)
    )
    num_asked = np.zeros(2)
    for index in range(4):
        first, second = with_them[index], without[index]
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
        assert (second[2] <= first[2]).all()
        num_asked += float(first[2].sum()), float(second[2].sum())
    assert num_asked[1] < num_asked[0]


def test_a_limited_number_of_trials_comes_again(neurons):
    data = DetectionWindows(
        neurons,
        seed=1,
        trials_per_epoch=3,
        recipe=load_recipe("training"),
        sampling_frequency=20000.0,
        window_samples=256,
        windows_per_trial=4,
        num_trials=2,
    )
    assert torch.equal(data[0][0], data[2][0]) and not torch.equal(data[0][0], data[1][0])
    first = data[0][0]
    data.epoch = 1
    assert torch.equal(data[1][0], first)


def test_conditions_of_a_network_go_before_the_recipe(neurons):
    config = copy.deepcopy(CONFIG)
    config["embedder"]["conditions"] = {"noise_correlation": 0.9}
    for part, expected in (("detector", load_recipe("training").values["noise_correlation"]), ("embedder", 0.9)):
        data = run._data(part, neurons, config=config, seed=1, num_trials=1)
        assert data.recipe.values["noise_correlation"] == expected


def test_some_cells_of_a_bank(bank, neurons):
    everything, validation = run.load_cells(bank, config=CONFIG)
    some, same = run.load_cells(bank, config={**CONFIG, "num_cells": 3})
    assert len(everything) + len(validation) == len(neurons) and len(some) == 3
    assert {neuron.name for neuron in some} < {neuron.name for neuron in everything}
    assert [neuron.name for neuron in same] == [neuron.name for neuron in validation]


# Runs


class StoppedError(Exception):
    """What ends a run in the tests."""


def train_with_a_stop(part, *, bank, output, config, monkeypatch):
    """Train, but die when the first trial of the second epoch is asked for; then give the same command again."""
    data_class = DATA_SETS[part]
    get_item = data_class.__getitem__

    def stop_in_second_epoch(self, index):
        if self.epoch == 1:
            raise StoppedError
        return get_item(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(data_class, "__getitem__", stop_in_second_epoch)
        with pytest.raises(StoppedError):
            train(part, bank=bank, output=output, config=config)
    assert (output / "checkpoints" / "last.ckpt").exists()

    epochs = []

    def noting_epoch(self, index):
        epochs.append(self.epoch)
        return get_item(self, index)

    monkeypatch.setattr(data_class, "__getitem__", noting_epoch)
    checkpoint = train(part, bank=bank, output=output, config=config)
    assert epochs.count(1) == 4  # Two batches of two trials; validation keeps to its epoch 0.
    return checkpoint


@pytest.mark.parametrize("part", DATA_SETS)
def test_a_stopped_run_goes_on_to_the_same_weights(part, bank, tmp_path, monkeypatch):
    whole = train(part, bank=bank, output=tmp_path / "whole")
    assert torch.load(whole, weights_only=False)["global_step"] == 4
    resumed = train_with_a_stop(part, bank=bank, output=tmp_path / "stopped", config=CONFIG, monkeypatch=monkeypatch)
    assert_same_weights(whole, resumed)


@pytest.mark.parametrize("part", DATA_SETS)
def test_a_stopped_run_of_the_paper_goes_on_to_the_same_weights(part, bank, tmp_path, monkeypatch):
    """Dropout and the triplets draw random numbers while training."""
    config = paper_config(rate=20000.0)
    whole = train(part, bank=bank, output=tmp_path / "whole", config=config)
    resumed = train_with_a_stop(part, bank=bank, output=tmp_path / "stopped", config=config, monkeypatch=monkeypatch)
    assert_same_weights(whole, resumed)


def test_training_again_after_the_end_changes_nothing(bank, tmp_path):
    first = network_state(train("embedder", bank=bank, output=tmp_path))
    again = network_state(train("embedder", bank=bank, output=tmp_path))
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_another_seed_gives_other_weights(bank, tmp_path):
    states = [
        network_state(train("detector", bank=bank, output=tmp_path / str(seed), config={**CONFIG, "seed": seed}))
        for seed in (0, 1)
    ]
    assert not torch.equal(states[0]["network.head.weight"], states[1]["network.head.weight"])


@pytest.mark.parametrize("rate", [10000.0, 20000.0])
@pytest.mark.parametrize("part", DATA_SETS)
def test_paper_configuration_trains(part, rate, bank, tmp_path):
    checkpoint = train(part, bank=bank, output=tmp_path, config=paper_config(rate))
    module_class = DetectorModule if part == "detector" else EmbedderModule
    module = module_class.load_from_checkpoint(checkpoint, map_location="cpu")
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())
    if part == "embedder":
        basis = module.network.svd_basis
        assert basis.shape == (5, round(6.0 * rate / 1000))
        torch.testing.assert_close(basis @ basis.T, torch.eye(5), atol=1e-4, rtol=0.0)
        assert not torch.allclose(basis, torch.eye(basis.shape[1])[:5], atol=0.1)


@pytest.mark.parametrize("names", [["granule"], [""]])
def test_a_bank_without_cells_of_either_kind(bank, names):
    with pytest.raises(ValueError, match="validation_cells"):
        run.load_cells(bank, config={**CONFIG, "validation_cells": names})


def test_loss_curves_of_a_run_that_was_stopped(tmp_path):
    for version, rows in enumerate((["0,0.9,0.8", "1,0.7,0.6", "2,0.5,"], ["2,0.55,0.5", "3,0.4,0.45"])):
        folder = tmp_path / "logs" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("\n".join(["epoch,train_loss,val_loss", *rows]) + "\n", encoding="utf8")
    losses = write_loss_curves(tmp_path)
    assert [row["epoch"] for row in losses] == [0.0, 1.0, 2.0, 3.0]
    assert [row["train_loss"] for row in losses] == [0.9, 0.7, 0.55, 0.4]
    assert (tmp_path / "loss.csv").read_text(encoding="utf8").splitlines()[3] == "2,0.550000,0.500000"
    assert (tmp_path / "loss.png").stat().st_size > 5000


def test_no_loss_curves_of_nothing(tmp_path):
    assert write_loss_curves(tmp_path) == [] and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("part", ["detector", "embedder"])
def test_processes_that_compose_change_nothing(part, bank, tmp_path):
    alone = train(part, bank=bank, output=tmp_path / "alone")
    helped = run.train(
        part, bank=bank, config=CONFIG, output=tmp_path / "helped", num_threads=1, num_workers=1, progress_bar=False
    )
    assert_same_weights(alone, helped)


@pytest.mark.slow
def test_two_processes_share_the_trials(bank, tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(CONFIG), encoding="utf8")
    options = ["--bank", str(bank), "--config", str(config), "--output", str(tmp_path / "run"), "--threads", "1"]
    command_line = [sys.executable, "-m", "spikeinterface_simsort.cli", "train", "detector", *options, "--devices", "2"]
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "run" / "detector" / "checkpoints" / "last.ckpt"
    assert done.stdout.count(str(checkpoint)) == 1
    # Two batches an epoch, one for either process.
    assert torch.load(checkpoint, weights_only=False)["global_step"] == 2


# Export


def test_whitening(bank):
    torch.manual_seed(0)
    embedder = build_embedder(architecture="perceptron", **CONFIG["embedder"]["kwargs"]).eval()
    data = run.trial_data("embedder", bank=bank, config=CONFIG, num_trials=3, held_out=False)
    covariance = export.within_unit_covariance(embedder, data)
    assert covariance.shape == (4, 4) and covariance.dtype == torch.float64
    assert not torch.allclose(covariance, torch.eye(4, dtype=torch.float64), atol=0.1)
    export.whiten_embedder(embedder, covariance)
    whitened = export.within_unit_covariance(embedder, data)
    torch.testing.assert_close(whitened, torch.eye(4, dtype=torch.float64), atol=1e-3, rtol=0.0)


def test_export_round_trip(bank, tmp_path):
    checkpoints = {part: train(part, bank=bank, output=tmp_path / part) for part in DATA_SETS}
    arguments = {
        "detector_checkpoint": checkpoints["detector"],
        "embedder_checkpoint": checkpoints["embedder"],
        "config": CONFIG,
        "bank": bank,
        "cells": "Cells of a test.",
    }
    weights = load_weights(export.export_weights(tmp_path / "weights", **arguments))
    assert weights.config["name"] == "simsort-tiny"
    assert weights.config["detector"]["threshold"] == 0.35
    assert weights.config["embedder"]["ms_before"] == 0.8 and weights.config["embedder"]["ms_after"] == 1.6
    state = network_state(checkpoints["detector"])
    for name, value in weights.detector.state_dict().items():
        assert torch.equal(value, state[f"network.{name}"])
    data = run.trial_data("embedder", bank=bank, config=CONFIG, num_trials=3, held_out=False)
    whitened = export.within_unit_covariance(weights.embedder, data)
    torch.testing.assert_close(whitened, torch.eye(4, dtype=torch.float64), atol=1e-3, rtol=0.0)
    card = (weights.folder / "README.md").read_text(encoding="utf8")
    assert "Cells of a test." in card and "| detection accuracy at 1.0 ms, threshold 0.35 |" in card
    for name, digest in weights.config["sha256"].items():
        assert f"| {name} | {digest} |" in card
        assert hashlib.sha256((weights.folder / name).read_bytes()).hexdigest() == digest


def test_threshold_is_chosen_where_none_is_given(bank, tmp_path, monkeypatch):
    scores = [DetectionScores(threshold=t, accuracy=a, recall=1.0, precision=a) for t, a in ((0.2, 0.5), (0.3, 0.7))]
    monkeypatch.setattr(export, "detection_scores", lambda *args, **kwargs: scores)
    config = copy.deepcopy(CONFIG)
    config["detector"]["threshold"] = None
    checkpoints = {f"{part}_checkpoint": train(part, bank=bank, output=tmp_path / part) for part in DATA_SETS}
    weights = load_weights(export.export_weights(tmp_path / "weights", config=config, bank=bank, **checkpoints))
    assert weights.config["detector"]["threshold"] == 0.3


def test_model_card(neurons):
    scores = {"ARI": 0.5}
    card = model_card(CONFIG, neurons=neurons, scores=scores, cells="Cells of a test.", license_id="cc-by-nc-sa-4.0")
    front = card.split("---\n")[1]
    assert yaml.safe_load(front)["license"] == "cc-by-nc-sa-4.0"
    assert "CC BY-NC-SA 4.0" in card.split("## Licence")[1]
    for part in (
        "| batches | 4 | 4 |",
        "| trials | 8 | 8 |",
        "seed 5",
        "stellate",
        "Cells of a test.",
        "| ARI | 0.500",
    ):
        assert part in card
    assert f"{len(neurons)} cells: " in card
    assert "{" not in card
    assert "licence of the cells" in model_card(CONFIG, neurons=neurons, scores=scores, license_id="mit")


# Command line


def test_load_config(tmp_path):
    assert run.load_config("default")["detector"]["architecture"] == "peak_perceptron"
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(CONFIG), encoding="utf8")
    assert run.load_config(path) == CONFIG
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml.*default, paper or a YAML file"):
        run.load_config("absent.yaml")


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--bank" in shown and "--config" in shown


def write_config(folder):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIG), encoding="utf8")
    return str(path)


def command(what, *, bank, folder, more=()):
    options = ["train", what, "--bank", str(bank), "--output", str(folder / "run"), "--config", write_config(folder)]
    return main(["--quiet", *options, "--threads", "1", *more])


def test_from_the_bank_to_weights(bank, tmp_path, capsys):
    more = ["--epochs", "1", "--seed", "9", "--cells", "Cells of a test.", "--license", "cc-by-nc-sa-4.0"]
    assert command("all", bank=bank, folder=tmp_path, more=more) == 0
    weights = load_weights(tmp_path / "run" / "weights")
    assert weights.config["name"] == "simsort-tiny"
    card = (weights.folder / "README.md").read_text(encoding="utf8")
    assert "seed 9" in card and "| batches | 2 | 2 |" in card and "Cells of a test." in card
    for part in DATA_SETS:
        assert (tmp_path / "run" / part / "checkpoints" / "last.ckpt").exists()
        lines = (tmp_path / "run" / part / "loss.csv").read_text(encoding="utf8").splitlines()
        assert lines[0] == "epoch,train_loss,val_loss" and len(lines) == 2
        assert (tmp_path / "run" / part / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path / "run" / "weights") in capsys.readouterr().out


def test_only_one_network(bank, tmp_path):
    more = ["--epochs", "1", "--batches-per-epoch", "1"]
    assert command("detector", bank=bank, folder=tmp_path, more=more) == 0
    checkpoint = tmp_path / "run" / "detector" / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=False)["global_step"] == 1
    assert not (tmp_path / "run" / "embedder").exists() and not (tmp_path / "run" / "weights").exists()


@pytest.mark.parametrize("part", ["detector", "embedder"])
def test_mixed_precision(part, bank, tmp_path):
    more = ["--epochs", "1", "--precision", "bf16-mixed"]
    assert command(part, bank=bank, folder=tmp_path, more=more) == 0
    state = network_state(tmp_path / "run" / part / "checkpoints" / "last.ckpt")
    whole = network_state(train(part, bank=bank, output=tmp_path / "whole", config=with_epochs(CONFIG, 1)))
    # The weights stay in full precision, and are near those of full precision, not the same.
    assert all(value.dtype == torch.float32 for value in state.values())
    assert any(not torch.equal(value, whole[name]) for name, value in state.items())
    for name, value in state.items():
        torch.testing.assert_close(value, whole[name], atol=0.01, rtol=0.05)


def test_misuse(bank, tmp_path, capsys):
    assert command("detector", bank=tmp_path / "absent", folder=tmp_path) == 1
    assert "There is no neuron bank at" in capsys.readouterr().err
    assert command("detector", bank=bank, folder=tmp_path, more=["--config", "absent.yaml"]) == 1
    assert "default, paper or a YAML file" in capsys.readouterr().err
    assert command("detector", bank=bank, folder=tmp_path, more=["--precision", "7-bit"]) == 1
    assert "7-bit" in capsys.readouterr().err
    (tmp_path / "run").write_text("in the way", encoding="utf8")
    assert command("detector", bank=bank, folder=tmp_path) == 1
    assert "is a file" in capsys.readouterr().err


def test_a_batch_that_teaches_nothing_costs_nothing(neurons):
    module = EmbedderModule(CONFIG["embedder"])
    waveforms, labels = torch.randn(5, 48, 4), torch.zeros(5, dtype=torch.long)
    loss = module._losses([(waveforms, labels), (waveforms[:0], labels[:0])])
    loss.backward()
    assert loss.item() == 0.0


def test_covariance_needs_a_unit_of_some_size(neurons):
    data = [(torch.randn(3, 48, 4), torch.zeros(3, dtype=torch.long))]
    with pytest.raises(ValueError, match="measure over more trials"):
        export.within_unit_covariance(torch.nn.Flatten(), data)


def test_training_needs_neither_spikeinterface_nor_neuron():
    # As on a machine that has a GPU, torch and a bank, and little else.
    code = """
import sys
for name in ("spikeinterface", "probeinterface", "neuron"):
    sys.modules[name] = None
import spikeinterface_simsort.simulation.composition
import spikeinterface_simsort.cli
import spikeinterface_simsort.training.export
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
