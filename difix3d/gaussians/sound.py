"""Splats that cannot be drawn: files of many programs hold some."""

import logging
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from difix3d.errors import UserError
from difix3d.types import Gaussians

log = logging.getLogger(__name__)

LARGEST_LOGIT = 15.0
"""Stands for an opacity of 1, and its negative for 0, whose own logits are infinite: bytes hold both."""


def sound(gaussians: Gaussians, path: Path) -> Gaussians:
    """The model without splats that hold NaN or infinity, have no size or no rotation; says how many went.

    Opacities of 0 and 1 are no fault, though their logits are infinite.

    Args:
        gaussians: as they were read.
        path: from where, for the word.

    Raises:
        UserError: none is left.
    """
    opacities = gaussians.opacities.nan_to_num(torch.nan, LARGEST_LOGIT, -LARGEST_LOGIT)
    gaussians = replace(gaussians, opacities=opacities)
    length = gaussians.quats.square().sum(1)
    variance = (2 * gaussians.scales).exp().amax(1)  # an infinite one cannot be drawn either
    good = finite_rows(gaussians) & (length > 0) & length.isfinite() & variance.isfinite()
    if not good.any():
        raise UserError(
            f"{path} has no splat that can be drawn",
            f"It has {len(good):,}, all with NaN, infinite or zero values" if len(good) else "It has none at all",
            "Export it again",
        )
    bad = len(good) - int(good.sum())
    if bad:
        log.warning("%s: %s of %s splats dropped: NaN, infinite or zero values", path, f"{bad:,}", f"{len(good):,}")
    return gaussians.map(lambda tensor: tensor[good]) if bad else gaussians


def finite_rows(gaussians: Gaussians) -> Bool[Tensor, "N"]:
    """Which splats have no NaN and no infinity."""
    parts = [tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None] for tensor in gaussians.as_dict().values()]
    return torch.stack([part.isfinite().all(1) for part in parts]).all(0)


def up_to_degree_3(shN: Tensor) -> Tensor:
    """Coefficients [N,R,3] without those of degree 4, which nothing here draws; says so."""
    if shN.shape[1] > 15:
        log.warning("harmonics of degree 4 are left out: degrees 0 to 3 are drawn")
    return shN[:, :15]
