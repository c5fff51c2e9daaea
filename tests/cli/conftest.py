"""Runs to evaluate, and a fixer for them."""

import json
import shutil

import pytest
from evaluating import change
from small_run import write_run

from difix3d.gaussians import load_checkpoint, save_checkpoint
from difix3d.training.load import load_run


@pytest.fixture
def run(tmp_path, toy_scene):
    """A model that is a little too dark."""
    run = write_run(tmp_path, toy_scene)
    change(run, lambda tensors: tensors["gaussians.sh0"].sub_(0.1))
    return run


@pytest.fixture
def distilled(run):
    """The same with two rounds behind it, and plain 3DGS (half of the points) beside it."""
    scene = load_run(run).scene
    row = {
        "step": 3,
        "decision": "keep",
        "gain": 0.1,
        "weight": 0.3,
        "held_out": ["00.png"],
        "psnr_without": [30.0],
        "trials": [{"weight": 0.3, "psnr": [30.1]}],
        "confidence": [0.5, 1.0, 0.75],
        "references": ["00.png"],
        "cameras": scene.cameras.c2w[scene.test].tolist(),
        "seconds": {"fix": 1.0},
    }
    refused = row | {"step": 6, "decision": "refuse", "gain": None, "weight": 0.0, "psnr_without": [], "trials": []}
    (run / "rounds.json").write_text(json.dumps([row, refused]))
    shutil.copytree(run, run / "plain", ignore=shutil.ignore_patterns("rounds.json"))
    _, tensors, extra = load_checkpoint(run / "checkpoints" / "step_0000005.safetensors")
    save_checkpoint(run / "plain" / "checkpoints", 10, tensors, extra, keep=0)
    return run


@pytest.fixture
def fixer(monkeypatch):
    """Makes everything a bit brighter."""

    def brighter(degraded):
        for item in degraded:
            yield (item.rgb + 0.1).clamp(0, 1)

    class Loader:
        def __call__(self, name, device, references=1, *, anchor_colors=True):
            return None if name == "none" else self.fixer

    class Fixer:
        offload = True

        def __call__(self, degraded):
            return brighter(degraded)

    loader = Loader()
    loader.fixer = Fixer()
    monkeypatch.setattr("difix3d.training.variants.load_fixer", loader)
    return loader.fixer
