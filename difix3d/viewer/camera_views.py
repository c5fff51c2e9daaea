"""Cameras with what they should see: photos, and the novel views of each round."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
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


class CameraList:
    """All cameras of a scene and of a run's rounds, with thumbnails that are made once for all clients.

    Args:
        scene: with its photos.
        photo: gives one by its index, as it is to be looked at.
        folder: of the run.
        white: what is behind novel views with alpha; else black.

    Attributes:
        captured: the photos of the scene, training ones first.
    """

    def __init__(self, scene: Scene, photo: Callable[[int], View], folder: Path, white: bool):
        self._scene, self._photo = scene, photo
        self._folder, self._white = folder, white
        self._thumbnails: dict[str, UInt8[np.ndarray, "_ _ 3"] | None] = {}
        self.captured = [
            CameraView(group, f"{group} {scene.photos[index].name}", scene.cameras[index], partial(self._pixels, index))
            for group, indices in (("train", scene.train), ("eval", scene.test))
            for index in indices.tolist()
        ]

    @property
    def written(self) -> int:
        """When the list of rounds was written last, in nanoseconds; 0 before the first. Then the pictures are there."""
        with suppress(OSError):
            return (self._folder / "rounds.json").stat().st_mtime_ns
        return 0

    def rounds(self) -> dict[str, list[CameraView]]:
        """The novel views of each round that the run's folder tells of now, by ``round STEP``, with the fixed pictures.

        Those whose pictures are gone are left out. None for a model without photos.
        """
        found: dict[str, list[CameraView]] = {}
        for row in RunFolder(self._folder, self._scene).rows("rounds.json") if self.captured else ():
            name = f"round {row['step']}"
            fixed = self._folder / "rounds" / f"step_{row['step']:06d}" / "fixed"
            files = [(number, fixed / f"{number:02d}.png") for number in range(len(row["cameras"]))]
            found[name] = [
                CameraView(
                    name,
                    f"{name}, novel view {number}",
                    _camera(row, number, file, self._scene),
                    partial(read_image, file, white=self._white),
                )
                for number, file in files
                if file.is_file()
            ]
        return found

    def thumbnail(self, camera_view: CameraView) -> UInt8[np.ndarray, "_ _ 3"] | None:
        """A small copy of its picture; ``None`` if that cannot be read."""
        if camera_view.title not in self._thumbnails:
            try:
                image = camera_view.picture()
                scale = THUMBNAIL / max(image.shape[:2])
                image = resize(image, max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            except (UserError, OSError):
                image = None
            self._thumbnails[camera_view.title] = image
        return self._thumbnails[camera_view.title]

    def _pixels(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return to_uint8(self._photo(index).image)


def _camera(row: dict[str, Any], number: int, picture: Path, scene: Scene) -> Cameras:
    width, height = image_size(picture)
    pose = torch.tensor(row["cameras"][number])[None]
    if "K" in row:
        K = torch.tensor(row["K"][number])[None]
    else:  # runs of older versions did not say
        K = scene.cameras[int(scene.train[0])].resized(width, height).K
    return Cameras(pose, K, torch.tensor([width]), torch.tensor([height]))
