"""What the tests of replay share: where the recorded trajectories lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trajectories() -> Path:
    """The folder of recorded trajectories; tests that need it skip where it is absent."""
    data = Path(os.environ.get("AGENTBUDGET_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    folder = data / "trajectories"
    if not folder.is_dir():
        pytest.skip(f"no recorded trajectories in {folder}; set AGENTBUDGET_DATA")
    return folder
