import math

import numpy as np
import pytest
import torch

from difix3d.metrics import psnr, ssim


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
