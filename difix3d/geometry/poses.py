"""Camera poses: interpolation, distance, moving toward a target, camera paths.

Poses are camera to world, rigid, OpenCV axes; any float type; leading dimensions broadcast.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Pose = Float[Tensor, "*#batch 4 4"]
FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Between OpenGL's axes (y up, z backward) and OpenCV's (y down, z forward), either way; for a camera's own axes it
stands right of its pose."""
UP = (0.0, 0.0, 1.0)
"""Of the normalised world, which camera paths are made in."""


def interpolate(a: Pose, b: Pose, t: float | Float[Tensor, "*#batch"]) -> Pose:
    """The pose at the share t (0..1) of the way: position along the line, rotation by slerp, the shorter way round."""
    t = torch.as_tensor(t, dtype=a.dtype, device=a.device)
    axis, angle = _axis_angle(a[..., :3, :3].mT @ b[..., :3, :3])
    rotation = a[..., :3, :3] @ rotation_about(axis, t * angle)
    position = a[..., :3, 3] + t[..., None] * (b[..., :3, 3] - a[..., :3, 3])
    return _pose(rotation, position)


def rotation_angle(a: Pose, b: Pose) -> Float[Tensor, "*#batch"]:
    """Angle of the rotation between two poses, radians in 0..pi."""
    return _axis_angle(a[..., :3, :3].mT @ b[..., :3, :3])[1]


def pose_distance(a: Pose, b: Pose) -> Float[Tensor, "*#batch"]:
    """Distance of the positions plus the rotation angle in radians; a metric on poses (in the normalised world)."""
    return (a[..., :3, 3] - b[..., :3, 3]).norm(dim=-1) + rotation_angle(a, b)


def nearest(poses: Float[Tensor, "M 4 4"], candidates: Float[Tensor, "N 4 4"]) -> Int[Tensor, "M"]:
    """For each pose the index of the candidate at the smallest :func:`pose_distance`."""
    return pose_distance(poses[:, None], candidates[None]).argmin(1)


def shift_toward(current: Pose, target: Pose, step: float) -> Pose:
    """One round of the progressive update: ``step`` along the line, and the same share of the rotation.

    A remainder shorter than a step is not left for a round of its own: the position then jumps to the target (it moves
    by less than two steps), and the rotation follows in the next round. So do the recorded rounds of the reference.
    """
    length = (target[..., :3, 3] - current[..., :3, 3]).norm(dim=-1)
    share = (step / length.clamp(min=1e-12)).clamp(max=1.0)
    moved = interpolate(current, target, share)
    arrived = (length - step < step)[..., None]
    return _pose(moved[..., :3, :3], torch.where(arrived, target[..., :3, 3], moved[..., :3, 3]))


def moved(c2w: Float[Tensor, "N 4 4"], motion: Float[Tensor, "N 6"]) -> Float[Tensor, "N 4 4"]:
    """Each pose after a small motion in its own frame: a rotation vector in radians, then a shift in world units.

    Differentiable in the motion, also where it is 0.
    """
    turn, shift = motion.split(3, dim=-1)
    zero = torch.zeros_like(turn[:, 0])
    x, y, z = turn.unbind(-1)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    rigid = torch.cat([torch.linalg.matrix_exp(skew), shift[..., None]], -1)
    bottom = torch.eye(4, dtype=rigid.dtype, device=rigid.device)[3:].expand(len(rigid), 1, 4)
    return c2w @ torch.cat([rigid, bottom], 1)


def common_motions(c2w: Float[Tensor, "N 4 4"]) -> Float[Tensor, "N 6 7"]:
    """What :func:`moved` has to be told of each pose to move all of them as one: small turns of the world about the
    middle of the poses, its shifts, and its growth. Photos cannot tell these from a scene that moved the other way."""
    turn = c2w[:, :3, :3].mT
    x, y, z = (c2w[:, :3, 3] - c2w[:, :3, 3].mean(0)).unbind(-1)
    zero = torch.zeros_like(x)
    across = torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], -1).reshape(-1, 3, 3)  # turn x position, by column
    rows = [torch.cat([turn, turn * 0, zero[:, None, None].expand(-1, 3, 1)], -1)]
    rows += [torch.cat([turn @ across, turn, turn @ torch.stack([x, y, z], -1)[..., None]], -1)]
    return torch.cat(rows, 1)


def look_at(position: Float[Tensor, "*#batch 3"], target: Float[Tensor, "*#batch 3"], up: Float[Tensor, "3"]) -> Pose:
    """Poses at the positions that look at the target, with ``up`` pointing up in the picture as far as it can."""
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    right = torch.linalg.cross(forward, up.expand_as(forward))
    fallback = torch.linalg.cross(forward, up.roll(1).expand_as(forward))  # straight up or down: any right will do
    right = torch.where(right.norm(dim=-1, keepdim=True) > 1e-6, right, fallback)
    right = torch.nn.functional.normalize(right, dim=-1)
    return _pose(torch.stack([right, torch.linalg.cross(forward, right), forward], -1), position)


