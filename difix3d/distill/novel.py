"""Novel cameras: where a round looks from (Difix3D+, section 4.2 and the supplement)."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.geometry.poses import look_at, nearest, shift_toward
from difix3d.geometry.warp import project
from difix3d.types import Cameras, RenderFn

CLEARANCE = 0.3
"""A perturbed camera stays this share of what the captured one sees nearest to it away from all it sees itself."""
SIDE = 120
"""Long side, in pixels, of the renders that tell where there is room."""
REACH = 0.5
"""It moves by at most this share of the distance to what it looks at: about 30 degrees around it."""
COVERED = 0.6
"""And sees the model in at least this share of its picture: a view of nothing teaches nothing."""


def toward(captured: Cameras, targets: Cameras, rounds: int, step: float) -> Cameras:
    """Cameras on their way from the nearest captured one to their targets.

    Args:
        captured: where they start.
        targets: where they go; they keep the targets' intrinsics and sizes.
        rounds: rounds done, 0 for the start.
        step: distance of a round, in scene units.
    """
    c2w = captured.c2w[nearest(targets.c2w, captured.c2w)]
    for _ in range(rounds):
        c2w = shift_toward(c2w, targets.c2w, step)
    return replace(targets, c2w=c2w)


@torch.no_grad()
def perturbed(captured: Cameras, count: int, distance: float, render: RenderFn, generator: torch.Generator) -> Cameras:
    """Captured cameras moved by ``distance`` in random directions, looking at what they looked at.

    They stay out of the geometry, by the rendered depth: neither behind a surface that the captured camera sees, nor
    close in front of one; and they do not lose the model from sight. A camera that cannot move as far moves half as
    far, and so on.

    Args:
        captured: where they start; spread evenly over them.
        count: how many to make.
        distance: in scene units.
        render: the model.
        generator: of the directions (on the CPU).
    """
    chosen = [int(index) for index in torch.linspace(0, len(captured) - 1, count).round()]
    moved = []
    for index in chosen:
        direction = torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0)
        moved.append(_move(captured[index], distance * direction.to(captured.c2w), render))
    return replace(captured[torch.tensor(chosen)], c2w=torch.stack(moved))


def _move(camera: Cameras, offset: Float[Tensor, "3"], render: RenderFn) -> Float[Tensor, "4 4"]:
    depth = render(camera.limited(SIDE)).depth_map
    seen = depth[depth > 0]
    if len(seen) == 0:
        return camera.c2w[0]
    position = camera.centers[0]
    forward = camera.c2w[0, :3, 2]
    up = -camera.c2w[0, :3, 1]
    distance = float(seen.median())
    offset = offset * min(1.0, REACH * distance / max(float(offset.norm()), 1e-9))
    nearest_seen = float(seen.quantile(0.02))
    clearance = CLEARANCE * nearest_seen
    for _ in range(5):
        pose = look_at(position + offset, position + distance * forward, up)
        if _free_depth(camera.limited(SIDE), depth, position + offset, nearest_seen) > clearance:
            there = render(replace(camera, c2w=pose[None]).limited(SIDE))
            ahead = there.depth_map[there.alpha[0, ..., 0] >= 0.5]
            if len(ahead) >= COVERED * depth.numel() and float(ahead.quantile(0.02)) > clearance:
                return pose
        offset = offset / 2
    return camera.c2w[0]


def _free_depth(
    camera: Cameras, depth: Float[Tensor, "H W"], position: Float[Tensor, "3"], nearest_seen: float
) -> float:
    """How far a position lies in front of what the camera sees there; where it sees nothing, of the nearest it sees."""
    pixel, z = project(position, camera)
    column, row = (math.floor(float(value)) for value in pixel.clamp(-1e6, 1e6))
    if float(z) <= 0:
        return math.inf
    inside = 0 <= column < depth.shape[1] and 0 <= row < depth.shape[0]
    surface = float(depth[row, column]) if inside else 0.0
    return (surface or nearest_seen) - float(z)
