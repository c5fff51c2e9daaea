"""One client: what its browser shows."""

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import viser
from jaxtyping import Float
from torch import Tensor

from difix3d.images import to_uint8
from difix3d.types import Cameras, Gaussians, Render
from difix3d.viewer.camera_tab import CameraTab
from difix3d.viewer.crop import Crop
from difix3d.viewer.fixing import CarriedFix, Fixed, FixQueue
from difix3d.viewer.frames import AdaptiveScale, FrameLoop
from difix3d.viewer.monitor import Monitor
from difix3d.viewer.path_tab import PathTab
from difix3d.viewer.pictures import Seen, compared, letterbox, picture, split
from difix3d.viewer.status_line import StatusLine
from difix3d.viewer.training_tab import TrainingTab
from difix3d.viewer.view_tab import ViewTab
from difix3d.viewer.viewer_model import Snapshot, ViewerModel
from difix3d.viewer.viser_scene import Divider, Splats, canvas_camera

DEPTH_SIDE = 320
"""Long side, in pixels, of the depth that hides frustums behind the model."""
FAR = 167.0
"""Depth in scene units of what is not covered; viser sends no larger one."""
LONGEST = 0.3
"""Seconds that a moving picture waits for the fixer."""
QUICK = 1.0
"""Seconds that a fix may take, for fixing in motion: the one at rest waits for the last of them."""
BLINK = 0.7
"""Seconds that each of two blinking pictures is shown."""


@dataclass(frozen=True)
class Frame:
    """A render, and what it is of; equal keys are equal renders."""

    key: tuple
    camera: Cameras
    out: Render
    seconds: float