def focus_point(c2w: Float[Tensor, "N 4 4"], depth: float | None = None) -> Float[Tensor, "3"]:
    """The point nearest to all optical axes, by least squares; ``depth`` ahead of the mean camera if they are parallel,
    or face one way and part: then the nearest point lies among or behind them.

    Args:
        depth: how far away the scene is, in world units; by default four times as far as the cameras stand from their
            middle.
    """
    position, forward = c2w[:, :3, 3].double(), c2w[:, :3, 2].double()
    across = torch.eye(3).to(forward) - forward[:, :, None] * forward[:, None, :]
    middle, ahead = position.mean(0), torch.nn.functional.normalize(forward.mean(0), dim=0)
    spread = (position - middle).norm(dim=1).mean().clamp(min=1e-6)
    prior = middle + (4 * spread if depth is None else depth) * ahead  # decides only where the axes do not
    lhs, rhs = across.mean(0), (across @ position[:, :, None]).mean(0)[:, 0]
    alone, focus = (torch.linalg.solve(lhs + w * torch.eye(3).to(lhs), rhs + w * prior) for w in (1e-6, 1e-3))
    is_ahead = (((alone - position) * forward).sum(1) > 0).double().mean() > 0.9
    return (focus if is_ahead or forward.mean(0).norm() < 0.5 else prior).to(c2w)


def ellipse(
    c2w: Float[Tensor, "N 4 4"], frames: int, focus: Float[Tensor, "3"] | None = None
) -> Float[Tensor, "frames 4 4"]:
    """A closed path around the focus point at the cameras' mean height, as wide as they spread (90 % of them)."""
    focus, up = focus_point(c2w) if focus is None else focus, c2w.new_tensor(UP)
    offset = c2w[:, :3, 3] - focus
    height = (offset @ up).mean()
    flat = offset - (offset @ up)[:, None] * up
    first = torch.nn.functional.normalize(flat[flat.norm(dim=1).argmax()], dim=0)
    second = torch.linalg.cross(up, first)
    radii = torch.stack([(flat @ axis).abs().quantile(0.9) for axis in (first, second)])
    radii = radii.clamp(min=0.5 * float(radii.max()))
    angle = 2 * math.pi * torch.arange(frames).to(c2w) / frames
    ring = radii[0] * angle.cos()[:, None] * first + radii[1] * angle.sin()[:, None] * second
    return look_at(focus + height * up + ring, focus, up)


def spiral(
    c2w: Float[Tensor, "N 4 4"], frames: int, focus: Float[Tensor, "3"] | None = None
) -> Float[Tensor, "frames 4 4"]:
    """A closed spiral of two turns within the spread of forward-facing cameras (90 %), looking at their focus point."""
    up, position = c2w.new_tensor(UP), c2w[:, :3, 3]
    focus = focus_point(c2w) if focus is None else focus
    center = look_at(position.mean(0), focus, up)
    radii = ((position - center[:3, 3]) @ center[:3, :3]).abs().quantile(0.9, dim=0)
    phase = 2 * math.pi * torch.arange(frames).to(c2w) / frames
    offset = torch.stack([(2 * phase).cos(), -(2 * phase).sin(), -phase.sin()], 1) * radii
    return look_at(center[:3, 3] + offset @ center[:3, :3].T, focus, up)


def interpolate_path(c2w: Float[Tensor, "N 4 4"], frames: int) -> Float[Tensor, "frames 4 4"]:
    """From the first pose to the last through all of them, the same number of frames between each two."""
    along = torch.linspace(0, len(c2w) - 1, frames).to(c2w)
    start = along.long().clamp(max=len(c2w) - 2)
    return interpolate(c2w[start], c2w[start + 1], along - start)


def rotation_about(axis: Float[Tensor, "*#batch 3"], angle: Float[Tensor, "*#batch"]) -> Float[Tensor, "*#batch 3 3"]:
    """Rotation matrix by a unit axis and an angle in radians (Rodrigues)."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    angle = angle[..., None, None]
    return torch.eye(3).to(axis) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def rotation_matrices(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotations of wxyz quaternions of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]
    rows += [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]
    rows += [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).reshape(-1, 3, 3)


def _axis_angle(rotation: Float[Tensor, "*batch 3 3"]) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
    """Unit axis and angle in 0..pi, accurate for every angle (by way of the quaternion)."""
    m = rotation
    xx = m[..., 0, 0]
    yy = m[..., 1, 1]
    zz = m[..., 2, 2]
    wx = m[..., 2, 1] - m[..., 1, 2]
    wy = m[..., 0, 2] - m[..., 2, 0]
    wz = m[..., 1, 0] - m[..., 0, 1]
    xy = m[..., 1, 0] + m[..., 0, 1]
    xz = m[..., 0, 2] + m[..., 2, 0]
    yz = m[..., 2, 1] + m[..., 1, 2]
    outer = torch.stack(  # 4 q qT: its row with the largest diagonal is q times a number far from zero
        [
            torch.stack([1 + xx + yy + zz, wx, wy, wz], -1),
            torch.stack([wx, 1 + xx - yy - zz, xy, xz], -1),
            torch.stack([wy, xy, 1 - xx + yy - zz, yz], -1),
            torch.stack([wz, xz, yz, 1 - xx - yy + zz], -1),
        ],
        -2,
    )
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*outer.shape[:-2], 1, 4)
    q = torch.nn.functional.normalize(outer.gather(-2, best).squeeze(-2), dim=-1)
    q = torch.where(q[..., :1] < 0, -q, q)
    angle = 2 * torch.atan2(q[..., 1:].norm(dim=-1), q[..., 0])
    return torch.nn.functional.normalize(q[..., 1:], dim=-1), angle


def _pose(rotation: Float[Tensor, "*#batch 3 3"], position: Float[Tensor, "*#batch 3"]) -> Pose:
    shape = torch.broadcast_shapes(rotation.shape[:-2], position.shape[:-1])
    pose = torch.eye(4).to(rotation).repeat(*shape, 1, 1)
    pose[..., :3, :3], pose[..., :3, 3] = rotation, position
    return pose
