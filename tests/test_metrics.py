import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from difix3d.metrics import psnr, ssim
from difix3d.ssim import ssim as ssim_map


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


def test_ssim_equals_skimage_away_from_the_border():
    """An independent computation; the borders differ (zeros here, as in 3DGS; reflection there)."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    other = np.clip(image + rng.normal(0, 20, image.shape), 0, 255).astype(np.uint8)
    _, expected = structural_similarity(
        image, other, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[8:-8, 8:-8] = True
    inside = float(expected[8:-8, 8:-8].mean())
    ours = ssim_map(torch.from_numpy(image)[None].float() / 255, torch.from_numpy(other)[None].float() / 255)
    assert float(ours[0][mask].mean()) == pytest.approx(inside, abs=1e-4)
