"""Colours fitted to a photo by least squares."""

import math

import pytest
import torch

from difix3d.metrics import color_correct, color_fit, psnr


@pytest.fixture
def photo():
    torch.manual_seed(0)
    return torch.randint(40, 180, (20, 24, 3), dtype=torch.uint8)


MAP = torch.tensor([[0.8, 0.1, 0.0, 0.05], [0.0, 0.9, 0.05, -0.02], [0.1, 0.0, 0.7, 0.1]])


def shown(photo):
    """The photo in other colours, at 8 bits."""
    return (photo.float() @ MAP[:, :3].T + 255 * MAP[:, 3]).round().clamp(0, 255).to(torch.uint8)


def test_another_exposure_is_taken_back(photo):
    image = shown(photo)
    assert psnr(image, photo) < 28
    assert psnr(color_correct(image, photo), photo) > 48  # rounding is left
    whole = torch.linalg.inv(torch.cat([MAP, torch.tensor([[0.0, 0.0, 0.0, 1.0]])]))[:3]
    torch.testing.assert_close(color_fit(image, photo), whole, atol=5e-3, rtol=0)


def test_the_fit_is_that_of_least_squares(photo):
    """The slow way: each channel apart, by lstsq."""
    noisy = (shown(photo).float() + 10 * torch.randn(photo.shape)).round().clamp(0, 255).to(torch.uint8)
    x = torch.cat([noisy.reshape(-1, 3).double() / 255, torch.ones(480, 1, dtype=torch.float64)], 1)
    expected = torch.stack(
        [torch.linalg.lstsq(x, photo[..., c].reshape(-1, 1).double() / 255).solution[:, 0] for c in range(3)]
    )
    torch.testing.assert_close(color_fit(noisy, photo), expected.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        color_fit(noisy.float() / 255, photo.float() / 255), expected.float(), atol=1e-5, rtol=1e-5
    )
    assert psnr(color_correct(noisy, photo), photo) >= psnr(noisy, photo)


def test_masked_pixels_do_not_count(photo):
    image, mask = shown(photo), torch.ones(20, 24, dtype=torch.bool)
    mask[:5] = False
    image[:5] = 255 - image[:5]
    torch.testing.assert_close(color_fit(image, photo, mask), color_fit(image[5:], photo[5:]))
    assert psnr(color_correct(image, photo, mask), photo, mask) > 48


def test_what_pixels_leave_open_stays_as_it_is(photo):
    empty = torch.zeros(20, 24, dtype=torch.bool)
    assert torch.equal(color_correct(photo, shown(photo), empty), photo)
    assert math.isnan(psnr(color_correct(photo, photo, empty), photo, empty))
    grey = torch.full_like(photo, 100)
    fitted = color_correct(grey, photo).reshape(-1, 3).float()
    assert fitted.std(0).max() == 0  # one colour: the photo's mean
    torch.testing.assert_close(fitted[0], photo.reshape(-1, 3).float().mean(0), atol=0.5, rtol=0)
    assert torch.equal(color_correct(torch.zeros_like(photo), torch.zeros_like(photo)), torch.zeros_like(photo))
    one = photo.float().mean(-1, keepdim=True).expand(-1, -1, 3).round().to(torch.uint8)  # grey throughout
    assert psnr(color_correct(one, photo), photo) >= psnr(one, photo)
