"""Texture is compared without its places."""

import math

import pytest
import torch

from difix3d.metrics import psnr, texture_error


@pytest.fixture
def grass():
    """Fine detail, [H, W, 3] bytes."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(64, 80, 1, generator=generator) * 200 + 20).byte().expand(-1, -1, 3).contiguous()


def blurred(image):
    channels = image.float().permute(2, 0, 1)[None]
    return torch.nn.functional.avg_pool2d(channels, 5, 1, 2)[0].permute(1, 2, 0).byte()


def test_equal_pictures_have_none(grass):
    assert texture_error(grass, grass) == 0


def test_a_shift_costs_less_than_blur_which_psnr_prefers(grass):
    beside = grass.roll(1, 1)
    assert texture_error(beside, grass) < 0.6 * texture_error(blurred(grass), grass)
    assert psnr(beside, grass) < psnr(blurred(grass), grass)


def test_brightness_is_no_texture(grass):
    assert texture_error(grass + 20, grass) == pytest.approx(0, abs=1e-3)


def test_masks_and_sizes(grass):
    spoilt, mask = grass.clone(), torch.ones(grass.shape[:2], dtype=torch.bool)
    spoilt[:20] = 0
    mask[:20] = False
    assert texture_error(spoilt, grass) > 0
    assert texture_error(spoilt, grass, mask) == 0
    assert math.isnan(texture_error(grass, grass, ~mask & False))
    assert math.isnan(texture_error(grass[:7], grass[:7]))
