"""Run every sorter on every recording, each in a process of its own, and go on where a run was stopped."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import spikeinterface as si

from benchmarks.catalogue import Dataset
from benchmarks.peers import MOUNTAINSORT4_PYTHON, ORACLES, PEERS, missing
from benchmarks.worker import FACTS_FILE, SPIKES_FILE

logger = logging.getLogger(__name__)

RESULT_FILE, LOG_FILE = "run.json", "log.txt"
TIMEOUT_S = 1800.0
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a sorter fared on a recording.

    Attributes
    ----------
    family, dataset, sorter : str
        Of what.
    status : {"ok", "failed", "timeout", "missing"}
        A sorter that is not here is missing.
    seconds : float
        Of the sorter alone; of the whole process where it did not end.
    peak_mb : float
        Most memory that the process and its children had, looked at ten times a second.
    message : str
        Why it did not go well.
    sorter_version : str
        Where it ran.
    """

    family: str
    dataset: str
    sorter: str
    status: str
    seconds: float = field(default=float("nan"))
    peak_mb: float = field(default=float("nan"))
    message: str = ""
    sorter_version: str = ""


def add_run_arguments(
    parser: argparse.ArgumentParser, *, sorters: Iterable[str], default: Sequence[str] | None = None
) -> None:
    """Add what `run_all` is told on the command line: ``--sorters`` and ``--timeout``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        To be changed.
    sorters : iterable of str
        Those to choose from.
    default : sequence of str, optional
        Those that are run unless told otherwise; all of them if not given.
    """
    names = list(sorters)
    whose = "all" if default is None else f"of {' and '.join(default)} those"
    parser.add_argument(
        "--sorters",
        nargs="+",
        choices=names,
        default=names if default is None else list(default),
        metavar="SORTER",
        help=f"of {', '.join(names)} ({whose} that are installed)",
    )
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="of a run, in s (%(default)s)")


def run_folder(dataset: Dataset, sorter: str, *, folder: Path) -> Path:
    """Where the result of a sorter on a recording lies."""
    return folder / dataset.family / dataset.name / sorter


def run_one(dataset: Dataset, sorter: str, *, folder: Path, timeout_s: float = TIMEOUT_S) -> Run:
    """Run a sorter on a recording, unless that has been done.

    Parameters
    ----------
    dataset : Dataset
        The recording.
    sorter : str
        Key of `benchmarks.peers.PEERS` or an oracle.
    folder : Path
        Of all runs. A run that was stopped leaves no ``run.json`` and begins anew; failures and time-outs are kept
        as they are.
    timeout_s : float
        After which the process and its children are ended.

    Returns
    -------
    Run
    """
    target = run_folder(dataset, sorter, folder=folder)
    result = target / RESULT_FILE
    if result.exists():
        return Run(**json.loads(result.read_text(encoding="utf8")))
    named = partial(Run, family=dataset.family, dataset=dataset.name, sorter=sorter)
    reason = None if sorter in ORACLES else missing(sorter)
    if reason:
        # Not kept: it may be there next time.
        return named(status="missing", message=reason)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    seconds, peak_mb, code = watch(_command(dataset, sorter, target), log=target / LOG_FILE, timeout_s=timeout_s)
    if code is None:
        run = named(status="timeout", seconds=seconds, peak_mb=peak_mb, message=f"ended after {timeout_s:.0f} s")
    elif code or not (target / SPIKES_FILE).exists():
        message = _last_line(target / LOG_FILE) or f"exit status {code}"
        run = named(status="failed", seconds=seconds, peak_mb=peak_mb, message=message)
    else:
        facts = json.loads((target / FACTS_FILE).read_text(encoding="utf8"))
        run = named(status="ok", peak_mb=peak_mb, **facts)
    # What sorters leave behind is large, and only the spikes are scored.
    shutil.rmtree(target / "sorter", ignore_errors=True)
    unfinished = result.with_suffix(".partial")
    unfinished.write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf8")
    os.replace(unfinished, result)
    return run


