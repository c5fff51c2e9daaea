"""Rasterising Gaussians that lie in several processes, on CPUs: as gsplat does on GPUs, without its speed.

Each process projects its Gaussians to the cameras of all; then each camera gets the projected ones of all processes
(Zhao et al., "On Scaling Up 3D Gaussian Splatting Training", 2024). Both are differentiable.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from difix3d.ranks import Ranks
from difix3d.types import Cameras


def cameras_of_all(cameras: Cameras, ranks: Ranks) -> Cameras:
    """The cameras of all processes, as many of each, all of one size; differentiable in their poses."""
    c2w = Everyones.apply(cameras.c2w, ranks)
    sizes = (x.repeat(ranks.count) for x in (cameras.width, cameras.height))
    return Cameras(c2w, torch.cat(ranks.everyones(cameras.K)), *sizes)


def to_their_cameras(x: Shaped[Tensor, "C n D"], ranks: Ranks) -> Shaped[Tensor, "c N D"]:
    """What this process's Gaussians are to all cameras -> what all Gaussians are to this process's cameras."""
    return Exchange.apply(x, ranks)


class Everyones(torch.autograd.Function):
    """[c,4,4] of each process -> [C,4,4] of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.count = ranks, len(x)
        return torch.cat(ranks.everyones(x.detach()))

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:
        start = ctx.ranks.rank * ctx.count
        total = torch.stack(ctx.ranks.everyones(v)).sum(0)
        return total[start : start + ctx.count], None


class Exchange(torch.autograd.Function):
    """[C,n,D] -> [c,N,D]; the gradients go back the way."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "C n D"], ranks: Ranks) -> Float[Tensor, "c N D"]:
        parts = ranks.everyones(x.detach().transpose(0, 1))
        ctx.ranks = ranks
        before = sum(len(part) for part in parts[: ranks.rank])
        ctx.own = slice(before, before + x.shape[1])
        return torch.cat([part.chunk(ranks.count, 1)[ranks.rank] for part in parts]).transpose(0, 1).contiguous()

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:
        return torch.cat(ctx.ranks.everyones(v))[:, ctx.own].contiguous(), None
