"""Corrections learnt with the scene: camera poses, and the exposure of each photo."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difix3d.background import recolored
from difix3d.geometry.poses import common_motions, moved
from difix3d.limits import Limits
from difix3d.training.optim import load_moments, moments
from difix3d.types import Cameras, Render, Scene, View

FINAL_RATE = 0.01
"""What the poses' rate has fallen to (exponentially) at the last step, as a share of the first."""


@dataclass(frozen=True)
class RefineConfig:
    """Corrections of what the photos came with, learnt along with the scene. All are off by default."""

    poses: bool = False
    """Refine the poses of the training cameras."""
    pose_rate: Annotated[float, Limits(min=0, max=10)] = 1e-4
    """Learning rate of the poses: radians and scene units a step; it falls to a hundredth over the run."""
    exposure: bool = False
    """Learn an affine colour correction for each training photo, for cameras on automatic exposure."""
    exposure_rate: Annotated[float, Limits(min=0, max=10)] = 1e-3
    """Learning rate of the colour corrections."""


class Corrections(nn.Module):
    """A small rigid motion and an affine colour map for each photo; both begin as "no change". Unused ones stay so.

    A scene may get darker, or move, as long as all corrections make up for it; photos that have none (held-out ones)
    then see it wrong. So the training photos' corrections are held after each step: the mean of their colour maps at
    "no change", and their motions free of a motion of the world as one, which is common to all.

    Args:
        scene: its photos are corrected.
        config: which corrections to learn.
        max_steps: of the run, over which the poses' rate falls: exact poses would be shaken to its end otherwise.
    """

    train_photos: Tensor
    common: Tensor
    unchanged: Tensor

    def __init__(self, scene: Scene, config: RefineConfig, max_steps: int):
        super().__init__()
        photos = len(scene.photos)
        self.config = config
        self.max_steps = max_steps
        train = torch.from_numpy(scene.train)
        common = torch.linalg.qr(common_motions(scene.cameras.c2w[train].double()).flatten(0, 1))[0]
        # beside the parameters, wherever these are; they follow from the scene and are not saved
        self.register_buffer("train_photos", train, persistent=False)
        self.register_buffer("common", common.float(), persistent=False)  # orthonormal columns
        self.register_buffer("unchanged", torch.eye(3, 4), persistent=False)
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
        return replace(cameras, c2w=moved(cameras.c2w, _rows(self.motion, indices)))

    def colors(self, render: Render, views: list[View]) -> Float[Tensor, "B H W 3"]:
        """Renders as the photos' exposures would show them: what is there, not what is put behind it."""
        if not self.config.exposure:
            return render.rgb
        affine = _rows(self.exposure, [view.index for view in views])
        rgb = recolored(render, None).rgb
        rgb = torch.einsum("bij,bhwj->bhwi", affine[..., :3], rgb) + render.alpha * affine[:, None, None, :, 3]
        return recolored(replace(render, rgb=rgb, background=None), render.background).rgb

    def step(self, step: int) -> None:
        """One step of the optimisers; gradients are cleared."""
        if "motion" in self.optimizers:
            rate = self.config.pose_rate * FINAL_RATE ** (step / self.max_steps)
            self.optimizers["motion"].param_groups[0]["lr"] = rate
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._hold()

    @torch.no_grad()
    def _hold(self) -> None:
        """Takes away what all training photos have in common."""
        train = self.train_photos
        if self.config.exposure:
            self.exposure[train] += self.unchanged - self.exposure[train].mean(0)
        if self.config.poses:
            common, motion = self.common, self.motion[train].flatten()
            self.motion[train] = (motion - common @ (common.T @ motion)).view(-1, 6)

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """The state of the optimisers, by parameter."""
        return moments(self.params, self.optimizers)

    def load(self, values: dict[str, Tensor], state: dict[str, dict[str, Tensor]]) -> None:
        """Puts back the corrections and what :meth:`moments` gave beside them."""
        self.load_state_dict(values)
        load_moments(self.params, self.optimizers, state)


def _rows(values: Tensor, indices: list[int]) -> Tensor:
    """Some rows; a GPU is told which without being waited for."""
    return values[torch.tensor(indices).to(values.device, non_blocking=True)]
