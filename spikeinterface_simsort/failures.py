"""What SpikeInterface tells of a failed run, brought back to the error's own words."""

from __future__ import annotations

import re

# The message says all; of any other error, the trace is wanted too.
_EXPECTED_ERRORS = (
    "FileNotFoundError",
    "OSError",
    "ParameterError",
    "PermissionError",
    "RecordingError",
    "WeightsError",
    "WorkerDiedError",
)
_TRACE_END = re.compile(r"^([A-Za-z_][\w.]*)(?:: (.*))?$")


def explain_failure(error: BaseException) -> tuple[str, bool]:
    """Tell why a run of the sorter failed.

    Parameters
    ----------
    error : BaseException
        What SpikeInterface raised: its SpikeSortingError quotes the sorter's traceback.

    Returns
    -------
    message : str
        In one line; with the kind of error where nobody foresaw it.
    expected : bool
        Whether the message says all.
    """
    name, message = read_trace(str(error)) if _quotes_trace(error) else (type(error).__name__, _one_line(str(error)))
    if name in _EXPECTED_ERRORS or isinstance(error, OSError):
        return message, True
    return f"{name}: {message}", False


def read_trace(text: str) -> tuple[str, str]:
    """Find the error's name and message in what SpikeInterface tells of a failed run.

    Parameters
    ----------
    text : str
        Message of a SpikeSortingError, which quotes the traceback.

    Returns
    -------
    name : str
        Of the error's class, without its module.
    message : str
        In one line.
    """
    trace = text.partition("Spike sorting error trace:\n")[2].rpartition("Spike sorting failed.")[0] or text
    lines = trace.strip().splitlines()
    for index in reversed(range(len(lines))):
        end = _TRACE_END.match(lines[index])
        if end:
            return end[1].rpartition(".")[2], _one_line(" ".join([end[2] or "", *lines[index + 1 :]]))
    return "SpikeSortingError", _one_line(trace)


def _quotes_trace(error: BaseException) -> bool:
    return type(error).__name__ == "SpikeSortingError"


def _one_line(text: str) -> str:
    return " ".join(text.split())
