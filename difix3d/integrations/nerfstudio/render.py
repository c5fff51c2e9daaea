"""nerfstudio's models as render functions: a camera of the scene in, colours, alpha and depth out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.models.splatfacto import SplatfactoModel
from torch import Tensor

from difix3d.integrations.nerfstudio.world import World
from difix3d.types import Cameras, Render

NOTHING = 1e-3
"""Where a radiance field is less opaque than this, it has no depth."""


class Renderer:
    """Renders a model of nerfstudio, as it is evaluated there.

    Args:
        model: Nerfacto or Splatfacto.
        world: where the cameras are.
    """

    def __init__(self, model: Any, world: World):
        self.model = model
        self.world = world

    @torch.no_grad()
    def __call__(self, cameras: Cameras) -> Render:
        """Cameras of one size; depth is along the optical axis, in units of the scene."""
        with evaluated(self.model), torch.autocast(self.model.device.type, enabled=False):
            parts = [self._one(cameras[i]) for i in range(len(cameras))]
        rgb, alpha, depth = (torch.stack(part) for part in zip(*parts, strict=True))
        return Render(rgb, alpha, depth)

    def _one(self, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
        outputs = self.model.get_outputs_for_camera(self.world.to_nerfstudio(camera.to(self.model.device)))
        rgb, alpha, depth = (outputs[name].float() for name in ("rgb", "accumulation", "depth"))
        if not isinstance(self.model, SplatfactoModel):  # Nerfacto's is the median distance along the ray
            depth = depth / ray_lengths(camera.to(depth.device))[..., None]
        return rgb, alpha, torch.where(alpha > NOTHING, depth * self.world.scale, 0.0)


def ray_lengths(camera: Cameras) -> Float[Tensor, "H W"]:
    """How long the ray to each pixel is where it has gone one unit along the optical axis."""
    width, height = camera.size
    K = camera.K[0]
    x = (torch.arange(width, device=K.device) + 0.5 - K[0, 2]) / K[0, 0]
    y = (torch.arange(height, device=K.device) + 0.5 - K[1, 2]) / K[1, 1]
    return (x.square() + y.square()[:, None] + 1).sqrt()


@contextmanager
def evaluated(model: Any) -> Iterator[None]:
    """Within, the model is in its evaluation mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def of_no_photo(model: Any) -> Iterator[None]:
    """Within, a model in training takes cameras for exact and looks as it is evaluated: corrections of poses and
    appearance embeddings belong to photos, and a fixed render is none."""
    optimizer, field = model.camera_optimizer, getattr(model, "field", None)
    config, training = optimizer.config, field is not None and field.training
    optimizer.config = replace(config, mode="off")
    if field is not None:
        field.eval()
    try:
        yield
    finally:
        optimizer.config = config
        if field is not None:
            field.train(training)


def background(model: Any, dataset: Any) -> Float[Tensor, "3"] | None:
    """The colour that photos with alpha are compared over, where the model is evaluated; ``None`` for black."""
    color = dataset._dataparser_outputs.alpha_color
    if color is not None:
        return color.float()
    if isinstance(model, SplatfactoModel):
        return model._get_background_color().detach().float().cpu()
    return torch.ones(3) if model.config.background_color == "white" else None
