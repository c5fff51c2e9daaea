"""A run as training leaves it in its folder, without the training; and its scene's folder alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np


def write_scene(folder: Path, scene) -> Path:
    """Writes ``transforms.json`` and links to the photos; every 4th of twelve is to be held out (``every:4``)."""
    images = folder / "images"
    images.mkdir(parents=True)
    frames = []
    for photo, camera in zip(scene.photos, map(scene.cameras.__getitem__, range(len(scene.photos))), strict=True):
        (images / photo.name).symlink_to(photo.path)
        c2w, K = camera.c2w[0].double().numpy() @ np.diag([1.0, -1, -1, 1]), camera.K[0]
        intrinsics = {"fl_x": float(K[0, 0]), "fl_y": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
        frames.append({"file_path": f"images/{photo.name}", "transform_matrix": c2w.tolist(), **intrinsics})
    (folder / "transforms.json").write_text(json.dumps({"frames": frames}))
    return folder


def write_run(folder: Path, scene, *, steps=(5, 10), **changes) -> Path:
    """Writes ``folder/scene`` and ``folder/run``; returns the latter.

    The model is as the scene's points; that of the first step has only half of them.
    """
    from difix3d.gaussians import from_points
    from difix3d.gaussians.checkpoint import flatten
    from difix3d.scene import load_scene
    from difix3d.training import TrainConfig
    from difix3d.training.run import RunFolder

    write_scene(folder / "scene", scene)
    config = replace(TrainConfig(scene=str(folder / "scene"), output_dir=folder / "run", split="every:4"), **changes)
    loaded = load_scene(config.scene, split=config.split)
    scale = np.cbrt(np.linalg.det(loaded.from_input[:3, :3]))
    points = scene.points @ loaded.from_input[:3, :3].T + loaded.from_input[:3, 3]
    model = from_points(points.astype(np.float32), scene.colors, opacity=0.9)
    run = RunFolder.find(config, loaded)
    run.begin(config, near=float(0.1 * scale))
    for step in steps:
        part = model if step == steps[-1] else model.map(lambda tensor: tensor[: len(model) // 2])
        run.save(step, flatten({"gaussians": part.as_dict(), "moments": {}}), keep=0)
    return run.path
