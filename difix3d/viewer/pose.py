"""Between viser's cameras and ours. Both are camera to world with OpenCV axes; viser's has a vertical field of view."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import viser
import viser.transforms as tf
from jaxtyping import Float
from torch import Tensor

from difix3d.errors import UserError
from difix3d.geometry.poses import interpolate
from difix3d.types import Cameras

LARGEST = 16384
"""Pixels along a side of a browser's canvas, above which the request is taken for nonsense."""
FLIGHT = 0.6
"""Seconds that a flight to another camera takes."""
FRAMES = 12
"""Of such a flight."""


def c2w_of(camera: viser.CameraHandle) -> Float[Tensor, "4 4"]:
    """The pose of a browser's camera.

    Raises:
        UserError: it is no pose; numbers come from the browser, which may be anyone's.
    """
    wxyz, position = _numbers(camera.wxyz, 4), _numbers(camera.position, 3)
    if not 0.9 < np.linalg.norm(wxyz) < 1.1:
        raise _no_camera()
    pose = np.eye(4)
    pose[:3, :3] = tf.SO3(wxyz / np.linalg.norm(wxyz)).as_matrix()
    pose[:3, 3] = position
    return torch.from_numpy(pose).float()


def _numbers(values: Any, count: int) -> Float[np.ndarray, "N"]:
    """Finite numbers, so many of them, if a browser sent such."""
    try:
        found = np.asarray(values, float).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise _no_camera() from None
    if len(found) != count or not np.isfinite(found).all():
        raise _no_camera()
    return found


def _no_camera() -> UserError:
    return UserError("The browser sent a camera without a pose", "Positions and rotations are finite numbers")


def pinhole(c2w: Float[Tensor, "4 4"], fov: float, width: int, height: int) -> Cameras:
    """A camera with a vertical field of view in radians, its axis in the middle of the picture."""
    focal = 0.5 * height / math.tan(fov / 2)
    K = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return Cameras(c2w[None], K[None], torch.tensor([width]), torch.tensor([height]))


def canvas_camera(camera: viser.CameraHandle, long_side: int) -> Cameras:
    """What a browser's camera sees, with the shape of its canvas.

    Args:
        camera: as the browser sent it.
        long_side: of the picture in pixels, if the canvas is not smaller.

    Raises:
        UserError: the camera or the canvas is impossible.
    """
    width, height = _numbers([camera.image_width, camera.image_height], 2).tolist()
    fov = float(_numbers(camera.fov, 1)[0])
    if not (1 <= width <= LARGEST and 1 <= height <= LARGEST):
        raise UserError(f"The browser asks for {width:g} x {height:g} pixels", f"Sides are 1 to {LARGEST} pixels")
    if not 0 < fov < math.pi:
        raise UserError(f"The browser asks for a field of view of {fov:g}", "It is between 0 and pi")
    scale = min(1.0, long_side / max(width, height))
    return pinhole(c2w_of(camera), fov, max(1, round(width * scale)), max(1, round(height * scale)))


def fov_of(camera: Cameras) -> float:
    """Vertical field of view of a single camera, in radians."""
    return 2 * math.atan(0.5 * float(camera.height[0]) / float(camera.K[0, 1, 1]))


def wxyz_of(c2w: Float[Tensor, "4 4"]) -> Float[np.ndarray, "4"]:
    """The rotation of a pose as a quaternion."""
    return tf.SO3.from_matrix(c2w[:3, :3].double().cpu().numpy()).wxyz


def put(client: viser.ClientHandle, c2w: Float[Tensor, "4 4"], fov: float) -> None:
    """Moves a browser's camera there."""
    with client.atomic():
        client.camera.wxyz = wxyz_of(c2w)
        client.camera.position = c2w[:3, 3].double().cpu().numpy()
        client.camera.fov = fov
    client.flush()


def fly(
    client: viser.ClientHandle,
    c2w: Float[Tensor, "4 4"],
    fov: float,
    going: Callable[[], bool],
) -> None:
    """Moves a browser's camera there on the straight way; ends early when ``going`` says no."""
    start, fov_before = c2w_of(client.camera), client.camera.fov
    for number in range(1, FRAMES + 1):
        if not going():
            return
        share = 0.5 - 0.5 * math.cos(math.pi * number / FRAMES)  # gently off and gently on
        put(client, interpolate(start, c2w.cpu().float(), share), fov_before + share * (fov - fov_before))
        time.sleep(FLIGHT / FRAMES)
