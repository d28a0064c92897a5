"""Where and how much the computer works: devices and jobs."""

from __future__ import annotations

import ctypes
import multiprocessing
import platform
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, get_global_job_kwargs
from spikeinterface.core.job_tools import fix_job_kwargs
from spikeinterface.core.node_pipeline import PipelineNode, run_node_pipeline
from threadpoolctl import threadpool_limits

from spikeinterface_simsort.cores import default_num_jobs
from spikeinterface_simsort.params import ParameterError

# Long chunks spend little on their margins; 10 s of a tetrode are 5 MB.
_CHUNK_DURATION = "10s"
_CHUNK_KEYS = ("chunk_size", "chunk_memory", "total_memory", "chunk_duration")


def choose_device(device: str) -> str:
    """Turn 'auto' into the best device there is, and refuse what is not there.

    Parameters
    ----------
    device : str
        'auto', or what torch understands.

    Returns
    -------
    str
        A device of torch.

    Raises
    ------
    ParameterError
        There is no such device.
    """
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(f"There is no device {device!r} here; use device='auto' or 'cpu'.") from error
    return device


def _may_have_gpu() -> bool:
    """Whether it is worth a second or two to ask torch: there is a driver, or this is a Mac with a GPU of its own."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def limit_threads_in_workers() -> None:
    """Let matrix products use one thread where this process is somebody's worker.

    Its siblings use the other cores; and a forked process that asks for threads which its parent had waits forever.
    """
    if multiprocessing.parent_process() is not None:
        threadpool_limits(1)
        _limit_torch(1)


def job_arguments(job_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Complete SpikeInterface's job arguments: the user's, then the global ones.

    Three defaults differ: threads instead of processes, one for each core (up to 8) where the global setting is the
    usual 1, and chunks of 10 s where it is the usual 1 s.

    Parameters
    ----------
    job_kwargs : dict
        Given by the user.

    Returns
    -------
    dict
        For `run_node_pipeline`.

    Raises
    ------
    ParameterError
        An argument is not known.
    """
    defaults: dict[str, Any] = {}
    if get_global_job_kwargs().get("chunk_duration") == "1s" and not any(key in job_kwargs for key in _CHUNK_KEYS):
        defaults["chunk_duration"] = _CHUNK_DURATION
    if get_global_job_kwargs().get("n_jobs") == 1 and "n_jobs" not in job_kwargs:
        # Whose siblings use the other cores has one.
        is_worker = multiprocessing.parent_process() is not None
        defaults["n_jobs"] = 1 if is_worker else default_num_jobs()
    if "pool_engine" not in job_kwargs:
        # The networks compute outside the interpreter's lock, and forked processes cannot share torch's threads.
        defaults["pool_engine"] = "thread"
    try:
        return fix_job_kwargs({**defaults, **job_kwargs})
    except AssertionError as error:
        raise ParameterError(f"job_kwargs: {error}") from error


def run_nodes(recording: BaseRecording, nodes: list[PipelineNode], *, job_kwargs: dict[str, Any], job_name: str) -> Any:
    """Run nodes over a recording, chunk by chunk, on all cores that they may use.

    Parameters
    ----------
    recording : BaseRecording
        Preprocessed.
    nodes : list of PipelineNode
        Each has the ones before as parents.
    job_kwargs : dict
        Given by the user.
    job_name : str
        Of the progress bar.

    Returns
    -------
    np.ndarray or tuple of np.ndarray
        What the nodes put out, see SpikeInterface's `run_node_pipeline`.

    Raises
    ------
    ParameterError
        An argument is not known.
    """
    arguments = job_arguments(job_kwargs)
    with one_thread_each(arguments["n_jobs"]):
        return run_node_pipeline(recording, nodes, arguments, job_name=job_name)


def run_nodes_to_disk(
    recording: BaseRecording,
    nodes: list[PipelineNode],
    *,
    job_kwargs: dict[str, Any],
    job_name: str,
    names: Sequence[str],
) -> tuple[np.ndarray, ...]:
    """Do the same with outputs that are too many for memory.

    Parameters
    ----------
    recording, nodes, job_kwargs, job_name
        See `run_nodes`.
    names : sequence of str
        Of the outputs, two or more.

    Returns
    -------
    tuple of np.ndarray
        Read-only, mapped from temporary files that have no name any more and go with the arrays.
    """
    arguments = job_arguments(job_kwargs)
    with tempfile.TemporaryDirectory(prefix="simsort_") as folder, one_thread_each(arguments["n_jobs"]):
        # SpikeInterface 0.104 has another word for it.
        destination = "dest" if "dest" in signature(run_node_pipeline).parameters else "folder"
        where: dict[str, Any] = {destination: Path(folder) / "outputs", "names": list(names)}
        outputs = run_node_pipeline(recording, nodes, arguments, job_name=job_name, gather_mode="npy", **where)
        return tuple(map(np.asarray, outputs))


@contextmanager
def one_thread_each(num_jobs: int) -> Generator[None, None, None]:
    """Keep several jobs from asking for all cores each, for matrix products, while they run.

    Parameters
    ----------
    num_jobs : int
        If it is only one, it uses as many threads as before.
    """
    if num_jobs == 1:
        yield
        return
    before = _limit_torch(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        _limit_torch(before)


def _limit_torch(num_threads: int | None) -> int | None:
    """Set torch's threads, which no other library can limit, and return their number before, if torch is loaded."""
    torch = sys.modules.get("torch")
    if torch is None or num_threads is None:
        return None
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    return before
