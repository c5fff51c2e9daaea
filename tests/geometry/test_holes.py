"""Holes of renders get the colours around them, where no photo says that they may be what is there."""

from dataclasses import replace

import pytest
import torch

from difix3d.geometry.holes import fill_holes, share_to_fill, without_holes
from difix3d.types import Degraded, View

ORANGE = torch.tensor([0.9, 0.5, 0.1])


def covered(height, width, hole):
    """Coverage 1, but 0 in the columns of a slice."""
    alpha = torch.ones(height, width)
    alpha[:, hole] = 0
    return alpha


@pytest.mark.parametrize("size", [(1, 2), (2, 1), (7, 33), (64, 64), (45, 80)])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_a_hole_in_one_colour_gets_that_colour(size, share):
    """Also if what is there shows a little of it."""
    alpha = torch.full(size, share)
    alpha[0, 0] = 1
    filled = fill_holes(ORANGE * alpha[..., None], alpha)
    assert torch.allclose(filled, ORANGE.expand(*size, 3), atol=1e-5)


def test_nearer_colours_count_more():
    image = torch.linspace(0, 1, 64)[None, :, None].expand(48, 64, 3)
    alpha = covered(48, 64, slice(16, 40))
    filled = fill_holes(image * alpha[..., None], alpha)
    assert (filled - image).abs().max() < 0.35
    left, middle, right = (filled[:, column].mean() for column in (18, 28, 38))
    assert left < middle < right
    assert torch.equal(filled[:, :16], image[:, :16])


def test_what_is_covered_stays():
    image = torch.rand(30, 50, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fill_holes(image, torch.ones(30, 50)), image)
    thin = torch.full((30, 50), 0.95)
    assert (fill_holes(image * 0.95, thin) - image * 0.95).abs().max() < 0.0051


@pytest.mark.parametrize("size", [(1, 1), (5, 9)])
def test_where_nothing_is_covered_nothing_is_known(size):
    assert torch.equal(fill_holes(torch.zeros(*size, 3), torch.zeros(size)), torch.zeros(*size, 3))


def photo(camera, black=0.0, **fields):
    image = torch.full((40, 50, 3), 0.5)
    image[:, : round(50 * black)] = 0.02
    return View(camera, image, "photo", 0, **fields)


def degraded(camera, *photos):
    alpha = covered(40, 50, slice(0, 20))
    rgb = 0.5 * alpha[..., None].expand(40, 50, 3)
    return Degraded(camera, rgb, alpha, alpha, photos, (alpha,) * len(photos))


def test_black_photos_leave_holes_black(toy_scene):
    camera = toy_scene.cameras[0]
    shares = [float(share_to_fill([photo(camera, black)])) for black in (0, 0.02, 0.06, 0.1, 0.6)]
    assert shares[:2] == [1, 1]
    assert 0 < shares[2] < 1
    assert shares[3:] == pytest.approx([0, 0], abs=1e-6)
    masked = photo(camera, 0.6, mask=torch.arange(50).expand(40, 50) >= 30)
    assert float(share_to_fill([masked])) == 1


def test_holes_that_may_be_what_is_there_stay(toy_scene):
    camera = toy_scene.cameras[0]
    filled = without_holes(degraded(camera, photo(camera)))
    assert torch.allclose(filled.rgb, torch.full((40, 50, 3), 0.5))
    assert filled.alpha[0, 0] == 0  # nor does anything else change
    bare = degraded(camera)
    before_backdrop = replace(degraded(camera, photo(camera)), foreground=bare.alpha)
    for same in (bare, before_backdrop, degraded(camera, photo(camera, alpha=torch.ones(40, 50)))):
        assert without_holes(same) is same
    assert torch.allclose(without_holes(degraded(camera, photo(camera, 0.6))).rgb, bare.rgb)


@pytest.mark.gpu
def test_it_is_the_same_on_a_gpu(toy_scene):
    item = degraded(toy_scene.cameras[0], photo(toy_scene.cameras[0]))
    there = fill_holes(item.rgb.cuda(), item.alpha.cuda()).cpu()
    assert torch.allclose(there, fill_holes(item.rgb, item.alpha), atol=1e-5)
