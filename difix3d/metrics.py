"""Image metrics on 8-bit images, as papers compute them from saved PNGs."""

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from difix3d.ssim import ssim as ssim_map


def psnr(
    image: UInt8[Tensor, "H W 3"], target: UInt8[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images, NaN if the mask is empty."""
    difference = (image.float() - target.float()) / 255
    if mask is not None:
        difference = difference[mask]
    return float(-10 * torch.log10(difference.square().mean()))


def ssim(
    image: UInt8[Tensor, "H W 3"], target: UInt8[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> float:
    """Structural similarity in -1..1, the variant of 3DGS (11 x 11 Gaussian window of sigma 1.5, zero padding).

    With a mask, what lies outside of it is made equal before, and does not enter the mean.
    """
    if mask is not None:
        image = torch.where(mask[..., None], image, target)
    similarity = ssim_map(image[None].float() / 255, target[None].float() / 255)[0]
    return float(similarity.mean() if mask is None else similarity[mask].mean())
