"""Consistency along a path of cameras, and visibility: before a wall, where everything can be worked out by hand."""

import math

import numpy as np
import pytest
import torch

from difix3d.metrics import visibility, warp_error
from difix3d.types import Cameras

SIZE, FOCAL = (20, 30), 30.0


def cameras(*xs, size=SIZE):
    """In a row along x, all looking along z. A wall at z = 3 moves by 10 pixels for each unit of x."""
    height, width = size
    c2w = torch.eye(4).repeat(len(xs), 1, 1)
    c2w[:, 0, 3] = torch.tensor(xs)
    K = torch.tensor([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]]).repeat(len(xs), 1, 1)
    return Cameras(c2w, K, torch.full((len(xs),), width), torch.full((len(xs),), height))


def wall(z=3.0):
    return torch.full(SIZE, z)


def texture(width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 200, (SIZE[0], width, 3), dtype=torch.uint8, generator=generator)


def test_frames_of_one_world_have_no_warp_error():
    picture = texture(60)
    frames = [picture[:, 10 * i : 10 * i + 30] for i in range(3)]
    result = warp_error(frames, [wall()] * 3, cameras(0.0, 1.0, 2.0))
    assert result.errors == pytest.approx((0, 0), abs=1e-5)
    assert result.mean == pytest.approx(0, abs=1e-5)


def test_flicker_comes_out_as_it_went_in():
    picture = texture(60)
    frames = [picture[:, :30], picture[:, 10:40] + 20, picture[:, 20:50] + 50]
    result = warp_error(frames, [wall()] * 3, cameras(0.0, 1.0, 2.0))
    assert result.errors == pytest.approx((20 / 255, 30 / 255), abs=1e-5)
    assert result.mean == pytest.approx(25 / 255, abs=1e-5)
    far = warp_error(frames, [wall()] * 3, cameras(0.0, 1.0, 2.0), step=2)
    assert far.errors == pytest.approx((50 / 255,), abs=1e-5)


def test_the_mean_counts_pixels_and_pairs_without_any_do_not_count():
    picture = texture(60)
    frames = [picture[:, :30], picture[:, 20:50] + 10, picture[:, :30], picture[:, :30] + 30]
    result = warp_error(frames, [wall()] * 4, cameras(0.0, 2.0, 90.0, 90.0))
    assert math.isnan(result.errors[1])
    assert result.mean == pytest.approx((10 / 255 + 3 * 30 / 255) / 4, abs=1e-5)
    assert math.isnan(warp_error(frames[:1], [wall()], cameras(0.0)).mean)


def test_warp_error_agrees_with_a_loop_over_pixels():
    """A wall with a step in it, so that parts are hidden, and unrelated pictures."""
    depth = wall()
    depth[5:15, 10:20] = 1.5
    both = cameras(0.0, 0.5)
    moved = wall()
    moved[5:15, 0:10] = 1.5  # half a unit aside is 10 pixels there, 5 on the wall
    first, second = texture(30), texture(60)[:, 30:]
    differences = []
    for row in range(20):
        for column in range(30):
            shift = round(FOCAL * 0.5 / float(moved[row, column]))
            source = column + shift
            if source < 30 and depth[row, source] == moved[row, column]:
                pixel = second[row, column].double() - first[row, source].double()
                differences.append(float(pixel.abs().mean()) / 255)
    result = warp_error([first, second], [depth, moved], both)
    assert result.mean == pytest.approx(np.mean(differences), abs=1e-5)


def test_pixels_count_if_a_training_camera_sees_them():
    seen = visibility(wall(), cameras(0.0)[0], cameras(-1.0, 50.0))
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[:, :20] = True  # the camera one unit to the left sees all but the ten columns on the right
    assert torch.equal(seen, expected)


def test_min_views_counts_cameras():
    train = cameras(-1.0, 1.0)
    twice = visibility(wall(), cameras(0.0)[0], train, min_views=2)
    assert twice[:, 10:20].all()
    assert twice.sum() == 200
    assert visibility(wall(), cameras(0.0)[0], train).all()


def test_hidden_points_do_not_count_if_the_training_depths_are_known():
    """A post before the training camera hides columns 10 to 19 of its image from it."""
    hidden = wall()
    hidden[:, 10:20] = 1.0
    eval_camera, train = cameras(0.0)[0], cameras(-0.5)
    assert visibility(wall(), eval_camera, train)[:, :25].all()
    seen = visibility(wall(), eval_camera, train, [hidden])
    assert not seen[:, 5:15].any()
    assert seen[:, :5].all()
    assert seen[:, 15:25].all()


def test_nothing_and_the_background_do_not_count():
    depth = wall()
    depth[0] = 0
    depth[1] = 8
    seen = visibility(depth, cameras(0.0)[0], cameras(0.0), max_depth=5.0)
    assert not seen[:2].any()
    assert seen[2:].all()


def test_training_cameras_may_have_other_sizes():
    both = cameras(0.0, 0.0)
    K = both.K.clone()
    K[1, :2] *= 2
    width, height = torch.tensor([30, 60]), torch.tensor([20, 40])
    train = Cameras(both.c2w, K, width, height)
    depths = [wall(), torch.full((40, 60), 3.0)]
    assert visibility(wall(), both[0], train, depths, min_views=2).all()
    assert visibility(wall(), both[0], train, min_views=2).all()
