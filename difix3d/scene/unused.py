"""What of a scene's files is not used: said once, in a line for each kind."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from difix3d.files import is_folder
from difix3d.formats import RAW
from difix3d.scene.capture import Capture, missing_photos
from difix3d.scene.locate import are_there, images_below, is_photo
from difix3d.scene.masks import check_masks, mask_homes

log = logging.getLogger(__name__)

NOT_READ = RAW | {".jxl", ".psd", ".exr", ".hdr"}
"""Suffixes of photos that need another program first."""
NAMED = 3
"""Of the files that a line is about."""


def report_unused(capture: Capture, *, told: bool = False) -> Capture:
    """Says what was noted of the reading, and counts photos without a camera or a mask and cameras without a photo.

    Args:
        capture: as it was read.
        told: whether photos without a camera were counted already, when cameras were looked for.

    Returns:
        The capture without cameras whose photo is missing.

    Raises:
        UserError: half of the photos are missing, or more; there are masks that belong to no photo.
    """
    masks = check_masks(mask_homes(capture.folder, capture.files), capture.masks, capture.names)
    for note in (*capture.notes, *([masks] if masks else [])):
        log.warning("%s: %s", capture.folder, note)
    alone = [] if told else _without_camera(capture)
    if alone:
        total = len(alone) + len(capture.names)
        log.warning(
            "%s: %d of %d photos have no camera, and are not used: %s", capture.folder, len(alone), total, _first(alone)
        )
    there = np.array(list(are_there(capture.files)), bool)
    if there.all():
        return capture
    if 2 * there.sum() <= len(there):
        missing = [file for file, known in zip(capture.files, there, strict=True) if not known]
        raise missing_photos(capture.folder, missing, len(there))
    gone = [name for name, known in zip(capture.names, there, strict=True) if not known]
    log.warning(
        "%s: %d of %d photos are missing, and are left out: %s", capture.folder, len(gone), len(there), _first(gone)
    )
    return capture.subset(there)


def _without_camera(capture: Capture) -> list[str]:
    """Photos beside those with a camera; files that cannot be read are counted at once."""
    images = capture.folder / "images"
    used = set(capture.files)
    if all(file.is_relative_to(images) for file in used):
        present = [images / name for name in images_below(images)]
    else:
        present = [file for folder in sorted({file.parent for file in used}) for file in _files(folder)]
        present = [file for file in present if is_photo(file.name)]
    folders = {file.parent for file in [*present, *used]}
    kinds = Counter(file.suffix.lower() for folder in folders for file in _files(folder))
    for kind in sorted(NOT_READ & kinds.keys()):
        log.warning("%s: %d %s beside the photos: a kind that is not read", capture.folder, kinds[kind], kind)
    stems = {_stem(file) for file in used} if present else set()  # the same photo in another format is no other photo
    return [file.name for file in present if _stem(file) not in stems]


def _stem(file: Path) -> str:
    return os.path.splitext(file)[0]


def _files(folder: Path) -> list[Path]:
    return [Path(entry) for entry in os.scandir(folder) if entry.is_file()] if is_folder(folder) else []


def _first(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:NAMED]) + (" and more" if len(names) > NAMED else "")
