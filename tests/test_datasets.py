"""Recipes and data sets: what is drawn, what is kept, what is refused, and what is left when processes die."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
import spikeinterface.core as si
import yaml
from distributed import LocalCluster

from spikeinterface_simsort.simulation import datasets
from spikeinterface_simsort.simulation.bank import NeuronCurrents, save_bank
from spikeinterface_simsort.simulation.datasets import (
    Dataset,
    DatasetError,
    bank_fingerprint,
    make_dataset,
    make_one_trial,
    trial_folder,
    trial_seed,
    write_manifest,
)
from spikeinterface_simsort.simulation.recipe import Recipe, bundled_recipes, load_recipe
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import bundled_bank, save_trial

RATE = 10000.0
TINY: dict[str, Any] = {
    "duration_s": {"uniform": [0.2, 0.4]},
    "sampling_frequency": RATE,
    "num_units": 2,
    "num_far": 1,
    "noise_uv": {"uniform": [3.0, 6.0]},
    "firing_rate_hz": [10.0, 30.0],
}
IMPOSSIBLE = {"min_amplitude_uv": 1e6, "max_amplitude_uv": 2e6, "cube_um": 1000.0}


@pytest.fixture
def tiny() -> Dataset:
    return Dataset(recipe=Recipe(TINY), num_trials=3, seed=4)


@pytest.fixture(scope="module")
def bank() -> list[NeuronCurrents]:
    return bundled_bank()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def content_of(trial: Path) -> dict[str, Any]:
    """All numbers of a trial on disk, and its description."""
    with np.load(trial / "truth.npz") as truth:
        content: dict[str, Any] = dict(truth)
    content["traces"] = si.load(trial / "recording").get_traces()
    content["spikes"] = si.load(trial / "sorting").to_spike_vector()
    content["description"] = yaml.safe_load((trial / "trial.yaml").read_text(encoding="utf-8"))
    return content


def assert_same_trial(trial: Path, other: Path) -> None:
    content, expected = content_of(trial), content_of(other)
    assert content.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(content[name], value, err_msg=name)


def assert_whole(folder: Path, dataset: Dataset) -> None:
    """All trials, each readable and of its length, each once, and nothing besides."""
    expected = [f"trial_{index:04d}" for index in range(dataset.num_trials)]
    assert names_in(folder) == {*expected, "dataset.yaml", "manifest.csv"}
    for index, name in enumerate(expected):
        content = content_of(folder / name)
        assert len(content["traces"]) == round(dataset.trial_config(index).duration_s * RATE)
        assert content["description"]["seed"] == trial_seed(dataset.seed, index)
    assert [row["trial"] for row in read_manifest(folder)] == expected


def read_manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Recipes


@pytest.mark.parametrize("name", bundled_recipes())
@pytest.mark.parametrize("seed", range(20))
def test_bundled_recipes_draw(name: str, seed: int) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe.draw(seed), TrialConfig) and recipe.values


def test_bundled_names() -> None:
    assert {"paper", "varied"} <= set(bundled_recipes())


def test_recipe_of_the_paper() -> None:
    config = load_recipe("paper").draw(1)
    assert (config.duration_s, config.num_units, config.cube_um) == (600, 5, 100)


def test_recipe_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("num_units: 3\nnoise_uv: {uniform: [4, 5]}\nfiring_rate_hz: [2, 9]\nsaturation_uv: null\n")
    config = load_recipe(path).draw(0)
    assert (config.num_units, config.firing_rate_hz, config.saturation_uv) == (3, (2, 9), None)
    assert 4 <= config.noise_uv <= 5


def test_empty_recipe_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing yet\n")
    assert load_recipe(path).draw(0) == TrialConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_unit: 5", "A recipe has no num_unit. It has .*num_units"),
        ("1: 2\nfoo: 3", "A recipe has no 1, foo"),
        ("noise_uv: {normal: [1, 2]}", "noise_uv: a draw has one of the keys uniform, .*not \\['normal'\\]"),
        ("noise_uv: {uniform: [1, 2], choice: [3]}", "noise_uv: a draw has one of the keys"),
        ("noise_uv: {}", "noise_uv: a draw has one of the keys"),
        ("noise_uv: {uniform: 3}", "noise_uv: uniform needs a list, not 3"),
        ("noise_uv: {choice: []}", "noise_uv: choice needs a list"),
        ("noise_uv: {uniform: [2, 1]}", "noise_uv: uniform needs \\[low, high\\], not \\[2, 1\\]"),
        ("noise_uv: {uniform: [1, 2, 3]}", "noise_uv: uniform needs \\[low, high\\]"),
        ("noise_uv: {uniform: [1, .inf]}", "noise_uv: uniform needs \\[low, high\\]"),
        ("noise_uv: {uniform: [a, b]}", "noise_uv: uniform needs \\[low, high\\]"),
        ("noise_uv: {log_uniform: [0, 2]}", "noise_uv: log_uniform needs \\[low, high\\]"),
        ("num_units: {integers: [1.5, 3]}", "num_units: integers needs"),
        ("num_units: {uniform: [1, 5]}", "num_units must be int"),
        ("num_units: five", "num_units must be int, not 'five'"),
        ("num_units: .inf", "num_units must be int, not inf"),
        ("noise_uv: -1", "noise_uv must be 0 or more, not -1"),
        ("layout: {choice: [round]}", "layout must be one of .*not 'round'"),
        ("firing_rate_hz: 5", "firing_rate_hz must be two numbers, not 5"),
        ("- num_units", "is not a recipe"),
        ("[]", "is not a recipe"),
        ("noise", "is not a recipe"),
        ("noise: [", "is not YAML"),
    ],
)
def test_bad_recipe(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


@pytest.mark.parametrize("name", ["nothing.yaml", "papers", "."])
def test_missing_recipe(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no recipe .*paper, .*varied"):
        load_recipe(name)


def drawn(values: dict[str, Any], name: str, *, count: int = 400) -> list[Any]:
    recipe = Recipe(values)
    return [getattr(recipe.draw(seed), name) for seed in range(count)]


def test_uniform_draw() -> None:
    values = np.array(drawn({"noise_uv": {"uniform": [2.0, 8.0]}}, "noise_uv"))
    assert values.min() >= 2.0 and values.max() <= 8.0
    np.testing.assert_allclose(np.quantile(values, [0.25, 0.5, 0.75]), [3.5, 5.0, 6.5], atol=0.5)


def test_log_uniform_draw() -> None:
    values = np.array(drawn({"noise_uv": {"log_uniform": [1.0, 100.0]}}, "noise_uv"))
    assert values.min() >= 1.0 and values.max() <= 100.0
    np.testing.assert_allclose(np.log10(np.quantile(values, [0.25, 0.5, 0.75])), [0.5, 1.0, 1.5], atol=0.2)


def test_integers_draw_reaches_both_ends() -> None:
    values = drawn({"num_units": {"integers": [2, 5]}}, "num_units")
    assert set(values) == {2, 3, 4, 5}
    assert {type(value) for value in values} == {int}


def test_choice_draw() -> None:
    values = drawn({"saturation_uv": {"choice": [None, 500, 900]}}, "saturation_uv")
    assert set(values) == {None, 500, 900}


def test_choice_of_pairs() -> None:
    values = drawn({"firing_rate_hz": {"choice": [[1, 5], [2, 20]]}}, "firing_rate_hz", count=40)
    assert set(values) == {(1, 5), (2, 20)}


def test_same_seed_same_draw() -> None:
    assert load_recipe("varied").draw(7) == load_recipe("varied").draw(7)
    assert load_recipe("varied").draw(7) != load_recipe("varied").draw(8)


def test_draw_depends_on_no_other_field() -> None:
    noise = {"noise_uv": {"uniform": [2.0, 8.0]}}
    more = {"cube_um": {"uniform": [50.0, 90.0]}, **noise, "num_units": {"integers": [1, 9]}}
    assert drawn(noise, "noise_uv", count=20) == drawn(more, "noise_uv", count=20)


def test_fields_are_drawn_independently() -> None:
    recipe = Recipe({name: {"uniform": [0.0, 1.0]} for name in ("burst_fraction", "noise_correlation")})
    pairs = [(config.burst_fraction, config.noise_correlation) for config in map(recipe.draw, range(400))]
    assert abs(np.corrcoef(np.array(pairs).T)[0, 1]) < 0.15


@pytest.mark.parametrize("values", [TINY, load_recipe("varied").values, {}])
def test_recipe_round_trip(values: dict[str, Any]) -> None:
    recipe = Recipe(values)
    again = Recipe(yaml.safe_load(yaml.safe_dump(recipe.to_dict())))
    assert [again.draw(seed) for seed in range(5)] == [recipe.draw(seed) for seed in range(5)]


# Data sets in one process


def test_seeds_of_trials_differ() -> None:
    seeds = [trial_seed(seed, index) for seed in range(10) for index in range(100)]
    assert len(set(seeds)) == 1000


def test_make_dataset(tiny: Dataset, tmp_path: Path) -> None:
    folders = make_dataset(tmp_path / "data", tiny)
    assert folders == [trial_folder(tmp_path / "data", index) for index in range(3)]
    assert_whole(tmp_path / "data", tiny)


def test_trials_are_those_of_save_trial(tiny: Dataset, bank: list[NeuronCurrents], tmp_path: Path) -> None:
    folders = make_dataset(tmp_path / "data", tiny)
    alone = save_trial(tmp_path / "alone", bank, config=tiny.trial_config(2), seed=trial_seed(4, 2))
    assert_same_trial(folders[2], alone)


def test_trials_differ(tiny: Dataset, tmp_path: Path) -> None:
    first, second, _ = (content_of(folder) for folder in make_dataset(tmp_path / "data", tiny))
    assert not np.array_equal(first["traces"], second["traces"])
    assert not np.array_equal(first["unit_positions"], second["unit_positions"])


def test_trials_with_waveforms(tiny: Dataset, tmp_path: Path) -> None:
    folders = make_dataset(tmp_path / "data", replace(tiny, num_trials=1, most_waveforms=2))
    with np.load(folders[0] / "waveforms.npz") as waveforms:
        assert np.bincount(waveforms["labels"]).max() <= 2


def test_trials_in_zarr(tiny: Dataset, tmp_path: Path) -> None:
    folders = make_dataset(tmp_path / "data", replace(tiny, num_trials=1, format="zarr"))
    assert si.load(folders[0] / "recording.zarr").get_num_channels() == 4


def test_no_trials(tiny: Dataset, tmp_path: Path) -> None:
    assert make_dataset(tmp_path / "data", replace(tiny, num_trials=0)) == []
    assert read_manifest(tmp_path / "data") == []


def test_data_set_file(tiny: Dataset, bank: list[NeuronCurrents], tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", replace(tiny, num_trials=1))
    assert yaml.safe_load((tmp_path / "data" / "dataset.yaml").read_text(encoding="utf-8")) == {
        "seed": 4,
        "format": "binary",
        "most_waveforms": 0,
        "bank_sha256": bank_fingerprint(bank),
        "recipe": TINY,
    }


def test_progress_tells_of_each_trial(tiny: Dataset, tmp_path: Path) -> None:
    make_dataset(tmp_path, replace(tiny, num_trials=1))
    told: list[Path] = []
    folders = make_dataset(tmp_path, tiny, progress=told.append)
    assert told == folders


def test_own_bank(tiny: Dataset, bank: list[NeuronCurrents], tmp_path: Path) -> None:
    save_bank(tmp_path / "bank.npz", bank[:1])
    dataset = replace(tiny, num_trials=1, bank=str(tmp_path / "bank.npz"))
    make_dataset(tmp_path / "data", dataset)
    assert read_manifest(tmp_path / "data")[0]["cells"] == f"{bank[0].name} {bank[0].name}"


@pytest.mark.parametrize("num_workers", [0, -2])
def test_no_workers(tiny: Dataset, tmp_path: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A cluster without workers would wait for ever.
    monkeypatch.setattr(datasets, "_results", lambda *args, **kwargs: pytest.fail("it went on"))
    with pytest.raises(ValueError, match=f"num_workers must be 1 or more, not {num_workers}"):
        make_dataset(tmp_path / "data", tiny, num_workers=num_workers)
    assert not (tmp_path / "data").exists()


# Manifest


def test_manifest(tiny: Dataset, tmp_path: Path) -> None:
    folders = make_dataset(tmp_path, tiny)
    for index, row in enumerate(read_manifest(tmp_path)):
        content = content_of(folders[index])
        assert row["trial"] == f"trial_{index:04d}"
        assert int(row["seed"]) == trial_seed(4, index)
        assert float(row["duration_s"]) == tiny.trial_config(index).duration_s
        assert float(row["sampling_frequency"]) == RATE
        assert int(row["num_units"]) == 2
        assert int(row["num_spikes"]) == len(content["spikes"])
        assert float(row["overlapping"]) == pytest.approx(content["overlapping"].mean(), abs=1e-4)
        assert row["cells"].split() == content["description"]["cells"]


def test_manifest_of_trials_without_spikes(tmp_path: Path) -> None:
    make_dataset(tmp_path, Dataset(recipe=Recipe({**TINY, "num_units": 0})))
    (row,) = read_manifest(tmp_path)
    assert (row["num_units"], row["num_spikes"], row["overlapping"], row["cells"]) == ("0", "0", "", "")


def test_manifest_names_trials_alone(tiny: Dataset, tmp_path: Path) -> None:
    (folder,) = make_dataset(tmp_path, replace(tiny, num_trials=1))
    for other in ("trial_0001.partial-deadbee0", "trial_copy1"):
        (tmp_path / other).mkdir()
        for name in ("trial.yaml", "truth.npz"):
            (tmp_path / other / name).write_bytes((folder / name).read_bytes())
    write_manifest(tmp_path)
    assert [row["trial"] for row in read_manifest(tmp_path)] == ["trial_0000"]


def test_manifest_is_in_order_beyond_four_digits(tiny: Dataset, tmp_path: Path) -> None:
    folders = make_dataset(tmp_path, replace(tiny, num_trials=2))
    for folder, index in zip(folders, (10000, 9999), strict=True):
        folder.rename(trial_folder(tmp_path, index))
    write_manifest(tmp_path)
    assert [row["trial"] for row in read_manifest(tmp_path)] == ["trial_9999", "trial_10000"]


# What is there already


def test_missing_trial_is_made_again(tiny: Dataset, tmp_path: Path) -> None:
    folders = make_dataset(tmp_path / "data", tiny)
    times = [(folder / "trial.yaml").stat().st_mtime_ns for folder in folders]
    gone = folders[1].rename(tmp_path / "gone")
    make_dataset(tmp_path / "data", tiny)
    assert_whole(tmp_path / "data", tiny)
    assert_same_trial(folders[1], gone)
    assert [(folders[i] / "trial.yaml").stat().st_mtime_ns for i in (0, 2)] == [times[0], times[2]]


def test_data_set_grows(tiny: Dataset, tmp_path: Path) -> None:
    (folder,) = make_dataset(tmp_path / "data", replace(tiny, num_trials=1))
    before = (folder / "trial.yaml").stat().st_mtime_ns
    make_dataset(tmp_path / "data", tiny)
    assert_whole(tmp_path / "data", tiny)
    assert (folder / "trial.yaml").stat().st_mtime_ns == before


def test_grown_data_set_is_as_one_made_at_once(tiny: Dataset, tmp_path: Path) -> None:
    make_dataset(tmp_path / "grown", replace(tiny, num_trials=1))
    for one, other in zip(make_dataset(tmp_path / "grown", tiny), make_dataset(tmp_path / "once", tiny), strict=True):
        assert_same_trial(one, other)


def test_recipe_of_tuples_can_be_resumed(tmp_path: Path) -> None:
    dataset = Dataset(recipe=Recipe({**TINY, "firing_rate_hz": (10.0, 30.0)}))
    make_dataset(tmp_path, dataset)
    assert len(make_dataset(tmp_path, replace(dataset, num_trials=2))) == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 5}, "seed"),
        ({"format": "zarr"}, "format"),
        ({"most_waveforms": 10}, "most_waveforms"),
        ({"recipe": Recipe({**TINY, "num_far": 2})}, "recipe"),
        ({"recipe": Recipe({}), "seed": 5}, "seed, recipe"),
    ],
)
def test_other_settings_are_refused(tiny: Dataset, tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    make_dataset(tmp_path, replace(tiny, num_trials=1))
    with pytest.raises(ValueError, match=rf"made with other settings \({named}\)"):
        make_dataset(tmp_path, replace(tiny, **changes))
    assert_whole(tmp_path, replace(tiny, num_trials=1))


def test_other_bank_is_refused(tiny: Dataset, bank: list[NeuronCurrents], tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", replace(tiny, num_trials=1))
    save_bank(tmp_path / "bank.npz", bank[:3])
    with pytest.raises(ValueError, match=r"other settings \(bank_sha256\)"):
        make_dataset(tmp_path / "data", replace(tiny, bank=str(tmp_path / "bank.npz")))


@pytest.mark.parametrize("name", [field.name for field in fields(NeuronCurrents)])
def test_fingerprint_tells_banks_apart(bank: list[NeuronCurrents], name: str) -> None:
    value = getattr(bank[0], name)
    changed = replace(bank[0], **{name: value + "x" if isinstance(value, str) else value + 1})
    assert bank_fingerprint([changed]) != bank_fingerprint([bank[0]])


def test_fingerprint_of_the_same_bank(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    save_bank(tmp_path / "bank.npz", bank)
    assert bank_fingerprint(datasets.load_bank(tmp_path / "bank.npz")) == bank_fingerprint(bank)


def test_foreign_folder_is_refused(tiny: Dataset, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        make_dataset(tmp_path, tiny)
    assert names_in(tmp_path) == {"thesis.txt"}


def test_foreign_trial_is_refused(tiny: Dataset, tmp_path: Path) -> None:
    folders = make_dataset(tmp_path / "data", tiny)
    (tmp_path / "other").mkdir()
    other = save_trial(tmp_path / "other" / "trial", config=tiny.trial_config(1), seed=99)
    folders[1].rename(tmp_path / "gone")
    other.rename(folders[1])
    with pytest.raises(ValueError, match="trial_0001 was made with other settings"):
        make_dataset(tmp_path / "data", tiny)


def test_folder_that_is_no_trial_is_refused(tiny: Dataset, tmp_path: Path) -> None:
    make_dataset(tmp_path, replace(tiny, num_trials=1))
    (tmp_path / "trial_0001").mkdir()
    with pytest.raises(ValueError, match="trial_0001 is not a trial"):
        make_dataset(tmp_path, tiny)


def test_torn_trial_is_swept(tiny: Dataset, tmp_path: Path) -> None:
    make_dataset(tmp_path, replace(tiny, num_trials=1))
    torn = tmp_path / "trial_0001.partial-0123abcd" / "recording"
    torn.mkdir(parents=True)
    (torn / "traces_cached_seg0.raw").write_bytes(b"half")
    make_dataset(tmp_path, tiny)
    assert_whole(tmp_path, tiny)


# What cannot be made


def test_impossible_recipe_leaves_no_folder(tmp_path: Path) -> None:
    dataset = Dataset(recipe=Recipe({**TINY, **IMPOSSIBLE}), num_trials=2)
    with pytest.raises(DatasetError, match="2 of 2 trials could not be made, .* number 0: ValueError: No neuron"):
        make_dataset(tmp_path / "data", dataset)
    assert not names_in(tmp_path)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Numbers of trials for which there is no space."""
    numbers: set[int] = set()

    def fail(folder: Path, *args: Any, **kwargs: Any) -> Path:
        if int(folder.name.removeprefix("trial_")) in numbers:
            raise OSError(28, "No space left on device")
        return save_trial(folder, *args, **kwargs)

    monkeypatch.setattr(datasets, "save_trial", fail)
    return numbers


