"""What is left when `simsort sort` is killed, or the disk full, at any of its steps: a script, run by test_faults.py.

A step is whatever changes the file system beneath the folder that is watched: a file opened for writing, a folder made,
something renamed or removed. Python tells of each before it happens. Every run is a fork of this process, which has
imported all and started nothing.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import spikeinterface as si
import spikeinterface.sorters as ss
from spikeinterface.core import NumpySorting

from spikeinterface_simsort import pipeline, report
from spikeinterface_simsort.cli import main

CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# What a full disk does not allow.
GROWING = {"open", "os.mkdir"}
SCENARIOS = ("single", "overwrite", "groups", "groups_overwrite")
# The real steps of the method, where no file is written.
STEPS = (
    "load_weights",
    "preprocess",
    "detect_and_embed",
    "cluster",
    "join_shifted",
    "learn_templates",
    "match_templates",
    "refine",
)


class Watch:
    """Counts the steps beneath a folder, and strikes at one of them."""

    def __init__(self, folder: Path, *, strike: Callable[[str, int], None]) -> None:
        self.folder, self.strike, self.num_steps = str(folder), strike, 0
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in CHANGES or not str(args[0]).startswith(self.folder):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & WRITING):
            return
        self.num_steps += 1
        self.strike(event, self.num_steps)


def kill_at(step: int) -> Callable[[str, int], None]:
    def strike(event: str, number: int) -> None:
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return strike


def full_from(step: int) -> Callable[[str, int], None]:
    def strike(event: str, number: int) -> None:
        if number >= step and event in GROWING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return strike


def read_only(event: str, number: int) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def in_fork(work: Callable[[], int]) -> tuple[int, str]:
    """Exit code of a forked process that works, or minus the signal that ended it, and what it wrote."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # No limit to the size of files holds for a pipe.
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            code = work()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        finally:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(99)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as said:
        text = said.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), text


def find_units(recording: Any, *, params: Any) -> NumpySorting:
    """Stand in for the method: it writes nothing, so what it finds does not matter here."""
    rng = np.random.default_rng(0)
    trains = {unit: np.sort(rng.integers(0, recording.get_num_samples(), size=5000)) for unit in range(3)}
    sorting = NumpySorting.from_unit_dict([trains], recording.sampling_frequency)
    groups = recording.get_property("group")
    sorting.set_property("group", np.repeat(0 if groups is None else groups[0], 3))
    sorting.set_property("snr", np.array([float(params.min_spikes), 4.0, 3.0]))
    return sorting


def draw(recording: Any, sorting: Any, path: Path, **kwargs: Any) -> Path:
    path.write_bytes(b"picture" * 5000)
    return path


