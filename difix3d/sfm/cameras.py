"""Structure from motion by pycolmap: one way after the other, until most of the photos have a camera."""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from difix3d.errors import UserError
from difix3d.formats import TURNS, eight_bits, opened
from difix3d.geometry.panorama import EQUIRECTANGULAR
from difix3d.interrupt import unwinding
from difix3d.places import cache_folder
from difix3d.sfm.database import Colmap, by_camera
from difix3d.sfm.listing import read_header
from difix3d.sfm.pairs import Pairs, exhaustive, sequential, similar
from difix3d.sfm.spherical import are_panoramas

log = logging.getLogger(__name__)

ENOUGH = 0.5
"""Share of the photos with cameras at which nothing further is tried."""
MIN_REGISTERED = 0.3
"""Share of the photos (3 at least) whose cameras must be found."""
MIN_POINTS = 15
"""Points that a photo must see: global mapping gives a camera to photos that see none."""
EXHAUSTIVE = 300
"""Photos up to which each is matched with each."""
ALIKE = (40, 120)
"""Photos that each of more is matched with, those that look most like it: first so many, then so many."""
COLMAP_READS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
"""Suffixes; of others it is given JPEG copies."""

STALE = 7 * 86400
"""Seconds after which what a killed program has left in the cache is deleted."""

ORIENTATION = 0x0112
"""EXIF tag."""

CURE = "Take more photos that overlap by two thirds, move sideways rather than turn, avoid blur and bare walls"


def find_cameras(root: Path, names: list[str], folder: Path, video: bool, seed: int) -> Path:
    """Finds cameras (SIFT on the CPU, or on CUDA where pycolmap has it) and writes the model with the most photos.

    Features are matched and cameras found incrementally; if fewer than half of the photos have one then, globally
    (GLOMAP); then with other pairs; then with more features. The best of all is kept.

    Args:
        root: of the photos.
        names: of the photos, relative to ``root``; those of a video in order.
        folder: of the scene; the model goes to the first ``sparse/N`` that is not there.
        video: whether the photos are frames of one video.
        seed: of what COLMAP draws.

    Returns:
        The folder of the model.

    Raises:
        UserError: too few cameras were found, or nothing can be written.
    """
    import pycolmap

    check_writable(folder)
    pycolmap.set_random_seed(seed)
    best: list[Any] = []
    tried = []
    with unwinding(), _workplace() as work, _quiet(pycolmap):  # after the import, which takes SIGTERM for itself
        for way, models in _ways(work, root, names, video, seed):
            found = sorted(models, key=lambda model: -len(_placed(model)))
            tried.append(f"{way}: {len(_placed(found[0])) if found else 0}")
            best = max(best, found, key=lambda models: len(_placed(models[0])) if models else 0)
            if best and len(_placed(best[0])) >= max(3, ENOUGH * len(names)):
                break
        placed = _placed(best[0]) if best else set()
        _check_registered(names, {names[_number(best[0], i)] for i in placed}, tried)
        parts = [len(placed), *(more for model in best[1:] if (more := len(_placed(model) - placed)) >= 3)]
        if len(parts) > 1:
            log.warning("the photos fall into parts of %s that do not join: the largest is taken", parts)
        for i in best[0].reg_image_ids():
            image = best[0].images[i]
            image.name = names[_number(best[0], i)]
            if i not in placed:
                best[0].deregister_frame(image.frame_id)
        return _write(best[0], folder)


def _ways(work: Path, root: Path, names: list[str], video: bool, seed: int) -> Iterator[tuple[str, list[Any]]]:
    """Ways to find cameras, the quickest first: what it is called, and the models that it gave."""
    photos = work / "photos"
    photos.mkdir()
    headers = [read_header(root / name) for name in names]
    upright = any(header.sideways for header in headers)  # else the readers of the model cannot tell
    for number, (name, header) in enumerate(zip(names, headers, strict=True)):
        _link(root / name, photos, number, header.turn if upright else 1)
    groups = by_camera(names, headers)
    panoramas = [group for group in groups if len(group) > 1 and are_panoramas([root / names[i] for i in group])]
    _tell_panoramas(sum(map(len, panoramas)), len(names))
    groups = [group for group in groups if group not in panoramas]
    for features in ("usual features", "more features"):
        colmap = Colmap(work / f"{features}.db", photos, sorted(os.listdir(photos)), seed)
        colmap.extract(groups, panoramas, sensitive=features == "more features")
        for pairing, pairs in _pairings(colmap, len(names), video, seed):
            if not colmap.match(pairs):
                continue
            yield f"{pairing}, {features}", colmap.incremental()
            yield f"{pairing}, {features}, globally", colmap.globally()


