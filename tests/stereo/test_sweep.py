"""Depth maps by plane sweep, against depth that is known."""

import pytest
import torch

from difix3d.stereo.sweep import FEWEST, MOST, plane_count, sweep
from difix3d.synthetic.scene import SyntheticScene
from difix3d.types import View


@pytest.fixture(scope="module")
def drawn():
    """Three views of a drawn scene, and their depths."""
    scene = SyntheticScene(3)
    cameras = scene.cameras("train", 160, 120)[[8, 9, 10]]
    out = scene.render(cameras)
    views = [View(cameras[i], out.rgb[i], str(i)) for i in range(3)]
    return views, out.depth[..., 0]


def test_depth_is_that_of_the_surfaces(drawn):
    (first, view, last), depths = drawn
    truth = depths[1]
    nearest, farthest = 0.8 * float(truth.min()), 1.2 * float(truth.max())
    depth, score = sweep(view, [first, last], nearest, farthest)
    assert depth.min() >= nearest * 0.99
    assert depth.max() <= farthest * 1.01
    good = score > 0.7
    error = (depth / truth - 1).abs()[good]
    assert good.float().mean() > 0.5
    assert error.median() < 0.025
    assert (error < 0.05).float().mean() > 0.65


def test_what_is_not_between_the_planes_has_no_score(drawn):
    """The best of them is the first or the last one there."""
    (first, view, last), depths = drawn
    cut = float(depths[1].median())
    _, score = sweep(view, [first, last], 0.5 * float(depths[1].min()), cut)
    beyond = depths[1] > 1.2 * cut
    assert beyond.float().mean() > 0.1
    assert (score[beyond] > 0.7).float().mean() < 0.2
    _, score = sweep(view, [view], 1.0, 2.0)  # the same at any depth
    assert (score <= 1).all()


def test_planes_are_a_pixel_apart(drawn):
    (first, view, last), _ = drawn
    near, far = plane_count(view, [first], 2.0, 8.0), plane_count(view, [first, last], 8.0, 9.0)
    assert FEWEST <= far < near <= MOST
    assert plane_count(view, [view], 1.0, 2.0) == FEWEST
    small = plane_count(View(view.camera.resized(80, 60), torch.zeros(60, 80, 3), ""), [first], 2.0, 8.0)
    assert small == near  # it is the other view's pixels that count
    assert plane_count(view, [last], 1e-3, 1e3) == MOST
