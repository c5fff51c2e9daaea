"""Camera paths around a scene: ready-made ones, and the size of their pictures."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.errors import UserError
from difix3d.files import is_file
from difix3d.geometry.poses import ellipse, focus_point, interpolate_path, spiral
from difix3d.scene.pathfile import LARGEST, CameraPath, read_path
from difix3d.types import Cameras, Scene

PATHS: dict[str, Callable[[Float[Tensor, "N 4 4"], int], Float[Tensor, "frames 4 4"]]] = {
    "ellipse": ellipse,
    "spiral": spiral,
    "interp": interpolate_path,
}
"""Ready-made paths: functions of the training poses and the number of frames."""

FPS = 24.0
"""Frames per second of ready-made paths."""


def path_cameras(name_or_file: str, scene: Scene, frames: int = 120) -> CameraPath:
    """A camera path by its name or from a file.

    Args:
        name_or_file: ``ellipse`` around what the training cameras look at, ``spiral`` within them (for forward-facing
            captures), ``interp`` through them in the order of the photos; or the path of a JSON file.
        scene: whose training cameras the ready-made paths follow; these look through the first one's lens. Of 360
            photos the path follows the front faces.
        frames: how many, at least 1; a file has its own number.

    Raises:
        UserError: no such path, or a broken file.
    """
    if name_or_file not in PATHS:
        file = Path(os.path.expanduser(name_or_file))
        if not is_file(file):
            raise UserError(
                f"There is no camera path {name_or_file!r}",
                f"A path is {', '.join(PATHS)} or a JSON file",
                "Check the spelling and the folder",
            )
        return read_path(file, scene)
    if frames < 1:
        raise UserError(f"The number of frames is {frames}", "A camera path has at least 1")
    train = _followed(scene)
    c2w = PATHS[name_or_file](train.c2w, frames)
    return CameraPath(replace(train[[0] * frames], c2w=c2w), FPS)


def natural_path(scene: Scene) -> str:
    """``ellipse`` where the training cameras stand (nearly) all around what they look at, else ``spiral``."""
    c2w = _followed(scene).c2w
    sides = torch.nn.functional.normalize((c2w[:, :3, 3] - focus_point(c2w))[:, :2], dim=1)  # seen from above
    return "ellipse" if float(sides.mean(0).norm()) < 0.5 else "spiral"  # an arc of 217 degrees has 0.5


def _followed(scene: Scene) -> Cameras:
    """The training cameras in the order of the photos, without the faces of 360 photos that look aside."""
    lenses = {i: scene.photos[i].lens for i in sorted(scene.train.tolist())}
    ahead = [i for i, lens in lenses.items() if lens is None or lens.face == "front"]
    return scene.cameras[ahead or list(lenses)]


def fit(cameras: Cameras, width: int, height: int) -> Cameras:
    """The same cameras with pictures of another size: the vertical field of view stays, the sides are cut or widened.

    Raises:
        UserError: the size is not within 1 to :data:`LARGEST`.
    """
    for side in (width, height):
        if not 1 <= side <= LARGEST:
            raise UserError(f"The size {width} x {height} is not possible", f"Sides are 1 to {LARGEST} pixels")
    scale = (height / cameras.height).to(cameras.K)
    K = cameras.K.clone()
    K[:, :2] *= scale[:, None, None]
    K[:, 0, 2] += (width - cameras.width.to(scale) * scale) / 2
    return Cameras(cameras.c2w, K, torch.full_like(cameras.width, width), torch.full_like(cameras.height, height))
