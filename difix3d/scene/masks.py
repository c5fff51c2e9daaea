"""Masks: pictures of which pixels of a photo count, wherever programs put them and whatever they call them."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from difix3d.errors import UserError
from difix3d.files import is_file, walk
from difix3d.formats import IMAGES
from difix3d.scene.names import SUFFIX, match

FOLDERS = re.compile(
    r"\.?((images?|resized_(anon|undistorted))[_-]?)?masks?([_-]?(images?|png|jpe?g|\d+))?", re.IGNORECASE
)
"""Folders of masks, beside the photos' folder or in it: ``masks``, ``mask``, ``images_masks``, ``masks_2``, and
``resized_anon_masks`` of ScanNet++."""
LIKE_MASKS = re.compile(r"[^.].*[_-]masks?|masks?[_-].*", re.IGNORECASE)
"""Other folders of masks, of which nobody knows what counts in them: ``dynamic_masks``, ``masks_sam``."""

AFFIX = re.compile(r"^masks?[_. -]|[_. -]masks?$", re.IGNORECASE)
"""What a mask's name has more than its photo's: ``0001_mask.png``, ``mask_0001.png``, ``0001.jpg.mask.png``."""


def find_masks(homes: Sequence[Path], photos: Path, names: list[str]) -> list[Path | None]:
    """The mask of each photo, ``None`` without one.

    It is called as its photo, with the photo's suffix or without (``0001.jpg.png`` of COLMAP, ``0001.png``,
    ``0001.jpg``) or with "mask" before or behind it. Looked through are folders of masks, those of full size first, and
    the photos' own.

    Args:
        homes: folders that may hold folders of masks.
        photos: the folder of the photos.
        names: of the photos, as paths in it.
    """
    masks: list[Path | None] = [None] * len(names)
    for folder, files in _offered(homes, photos):
        called = [_photo_of(file) for file in files]
        for i, index in enumerate(match(names, called)):
            if masks[i] is None and index is not None:
                masks[i] = folder / files[index]
        if None not in masks:
            break
    return masks


def mask_homes(folder: Path, photos: Sequence[Path]) -> list[Path]:
    """Folders that may hold folders of masks: the scene's, and the one around its photos if they lie elsewhere."""
    common = Path(os.path.commonpath([photo.parent for photo in photos])) if photos else folder
    return [folder] if folder.is_relative_to(common) else [folder, common.parent]


def mask_folder(homes: Sequence[Path]) -> tuple[Path, list[str]] | None:
    """The first folder of masks that holds any, and these by their paths in it."""
    return next(((folder, files) for folder in _folders(homes) if (files := _images(folder))), None)


def check_masks(homes: Sequence[Path], masks: list[Path | None], names: list[str]) -> str:
    """What to tell people of the masks that were found; empty if each photo has one, or there are none.

    Raises:
        UserError: there is a folder of masks, and not one of them fits; or named ones are missing.
    """
    missing = [mask for mask in masks if mask is not None and not is_file(mask)]
    if missing:
        raise UserError(
            f"{len(missing)} of the masks that the cameras' file names are missing, first {missing[0]}",
            "",
            "Copy them there, or take mask_path out of the file",
        )
    found = sum(mask is not None for mask in masks)
    offered = mask_folder(homes) if found == 0 else None
    if offered is not None:
        folder, files = offered
        raise UserError(
            f"None of the {len(files)} masks in {folder} belongs to a photo, first {files[0]}",
            f"A mask is called as its photo: {names[0]}.png, or {SUFFIX.sub('', names[0])}.png",
            "Rename them, or take the folder away to train on all pixels",
        )
    if found == 0:
        like = [entry for entry in _entries(homes) if LIKE_MASKS.fullmatch(entry.name) and _images(entry)]
        return f"{like[0]} is not used: call it masks if black stands for what does not count" if like else ""
    return f"{found} of {len(masks)} photos have a mask; of the others all pixels count" if found < len(masks) else ""


def named_mask(folder: Path, name: str, homes: Sequence[Path]) -> Path:
    """The mask that a ``transforms.json`` names, also by the path that it has on another computer."""
    path = folder / name.replace("\\", "/")
    offered = None if is_file(path) else mask_folder(homes)
    if offered is None:
        return path
    index = match([name], offered[1])[0]
    return path if index is None else offered[0] / offered[1][index]


def _offered(homes: Sequence[Path], photos: Path) -> Iterator[tuple[Path, list[str]]]:
    for folder in _folders([*homes, photos]):
        yield folder, _images(folder)
    yield photos, [file for file in _images(photos) if AFFIX.search(_stem(file))]


def _folders(homes: Sequence[Path]) -> list[Path]:
    found = [entry for entry in _entries(homes) if FOLDERS.fullmatch(entry.name)]
    return sorted(found, key=lambda folder: (folder.name[-1].isdigit(), folder.name.lower() != "masks"))


def _entries(homes: Sequence[Path]) -> list[Path]:
    there = (home for home in dict.fromkeys(homes) if home.is_dir())
    return [entry for home in there for entry in sorted(home.iterdir()) if entry.is_dir()]


def _images(folder: Path) -> list[str]:
    return sorted(
        (Path(place) / name).relative_to(folder).as_posix()
        for place, _, files in walk(folder)
        for name in files
        if Path(name).suffix.lower() in IMAGES and not name.startswith("._")
    )


def _stem(file: str) -> str:
    return file.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _photo_of(file: str) -> str:
    """What the photo of a mask is called."""
    folder, slash, _ = file.rpartition("/")
    return folder + slash + AFFIX.sub("", _stem(file))
