"""Weights of the networks: bundled with the package, in a folder, or on the HuggingFace hub.

A weights folder holds config.json, a safetensors file for each network and README.md, its model card.
Torch and huggingface_hub are imported where they are used, so that the command line answers at once.
"""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeinterface_simsort.hub import HubAddressError, is_repo_id, parse_hub_address
from spikeinterface_simsort.weights_format import (
    CARD_FILE,
    NETWORK_FILES,
    WEIGHTS_FILES,
    DefectError,
    fill_folder,
    one_line,
    open_folder,
    replacing_folder,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

_BUNDLED_FOLDER = Path(__file__).parent / "assets" / "weights"


class WeightsError(RuntimeError):
    """Weights cannot be found, read, saved or exchanged; the message says why, and what to do."""


@dataclass(frozen=True)
class Weights:
    """Networks ready for inference, and where they come from.

    Attributes
    ----------
    detector, embedder : torch.nn.Module, or PeakPerceptron and WaveformPerceptron
        In evaluation mode, on the device asked for.
    config : dict
        Contents of config.json.
    source : str
        What was asked for: "bundled", a folder or ``hf://owner/name@revision``.
    folder : Path
        Where the files lie.
    """

    # Of what class they are is told by the one who asks for them.
    detector: Any
    embedder: Any
    config: dict[str, Any]
    source: str
    folder: Path


def resolve_weights(weights: str | Path = "bundled", *, allow_download: bool = True) -> Path:
    """Find the folder of some weights, downloading it where it is not cached.

    Parameters
    ----------
    weights : str or Path
        "bundled", a folder, or ``hf://owner/name@revision`` where the revision is a commit or a tag,
        which is taken not to move: what is cached is used without asking the hub.
        The hub's own environment variables hold: HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN.
    allow_download : bool
        If False, only what is already in the hub's cache is used.

    Returns
    -------
    Path
        A folder; `load_weights` checks what lies in it.

    Raises
    ------
    WeightsError
        There is no such folder, the address is malformed or not pinned, or the download failed.
    """
    if _is_hub_address(weights):
        address = str(weights)
        return _find_cached(address) or _download(address, local_files_only=not allow_download)
    folder = _BUNDLED_FOLDER if weights == "bundled" else Path(weights).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"There is no weights folder {folder}. {_remedy(str(weights), folder)}")
    return folder


def load_weights(
    weights: str | Path = "bundled", *, device: str | torch.device = "cpu", trainable: bool = True
) -> Weights:
    """Load the networks, verified: nothing is deserialised before its sha256 agrees with config.json.

    Parameters
    ----------
    weights : str or Path
        As for `resolve_weights`.
    device : str or torch.device
        Where the networks go.
    trainable : bool
        If False, networks that NumPy can run on a CPU come without torch, which takes a second or two to load.

    Returns
    -------
    Weights

    Raises
    ------
    WeightsError
        As for `resolve_weights`, or a file is missing, corrupted, not described by config.json, or
        holds values that are not finite.
    """
    folder = resolve_weights(weights)
    try:
        config, networks = open_folder(folder, trainable=trainable or str(device) != "cpu")
    except DefectError as defect:
        message = f"The weights {str(weights)!r} cannot be used: {defect} {_remedy(str(weights), folder)}"
        raise WeightsError(message) from defect
    if str(device) != "cpu":
        networks = {role: network.to(device) for role, network in networks.items()}
    return Weights(**networks, config=config, source=str(weights), folder=folder)


def save_weights(
    folder: str | Path,
    *,
    detector: nn.Module,
    embedder: nn.Module,
    config: dict[str, Any],
    card: str,
    overwrite: bool = False,
) -> Path:
    """Save a weights folder, whole or not at all.

    Parameters
    ----------
    folder : str or Path
        Where to.
    detector, embedder : torch.nn.Module
        The networks, which `config` must describe.
    config : dict
        Contents of config.json but for "format_version" and "sha256", which are filled in.
    card : str
        The model card: Markdown with the hub's front matter.
    overwrite : bool
        Replace a weights folder that exists. Any other folder is left alone.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    WeightsError
        The folder exists, or what would be saved could not be loaded again.
    """
    folder = Path(folder).expanduser()
    networks = {"detector": detector, "embedder": embedder}
    try:
        with replacing_folder(folder, overwrite=overwrite) as staging:
            fill_folder(staging, networks=networks, config=config, card=card)
    except DefectError as defect:
        raise WeightsError(f"Nothing was saved to {folder}: {defect}") from defect
    return folder


def pull_weights(source: str | Path, *, folder: str | Path | None = None, overwrite: bool = False) -> Path:
    """Fetch weights, verify that they load, and copy them to a folder where one is given.

    Parameters
    ----------
    source : str or Path
        As for `resolve_weights`. What is corrupted in the cache is downloaded again.
    folder : str or Path, optional
        Where a copy goes.
    overwrite : bool
        Replace a weights folder that exists.

    Returns
    -------
    Path
        `folder`, or the place in the hub's cache.

    Raises
    ------
    WeightsError
        As for `load_weights`, or the folder exists.
    """
    try:
        cached = load_weights(source).folder
    except WeightsError as error:
        if not (_is_hub_address(source) and isinstance(error.__cause__, DefectError)):
            raise
        logger.warning("%s Downloading them again.", error)
        _download(str(source), force_download=True)
        cached = load_weights(source).folder
    if folder is None:
        return cached
    folder = Path(folder).expanduser()
    try:
        with replacing_folder(folder, overwrite=overwrite) as staging:
            for name in WEIGHTS_FILES:
                if (cached / name).exists():
                    shutil.copyfile(cached / name, staging / name)
    except DefectError as defect:
        raise WeightsError(f"Nothing was copied to {folder}: {defect}") from defect
    return folder


