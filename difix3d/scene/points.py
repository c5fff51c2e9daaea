"""What the sparse points say about a scene, by the photos that see them."""

import numpy as np
from jaxtyping import Bool

from difix3d.types import Scene

DEFAULT_NEAR = 0.01
"""Near plane, in scene units, of scenes that do not know who sees what; gsplat's default."""


def visible_points(scene: Scene, at_least: int = 2) -> Bool[np.ndarray, "P"]:
    """Which points at least this many train photos see; all of them if the scene does not know who sees what.

    The sparse points come from all photos: those that only held-out photos see would leak them into the training.
    """
    if len(scene.observations) == 0:
        return np.ones(len(scene.points), bool)
    seen = scene.observations[np.isin(scene.observations[:, 1], scene.train), 0]
    return np.bincount(seen, minlength=len(scene.points)) >= at_least


def near_depth(scene: Scene) -> float:
    """The depth, in scene units, nearer than which nothing is drawn: a fifth of where the photos begin to see points.

    Gaussians that float right in front of a camera fog it, and no photo tells where they are: between cameras that
    stand close together they survive training and blind the views in between. A fifth leaves room for novel cameras
    that go closer than the photos did.
    """
    seen = scene.observations[np.isin(scene.observations[:, 1], scene.train)]
    if len(seen) == 0:
        return DEFAULT_NEAR
    point, photo = seen.T
    forward = scene.cameras.c2w[:, :3, 2].cpu().numpy()[photo]
    depths = ((scene.points[point] - scene.cameras.centers.cpu().numpy()[photo]) * forward).sum(1)
    return max(DEFAULT_NEAR, 0.2 * float(np.percentile(depths, 1)))
