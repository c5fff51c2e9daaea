"""What a training begins with: the first Gaussians, from what the scene has."""

import numpy as np

from difix3d.gaussians import from_points, random_points
from difix3d.scene import visible_points
from difix3d.training.config import TrainConfig
from difix3d.types import Gaussians, Scene


def initial_gaussians(scene: Scene, config: TrainConfig) -> Gaussians:
    """The first Gaussians of a training, in the scene's world: on the sparse points that its training photos see, or on
    random points where there are none."""
    seen = visible_points(scene, at_least=config.init.seen_by)
    points, colors = scene.points[seen], scene.colors[seen]
    if len(points) == 0:
        points, colors = random_points(config.init.points, 3 * scene.extent, config.seed)
    return from_points(
        points.astype(np.float32),
        colors,
        sh_degree=config.sh_degree,
        opacity=config.init.opacity,
        scale=config.init.scale,
    )
