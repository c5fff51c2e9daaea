"""Damage to a good model that looks like what too few photos do: holes, needles, fog."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from difix3d.geometry.poses import pose_distance
from difix3d.geometry.sh import SH_C0
from difix3d.render import rasterize
from difix3d.types import Cameras, Gaussians

SIDE = 160
"""Long side, in pixels, of the pictures by which it is told which Gaussians a camera sees."""

MAX_CAMERAS = 24
"""Cameras whose pictures are looked at, at the most."""

SEEN = 0.05
"""Pixels of such a picture that a Gaussian has to colour to count as seen."""


def prune(gaussians: Gaussians, strength: float, random: torch.Generator) -> Gaussians:
    """Takes away 20 to 80 % of the Gaussians."""
    keep = torch.rand(len(gaussians), generator=random) > 0.2 + 0.6 * strength
    keep[0] = True
    return gaussians.map(lambda tensor: tensor[keep.to(tensor.device)])


def jitter_scales(gaussians: Gaussians, strength: float, random: torch.Generator) -> Gaussians:
    """Factors of e to the normal noise of deviation 0.2 to 0.8, for each axis."""
    return replace(gaussians, scales=gaussians.scales + (0.2 + 0.6 * strength) * _noise(gaussians.scales, random))


def jitter_rotations(gaussians: Gaussians, strength: float, random: torch.Generator) -> Gaussians:
    """Turns by normal noise of deviation 0.1 to 0.6 on unit quaternions."""
    quats = torch.nn.functional.normalize(gaussians.quats, dim=-1)
    return replace(gaussians, quats=quats + (0.1 + 0.5 * strength) * _noise(quats, random))


def jitter_opacities(gaussians: Gaussians, strength: float, random: torch.Generator) -> Gaussians:
    """Normal noise of deviation 0.5 to 3 on the logits."""
    noise = _noise(gaussians.opacities, random)
    return replace(gaussians, opacities=gaussians.opacities + (0.5 + 2.5 * strength) * noise)


JITTERS: dict[str, Callable[[Gaussians, float, torch.Generator], Gaussians]] = {
    "prune": prune,
    "scales": jitter_scales,
    "rotations": jitter_rotations,
    "opacities": jitter_opacities,
}
DROP_VIEWS = "views"
"""The kind that leaves only what some neighbouring cameras see, as if the others had taken no photos."""


def damage(
    good: Gaussians, cameras: Cameras, near: float, rng: np.random.Generator
) -> tuple[Gaussians, list[int], str]:
    """One or two kinds of damage, each of random strength.

    Args:
        good: the model; it stays as it is.
        cameras: those that it was trained on.
        near: depth nearer than which nothing is drawn.
        rng: of kinds and strengths.

    Returns:
        the damaged model, indices of the cameras whose part of the scene is still in it, and what was done.
    """
    kinds = rng.choice([*JITTERS, DROP_VIEWS], int(rng.integers(1, 3)), replace=False).tolist()
    damaged = good
    done = []
    kept = list(range(len(cameras)))
    if DROP_VIEWS in kinds:  # first, while it is known what is seen
        count = max(2, round(float(rng.uniform(0.2, 0.5)) * len(cameras)))
        kept = neighbours(cameras, int(rng.integers(len(cameras))), count)
        keep = seen(good, cameras[kept], near)
        damaged = good.map(lambda tensor: tensor[keep])
        done.append(f"{DROP_VIEWS} {count}")
    for kind in JITTERS:
        if kind in kinds:
            strength = float(rng.uniform())
            random = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
            damaged = JITTERS[kind](damaged, strength, random)
            done.append(f"{kind} {strength:.2f}")
    return damaged, kept, ", ".join(done)


def neighbours(cameras: Cameras, index: int, count: int) -> list[int]:
    """The ``count`` cameras nearest to one of them, itself included."""
    return sorted(pose_distance(cameras.c2w[index], cameras.c2w).argsort()[:count].tolist())


@torch.enable_grad()
def seen(gaussians: Gaussians, cameras: Cameras, near: float) -> Bool[Tensor, "N"]:
    """Which Gaussians colour something in the cameras' pictures.

    The derivative of a picture's sum by a Gaussian's colour is the sum of its blending weights, over the pixels.
    """
    sh0 = torch.zeros_like(gaussians.sh0, requires_grad=True)
    grey = replace(gaussians, sh0=sh0, shN=gaussians.shN[:, :0])
    found = torch.zeros(len(gaussians), dtype=torch.bool, device=gaussians.device)
    chosen = torch.linspace(0, len(cameras) - 1, min(MAX_CAMERAS, len(cameras))).round().long().tolist()
    for index in chosen:
        picture = rasterize(grey, cameras[index].limited(SIDE).to(gaussians.device), near=near, depth=False).rgb
        (gradient,) = torch.autograd.grad(picture[..., 0].sum(), sh0)
        found |= gradient[:, 0, 0] > SEEN * SH_C0
    if not found.any():
        found[0] = True
    return found


def _noise(like: Tensor, random: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=random).to(like)
