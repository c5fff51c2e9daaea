"""Filling the holes of a render with the colours around them.

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

from difix3d.types import Degraded, View

DARK = 0.04
"""A photo's pixel whose brightest channel, 0..1, is below this is black."""
BLACK = (0.03, 0.1)
"""Shares of black in the photos from which holes are filled less, and not at all: there black may be what is behind the
scene. Photos of nine captures have at most 0.025; an object before black has 0.58, a room at night 0.15."""


def without_holes(degraded: Degraded) -> Degraded:
    """A render whose holes are filled, as far as that can be right; nothing waits for the GPU.

    Left as they are: renders with a backdrop, which have none; with photos that have alpha, or that are largely black,
    where a hole may be what is there; and without any photo that could tell.
    """
    photos = degraded.references
    if degraded.foreground is not None or not photos or any(photo.alpha is not None for photo in photos):
        return degraded
    rgb = degraded.rgb + share_to_fill(photos) * (fill_holes(degraded.rgb, degraded.alpha) - degraded.rgb)
    return replace(degraded, rgb=rgb)


def share_to_fill(photos: Sequence[View]) -> Float[Tensor, ""]:
    """How far holes of a scene with these photos are to be filled, 0..1, by :data:`BLACK`."""
    dark = [photo.image.amax(-1) < DARK for photo in photos]
    counted = [found if photo.mask is None else found & photo.mask for found, photo in zip(dark, photos, strict=True)]
    black = torch.stack([found.float().mean() for found in counted]).mean()
    return ((BLACK[1] - black) / (BLACK[1] - BLACK[0])).clamp(0, 1)


def fill_holes(rgb: Float[Tensor, "H W 3"], alpha: Float[Tensor, "H W"]) -> Float[Tensor, "H W 3"]:
    """A render over black, 0..1, with the colours around its holes in them.

    Where it is half covered or less, they show through what is there; less and less where it is covered further:
    training fits it to the photos as it is, over black.

    Args:
        rgb: over black, that is, multiplied by ``alpha``.
        alpha: coverage, 0..1.
    """
    height, width = alpha.shape
    levels = [torch.cat([rgb, alpha[..., None]], -1).permute(2, 0, 1)[None]]
    while max(levels[-1].shape[-2:]) > 1:
        square = [min(2, side) for side in levels[-1].shape[-2:]]
        levels.append(avg_pool2d(levels[-1], square, ceil_mode=True, count_include_pad=False))
    color, covered = levels.pop().split([3, 1], 1)
    behind = color / covered.clamp(min=1e-6)
    for level in reversed(levels[1:]):
        color, covered = level.split([3, 1], 1)
        behind = color + (1 - covered) * _enlarge(behind, *level.shape[-2:])
    open_ = 1 - alpha[..., None]
    return (rgb + open_ * (2 * open_).clamp(max=1) * _enlarge(behind, height, width)[0].permute(1, 2, 0)).clamp(0, 1)


def _enlarge(colors: Float[Tensor, "1 3 h w"], height: int, width: int) -> Float[Tensor, "1 3 H W"]:
    return interpolate(colors, (height, width), mode="bilinear", align_corners=False)
