"""Filling the holes of a render with the colours around them, where no photo shows what is there.

A network that is too small to invent what nobody saw leaves a black hole black, or smears its edge. It repairs what has
about the right colours; these are found by pulling and pushing (Gortler et al., The Lumigraph, SIGGRAPH 1996,
section 3.4): means over ever larger squares, of what is covered in them, stand behind what is not.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from difix3d.geometry.warp import project_each, surface, unproject
from difix3d.types import Degraded, Fixer, View

DARK = 0.04
"""A photo's pixel whose brightest channel, 0..1, is below this is black."""
BLACK = (0.03, 0.1)
"""Shares of black in the photos from which holes are filled less, and not at all: there black may be what is behind the
scene. Photos of seven captures have at most 0.025; an object before black has 0.58, a dark room 0.15."""
EDGE = 0.05
"""Share of a photo's width or height, from its edge inwards, in which holes are filled more and more: models, too, end
at the edges of photos."""
COARSE = 80
"""Long side, in pixels, of the grid on which it is found out what lies outside of the photos."""


def fills_holes(fixer: Fixer) -> bool:
    """Whether a fixer gives :func:`without_holes` to its network."""
    return bool(getattr(fixer, "fills_holes", False))


def without_holes(degraded: Degraded) -> Degraded:
    """A render whose holes are filled, as far as that can be right; nothing waits for the GPU.

    What photos show is left as it is: a model over black may well be empty where they are dark. Renders with a
    backdrop have no holes, and where photos have alpha or are largely black, a hole may be what is there.
    """
    photos = degraded.references
    if degraded.foreground is not None or not photos or any(photo.alpha is not None for photo in photos):
        return degraded
    share = share_to_fill(photos) * outside_of_photos(degraded)[..., None]
    return replace(degraded, rgb=degraded.rgb + share * (fill_holes(degraded.rgb, degraded.alpha) - degraded.rgb))


def share_to_fill(photos: Sequence[View]) -> Float[Tensor, ""]:
    """How far holes of a scene with these photos are to be filled, 0..1, by :data:`BLACK`."""
    dark = [photo.image.amax(-1) < DARK for photo in photos]
    counted = [found if photo.mask is None else found & photo.mask for found, photo in zip(dark, photos, strict=True)]
    black = torch.stack([found.float().mean() for found in counted]).mean()
    return ((BLACK[1] - black) / (BLACK[1] - BLACK[0])).clamp(0, 1)


def outside_of_photos(degraded: Degraded) -> Float[Tensor, "H W"]:
    """1 where a pixel lies outside of all pictures of the captured cameras near it, falling to 0 at :data:`EDGE`.

    Where is judged by the rendered depth, which in holes is that around them; what hides what does not count. 0 if
    those cameras are not known.
    """
    height, width = degraded.alpha.shape
    if degraded.near is None:
        return torch.zeros_like(degraded.alpha)
    camera = degraded.camera.limited(COARSE)
    size = camera.size[::-1]
    sums = torch.stack([degraded.depth * degraded.alpha, degraded.alpha])[None]
    deep, alpha = interpolate(sums, size, mode="area")[0]
    depth = surface(deep / alpha.clamp(min=1e-6), alpha)
    depth = torch.where(depth > 0, depth, pull_push(deep[..., None], alpha)[..., 0])
    pixels, z = project_each(unproject(depth, camera), degraded.near)
    sides = torch.stack([degraded.near.width, degraded.near.height], -1).to(pixels)[:, None, None]
    beyond = torch.maximum(-pixels, pixels - sides).div(sides).amax(-1)
    share = torch.where(z > 0, (1 + beyond / EDGE).clamp(0, 1), 1.0).amin(0)
    return interpolate(share[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]


def fill_holes(rgb: Float[Tensor, "H W 3"], alpha: Float[Tensor, "H W"]) -> Float[Tensor, "H W 3"]:
    """A render over black, 0..1, with the colours around its holes in them.

    Where it is half covered or less, they show through what is there; less and less where it is covered further:
    training fits it to the photos as it is, over black.

    Args:
        rgb: over black, that is, multiplied by ``alpha``.
        alpha: coverage, 0..1.
    """
    hole = 1 - alpha[..., None]
    return (rgb + hole * (2 * hole).clamp(max=1) * pull_push(rgb, alpha)).clamp(0, 1)


def pull_push(values: Float[Tensor, "H W C"], weight: Float[Tensor, "H W"]) -> Float[Tensor, "H W C"]:
    """Means of values around each pixel, over the smallest squares in which something counts.

    Args:
        values: multiplied by their weight.
        weight: 0..1; where there is none at all, means are 0.
    """
    levels = [torch.cat([values, weight[..., None]], -1).permute(2, 0, 1)[None]]
    while max(levels[-1].shape[-2:]) > 1:
        square = [min(2, side) for side in levels[-1].shape[-2:]]
        levels.append(avg_pool2d(levels[-1], square, ceil_mode=True, count_include_pad=False))
    split = [values.shape[-1], 1]
    total, counted = levels.pop().split(split, 1)
    means = total / counted.clamp(min=1e-6)
    for level in reversed(levels):
        means = interpolate(means, level.shape[-2:], mode="bilinear", align_corners=False)
        if level is not levels[0]:
            total, counted = level.split(split, 1)
            means = total + (1 - counted) * means
    return means[0].permute(1, 2, 0)
