"""How far off the photos cameras go, measured by how far the photos stand apart from each other."""

import math

import numpy as np
from jaxtyping import Bool, Float

from difix3d.scene.points import visible_points
from difix3d.types import Cameras, Scene

POINTS, CAMERAS = 2000, 64
"""Sparse points and cameras, at most, that are looked at; spread evenly over all."""
LINES = 2_000_000
"""Lines from training cameras to points, at most: of captures with thousands of photos fewer points are looked at."""
SHARE = 90
"""Percentile of the angles that counts: a few views far off are what needs help."""


def times_apart(scene: Scene, targets: Cameras) -> float:
    """How far target cameras are off the training cameras, as a multiple of how far these are off each other.

    Far is the angle, at a sparse point in sight, between a camera and the nearest training camera (of a training
    camera: the nearest other one) that has the point in sight as well; the 90th percentile over points and cameras of
    the targets, divided by that of the training cameras. About 1 or less: targets between the photos. Nothing of the
    targets' photos enters, and nothing of what hides what. NaN where points or cameras are too few to say.

    Args:
        scene: its training cameras, and the points that they see.
        targets: in the scene's world.
    """
    points = scene.points[visible_points(scene)].astype(np.float64)
    train = scene.cameras[scene.train]
    points = points[:: max(1, -(-len(points) // max(50, min(POINTS, LINES // max(1, len(train))))))]
    if len(points) == 0 or len(train) < 2 or len(targets) == 0:
        return math.nan
    sight, rays = in_sight(train, points), directions(train, points)

    def angles(cameras: Cameras, own: bool) -> Float[np.ndarray, "A"]:
        found = []
        for index in range(0, len(cameras), max(1, -(-len(cameras) // CAMERAS))):
            camera = cameras[index]
            cosines = np.einsum("tpi,pi->tp", rays, directions(camera, points)[0])
            cosines[~sight] = -np.inf
            if own:
                cosines[index] = -np.inf
            nearest = cosines.max(0)
            found.append(nearest[in_sight(camera, points)[0] & np.isfinite(nearest)])
        return np.arccos(np.concatenate(found).clip(-1, 1))

    apart, off = angles(train, True), angles(targets.to("cpu"), False)
    if len(apart) == 0 or len(off) == 0:
        return math.nan
    return float(np.percentile(off, SHARE) / max(np.percentile(apart, SHARE), 1e-6))


def in_sight(cameras: Cameras, points: Float[np.ndarray, "P 3"]) -> Bool[np.ndarray, "C P"]:
    """Which points fall into the cameras' images, whatever stands in between."""
    w2c, K = cameras.w2c.double().numpy(), cameras.K.double().numpy()
    local = np.einsum("cij,pj->cpi", w2c[:, :3, :3], points) + w2c[:, None, :3, 3]
    depth = local[..., 2]
    pixels = np.einsum("cij,cpj->cpi", K, local)[..., :2] / np.where(depth > 0, depth, 1)[..., None]
    size = np.stack([cameras.width.numpy(), cameras.height.numpy()], -1)[:, None]
    return (depth > 0) & ((pixels >= 0) & (pixels < size)).all(-1)


def directions(cameras: Cameras, points: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "C P 3"]:
    """Unit vectors from the cameras to the points."""
    offsets = points - cameras.centers.double().numpy()[:, None]
    return offsets / np.maximum(np.linalg.norm(offsets, axis=-1, keepdims=True), 1e-12)
