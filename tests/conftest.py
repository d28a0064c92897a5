"""Fixtures that any test may ask for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the data that cannot be kept in the repository: cells, reference traces, recordings."""
    beside_checkout = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SIMSORT_SHARED", beside_checkout))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data: there is no folder {folder}; name it with SIMSORT_SHARED")
    return folder
