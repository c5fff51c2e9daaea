"""Consistency along a path of cameras, and visibility: before a wall, where everything can be worked out by hand."""

import math

import numpy as np
import pytest
import torch

from difix3d.metrics import reached, visibility, warp_error
from difix3d.metrics.visible import continuous
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


def drawn(camera, front=True):
    """The true depth of a wall at z = 4, of 8 x 8 units, and of a card of 1 x 1 before its middle at z = 2."""
    from difix3d.geometry.warp import unproject

    height, width = camera.size[::-1]
    rays = unproject(torch.ones(height, width), camera) - camera.c2w[0, :3, 3]
    origin = camera.c2w[0, :3, 3]
    depth = torch.zeros(height, width)
    for z, half in ((4.0, 4.0), (2.0, 0.5))[: 1 + front]:
        distance = (z - origin[2]) / rays[..., 2]
        place = origin[:2] + rays[..., :2] * distance[..., None]
        depth = torch.where((place.abs() <= half).all(-1) & (distance > 0), distance, depth)
    return depth


def test_pixels_that_a_photo_reaches_are_those_that_it_truly_sees():
    """From aside, a strip of the wall comes into view that the card hides from the photo, and more of its edge."""
    train, aside = cameras(0.0).resized(240, 160), cameras(0.6).resized(240, 160)
    depth, there = drawn(train), drawn(aside)
    truth = visibility(there, aside, train, [depth])
    found = reached(aside, train, [depth])
    assert 0.05 < float((~truth & (there > 0)).float().mean()) < 0.5
    assert float((found != truth).float().mean()) < 0.03
    assert not found[:, -10:][there[:, -10:] > 0].all()


def test_what_hangs_before_the_evaluated_camera_does_not_matter():
    """The evaluated view's own depth is not asked for: one more photo is all that changes what is reached."""
    train, aside = cameras(0.0, 1.2).resized(240, 160), cameras(0.6).resized(240, 160)
    one = reached(aside, train[0], [drawn(train[0])])
    both = reached(aside, train, [drawn(train[0]), drawn(train[1])])
    assert (both | ~one).all()
    assert both.float().mean() > one.float().mean() + 0.05
    assert float(both[drawn(aside) > 0].float().mean()) > 0.98


def test_nothing_reaches_a_view_from_behind_or_without_depth():
    train = cameras(0.0)
    behind = cameras(0.0)
    behind.c2w[0, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    assert not reached(behind, train, [wall()]).any()
    assert not reached(train, train, [wall(0.0)]).any()
    assert not reached(train, train[torch.tensor([], dtype=torch.long)], []).any()
    assert reached(train, train, [wall()]).all()


def test_a_view_from_half_the_distance_has_no_gaps():
    train, near = cameras(0.0).resized(240, 160), cameras(0.0).resized(240, 160)
    near.c2w[0, 2, 3] = 1.9
    depth = torch.full((160, 240), 4.0)
    assert reached(near, train, [depth]).all()


def test_pixels_between_two_surfaces_are_left_out():
    """A rendered depth is blended at edges: such points hang in the air, and would be carried into holes."""
    depth = wall()
    depth[:, :10] = 1.5
    depth[:, 10] = 2.2
    assert not continuous(depth)[:, 9:12].any()
    assert continuous(depth)[:, :9].all()
    assert continuous(depth)[:, 12:].all()