def test_other_trials_are_made(tiny: Dataset, tmp_path: Path, full_disk: set[int]) -> None:
    full_disk.add(1)
    with pytest.raises(DatasetError, match="1 of 3 trials could not be made, the first of them number 1: OSError"):
        make_dataset(tmp_path, tiny)
    assert [row["trial"] for row in read_manifest(tmp_path)] == ["trial_0000", "trial_0002"]


def test_failed_trial_can_be_made_later(tiny: Dataset, tmp_path: Path, full_disk: set[int]) -> None:
    full_disk.add(1)
    with pytest.raises(DatasetError):
        make_dataset(tmp_path, tiny)
    full_disk.clear()
    make_dataset(tmp_path, tiny)
    assert_whole(tmp_path, tiny)


def test_failure_spares_trials_beyond_those_asked_for(tiny: Dataset, tmp_path: Path, full_disk: set[int]) -> None:
    full_disk.add(0)
    with pytest.raises(DatasetError):
        make_dataset(tmp_path, tiny)
    with pytest.raises(DatasetError):
        make_dataset(tmp_path, replace(tiny, num_trials=1))
    assert names_in(tmp_path) >= {"trial_0001", "trial_0002", "dataset.yaml"}


def test_failure_spares_what_others_put_there(tiny: Dataset, tmp_path: Path, full_disk: set[int]) -> None:
    (trial,) = make_dataset(tmp_path / "data", replace(tiny, num_trials=1))
    trial.rename(tmp_path / "gone")
    (tmp_path / "data" / "notes.txt").write_text("mine")
    full_disk.add(0)
    with pytest.raises(DatasetError):
        make_dataset(tmp_path / "data", replace(tiny, num_trials=1))
    assert names_in(tmp_path / "data") == {"notes.txt"}


