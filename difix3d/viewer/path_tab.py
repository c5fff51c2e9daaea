"""Camera paths: recorded from views or ready-made, previewed, saved, rendered to a video."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import viser
from jaxtyping import Float
from torch import Tensor

from difix3d.errors import UserError
from difix3d.geometry.poses import interpolate_path
from difix3d.images import to_uint8
from difix3d.postrender import PostRender
from difix3d.scene.pathfile import CameraPath, read_path, write_path
from difix3d.scene.paths import PATHS, fit, path_cameras
from difix3d.types import Cameras, Gaussians
from difix3d.video import video_writer
from difix3d.viewer.fixing import FixQueue
from difix3d.viewer.page import Page
from difix3d.viewer.view_tab import LARGEST, LEAST
from difix3d.viewer.viewer_model import result_path
from difix3d.viewer.viser_scene import c2w_of, fov_of, pinhole, put, wxyz_of

RECORDED, LOADED = "recorded views", "loaded file"
FRAMES = 3000
"""Most frames of a path that is made here."""
MOST_BETWEEN = 100
"""Frames from one that is fixed to the next, at most."""
LARGEST_UPLOAD = 20 << 20
"""Bytes of a path's file."""


class PathTab:
    """Records, previews, saves and renders a path.

    Args:
        page: whose.
        fix_queue: has the fixer; ``None`` without one.
        trust: whether fixed frames keep what photos agree with.
    """

    def __init__(self, page: Page, fix_queue: FixQueue | None, *, trust: Callable[[], bool]):
        self._page, self._trust = page, trust
        self._client = page.client
        self._model = page.model
        self._fix_queue = fix_queue
        self._keys: list[tuple[Tensor, float]] = []
        self._loaded: CameraPath | None = None
        self._going = threading.Event()
        gui = page.gui
        made = tuple(PATHS) if len(page.model.scene.train) > 1 else ()
        self.kind = gui.add_dropdown("Path", (RECORDED, *made, LOADED))
        page.button("Add this view", self.add, icon=viser.Icon.CAMERA_PLUS)
        remove = gui.add_button_group("Remove", ("last", "all"))
        upload = gui.add_upload_button("Load a file", icon=viser.Icon.UPLOAD, mime_type="application/json")
        self.frames = gui.add_number("Frames", 120, min=2, max=FRAMES, step=1)
        self.fps = gui.add_number("Frames a second", 24.0, min=1.0, max=120.0)
        self.side = gui.add_number("Pixels", 640, min=LEAST, max=LARGEST, step=1, hint="Long side of the video")
        self.name = gui.add_text("File", "path")
        self.fix = gui.add_checkbox("Fix frames (+)", False, visible=fix_queue is not None)
        hint = "1 fixes each frame; 4 each fourth one, whose change is carried to those between: quicker and steadier"
        self.every = gui.add_number(
            "Fix every", 1, min=1, max=MOST_BETWEEN, step=1, hint=hint, visible=fix_queue is not None
        )
        page.button("Preview", partial(self._run, self.preview), icon=viser.Icon.PLAYER_PLAY)
        page.button("Save", self.save, icon=viser.Icon.DEVICE_FLOPPY)
        page.button("Render .mp4", partial(self._run, self.render), icon=viser.Icon.MOVIE)
        self.bar = gui.add_progress_bar(0.0, visible=False)
        self.cancel = page.button("Stop", self._going.clear, icon=viser.Icon.PLAYER_STOP, visible=False)
        remove.on_click(lambda event: self.remove(1 if event.target.value == "last" else len(self._keys)))
        upload.on_upload(lambda event: page.attempt(lambda: self.load(event.target.value)))

    def add(self) -> None:
        """Adds the client's view to the path."""
        camera = self._client.camera
        self._keys.append((c2w_of(camera), camera.fov))
        self.kind.value = RECORDED
        self._draw()

    def remove(self, count: int) -> None:
        """Removes the last views."""
        del self._keys[len(self._keys) - count :]
        self._draw()

    def load(self, file: viser.UploadedFile) -> None:
        """Takes a path from a file of the browser's machine."""
        if len(file.content) > LARGEST_UPLOAD:
            raise UserError(f"{file.name} has {len(file.content):,} bytes", f"A path has at most {LARGEST_UPLOAD:,}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "uploaded.json"
            path.write_bytes(file.content)
            self._loaded = read_path(path, self._model.scene)
        self.kind.value = LOADED
        self._page.say(f"{file.name}: {len(self._loaded.cameras)} cameras")

    def path(self) -> CameraPath:
        """The path as the controls say, for the shape of this client's canvas; a loaded one keeps its own shape.

        Raises:
            UserError: too few views, or numbers out of range.
        """
        frames = int(self.frames.value)
        fps = float(self.fps.value)
        side = int(self.side.value)
        if not (2 <= frames <= FRAMES and 1 <= fps <= 120 and LEAST <= side <= LARGEST):
            raise UserError(
                f"The browser asks for {frames} frames of {side} pixels, {fps:g} a second",
                f"Up to {FRAMES} frames, {LEAST} to {LARGEST} pixels, 1 to 120 a second",
            )
        if self.kind.value == LOADED:
            if self._loaded is None:
                raise UserError("No file is loaded", "", "Load one, or record views")
            cameras = self._loaded.cameras
            width, height = cameras[0].size
            return replace(self._loaded, cameras=fit(cameras, *_size(width / height, side)))
        size = _size(self._client.camera.aspect, side)
        if self.kind.value == RECORDED:
            return CameraPath(self._recorded(frames, *size), fps)
        return CameraPath(fit(path_cameras(self.kind.value, self._model.scene, frames).cameras, *size), fps)

    def save(self) -> None:
        """Writes the path for ``difix3d render --path``, and sends it to the browser."""
        file = result_path(self._model.folder / "paths", self.name.value, ".json")
        write_path(self.path(), file, self._model.scene)
        self._client.send_file_download(file.name, file.read_bytes())
        self._page.say(f"Written to {file}")

    def preview(self) -> None:
        """Moves the client's camera along the path."""
        path = self.path()
        start, count = time.monotonic(), len(path.cameras)
        self._page.overlays.visible, number = False, 0
        while self._going.is_set() and number < count - 1:
            number = min(count - 1, int((time.monotonic() - start) * path.fps))
            camera = path.cameras[number]
            put(self._client, camera.c2w[0], fov_of(camera))
            self.bar.value = 100 * number / count
            time.sleep(1 / min(path.fps, 24))
        self._page.overlays.visible = True

    def render(self) -> None:
        """Writes the video, frame by frame, of the model as it is at the beginning; stopped early, there is none."""
        path, gaussians = self.path(), self._model.snapshot.gaussians
        fixed = self.fix.value and self._fix_queue is not None
        file = result_path(self._model.folder / "renders", f"{self.name.value}{'_plus' if fixed else ''}", ".mp4")
        count, start = len(path.cameras), time.perf_counter()
        cameras = (path.cameras[number] for number in range(count))
        frames = self._fixed(gaussians, cameras) if fixed else self._plain(gaussians, cameras)
        try:
            with video_writer(file, path.fps) as write:
                for number, frame in enumerate(frames, 1):
                    write(to_uint8(frame))
                    self.bar.value = 100 * number / count
                    if not self._going.is_set():
                        raise Stopped
        except Stopped:
            self._page.say("Stopped: there is no video")
            return
        each = (time.perf_counter() - start) / count
        self._page.say(f"{count} frames written to {file}, {each * 1e3:.0f} ms per frame")

    def close(self) -> None:
        """Ends what is running."""
        self._going.clear()

    def _run(self, work: Callable[[], None]) -> None:
        """Does long work in this thread, one at a time, with a bar and a button to stop it."""
        if self._going.is_set():
            self._page.say("Something is running: stop it first")
            return
        self._going.set()
        self.bar.value = 0.0
        self.bar.visible = True
        self.cancel.visible = True
        try:
            self._page.attempt(work)
        finally:
            self._going.clear()
            self.bar.visible = self.cancel.visible = False

    def _plain(self, gaussians: Gaussians, cameras: Iterator[Cameras]) -> Iterator[Float[Tensor, "H W 3"]]:
        for camera in cameras:
            yield self._model.render(camera, gaussians, depth=False).rgb[0]

    def _fixed(self, gaussians: Gaussians, cameras: Iterator[Cameras]) -> Iterator[Float[Tensor, "H W 3"]]:
        assert self._fix_queue is not None
        every = int(self.every.value)
        if not 1 <= every <= MOST_BETWEEN:
            raise UserError(f"The browser asks to fix every {every} frames", f"1 to {MOST_BETWEEN}")
        post: PostRender = self._fix_queue.model(gaussians, self._trust())
        return post.stream(cameras, every=every)

    def _recorded(self, frames: int, width: int, height: int) -> Cameras:
        if len(self._keys) < 2:
            raise UserError(f"The path has {len(self._keys)} view(s)", "It needs at least 2", "Add views to it")
        poses = interpolate_path(torch.stack([c2w for c2w, _ in self._keys]), frames)
        fovs = np.interp(
            np.linspace(0, len(self._keys) - 1, frames), np.arange(len(self._keys)), [fov for _, fov in self._keys]
        )
        lenses = [pinhole(pose, float(fov), width, height) for pose, fov in zip(poses, fovs, strict=True)]
        K = torch.cat([lens.K for lens in lenses])
        return Cameras(poses, K, torch.full((frames,), width), torch.full((frames,), height))

    def _draw(self) -> None:
        """The recorded views in the scene, and the line through them."""
        scene = self._client.scene
        scene.add_frame("/overlays/path", show_axes=False)  # replaces what was there
        for number, (c2w, fov) in enumerate(self._keys):
            scene.add_camera_frustum(
                f"/overlays/path/{number}",
                fov,
                self._client.camera.aspect,
                scale=0.06,
                thickness=1.5,
                thickness_units="screen",
                color=(230, 200, 40),
                wxyz=wxyz_of(c2w),
                position=c2w[:3, 3].numpy(),
            )
        if len(self._keys) > 1:
            centers = interpolate_path(torch.stack([c2w for c2w, _ in self._keys]), 10 * len(self._keys))[:, :3, 3]
            lines = np.stack([centers[:-1].numpy(), centers[1:].numpy()], 1)
            scene.add_line_segments(
                "/overlays/path/line", lines, (230, 200, 40), thickness=2.0, thickness_units="screen"
            )


class Stopped(Exception):
    """The client wants no more of it."""


def _size(aspect: float, side: int) -> tuple[int, int]:
    """(width, height) of that shape, even as videos like it."""
    width, height = (side, side / aspect) if aspect >= 1 else (side * aspect, side)
    return max(2, round(width / 2) * 2), max(2, round(height / 2) * 2)
