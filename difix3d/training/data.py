"""What a training begins from, and how its models are rendered."""

from typing import Any

import numpy as np
import torch

from difix3d.gaussians import from_points, random_points
from difix3d.scene import visible_points
from difix3d.training.config import TrainConfig
from difix3d.types import Gaussians, Scene


def render_settings(config: TrainConfig, near: float, device: torch.device) -> dict[str, Any]:
    """How the models of a run are rendered once trained, for :func:`difix3d.render.rasterize`.

    A random background is black then.
    """
    background = torch.ones(3, device=device) if config.background == "white" else None
    return {"near": near, "antialiased": config.antialiased, "packed": config.packed, "background": background}


def initial_gaussians(scene: Scene, config: TrainConfig) -> Gaussians:
    """Gaussians on the sparse points that enough training photos see, or on random points where there are none."""
    keep = visible_points(scene, at_least=config.init.seen_by)
    points, colors = scene.points[keep], scene.colors[keep]
    if len(points) == 0:
        points, colors = random_points(config.init.points, 3 * scene.extent, config.seed)
    return from_points(
        points.astype(np.float32),
        colors,
        sh_degree=config.sh_degree,
        opacity=config.init.opacity,
        scale=config.init.scale,
    )
