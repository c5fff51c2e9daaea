"""Dense points: the depth maps of the training photos, where several photos agree."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from difix3d.console import track
from difix3d.geometry.warp import project, unproject
from difix3d.images import to_uint8
from difix3d.scene import Views
from difix3d.stereo.partners import Sightings
from difix3d.stereo.sweep import sweep
from difix3d.types import Cameras, Scene, View

SIDE = 240
"""Long side, in pixels, of what is compared."""
SCORE, HINT = 0.5, 0.3
"""The least score of a point, and of a depth that may speak for the point of another photo."""
PIXELS, TOLERANCE = 1.5, 0.02
"""Two photos agree on a depth up to so many pixels, and up to this share of it."""


def dense_points(
    scene: Scene, count: int, seed: int, device: torch.device
) -> tuple[Float[np.ndarray, "P 3"], UInt8[np.ndarray, "P 3"]]:
    """Points on the surfaces that training photos show, and their colours: of the pixels on whose depth two photos
    agree, ``count`` are drawn, or all if there are fewer.

    Nothing of held-out photos enters. Photos that share hardly any sparse points with others give none, and so do
    surfaces without texture.

    Args:
        scene: its training photos, and the sparse points that they see.
        seed: of the draw.
        device: where photos are compared.
    """
    sightings = Sightings(scene)
    partners = {photo: found for photo in scene.train.tolist() if (found := sightings.partners(photo))}
    small = Cameras.cat(camera.limited(SIDE) for camera in scene.cameras)
    views = Views(replace(scene, cameras=small), device)
    depths, scores = {}, {}
    for photo in track(partners, len(partners), "comparing photos"):
        others = [views[other] for other in partners[photo]]
        depths[photo], scores[photo] = sweep(views[photo], others, *sightings.depths(photo))
    points, colors = [torch.empty(0, 3)], [torch.empty(0, 3)]
    for photo in partners:
        others = [other for other in partners[photo] if other in depths]
        known = [torch.where(scores[other] > HINT, depths[other], 0.0) for other in others]
        view = views[photo]
        good = (agreeing(view, depths[photo], [views[other] for other in others], known) > 0) & (scores[photo] > SCORE)
        for counts in (view.mask, None if view.alpha is None else view.alpha > 0.5):
            good = good if counts is None else good & counts
        points.append(unproject(depths[photo], view.camera)[good].cpu())
        colors.append(view.image[good].cpu())
    every = torch.cat(points)
    drawn = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:count]
    return every[drawn].numpy(), to_uint8(torch.cat(colors)[drawn])


@torch.no_grad()
def agreeing(
    view: View, depth: Float[Tensor, "H W"], others: Sequence[View], depths: Sequence[Float[Tensor, "_ _"]]
) -> Int[Tensor, "H W"]:
    """How many other views say the same of a pixel's depth: what they have where it is seen there lies as far away, and
    is seen at the pixel from here.

    Args:
        view, depth: whose pixels are looked at.
        others, depths: what it is compared with; depths are 0 where nothing is known.
    """
    height, width = depth.shape
    row, column = torch.meshgrid(*(torch.arange(n, device=depth.device) + 0.5 for n in (height, width)), indexing="ij")
    here, points = torch.stack([column, row], -1), unproject(depth, view.camera)
    count = torch.zeros_like(depth, dtype=torch.int32)
    for other, theirs in zip(others, depths, strict=True):
        at, z = project(points, other.camera)
        inside = (z > 0) & (at >= 0).all(-1) & (at < at.new_tensor([theirs.shape[1], theirs.shape[0]])).all(-1)
        x, y = torch.where(inside[..., None], at, 0.0).long().unbind(-1)
        back, _ = project(unproject(theirs, other.camera)[y, x], view.camera)
        same = (theirs[y, x] - z).abs() <= TOLERANCE * z
        count += inside & same & ((back - here).norm(dim=-1) <= PIXELS)
    return count
