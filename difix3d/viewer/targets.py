"""Target cameras, placed by hand: where the novel cameras of further rounds go."""

from dataclasses import replace
from typing import Any

import torch
import viser
import viser.transforms as tf

from difix3d.errors import UserError
from difix3d.scene.pathfile import CameraPath, write_path
from difix3d.types import Cameras
from difix3d.viewer.monitor import Monitor
from difix3d.viewer.status_line import StatusLine
from difix3d.viewer.viewer_model import ViewerModel, result_path
from difix3d.viewer.viser_scene import c2w_of, fov_of, wxyz_of

COLOR = (210, 60, 200)


class Targets:
    """Places cameras at the client's view; they can be moved by their axes.

    Args:
        client: whose.
        viewer_model: whose photos' lens they have.
        monitor: whose training takes them.
        status_line: tells the client something.
        size: of the frustums.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        viewer_model: ViewerModel,
        monitor: Monitor,
        status_line: StatusLine,
        size: viser.GuiSliderHandle,
    ):
        self._client = client
        self._model = viewer_model
        self._monitor = monitor
        self._status_line = status_line
        self._size = size
        self._placed: list[viser.TransformControlsHandle] = []
        gui: Any = client.gui  # mypy takes viser's values for read-only
        with gui.add_folder("Target cameras", expand_by_default=False, visible=bool(viewer_model.camera_list.captured)):
            gui.add_markdown("Where novel cameras shall go; move them by their axes.")
            place = gui.add_button("Place one at this view")
            remove = gui.add_button_group("Remove", ("last", "all"))
            self.name = gui.add_text("File", "targets")
            save = gui.add_button("Save", hint="For --distill.targets FILE")
            hand = gui.add_button("Hand to the distiller", visible=monitor.can_fix)
        place.on_click(lambda _: status_line.attempt(self.place))
        remove.on_click(lambda event: self.remove(1 if event.target.value == "last" else len(self._placed)))
        save.on_click(lambda _: status_line.attempt(self.save))
        hand.on_click(lambda _: status_line.attempt(self.hand_over))

    @property
    def any(self) -> bool:
        return bool(self._placed)

    def place(self) -> None:
        """Adds a target at the client's view, with the lens of the first training photo."""
        c2w = c2w_of(self._client.camera)
        lens = self._lens()
        width, height = lens.size
        name = f"/overlays/target {len(self._placed)}"
        handle = self._client.scene.add_transform_controls(
            name, scale=0.15, wxyz=wxyz_of(c2w), position=c2w[:3, 3].numpy(), line_width=2.0
        )
        self._client.scene.add_camera_frustum(
            f"{name}/frustum",
            fov_of(lens),
            width / height,
            scale=self._size.value,
            color=COLOR,
            thickness=2.0,
            thickness_units="screen",
        )
        self._placed.append(handle)

    def remove(self, count: int) -> None:
        """Removes the last ones."""
        for _ in range(count):
            if self._placed:
                self._placed.pop().remove()

    def cameras(self) -> Cameras:
        """All of them.

        Raises:
            UserError: there is none.
        """
        if not self._placed:
            raise UserError("There are no target cameras", "At least one is needed", "Place one at this view")
        poses = torch.eye(4).repeat(len(self._placed), 1, 1)
        for pose, handle in zip(poses, self._placed, strict=True):
            pose[:3, :3] = torch.from_numpy(tf.SO3(handle.wxyz).as_matrix())
            pose[:3, 3] = torch.from_numpy(handle.position)
        return replace(self._lens()[[0] * len(poses)], c2w=poses)

    def save(self) -> None:
        """Writes them as a camera path, which ``--distill.targets`` takes."""
        path = result_path(self._model.folder / "paths", self.name.value, ".json")
        write_path(CameraPath(self.cameras(), 24.0), path, self._model.scene)
        self._status_line(f"{len(self._placed)} target camera(s) written to {path}")

    def hand_over(self) -> None:
        """Gives them to the training that runs; its next round goes there."""
        control = self._monitor.control
        assert control is not None
        control.set_targets(self.cameras())
        self._status_line(f"The next round goes to {len(self._placed)} target camera(s)")

    def _lens(self) -> Cameras:
        scene = self._model.scene
        return scene.cameras[int(scene.train[0])].to("cpu")
