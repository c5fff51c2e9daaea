"""Laws of poses, and the recorded cases of the reference implementation."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import require

from difix3d.geometry import poses

NUMBER = st.floats(-3, 3)
ANGLE = st.one_of(st.floats(0, math.pi), st.sampled_from([0.0, 1e-7, math.pi - 1e-7, math.pi]))


@st.composite
def pose(draw) -> torch.Tensor:
    axis = torch.nn.functional.normalize(
        torch.tensor([draw(NUMBER), draw(NUMBER), draw(NUMBER)]).double() + 1e-3, dim=0
    )
    result = torch.eye(4).double()
    result[:3, :3] = poses.rotation_about(axis, torch.tensor(draw(ANGLE)).double())
    result[:3, 3] = torch.tensor([draw(NUMBER), draw(NUMBER), draw(NUMBER)])
    return result


def is_rigid(c2w: torch.Tensor) -> bool:
    rotation = c2w[..., :3, :3]
    identity = torch.eye(3).to(c2w).expand_as(rotation)
    return torch.allclose(rotation @ rotation.mT, identity, atol=1e-5) and bool((torch.det(rotation) > 0).all())


@settings(deadline=None)
@given(pose(), pose(), st.floats(0, 1))
def test_interpolation_starts_ends_and_stays_rigid(a, b, t):
    assert torch.allclose(poses.interpolate(a, b, 0.0), a, atol=1e-9)
    assert torch.allclose(poses.interpolate(a, b, 1.0), b, atol=1e-7)
    between = poses.interpolate(a, b, t)
    assert is_rigid(between)
    assert float(poses.rotation_angle(a, between)) == pytest.approx(t * float(poses.rotation_angle(a, b)), abs=1e-6)


@settings(deadline=None)
@given(pose(), pose(), pose())
def test_distance_is_a_metric(a, b, c):
    assert float(poses.pose_distance(a, a)) == pytest.approx(0, abs=1e-7)
    assert float(poses.pose_distance(a, b)) == pytest.approx(float(poses.pose_distance(b, a)), abs=1e-6)
    assert poses.pose_distance(a, c) <= poses.pose_distance(a, b) + poses.pose_distance(b, c) + 1e-6


@settings(deadline=None)
@given(pose(), pose(), st.floats(0.05, 1))
def test_shift_moves_by_a_step_or_arrives(current, target, step):
    moved = poses.shift_toward(current, target, step)
    length = float((target - current)[:3, 3].norm())
    left = float((target - moved)[:3, 3].norm())
    assert is_rigid(moved)
    assert left == pytest.approx(length - step if length - step >= step else 0, abs=1e-6)
    assert poses.rotation_angle(current, moved) <= poses.rotation_angle(current, target) + 1e-6


def test_shifting_arrives_and_stays():
    current, target = torch.eye(4)[None].double(), torch.eye(4)[None].double()
    target[0, :3, :3] = poses.rotation_about(torch.tensor([0.0, 1, 0]).double(), torch.tensor(2.0).double())
    target[0, 0, 3] = 1.7
    for _ in range(5):
        current = poses.shift_toward(current, target, 0.5)
    assert torch.allclose(current, target, atol=1e-9)


@pytest.mark.real
def test_recorded_cases(shared: Path):
    recorded = np.load(require(shared / "golden" / "poses.npz"))
    case = {name: torch.from_numpy(recorded[name]) for name in recorded}
    distance = poses.pose_distance(case["train"][:, None], case["test"][None])
    assert torch.allclose(distance, case["distance"], atol=1e-6)
    index = poses.nearest(case["test"], case["train"])
    assert index.tolist() == case["nearest"].tolist()
    start = current = case["train"][index]
    for number in range(1, 5):
        current = poses.shift_toward(current, case["test"], 0.5)
        assert torch.allclose(current, case[f"shift_{number}"], atol=1e-6)
    steps = poses.interpolate(start[:, None], case["test"][:, None], torch.linspace(0, 1, 5).double())
    assert torch.allclose(steps, case["interpolate_5"], atol=1e-6)


def ring(count: int = 12) -> torch.Tensor:
    angle = torch.arange(count) * (2 * math.pi / count)
    position = torch.stack([2 * angle.cos(), 2 * angle.sin(), 0 * angle + 1], 1)
    return poses.look_at(position, torch.tensor([0.0, 0, 0]), torch.tensor([0.0, 0, 1]))


def test_look_at_follows_opencv():
    c2w = poses.look_at(torch.tensor([0.0, -3, 0]), torch.zeros(3), torch.tensor([0.0, 0, 1]))
    assert torch.allclose(c2w[:3, :3], torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), atol=1e-6)
    assert is_rigid(poses.look_at(torch.tensor([0.0, 0, 5]), torch.zeros(3), torch.tensor([0.0, 0, 1])))


def test_focus_point_of_a_ring_and_of_parallel_cameras():
    assert torch.allclose(poses.focus_point(ring()), torch.zeros(3), atol=0.02)
    parallel = torch.eye(4).repeat(5, 1, 1)
    parallel[:, 0, 3] = torch.arange(5.0)
    focus = poses.focus_point(parallel)
    assert focus[2] > 0
    assert focus[0] == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("outward", [-0.02, 0.004, 0.02, 0.1, 0.5])
def test_the_focus_point_is_ahead_of_cameras_that_face_one_way(outward):
    x = torch.linspace(-1, 1, 7)
    centers = torch.stack([x, torch.zeros(7), 0.3 * x.square()], 1)  # the outer ones stand ahead
    ahead = torch.stack([outward * x, torch.zeros(7), torch.ones(7)], 1)
    row = poses.look_at(centers, centers + ahead, torch.tensor([0.0, -1.0, 0.0]))
    focus = poses.focus_point(row)
    assert ((focus - centers) @ torch.tensor([0.0, 0.0, 1.0]) > 0).all()
    assert poses.spiral(row, 8)[:, 2, 2].min() > 0  # which looks where the cameras do


@pytest.mark.parametrize("path", [poses.ellipse, poses.spiral, poses.interpolate_path])
def test_paths_are_rigid_and_near_the_cameras(path):
    cameras = ring()
    frames = path(cameras, 24)
    assert frames.shape == (24, 4, 4)
    assert is_rigid(frames)
    assert (frames[:, :3, 3].norm(dim=1) < 1.5 * cameras[:, :3, 3].norm(dim=1).max()).all()


def test_ellipse_looks_at_the_middle_and_interpolation_touches_the_ends():
    frames = poses.ellipse(ring(), 16)
    ahead = torch.nn.functional.normalize(-frames[:, :3, 3], dim=1)
    assert ((ahead * frames[:, :3, 2]).sum(1) > 0.99).all()
    path = poses.interpolate_path(ring(), 23)
    assert torch.allclose(path[[0, 2, -1]], ring()[[0, 1, -1]], atol=1e-5)
