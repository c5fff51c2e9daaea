"""What lies in one client's 3D scene: the model as viser's splats, and the grip between render and fix."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import viser
from jaxtyping import Float

from difix3d.geometry.poses import rotation_matrices
from difix3d.geometry.sh import SH_C0
from difix3d.types import Cameras, Gaussians
from difix3d.viewer.pose import wxyz_of

DISTANCE = 0.1
"""Of the grip from the camera, in scene units: before nearly everything."""


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
    """The grip by which the border between render and fix is dragged: a small box just before the camera, at a share
    of the picture's width.

    Args:
        client: whose.
        dragged: is told the new share, 0..1.
    """

    def __init__(self, client: viser.ClientHandle, dragged: Callable[[float], None]):
        self._client = client
        self._dragged = dragged
        self._box: viser.BoxHandle | None = None

    def show(self, camera: Cameras, share: float) -> None:
        """Puts the grip where the camera sees the border, in the middle of the height."""
        width, height = camera.size
        unit = DISTANCE / float(camera.K[0, 0, 0])  # of a pixel
        c2w = camera.c2w[0].double().cpu().numpy()
        position = c2w[:3, 3] + c2w[:3, :3] @ np.array([(share - 0.5) * width * unit, 0.0, DISTANCE])
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
        self._dragged(min(1.0, max(0.0, event.end_screen_pos[0])))
