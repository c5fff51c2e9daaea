"""Reduced photos, kept in the user's cache folder: a large photo is decoded once, not once a run."""

import hashlib
import io
import os
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from difix3d.errors import UserError
from difix3d.files import sweep, whole_file
from difix3d.images import image_size, may_be_transparent, read_photo
from difix3d.places import cache_folder

EXPENSIVE = 4_000_000
"""Pixels beyond what is asked for from which a photo is worth keeping: a tenth of a second of decoding."""

LIMIT_BYTES = 20 << 30
"""Of the folder; the photos that were not read for longest go first."""

KEEP_FREE_BYTES = 10 << 30
"""Of the disk: with less left, nothing is added. A share would refuse the cache on a large disk with room to spare."""

Reader = Callable[[Path, tuple[int, int]], UInt8[np.ndarray, "H W C"]]
"""From a file to an image of this (width, height)."""


def photo_cache() -> Path | None:
    """The folder of reduced photos in the user's cache; ``None`` for a user without a home."""
    with suppress(UserError):
        return cache_folder() / "photos"
    return None


def read_reduced(
    path: Path, size: tuple[int, int], folder: Path | None, read: Reader = read_photo, key: str = ""
) -> UInt8[np.ndarray, "H W C"]:
    """A photo at another size, by way of the cache where that is quicker; ``folder=None`` does without.

    Args:
        read: makes it of the file; ``key`` tells apart what different readers make of one file.

    A cache that is damaged, cannot be written, or whose disk is nearly full, is not an error: the photo is decoded
    again then.
    """
    width, height = image_size(path)
    if folder is None or width * height - size[0] * size[1] < EXPENSIVE:
        return read(path, size)
    state = path.stat()
    key = f"{path.resolve()}|{state.st_mtime_ns}|{state.st_size}|{size}|{key}"
    key += "|alpha" if may_be_transparent(path) else ""  # earlier versions kept such photos over white
    entry = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    with suppress(OSError, ValueError):
        image = _load(entry)
        if image.shape[:2] == (size[1], size[0]) and image.shape[2:] in ((3,), (4,)) and image.dtype == np.uint8:
            os.utime(entry)
            return image
    image = read(path, size)
    with suppress(OSError, UserError):
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # shared with compiled code: the user's alone
        folder.mkdir(exist_ok=True)
        if shutil.disk_usage(folder).free - image.nbytes > KEEP_FREE_BYTES:
            with whole_file(entry, sync=False) as partial:
                _save(partial, image)
    return image


def _save(path: Path, image: UInt8[np.ndarray, "H W C"]) -> None:
    """Writes an image with a checksum behind it: what is damaged there would be trained on."""
    file = io.BytesIO()
    np.save(file, image)
    path.write_bytes(file.getvalue() + zlib.crc32(file.getbuffer()).to_bytes(4, "little"))


def _load(path: Path) -> UInt8[np.ndarray, "H W C"]:
    """Reads what :func:`_save` wrote.

    Raises:
        ValueError: it is not what was written.
    """
    content = path.read_bytes()
    if zlib.crc32(content[:-4]).to_bytes(4, "little") != content[-4:]:
        raise ValueError(f"{path} is damaged")
    return np.load(io.BytesIO(content))


def prune(folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
    """Deletes the photos that were not read for longest until the folder is below the limit."""
    sweep(folder)
    with suppress(OSError):
        entries = sorted(((e.stat().st_mtime, e.stat().st_size, e) for e in folder.glob("*.npy")), reverse=True)
        total = 0
        for _, size, entry in entries:
            total += size
            if total > limit_bytes:
                entry.unlink(missing_ok=True)
