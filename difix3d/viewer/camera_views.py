"""Cameras with what they should see: photos, and the novel views of each round."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from difix3d.errors import UserError
from difix3d.images import image_size, read_image, resize, to_uint8
from difix3d.training.run import RunFolder
from difix3d.types import Cameras, Scene, View

THUMBNAIL = 96
"""Long side of the pictures on the frustums, in pixels."""


@dataclass(frozen=True)
class CameraView:
    """One camera to fly to.

    Attributes:
        group: ``train``, ``eval``, or ``round STEP``.
        title: what the panel calls it.
        camera: a single one.
        picture: what it should see, of the camera's size; read when it is asked for.
    """

    group: str
    title: str
    camera: Cameras
    picture: Callable[[], UInt8[np.ndarray, "H W 3"]]


def captured(scene: Scene, photo: Callable[[int], View]) -> list[CameraView]:
    """The photos of a scene, training ones first."""
    camera_views = []
    for group, indices in (("train", scene.train), ("eval", scene.test)):
        for index in indices.tolist():
            title = f"{group} {scene.photos[index].name}"
            camera_views.append(CameraView(group, title, scene.cameras[index], _photo(photo, index)))
    return camera_views


def rounds(folder: Path, scene: Scene, white: bool = False) -> dict[str, list[CameraView]]:
    """The novel views of each round that a run's folder tells of, by ``round STEP``; their pictures are the fixed ones.

    Those whose pictures are gone are left out. ``white``: what is behind those with alpha; else black.
    """
    found: dict[str, list[CameraView]] = {}
    for row in RunFolder(folder, scene).rows("rounds.json"):
        name = f"round {row['step']}"
        fixed = folder / "rounds" / f"step_{row['step']:06d}" / "fixed"
        files = [(number, fixed / f"{number:02d}.png") for number in range(len(row["cameras"]))]
        found[name] = [
            CameraView(name, f"{name}, novel view {number}", _camera(row, number, file, scene), _file(file, white))
            for number, file in files
            if file.is_file()
        ]
    return found


class CameraList:
    """All cameras of a scene and of a run's rounds, with thumbnails that are made once for all clients."""

    def __init__(self, scene: Scene, photo: Callable[[int], View], folder: Path, white: bool = False):
        self.captured = captured(scene, photo)
        self._scene, self._folder = scene, folder
        self._white = white
        self._thumbnails: dict[str, UInt8[np.ndarray, "_ _ 3"] | None] = {}

    @property
    def written(self) -> int:
        """When the list of rounds was written last, in nanoseconds; 0 before the first. Then the pictures are there."""
        with suppress(OSError):
            return (self._folder / "rounds.json").stat().st_mtime_ns
        return 0

    def rounds(self) -> dict[str, list[CameraView]]:
        """As the run's folder has them now; none for a model without photos."""
        return rounds(self._folder, self._scene, self._white) if self.captured else {}

    def thumbnail(self, camera_view: CameraView) -> UInt8[np.ndarray, "_ _ 3"] | None:
        """A small copy of its picture; ``None`` if that cannot be read."""
        if camera_view.title not in self._thumbnails:
            self._thumbnails[camera_view.title] = _small(camera_view)
        return self._thumbnails[camera_view.title]


def _small(camera_view: CameraView) -> UInt8[np.ndarray, "_ _ 3"] | None:
    try:
        image = camera_view.picture()
    except (UserError, OSError):
        return None
    scale = THUMBNAIL / max(image.shape[:2])
    return resize(image, max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))


def _photo(photo: Callable[[int], View], index: int) -> Callable[[], UInt8[np.ndarray, "H W 3"]]:
    return lambda: to_uint8(photo(index).image)


def _file(path: Path, white: bool) -> Callable[[], UInt8[np.ndarray, "H W 3"]]:
    return lambda: read_image(path, white=white)


def _camera(row: dict[str, Any], number: int, picture: Path, scene: Scene) -> Cameras:
    width, height = image_size(picture)
    pose = torch.tensor(row["cameras"][number])[None]
    if "K" in row:
        K = torch.tensor(row["K"][number])[None]
    else:  # runs of older versions did not say
        K = scene.cameras[int(scene.train[0])].resized(width, height).K
    return Cameras(pose, K, torch.tensor([width]), torch.tensor([height]))
