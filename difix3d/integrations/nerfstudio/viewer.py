"""Novel views in the scene that nerfstudio's viewer shows."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from nerfstudio.viewer.viewer_elements import ViewerControl
from PIL import Image
from viser.transforms import SO3

from difix3d.distill.pseudo import PseudoViews
from difix3d.integrations.nerfstudio.world import World, opencv

FOLDER, COLOR = "/novel_cameras", (255, 128, 0)
LONGEST = 100
"""Pixels, at most, of the pictures in the frustums; nerfstudio's photos have about as many."""
SCALE_RATIO = 10.0
"""Units of the viewer's scene in one of nerfstudio's world."""


class NovelCameras(ViewerControl):
    """The novel views as frustums with the fixed renders; a click on one goes there.

    Args:
        world: where their cameras are.
        views: those in use.
    """

    viewer: Any = None

    def __init__(self, world: World, views: Callable[[], PseudoViews | None]):
        self._world = world
        self._views = views
        self._handles: list[Any] = []

    def lock(self) -> AbstractContextManager[Any]:
        """Within, the training rests; the viewer reads its outputs beside it."""
        lock = None if self.viewer is None else self.viewer.train_lock
        return nullcontext() if lock is None else lock

    def update(self) -> None:
        """Shows the novel views as they are now, if there is a viewer."""
        if self.viewer is None:
            return
        for handle in self._handles:
            handle.remove()
        views = self._views()
        self._handles = [] if views is None else [self._frustum(views, index) for index in range(len(views))]

    def _setup(self, viewer: Any) -> None:
        """Called by nerfstudio's viewer when it starts."""
        super()._setup(viewer)
        self.update()

    def _frustum(self, views: PseudoViews, index: int) -> Any:
        camera = views.cameras[index]
        (width, height), fy = camera.size, float(camera.K[0, 1, 1])
        pose = opencv(self._world.to_nerfstudio(camera))[0]
        picture = Image.fromarray(views.images[index].numpy())
        picture.thumbnail((LONGEST, LONGEST))
        handle = self.viser_server.scene.add_camera_frustum(
            f"{FOLDER}/camera_{index:05d}",
            fov=2 * np.arctan(height / (2 * fy)),
            aspect=width / height,
            scale=self.viewer.config.camera_frustum_scale,
            color=COLOR,
            image=np.asarray(picture),
            wxyz=SO3.from_matrix(pose[:3, :3]).wxyz,
            position=pose[:3, 3] * SCALE_RATIO,
        )
        handle.on_click(go_there)
        return handle


def go_there(event: Any) -> None:
    """Takes the camera of who clicked to the place of what was clicked."""
    with event.client.atomic():
        event.client.camera.position = event.target.position
        event.client.camera.wxyz = event.target.wxyz
