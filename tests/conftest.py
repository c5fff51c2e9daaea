"""Fixtures shared by all tests, and the rule for data that only some machines have."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the tests run in parallel processes; more threads each would only fight over the cores

SHARED = Path(os.environ.get("DIFIX3D_SHARED", Path(__file__).parents[2] / "shared"))
WEIGHTS = Path(os.environ.get("DIFIX3D_WEIGHTS", SHARED / "weights"))


def require(path: Path) -> Path:
    """The path, if it exists; else the test is skipped, or fails where CI promises the data."""
    if path.exists():
        return path
    message = f"{path.name} is not on this machine: set DIFIX3D_SHARED to the folder that holds it"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared test data (real scenes, recorded outputs)."""
    return require(SHARED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
