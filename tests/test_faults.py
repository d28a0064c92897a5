"""Faults of the machine: killed at any step, disk full, output read-only, and nothing that leaks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spikeinterface.core import NumpyRecording

SCRIPT = Path(__file__).with_name("fault_injection.py")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tetrode, and two of them, for 1.2 s."""
    folder = tmp_path_factory.mktemp("recordings")
    traces = np.random.default_rng(0).normal(size=(12000, 8)).astype("float32")
    several = NumpyRecording([traces], 10000.0)
    several.set_property("group", [0] * 4 + [1] * 4)
    several.save(folder=folder / "several", verbose=False)
    NumpyRecording([traces[:, :4]], 10000.0).save(folder=folder / "single", verbose=False)
    return folder


def inject(recordings: Path, scratch: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), str(recordings), str(scratch), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_faults_at_some_steps(recordings: Path, tmp_path: Path) -> None:
    told = inject(recordings, tmp_path / "scratch", "--scenario", "groups_overwrite", "--first", "20", "--every", "33")
    assert told["complaints"] == {}
    assert told["num_steps"] > 53


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["single", "overwrite", "groups", "groups_overwrite"])
def test_faults_at_every_step(recordings: Path, tmp_path: Path, scenario: str) -> None:
    told = inject(recordings, tmp_path / "scratch", "--scenario", scenario)
    assert told["complaints"] == {}
    assert told["num_steps"] > 25


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["single", "groups"])
def test_killed_in_the_method(trial: Any, tmp_path: Path, scenario: str) -> None:
    traces = trial[0].get_traces()
    several = NumpyRecording([np.concatenate([traces, traces], axis=1)], 30000.0)
    several.set_property("group", [0] * 4 + [1] * 4)
    several.save(folder=tmp_path / "several", verbose=False)
    trial[0].save(folder=tmp_path / "single", verbose=False)
    told = inject(tmp_path, tmp_path / "scratch", "--scenario", scenario, "--method")
    assert told["complaints"] == {}


LEAKS = """
import gc, os, sys, warnings
import numpy as np
import spikeinterface.core as si
import spikeinterface.sorters as ss
import spikeinterface_simsort

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

warnings.simplefilter("ignore")
si.set_global_job_kwargs(progress_bar=False)
recording = si.load(sys.argv[1])
for run in range(50):
    ss.run_sorter("simsort", recording, folder=sys.argv[2], remove_existing_folder=True)
    gc.collect()
    print(resident_mb(), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc of Linux")
def test_fifty_runs_leak_nothing(trial: Any, tmp_path: Path) -> None:
    trial[0].frame_slice(0, 150_000).save(folder=tmp_path / "recording", verbose=False)
    command = [sys.executable, "-c", LEAKS, str(tmp_path / "recording"), str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert run.returncode == 0, run.stderr
    told = np.array([line.split() for line in run.stdout.splitlines()], dtype=float)
    memory, num_files, num_threads = told.T
    assert len(told) == 50
    # The first runs fill caches: of libraries, and of the allocator.
    assert memory[-5:].mean() < memory[10:15].mean() + 15.0, memory
    assert num_files[-1] <= num_files[4] and num_threads[-1] <= num_threads[4], told
