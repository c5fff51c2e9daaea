"""The terms of the training loss: one named function each, collected in a dict, summed once by the trainer.

Photometric terms take the per-pixel weights of a view (mask times confidence) into a mean over *all* pixels, so that a
view with few trusted pixels pulls less, not harder.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.limits import Limits
from difix3d.ssim import ssim
from difix3d.types import Gaussians, View

Image = Float[Tensor, "H W 3"]
Weights = Float[Tensor, "H W"]


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; 0 leaves a term out."""

    dssim: Annotated[float, Limits(min=0, max=1)] = 0.2
    """Share of D-SSIM in the photometric loss; the rest is L1 (3DGS, eq. 7)."""
    opacity: Annotated[float, Limits(min=0)] = 0.0
    """Mean opacity. MCMC densification wants 0.01, so that what is not needed dies."""
    scale: Annotated[float, Limits(min=0)] = 0.0
    """Mean standard deviation in scene units. MCMC densification wants 0.01."""
    depth: Annotated[float, Limits(min=0)] = 0.0
    """L1 of inverse depth, in inverse scene units, at the sparse points that a photo sees; 0.01 is a good start."""


def l1(render: Image, target: Image, weights: Weights | None) -> Float[Tensor, ""]:
    """Mean absolute difference."""
    if weights is None:
        return torch.nn.functional.l1_loss(render, target)
    return ((render - target).abs().mean(-1) * weights).mean()


def dssim(render: Image, target: Image, weights: Weights | None) -> Float[Tensor, ""]:
    """1 - SSIM. Where the weight is 0 the target becomes the render: windows across the edge see no difference."""
    if weights is not None:
        target = torch.where(weights[..., None] > 0, target, render.detach())
    similarity = ssim(render[None], target[None])[0].mean(-1)
    return (1 - similarity).mean() if weights is None else ((1 - similarity) * weights).mean()


def photometric(rgb: Float[Tensor, "B H W 3"], views: list[View], config: LossConfig) -> dict[str, Tensor]:
    """L1 and D-SSIM between renders (not clamped) and the views' images: the batch's mean, by the views' weights."""
    terms = {"l1": rgb.new_zeros(()), "dssim": rgb.new_zeros(())}
    for render, view in zip(rgb, views, strict=True):
        weights = pixel_weights(view)
        factor = view.weight / len(views)
        terms["l1"] = terms["l1"] + factor * (1 - config.dssim) * l1(render, view.image, weights)
        if config.dssim > 0:
            terms["dssim"] = terms["dssim"] + factor * config.dssim * dssim(render, view.image, weights)
    return terms


def pixel_weights(view: View) -> Weights | None:
    """Mask times confidence, or ``None`` where every pixel counts fully."""
    if view.mask is None:
        return view.confidence
    return view.mask.float() if view.confidence is None else view.mask * view.confidence


def regularize(gaussians: Gaussians, config: LossConfig) -> dict[str, Tensor]:
    """Opacity and scale regularisers (3DGS as MCMC, section 3.4)."""
    terms = {}
    if config.opacity > 0:
        terms["opacity"] = config.opacity * torch.sigmoid(gaussians.opacities).mean()
    if config.scale > 0:
        terms["scale"] = config.scale * torch.exp(gaussians.scales).mean()
    return terms


def sparse_depth(
    depth: Float[Tensor, "H W 1"], pixels: Float[Tensor, "P 2"], target: Float[Tensor, "P"]
) -> Float[Tensor, ""]:
    """Mean absolute difference of inverse depth at sparse points.

    Args:
        depth: rendered depth in scene units, 0 where nothing is seen (such points do not count).
        pixels: where the points project, in pixels (centre of the first pixel at 0.5).
        target: their depths, positive.
    """
    height, width, _ = depth.shape
    column = pixels[:, 0].long().clamp(0, width - 1)
    row = pixels[:, 1].long().clamp(0, height - 1)
    rendered = depth[row, column, 0]
    seen = rendered > 0
    difference = torch.where(seen, 1 / rendered.clamp_min(1e-6) - 1 / target, 0.0)
    return difference.abs().sum() / max(len(target), 1)
