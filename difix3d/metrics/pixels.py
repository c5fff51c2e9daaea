"""Metrics of single pictures that compare pixel by pixel."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from difix3d.ssim import ssim as ssim_map


def psnr(
    image: UInt8[Tensor, "H W 3"], target: UInt8[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images, NaN if the mask is empty."""
    return float(psnr_there(image, target, mask))


def psnr_there(
    image: UInt8[Tensor, "H W 3"], target: UInt8[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> Float[Tensor, ""]:
    """:func:`psnr`, left on the device of the pictures, so that no host waits for it."""
    difference = (image.float() - target.float()) / 255
    return -10 * torch.log10(_mean(difference.square(), mask))


def ssim(
    image: UInt8[Tensor, "H W 3"], target: UInt8[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> float:
    """Structural similarity in -1..1, the variant of 3DGS (11 x 11 Gaussian window of sigma 1.5, zero padding).

    With a mask, what lies outside of it is made equal before, and does not enter the mean.
    """
    return float(ssim_there(image, target, mask))


def ssim_there(
    image: UInt8[Tensor, "H W 3"], target: UInt8[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> Float[Tensor, ""]:
    """:func:`ssim`, left on the device of the pictures, so that no host waits for it."""
    if mask is not None:
        image = torch.where(mask[..., None], image, target)
    return _mean(ssim_map(image[None].float() / 255, target[None].float() / 255)[0], mask)


def _mean(values: Float[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None) -> Float[Tensor, ""]:
    if mask is None:
        return values.mean()
    if values.is_cuda:  # which would have to tell its host how many pixels there are
        return (values * mask[..., None]).sum() / (values.shape[2] * mask.sum())
    return values[mask].mean()


def contrast(
    image: UInt8[Tensor, "H W 3"], target: UInt8[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> float:
    """The factor that the target's contrast was multiplied by: slope of the least-squares line from the target's values
    to the image's, mean of the channels; NaN if a channel of the target has one value only, or the mask is empty."""
    pixels = [(x if mask is None else x[mask]).float().reshape(-1, 3) for x in (image, target)]
    y, x = (values - values.mean(0) for values in pixels)
    return float(((x * y).sum(0) / x.square().sum(0)).mean())


@dataclass(frozen=True)
class ErrorSplit:
    """PSNR in dB before and after fixing, apart for pixels that were right and pixels that were wrong before.

    Attributes:
        right_before, right_after: PSNR of the render and of the fixed image on them. After lower than before: fixing
            did harm. Infinite where there is no error at all.
        wrong_before, wrong_after: the same on the others; NaN if there are none.
    """

    right_before: float
    right_after: float
    wrong_before: float
    wrong_after: float


def error_split(
    render: UInt8[Tensor, "H W 3"],
    fixed: UInt8[Tensor, "H W 3"],
    photo: UInt8[Tensor, "H W 3"],
    mask: Bool[Tensor, "H W"] | None = None,
) -> ErrorSplit:
    """Did fixing harm what was right, and did it help where it was needed?

    A pixel of the render was right up to the median of its error (mean absolute error over the channels): both sides
    have half of the pixels, but for ties, which are right.

    Args:
        mask: pixels that count.

    Returns:
        NaN throughout if the mask is empty.
    """
    mask = torch.ones_like(render[..., 0], dtype=torch.bool) if mask is None else mask
    error = (render.float() - photo.float()).abs().mean(-1) / 255
    threshold = float(np.median(error[mask].cpu().numpy())) if mask.any() else math.nan
    right, wrong = mask & (error <= threshold), mask & (error > threshold)
    return ErrorSplit(
        right_before=psnr(render, photo, right),
        right_after=psnr(fixed, photo, right),
        wrong_before=psnr(render, photo, wrong),
        wrong_after=psnr(fixed, photo, wrong),
    )
