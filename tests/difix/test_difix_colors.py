"""Colours that a fixer shifts come back; what it repairs does not."""

from dataclasses import replace

import pytest
import torch

from difix3d.difix import DifixFixer
from difix3d.difix.colors import anchor_colors, color_map
from difix3d.types import Degraded

RED = torch.tensor([0.9, 0.1, 0.1])[:, None, None]


@pytest.fixture(scope="module")
def photo(pictures):
    return pictures.smooth(1, 3, 90, 120)


def faded(image):
    """Less contrast, and a tint, as a fixer may leave them."""
    gain, offset = torch.tensor([[0.8, 0.9, 0.85], [0.12, 0.02, 0.06]])[..., None, None]
    return gain * image + offset


def error(image, other):
    return float((image - other).abs().max())


def floater(photo, share):
    """The photo behind a red blob over its left part."""
    render = photo.clone()
    render[..., : int(share * photo.shape[-1])] = RED
    return render


def test_faded_and_tinted_fixes_get_their_colours_back(photo):
    assert error(faded(photo), photo) > 0.05
    assert error(anchor_colors(faded(photo), photo), photo) < 0.005


def test_a_shift_comes_back_beside_a_repair(photo):
    render = floater(photo, 0.3)
    anchored = anchor_colors(faded(photo), render)
    assert error(anchored, photo) < 0.02


@pytest.mark.parametrize("share", [0.2, 0.4, 0.5, 0.6, 0.9])
def test_a_floater_taken_away_stays_away(photo, share):
    assert error(anchor_colors(photo, floater(photo, share)), photo) < 0.003


def test_haze_taken_away_stays_away(photo):
    assert error(anchor_colors(photo, 0.6 * photo + 0.3), photo) < 1e-6


def test_sharpness_and_noise_do_not_matter(photo):
    """A fit from pixel to pixel would take contrast from sharpened images, and from those of renders with noise."""
    stripes = torch.arange(photo.shape[-1]) % 2 * 0.1 - 0.05
    sharp = 0.9 * photo + 0.05 + stripes
    noise = 0.05 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    for fixed, render in ((sharp, 0.9 * photo + 0.05), (photo, photo + noise)):
        gain, offset = color_map(fixed, render)
        assert (gain - 1).abs().max() < 0.01
        assert offset.abs().max() < 0.005


def test_what_is_not_covered_does_not_count(photo):
    """Black holes are not black things; and where nothing is covered, nothing is known."""
    alpha = torch.zeros(1, 90, 120)
    assert torch.equal(anchor_colors(faded(photo), 0 * photo, alpha), faded(photo))
    alpha[..., :60] = 1
    assert error(anchor_colors(faded(photo), photo * alpha[:, None], alpha), photo) < 0.02


def test_images_of_one_colour():
    """There is no contrast to measure; the colour itself is anchored."""
    grey = torch.full((1, 3, 40, 50), 0.5)
    assert error(anchor_colors(grey + 0.05, grey), grey) < 0.003
    black = torch.zeros(1, 3, 40, 50)
    assert error(anchor_colors(black + 17 / 255, black), black) < 0.003


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64), (97, 131)])
def test_images_of_any_size_in_batches(pictures, size):
    photos = torch.cat([pictures.smooth(1, 3, *size), 1 - pictures.smooth(1, 3, *size)])
    fixed = torch.stack([faded(photos[0]), photos[1]])
    alpha = torch.ones(2, *size)
    together = anchor_colors(fixed, photos, alpha)
    for i in range(2):
        alone = anchor_colors(fixed[i : i + 1], photos[i : i + 1], alpha[i : i + 1])
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5)
    half = anchor_colors(fixed.half(), photos.half(), alpha.half())
    assert half.dtype == torch.float16
    assert torch.allclose(half.float(), together, atol=0.01)


def test_small_changes_of_the_render_move_the_map_little(photo):
    """From frame to frame of a video nothing may flicker, at the limits of what is put back either."""
    steps = [floater(photo, column / 120) for column in range(121)]
    maps = torch.stack([torch.cat(color_map(faded(photo), render)).flatten() for render in steps])
    assert (maps[0] - maps[-1]).abs().max() > 0.2
    assert maps.diff(dim=0).abs().max() < 0.08


@pytest.mark.gpu
def test_it_is_the_same_on_a_gpu(photo):
    render = floater(photo, 0.3)
    there = anchor_colors(faded(photo).cuda(), render.cuda())
    assert torch.allclose(there.cpu(), anchor_colors(faded(photo), render), atol=1e-4)


@pytest.fixture
def fading(tiny, monkeypatch):
    """A model that only fades what it is given."""
    monkeypatch.setattr(tiny, "fix", lambda images, *_, **__: faded(images))
    return tiny


def test_the_fixer_anchors_unless_told_otherwise(toy_scene, photo, fading):
    rgb = photo[0].permute(1, 2, 0)
    alpha = torch.ones(rgb.shape[:2])
    alpha[:, 100:] = 0
    item = Degraded(toy_scene.cameras[0], rgb * alpha[..., None], alpha, alpha)
    other = replace(item, rgb=1 - rgb, alpha=torch.ones_like(alpha))
    for batch in (1, 2):
        first, second = DifixFixer(fading, batch=batch)([item, other])
        assert error(first[:, :100], rgb[:, :100]) < 0.01
        assert error(second, other.rgb) < 0.01
    raw = next(DifixFixer(fading, anchor_colors=False)([item]))
    assert torch.equal(raw, faded(item.rgb.permute(2, 0, 1)[None])[0].permute(1, 2, 0))
