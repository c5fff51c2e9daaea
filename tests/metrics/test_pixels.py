import math

import numpy as np
import pytest
import torch

from difix3d.metrics import contrast, error_split, psnr, ssim


def test_psnr_of_a_known_difference():
    image = torch.full((4, 5, 3), 100, dtype=torch.uint8)
    assert psnr(image, image + 10) == pytest.approx(20 * math.log10(25.5), abs=1e-4)
    assert psnr(image, image) == math.inf
    mask = torch.zeros(4, 5, dtype=torch.bool)
    assert math.isnan(psnr(image, image, mask))
    mask[0, 0] = True
    other = image.clone()
    other[0, 0] += 10
    assert psnr(image, other, mask) == pytest.approx(20 * math.log10(25.5), abs=1e-4)


def test_contrast_is_a_factor():
    photo = torch.randint(0, 256, (20, 30, 3), dtype=torch.uint8)
    faded = (photo.float() * 0.5 + 60).round().to(torch.uint8)
    assert contrast(photo, photo) == 1
    assert contrast(faded, photo) == pytest.approx(0.5, abs=0.01)
    mask = torch.zeros(20, 30, dtype=torch.bool)
    assert math.isnan(contrast(faded, photo, mask))
    mask[:10] = True
    faded[10:] = 0
    assert contrast(faded, photo, mask) == pytest.approx(0.5, abs=0.01)


def test_ssim_ignores_what_the_mask_leaves_out():
    image = torch.randint(0, 256, (30, 30, 3), dtype=torch.uint8)
    other = image.clone()
    other[20:] = 0
    mask = torch.ones(30, 30, dtype=torch.bool)
    mask[20:] = False
    assert ssim(image, other, mask) == pytest.approx(1, abs=1e-6)
    assert ssim(image, other) < 0.9


@pytest.mark.parametrize("name", ["blur", "noise", "shift", "dark", "other"])
def test_psnr_equals_the_recorded_values(shared, name):
    cases = np.load(shared / "golden" / "metrics.npz")
    image, other = (torch.from_numpy(cases[key]) for key in ("reference_image", f"{name}_image"))
    assert psnr(other, image) == pytest.approx(float(cases[f"{name}_psnr"]), abs=1e-3)


def test_error_split_tells_harm_from_help():
    """Left half right within 1 of 255, right half wrong by 40: a fixer that leaves 10 everywhere harms and helps."""
    photo = torch.full((8, 10, 3), 100, dtype=torch.uint8)
    render = photo + torch.tensor([1] * 5 + [40] * 5, dtype=torch.uint8)[None, :, None]
    split = error_split(render, photo + 10, photo)

    def level(error):
        return pytest.approx(20 * math.log10(255 / error), abs=1e-3)

    assert (split.right_before, split.right_after) == (level(1), level(10))
    assert (split.wrong_before, split.wrong_after) == (level(40), level(10))


def test_error_split_within_a_mask():
    photo = torch.full((4, 10, 3), 100, dtype=torch.uint8)
    render = photo + torch.arange(10, dtype=torch.uint8)[None, :, None]
    mask = torch.zeros(4, 10, dtype=torch.bool)
    mask[:, :8] = True
    split = error_split(render, photo, photo, mask)  # right: errors of 0, 1, 2, 3
    assert split.right_before == pytest.approx(10 * math.log10(255**2 / 3.5), abs=1e-3)
    assert split.right_after == math.inf
    everything = error_split(photo + 1, photo, photo)
    assert math.isnan(everything.wrong_before)


def test_error_split_agrees_with_a_loop_over_pixels():
    generator = torch.Generator().manual_seed(0)
    render, fixed, photo = torch.randint(0, 256, (3, 9, 7, 3), dtype=torch.uint8, generator=generator)
    split = error_split(render, fixed, photo)
    errors = {}
    for row in range(9):
        for column in range(7):
            difference = render[row, column].double() - photo[row, column].double()
            errors[row, column] = sum(abs(float(x)) for x in difference) / 3
    median = sorted(errors.values())[31]
    right = [place for place, error in errors.items() if error <= median]
    squares = [(float(x) / 255) ** 2 for place in right for x in fixed[place].double() - photo[place].double()]
    assert split.right_after == pytest.approx(-10 * math.log10(sum(squares) / len(squares)), abs=1e-4)


def test_error_split_of_nothing_is_no_number():
    image = torch.zeros(4, 5, 3, dtype=torch.uint8)
    split = error_split(image, image, image, torch.zeros(4, 5, dtype=torch.bool))
    assert math.isnan(split.right_before)
    assert math.isnan(split.wrong_after)