def test_trial_that_is_there_is_no_error(tiny: Dataset, tmp_path: Path) -> None:
    (folder,) = make_dataset(tmp_path, replace(tiny, num_trials=1))
    before = (folder / "trial.yaml").stat().st_mtime_ns
    assert make_one_trial(tmp_path, tiny, 0) == ""
    assert (folder / "trial.yaml").stat().st_mtime_ns == before


# Several processes


def test_parallel_is_as_serial(tiny: Dataset, tmp_path: Path) -> None:
    told: list[Path] = []
    dataset = replace(tiny, num_trials=8)
    parallel = make_dataset(tmp_path / "parallel", dataset, num_workers=2, progress=told.append)
    assert_whole(tmp_path / "parallel", dataset)
    assert sorted(told) == parallel
    for one, other in zip(parallel, make_dataset(tmp_path / "serial", dataset), strict=True):
        assert_same_trial(one, other)


# Loaded by each worker when it starts, and perhaps again.
DIE_ONCE = """
import os, pathlib, signal
from spikeinterface_simsort.simulation import trials

def die_once(trial, to_sorting=trials.to_sorting):
    try:
        pathlib.Path({died!r}).touch(exist_ok=False)
    except FileExistsError:
        return to_sorting(trial)
    os.kill(os.getpid(), signal.SIGKILL)

if trials.to_sorting.__name__ != "die_once":
    trials.to_sorting = die_once
"""


