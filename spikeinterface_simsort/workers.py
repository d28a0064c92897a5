"""Processes that each work on one job at a time, and of which one that dies takes no other job with it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

# Each computes with one thread, as its siblings use the other cores.
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
_WATCH_S = 1.0


class WorkerDiedError(RuntimeError):
    """A process was killed before its job was done."""


def map_in_workers(
    function: Callable[[Job], Result], jobs: Iterable[Job], *, num_workers: int
) -> Generator[tuple[Job, Result | BaseException], None, None]:
    """Call a function for each job in processes, and give what it returned or raised as soon as it is there.

    SpikeInterface's engines are not used for this, as a job that fails or a process that dies ends their whole run.

    Parameters
    ----------
    function : callable
        Of one job; known by its module and name to the processes, which start fresh.
    jobs : iterable
        Each is pickled.
    num_workers : int
        Processes, each of which works on one job at a time with one thread.

    Yields
    ------
    job
        One of `jobs`, in the order in which they are done.
    answer
        What `function` returned, or the exception that it raised; a WorkerDiedError where its process died.
    """
    waiting = iter(jobs)
    idle = [_worker() for _ in range(num_workers)]
    running: dict[Future[Result], tuple[Job, Any]] = {}
    try:
        while True:
            while idle and (job := next(waiting, None)) is not None:
                worker = idle.pop()
                running[worker.submit(function, job)] = job, worker
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, worker = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    worker.shutdown(wait=False)
                    idle.append(_worker())
                    yield job, WorkerDiedError("Its process was killed, perhaps for want of memory.")
                else:
                    idle.append(worker)
                    yield job, error if error is not None else future.result()
    finally:
        for worker in [*idle, *(worker for _, worker in running.values())]:
            worker.shutdown(kill_workers=True)


def _worker() -> Any:
    """A process that starts with its first job.

    Loky's need no ``if __name__ == "__main__"`` in the script that asks for them, and share no threads of torch.
    """
    from loky import ProcessPoolExecutor

    return ProcessPoolExecutor(max_workers=1, initializer=_begin, initargs=(os.getpid(),), env=_ENVIRONMENT)


def _begin(parent: int) -> None:
    """Leave interrupts to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
