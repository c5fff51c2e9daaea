"""Data that only some machines have: real scenes, recorded outputs."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("DIFIX3D_SHARED", Path(__file__).parents[2] / "shared"))


def require(path: Path) -> Path:
    """The path, if it exists; else the test is skipped, or fails where CI promises the data."""
    if path.exists():
        return path
    message = f"{path.name} is not on this machine: set DIFIX3D_SHARED to the folder that holds it"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