class Session:
    """Draws for one client until it leaves.

    Args:
        client: the browser.
        viewer_model: what it looks at.
        fix_queue: fixes its pictures; ``None`` without a fixer.
        monitor: of the training, or of the run.
        busy: is told how many seconds each picture took that nobody asked for by moving.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        viewer_model: ViewerModel,
        fix_queue: FixQueue | None,
        monitor: Monitor,
        busy: Callable[[float], None],
    ):
        self.client = client
        self.model = viewer_model
        self.fix_queue = fix_queue
        self._busy = busy
        self.loop = FrameLoop(self._draw, self._failed)
        self._adaptive_scale, self._tick = AdaptiveScale(), 0
        self._snapshot, self._held_until = viewer_model.snapshot, 0.0
        self._frame: Frame | None = None
        self._seen: tuple[Gaussians, Seen] | None = None
        self._fix: tuple[tuple, Future[Fixed]] | None = None
        self._carried, self._took = CarriedFix(), 0.0
        self.status_line = StatusLine(client)
        overlays = client.scene.add_frame("/overlays", show_axes=False)
        tabs = client.gui.add_tab_group()
        live = monitor.control is not None
        with tabs.add_tab("View", viser.Icon.EYE):
            self.view = ViewTab(
                client,
                why_no_fixer=viewer_model.why_no_fixer if fix_queue is None else "",
                trust=not live,
                side=1280 if viewer_model.device.type == "cuda" else 640,
                changed=self.loop.wake,
            )
            self.crop = Crop(client, viewer_model, self.loop.wake, self.status_line)
        with tabs.add_tab("Cameras", viser.Icon.CAMERA):
            self.cameras = CameraTab(client, viewer_model, monitor, self.loop.wake, self.status_line, overlays)
        with tabs.add_tab("Path", viser.Icon.ROUTE):
            self.path = PathTab(
                client, viewer_model, fix_queue, self.status_line, overlays, trust=lambda: self.view.trust.value
            )
        with tabs.add_tab("Training" if live else "Run", viser.Icon.CHART_LINE):
            self.training = TrainingTab(client, monitor, self.status_line)
        self._splats = Splats(client)
        self._divider = Divider(client, self._drag_divider)
        self._add_commands()
        client.camera.on_update(lambda _: self.loop.wake(moved=True))
        self.loop.start()

    def refresh(self, *, cameras: bool) -> None:
        """Brings the panels up to date; ``cameras``: also the rounds that were done."""
        self.status_line.attempt(self.training.update)
        if cameras:
            self.status_line.attempt(self.cameras.refresh)

    def close(self) -> None:
        """Ends everything that works for this client."""
        self.loop.close()
        self.path.close()
        self.cameras.close()
        if self._fix is not None:
            self._fix[1].cancel()

    def _draw(self, moving: bool) -> float | None:
        start = time.perf_counter()
        snapshot = self._current()
        model = self.crop.apply(snapshot)
        if self.view.renderer.value != "server":
            self.client.scene.set_background_image(None)
            self._divider.hide()
            self._splats.show(model)
            self.view.status.content = f"{len(model):,} Gaussians in the browser{_at(snapshot)}"
            self._busy(time.perf_counter() - start)
            return None
        self._splats.hide()
        mode = self.cameras.comparison()
        scale = self._adaptive_scale.scale if moving else 1.0
        side = round(self.view.long_side() * scale)
        followed = self.cameras.followed if mode != "off" else None
        camera = canvas_camera(self.client.camera, side) if followed is None else followed.sized(side)
        frame = self._render(snapshot, model, camera)
        image = picture(self.view.layer.value, frame.out, partial(self._count, model, frame))
        fixed, failure = self._fixed(frame, model, moving)
        clean = self._carried.to(self._fix_of(frame), frame.camera, frame.out) if fixed is None else fixed.rgb
        if self.fix_queue is None or self.view.fixing.value == "off":
            clean = None
        if clean is not None:
            image = split(image, clean, self.view.share.value) if self.view.fixing.value == "split" else clean
        if followed is not None:
            photo = followed.photo(camera.size)
            image = letterbox(compared(mode, image, photo.to(image), self._tick), self.client.camera.aspect)
        self._send(image, None if followed is not None else frame.out, moving)
        if clean is not None and self.view.fixing.value == "split" and followed is None:
            self._divider.show(camera, self.view.share.value)
        else:
            self._divider.hide()
        seconds = time.perf_counter() - start
        if moving:
            self._adaptive_scale.took(seconds)
        else:
            self._busy(seconds)
        if not moving or clean is not None:
            doing = "fixing ..." if clean is None else "carried from the last fix"
            doing += f", {1 / seconds:.0f} frames a second" if moving else ""
            self._show_status(frame, fixed, snapshot, len(model), doing)
        if failure is not None:
            self.status_line.error(failure)  # the render is shown all the same
        else:
            self.status_line.clear_error()
        if mode == "blink":
            self._tick += 1
            return BLINK
        return None

    def _current(self) -> Snapshot:
        """The latest model; while a picture of an older one is being fixed, or was just fixed, that one."""
        waiting = self.view.fixing.value != "off" and self._fix is not None
        if not waiting or (self._fix is not None and self._fix[1].done() and time.monotonic() > self._held_until):
            self._snapshot = self.model.snapshot
        return self._snapshot

    def _render(self, snapshot: Snapshot, model: Gaussians, camera: Cameras) -> Frame:
        key = (
            snapshot.number,
            len(model),
            self.crop.key,
            camera.size,
            *camera.c2w.flatten().tolist(),
            *camera.K.flatten().tolist(),
        )
        if self._frame is None or self._frame.key != key:
            start = time.perf_counter()
            out = self.model.render(camera, model)
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            self._frame = Frame(key, camera.to(model.device), out, time.perf_counter() - start)
        return self._frame

    def _count(self, model: Gaussians, frame: Frame) -> Tensor:
        """How many photos see each pixel; what is known of their depths is kept with the model."""
        if self._seen is None or self._seen[0] is not model:
            captured = self.model.scene.cameras[self.model.scene.train].to(model.device)
            self._seen = model, Seen(captured, partial(self.model.render, gaussians=model))
        return self._seen[1](frame.camera, frame.out.depth_map)

    def _fixed(self, frame: Frame, model: Gaussians, moving: bool) -> tuple[Fixed | None, BaseException | None]:
        """The fixed picture of a frame, or what went wrong with it.

        If it is not there it is asked for, and what waited before is dropped.
        """
        if self.fix_queue is None or self.view.fixing.value == "off":
            self.view.show_reference(None)
            return None, None
        key = (*frame.key, self.view.trust.value)
        if moving and not self.model.fixes_in_motion:  # key frames only, as the fixer gets done, and if it is quick
            if self._fix is not None and self._fix[1].done() and self._took < QUICK:
                self._ask(key, frame, model)
            return None, None
        if self._fix is None or self._fix[0] != key:
            if self._fix is not None:
                self._fix[1].cancel()
            self._ask(key, frame, model)
        assert self._fix is not None
        future = self._fix[1]
        if moving:
            wait([future], LONGEST)
        if not future.done() or future.cancelled():
            return None, None
        if future.exception() is not None:
            return None, future.exception()
        self.view.show_reference(future.result().reference)
        return future.result(), None

    def _ask(self, key: tuple, frame: Frame, model: Gaussians) -> None:
        """Has a frame fixed."""
        assert self.fix_queue is not None
        future = self.fix_queue.submit(frame.camera, model, self.view.trust.value)
        self._fix = key, future
        future.add_done_callback(partial(self._arrived, self._fix_of(frame), frame))

    def _fix_of(self, frame: Frame) -> tuple:
        """What a fix is of, wherever the camera is."""
        return (*frame.key[:3], self.view.trust.value)

    def _arrived(self, of: tuple, frame: Frame, future: "Future[Fixed]") -> None:
        if not future.cancelled() and future.exception() is None:
            self._took = future.result().seconds
            self._carried.keep(of, frame.camera, frame.out, future.result().rgb)
            self._held_until = time.monotonic() + max(2.0, 10 * future.result().seconds)
        self.loop.wake()

    def _send(self, image: Float[Tensor, "_ _ 3"], out: Render | None, moving: bool) -> None:
        if self.loop.closed:
            return  # the client has left meanwhile
        depth = None
        if out is not None and self.cameras.visible:
            stride = -(-max(image.shape[:2]) // DEPTH_SIDE)
            covered = out.alpha[0, ::stride, ::stride, 0] >= 0.5
            depth = torch.where(covered, out.depth_map[::stride, ::stride], FAR).cpu().numpy()
        self.client.scene.set_background_image(to_uint8(image), "jpeg", jpeg_quality=70 if moving else 92, depth=depth)

    def _show_status(self, frame: Frame, fixed: Fixed | None, snapshot: Snapshot, count: int, doing: str) -> None:
        width, height = frame.camera.size
        parts = [f"{width} x {height}", f"render {frame.seconds * 1e3:.0f} ms"]
        if fixed is not None:
            parts.append(
                f"fix {fixed.seconds * 1e3:.0f} ms" + (", on the right" if self.view.fixing.value == "split" else "")
            )
        elif self.fix_queue is not None and self.view.fixing.value != "off":
            parts.append(doing)
        self.view.status.content = " · ".join(parts) + f"\n\n{count:,} Gaussians{_at(snapshot)}"

    def _failed(self, error: Exception) -> None:
        self.status_line.error(error)

    def _drag_divider(self, share: float) -> None:
        self.view.share.value = share

    def _add_commands(self) -> None:
        """Hot keys, which viser lists in its palette (Ctrl-K) as well."""
        commands: tuple[tuple[str, Any, Callable[[], None]], ...] = (
            ("Next layer", "L", lambda: self.view.next_of(self.view.layer)),
            ("Fixer: off, on, split", "F", lambda: self.view.next_of(self.view.fixing)),
            ("Next comparison with the photo", "C", lambda: self.view.next_of(self.cameras.compare)),
            ("Next camera", "N", lambda: self.cameras.go(1)),
            ("Previous camera", "P", lambda: self.cameras.go(-1)),
            ("Add the view to the path", "K", self.path.add),
        )
        for label, key, action in commands:
            command = self.client.gui.add_command(label, hotkey=key)
            command.on_trigger(partial(self._obey, action))

    def _obey(self, action: Callable[[], None], _: viser.CommandEvent) -> None:
        self.status_line.attempt(action)


def _at(snapshot: Snapshot) -> str:
    return "" if snapshot.step is None else f", step {snapshot.step:,}"
