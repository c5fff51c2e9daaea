"""Cameras in the scene: frustums of photos, novel views and targets; flights there, comparison with their pictures."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import viser
import viser.transforms as tf
from jaxtyping import Float, UInt8
from torch import Tensor

from difix3d.errors import UserError
from difix3d.geometry.poses import pose_distance
from difix3d.images import resize
from difix3d.scene.pathfile import CameraPath, write_path
from difix3d.types import Cameras
from difix3d.viewer.camera_views import CameraView
from difix3d.viewer.page import Page
from difix3d.viewer.pictures import COMPARISONS, Comparison
from difix3d.viewer.training_tab import Monitor
from difix3d.viewer.viewer_model import result_path
from difix3d.viewer.viser_scene import c2w_of, fly, fov_of, wxyz_of

COLORS = {"train": (70, 120, 220), "eval": (240, 150, 30), "round": (60, 180, 90), "target": (210, 60, 200)}
LEFT = 0.02
"""Distance of poses (scene units and radians) from which a camera has left the one that it flew to."""
ECHO = 3.0
"""Seconds after a flight within which the browser still tells of it."""
NONE = "none"


@dataclass(frozen=True)
class FollowedCamera:
    """A camera that the client looks through, exactly."""

    view: CameraView
    image: UInt8[np.ndarray, "H W 3"]

    def photo(self, size: tuple[int, int]) -> Float[Tensor, "_ _ 3"]:
        """Its picture of a (width, height), 0..1."""
        return torch.from_numpy(resize(self.image, *size)).float() / 255


class CameraTab:
    """Frustums with thumbnails; a click flies there.

    Args:
        page: whose.
        monitor: whose training takes target cameras.
    """

    def __init__(self, page: Page, monitor: Monitor):
        self._page = page
        self._client = page.client
        self._camera_list = page.model.camera_list
        self.followed: FollowedCamera | None = None
        self._flight = 0
        self._arrived = False
        self._latest = 0.0
        self._lock = threading.Lock()
        self._frustums: dict[str, viser.CameraFrustumHandle] = {}
        self._thumbnails = ThreadPoolExecutor(1, thread_name_prefix="viewer thumbnails")
        gui = page.gui
        there = bool(self._camera_list.captured)
        self.show = {
            group: gui.add_checkbox(f"Show {group} cameras", False, visible=there) for group in ("train", "eval")
        }
        self.round = gui.add_dropdown("Novel views", (NONE, *self._camera_list.rounds()), visible=there)
        self.size = gui.add_slider("Frustum size", 0.02, 1.0, 0.01, 0.12, visible=there)
        steps = gui.add_button_group("Fly to", ("previous", "next"), visible=there)
        self.compare = gui.add_dropdown(
            "Compare", COMPARISONS, visible=there, hint="With the picture of the camera that you flew to"
        )
        self._title = gui.add_markdown("" if there else "This model comes without photos.", visible=not there)
        self._photo = gui.add_image(np.zeros((2, 2, 3), np.uint8), visible=False)
        self.targets = Targets(page, monitor, self.size)
        for handle in (*self.show.values(), self.round):
            handle.on_update(lambda _: self.refresh())
        self.size.on_update(lambda _: self._resize())
        self.compare.on_update(lambda _: page.changed())
        steps.on_click(lambda event: page.attempt(lambda: self.go(1 if event.target.value == "next" else -1)))
        page.client.camera.on_update(page.attempting(self._moved))
        self.refresh()

    @property
    def visible(self) -> bool:
        """Whether there are frustums in the picture."""
        return self.followed is None and (bool(self._frustums) or self.targets.any)

    def comparison(self) -> Comparison:
        """How the picture is compared now."""
        return self.compare.value if self.followed is not None else "off"

    def camera_views(self) -> list[CameraView]:
        """Those that are shown."""
        shown = [camera_view for camera_view in self._camera_list.captured if self.show[camera_view.group].value]
        return shown + self._camera_list.rounds().get(self.round.value, [])

    def refresh(self) -> None:
        """Brings the frustums and the list of rounds up to date."""
        options = (NONE, *self._camera_list.rounds())
        if options != self.round.options:
            self.round.options = options  # which comes back here if it takes the chosen round away
        with self._lock:
            camera_views = {camera_view.title: camera_view for camera_view in self.camera_views()}
            for title in [title for title in self._frustums if title not in camera_views]:
                self._frustums.pop(title).remove()
            for title, camera_view in camera_views.items():
                if title not in self._frustums:
                    self._frustums[title] = self._add(camera_view)
        self._page.changed()

    def go(self, by: int) -> None:
        """Flies to the next or the previous camera of those that are shown; from nowhere, to the nearest."""
        camera_views = self.camera_views()
        if not camera_views:
            raise UserError("There is no camera to fly to", "None is shown", "Tick one of the groups")
        titles = [camera_view.title for camera_view in camera_views]
        if self.followed is not None and self.followed.view.title in titles:
            number = (titles.index(self.followed.view.title) + by) % len(titles)
        else:
            poses = torch.cat([camera_view.camera.c2w for camera_view in camera_views])
            number = int(pose_distance(c2w_of(self._client.camera), poses).argmin())
        self.fly_to(camera_views[number])

    def fly_to(self, camera_view: CameraView) -> None:
        """Flies there; the last flight that was asked for wins."""
        self._flight += 1
        number = self._flight
        self._follow(None)
        fly(self._client, camera_view.camera.c2w[0], fov_of(camera_view.camera), lambda: self._flight == number)
        if self._flight == number:
            self._follow(FollowedCamera(camera_view, camera_view.picture()))
            self._page.changed()

    def close(self) -> None:
        """Ends flights and thumbnails."""
        self._flight += 1
        self._thumbnails.shutdown(wait=False, cancel_futures=True)

    def _follow(self, followed: FollowedCamera | None) -> None:
        """The frustum of the camera that is looked through would hide the picture, so that all are hidden meanwhile."""
        self.followed = followed
        self._arrived = False
        self._latest = time.monotonic() + ECHO
        self._page.overlays.visible = followed is None
        self._title.visible = self._photo.visible = followed is not None
        if followed is not None:
            stride = max(1, max(followed.image.shape[:2]) // 480)
            self._photo.image = followed.image[::stride, ::stride]
            self._title.content = f"**{followed.view.title}**"

    def _moved(self) -> None:
        """Stops following when the client moves away; what the browser says of the flight still may come later."""
        followed = self.followed
        if followed is None:
            return
        near = float(pose_distance(c2w_of(self._client.camera), followed.view.camera.c2w[0].cpu())) <= LEFT
        if near:
            self._arrived = True
        elif self._arrived or time.monotonic() > self._latest:
            self._follow(None)
            self._page.changed()

    def _add(self, camera_view: CameraView) -> viser.CameraFrustumHandle:
        width, height = camera_view.camera.size
        frustum = self._client.scene.add_camera_frustum(
            f"/overlays/{camera_view.title.replace('/', '_')}",
            fov_of(camera_view.camera),
            width / height,
            scale=self.size.value,
            thickness=1.5,
            thickness_units="screen",
            color=COLORS[camera_view.group.split()[0]],
            wxyz=wxyz_of(camera_view.camera.c2w[0]),
            position=camera_view.camera.centers[0].double().cpu().numpy(),
        )
        frustum.on_click(self._page.attempting(partial(self.fly_to, camera_view)))
        self._thumbnails.submit(self._decorate, frustum, camera_view)
        return frustum

    def _decorate(self, frustum: viser.CameraFrustumHandle, camera_view: CameraView) -> None:
        image = self._camera_list.thumbnail(camera_view)
        with self._lock:
            if image is not None and self._frustums.get(camera_view.title) is frustum:
                frustum.image = image

    def _resize(self) -> None:
        for frustum in list(self._frustums.values()):
            frustum.scale = self.size.value


class Targets:
    """Places cameras at the client's view; they can be moved by their axes.

    Args:
        page: whose.
        monitor: whose training takes them.
        size: of the frustums.
    """

    def __init__(self, page: Page, monitor: Monitor, size: viser.GuiSliderHandle):
        self._page = page
        self._client = page.client
        self._model = page.model
        self._monitor = monitor
        self._size = size
        self._placed: list[viser.TransformControlsHandle] = []
        gui, there = page.gui, bool(page.model.camera_list.captured)
        with gui.add_folder("Target cameras", expand_by_default=False, visible=there):
            gui.add_markdown("Where novel cameras shall go; move them by their axes.")
            page.button("Place one at this view", self.place)
            remove = gui.add_button_group("Remove", ("last", "all"))
            self.name = gui.add_text("File", "targets")
            page.button("Save", self.save, hint="For --distill.targets FILE")
            page.button("Hand to the distiller", self.hand_over, visible=monitor.can_fix)
        remove.on_click(lambda event: self.remove(1 if event.target.value == "last" else len(self._placed)))

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
            color=COLORS["target"],
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
        self._page.say(f"{len(self._placed)} target camera(s) written to {path}")

    def hand_over(self) -> None:
        """Gives them to the training that runs; its next round goes there."""
        control = self._monitor.control
        assert control is not None
        control.set_targets(self.cameras())
        self._page.say(f"The next round goes to {len(self._placed)} target camera(s)")

    def _lens(self) -> Cameras:
        scene = self._model.scene
        return scene.cameras[int(scene.train[0])].to("cpu")
