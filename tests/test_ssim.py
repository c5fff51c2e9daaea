"""SSIM: the C++ against the twin, the twin against scikit-image's definition and finite differences."""

import numpy as np
import pytest
import torch

from difix3d import native
from difix3d.ssim import ssim, ssim_twin

needs_compiler = pytest.mark.skipif(native.find_compiler() is None, reason="needs a C++ compiler")


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    a = torch.rand(*shape, 3, generator=g)
    return a, (a + 0.2 * torch.randn(*shape, 3, generator=g)).clamp(0, 1)


@needs_compiler
@pytest.mark.parametrize("shape", [(1, 40, 31), (2, 7, 5), (3, 65, 64), (1, 1, 1), (1, 100, 3)])
def test_native_equals_twin(shape):
    a, b = pair(*shape)
    weight = torch.randn(*shape, 3)
    fast, slow = a.clone().requires_grad_(), a.double().requires_grad_()
    result, expected = ssim(fast, b), ssim_twin(slow, b.double())
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-4)
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    assert (fast.grad - slow.grad).norm() < 1e-4 * slow.grad.norm()
    assert torch.equal(ssim(a, b), result)  # without gradients too


def test_equal_images_have_ssim_one():
    a, _ = pair(1, 20, 30)
    torch.testing.assert_close(ssim(a, a), torch.ones_like(a), rtol=0, atol=1e-4)


def test_gradient_of_both():
    a, b = (x.double()[:, :6, :7].requires_grad_() for x in pair(1, 8, 8))
    assert torch.autograd.gradcheck(ssim, (a, b), fast_mode=True)
    c = pair(1, 8, 8)[1].requires_grad_()
    ssim(pair(1, 8, 8)[0], c).sum().backward()
    assert c.grad.abs().sum() > 0


def test_inside_it_is_the_usual_ssim():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = (x[0].double().numpy() for x in pair(1, 40, 50))
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1.0,
        "truncate": 3.5,
    }
    _, expected = metrics.structural_similarity(a, b, channel_axis=2, full=True, **options)
    result = ssim_twin(torch.tensor(a)[None], torch.tensor(b)[None])[0].numpy()
    np.testing.assert_allclose(result[6:-6, 6:-6], expected[6:-6, 6:-6], atol=1e-6)


@needs_compiler
def test_bits_do_not_depend_on_threads():
    a, b = pair(2, 70, 33)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        x = a.clone().requires_grad_()
        ssim(x, b).square().sum().backward()
        results.append(x.grad)
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_what_is_convolved_lies_channel_by_channel(monkeypatch):
    """As channels last, cuDNN may convolve in TF32, which is too coarse for variances."""
    convolve, seen = torch.nn.functional.conv2d, []

    def look(x, *args, **options):
        seen.append(x.is_contiguous())
        return convolve(x, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "conv2d", look)
    ssim_twin(*pair(1, 20, 30))
    assert seen == [True, True]
