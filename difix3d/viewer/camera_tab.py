"""Cameras in the scene: photos and novel views as frustums, flights to them, and comparison with their pictures."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import viser
from jaxtyping import Float, UInt8
from torch import Tensor

from difix3d.errors import UserError
from difix3d.geometry.poses import pose_distance
from difix3d.images import resize
from difix3d.types import Cameras
from difix3d.viewer.monitor import Monitor
from difix3d.viewer.notice import Notice
from difix3d.viewer.pictures import COMPARISONS, Comparison
from difix3d.viewer.pose import c2w_of, fly, fov_of, wxyz_of
from difix3d.viewer.shots import Shot
from difix3d.viewer.stage import Stage
from difix3d.viewer.targets import Targets

COLORS = {"train": (70, 120, 220), "eval": (240, 150, 30), "round": (60, 180, 90)}
LEFT = 0.02
"""Distance of poses (scene units and radians) from which a camera has left the one that it flew to."""
ECHO = 3.0
"""Seconds after a flight within which the browser still tells of it."""
NONE = "none"


@dataclass(frozen=True)
class Seat:
    """A camera that the client looks through, exactly."""

    shot: Shot
    image: UInt8[np.ndarray, "H W 3"]

    def sized(self, long_side: int) -> Cameras:
        """The camera for a picture of at most that size."""
        return self.shot.camera.limited(long_side)

    def photo(self, size: tuple[int, int]) -> Float[Tensor, "_ _ 3"]:
        """Its picture of a (width, height), 0..1."""
        return torch.from_numpy(resize(self.image, *size)).float() / 255


class CameraTab:
    """Frustums with thumbnails; a click flies there.

    Args:
        client: whose.
        stage: its cameras.
        monitor: whose training takes target cameras.
        changed: is called when the picture changes.
        notice: tells the client something.
        things: node ``/things``, which all frustums hang below.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        stage: Stage,
        monitor: Monitor,
        changed: Callable[[], None],
        notice: Notice,
        things: viser.FrameHandle,
    ):
        self._client = client
        self._gallery = stage.gallery
        self._changed = changed
        self._notice = notice
        self._things = things
        self.seat: Seat | None = None
        self._flight = 0
        self._arrived = False
        self._latest = 0.0
        self._lock = threading.Lock()
        self._frustums: dict[str, viser.CameraFrustumHandle] = {}
        self._thumbnails = ThreadPoolExecutor(1, thread_name_prefix="viewer thumbnails")
        gui: Any = client.gui  # mypy takes viser's values for read-only
        there = bool(self._gallery.captured)
        self.show = {
            group: gui.add_checkbox(f"Show {group} cameras", False, visible=there) for group in ("train", "eval")
        }
        self.round = gui.add_dropdown("Novel views", (NONE, *self._gallery.rounds()), visible=there)
        self.size = gui.add_slider("Frustum size", 0.02, 1.0, 0.01, 0.12, visible=there)
        steps = gui.add_button_group("Fly to", ("previous", "next"), visible=there)
        self.compare = gui.add_dropdown(
            "Compare", COMPARISONS, visible=there, hint="With the picture of the camera that you flew to"
        )
        self._title = gui.add_markdown("" if there else "This model comes without photos.", visible=not there)
        self._photo = gui.add_image(np.zeros((2, 2, 3), np.uint8), visible=False)
        self.targets = Targets(client, stage, monitor, notice, self.size)
        for handle in (*self.show.values(), self.round):
            handle.on_update(lambda _: self.refresh())
        self.size.on_update(lambda _: self._resize())
        self.compare.on_update(lambda _: changed())
        steps.on_click(lambda event: notice.attempt(lambda: self.go(1 if event.target.value == "next" else -1)))
        client.camera.on_update(lambda _: notice.attempt(self._moved))
        self.refresh()

    @property
    def visible(self) -> bool:
        """Whether there are frustums in the picture."""
        return self.seat is None and (bool(self._frustums) or self.targets.any)

    def comparison(self) -> Comparison:
        """How the picture is compared now."""
        return self.compare.value if self.seat is not None else "off"

    def shots(self) -> list[Shot]:
        """Those that are shown."""
        shown = [shot for shot in self._gallery.captured if self.show[shot.group].value]
        return shown + self._gallery.rounds().get(self.round.value, [])

    def refresh(self) -> None:
        """Brings the frustums and the list of rounds up to date."""
        options = (NONE, *self._gallery.rounds())
        if options != self.round.options:
            self.round.options = options  # which comes back here if it takes the chosen round away
        with self._lock:
            shots = {shot.title: shot for shot in self.shots()}
            for title in [title for title in self._frustums if title not in shots]:
                self._frustums.pop(title).remove()
            for title, shot in shots.items():
                if title not in self._frustums:
                    self._frustums[title] = self._add(shot)
        self._changed()

    def go(self, by: int) -> None:
        """Flies to the next or the previous camera of those that are shown; from nowhere, to the nearest."""
        shots = self.shots()
        if not shots:
            raise UserError("There is no camera to fly to", "None is shown", "Tick one of the groups")
        if self.seat is not None and self.seat.shot in shots:
            number = (shots.index(self.seat.shot) + by) % len(shots)
        else:
            poses = torch.cat([shot.camera.c2w for shot in shots])
            number = int(pose_distance(c2w_of(self._client.camera), poses).argmin())
        self.fly_to(shots[number])

    def fly_to(self, shot: Shot) -> None:
        """Flies there; the last flight that was asked for wins."""
        self._flight += 1
        number = self._flight
        self._sit(None)
        fly(self._client, shot.camera.c2w[0], fov_of(shot.camera), lambda: self._flight == number)
        if self._flight == number:
            self._sit(Seat(shot, shot.picture()))
            self._changed()

    def close(self) -> None:
        """Ends flights and thumbnails."""
        self._flight += 1
        self._thumbnails.shutdown(wait=False, cancel_futures=True)

    def _sit(self, seat: Seat | None) -> None:
        """The frustum that one sits in would hide the view, so that all are hidden meanwhile."""
        self.seat = seat
        self._arrived = False
        self._latest = time.monotonic() + ECHO
        self._things.visible = seat is None
        self._title.visible = self._photo.visible = seat is not None
        if seat is not None:
            stride = max(1, max(seat.image.shape[:2]) // 480)
            self._photo.image = seat.image[::stride, ::stride]
            self._title.content = f"**{seat.shot.title}**"

    def _moved(self) -> None:
        """Leaves the seat when the client moves away; what the browser says of the flight still may come later."""
        seat = self.seat
        if seat is None:
            return
        near = float(pose_distance(c2w_of(self._client.camera), seat.shot.camera.c2w[0].cpu())) <= LEFT
        if near:
            self._arrived = True
        elif self._arrived or time.monotonic() > self._latest:
            self._sit(None)
            self._changed()

    def _add(self, shot: Shot) -> viser.CameraFrustumHandle:
        width, height = shot.camera.size
        frustum = self._client.scene.add_camera_frustum(
            f"/things/{shot.title.replace('/', '_')}",
            fov_of(shot.camera),
            width / height,
            scale=self.size.value,
            thickness=1.5,
            thickness_units="screen",
            color=COLORS[shot.group.split()[0]],
            wxyz=wxyz_of(shot.camera.c2w[0]),
            position=shot.camera.centers[0].double().cpu().numpy(),
        )
        frustum.on_click(lambda _: self._notice.attempt(partial(self.fly_to, shot)))
        self._thumbnails.submit(self._decorate, frustum, shot)
        return frustum

    def _decorate(self, frustum: viser.CameraFrustumHandle, shot: Shot) -> None:
        image = self._gallery.thumbnail(shot)
        with self._lock:
            if image is not None and self._frustums.get(shot.title) is frustum:
                frustum.image = image

    def _resize(self) -> None:
        for frustum in list(self._frustums.values()):
            frustum.scale = self.size.value
