"""A tiny Difix with random weights, the recorded one, and smooth random images."""

import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from difix3d.difix import DifixPipeline
from difix3d.difix.architecture import random_difix
from difix3d.images import to_uint8


@pytest.fixture(scope="session")
def tiny() -> DifixPipeline:
    return random_difix()


@pytest.fixture(scope="session")
def exact() -> DifixPipeline:
    """The same in fp64: random weights amplify rounding errors, which would hide in fp32 what is to be compared."""
    return random_difix(dtype=torch.float64)


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    return shared / "golden"


@pytest.fixture(scope="session")
def recorded(golden: Path) -> DifixPipeline:
    """The recorded tiny model, from its folder in the published layout."""
    return DifixPipeline.from_pretrained(golden / "tiny_difix_ref")


def smooth(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random images [..., H, W] in 0..1 without sharp edges."""
    small = torch.rand(math.prod(shape[:-2]), 1, 5, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(small, shape[-2:], mode="bicubic").clamp(0, 1).reshape(shape)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(to_uint8(smooth(3, height, width, seed=seed).permute(1, 2, 0)))


@pytest.fixture(scope="session")
def pictures() -> SimpleNamespace:
    """``smooth(B, 3, H, W)`` for tensors and ``photo(width, height)`` for PIL images, both with ``seed=``."""
    return SimpleNamespace(smooth=smooth, photo=photo)


@pytest.fixture
def link_tree(tmp_path: Path):
    """A copy of a folder whose files are links, so that a test can replace single files of it."""

    def copy(source: Path, name: str = "copy") -> Path:
        for path in source.rglob("*"):
            if path.is_file():
                target = tmp_path / name / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.symlink(path, target)
        return tmp_path / name

    return copy
