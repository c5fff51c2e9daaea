"""Fixed frames of a nerfstudio model, as one of its outputs: the "+"."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras as NsCameras
from nerfstudio.cameras.cameras import CameraType
from torch import Tensor

from difix3d.errors import UserError
from difix3d.integrations.nerfstudio.render import Renderer
from difix3d.integrations.nerfstudio.told import say, told
from difix3d.postrender import PostRender
from difix3d.types import Cameras, Fixer, View


class FrameFixer:
    """Fixes what the model renders for a camera of nerfstudio.

    Args:
        renderer: of the model.
        fixer: gives the fixer; asked for with the first frame.
        photo: gives a captured view by its index.
        config: the pipeline's.
        version: a number that changes when the model does.
        lock: within it, nothing else uses the model.
    """

    def __init__(
        self,
        renderer: Renderer,
        fixer: Callable[[], Fixer],
        photo: Callable[[int], View],
        config: Any,
        version: Callable[[], int],
        lock: Callable[[], AbstractContextManager[Any]],
    ):
        self._renderer = renderer
        self._fixer = fixer
        self._photo = photo
        self._config = config
        self._version = version
        self._lock = lock
        self._made: tuple[int, PostRender] | None = None
        self._failed = False

    @torch.no_grad()
    def __call__(self, camera: NsCameras, outputs: dict[str, Any]) -> Float[Tensor, "H W 3"]:
        """The fixed frame.

        The fixer sees the frame of a pinhole camera. Where the camera has a lens, what was changed there is carried
        into its frame; the rest of the frame keeps the pixels as they were rendered. The threads of the viewer live on
        without a fixer, and show frames as they were rendered; elsewhere its error ends the program.
        """
        if self._failed:
            return outputs["rgb"]
        with told(), self._lock():
            try:
                return self._fixed(camera.reshape((1,)), outputs["rgb"])
            except UserError as error:
                if threading.current_thread() is threading.main_thread():
                    raise
                self._failed = True
                say(f"frames stay as rendered. {error}")
                return outputs["rgb"]

    def _fixed(self, camera: NsCameras, rgb: Float[Tensor, "H W 3"]) -> Float[Tensor, "H W 3"]:
        pinhole = self._renderer.world.to_scene(camera)
        fixed = self._post_render()(pinhole).rgb[0]
        if is_pinhole(camera):
            return fixed.to(rgb)
        change = fixed - self._renderer(pinhole).rgb[0]
        return (rgb + carried(change, pinhole, camera).to(rgb)).clamp(0, 1)

    def _post_render(self) -> PostRender:
        version = self._version()
        if self._made is None or self._made[0] != version:
            post = PostRender(
                self._renderer,
                self._fixer(),
                self._renderer.world.scene,
                self._photo,
                trust=self._config.trust,
                confidence=self._config.distill.confidence,
                device=self._renderer.model.device,
            )
            self._made = version, post
        return self._made[1]


def is_pinhole(camera: NsCameras) -> bool:
    """Whether the camera has no distortion."""
    distortion = camera.distortion_params
    straight = distortion is None or not bool(distortion.any())
    return int(camera.camera_type.flatten()[0]) == CameraType.PERSPECTIVE.value and straight


def carried(image: Float[Tensor, "H W 3"], pinhole: Cameras, camera: NsCameras) -> Float[Tensor, "h w 3"]:
    """What a pinhole camera sees, through the lens of one in its place; 0 outside of its picture."""
    rays = camera.generate_rays(camera_indices=0, keep_shape=True).directions.reshape(*image.shape[:2], 3)
    ahead = camera.camera_to_worlds[0, :, :3].to(rays) * torch.tensor([1.0, -1.0, -1.0]).to(rays)
    x, y, z = (rays @ ahead).unbind(-1)
    K = pinhole.K[0].to(rays)
    width, height = pinhole.size
    places = torch.stack([(K[0, 0] * x / z + K[0, 2]) / width, (K[1, 1] * y / z + K[1, 2]) / height], -1)
    places = torch.where(z[..., None] > 0, 2 * places - 1, 2.0)
    channels = image.permute(2, 0, 1)[None].to(rays)
    return torch.nn.functional.grid_sample(channels, places[None], "bilinear", "zeros", align_corners=False)[0].permute(
        1, 2, 0
    )
