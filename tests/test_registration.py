"""Registration with SpikeInterface, in this process and in workers that start fresh."""

import subprocess
import sys

import numpy as np
import pytest
import spikeinterface as si
import spikeinterface.sorters as ss
from spikeinterface.sorters import sorterlist

from spikeinterface_simsort import SimSortSorter, WithSimSort
from spikeinterface_simsort.registration import register
from tests.conftest import elsewhere


def python(code, *args):
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False)


def test_registered_once():
    register()
    register()
    assert sorterlist.sorter_full_list.count(SimSortSorter) == 1
    assert ss.sorter_dict["simsort"] is SimSortSorter


def test_name_taken(monkeypatch):
    class Other(SimSortSorter):
        pass

    monkeypatch.setitem(sorterlist.sorter_dict, "simsort", Other)
    with pytest.raises(RuntimeError, match="Another sorter is registered"):
        register()


def test_import_is_light():
    result = python(
        "import sys, spikeinterface.sorters\n"
        "before = set(sys.modules)\n"
        "import spikeinterface_simsort\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "sys.exit(str(new) if new - {'spikeinterface_simsort'} & {'torch', 'neuron', 'lightning', 'umap'} else 0)"
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def two_groups(trial, tmp_path_factory):
    recording, _ = trial
    short = recording.frame_slice(0, 5 * 30000)
    both = si.aggregate_channels([short, elsewhere(short, ["a", "b", "c", "d"])])
    both.set_property("group", [0] * 4 + [1] * 4)
    return both.save(folder=tmp_path_factory.mktemp("groups") / "recording")


@pytest.mark.parametrize(
    ("engine", "engine_kwargs"),
    [
        ("loop", {}),
        ("joblib", {"n_jobs": 2, "backend": "threading"}),
        ("joblib", {"n_jobs": 2, "backend": "loky"}),
        ("processpoolexecutor", {"max_workers": 2, "mp_context": "fork"}),
        ("processpoolexecutor", {"max_workers": 2, "mp_context": "spawn"}),
    ],
    ids=["loop", "joblib-threading", "joblib-loky", "pool-fork", "pool-spawn"],
)
def test_by_property(two_groups, tmp_path, engine, engine_kwargs):
    if engine == "processpoolexecutor":
        import multiprocessing

        engine_kwargs = {**engine_kwargs, "mp_context": multiprocessing.get_context(engine_kwargs["mp_context"])}
    sorting = ss.run_sorter_by_property(
        "simsort",
        WithSimSort(two_groups),
        "group",
        folder=tmp_path / "out",
        engine=engine,
        engine_kwargs=engine_kwargs,
        min_spikes=5,
    )
    group = sorting.get_property("group")
    assert sum(group == 0) == sum(group == 1) > 0


def test_dict_of_recordings(two_groups, tmp_path):
    sortings = ss.run_sorter("simsort", two_groups.split_by("group"), folder=tmp_path / "out", min_spikes=5)
    assert set(sortings) == {0, 1}
    assert all(len(sorting.unit_ids) > 0 for sorting in sortings.values())


def test_with_simsort_hands_on_everything(trial):
    recording, _ = trial
    same = WithSimSort(recording)
    assert np.array_equal(same.get_traces(0, 10, 50), recording.get_traces(0, 10, 50))
    assert np.array_equal(same.get_channel_locations(), recording.get_channel_locations())
    assert same.check_serializability("json")


def test_fresh_process_reads_the_result(sorted_folder, sorted_trial):
    result = python(
        "import sys, spikeinterface_simsort, spikeinterface.sorters as ss\n"
        "print(len(ss.read_sorter_folder(sys.argv[1]).unit_ids))",
        sorted_folder,
    )
    assert result.stdout.strip() == str(len(sorted_trial.unit_ids)), result.stderr
