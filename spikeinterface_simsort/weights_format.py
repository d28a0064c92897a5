"""What a weights folder is: its files, its config, how it is verified and how it is replaced as a whole."""

from __future__ import annotations

import hashlib
import json
import math
import textwrap
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeinterface_simsort.folders import replacing
from spikeinterface_simsort.perceptrons import PeakPerceptron, WaveformPerceptron, build_perceptron

if TYPE_CHECKING:
    from torch import nn

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
NETWORK_FILES = {"detector": "detector.safetensors", "embedder": "embedder.safetensors"}
WEIGHTS_FILES = (CONFIG_FILE, *NETWORK_FILES.values(), CARD_FILE)

_POSITIVE_NUMBERS = {
    "detector": ("sampling_frequency", "threshold"),
    "embedder": ("sampling_frequency", "ms_before", "ms_after"),
}


class DefectError(Exception):
    """What is wrong with a weights folder; who opens it knows what to do about it."""


def open_folder(folder: Path, *, trainable: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and networks by role, verified; raises DefectError.

    Unless they are to be trainable, perceptrons come without torch.
    """
    data = _read(folder / CONFIG_FILE)
    try:
        config = json.loads(data)
    except ValueError as error:
        raise DefectError(f"{CONFIG_FILE} is not valid JSON: {error}.") from error
    _check_config(config)
    contents = {role: _read_verified(folder / name, config["sha256"][name]) for role, name in NETWORK_FILES.items()}
    networks = {}
    for role, data in contents.items():
        network = None if trainable else _load_perceptron(role, data, config[role])
        networks[role] = network or _load_network(role, data, config[role])
    _check_waveform_length(config["embedder"], networks["embedder"].num_samples)
    return config, networks


def fill_folder(folder: Path, *, networks: dict[str, nn.Module], config: dict[str, Any], card: str) -> None:
    """Write the files of a weights folder, the digests at the card's end, and verify that they can be read.

    Raises DefectError.
    """
    from safetensors.torch import save

    digests = {}
    for role, name in NETWORK_FILES.items():
        # Cloned, as networks may share memory between tensors, which safetensors refuses.
        state = {key: value.detach().cpu().contiguous().clone() for key, value in networks[role].state_dict().items()}
        data = save(state)
        (folder / name).write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    config = {"format_version": FORMAT_VERSION, **config, "sha256": digests}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    files = "\n".join(f"| {name} | {digest} |" for name, digest in digests.items())
    card = f"{card.rstrip()}\n\n## Files\n| | sha256 |\n| --- | --- |\n{files}\n"
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    open_folder(folder)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DefectError(f"{path.name} is missing.") from error
    except OSError as error:
        raise DefectError(f"{path.name} cannot be read: {error}.") from error


def _read_verified(path: Path, digest: str) -> bytes:
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise DefectError(f"{path.name} is corrupted: its sha256 is not that of {CONFIG_FILE}.")
    return data


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise DefectError(f"{CONFIG_FILE} {complaint}")


def _check_config(config: Any) -> None:
    _require(isinstance(config, dict), "is not an object.")
    version = config.get("format_version")
    _require(
        version == FORMAT_VERSION,
        f"has format_version {version!r}, and this version of the package reads {FORMAT_VERSION}: newer weights need "
        "a newer package.",
    )
    _require(isinstance(config.get("name"), str), "has no name.")
    digests = config.get("sha256")
    _require(isinstance(digests, dict) and digests.keys() >= {*NETWORK_FILES.values()}, "lacks the sha256 of a file.")
    for role, keys in _POSITIVE_NUMBERS.items():
        section = config.get(role)
        _require(isinstance(section, dict), f"does not describe the {role}.")
        _require(isinstance(section.get("architecture"), str), f"names no architecture of the {role}.")
        _require(isinstance(section.get("kwargs"), dict), f"has no kwargs of the {role}.")
        for key in keys:
            _require(_is_positive_number(section.get(key)), f"gives no positive {key} of the {role}.")


def _check_waveform_length(section: dict[str, Any], num_samples: int) -> None:
    # A recurrent network would read a waveform of any length, so nothing else would notice.
    described = (section["ms_before"] + section["ms_after"]) * section["sampling_frequency"] / 1000.0
    complaint = f"describes waveforms of {described:g} samples, but the embedder reads {num_samples}."
    _require(abs(described - num_samples) < 1.0, complaint)


def _is_positive_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _load_perceptron(role: str, data: bytes, section: dict[str, Any]) -> PeakPerceptron | WaveformPerceptron | None:
    """The network, if it is one that needs no torch; what is wrong with it, torch tells better."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except (SafetensorError, KeyError):
        return None
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        return None
    return build_perceptron(role, architecture=section["architecture"], kwargs=section["kwargs"], tensors=tensors)


def _load_network(role: str, data: bytes, section: dict[str, Any]) -> Any:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    name = NETWORK_FILES[role]
    network = _build(role, architecture=section["architecture"], kwargs=section["kwargs"])
    try:
        network.load_state_dict(load(data))
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise DefectError(f"{name} does not fit the {role} of {CONFIG_FILE}: {one_line(error)}") from error
    not_finite = [key for key, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if not_finite:
        raise DefectError(f"{name} holds values that are not finite, in {', '.join(not_finite)}.")
    return network.eval()


def _build(role: str, *, architecture: str, kwargs: dict[str, Any]) -> nn.Module:
    import torch

    from spikeinterface_simsort.models import build_detector, build_embedder

    build = {"detector": build_detector, "embedder": build_embedder}[role]
    try:
        # The random initialisation, overwritten at once, must not advance the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            return build(architecture=architecture, **kwargs)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise DefectError(f"the {role} of {CONFIG_FILE} cannot be built: {one_line(error)}") from error


@contextmanager
def replacing_folder(folder: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder that takes the place of `folder` when the block succeeds, and vanishes when it fails.

    Another folder than one of weights is never replaced, and one of weights only with `overwrite`; raises DefectError.
    """
    folder = Path(folder).expanduser().resolve()
    check_replaceable(folder, overwrite=overwrite)
    staging = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}-new")
    with replacing(folder, staging=staging):
        yield staging


def check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """Refuse another folder than one of weights, and without `overwrite` one that is not empty; raises DefectError."""
    if not folder.exists():
        return
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - {*WEIGHTS_FILES}:
        raise DefectError(f"{folder} exists and is not a weights folder: choose another place.")
    if not overwrite and any(folder.iterdir()):
        raise DefectError(f"{folder} exists: pass overwrite=True (--overwrite) or choose another place.")


def one_line(error: Exception) -> str:
    """Kind and message of an error, shortened to part of a sentence."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", width=300, placeholder=" ...").rstrip(".") + "."