class Scenario:
    """One way to call the command, and what may and must be there afterwards."""

    def __init__(self, name: str, *, recordings: Path, scratch: Path) -> None:
        self.several = name.startswith("groups")
        self.overwrites = name.endswith("overwrite")
        self.scratch = scratch
        self.output = scratch / "deeper" / "out"
        recording = recordings / ("several" if self.several else "single")
        self.arguments = ["sort", str(recording), "--output", str(self.output), "--n-jobs", "1", "--quiet"]
        self.old = self._make_old() if self.overwrites else None
        self.num_steps = self._count()
        self.new = self.contents()
        assert self.new is not None and self.new != self.old

    def _make_old(self) -> Any:
        self.clean()
        code, said = in_fork(lambda: main([*self.arguments, "--set", "min_spikes=9"]))
        assert code == 0, said
        self._kept = self.scratch.with_name(f"{self.scratch.name}.old")
        shutil.rmtree(self._kept, ignore_errors=True)
        shutil.copytree(self.output, self._kept)
        return self.contents()

    def clean(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        if getattr(self, "old", None) is not None:
            shutil.copytree(self._kept, self.output)

    def _count(self) -> int:
        self.clean()

        def work() -> int:
            watch = Watch(self.scratch, strike=lambda event, number: None)
            code = self.run()
            sys.stdout.write(f"{watch.num_steps}\n")
            return code

        code, said = in_fork(work)
        assert code == 0, said
        return int(said.splitlines()[-1])

    def run(self) -> int:
        return main([*self.arguments, *(["--overwrite"] if self.overwrites else [])])

    def contents(self) -> Any:
        """What a user would load as the result; None where there is nothing."""
        if not (self.output / "sorting").exists():
            return None
        sorting: Any = si.load(self.output / "sorting")
        return sorting.to_spike_vector().tobytes(), {
            name: sorting.get_property(name).tolist() for name in sorted(sorting.get_property_keys())
        }

    def complaints(self) -> list[str]:
        """What is there and must not be, after a fault."""
        found = []
        contents = self.contents()
        if contents is not None and contents not in (self.old, self.new):
            found.append("a sorting that is not whole")
        if not self.several and self.output.exists() and contents is None:
            found.append("a folder without its sorting")
        if self.several and (self.output / "groups").exists():
            for path in (self.output / "groups").iterdir():
                if path.is_dir() and not path.name.startswith("."):
                    if ss.read_sorter_folder(path, register_recording=False).get_num_units() != 3:
                        found.append(f"a group that is not whole: {path.name}")
        return found

    def complaints_of_rerun(self) -> list[str]:
        """What does not work, or is left over, when the same command is given again."""
        if not self.several and not self.overwrites and self.contents() == self.new:
            # It was done: the command refuses to do it again.
            return []
        code, said = in_fork(self.run)
        if code:
            return [f"a rerun that ends with {code}: {said[-500:]}"]
        found = [] if self.contents() == self.new else ["a rerun with another result"]
        expected = {"sorting", "units.csv", "units.png", *(("groups", "run.json") if self.several else ("sorter",))}
        if {path.name for path in self.output.iterdir()} != expected:
            found.append(f"after a rerun: {sorted(path.name for path in self.output.iterdir())}")
        hidden = [path.name for path in self.output.rglob(".*") if path.name != ".lock"]
        return found + ([f"hidden after a rerun: {hidden}"] if hidden else [])

    def try_fault(self, *, strike: Callable[[str, int], None], killed: bool) -> list[str]:
        self.clean()

        def work() -> int:
            Watch(self.scratch, strike=strike)
            return self.run()

        return self._judge(*in_fork(work), killed=killed)

    def try_limit(self, num_bytes: int, *, killed: bool) -> list[str]:
        """No file can grow beyond a size: the process is ended in the middle of writing, or told of it."""
        self.clean()

        def work() -> int:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if killed else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))
            return self.run()

        return self._judge(*in_fork(work), killed=killed)

    def _judge(self, code: int, said: str, *, killed: bool) -> list[str]:
        found = []
        if killed and code >= 0:
            found.append(f"it was not killed, but ended with {code}")
        if not killed:
            if code != 1:
                found.append(f"it ended with {code}: {said[-500:]}")
            if "Traceback" in said or not (said.splitlines() or [""])[-1].startswith("error: "):
                found.append(f"it did not say clearly what was wrong: {said[-800:]!r}")
        return found + self.complaints() + self.complaints_of_rerun()


def try_steps(scenario: Scenario, *, first: int, every: int) -> dict[str, list[str]]:
    """Complaints by fault, of those faults that left any."""
    found = {"read-only": scenario.try_fault(strike=read_only, killed=False)}
    for step in range(first, scenario.num_steps + 1, every):
        found[f"killed at {step}"] = scenario.try_fault(strike=kill_at(step), killed=True)
    for step in range(first, scenario.num_steps + 1, every):
        # The last steps need no room: the run may come to its end.
        complaints = scenario.try_fault(strike=full_from(step), killed=False)
        if complaints and "it ended with 0" not in complaints[0]:
            found[f"full from {step}"] = complaints
    for num_bytes in (0, 100, 2000, 20000) if every == 1 else (2000,):
        found[f"killed beyond {num_bytes} bytes"] = scenario.try_limit(num_bytes, killed=True)
        found[f"full beyond {num_bytes} bytes"] = scenario.try_limit(num_bytes, killed=False)
    return {fault: complaints for fault, complaints in found.items() if complaints}


def kill_in_method(scenario: Scenario) -> dict[str, list[str]]:
    """The real method, killed where each of its steps begins."""
    found = {}
    for step in STEPS:
        scenario.clean()

        def work(step: str = step) -> int:
            setattr(pipeline, step, lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL))
            return scenario.run()

        code, _ = in_fork(work)
        complaints = scenario.complaints()
        if code != -signal.SIGKILL:
            complaints.append(f"{step} was not reached: it ended with {code}")
        found[step] = complaints
    found["rerun"] = scenario.complaints_of_rerun()
    return {step: complaints for step, complaints in found.items() if complaints}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", type=Path, help="holds the recordings single and several")
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--scenario", choices=SCENARIOS, required=True)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--method", action="store_true", help="kill the real method instead")
    return parser.parse_args()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    arguments = parse()
    report.draw_units = draw
    if not arguments.method:
        pipeline.sort = find_units
    tried = Scenario(arguments.scenario, recordings=arguments.recordings, scratch=arguments.scratch)
    complaints = (
        kill_in_method(tried) if arguments.method else try_steps(tried, first=arguments.first, every=arguments.every)
    )
    print(json.dumps({"num_steps": tried.num_steps, "complaints": complaints}))  # noqa: T201
