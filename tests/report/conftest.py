"""Runs to report on."""

import json

import numpy as np
import pytest
import torch
from flat_run import GREEN, RED, round_row
from small_run import write_run

from difix3d.evaluate import Pictures, RunEvaluation, draw, measure
from difix3d.images import write_image
from difix3d.scene import Views
from difix3d.training.load import load_run
from difix3d.training.run import RunFolder
from difix3d.types import Render


@pytest.fixture
def make(tmp_path, toy_scene):
    """A run's folder, with red pictures of plain 3DGS and green ones of Difix3D if it is ``distilled``."""

    def make(distilled=True, scene=toy_scene, **changes):
        path = write_run(tmp_path, scene, **changes)
        run = RunFolder(path, load_run(path).scene)
        split = "test" if len(run.scene.test) else "train"
        views = Views(run.scene)
        variants = []
        for name, color in (("3DGS", RED), ("Difix3D", GREEN))[: 1 + distilled]:
            variants.append(Pictures(name, path, f"evaluation/{name}", against="3DGS" if variants else None))
            flat = (torch.tensor(color) / 255).expand(1, 40, 48, 3)
            chosen = [views[int(i)] for i in getattr(run.scene, split)]
            draw(lambda camera, rgb=flat: Render(rgb, rgb[..., :1]), chosen, variants[-1])
        measured, _ = measure(("psnr", "ssim"), variants, chosen)
        if distilled:
            poses = run.scene.cameras.c2w[run.scene.test].tolist()
            rows = [
                round_row(poses, 3, "keep", 0.2),
                round_row(poses, 6, "roll back", -0.4),
                round_row(poses, 8, "refuse", None),
            ]
            (path / "rounds.json").write_text(json.dumps(rows))
            write_image(path / "rounds" / "step_000003" / "sheet.png", np.full((60, 80, 3), 99, np.uint8))
        return run, RunEvaluation("scene", split, 10, 0, "cpu", "none", "photo", measured, {"fid": "no <weights>"})

    return make
