"""Clusters through what SpikeInterface has: dask, and slurm with a stand-in for its command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import spikeinterface as si
import spikeinterface.sorters as ss
from spikeinterface.core import BaseRecording

from spikeinterface_simsort import WithSimSort
from spikeinterface_simsort.group_runs import join_groups
from tests.conftest import elsewhere

# Keeps what it was asked, and runs the script from elsewhere, as a batch system would.
SBATCH = """#!/bin/sh
echo "$@" >> "{folder}/asked.txt"
for script; do :; done
cd / && "$script" > "$script.log" 2>&1
echo "Submitted batch job 1"
"""


@pytest.fixture(scope="module")
def tetrodes(trial: Any, tmp_path_factory: pytest.TempPathFactory) -> BaseRecording:
    short = trial[0].frame_slice(0, 4 * 30000)
    both: Any = si.aggregate_channels([short, elsewhere(short, ["a", "b", "c", "d"])])
    both.set_property("group", [0] * 4 + [1] * 4)
    return both.save(folder=tmp_path_factory.mktemp("tetrodes") / "recording", verbose=False)


def make_jobs(recording: Any, folder: Path) -> list[dict[str, Any]]:
    return [
        {"sorter_name": "simsort", "recording": WithSimSort(part), "folder": folder / str(group), "min_spikes": 5}
        for group, part in recording.split_by("group").items()
    ]


def test_dask(tetrodes: BaseRecording, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert len(client.scheduler_info()["workers"]) == 2
        ss.run_sorter_jobs(make_jobs(tetrodes, tmp_path), engine="dask", engine_kwargs={"client": client})
    sortings: list[Any] = [ss.read_sorter_folder(tmp_path / group) for group in "01"]
    first, second = ([found.get_unit_spike_train(unit).tolist() for unit in found.unit_ids] for found in sortings)
    assert first == second and len(first) >= 2
    # What `docs/scale.md` says to do with the parts.
    assert join_groups(sortings).get_property("group").tolist() == [0] * len(first) + [1] * len(first)


def test_slurm(tetrodes: BaseRecording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "bin" / "sbatch"
    command.parent.mkdir()
    command.write_text(SBATCH.format(folder=tmp_path))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    options = {"cpus-per-task": 1, "mem": "2G", "time": "01:00:00"}
    # One of the two jobs tells all.
    ss.run_sorter_jobs(
        make_jobs(tetrodes, tmp_path / "out")[:1],
        engine="slurm",
        engine_kwargs={"tmp_script_folder": tmp_path / "scripts", "sbatch_args": options},
    )
    (script,) = (tmp_path / "scripts").glob("*.py")
    asked = (tmp_path / "asked.txt").read_text()
    assert asked == f"--cpus-per-task 1 --mem 2G --time 01:00:00 {script}\n"
    said = script.with_name(f"{script.name}.log").read_text()
    assert "Error" not in said, said
    sorting: Any = ss.read_sorter_folder(tmp_path / "out" / "0")
    assert len(sorting.unit_ids) >= 2 and set(sorting.get_property("group")) == {0}
