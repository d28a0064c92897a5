"""Addresses on the HuggingFace hub, which name a revision that does not move."""

from __future__ import annotations

import re

_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MOVING_REVISIONS = {"main", "master", "head"}


class HubAddressError(ValueError):
    """What should be an address on the hub is none, or is not pinned."""


def is_repo_id(text: str) -> bool:
    """Tell whether a text is the name of a repository, ``owner/name``."""
    return _REPO_ID.fullmatch(text) is not None


def parse_hub_address(address: str, *, what: str) -> tuple[str, str]:
    """Split an address into repository and revision.

    Parameters
    ----------
    address : str
        ``hf://owner/name@revision``, where the revision is a commit or a tag.
    what : str
        What lies there, for the message.

    Returns
    -------
    repo_id : str
        ``owner/name``.
    revision : str

    Raises
    ------
    HubAddressError
        The address is malformed, or its revision may move.
    """
    repo_id, _, revision = address.removeprefix("hf://").partition("@")
    if not address.startswith("hf://") or not is_repo_id(repo_id):
        raise HubAddressError(f"{address!r} is not an address of {what}: write it as hf://owner/name@revision.")
    if not _REVISION.fullmatch(revision) or revision.lower() in _MOVING_REVISIONS:
        example = f"hf://{repo_id}@<commit or tag>"
        raise HubAddressError(f"{address!r} may change from one day to the next: pin a revision, as in {example}.")
    return repo_id, revision
