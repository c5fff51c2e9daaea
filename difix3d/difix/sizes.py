"""Images of any size: padding to what the network takes, references of another size, tiles of large images."""

from collections.abc import Callable
from math import ceil

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

CELL = 8  # pixels of an image along one side of a latent
OVERLAP = 128  # pixels that neighbouring tiles share
TILES = {"cpu": 1024, "cuda": 2048}
"""Side of the tiles of larger images. Attention grows with the square of a tile's pixels, which processors feel first
(docs/performance.md): less is quicker, and has more seams."""


def pad(images: Float[Tensor, "*B H W"], least: int = CELL) -> Float[Tensor, "*B H8 W8"]:
    """Reflects the right and bottom edge until both sides are multiples of 8, ``least`` or more; nothing is resampled.

    Unlike ``torch.nn.functional.pad`` it reflects more than once where an image is narrower than its padding.
    """
    for axis in (-2, -1):
        size = images.shape[axis]
        period = max(2 * size - 2, 1)
        index = torch.arange(max(-(-size // CELL) * CELL, least), device=images.device) % period
        if len(index) > size:
            images = images.index_select(axis, torch.where(index < size, index, period - index))
    return images


def ready(
    references: Float[Tensor, "B V _ h w"], device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "B V _ h8 w8"]:
    """References as the network takes them: pixels padded, latents as they are."""
    return (pad(references) if references.shape[2] == 3 else references).to(device, dtype)


def fit(image: Float[Tensor, "3 h w"], height: int, width: int) -> Float[Tensor, "3 H W"]:
    """Scales the image until it covers the size and crops its centre: the aspect stays."""
    h, w = image.shape[-2:]
    if (h, w) == (height, width):
        return image
    scale = max(height / h, width / w)
    h, w = max(round(h * scale), height), max(round(w * scale), width)
    image = F.interpolate(image[None], (h, w), mode="bicubic", antialias=True)[0].clamp(0, 1)
    top, left = (h - height) // 2, (w - width) // 2
    return image[:, top : top + height, left : left + width]


def usual_tile(device: torch.device) -> int:
    """The side in pixels of the tiles that larger images are fixed in on a device, where nothing else is asked for."""
    return TILES.get(device.type, TILES["cuda"])


def in_tiles(
    fix: Callable[[Tensor, Tensor | None], Tensor],
    images: Float[Tensor, "B K H W"],
    references: Float[Tensor, "B V C h w"] | None,
    tile: int,
) -> Float[Tensor, "B 3 H W"]:
    """Fixes tiles that overlap by 128 pixels and blends them with linear ramps.

    A tile sees the same part of the references as of the image. Images of at most ``tile`` pixels a side are one tile;
    others have as few as cover them, no larger than that takes.

    Args:
        images, references: padded to multiples of 8; references as pixels or latents.
        tile: the largest side of a tile, a multiple of 8 above 128.
    """
    height, width = images.shape[-2:]
    (rows, h), (columns, w) = _spread(height, tile), _spread(width, tile)
    if len(rows) == len(columns) == 1:
        return fix(images, references)
    total = torch.zeros_like(images[:, :3])
    weights = torch.zeros_like(images[:1, :1])
    per_latent = 1 if references is None or references.shape[2] == 3 else CELL
    for y in rows:
        for x in columns:
            box = (..., slice(y, y + h), slice(x, x + w))
            part = tuple(slice(s // per_latent, (s + n) // per_latent) for s, n in ((y, h), (x, w)))
            weight = _ramp(y, h, height)[:, None] * _ramp(x, w, width)
            weight = weight.to(images)
            total[box] += weight * fix(images[box], None if references is None else references[..., part[0], part[1]])
            weights[box] += weight
    return total / weights


def _spread(size: int, tile: int) -> tuple[list[int], int]:
    """First pixels, and the side, of tiles that cover the size evenly and overlap by ``OVERLAP`` or little more."""
    count = 1 if size <= tile else ceil((size - OVERLAP) / (tile - OVERLAP))
    side = ceil((size + (count - 1) * OVERLAP) / count / CELL) * CELL
    return [round(i * (size - side) / max(count - 1, 1) / CELL) * CELL for i in range(count)], side


def _ramp(start: int, length: int, size: int) -> Float[Tensor, "n"]:
    """Weights along one side of a tile: rising and falling over the overlap, flat at the image's own edges."""
    place = torch.arange(length) + 0.5
    rise = place if start > 0 else torch.full_like(place, OVERLAP)
    fall = length - place if start + length < size else torch.full_like(place, OVERLAP)
    return torch.minimum(rise, fall).clamp(max=OVERLAP) / OVERLAP
