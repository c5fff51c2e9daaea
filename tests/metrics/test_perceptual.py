"""LPIPS against values that the reference implementation gave, and against a formulation by loops."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from shared_data import SHARED, require

from difix3d.errors import UserError
from difix3d.features.weights import VARIABLE
from difix3d.metrics import LPIPS

NETS = ("vgg", "alex")


@pytest.fixture(scope="module", params=NETS)
def metric(request):
    folder = Path(os.environ.get(VARIABLE) or require(SHARED / "weights"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        yield LPIPS(request.param)


@pytest.fixture(scope="module")
def cases():
    return np.load(require(SHARED / "golden" / "metrics.npz"))


def picture(cases, name):
    return torch.from_numpy(cases[f"{name}_image"])


def floats(image):
    return image.permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("name", ["blur", "noise", "shift", "dark", "other", "same"])
def test_lpips_equals_the_recorded_values(metric, cases, name):
    recorded = float(cases[f"{name}_lpips_{metric.net}"])
    image, reference = picture(cases, name), picture(cases, "reference")
    assert metric.score(image, reference) == pytest.approx(recorded, abs=1e-6)
    assert float(metric(floats(image), floats(reference))) == pytest.approx(recorded, abs=1e-6)


def test_lpips_equals_loops_over_layers_and_pixels(metric):
    torch.manual_seed(0)
    a, b = torch.rand(2, 2, 3, 40, 48)
    mean, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    expected = torch.zeros(2, dtype=torch.float64)
    for item in range(2):
        # the reference's own normalisation, of images in -1..1
        x, y = (((2 * image[item] - 1) - mean[:, None, None]) / scale[:, None, None] for image in (a, b))
        for fa, fb, head in zip(metric.network(x[None]), metric.network(y[None]), metric.heads, strict=True):
            _, channels, height, width = fa.shape
            total = 0.0
            for row in range(height):
                for column in range(width):
                    u, v = fa[0, :, row, column].double(), fb[0, :, row, column].double()
                    u, v = u / (u.square().sum().sqrt() + 1e-10), v / (v.square().sum().sqrt() + 1e-10)
                    total += float(((u - v).square() * head.double().view(channels)).sum())
            expected[item] += total / (height * width)
    torch.testing.assert_close(metric(a, b).double(), expected, rtol=1e-4, atol=1e-5)


def test_the_map_is_large_where_the_images_differ_and_its_mean_is_close(metric, cases):
    reference = picture(cases, "reference")
    image = reference.clone()
    image[:96] = picture(cases, "blur")[:96]
    a, b = floats(image), floats(reference)
    spatial = metric.map(a, b)
    assert spatial.shape == (1, *image.shape[:2])
    assert spatial[:, :60].mean() > 20 * spatial[:, 150:].mean()
    assert float(spatial.mean()) == pytest.approx(float(metric(a, b)), rel=0.02)


def test_a_mask_leaves_out_what_lies_outside_of_it(metric, cases):
    reference = picture(cases, "reference")
    image = picture(cases, "blur").clone()
    mask = torch.ones(image.shape[:2], dtype=torch.bool)
    mask[:, 128:] = False
    inside = metric.score(image, reference, mask)
    image[:, 128:] = 0
    assert metric.score(image, reference, mask) == inside > 0
    assert metric.score(torch.where(mask[..., None], reference, image), reference, mask) == 0
    assert math.isnan(metric.score(image, reference, torch.zeros_like(mask)))
    whole = metric.score(picture(cases, "blur"), reference, torch.ones_like(mask))
    assert whole == pytest.approx(float(cases[f"blur_lpips_{metric.net}"]), abs=1e-4)


def test_the_gradient_is_that_of_finite_differences(metric):
    torch.manual_seed(0)
    metric.double()
    try:
        a, b, direction = torch.rand(3, 1, 3, 33, 35, dtype=torch.float64)
        a.requires_grad_()
        metric(a, b).sum().backward()
        step = 1e-6 * direction
        with torch.no_grad():
            slope = float(metric(a + step, b) - metric(a - step, b)) / 2e-6
        assert float((a.grad * direction).sum()) == pytest.approx(slope, rel=1e-3)
        assert all(parameter.grad is None for parameter in metric.parameters())
    finally:
        metric.float()


def test_the_gradient_is_finite_where_the_features_vanish(metric):
    black = torch.zeros(1, 3, 40, 40, requires_grad=True)
    metric(black, torch.rand(1, 3, 40, 40)).backward()
    assert black.grad.isfinite().all()
    same = torch.rand(1, 3, 40, 40, requires_grad=True)
    metric(same, same.detach()).backward()
    assert (same.grad == 0).all()


def test_too_small_an_image_is_named(metric):
    small = torch.zeros(15, 100, 3, dtype=torch.uint8)
    with pytest.raises(UserError, match=rf"100 x 15 pixels is too small for LPIPS \({metric.net}\)"):
        metric.score(small, small)
    least = 16 if metric.net == "vgg" else 31
    just = torch.randint(0, 256, (2, least, least, 3), dtype=torch.uint8)
    assert metric.score(just[0], just[1]) > 0


def test_importing_the_metrics_is_cheap():
    code = (
        "import sys, difix3d.metrics; print([m for m in ('transformers', 'pycolmap', 'diffusers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