def run_all(
    datasets: Iterable[Dataset], sorters: Sequence[str], *, folder: Path, timeout_s: float = TIMEOUT_S
) -> list[Run]:
    """Run sorters on recordings, one after the other, see `run_one`."""
    runs = []
    for dataset in datasets:
        for sorter in sorters:
            run = run_one(dataset, sorter, folder=folder, timeout_s=timeout_s)
            detail = f"{run.seconds:.1f} s, {run.peak_mb:.0f} MB" if run.status == "ok" else run.message
            logger.info("%s/%s %s: %s (%s)", dataset.family, dataset.name, sorter, run.status, detail)
            runs.append(run)
    return runs


def _command(dataset: Dataset, sorter: str, target: Path) -> list[str]:
    if sorter in ORACLES or not PEERS[sorter].own_environment:
        return [sys.executable, "-m", "benchmarks.worker", str(dataset.folder), sorter, str(target)]
    recording = si.load(dataset.folder / "recording")
    # Traces as they are, in a file that needs no SpikeInterface to be read.
    binary = target / "traces.raw"
    np.ascontiguousarray(recording.get_traces()).tofile(binary)
    request = {
        "binary": str(binary),
        "dtype": str(recording.get_dtype()),
        "sampling_frequency": recording.get_sampling_frequency(),
        "num_channels": recording.get_num_channels(),
        "gain_to_uv": float(recording.get_channel_gains()[0]) if recording.has_scaleable_traces() else 1.0,
        "offset_to_uv": float(recording.get_channel_offsets()[0]) if recording.has_scaleable_traces() else 0.0,
        "locations": recording.get_channel_locations().tolist(),
        "params": PEERS[sorter].params,
        "output": str(target),
    }
    path = target / "request.json"
    path.write_text(json.dumps(request), encoding="utf8")
    script = Path(__file__).with_name("mountainsort4_worker.py")
    return [os.environ[MOUNTAINSORT4_PYTHON], str(script), str(path)]


def watch(command: list[str], *, log: Path, timeout_s: float) -> tuple[float, float, int | None]:
    """Run a process and what it starts, and end all of it when it takes too long.

    Parameters
    ----------
    command : list of str
        Words.
    log : Path
        File for what it writes.
    timeout_s : float
        Longest time.

    Returns
    -------
    seconds : float
    peak_mb : float
        Largest memory of all of them together; what several share counts once.
    code : int or None
        Exit status; None if it took too long.
    """
    start = time.perf_counter()
    peak = 0.0
    code = None
    with log.open("wb") as output:
        # A session of its own: whatever it starts can be ended with it.
        process = psutil.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while time.perf_counter() - start < timeout_s:
                try:
                    code = process.wait(_POLL_S)
                    break
                except psutil.TimeoutExpired:
                    peak = max(peak, _memory_mb(process))
        finally:
            # Nothing is left running, whether it took too long, or left children behind, or the benchmark is stopped.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return time.perf_counter() - start, peak, code


def watch_or_raise(command: list[str], *, log: Path, timeout_s: float) -> tuple[float, float]:
    """Do the same with a process that has to succeed.

    Parameters
    ----------
    command, log, timeout_s
        See `watch`.

    Returns
    -------
    seconds : float
    peak_mb : float

    Raises
    ------
    subprocess.CalledProcessError
        It failed, or took too long; with what it wrote.
    """
    seconds, peak_mb, code = watch(command, log=log, timeout_s=timeout_s)
    if code != 0:
        raise subprocess.CalledProcessError(code or -1, command, output=log.read_text(encoding="utf8"))
    return seconds, peak_mb


def _memory_mb(process: psutil.Process) -> float:
    """Memory of a process and all that it has started; what several share counts once, where the system tells."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                full = member.memory_full_info()
                total += getattr(full, "pss", full.uss)
    return total / 2**20


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
