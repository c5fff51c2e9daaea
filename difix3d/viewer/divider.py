"""The grip in the picture by which the border between render and fix is dragged."""

from collections.abc import Callable

import numpy as np
import viser

from difix3d.types import Cameras
from difix3d.viewer.pose import wxyz_of

DISTANCE = 0.1
"""Of the grip from the camera, in scene units: before nearly everything."""


class Divider:
    """A small box just before the camera, at a share of the picture's width.

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
            self._box.dimensions, self._box.position, self._box.wxyz = size, position, wxyz_of(camera.c2w[0])
            self._box.visible = True

    def hide(self) -> None:
        if self._box is not None:
            self._box.visible = False

    async def _drag(self, event: viser.SceneNodeDragEvent) -> None:
        self._dragged(min(1.0, max(0.0, event.end_screen_pos[0])))
