"""The terms of the training loss: one named function each, collected in a dict, summed once by the trainer.

Photometric terms take the per-pixel weights of a view (mask times confidence) into a mean over *all* pixels, so that a
view with few trusted pixels pulls less, not harder.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d import gpu, native
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
    """L1 and D-SSIM between renders (not clamped) and the views' images: the batch's mean, by the views' weights.

    float32 runs in C++ on a CPU and in Triton on a GPU, all else as :func:`l1` and :func:`dssim` say.
    """
    if _runs_in_triton(rgb, views):
        from difix3d.gpu.photometric import Photometric

        return dict(zip(("l1", "dssim"), Photometric.apply(rgb, views, config.dssim), strict=True))
    factors = [view.weight / len(views) for view in views]
    if _runs_natively(rgb, views):
        both = _Photometric.apply(rgb, views, factors, config.dssim > 0)
    else:
        both = [rgb.new_zeros(()), rgb.new_zeros(())]
        for render, view, factor in zip(rgb, views, factors, strict=True):
            weights = pixel_weights(view)
            both[0] = both[0] + factor * l1(render, view.image, weights)
            if config.dssim > 0:
                both[1] = both[1] + factor * dssim(render, view.image, weights)
    return {"l1": (1 - config.dssim) * both[0], "dssim": config.dssim * both[1]}


def squared_error(rgb: Float[Tensor, "B H W 3"], views: list[View]) -> Float[Tensor, ""]:
    """Mean squared difference of renders and views, whatever their weights; without a gradient."""
    rgb = rgb.detach()
    if _runs_in_triton(rgb, views):
        from difix3d.gpu import photometric

        return photometric.squared_error(rgb, views)
    if not _runs_natively(rgb, views):
        return torch.stack([(x - view.image).square().mean() for x, view in zip(rgb, views, strict=True)]).mean()
    sums = torch.empty(len(views), dtype=torch.float64)
    library = native.load()
    threads = torch.get_num_threads()
    for render, view, total in zip(rgb.contiguous(), views, sums, strict=True):
        image = view.image.contiguous()
        native.call(library.difix3d_squared_error, render, image, image.numel(), threads, total)  # type: ignore[union-attr]
    return (sums.sum() / rgb.numel()).float()


def _runs_natively(rgb: Tensor, views: list[View]) -> bool:
    return rgb.device.type == "cpu" and _float32_on_one_device(rgb, views) and native.load() is not None


def _runs_in_triton(rgb: Tensor, views: list[View]) -> bool:
    return gpu.usable(rgb) and _float32_on_one_device(rgb, views)


def _float32_on_one_device(rgb: Tensor, views: list[View]) -> bool:
    tensors = [rgb, *(view.image for view in views)]
    tensors += [view.confidence for view in views if view.confidence is not None]
    return all(x.device == rgb.device and x.dtype == torch.float32 for x in tensors)


class _Photometric(torch.autograd.Function):
    """Renders [B,H,W,3], views and their factors -> L1 and D-SSIM, summed with the factors."""

    @staticmethod
    def forward(ctx: Any, rgb: Tensor, views: list[View], factors: list[float], structure: bool) -> tuple[Tensor, ...]:
        rgb = rgb.detach().contiguous()
        height, width = rgb.shape[1:3]
        terms, partials = torch.zeros(len(rgb), 2), torch.empty(len(rgb), 3, *rgb.shape[1:]) if structure else None
        pairs = [
            [x if x is None else x.contiguous() for x in (render, view.image, view.mask, view.confidence)]
            for render, view in zip(rgb, views, strict=True)
        ]
        for i, pair in enumerate(pairs):
            kept = None if partials is None else partials[i]
            compare = native.load().difix3d_compare  # type: ignore[union-attr]
            native.call(compare, *pair, height, width, torch.get_num_threads(), kept, terms[i])
        ctx.save_for_backward(rgb, partials)
        ctx.inputs = pairs, factors
        l1, dissimilarity = torch.tensor(factors) @ terms
        return l1, dissimilarity

    @staticmethod
    def backward(ctx: Any, v_l1: Tensor, v_dssim: Tensor) -> tuple[Tensor, None, None, None]:
        rgb, partials = ctx.saved_tensors
        height, width = rgb.shape[1:3]
        v_rgb = torch.empty_like(rgb)
        backward = native.load().difix3d_compare_backward  # type: ignore[union-attr]
        for i, (pair, factor) in enumerate(zip(*ctx.inputs, strict=True)):
            gradients = factor * float(v_l1), factor * float(v_dssim)
            kept = None if partials is None else partials[i]
            native.call(backward, *pair, height, width, torch.get_num_threads(), kept, *gradients, v_rgb[i])
        return v_rgb, None, None, None


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
        target: their depths; points at 0 or behind (as those behind the camera) do not count.
    """
    height, width, _ = depth.shape
    column = pixels[:, 0].long().clamp(0, width - 1)
    row = pixels[:, 1].long().clamp(0, height - 1)
    rendered, ahead = depth[row, column, 0], target > 0
    difference = 1 / rendered.clamp_min(1e-6) - 1 / target.clamp_min(1e-6)
    return torch.where(ahead & (rendered > 0), difference, 0.0).abs().sum() / ahead.sum().clamp_min(1)
