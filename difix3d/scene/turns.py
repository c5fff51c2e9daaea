"""Which photos are turned as their EXIF orientation says: those whose cameras were found so."""

import logging
from pathlib import Path

from difix3d.console import track
from difix3d.formats import turned, undone
from difix3d.images import image_size, image_turn
from difix3d.types import Lens

log = logging.getLogger(__name__)

ROUNDING = 2
"""Pixels by which a scaled image may miss the exact size: programs round ``images_N`` in different ways."""


def choose_turns(paths: list[Path], lenses: list[Lens]) -> list[int]:
    """For each photo the EXIF orientation that its pixels are turned by; 1: as stored.

    Phones store photos as the sensor lies. COLMAP finds cameras of the pixels as stored, other programs of upright
    photos; the size of the camera tells. Where it cannot (square photos, those upside down), it is as with the others,
    and as stored if there are none.
    """
    wanted = [image_turn(path) for path in track(paths, len(paths), "looking at the photos")]
    asks = [i for i, turn in enumerate(wanted) if turn != 1]
    upright, open_ = [], []
    for i in asks:
        size, camera = image_size(paths[i]), (lenses[i].width, lenses[i].height)
        as_stored, as_turned = same_shape(size, camera), same_shape(turned(size, wanted[i]), camera)
        if as_stored == as_turned:
            open_.append(i)
        elif as_turned:
            upright.append(i)
    if open_ and len(upright) == len(asks) - len(open_) > 0:
        upright += open_
    elif open_ and not upright and len(open_) == len(asks):
        log.warning(
            "%d photos are stored turned (EXIF), and the sizes of their cameras do not tell whether these were found "
            "of upright photos: they are read as stored, first %s", len(open_), paths[open_[0]].name,
        )  # fmt: skip
    if upright:
        log.warning("%d photos are turned as their EXIF says: their cameras are of the upright size", len(upright))
    return [wanted[i] if i in set(upright) else 1 for i in range(len(paths))]


def choose_mask_turn(mask: Path, photo: Path, turn: int) -> int:
    """The EXIF orientation that a mask is turned by to lie on its photo, which is read turned by ``turn``.

    Masks are made of the photo as stored or of the upright one, whatever the photo's camera is of; their size tells, or
    else an EXIF orientation of their own.
    """
    size, as_read = image_size(mask), image_size(photo, turn)
    asks = image_turn(photo)
    if asks >= 5 and not same_shape(size, as_read) and same_shape(turned(size, asks), as_read):
        return turn if turn != 1 else undone(asks)
    return turn if turn != 1 and image_turn(mask) == turn and same_shape(turned(size, turn), as_read) else 1


def same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one is the other scaled."""
    scale = max(size) / max(other)
    return near_size(size, (round(other[0] * scale), round(other[1] * scale)))


def near_size(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """The same but for rounding."""
    return abs(a[0] - b[0]) <= ROUNDING and abs(a[1] - b[1]) <= ROUNDING
