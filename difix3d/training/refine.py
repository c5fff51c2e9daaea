"""Corrections learnt with the scene: camera poses, and the exposure of each photo."""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difix3d.limits import Limits
from difix3d.training.optim import load_moments, moments
from difix3d.types import Cameras, View


@dataclass(frozen=True)
class RefineConfig:
    """Corrections of what the photos came with, learnt along with the scene. All are off by default."""

    poses: bool = False
    """Refine the poses of the training cameras."""
    pose_rate: Annotated[float, Limits(min=0, max=10)] = 1e-4
    """Learning rate of the poses: radians and scene units a step."""
    exposure: bool = False
    """Learn an affine colour correction for each training photo, for cameras on automatic exposure."""
    exposure_rate: Annotated[float, Limits(min=0, max=10)] = 1e-3
    """Learning rate of the colour corrections."""


class Corrections(nn.Module):
    """A small rigid motion and an affine colour map for each photo; both begin as "no change". Unused ones stay so.

    Args:
        photos: how many photos the scene has.
        config: which corrections to learn.
    """

    def __init__(self, photos: int, config: RefineConfig):
        super().__init__()
        self.config = config
        self.motion = nn.Parameter(torch.zeros(photos, 6), requires_grad=config.poses)
        self.exposure = nn.Parameter(torch.eye(3, 4).repeat(photos, 1, 1), requires_grad=config.exposure)
        self.params = {"motion": self.motion, "exposure": self.exposure}
        rates = {"motion": config.pose_rate, "exposure": config.exposure_rate}
        self.optimizers = {
            name: torch.optim.Adam([param], lr=rates[name])
            for name, param in self.params.items()
            if param.requires_grad
        }

    def cameras(self, cameras: Cameras, indices: list[int]) -> Cameras:
        """The cameras of the photos ``indices``, moved in their own frames; differentiable in the motion."""
        if not self.config.poses:
            return cameras
        turn, shift = self.motion[indices].split(3, dim=-1)
        zero = torch.zeros_like(turn[:, 0])
        x, y, z = turn.unbind(-1)
        skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
        rigid = torch.cat([torch.linalg.matrix_exp(skew), shift[..., None]], -1)
        bottom = torch.eye(4, device=rigid.device)[3:].expand(len(rigid), 1, 4)
        return Cameras(cameras.c2w @ torch.cat([rigid, bottom], 1), cameras.K, cameras.width, cameras.height)

    def colors(self, rgb: Float[Tensor, "B H W 3"], views: list[View]) -> Float[Tensor, "B H W 3"]:
        """Renders as the photos' exposures would show them."""
        if not self.config.exposure:
            return rgb
        affine = self.exposure[[view.index for view in views]]
        return torch.einsum("bij,bhwj->bhwi", affine[..., :3], rgb) + affine[:, None, None, :, 3]

    def step(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """The state of the optimisers, by parameter."""
        return moments(self.params, self.optimizers)

    def load(self, values: dict[str, Tensor], state: dict[str, dict[str, Tensor]]) -> None:
        """Puts back the corrections and what :meth:`moments` gave beside them."""
        self.load_state_dict(values)
        load_moments(self.params, self.optimizers, state)
