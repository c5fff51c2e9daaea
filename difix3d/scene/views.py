"""From photos to tensors: decoded in background threads, kept as bytes under a memory limit."""

import logging
import os
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import cache, lru_cache, partial
from itertools import chain, tee
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from difix3d.geometry.lens import intrinsics, sampling_map
from difix3d.images import image_size, read_mask, read_photo, sample
from difix3d.scene.cache import photo_cache, prune, read_reduced
from difix3d.scene.panorama import is_panorama, read_face
from difix3d.types import Cameras, Lens, Photo, Scene, View

log = logging.getLogger(__name__)

Pixels = tuple[UInt8[Tensor, "H W C"], Bool[Tensor, "H W"] | None]
"""Image and mask as they are kept; C is 4 where the photo has alpha, and the colours are multiplied by it."""


class Views:
    """The photos of a scene as :class:`View` s: ``views[i]``, or ``views.stream(order)`` with decoding ahead.

    The caller's order is the order of the results; threads change the speed only.

    Args:
        scene: whose photos.
        device: where images and cameras go.
        memory_limit_bytes: of the decoded photos that are kept; the least recently used go first. The few photos that
            are decoded ahead come on top.
        keep_on: where they are kept, as bytes.
        threads: that decode.
        ahead: how many photos ``stream`` decodes before they are asked for.
        cache: keep reduced copies of large photos in the user's cache folder (``scene/cache.py``), and read them there.
    """

    def __init__(
        self,
        scene: Scene,
        device: torch.device | str = "cpu",
        memory_limit_bytes: int = 4 << 30,
        keep_on: torch.device | str = "cpu",
        threads: int = min(4, os.cpu_count() or 1),
        ahead: int = 8,
        cache: bool = True,
    ):
        self.scene = scene
        self.device = torch.device(device)
        self.memory_limit_bytes = memory_limit_bytes
        self._keep_on = keep_on
        self.held_bytes = 0
        self._ahead = ahead
        self._cameras = scene.cameras.to(device)
        self._kept: OrderedDict[int, Pixels] = OrderedDict()
        self._lock = Lock()
        self._cache = photo_cache() if cache else None
        if self._cache is not None:
            prune(self._cache)
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.scene.photos)

    def __getitem__(self, index: int) -> View:
        return self._view(index, self._pixels(index))

    def stream(self, order: Iterable[int]) -> Generator[View, None, None]:
        """The views in the given order (which may be endless), the next ones being decoded meanwhile."""
        coming: deque[tuple[int, Future[Pixels]]] = deque()
        try:
            for index in order:
                coming.append((index, self._workers.submit(self._ready, index)))
                if len(coming) > self._ahead:
                    yield self._next(coming)
            while coming:
                yield self._next(coming)
        finally:
            for _, future in coming:
                future.cancel()

    def batches(self, order: Iterable[list[int]]) -> Generator[list[View], None, None]:
        """As :meth:`stream`, some views at a time."""
        batches, coming = tee(order)
        with closing(self.stream(chain.from_iterable(coming))) as stream:
            for batch in batches:
                yield [next(stream) for _ in batch]

    def _next(self, coming: "deque[tuple[int, Future[Pixels]]]") -> View:
        index, future = coming.popleft()
        return self._view(index, future.result())

    def _view(self, index: int, pixels: Pixels) -> View:
        image, mask = pixels
        image = image.to(self.device, non_blocking=True) / 255
        return View(
            camera=self._cameras[index],
            image=image[..., :3].contiguous(),
            alpha=image[..., 3].contiguous() if image.shape[2] == 4 else None,
            name=self.scene.photos[index].name,
            index=index,
            mask=None if mask is None else mask.to(self.device, non_blocking=True),
            place=self.scene.places[index],
        )

    def _ready(self, index: int) -> Pixels:
        """The pixels, where a GPU can fetch them while it works: of other memory than pinned its host would wait."""
        image, mask = self._pixels(index)
        if self.device.type != "cuda" or image.is_cuda:
            return image, mask
        return image.pin_memory(), None if mask is None else mask.pin_memory()

    def _pixels(self, index: int) -> Pixels:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        image, mask = decode(self.scene.photos[index], self.scene.cameras[index], self._cache)
        pixels = image.to(self._keep_on), None if mask is None else mask.to(self._keep_on)
        with self._lock:
            if index in self._kept or _size(pixels) > self.memory_limit_bytes:
                return pixels
            while self.held_bytes + _size(pixels) > self.memory_limit_bytes:
                self.held_bytes -= _size(self._kept.popitem(last=False)[1])
            self._kept[index] = pixels
            self.held_bytes += _size(pixels)
        return pixels


def _size(pixels: Pixels) -> int:
    return sum(tensor.nbytes for tensor in pixels if tensor is not None)


def decode(photo: Photo, camera: Cameras, cache: Path | None = None) -> Pixels:
    """The photo as its pinhole camera sees it, with its alpha if it has one, and which pixels count (``None``: all).

    A distorted photo is first reduced to the scale of the camera (Lanczos), then sampled (bicubic): the samples would
    alias otherwise. Of a 360 photo a face is cut.

    Raises:
        UserError: the file cannot be read.
    """
    size = camera.size
    if photo.lens is None:
        image = torch.from_numpy(_read(photo, size, cache))
        return image, None if photo.mask is None else torch.from_numpy(read_mask(photo.mask, size, photo.mask_turn))
    if is_panorama(photo.lens):
        face, counts = read_face(photo, camera, cache)
        return torch.from_numpy(face), None if counts is None else torch.from_numpy(counts)
    K = camera.K[0].double().numpy()
    grid, inside = _grid(photo.lens, tuple(K.flatten().tolist()), *size)
    scale = min(1.0, K[0, 0] / intrinsics(photo.lens)[0])
    work = round(photo.lens.width * scale), round(photo.lens.height * scale)
    stored = image_size(photo.path, photo.turn)
    work = stored if max(work) > max(stored) else work
    image = torch.from_numpy(sample(_read(photo, work, cache), grid, "bicubic"))
    if photo.mask is not None:
        seen = read_mask(photo.mask, work, photo.mask_turn)[..., None].astype(np.uint8) * 255
        inside = inside & (sample(np.repeat(seen, 3, 2), grid, "bilinear")[..., 0] > 127)
    return image, None if inside.all() else torch.from_numpy(inside)


def _read(photo: Photo, size: tuple[int, int], folder: Path | None) -> UInt8[np.ndarray, "H W C"]:
    read, key = partial(read_photo, turn=photo.turn), "" if photo.turn == 1 else f"turn {photo.turn}"
    pixels = read_reduced(photo.path, size, folder, read, key)
    if pixels.shape[2] == 4 and not pixels[..., 3].any():
        _tell_empty(photo.path)
    return pixels


@cache  # once a photo
def _tell_empty(path: Path) -> None:
    log.warning("The photo %s is wholly transparent: it says that nothing is there", path)


@lru_cache(maxsize=8)
def _grid(
    lens: Lens, K: tuple[float, ...], width: int, height: int
) -> tuple[Float[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]]:
    return sampling_map(lens, np.array(K).reshape(3, 3), width, height)
