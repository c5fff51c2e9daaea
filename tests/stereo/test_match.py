"""How well neighbourhoods match at a depth: the C++ against its twin, and against what is known."""

import math
from dataclasses import replace

import pytest
import torch

from difix3d import native
from difix3d.stereo.match import match, match_twin
from difix3d.types import Cameras, View


def camera(x=0.0, turn=0.0, size=(48, 36), focal=50.0):
    """One at ``x`` that looks along z, turned about y."""
    width, height = size
    c2w = torch.eye(4)
    c2w[0, 0] = c2w[2, 2] = math.cos(turn)
    c2w[0, 2] = math.sin(turn)
    c2w[2, 0] = -c2w[0, 2]
    c2w[0, 3] = x
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Cameras(c2w[None], K[None], torch.tensor([width]), torch.tensor([height]))


def wall(camera, depth=4.0):
    """A pattern on the plane z = depth, as a camera that is not turned sees it."""
    width, height = camera.size
    row, column = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    focal = camera.K[0, 0, 0]
    x = (column - width / 2) / focal * depth + camera.centers[0, 0]
    y = (row - height / 2) / focal * depth
    waves = [torch.sin(3 * x + 5 * y) + torch.sin(7 * x), torch.sin(4 * x - 6 * y), torch.cos(5 * y + 2 * x)]
    return View(camera, 0.5 + 0.2 * torch.stack(waves, -1), "wall")


@pytest.mark.skipif(native.load() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    "theirs",
    [camera(0.3), camera(0.3, size=(40, 30), focal=40.0), camera(0.2, turn=0.5), camera(0.2, turn=2.5), camera(9.0)],
    ids=["beside", "smaller", "turned", "looking back", "far aside"],
)
def test_native_equals_twin(theirs):
    torch.manual_seed(0)
    view = replace(wall(camera()), image=torch.rand(36, 48, 3))
    other = View(theirs, torch.rand(*theirs.size[::-1], 3), "other")
    depths = torch.linspace(1.0, 0.0, 7)  # as far as infinity
    torch.testing.assert_close(match(view, other, depths), match_twin(view, other, depths), atol=2e-4, rtol=0)


@pytest.mark.parametrize("function", [match, match_twin])
def test_the_right_depth_matches_best(function):
    view, other = wall(camera()), wall(camera(0.4))
    scores = function(view, other, 1 / torch.tensor([2.5, 4.0, 6.5]))
    seen = scores[1] > -1
    assert 0.7 < seen.float().mean() < 1  # a part of it is left of what the other sees
    assert (scores[1][seen] > 0.85).all()
    assert scores[1][seen].median() > 0.99
    assert (scores[1] - scores[[0, 2]])[:, seen].mean() > 0.1


def test_brightness_and_contrast_do_not_matter_and_what_is_even_tells_nothing():
    view, other = wall(camera()), wall(camera(0.4))
    depth = 1 / torch.tensor([4.0])
    scores = match(view, other, depth)
    darker = match(view, replace(other, image=0.1 + 0.6 * other.image), depth)
    torch.testing.assert_close(darker, scores, atol=0.03, rtol=0)
    flat = match(replace(view, image=torch.full_like(view.image, 0.3)), other, depth)
    assert flat[flat > -1].abs().max() < 1e-3


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same():
    torch.manual_seed(0)
    view, other = (View(at, torch.rand(36, 48, 3), "any") for at in (camera(), camera(0.3, turn=0.1)))
    depths = torch.linspace(1.0, 0.1, 5)
    there = match(view.to("cuda"), other.to("cuda"), depths.cuda())
    torch.testing.assert_close(there.cpu(), match_twin(view, other, depths), atol=1e-3, rtol=0)
