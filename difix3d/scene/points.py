"""What the sparse points say about a scene, by the photos that see them."""

import numpy as np
from jaxtyping import Bool, Float, Int

from difix3d.types import Scene

DEFAULT_NEAR = 0.01
"""Near plane, in scene units, of scenes that do not know who sees what; gsplat's default."""


def visible_points(scene: Scene, at_least: int = 2) -> Bool[np.ndarray, "P"]:
    """Which points at least this many train photos see, or all photos that see them at all.

    The sparse points come from all photos: those that only held-out photos see would leak them into the training.
    Structure from motion has no point that fewer than two photos see; feed-forward networks (VGGT, MapAnything) write
    one photo for each point, or none where nobody knows, and no other points.
    """
    point, photo = scene.observations.T
    seen = np.bincount(point, minlength=len(scene.points))
    trained = np.bincount(point[np.isin(photo, scene.train)], minlength=len(scene.points))
    return trained >= np.minimum(at_least, seen)


def dropped_points(scene: Scene, at_least: int) -> str:
    """What to tell people about the points that :func:`visible_points` leaves out; empty if there are none."""
    seen = visible_points(scene, at_least)
    if seen.all():
        return ""
    why = f"seen by fewer than {at_least} training photos" + ("" if seen.any() else "; others take their place")
    return f"{np.count_nonzero(~seen):,} of {len(seen):,} points dropped: {why}"


def near_depth(scene: Scene) -> float:
    """The depth, in scene units, nearer than which nothing is drawn: a fifth of where the photos begin to see points.

    Gaussians that float right in front of a camera fog it, and no photo tells where they are: between cameras that
    stand close together they survive training and blind the views in between. A fifth leaves room for novel cameras
    that go closer than the photos did.
    """
    seen = scene.observations[np.isin(scene.observations[:, 1], scene.train)]
    if len(seen) == 0:
        return DEFAULT_NEAR
    return max(DEFAULT_NEAR, 0.2 * float(np.percentile(seen_depths(scene, seen), 1)))


def seen_depths(scene: Scene, seen: Int[np.ndarray, "S 2"]) -> Float[np.ndarray, "S"]:
    """How far away, along the photo's optical axis, the points lie that photos see: of rows (point, photo)."""
    point, photo = seen.T
    forward = scene.cameras.c2w[:, :3, 2].cpu().numpy()[photo]
    return ((scene.points[point] - scene.cameras.centers.cpu().numpy()[photo]) * forward).sum(1)
