"""Dense points: the depth maps of the training photos, where several photos agree."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from difix3d import native
from difix3d.console import console, track
from difix3d.geometry.warp import pixel_centers, project, seen_by, unproject
from difix3d.images import to_uint8
from difix3d.scene import Views
from difix3d.stereo.match import NOISE, moments
from difix3d.stereo.partners import comparisons
from difix3d.stereo.sweep import sweep
from difix3d.types import Cameras, Scene, View

SIDE = 240
"""Long side, in pixels, of what is compared."""
SCORE, HINT = 0.5, 0.3
"""The least score of a point, and of a depth that may speak for the point of another photo."""
PIXELS, TOLERANCE = 1.5, 0.02
"""Two photos agree on a depth up to so many pixels, and up to this share of it."""


@dataclass(frozen=True)
class DepthMap:
    """What comparing a view with others found out.

    Attributes:
        view: whose pixels.
        depth: along its optical axis in world units.
        score: how well they match there, -1..1.
    """

    view: View
    depth: Float[Tensor, "H W"]
    score: Float[Tensor, "H W"]


def dense_points(
    scene: Scene, count: int, seed: int, device: torch.device
) -> tuple[Float[np.ndarray, "P 3"], UInt8[np.ndarray, "P 3"]]:
    """Points on the surfaces that training photos show, and their colours: of the pixels on whose depth two photos
    agree, ``count`` are drawn, or all if there are fewer.

    Nothing of held-out photos enters. Photos that have nothing in common with others give none, and so do surfaces
    without texture.

    Args:
        scene: its training photos and their cameras; sparse points that they see help.
        seed: of the draw.
        device: where photos are compared if there is no C++ compiler. With one the CPU does it, in half of the time
            that a large GPU takes for so many small operations.
    """
    device = torch.device("cpu") if native.load() is not None else device
    compared = comparisons(scene)
    small = Cameras.cat(scene.cameras[index].limited(SIDE) for index in range(len(scene.cameras)))
    views = Views(replace(scene, cameras=small), device)
    maps: dict[int, DepthMap] = {}
    for photo, it in track(compared.items(), len(compared), "comparing photos"):
        view, others = views[photo], [views[other] for other in it.partners]
        maps[photo] = DepthMap(view, *sweep(view, others, it.nearest, it.farthest))
    points, colors = [torch.empty(0, 3)], [torch.empty(0, 3)]
    for photo, here in maps.items():
        good = usable(here, [maps[other] for other in compared[photo].partners if other in maps])
        points.append(unproject(here.depth, here.view.camera)[good].cpu())
        colors.append(here.view.image[good].cpu())
    every = torch.cat(points)
    drawn = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:count]
    console.print(f"{len(drawn):,} dense points found by comparing {len(maps)} photos (--init.dense 0 goes without)")
    return every[drawn].numpy(), to_uint8(torch.cat(colors)[drawn])


def usable(here: DepthMap, others: Sequence[DepthMap]) -> Bool[Tensor, "H W"]:
    """Which pixels match well, have the depth that another photo finds as well, and are neither masked nor empty.

    Nor even: of a pixel like its neighbours only what else is in the window was matched. Beside the edge of an object
    that is the object, and the sky behind it would become a fringe as near as the object is.
    """
    _, variances = moments(here.view.image, radius=1)
    good = (here.score > SCORE) & (variances > NOISE) & (agreeing(here, others) > 0)
    mask, alpha = here.view.mask, here.view.alpha
    good = good if mask is None else good & mask
    return good if alpha is None else good & (alpha > 0.5)


@torch.no_grad()
def agreeing(here: DepthMap, others: Sequence[DepthMap]) -> Int[Tensor, "H W"]:
    """How many other photos say the same of a pixel's depth: what they have where it is seen there lies as far away,
    and is seen at the pixel from here."""
    pixels = pixel_centers(here.depth)[..., :2]
    points = unproject(here.depth, here.view.camera)
    count = torch.zeros_like(here.depth, dtype=torch.int32)
    for other in others:
        known = torch.where(other.score > HINT, other.depth, 0.0)
        same, there = seen_by(points, other.view.camera, known, TOLERANCE)
        x, y = torch.where(same[..., None], there, 0.0).long().unbind(-1)
        back, _ = project(unproject(known, other.view.camera)[y, x], here.view.camera)
        count += same & ((back - pixels).norm(dim=-1) <= PIXELS)
    return count
