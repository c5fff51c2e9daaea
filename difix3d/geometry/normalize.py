"""The normalised world: centred on the cameras, z up, cameras about one unit away from the origin."""

import numpy as np
from jaxtyping import Bool, Float

FAR = 1000.0
"""Points further away from the cameras than this many times the median point are taken for points at infinity."""

ASIDE = 10.0
"""Cameras so many times as far out as most (:func:`remoteness`) do not count for the middle and size of a scene."""


def similarity(c2w: Float[np.ndarray, "N 4 4"], points: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "4 4"]:
    """The similarity from the user's world to the normalised one.

    The mean of the camera centres becomes the origin, the mean of the cameras' up vectors becomes +z, and nine cameras
    of ten lie within one unit. Cameras that are turned every way about one line of sight survey the ground: there +z is
    against it. Where else the up vectors cancel out, the smallest principal axis of the camera centres is taken; where
    all cameras are in one place, the median distance of the points becomes one unit.
    """
    centers = c2w[:, :3, 3]
    up = -c2w[:, :3, 1].mean(0)
    ahead = c2w[:, :3, 2].mean(0)
    middle = centers.mean(0)
    offsets = centers - middle
    if np.linalg.norm(up) < 0.5 and np.linalg.norm(ahead) > 0.9:
        up = -ahead
    elif np.linalg.norm(up) < 0.1:
        flat = np.linalg.svd(offsets, full_matrices=False)[2][-1]
        up = flat if flat @ up >= 0 else -flat
    rotation = rotation_between(up / np.linalg.norm(up), np.array([0.0, 0.0, 1.0]))
    distances = np.linalg.norm(offsets, axis=1)
    reach = float(np.quantile(distances, 0.9))
    depth = float(np.median(np.linalg.norm(points - middle, axis=1))) if len(points) else 1.0
    rounding = 1e-6 * max(1.0, float(np.abs(centers).max()))  # survey coordinates are large: that alone says nothing
    if reach < min(rounding, 1e-3 * depth):
        reach = depth
    transform = np.eye(4)
    transform[:3, :3] = rotation / max(reach, 1e-12)
    transform[:3, 3] = -transform[:3, :3] @ middle
    return transform


def remoteness(centers: Float[np.ndarray, "N 3"], points: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "N"]:
    """How far each camera is from the middle of all, in units of what four cameras of five do not exceed.

    The middle is the median, so that a few cameras far off, of a failed structure from motion, do not move it. A unit
    is at least a tenth of the points' median distance: cameras that mostly stand still make no other one far off.
    """
    offsets = centers - np.median(centers, axis=0)
    with np.errstate(over="ignore"):
        distances = np.linalg.norm(offsets, axis=1)
    unit = float(np.quantile(distances, 0.8, method="lower"))
    finite = points[np.isfinite(points).all(1)]
    if len(finite):
        unit = max(unit, 0.1 * float(np.median(np.linalg.norm(finite - np.median(centers, axis=0), axis=1))))
    return distances / unit if unit > 0 else np.zeros(len(centers))


def same_world(a: Float[np.ndarray, "4 4"], b: Float[np.ndarray, "4 4"]) -> bool:
    """Whether two similarities lead to the same normalised world, to 1e-4 of its units.

    Going there by one and back by the other is compared: in survey coordinates the shifts themselves are millions.
    """
    return np.allclose(a @ np.linalg.inv(b), np.eye(4), atol=1e-4)


def rotation_between(a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The smallest rotation that takes the unit vector a to the unit vector b."""
    cosine = float(a @ b)
    if cosine < -1 + 1e-9:  # half a turn, about any axis across a
        axis = np.linalg.svd(a[None])[2][-1]
        return 2 * np.outer(axis, axis) - np.eye(3)
    x, y, z = np.cross(a, b)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)


def transform_points(transform: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "P 3"]:
    """Points taken along by a similarity."""
    return points @ transform[:3, :3].T + transform[:3, 3]


def transform_poses(transform: Float[np.ndarray, "4 4"], c2w: Float[np.ndarray, "N 4 4"]) -> Float[np.ndarray, "N 4 4"]:
    """Poses taken along by a similarity; they stay rigid."""
    scale = np.cbrt(np.linalg.det(transform[:3, :3]))
    poses = transform @ c2w
    poses[:, :3, :3] /= scale
    return poses


def extent(centers: Float[np.ndarray, "N 3"]) -> float:
    """Radius of the camera centres about their mean, times 1.1 (3DGS's "cameras_extent"); 1 if they coincide."""
    radius = float(np.linalg.norm(centers - centers.mean(0), axis=1).max())
    return 1.1 * radius or 1.0


def plausible_points(points: Float[np.ndarray, "P 3"], centers: Float[np.ndarray, "N 3"]) -> Bool[np.ndarray, "P"]:
    """Which points are finite and not :data:`FAR` times further from the cameras than the median one."""
    finite = np.isfinite(points).all(1)
    if not finite.any():
        return finite
    distances = np.linalg.norm(np.where(finite[:, None], points, 0.0) - centers.mean(0), axis=1)
    return finite & (distances <= FAR * np.median(distances[finite]))
