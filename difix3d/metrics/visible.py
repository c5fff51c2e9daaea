"""Which pixels of an evaluation view can be known from the training views at all."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from difix3d.geometry.warp import TOLERANCE, project, seen_by, unproject
from difix3d.types import Cameras

GRID = 120
"""Long side, in cells, of the grid on which :func:`reached` looks; training depths should have twice as many pixels, so
that a view from half the distance has no gaps."""


def visibility(
    depth: Float[Tensor, "H W"],
    camera: Cameras,
    train: Cameras,
    train_depths: Sequence[Float[Tensor, "_ _"]] | None = None,
    min_views: int = 1,
    max_depth: float = float("inf"),
) -> Bool[Tensor, "H W"]:
    """Pixels of an evaluation view that count: their surface lies in sight of enough training cameras.

    The surface is the pseudo ground truth's: depth rendered by a model that was trained on training and evaluation
    photos together. Warburg and Weber et al. 2023 ("Nerfbusters") count the cameras whose image the point falls into,
    whatever stands in between; that is what happens without ``train_depths``. With them, hidden points do not count.

    Args:
        depth, camera: the evaluation view; pixels of depth 0 (nothing there) never count.
        train: the training cameras.
        train_depths: depth rendered from each of them by the same model.
        min_views: cameras that have to see a point.
        max_depth: farther pixels do not count, in world units (the paper's evaluation cuts the background).
    """
    points = unproject(depth, camera)
    views = torch.zeros_like(depth, dtype=torch.int32)
    for index in range(len(train)):
        if train_depths is not None:
            seen, _ = seen_by(points, train[index], train_depths[index])
        else:
            pixels, z = project(points, train[index])
            size = torch.stack([train.width[index], train.height[index]])
            seen = (z > 0) & (pixels >= 0).all(-1) & (pixels < size.to(pixels)).all(-1)
        views += seen
    return (views >= min_views) & (depth > 0) & (depth <= max_depth)


def reached(camera: Cameras, train: Cameras, train_depths: Sequence[Float[Tensor, "_ _"]]) -> Bool[Tensor, "H W"]:
    """Pixels of an evaluation view that some training view reaches, each carried there by its own depth.

    Unlike :func:`visibility` it needs no depth of the evaluation view, where a model knows least: fog in front of that
    camera, or a surface at a wrong place, changes nothing. Surfaces are cut where the depth jumps. What lies behind a
    surface that no photo shows is reached through it: against true visibility 0.5 to 3 % of
    the pixels are wrong.

    Args:
        camera: the evaluation view's.
        train: the training cameras.
        train_depths: rendered from each of them, at any size of its aspect; 0 where nothing is there.
    """
    small = camera.limited(GRID)
    width, height = small.size
    place = train_depths[0].device if train_depths else camera.c2w.device
    hit = torch.zeros(height * width, device=place)
    for index, depth in enumerate(train_depths):
        points = unproject(depth, train[index].resized(depth.shape[1], depth.shape[0]))
        pixels, z = project(points[continuous(depth)], small)
        column, row = pixels.floor().unbind(-1)
        inside = (z > 0) & (column >= 0) & (row >= 0) & (column < width) & (row < height)
        hit[(row * width + column)[inside].long()] = 1
    hit = hit.reshape(1, height, width)
    closed = -F.max_pool2d(-F.max_pool2d(hit, 3, 1, 1), 3, 1, 1)  # single cells between points are no holes
    return F.interpolate(closed[None], camera.size[::-1], mode="nearest")[0, 0] > 0


def continuous(depth: Float[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """Pixels of a depth map whose 3 x 3 neighbours lie within twice :data:`TOLERANCE` of the nearest of them: those
    between two surfaces lie on neither."""
    far, near = F.max_pool2d(depth[None], 3, 1, 1)[0], -F.max_pool2d(-depth[None], 3, 1, 1)[0]
    return (depth > 0) & (far - near <= 2 * TOLERANCE * near)
