"""SSIM (Wang et al. 2004) as 3DGS uses it: 11 x 11 Gaussian window, sigma 1.5, zeros outside of the image."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from difix3d import native

RADIUS, SIGMA = 5, 1.5
C1, C2 = 0.01**2, 0.03**2


def ssim(a: Float[Tensor, "B H W 3"], b: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B H W 3"]:
    """The SSIM map of images in 0..1; its mean is the SSIM. Differentiable in both.

    float32 on a CPU runs in C++ unless ``b`` needs a gradient; everything else is :func:`ssim_twin`.
    """
    fast = a.device.type == "cpu" and a.dtype == b.dtype == torch.float32 and not b.requires_grad
    if fast and native.load() is not None:
        return _Ssim.apply(a, b)
    return ssim_twin(a, b)


def ssim_twin(a: Float[Tensor, "B H W 3"], b: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B H W 3"]:
    """The same in plain torch, any dtype and device."""
    # as channels last, cuDNN may convolve in TF32, which is too coarse for variances
    x, y = (image.permute(0, 3, 1, 2).contiguous() for image in (a, b))
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=a.dtype, device=a.device)
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window = (window / window.sum()).expand(15, 1, 1, -1)
    moments = torch.cat([x, y, x * x, y * y, x * y], 1)
    moments = F.conv2d(moments, window, padding=(0, RADIUS), groups=15)
    moments = F.conv2d(moments, window.transpose(2, 3), padding=(RADIUS, 0), groups=15)
    mx, my, xx, yy, xy = moments.chunk(5, 1)
    luminance = (2 * mx * my + C1) / (mx**2 + my**2 + C1)
    structure = (2 * (xy - mx * my) + C2) / (xx - mx**2 + yy - my**2 + C2)
    return (luminance * structure).permute(0, 2, 3, 1)


class _Ssim(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        a, b = a.detach().contiguous(), b.detach().contiguous()
        result = torch.empty_like(a)
        partials = torch.empty(len(a), 3, *a.shape[1:]) if ctx.needs_input_grad[0] else None
        threads = torch.get_num_threads()
        for i in range(len(a)):
            kept = None if partials is None else partials[i]
            native.call(native.load().difix3d_ssim, a[i], b[i], *a.shape[1:3], threads, result[i], kept)  # type: ignore[union-attr]
        ctx.save_for_backward(a, b, partials)
        return result

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:
        a, b, partials = ctx.saved_tensors
        v, v_a = v.contiguous(), torch.empty_like(a)
        backward, threads = native.load().difix3d_ssim_backward, torch.get_num_threads()  # type: ignore[union-attr]
        for i in range(len(a)):
            native.call(backward, a[i], b[i], *a.shape[1:3], threads, partials[i], v[i], v_a[i])
        return v_a, None