def test_worker_that_dies_while_writing(tiny: Dataset, tmp_path: Path) -> None:
    died = tmp_path / "died"
    preload = tmp_path / "preload.py"
    preload.write_text(DIE_ONCE.format(died=str(died)))
    with dask.config.set({"distributed.worker.preload": [str(preload)]}):
        make_dataset(tmp_path / "data", tiny, num_workers=2)
    assert died.exists()
    assert_whole(tmp_path / "data", tiny)


LONG = Dataset(recipe=Recipe({**TINY, "duration_s": 2.0, "num_far": 10}), num_trials=9, seed=1)
SCRIPT = """
import sys
from spikeinterface_simsort.simulation.datasets import Dataset, make_dataset
from spikeinterface_simsort.simulation.recipe import Recipe

if __name__ == "__main__":
    dataset = Dataset(recipe=Recipe({recipe!r}), num_trials={num_trials}, seed={seed})
    make_dataset({folder!r}, dataset, num_workers=2, progress=lambda trial: print(trial.name, flush=True))
"""


def start(folder: Path, dataset: Dataset) -> subprocess.Popen[str]:
    """Make a data set in a process group of its own, which tells of each trial on its output."""
    script = folder.with_name("make.py")
    text = SCRIPT.format(
        recipe=dataset.recipe.to_dict(), num_trials=dataset.num_trials, seed=dataset.seed, folder=str(folder)
    )
    script.write_text(text)
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def read_names(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_killed_worker(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    process = start(folder, LONG)
    try:
        told = read_names(process, 2)
        victim = workers_of(process)[0]
        victim.kill()
        done = len(list(folder.glob("trial_*[0-9]")))
        rest, _ = process.communicate(timeout=120)
    finally:
        kill_group(process)
    assert done < LONG.num_trials
    assert process.returncode == 0
    assert sorted([*told, *rest.split()]) == [f"trial_{index:04d}" for index in range(LONG.num_trials)]
    assert_whole(folder, LONG)


def test_killed_group_is_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    process = start(folder, LONG)
    try:
        read_names(process, 2)
    finally:
        kill_group(process)
    made = {path: path.stat().st_mtime_ns for path in folder.glob("trial_????/trial.yaml")}
    assert 2 <= len(made) < LONG.num_trials
    assert not (folder / "manifest.csv").exists()
    make_dataset(folder, LONG)
    assert_whole(folder, LONG)
    assert {path: path.stat().st_mtime_ns for path in made} == made


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it started, and wait until none is left that could write."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True)]
        os.killpg(process.pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return
    process.wait()
    deadline = time.monotonic() + 10
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family):
        assert time.monotonic() < deadline, "a process outlives its group"
        time.sleep(0.05)


def test_workers_of_a_scheduler_make_the_trials(tiny: Dataset, tmp_path: Path) -> None:
    with LocalCluster(n_workers=2, threads_per_worker=1, protocol="tcp://", dashboard_address=":0") as cluster:
        assert cluster.scheduler_address.startswith("tcp://")
        dataset = replace(tiny, num_trials=3)
        folders = make_dataset(tmp_path / "cluster", dataset, scheduler=cluster.scheduler_address)
    assert_whole(tmp_path / "cluster", dataset)
    for one, other in zip(folders, make_dataset(tmp_path / "serial", dataset), strict=True):
        assert_same_trial(one, other)