def push_weights(
    folder: str | Path, *, repo_id: str, revision: str = "main", token: str | None = None, private: bool = False
) -> str:
    """Publish a weights folder on the hub, in one commit, after verifying that it loads.

    Parameters
    ----------
    folder : str or Path
        A weights folder with its model card.
    repo_id : str
        ``owner/name``; made where it does not exist.
    revision : str
        The branch to commit to; made where it does not exist.
    token : str, optional
        Of the hub; by default that of ``hf auth login`` or HF_TOKEN.
    private : bool
        Whether a new repository is private.

    Returns
    -------
    str
        ``hf://owner/name@commit``, which loads just these weights.

    Raises
    ------
    WeightsError
        The weights cannot be loaded, have no card, or the hub refused them.
    """
    if not is_repo_id(repo_id):
        raise WeightsError(f"{repo_id!r} is not a repository of the hub: write it as owner/name.")
    weights = load_weights(Path(folder))
    if not (weights.folder / CARD_FILE).is_file():
        raise WeightsError(f"There is no model card in {weights.folder}: write a {CARD_FILE} before publishing.")
    from huggingface_hub import CommitOperationAdd, HfApi

    additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=weights.folder / name) for name in WEIGHTS_FILES]
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision != "main":
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        # Not upload_folder, which may spread the files over several commits.
        message = f"Weights {weights.config['name']}"
        commit = api.create_commit(repo_id, operations=additions, commit_message=message, revision=revision)
    except Exception as error:  # Which classes come depends on the hub's version and on its HTTP library's.
        advice = "Check the network, and log in with `hf auth login` as someone who may write there."
        raise WeightsError(f"Could not publish to {repo_id}: {one_line(error)} {advice}") from error
    return f"hf://{repo_id}@{commit.oid}"


def describe_weights(weights: str | Path | Weights = "bundled") -> str:
    """Describe weights in some lines: name, source, networks, rates, sizes, sha256 and the head of the card.

    Parameters
    ----------
    weights : str, Path or Weights
        As for `load_weights`, or already loaded.

    Returns
    -------
    str

    Raises
    ------
    WeightsError
        As for `load_weights`.
    """
    loaded = weights if isinstance(weights, Weights) else load_weights(weights)
    megabytes = sum((loaded.folder / name).stat().st_size for name in NETWORK_FILES.values()) / 1e6
    lines = [f"{loaded.config['name']}: {loaded.source}", f"  {loaded.folder}, {megabytes:.1f} MB"]
    for role, network in (("detector", loaded.detector), ("embedder", loaded.embedder)):
        section, digest = loaded.config[role], loaded.config["sha256"][NETWORK_FILES[role]]
        num_parameters = sum(parameter.numel() for parameter in network.parameters())
        rate = f"{section['sampling_frequency']:g} Hz"
        lines += [f"  {role}: {section['architecture']}, {num_parameters:,} parameters, {rate}", f"    sha256 {digest}"]
    return "\n".join([*lines, *_card_head(loaded.folder / CARD_FILE)])


def _is_hub_address(weights: str | Path) -> bool:
    return isinstance(weights, str) and weights.startswith("hf://")


def _parse_hub_address(address: str) -> tuple[str, str]:
    try:
        return parse_hub_address(address, what="weights")
    except HubAddressError as error:
        raise WeightsError(str(error)) from error


def _find_cached(address: str) -> Path | None:
    repo_id, revision = _parse_hub_address(address)
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(repo_id, name, revision=revision) for name in WEIGHTS_FILES]
    return Path(str(paths[0])).parent if all(isinstance(path, str) for path in paths) else None


def _download(address: str, **kwargs: Any) -> Path:
    repo_id, revision = _parse_hub_address(address)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(WEIGHTS_FILES), **kwargs))
    except Exception as error:  # Which classes come depends on the hub's version and on its HTTP library's.
        advice = (
            "Check the address, the network and HF_ENDPOINT, log in with `hf auth login` if the repository is private, "
            f"or run `simsort weights pull {address}` where there is a network and set HF_HUB_OFFLINE=1 here to use "
            "the cached snapshot (HF_HOME)."
        )
        raise WeightsError(f"Could not get {address}: {one_line(error)} {advice}") from error
    logger.info("Got %s, commit %s.", address, folder.name)
    return folder


def _remedy(source: str, folder: Path) -> str:
    if source == "bundled":
        return "Reinstall the package: pip install --force-reinstall --no-deps spikeinterface-simsort."
    if _is_hub_address(source):
        return f"Run `simsort weights pull {source}`; where that does not help, delete {folder.parents[1]} first."
    return (
        'Use "bundled", hf://owner/name@revision or another folder, or fetch weights into this one with '
        f"`simsort weights pull hf://owner/name@revision --output {folder} --overwrite`."
    )


def _card_head(path: Path, num_lines: int = 8) -> list[str]:
    """First lines of a model card, after the hub's front matter."""
    if not path.is_file():
        return []
    card = path.read_text(encoding="utf-8", errors="replace")
    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    return ["", *body.strip().splitlines()[:num_lines]]
