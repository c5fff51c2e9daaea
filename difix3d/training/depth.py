"""Depth supervision by the sparse points: structure from motion knows how far away some pixels are."""

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.losses import sparse_depth
from difix3d.scene import visible_points
from difix3d.types import Render, Scene, View

NEAREST = 1e-3
"""Depth in scene units up to which points do not count."""


class SparseDepth:
    """The mean error of inverse depth at the points that each photo sees.

    Args:
        scene: its observations say who sees what; points that fewer than two training photos see are not used.
        device: where the renders are.
    """

    def __init__(self, scene: Scene, device: torch.device):
        keep = visible_points(scene, at_least=2)
        used = scene.observations[keep[scene.observations[:, 0]]]
        points = torch.from_numpy(scene.points).float()
        self._points = [points[used[used[:, 1] == photo, 0]].to(device) for photo in range(len(scene.photos))]

    def __call__(self, render: Render, views: list[View]) -> Float[Tensor, ""]:
        """The loss of a batch; ``render.depth`` must be there."""
        assert render.depth is not None
        total = render.depth.new_zeros(())
        for depth, view in zip(render.depth, views, strict=True):
            w2c = view.camera.w2c[0]
            camera = self._points[view.index] @ w2c[:3, :3].T + w2c[:3, 3]
            pixels = camera @ view.camera.K[0].T
            z = camera[:, 2]
            # those behind are not cut out: a GPU would be waited for to know how many are left
            ahead = torch.where(z > NEAREST, z, 0.0)
            total = total + sparse_depth(depth, pixels[:, :2] / z.clamp_min(NEAREST)[:, None], ahead)
        return total / len(views)