def _tell_panoramas(count: int, total: int) -> None:
    """Says what was taken for a 360 photo.

    Raises:
        UserError: this pycolmap cannot find their cameras.
    """
    import pycolmap

    if count == 0:
        return
    log.warning(
        "%d of %d photos are taken for 360 photos: twice as wide as high, their left and right edges meet", count, total
    )
    if EQUIRECTANGULAR not in pycolmap.CameraModelId.__members__:
        raise UserError(
            f"{count} photos are 360 photos, whose cameras pycolmap {pycolmap.__version__} cannot find",
            "It can from version 4.2",
            "pip install -U pycolmap",
        )


def _pairings(colmap: Colmap, number: int, video: bool, seed: int) -> Iterator[tuple[str, Pairs]]:
    if video:
        alike = similar(colmap.descriptors(), 5, seed)  # where the camera comes back to
        yield "each frame with its neighbours", sequential(number) | alike
    if number <= EXHAUSTIVE:
        yield "each with each", exhaustive(number)
        return
    near = sequential(number, 5)
    for neighbours in ALIKE:
        yield f"each with the {neighbours} most alike", near | similar(colmap.descriptors(), neighbours, seed)


def _link(photo: Path, folder: Path, number: int, turn: int) -> None:
    """Puts a photo where COLMAP reads it: under a name without spaces or letters that it does not know, turned by an
    EXIF orientation, and in a format that it reads."""
    suffix = photo.suffix.lower()
    if suffix not in COLMAP_READS or turn != 1:
        with opened(photo) as image:
            exif, pixels = image.getexif(), eight_bits(image).convert("RGB")
        exif[ORIENTATION] = 1
        pixels = pixels.transpose(TURNS[turn]) if turn in TURNS else pixels
        pixels.save(folder / f"{number:06d}.jpg", quality=97, subsampling=0, exif=exif)
        return
    target = folder / f"{number:06d}{suffix}"
    try:
        target.symlink_to(photo.resolve())
    except OSError:
        shutil.copyfile(photo, target)


def _placed(model: Any) -> set[int]:
    """The ids of the model's photos whose cameras can be trusted."""
    return {i for i in model.reg_image_ids() if model.images[i].num_points3D >= MIN_POINTS}


def _number(model: Any, image: int) -> int:
    """Of the photo, which is its name in the database."""
    return int(Path(model.images[image].name).stem)


def _check_registered(names: list[str], registered: set[str], tried: list[str]) -> None:
    left_out = sorted(set(names) - registered)
    need = max(3, round(MIN_REGISTERED * len(names)))
    if len(registered) < need:
        raise UserError(
            f"Only {len(registered)} of the {len(names)} photos could be placed (tried {'; '.join(tried)})",
            f"At least {need} are needed",
            CURE,
        )
    first = f"; left out: {', '.join(left_out[:5])}{' and more' if len(left_out) > 5 else ''}" if left_out else ""
    log.warning("found the cameras of %d of %d photos%s", len(registered), len(names), first)


def check_writable(folder: Path) -> None:
    """Makes sure, before minutes of work, that a model can be written to ``folder/sparse``.

    Raises:
        UserError: it cannot.
    """
    sparse = folder / "sparse"
    try:
        with TemporaryDirectory(prefix=".sfm-", dir=sparse if sparse.exists() else folder):
            pass
    except OSError as error:
        raise UserError(
            f"Cannot write to {sparse} ({error.strerror})",
            "The cameras that are found are kept beside the photos",
            "Copy the photos elsewhere",
        ) from None
    half = [place for place in sorted(sparse.glob("*")) if place.is_dir() and any(place.iterdir())]
    if half:
        log.warning(
            "%s is no whole model (cameras, images, points3D): left as it is; cameras are found anew and kept in %s",
            half[0], _free(folder),
        )  # fmt: skip


def _free(folder: Path) -> Path:
    """The first ``sparse/N`` that nobody has written to."""
    places = (folder / "sparse" / str(number) for number in count())
    return next(place for place in places if not place.exists() or (place.is_dir() and not any(place.iterdir())))


def _write(model: Any, folder: Path) -> Path:
    (folder / "sparse").mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".sfm-", dir=folder / "sparse") as work:
        finished = Path(work) / "0"
        finished.mkdir()
        model.write(finished)
        target = _free(folder)
        os.replace(finished, target)
    return target


@contextmanager
def _workplace() -> Iterator[Path]:
    """A folder for the database, which takes a megabyte or two for each photo: in the user's cache, if there is one."""
    home = None
    with suppress(OSError, UserError):
        home = cache_folder() / "sfm"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in home.iterdir():  # of programs that were killed
            if time.time() - old.stat().st_mtime > STALE:
                shutil.rmtree(old, ignore_errors=True)
    with TemporaryDirectory(dir=home, ignore_cleanup_errors=True) as work:
        yield Path(work)


@contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """COLMAP logs thousands of lines; errors still come as exceptions."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise UserError(f"COLMAP failed: {error}", "", CURE) from error
    finally:
        pycolmap.logging.minloglevel = level
