"""Depth maps of photos by plane sweep: each pixel takes the depth at which it matches other photos best."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.geometry.warp import into
from difix3d.stereo.match import match
from difix3d.types import View

FEWEST, MOST = 16, 192
"""Planes of a sweep."""
CHUNK = 16
"""Planes whose scores are sorted at a time: memory."""


@torch.no_grad()
def sweep(
    view: View, others: Sequence[View], nearest: float, farthest: float
) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W"]]:
    """A view's depth along its optical axis in world units, and how well it matches there, -1..1.

    The planes are evenly spread in 1 / depth, so that from one to the next a pixel moves by one pixel or less in the
    other views, and between planes a parabola says where the best lies. A score is the mean of the better half of the
    other views: what one of them does not see, others may. What matches best at the first or last plane has score -1.

    Args:
        view: whose depth is wanted.
        others: one or more that it is compared with.
        nearest, farthest: how far away what it shows may be, above 0.
    """
    planes = torch.linspace(1 / nearest, 1 / farthest, plane_count(view, others, nearest, farthest))
    planes = planes.to(view.image.device)
    scores = zip(*(match(view, other, planes).split(CHUNK) for other in others), strict=True)
    volume = torch.cat([_better_half(some) for some in scores])
    best, index = volume.max(0)
    middle = index.clamp(1, len(planes) - 2)
    before, at, after = (volume.gather(0, (middle + offset)[None])[0] for offset in (-1, 0, 1))
    between = (0.5 * (before - after) / (before - 2 * at + after).clamp(max=-1e-6)).clamp(-0.5, 0.5)
    edge = index != middle
    inverse = planes[0] + (index + torch.where(edge, 0.0, between)) * (planes[1] - planes[0])
    return 1 / inverse, torch.where(edge, -1.0, best)


def plane_count(view: View, others: Sequence[View], nearest: float, farthest: float) -> int:
    """So many planes that from one to the next no pixel in the middle or a corner moves by more than one pixel;
    :data:`MOST` if one of them lies behind another camera."""
    height, width = view.image.shape[:2]
    moves = [0.0]
    for other in others:
        turn, shift = (value.double() for value in into(other.camera, view.camera))
        for x, y in ((0, 0), (width, 0), (0, height), (width, height), (width / 2, height / 2)):
            ray = turn @ turn.new_tensor([x, y, 1.0])
            ends = [ray + shift / depth for depth in (nearest, farthest)]
            first, last = (end[:2] / end[2] for end in ends)
            moves.append(float((first - last).norm()) if min(end[2] for end in ends) > 0 else MOST)
    return max(FEWEST, math.ceil(min(MOST, max(moves) + 1)))


def _better_half(scores: Sequence[Float[Tensor, "D H W"]]) -> Float[Tensor, "D H W"]:
    best = torch.stack(list(scores)).sort(0, descending=True).values
    return best[: (len(scores) + 1) // 2].mean(0)
