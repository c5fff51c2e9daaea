"""Between viser's scene and ours: a client's camera, the model as viser's splats, and the grip between render and fix.

Cameras of both are camera to world with OpenCV axes; viser's have a vertical field of view.
"""

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
from difix3d.geometry.poses import interpolate, rotation_matrices
from difix3d.geometry.sh import SH_C0
from difix3d.types import Cameras, Gaussians

LARGEST = 16384
"""Pixels along a side of a browser's canvas, above which the request is taken for nonsense."""
FLIGHT = 0.6
"""Seconds that a flight to another camera takes."""
FRAMES = 12
"""Of such a flight."""
DISTANCE = 0.1
"""Of the grip from the camera, in scene units: before nearly everything."""


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


def fly(client: viser.ClientHandle, c2w: Float[Tensor, "4 4"], fov: float, going: Callable[[], bool]) -> None:
    """Moves a browser's camera there on the straight way; ends early when ``going`` says no."""
    start, fov_before = c2w_of(client.camera), client.camera.fov
    for number in range(1, FRAMES + 1):
        if not going():
            return
        share = 0.5 - 0.5 * math.cos(math.pi * number / FRAMES)  # gently off and gently on
        put(client, interpolate(start, c2w.cpu().float(), share), fov_before + share * (fov - fov_before))
        time.sleep(FLIGHT / FRAMES)


@torch.no_grad()
def splat_arrays(gaussians: Gaussians) -> dict[str, Float[np.ndarray, "N ..."]]:
    """Centers, covariances, colours (of degree 0: the browser's splats look the same from all sides) and opacities."""
    axes = rotation_matrices(gaussians.quats) * gaussians.scales.exp()[:, None, :]
    arrays = {
        "centers": gaussians.means,
        "covariances": axes @ axes.mT,
        "rgbs": (0.5 + SH_C0 * gaussians.sh0[:, 0]).clamp(0, 1),
        "opacities": gaussians.opacities.sigmoid()[:, None],
    }
    return {name: value.cpu().numpy() for name, value in arrays.items()}


class Splats:
    """One client's splats; they are sent when they are asked for, and again when the model has changed."""

    def __init__(self, client: viser.ClientHandle):
        self._client = client
        self._node: viser.GaussianSplatHandle | None = None
        self._sent: Gaussians | None = None

    def show(self, gaussians: Gaussians) -> None:
        if gaussians is not self._sent:
            arrays: dict[str, Any] = splat_arrays(gaussians)
            if self._node is None:
                self._node = self._client.scene.add_gaussian_splats("/splats", **arrays)
            else:
                self._node.set_gaussians(**arrays)
            self._sent = gaussians
        assert self._node is not None
        self._node.visible = True

    def hide(self) -> None:
        if self._node is not None:
            self._node.visible = False


class Divider:
    """The grip by which the border between render and fix is dragged: a small box just before the camera.

    Args:
        client: whose.
        slider: where the border is, as a share of the picture's width, 0..1; dragging moves it.
    """

    def __init__(self, client: viser.ClientHandle, slider: viser.GuiSliderHandle):
        self._client = client
        self._slider: Any = slider
        self._box: viser.BoxHandle | None = None

    def show(self, camera: Cameras) -> None:
        """Puts the grip where the camera sees the border, in the middle of the height."""
        width, height = camera.size
        aside = (self._slider.value - 0.5) * width
        unit = DISTANCE / float(camera.K[0, 0, 0])  # of a pixel
        c2w = camera.c2w[0].double().cpu().numpy()
        position = c2w[:3, 3] + c2w[:3, :3] @ np.array([aside * unit, 0.0, DISTANCE])
        size = (0.018 * height * unit, 0.14 * height * unit, 0.002 * height * unit)
        if self._box is None:
            self._box = self._client.scene.add_box("/divider", (255, 255, 255), size, cast_shadow=False)
            self._box.on_drag(self._drag)
        with self._client.atomic():
            self._box.dimensions = size
            self._box.position = position
            self._box.wxyz = wxyz_of(camera.c2w[0])
            self._box.visible = True

    def hide(self) -> None:
        if self._box is not None:
            self._box.visible = False

    async def _drag(self, event: viser.SceneNodeDragEvent) -> None:
        self._slider.value = min(1.0, max(0.0, event.end_screen_pos[0]))
