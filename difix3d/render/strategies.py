"""gsplat's densification strategies on any device and version.

They are pure Python, but ``MCMCStrategy`` calls two CUDA functions. On a CPU run it like this (on CUDA the context does
nothing)::

    with strategies_on(gaussians.device):
        strategy.step_post_backward(params, optimizers, state, step, strategy_info(render.info), lr=lr)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from jaxtyping import Float, Int
from packaging.version import Version
from torch import Tensor

from difix3d.geometry.poses import rotation_matrices


def compute_relocation(
    opacities: Float[Tensor, "N"],
    scales: Float[Tensor, "N 3"],
    ratios: Int[Tensor, "N"],
    binoms: Float[Tensor, "M M"],
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
    """Opacity and scales (after the activations) of each of ``ratios`` Gaussians that replace one and look the same.

    Equation 9 of Kheradmand et al., "3D Gaussian Splatting as Markov Chain Monte Carlo", 2024.

    Args:
        binoms: binomial coefficients, as ``MCMCStrategy.initialize_state`` makes them; ratios above M count as M.
    """
    ratios = ratios.clamp(1, len(binoms)).long()
    opacity, k = opacities.double(), torch.arange(len(binoms), dtype=torch.float64)
    new = 1 - (1 - opacity) ** (1 / ratios)
    # Double sum over i <= ratio and k < i of binom(i - 1, k) (-1)^k / sqrt(k + 1) new^(k + 1), the one over i first.
    coefficients = binoms.double().cumsum(0)[ratios - 1] * (-1) ** k / (k + 1).sqrt()
    denominator = (coefficients * new[:, None] ** (k + 1)).sum(1)
    return new.to(opacities), scales * (opacity / denominator).to(scales)[:, None]


def quat_scale_to_covar_preci(
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    compute_covar: bool = True,
    compute_preci: bool = True,
    triu: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """Covariances and their inverses [N,3,3], or ``None`` for those not asked for; scales after the activation."""
    if triu:
        raise NotImplementedError("packed triangles are not needed by the strategies")
    rotation = rotation_matrices(quats)

    def quadratic(factors: Tensor) -> Tensor:
        half = rotation * factors[:, None]
        return half @ half.transpose(1, 2)

    return quadratic(scales) if compute_covar else None, quadratic(1 / scales) if compute_preci else None


@contextmanager
def strategies_on(device: torch.device | str) -> Iterator[None]:
    """Within it, gsplat's strategies work on the device: on a CPU two names in ``gsplat.strategy.ops`` are replaced."""
    if torch.device(device).type == "cuda":
        yield
        return
    from gsplat.strategy import ops

    before = ops.compute_relocation, ops.quat_scale_to_covar_preci
    ops.compute_relocation, ops.quat_scale_to_covar_preci = compute_relocation, quat_scale_to_covar_preci
    try:
        yield
    finally:
        ops.compute_relocation, ops.quat_scale_to_covar_preci = before


def strategy_info(info: dict[str, Any]) -> dict[str, Any]:
    """``Render.info`` as the installed gsplat's strategies read it: before 1.5 a Gaussian has a single radius."""
    if Version(version("gsplat")) >= Version("1.5"):
        return info
    return {**info, "radii": info["radii"].amax(-1)}
