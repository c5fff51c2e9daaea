"""Where the photos are that a model names: beside it, moved since, or called otherwise."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from difix3d.files import walk
from difix3d.formats import IMAGES
from difix3d.scene.names import match_in_each, plain, readable

REDUCED = ("images_2", "images_4", "images_8")
"""Copies of the photos at a half, a quarter and an eighth of their size."""

NO_PHOTOS = re.compile(r"images_\d+|.*masks?(_\d+)?|depths?(_\d+)?|normals?|confidence|sparse|\..*", re.I)
"""Folders in which no photos are looked for."""

OTHER_IMAGES = re.compile(r"^\.|^masks?[_.-]|[_.-](mask|depth|normal|alpha|segmentation)s?([_.-]?\d+)?$", re.I)
"""In the names of images that are no photos."""


def photo_folders(scene: Path, model: Path) -> list[Path]:
    """Folders in which the photos of a model may lie, the likeliest first.

    Args:
        scene: its folder.
        model: a folder, which need not lie inside it.
    """
    parents = [model, *model.parents]
    homes = parents[: parents.index(scene) + 1] if scene in parents else [model, scene]
    whole = scene in parents[1:] and not re.match("sparse|colmap|distorted", scene.name, re.I)
    others = [] if whole else [home for home in parents[1:4] if home not in homes]
    original = any(home.name.lower().startswith("distorted") for home in homes)  # 3DGS: the photos are in input/ then
    names = ("input", "images") if original else ("images", "input")
    inside = [folder for home in homes for folder in (*(home / name for name in names), home)]
    return inside + [home / name for home in others for name in names]


@dataclass(frozen=True)
class Found:
    """Photos on the disk.

    Attributes:
        names: what they are called from here on.
        files: where they should be; need not exist.
        folder: that these are in.
        note: says if they are called otherwise than in the model; else empty.
    """

    names: list[str]
    files: list[Path]
    folder: Path
    note: str = ""


def find_photos(names: Sequence[str], folders: Sequence[Path]) -> Found:
    """The photos that a model means.

    Args:
        names: as the model has them.
        folders: where they may be; the first of those with the most of them is taken.
    """
    folders = [folder for folder in folders if _is_folder(folder)] or list(folders)
    for folder in folders:
        if all(are_there(folder / name for name in names)):
            return Found(readable(names, lambda _: 0), [folder / name for name in names], folder)
    present = {folder: images_below(folder) for folder in folders}
    stems = {plain(name)[-1:] for found in present.values() for name in found}
    names = readable(names, lambda tried: sum(plain(name)[-1:] in stems for name in tried))
    matches = dict(zip(present, match_in_each(names, list(present.values())), strict=True))
    hits = {folder: len(found) - found.count(None) for folder, found in matches.items()}
    folder = max(folders, key=hits.__getitem__)
    if hits[folder] == 0:  # where people look for them
        folder = min(folders, key=lambda f: (not present[f], f.name not in ("images", "input"), len(f.parts)))
    names, there = [name.replace("\\", "/") for name in names], present[folder]
    files = [name if i is None else there[i] for name, i in zip(names, matches[folder], strict=True)]
    other = [
        f"{file} is read for {name}"
        for name, file in zip(names, files, strict=True)
        if not (f"/{name}".endswith(f"/{file}") or f"/{file}".endswith(f"/{name.removeprefix('./')}"))
    ]
    note = f"{len(other)} of {len(names)} photos have another name on the disk: {other[0]}" if other else ""
    return Found(names, [folder / file for file in files], folder, note)


def _is_folder(folder: Path) -> bool:
    return folder.is_dir() or (folder.name == "images" and any(folder.with_name(name).is_dir() for name in REDUCED))


def look_up() -> Callable[[str, str], bool]:
    """A function that says whether a folder has a file; each is listed once, as a hundred thousand may be missing."""

    @cache
    def inside(place: str) -> set[str] | None:
        try:
            return set(os.listdir(place or os.curdir))
        except PermissionError:
            return None  # what one may not list one may still read
        except (OSError, ValueError):
            return set()

    def has(place: str, name: str) -> bool:
        names = inside(place)
        return (names is None or name in names) and os.path.isfile(os.path.join(place, name))

    return has


def are_there(files: Iterable[Path | str]) -> Iterator[bool]:
    """Whether there is a photo, for each: at its full size or, beside ``images``, reduced."""
    has = look_up()
    smaller = cache(lambda home: [copy for name in REDUCED if os.path.isdir(copy := os.path.join(home, name))])
    for path in map(str, files):
        home, images, name = f"{os.sep}{path}".rpartition(f"{os.sep}images{os.sep}")
        copies = [os.path.join(copy, name) for copy in smaller(home[1:])] if images else []
        yield any(has(*os.path.split(place)) for place in (path, *copies))


def images_below(folder: Path) -> list[str]:
    """Images below a folder, by their paths in it, sorted; of ``images``, if it is not there, those of its copies."""
    if folder.name == "images":
        folder = next((f for f in (folder, *(folder.with_name(name) for name in REDUCED)) if f.is_dir()), folder)
    found: list[str] = []
    for place, inside, files in walk(folder):
        inside[:] = [name for name in inside if not NO_PHOTOS.fullmatch(name)]
        here = Path(place).relative_to(folder)
        found += [(here / name).as_posix() for name in files if is_photo(name)]
    return sorted(found)


def is_photo(name: str) -> bool:
    """Whether a file is an image, and by its name no mask, no depth and no hidden file."""
    path = Path(name)
    return path.suffix.lower() in IMAGES and not OTHER_IMAGES.search(path.stem)
