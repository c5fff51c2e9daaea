"""Holes of renders get the colours around them, where no photo says that they may be what is there."""

from dataclasses import replace

import pytest
import torch

from difix3d.geometry.holes import fill_holes, outside_of_photos, share_to_fill, without_holes
from difix3d.types import Cameras, Degraded, View

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


H, W = 40, 50


def camera_at(x=0.0):
    """Looks along z, at a wall one unit away that is one unit wide."""
    c2w = torch.eye(4)
    c2w[0, 3] = x
    K = torch.tensor([[W, 0, W / 2], [0, W, H / 2], [0, 0, 1.0]])
    return Cameras(c2w[None], K[None], torch.tensor([W]), torch.tensor([H]))


def photo(black=0.0, **fields):
    image = torch.full((H, W, 3), 0.5)
    image[:, : round(W * black)] = 0.02
    return View(camera_at(), image, "photo", 0, **fields)


def degraded(*photos, hole=slice(0, 20), near=(-0.9, 0.6)):
    """A grey wall with a hole, seen from x = 0, and captured from other places."""
    alpha = covered(H, W, hole)
    rgb = 0.5 * alpha[..., None].expand(H, W, 3)
    beside = Cameras.cat([camera_at(x) for x in near]) if near else None
    return Degraded(camera_at(), rgb, alpha, alpha, photos, (alpha,) * len(photos), near=beside)


def test_black_photos_leave_holes_black():
    shares = [float(share_to_fill([photo(black)])) for black in (0, 0.02, 0.06, 0.1, 0.6)]
    assert shares[:2] == [1, 1]
    assert 0 < shares[2] < 1
    assert shares[3:] == pytest.approx([0, 0], abs=1e-6)
    masked = photo(0.6, mask=torch.arange(W).expand(H, W) >= 30)
    assert float(share_to_fill([masked])) == 1


def test_only_what_lies_outside_of_all_photos_is_filled():
    """Of columns 0 to 50, the left camera shows 0 to 5, the right one 30 to 50, both all rows, as the hole has the
    wall's depth; at their edges it is filled more and more."""
    item = degraded(photo())
    outside = outside_of_photos(item)
    assert torch.equal(outside[:, 7:28], torch.ones(H, 21))
    assert not outside[3:-3, :2].any()
    assert not outside[3:-3, 34:48].any()
    assert ((outside > 0) & (outside < 1)).any()
    filled = without_holes(item)
    assert torch.allclose(filled.rgb[:, 7:], torch.full((H, W - 7, 3), 0.5))
    assert torch.equal(filled.rgb[3:-3, :2], item.rgb[3:-3, :2])
    assert filled.alpha is item.alpha


def test_cameras_that_look_away_show_nothing():
    turned = camera_at()
    turned.c2w[0, :3, :3] = torch.diag(torch.tensor([-1.0, 1, -1]))
    item = degraded(photo())
    assert torch.equal(outside_of_photos(replace(item, near=turned)), torch.ones(H, W))


def test_holes_that_may_be_what_is_there_stay():
    item = degraded(photo())
    seen = degraded(photo(), near=(0.0, 0.6))
    assert torch.equal(without_holes(seen).rgb[3:-3, 3:], seen.rgb[3:-3, 3:])
    before_backdrop = replace(item, foreground=item.alpha)
    for same in (degraded(), before_backdrop, degraded(photo(alpha=torch.ones(H, W)))):
        assert without_holes(same) is same
    for same in (degraded(photo(0.6)), degraded(photo(), near=())):
        assert torch.allclose(without_holes(same).rgb, same.rgb)


@pytest.mark.gpu
def test_it_is_the_same_on_a_gpu():
    item = degraded(photo())
    there = replace(
        item, rgb=item.rgb.cuda(), alpha=item.alpha.cuda(), depth=item.depth.cuda(), references=(photo().to("cuda"),)
    )
    assert torch.allclose(without_holes(there).rgb.cpu(), without_holes(item).rgb, atol=1e-5)
