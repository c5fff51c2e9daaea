"""Dropout of Gaussians: each step on photos leaves some out, so that none gets by without the others behind it.

From few photos, a Gaussian right in front of a camera explains its pixels and hides all others from them, wherever it
is. Left out now and then, what lies behind is trained as well (DropGaussian, Park et al. 2025).
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from difix3d.types import Gaussians

RATE = 0.2
"""What is left out where views are far off the photos."""
FADE = 0.15
"""The last share of a run, in which the rate falls to 0: the whole model is trained as it is shown."""
MAX_OPACITY = 0.999
"""The most that a rasteriser lets a Gaussian cover."""
GONE = -30.0
"""Logit of an opacity that no rasteriser draws."""


def rate_at(rate: float, step: int, max_steps: int) -> float:
    """The share of Gaussians that a step leaves out: ``rate``, falling to 0 over the last :data:`FADE` of the run."""
    return rate * min(1.0, (1 - step / max_steps) / FADE)


def drop(gaussians: Gaussians, rate: float) -> tuple[Gaussians, Bool[Tensor, "N"]]:
    """A model without a random share of its Gaussians, and which are left.

    Opacities of those that are left grow by 1 / (1 - rate), so that the expected opacity stays, up to
    :data:`MAX_OPACITY`. The others are not drawn and get no gradient. Draws from torch's generator of the device.

    Args:
        gaussians: the model.
        rate: probability, below 1, that one is left out.
    """
    keep = torch.rand(len(gaussians), device=gaussians.device) >= rate
    grown = (gaussians.opacities.sigmoid() / (1 - rate)).clamp(1e-10, MAX_OPACITY).logit()
    return replace(gaussians, opacities=torch.where(keep, grown, GONE)), keep


def without(info: dict[str, Any], keep: Bool[Tensor, "N"]) -> dict[str, Any]:
    """``Render.info`` in which Gaussians that were left out do not count as seen: their mean gradients, by which
    Gaussians are added, must not fall by steps that they had no part in."""
    ids = info["gaussian_ids"]
    seen = keep[:, None] if ids is None else keep[ids][:, None]
    return info | {"radii": torch.where(seen, info["radii"], 0)}
