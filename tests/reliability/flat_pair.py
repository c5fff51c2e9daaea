"""A run with its evaluation, rows and rounds, as training and ``difix3d evaluate`` leave it."""

import json
from pathlib import Path

import torch
from small_run import write_run


def write_evaluated_run(folder: Path, scene) -> Path:
    from difix3d.evaluate import Pictures, RunEvaluation, draw, measure, write_evaluation
    from difix3d.scene import Views
    from difix3d.training.load import load_run
    from difix3d.types import Render

    path = write_run(folder, scene, steps=(10,))
    loaded = load_run(path).scene
    chosen = [Views(loaded)[int(i)] for i in loaded.test]
    variants = []
    for name, grey in (("3DGS", 0.3), ("Difix3D", 0.5)):
        variants.append(Pictures(name, path, f"evaluation/{name}", against="3DGS" if variants else None))
        flat = torch.full((1, 40, 48, 3), grey)
        draw(lambda camera, rgb=flat: Render(rgb, rgb[..., :1]), chosen, variants[-1])
    measured, _ = measure(("psnr", "ssim"), variants, chosen)
    fixed = {"psnr": 30.0, "contrast": 1.0, "count": 3.0}
    write_evaluation(path, RunEvaluation("a", "test", 10, 0, "cpu", "mini", "photo", measured, {"fid": "few"}, fixed))
    draw(lambda camera: Render(flat, flat[..., :1]), chosen, Pictures("", path, "eval/step_000010/renders"))
    row = {"step": 5, "gaussians": 300, "plus": False, "split": "test", "psnr": 20.0}
    rows = [row | {"images": [{"name": view.name, "psnr": 20.0, "seconds": 0.1} for view in chosen]}]
    rows.append(rows[0] | {"step": 10, "psnr": 25.0})
    (path / "metrics.json").write_text(json.dumps(rows))
    row = {"step": 3, "decision": "keep", "gain": 0.2, "weight": 0.3, "held_out": ["00.png"], "psnr_without": [30.0]}
    row |= {"trials": [{"weight": 0.3, "psnr": [30.2]}], "confidence": [0.5], "references": [[1]]}
    row |= {"cameras": loaded.cameras.c2w[loaded.test[:1]].tolist(), "seconds": {"fix": 1.0, "judge": 0.5}}
    (path / "rounds.json").write_text(json.dumps([row]))
    return path
