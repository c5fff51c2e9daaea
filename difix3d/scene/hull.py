"""Where an object on transparent photos can be: the visual hull (Laurentini, PAMI 1994), by random points."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difix3d.geometry.warp import project
from difix3d.scene.views import decode
from difix3d.types import Cameras, Scene

PHOTOS = 48
"""That are asked, at most, spread evenly."""
SIDE = 128
"""Their long side, in pixels."""
SEEN = 0.25
"""Share of these photos that must have a point in their frames: what hardly any looks at, none can rule out."""
DRAWN = 200_000
"""Points that look for the hull at a time."""


def hull_points(scene: Scene, count: int, radius: float, seed: int) -> Float[np.ndarray, "P 3"]:
    """Random points in the hull, up to ``count``: those in it of as many in a box around it.

    The object may fill a ten-thousandth of the cube, so that the box is narrowed round by round.

    Args:
        scene: its training photos with alpha are asked.
        radius: half-width of the cube about the origin in which the hull is looked for.
        seed: of the points.

    Returns:
        None (P = 0) if no point was found in the hull.
    """
    chosen = scene.some_train(PHOTOS)
    views = [_alpha(scene, index) for index in chosen]
    photos = [(camera, alpha) for camera, alpha in views if alpha is not None]
    rng = np.random.default_rng(seed)
    low, high = np.full(3, -radius), np.full(3, radius)
    while True:
        found = rng.uniform(low, high, (DRAWN, 3))
        found = found[_inside(found, photos)]
        if len(found) == 0:
            return np.zeros((0, 3), np.float32)
        margin, before = (high - low) / DRAWN ** (1 / 3), np.prod(high - low)
        low, high = np.maximum(low, found.min(0) - margin), np.minimum(high, found.max(0) + margin)
        if np.prod(high - low) > before / 2:
            break
    points = rng.uniform(low, high, (count, 3))
    return points[_inside(points, photos)].astype(np.float32)


def _alpha(scene: Scene, index: int) -> tuple[Cameras, Float[Tensor, "H W"] | None]:
    camera = scene.cameras[index].limited(SIDE)
    pixels, mask = decode(scene.photos[index], camera)
    if pixels.shape[2] == 3:
        return camera, None
    alpha = pixels[..., 3].float()
    return camera, alpha if mask is None else torch.where(mask, alpha, 1.0)  # what does not count rules nothing out


def _inside(points: Float[np.ndarray, "P 3"], photos: list[tuple[Cameras, Tensor]]) -> Bool[np.ndarray, "P"]:
    """Which points no photo shows to be empty, of those that enough of them see."""
    left = torch.from_numpy(points).float()
    number, seen = torch.arange(len(left)), torch.zeros(len(left))
    for camera, alpha in photos:
        pixels, depth = project(left, camera)
        height, width = alpha.shape
        framed = (depth > 0) & (pixels >= 0).all(1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
        column, row = torch.where(framed[:, None], pixels, 0.0).long().unbind(1)
        keep = ~framed | (alpha[row, column] > 0)
        seen[number[framed]] += 1
        left, number = left[keep], number[keep]
    inside = torch.zeros(len(points), dtype=torch.bool)
    inside[number] = seen[number] >= SEEN * max(len(photos), 1)
    return inside.numpy()
