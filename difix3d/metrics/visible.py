"""Which pixels of an evaluation view can be known from the training views at all: Nerfbusters' protocol."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difix3d.geometry.warp import project, seen_by, unproject
from difix3d.types import Cameras


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
