"""One client: what its browser shows."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import viser
from jaxtyping import Float
from torch import Tensor

from difix3d.images import to_uint8
from difix3d.types import Cameras, Gaussians, Render
from difix3d.viewer.camera_tab import CameraTab
from difix3d.viewer.fixing import ClientFixes, Fixed, FixQueue
from difix3d.viewer.frames import AdaptiveScale, Frame, FrameLoop
from difix3d.viewer.page import Page
from difix3d.viewer.path_tab import PathTab
from difix3d.viewer.pictures import Seen, compared, letterbox, picture, split
from difix3d.viewer.training_tab import Monitor, TrainingTab
from difix3d.viewer.view_tab import Crop, ViewTab
from difix3d.viewer.viewer_model import ViewerModel
from difix3d.viewer.viser_scene import Divider, Splats, canvas_camera

DEPTH_SIDE = 320
"""Long side, in pixels, of the depth that hides frustums behind the model."""
FAR = 167.0
"""Depth in scene units of what is not covered; viser sends no larger one."""
BLINK = 0.7
"""Seconds that each of two blinking pictures is shown."""


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
        self._busy = busy
        self.loop = FrameLoop(self._draw, lambda error: self.page.error(error))
        self.page = page = Page(client, viewer_model, self.loop.wake)
        self._adaptive_scale, self._tick = AdaptiveScale(), 0
        self._snapshot = viewer_model.snapshot
        self._frame: Frame | None = None
        self._seen: tuple[Gaussians, Seen] | None = None
        self._fixes: ClientFixes | None = None
        if fix_queue is not None:
            self._fixes = ClientFixes(fix_queue, self.loop.wake)
        tabs = client.gui.add_tab_group()
        live = monitor.control is not None
        with tabs.add_tab("View", viser.Icon.EYE):
            self.view = ViewTab(page, trust=not live)
            self.crop = Crop(page)
        with tabs.add_tab("Cameras", viser.Icon.CAMERA):
            self.cameras = CameraTab(page, monitor)
        with tabs.add_tab("Path", viser.Icon.ROUTE):
            self.path = PathTab(page, fix_queue, trust=lambda: self.view.trust.value)
        with tabs.add_tab("Training" if live else "Run", viser.Icon.CHART_LINE):
            self.training = TrainingTab(page, monitor)
        self._splats = Splats(client)
        self._divider = Divider(client, self.view.share)
        self._add_commands()
        client.camera.on_update(lambda _: self.loop.wake(moved=True))
        self.loop.start()

    def refresh(self, *, cameras: bool) -> None:
        """Brings the panels up to date; ``cameras``: also the rounds that were done."""
        self.page.attempt(self.training.update)
        if cameras:
            self.page.attempt(self.cameras.refresh)

    def close(self) -> None:
        """Ends everything that works for this client."""
        self.loop.close()
        self.path.close()
        self.cameras.close()
        if self._fixes is not None:
            self._fixes.cancel()

    def _draw(self, moving: bool) -> float | None:
        start = time.perf_counter()
        fixes = self._fixes if self.view.fixing.value != "off" else None
        if fixes is None or not fixes.holding:
            self._snapshot = self.model.snapshot
        model = self.crop.apply(self._snapshot)
        if self.view.renderer.value != "server":
            self._show_splats(model)
            self._busy(time.perf_counter() - start)
            return None
        self._splats.hide()
        mode = self.cameras.comparison()
        followed = self.cameras.followed if mode != "off" else None
        side = round(self.view.long_side() * (self._adaptive_scale.scale if moving else 1.0))
        camera = canvas_camera(self.client.camera, side) if followed is None else followed.view.camera.limited(side)
        frame = self._render(model, camera)
        image = picture(self.view.layer.value, frame.out, partial(self._count, model, frame))
        fixed, clean, failure = self._fix(fixes, frame, model, moving)
        divided = clean is not None and self.view.fixing.value == "split"
        if clean is not None:
            image = split(image, clean, self.view.share.value) if divided else clean
        if followed is not None:
            photo = followed.photo(camera.size)
            image = letterbox(compared(mode, image, photo.to(image), self._tick), self.client.camera.aspect)
        self._send(image, None if followed is not None else frame.out, moving)
        if divided and followed is None:
            self._divider.show(camera)
        else:
            self._divider.hide()
        seconds = time.perf_counter() - start
        if moving:
            self._adaptive_scale.took(seconds)
        else:
            self._busy(seconds)
        doing = [f"{1 / seconds:.0f} frames a second"] if moving else []
        if fixes is not None and not moving:
            doing.append("fixing ...")
        elif fixes is not None and clean is not None:
            doing.append(f"carried from the last key frame, fixed in {fixes.took * 1e3:.0f} ms")
        self._show_status(frame, fixed, len(model), doing)
        if failure is not None:
            self.page.error(failure)  # the render is shown all the same
        else:
            self.page.clear_error()
        if mode == "blink":
            self._tick += 1
            return BLINK
        return None

    def _show_splats(self, model: Gaussians) -> None:
        self.client.scene.set_background_image(None)
        self._divider.hide()
        self._splats.show(model)
        self.view.status.content = f"{len(model):,} Gaussians in the browser{self._at()}"

    def _render(self, model: Gaussians, camera: Cameras) -> Frame:
        of = (self._snapshot.number, len(model), self.crop.key)
        key = (of, camera.size, *camera.c2w.flatten().tolist(), *camera.K.flatten().tolist())
        if self._frame is None or self._frame.key != key:
            start = time.perf_counter()
            out = self.model.render(camera, model)
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            self._frame = Frame(of, key, camera.to(model.device), out, time.perf_counter() - start)
        return self._frame

    def _count(self, model: Gaussians, frame: Frame) -> Tensor:
        """How many photos see each pixel; what is known of their depths is kept with the model."""
        if self._seen is None or self._seen[0] is not model:
            captured = self.model.scene.cameras[self.model.scene.train].to(model.device)
            self._seen = model, Seen(captured, partial(self.model.render, gaussians=model))
        return self._seen[1](frame.camera, frame.out.depth_map)

    def _fix(
        self, fixes: ClientFixes | None, frame: Frame, model: Gaussians, moving: bool
    ) -> tuple[Fixed | None, Float[Tensor, "H W 3"] | None, BaseException | None]:
        """A frame's fix if it is there, the clean picture as far as it is known, and what went wrong with it."""
        if fixes is None:
            self.view.show_reference(None)
            return None, None, None
        trust = self.view.trust.value
        fixed, failure = fixes.fix(frame, model, trust, moving)
        if fixed is None:
            return None, fixes.carried(frame, trust), failure
        self.view.show_reference(fixed.reference)
        return fixed, fixed.rgb, None

    def _send(self, image: Float[Tensor, "_ _ 3"], out: Render | None, moving: bool) -> None:
        if self.loop.closed:
            return  # the client has left meanwhile
        depth = None
        if out is not None and self.cameras.visible:
            stride = -(-max(image.shape[:2]) // DEPTH_SIDE)
            covered = out.alpha[0, ::stride, ::stride, 0] >= 0.5
            depth = torch.where(covered, out.depth_map[::stride, ::stride], FAR).cpu().numpy()
        self.client.scene.set_background_image(to_uint8(image), "jpeg", jpeg_quality=70 if moving else 92, depth=depth)

    def _show_status(self, frame: Frame, fixed: Fixed | None, count: int, doing: list[str]) -> None:
        width, height = frame.camera.size
        parts = [f"{width} x {height}", f"render {frame.seconds * 1e3:.0f} ms"]
        if fixed is not None:
            parts.append(f"fix {fixed.seconds * 1e3:.0f} ms")
            parts[-1] += ", on the right" if self.view.fixing.value == "split" else ""
        else:
            parts += doing
        self.view.status.content = " · ".join(parts) + f"\n\n{count:,} Gaussians{self._at()}"

    def _at(self) -> str:
        return "" if self._snapshot.step is None else f", step {self._snapshot.step:,}"

    def _add_commands(self) -> None:
        """Hot keys, which viser lists in its palette (Ctrl-K) as well."""
        commands: tuple[tuple[str, Any, Callable[[], None]], ...] = (
            ("Next layer", "L", lambda: _choose_next(self.view.layer)),
            ("Fixer: off, on, split", "F", lambda: _choose_next(self.view.fixing)),
            ("Next comparison with the photo", "C", lambda: _choose_next(self.cameras.compare)),
            ("Next camera", "N", lambda: self.cameras.go(1)),
            ("Previous camera", "P", lambda: self.cameras.go(-1)),
            ("Add the view to the path", "K", self.path.add),
        )
        for label, key, action in commands:
            self.client.gui.add_command(label, hotkey=key).on_trigger(self.page.attempting(action))


def _choose_next(handle: Any) -> None:
    """The next option of a drop-down."""
    options = handle.options
    handle.value = options[(options.index(handle.value) + 1) % len(options)]
