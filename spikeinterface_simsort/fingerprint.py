"""What tells one run of the sorter from another: the recording, the parameters, the networks, the version."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeinterface_simsort._version import __version__
from spikeinterface_simsort.params import SimSortParams

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording

# Where and with how many processes a run works does not change what it finds, but for rounding.
_NOT_OF_THE_RESULT = ("device", "job_kwargs")
# So many samples at so many places, evenly spread: read in a moment, and no two recordings agree in all.
_NUM_PLACES, _NUM_SAMPLES = 32, 1000


def describe_run(recording: BaseRecording, *, params: SimSortParams, weights: dict[str, Any]) -> dict[str, Any]:
    """Describe a run by all that its result depends on.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces.
    params : SimSortParams
        Of the sorter, resolved or not.
    weights : dict
        Contents of the weights' config.json.

    Returns
    -------
    dict
        Goes through JSON unchanged.
    """
    values = asdict(params.resolve())
    groups = recording.get_property("group")
    return {
        "version": __version__,
        "recording": {
            "sampling_frequency": float(recording.get_sampling_frequency()),
            "num_samples": [recording.get_num_samples(segment) for segment in range(recording.get_num_segments())],
            "channel_ids": [str(channel) for channel in recording.channel_ids],
            "groups": None if groups is None else [str(group) for group in groups],
            "samples_sha256": _digest_samples(recording),
        },
        # What the weights are is told by their sha256, not by the name of a folder.
        "parameters": {name: values[name] for name in values if name not in (*_NOT_OF_THE_RESULT, "weights")},
        "weights_sha256": dict(weights["sha256"]),
    }


def name_differences(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say in what two runs differ.

    Parameters
    ----------
    earlier, now : dict
        Of `describe_run`.

    Returns
    -------
    list of str
        For example "the recording (num_samples)" or "min_spikes (20, now 30)"; empty for the same run.
    """
    differences = []
    if earlier.get("version") != now["version"]:
        differences.append(f"the version of simsort ({earlier.get('version')}, now {now['version']})")
    before, after = earlier.get("recording", {}), now["recording"]
    changed = [name for name in after if before.get(name) != after[name]]
    if changed:
        differences.append(f"the recording ({', '.join(changed)})")
    before, after = earlier.get("parameters", {}), now["parameters"]
    differences += [
        f"{name} ({before.get(name)}, now {after[name]})" for name in after if before.get(name) != after[name]
    ]
    if earlier.get("weights_sha256") != now["weights_sha256"]:
        differences.append("the weights")
    return differences


def _digest_samples(recording: BaseRecording) -> str:
    """sha256 of the recording's type and of samples at places that depend on its length only."""
    lengths = np.array([recording.get_num_samples(segment) for segment in range(recording.get_num_segments())])
    starts = np.cumsum(lengths) - lengths
    digest = hashlib.sha256(str(recording.get_dtype()).encode())
    for place in np.linspace(0, lengths.sum() - 1, _NUM_PLACES).astype("int64"):
        segment = int(np.searchsorted(starts, place, side="right")) - 1
        first = int(place - starts[segment])
        last = min(first + _NUM_SAMPLES, int(lengths[segment]))
        digest.update(np.ascontiguousarray(recording.get_traces(segment, first, last)).tobytes())
    return digest.hexdigest()
