from dataclasses import replace

import pytest
import torch

from difix3d.distill.novel import CLEARANCE, perturbed, toward
from difix3d.geometry.poses import nearest, pose_distance
from difix3d.types import Render


@pytest.fixture
def captured(toy_scene):
    return toy_scene.cameras[toy_scene.train]


@pytest.fixture
def targets(toy_scene):
    return toy_scene.cameras[toy_scene.test]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_way_begins_at_the_nearest_captured_camera(captured, targets):
    start = toward(captured, targets, 0, 0.5)
    assert torch.equal(start.c2w, captured.c2w[nearest(targets.c2w, captured.c2w)])
    assert torch.equal(start.K, targets.K)


def test_each_round_comes_nearer_until_the_targets_are_reached(captured, targets):
    rounds = [toward(captured, targets, number, 0.1) for number in range(12)]
    left = torch.stack([pose_distance(cameras.c2w, targets.c2w) for cameras in rounds])
    assert (left.diff(dim=0) <= 1e-6).all()
    assert (left[0] > 0.1).all()
    assert torch.allclose(rounds[-1].c2w, targets.c2w, atol=1e-6)
    moved = torch.stack([cameras.centers for cameras in rounds]).diff(dim=0).norm(dim=-1)
    assert float(moved.max()) < 0.2 + 1e-6  # a step, and at the end less than a second one


def test_targets_that_are_captured_cameras_stay(captured):
    assert torch.allclose(toward(captured, captured, 3, 0.5).c2w, captured.c2w, atol=1e-6)


def test_one_captured_camera_is_enough(captured, targets):
    assert len(toward(captured[0], targets, 2, 0.1)) == len(targets)


def test_perturbed_cameras_move_by_the_distance_and_look_at_the_same(captured, render):
    novel = perturbed(captured, len(captured), 0.3, render, generator())
    distance = (novel.centers - captured.centers).norm(dim=-1)
    assert torch.allclose(distance, torch.full_like(distance, 0.3), atol=1e-5)
    # what was in the middle of the picture still is
    depth = torch.stack([render(camera).depth[0, 20, 24, 0] for camera in (captured[i] for i in range(len(captured)))])
    middle = captured.centers + captured.c2w[:, :3, 2] * depth[:, None]
    for i in range(len(novel)):
        local = (middle[i] - novel.centers[i]) @ novel.c2w[i, :3, :3]
        assert float(local[2]) > 0
        assert float((local[:2] / local[2]).norm()) < 0.2


def test_perturbation_is_seeded_and_spread_over_the_cameras(captured, render):
    a, b = (perturbed(captured, 4, 0.2, render, generator(seed)) for seed in (0, 0))
    assert torch.equal(a.c2w, b.c2w)
    other = perturbed(captured, 4, 0.2, render, generator(1))
    assert not torch.equal(a.c2w, other.c2w)
    starts = nearest(a.c2w, captured.c2w)
    assert len(starts.unique()) == 4


def test_perturbed_cameras_stay_out_of_the_geometry(captured, render):
    """Even asked for far more than there is room for; a wall one unit ahead is never crossed."""
    wall = replace(captured[0], c2w=captured.c2w[:1])

    def walled(camera):
        # a plane one unit ahead of the first camera, seen exactly from anywhere
        normal, point = wall.c2w[0, :3, 2], wall.centers[0] + wall.c2w[0, :3, 2]
        width, height = camera.size
        column, row = torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy")
        rays = torch.stack([column, row, torch.ones_like(row)], -1) @ torch.linalg.inv(camera.K[0]).T
        rays = rays @ camera.c2w[0, :3, :3].T
        depth = ((point - camera.centers[0]) @ normal) / (rays @ normal)
        depth = torch.where(depth > 0, depth, 0.0)[None, ..., None]
        return Render(torch.zeros(1, height, width, 3), (depth > 0).float(), depth)

    novel = perturbed(wall, 30, 3.0, walled, generator())
    ahead = (novel.centers - wall.centers[0]) @ wall.c2w[0, :3, 2]
    assert float(ahead.max()) < 1 - CLEARANCE / 2  # of the nearest depth, which is a bit less than 1 in the corners


def test_where_nothing_is_seen_the_camera_stays(captured):
    def empty(camera):
        width, height = camera.size
        return Render(
            torch.zeros(1, height, width, 3), torch.zeros(1, height, width, 1), torch.zeros(1, height, width, 1)
        )

    assert torch.equal(perturbed(captured, 3, 0.5, empty, generator()).c2w, captured.c2w[[0, 4, 8]])
