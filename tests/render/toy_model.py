"""A few Gaussians with all there is to turn, and two cameras."""

import math

import torch

from difix3d.types import Cameras, Gaussians


def gaussians() -> Gaussians:
    """61 of them around the origin, of degree 2."""
    rng = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=rng)

    return Gaussians(
        means=0.6 * normal(61, 3),
        quats=normal(61, 4),
        scales=-2 + 0.4 * normal(61, 3),
        opacities=normal(61),
        sh0=normal(61, 1, 3),
        shN=0.1 * normal(61, 8, 3),
    )


def cameras() -> Cameras:
    """Two of 48 x 40 pixels, three units away, that look at the origin."""
    c2w = torch.eye(4).repeat(2, 1, 1)
    for pose, angle in zip(c2w, (0.0, 0.4), strict=True):
        c, s = math.cos(angle), math.sin(angle)
        pose[:3, :3] = torch.tensor([[c, 0.0, -s], [0, 1, 0], [s, 0, c]])
        pose[:3, 3] = -3 * pose[:3, 2]
    K = torch.tensor([[50.0, 0, 24], [0, 50, 20], [0, 0, 1]]).repeat(2, 1, 1)
    return Cameras(c2w, K, torch.full((2,), 48), torch.full((2,), 40))
