"""Puts back the colours that a fixer shifts: it should repair what is wrong, and leave brightness and contrast alone.

One affine map for each channel, fitted from the fixed image to its render by iteratively reweighted least squares
(Geman-McClure weights, whose scale shrinks from fit to fit: graduated non-convexity, Blake and Zisserman 1987).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d import gpu
from difix3d.geometry.warp import COVERED

SIDE = 64
"""The fit sees means over cells: at most so many along the long side. Noise and sharpness do not matter to it."""
SCALES = tuple(0.2 * 0.1 ** (i / 7) for i in range(8))
"""Fit by fit, the colour error (0..1, root mean square of the channels) of a cell that counts a quarter."""
PRIOR = (1e-3, 0.02)
"""Pull toward the fixed image itself: variance, and share of the picture, that count as much as what is seen."""
EXPLAINED = (0.35, 0.6)
"""Share of the covered picture that the map must explain to be used at all, and wholly. Where less fits, the content
changed, and what a map would put back is the damage."""
GAIN = (0.85, 2.0)
"""Gains that are used wholly. A fixer that raises contrast further has taken haze away, which shall not come back."""
BEYOND = 0.1
"""How far out of these limits a gain is not used any more."""


def anchor_colors(
    fixed: Float[Tensor, "B 3 H W"], render: Float[Tensor, "B 3 H W"], alpha: Float[Tensor, "B H W"] | None = None
) -> Float[Tensor, "B 3 H W"]:
    """Fixed images with the colours of their renders; nothing waits for the GPU.

    Args:
        fixed: what a fixer made of the renders, 0..1.
        render: what it was given, 0..1.
        alpha: coverage, 0..1; what is not covered has no colour to compare with. ``None`` for all covered.
    """
    gain, offset = color_map(fixed, render, alpha)
    return (gain * fixed + offset).clamp(0, 1).to(fixed)


@torch.no_grad()
def color_map(
    fixed: Float[Tensor, "B 3 H W"], render: Float[Tensor, "B 3 H W"], alpha: Float[Tensor, "B H W"] | None = None
) -> tuple[Float[Tensor, "B 3 1 1"], Float[Tensor, "B 3 1 1"]]:
    """Gain and offset of each channel; 1 and 0 where there is nothing to go by. Arguments as above."""
    height, width = fixed.shape[-2:]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    covered = torch.ones_like(fixed[:, 0]) if alpha is None else (alpha >= COVERED).to(fixed)
    covered = covered[:, None].float()
    sums = torch.cat([covered, fixed * covered, render * covered], 1)
    sums = torch.nn.functional.interpolate(sums, size, mode="area").flatten(2)
    if gpu.usable(sums):
        from difix3d.gpu import anchor

        numbers: Any = {"scales": SCALES, "prior": PRIOR, "explained": EXPLAINED, "gains": GAIN, "beyond": BEYOND}
        gain, offset = anchor.fit_colors(sums, **numbers)
    else:
        gain, offset = fit_colors(sums)
    return gain[..., None, None], offset[..., None, None]


def fit_colors(sums: Float[Tensor, "B 7 N"]) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B 3"]]:
    """The fit, and how much of it is used.

    Args:
        sums: of each cell the share of its pixels that is covered, and, times that, the mean colours of the fixed image
            and of the render there.
    """
    share, x, y = sums.split([1, 3, 3], 1)
    x, y = x / share.clamp(min=1e-6), y / share.clamp(min=1e-6)

    weight = share
    for tolerated in SCALES:
        gain, offset = _fit(x, y, weight)
        error = (gain * x + offset - y).square().mean(1, keepdim=True)
        weight = share / (1 + error / tolerated**2).square()
    explained = weight.sum(-1, keepdim=True) / share.sum(-1, keepdim=True).clamp(min=1e-6)
    outside = ((GAIN[0] - gain).clamp(min=0) + (gain - GAIN[1]).clamp(min=0)).amax(1, keepdim=True)
    used = ((explained - EXPLAINED[0]) / (EXPLAINED[1] - EXPLAINED[0])).clamp(0, 1)
    used = used * (1 - outside / BEYOND).clamp(min=0)
    return (1 + used * (gain - 1))[..., 0], (used * offset)[..., 0]


def _fit(
    x: Float[Tensor, "B 3 N"], y: Float[Tensor, "B 3 N"], weight: Float[Tensor, "B 1 N"]
) -> tuple[Float[Tensor, "B 3 1"], Float[Tensor, "B 3 1"]]:
    """Gain and offset of the weighted least squares of ``y`` by ``x``, with :data:`PRIOR`."""
    cells = weight.shape[-1]
    total = weight.sum(-1, keepdim=True)
    mean_x, mean_y = ((weight * v).sum(-1, keepdim=True) / total.clamp(min=1e-6) for v in (x, y))
    apart, prior = x - mean_x, PRIOR[0] * cells
    covariance = (weight * apart * (y - mean_y)).sum(-1, keepdim=True)
    gain = (covariance + prior) / ((weight * apart.square()).sum(-1, keepdim=True) + prior)
    shift = (mean_y - mean_x) * total / (total + PRIOR[1] * cells)
    return gain, mean_x + shift - gain * mean_x
