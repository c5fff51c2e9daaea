"""Camera paths around a scene: ready-made ones, and the size of their pictures."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.errors import UserError
from difix3d.files import is_file
from difix3d.geometry.poses import ellipse, focus_point, interpolate_path, spiral
from difix3d.geometry.warp import project
from difix3d.scene.pathfile import LARGEST, CameraPath, read_path
from difix3d.types import Cameras, Scene

PATHS: dict[str, Callable[[Float[Tensor, "N 4 4"], int, Float[Tensor, "3"]], Float[Tensor, "frames 4 4"]]] = {
    "ellipse": ellipse,
    "spiral": spiral,
    "interp": lambda c2w, frames, _focus: interpolate_path(c2w, frames),
}
"""Ready-made paths: functions of the training poses, the number of frames, and the point that cameras look at."""
CAMERAS, POINTS = 50, 5000
"""As many of them, at most, say how far away a scene is."""

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
    c2w = PATHS[name_or_file](train.c2w, frames, focus_of(scene))
    return CameraPath(replace(train[[0] * frames], c2w=c2w), FPS)


def natural_path(scene: Scene) -> str:
    """``ellipse`` where the training cameras stand (nearly) all around what they look at, else ``spiral``."""
    c2w = _followed(scene).c2w
    sides = torch.nn.functional.normalize((c2w[:, :3, 3] - focus_of(scene))[:, :2], dim=1)  # seen from above
    return "ellipse" if float(sides.mean(0).norm()) < 0.5 else "spiral"  # an arc of 217 degrees has 0.5


def focus_of(scene: Scene) -> Float[Tensor, "3"]:
    """What the training cameras look at: where their axes meet; if they do not, as far ahead as the sparse points that
    the cameras see (the median), if there are any."""
    cameras = _followed(scene)
    points = torch.from_numpy(scene.points[:: 1 + len(scene.points) // POINTS]).float()
    depths = [_median_depth(points, cameras[i]) for i in range(0, len(cameras), 1 + len(cameras) // CAMERAS)]
    known = [depth for depth in depths if depth is not None]
    return focus_point(cameras.c2w, median(known) if known else None)


def _median_depth(points: Float[Tensor, "P 3"], camera: Cameras) -> float | None:
    """Of the points in a single camera's picture; what hides them is not known."""
    pixels, z = project(points, camera)
    width, height = camera.size
    seen = (z > 0) & (pixels >= 0).all(-1) & (pixels[..., 0] < width) & (pixels[..., 1] < height)
    return float(z[seen].median()) if seen.any() else None


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
