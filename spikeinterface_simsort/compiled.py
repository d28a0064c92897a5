"""What compiles inner loops to machine code: once, kept on disk, and without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function of numbers and arrays when it is first called.

    Parameters
    ----------
    function : callable
        Of what numba knows.

    Returns
    -------
    callable
        Threads run it at the same time. Other processes load what was compiled, from the package's folder or, where
        that cannot be written, from the user's cache (``NUMBA_CACHE_DIR``); where neither can, each compiles anew.
    """
    machine_code: Any
    try:
        machine_code = numba.njit(function, cache=True, nogil=True)
    except RuntimeError:
        machine_code = numba.njit(function, nogil=True)
    return machine_code
