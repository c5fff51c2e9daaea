"""A training on real photos: slow in the small, but what all of it is for."""

import json
from dataclasses import replace

import pytest

from difix3d.scene import load_scene
from difix3d.training import Trainer


@pytest.mark.real
@pytest.mark.slow
def test_fox_in_four_hundred_steps(shared, config):
    """Far above what a blur of the right colours gets (about 16 dB), and far from converged."""
    scene = load_scene(shared / "scenes" / "fox", split="interpolation", resolution=160)
    config = replace(config, max_steps=400, densify=replace(config.densify, start=100, every=50, reset_every=0))
    Trainer(config, scene).train()
    result = json.loads((config.output_dir / "metrics.json").read_text())[-1]
    assert len(result["images"]) == 7
    assert result["psnr"] > 23
    assert result["ssim"] > 0.8
