"""Carrying what a fixer changed in key frames to frames near them, by rendered depth.

A surface that two frames see gets the same change in both: it has to be fixed only once, and does not flicker.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difix3d import native
from difix3d.geometry.warp import TOLERANCE, into, project, sample, seen_by, surface, unproject
from difix3d.types import Cameras, Degraded

FAR = 1e6
"""Depth of pixels without any, in world units: what is behind the model turns with the camera, and does not move."""
GUESSED = 1e-4
"""Weight of what lies at the pixel's place in a key frame that sees another surface there. It counts where no key frame
sees the surface itself: in fog, whose depth is of no surface, and beside edges."""
MARGIN = 0.1
"""Share of a key frame's width or height beyond its edge within which the change there fades to 0."""
COARSE = 80
"""Long side, in pixels, of the grid on which it is counted how much of a frame a key frame sees."""


@dataclass(frozen=True)
class Key:
    """A frame that was fixed.

    Attributes:
        camera: a single one.
        depth: what it sees, along the optical axis in world units; 0 where nothing is seen.
        change: fixed picture minus render.
    """

    camera: Cameras
    depth: Float[Tensor, "H W"]
    change: Float[Tensor, "H W 3"]


@torch.no_grad()
def carry(
    keys: Sequence[Key], weights: Sequence[float], depth: Float[Tensor, "H W"], camera: Cameras
) -> tuple[Float[Tensor, "H W 3"], Bool[Tensor, "H W"]]:
    """The change of a frame near the key frames, and where a key frame sees the same surface.

    Where none does, the change is that at the pixel's place in them. Where the pixel is in none of them, it is that at
    the nearest place at their edge, and fades: a margin without any would show as a wedge.

    Args:
        keys: of any sizes.
        weights: of each key frame, above 0; they count where several see a surface.
        depth, camera: of the frame.
    """
    library = native.load() if depth.device.type == "cpu" else None
    if library is None:
        return carry_twin(keys, weights, depth, camera)
    sums, depth = torch.zeros(*depth.shape, 4), depth.contiguous()
    for key, weight in zip(keys, weights, strict=True):
        turn, shift = into(key.camera, camera)
        native.call(
            library.difix3d_carry, depth, *depth.shape, turn, shift, key.depth.contiguous(), key.change.contiguous(),
            *key.depth.shape, float(weight), GUESSED, MARGIN, TOLERANCE, FAR, torch.get_num_threads(), sums,
        )  # fmt: skip
    return _mean(sums, sum(weights))


def carry_twin(
    keys: Sequence[Key], weights: Sequence[float], depth: Float[Tensor, "H W"], camera: Cameras
) -> tuple[Float[Tensor, "H W 3"], Bool[Tensor, "H W"]]:
    """:func:`carry` in plain torch."""
    points = unproject(torch.where(depth > 0, depth, FAR), camera)
    sums = depth.new_zeros(*depth.shape, 4)
    for key, weight in zip(keys, weights, strict=True):
        height, width = key.depth.shape
        pixels, z = project(points, key.camera)
        inside = (z > 0) & (pixels >= 0).all(-1) & (pixels[..., 0] < width) & (pixels[..., 1] < height)
        column, row = torch.where(inside[..., None], pixels, 0.0).long().unbind(-1)
        there = key.depth[row, column]
        same = inside & torch.where(depth > 0, (there - z).abs() <= TOLERANCE * z, there == 0)
        size = pixels.new_tensor([width, height])
        beyond = ((pixels - torch.minimum(pixels.clamp(min=0), size)).abs() / size).amax(-1)
        change = sample(key.change, pixels, (height, width)) * (1 - beyond / MARGIN).clamp(min=0)[..., None]
        guessed = torch.where(inside, GUESSED, torch.where(z > 0, GUESSED**2, 0.0))
        share = weight * torch.where(same, 1.0, guessed)[..., None]
        sums += torch.cat([change * share, share], -1)
    return _mean(sums, sum(weights))


@torch.no_grad()
def share_seen(frame: Degraded, other: Degraded) -> float:
    """Share of a frame's surface that the camera of another one sees, 0..1; 1 if there is no surface in it."""
    stride = max(1, max(frame.depth.shape) // COARSE)
    points = unproject(frame.depth, frame.camera)[::stride, ::stride]
    there = surface(frame.depth, frame.alpha)[::stride, ::stride] > 0
    seen, _ = seen_by(points, other.camera, other.depth)
    return float((seen & there).sum() / there.sum()) if there.any() else 1.0


def _mean(sums: Float[Tensor, "H W 4"], weights: float) -> tuple[Float[Tensor, "H W 3"], Bool[Tensor, "H W"]]:
    """Weighted means, 0 without any weight; and where there is more weight than that of guesses."""
    total = sums[..., 3:]
    return torch.where(total > 0, sums[..., :3] / total.clamp(min=1e-12), 0.0), total[..., 0] > 2 * GUESSED * weights
