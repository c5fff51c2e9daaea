"""Fetches public scenes: only the files of the scene that is asked for, out of an archive that holds many.

A zip can be read from the middle. Over HTTP ranges (:mod:`difix3d.download.remote`) the table of contents is read
first, then the wanted members, one after another on one connection. What is checked: the archive's size and SHA-256,
where the table below pins them, and the size and CRC-32 of each file, which the archive itself records.
"""

import difflib
import io
import json
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from difix3d.download.remote import CHUNK, RemoteFile, fetch_whole, progress
from difix3d.errors import UserError
from difix3d.files import check_file, read_json

Images = Literal["published", "all", "1", "2", "4", "8"]
MARKER = ".download.json"


@dataclass(frozen=True)
class Archive:
    """A zip on a server.

    Attributes:
        size: bytes, or ``None`` if not pinned: then what the server says is believed.
        sha256: hex, or ``None`` if not pinned. It is checked when the whole archive is fetched; single files are
            checked by the CRC-32 in the archive.
        licence: what is known about the terms of use.
    """

    url: str
    licence: str
    size: int | None = None
    sha256: str | None = None

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class PublicScene:
    """One folder of an archive.

    Attributes:
        prefix: the folder's path in the archive; what lies below goes into the scene's own folder.
        factor: the ``images_N`` that published results are measured on.
    """

    archive: Archive
    prefix: str
    factor: Literal["1", "2", "4", "8"]


_TERMS = "no licence is stated; see https://jonbarron.info/mipnerf360 and cite the paper"
MIPNERF360 = Archive("https://storage.googleapis.com/gresearch/refraw360/360_v2.zip", _TERMS)
MIPNERF360_EXTRA = Archive("https://storage.googleapis.com/gresearch/refraw360/360_extra_scenes.zip", _TERMS)

SCENES: dict[str, PublicScene] = {
    **{name: PublicScene(MIPNERF360, f"{name}/", "4") for name in ("bicycle", "garden", "stump")},
    **{name: PublicScene(MIPNERF360, f"{name}/", "2") for name in ("bonsai", "counter", "kitchen", "room")},
    **{name: PublicScene(MIPNERF360_EXTRA, f"{name}/", "4") for name in ("flowers", "treehill")},
}
"""Scenes that can be named instead of a folder."""


def download(name: str, data_dir: Path, images: Images = "published", scenes: dict[str, PublicScene] = SCENES) -> Path:
    """Fetches a scene into ``data_dir/name``, unless it is there.

    While it is under way the files lie in ``data_dir/name.partial``; started again, it goes on with the file it was at.

    Args:
        name: one of ``scenes``.
        data_dir: folder of all scenes. An archive that lies in it already is read instead of the server's.
        images: which of the image folders: ``1`` (full size), ``2``, ``4``, ``8`` (smaller by that factor), ``all``, or
            ``published``, the one that published results are measured on: 4 outdoors, 2 indoors.
        scenes: the table to look the name up in.

    Returns:
        the scene's folder.

    Raises:
        UserError: unknown name, no connection, not enough space, or an archive that is damaged or another one.
    """
    if name not in scenes:
        close = difflib.get_close_matches(name, scenes, n=1)
        raise UserError(
            f"There is no scene {name!r} to download",
            f"There are {', '.join(sorted(scenes))}",
            f"Did you mean {close[0]}?" if close else "",
        )
    scene, folder = scenes[name], data_dir / name
    there = _present(folder)
    wanted = [image for image in _image_folders(scene, images) if there is None or image not in there]
    if folder.exists() and (there is None or not wanted):
        return folder
    partial = data_dir / f"{name}.partial"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _open(scene.archive, name, data_dir) as file:
            _unpack(file, name, scene, wanted, partial)
        for other in partial.glob("images*"):
            if other.name not in wanted:
                shutil.rmtree(other)  # begun by an earlier call that wanted more
        record = {"archive": scene.archive.url, "images": sorted({*wanted, *(there or ())})}
        (partial / MARKER).write_text(json.dumps(record))
        if folder.exists():
            for entry in (*wanted, MARKER):
                os.replace(partial / entry, folder / entry)
            shutil.rmtree(partial)
        else:
            partial.rename(folder)
    except OSError as error:
        raise UserError(
            f"{partial} could not be written: {error}", cure="Put it right and start again: it goes on from there"
        ) from error
    return folder


def _present(folder: Path) -> list[str] | None:
    """The image folders that were downloaded before; ``None`` if the folder is not there or is the user's own."""
    marker = folder / MARKER
    if not marker.exists():
        return None
    images = read_json(marker).get("images")
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        raise UserError(f"{marker} is damaged", "It lists the image folders that are here", f"Move {folder} away")
    return images


def _image_folders(scene: PublicScene, images: Images) -> list[str]:
    names = {"1": "images", "2": "images_2", "4": "images_4", "8": "images_8"}
    return sorted(names.values()) if images == "all" else [names[scene.factor if images == "published" else images]]


def _open(archive: Archive, name: str, data_dir: Path) -> io.BufferedReader:
    """The archive as a seekable file: a copy in ``data_dir``, else the server's, by ranges or as a whole."""
    local = data_dir / archive.filename
    check_file(local)
    if local.exists():
        return local.open("rb")
    cure = f"Connect and start again, or put the archive at {local} or the unpacked scene at {data_dir / name}"
    remote = RemoteFile.open(archive.url, archive.size, cure)
    if remote is not None:
        return remote
    fetch_whole(archive.url, local, archive.size, archive.sha256, cure)
    return local.open("rb")


def _unpack(file: io.BufferedReader, name: str, scene: PublicScene, images: Sequence[str], folder: Path) -> None:
    """Writes the wanted members that ``folder`` does not hold already."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {target: info for info in archive.infolist() if (target := _target(info, scene.prefix, images))}
            if not members:
                raise UserError(
                    f"{scene.archive.filename} has no files below {scene.prefix}",
                    "The archive is not the one that was expected",
                )
            in_order = sorted(members.items(), key=lambda item: item[1].header_offset)  # read on one connection
            missing = {target: info for target, info in in_order if not _complete(folder / target, info)}
            _check_space(folder, sum(info.file_size for info in missing.values()))
            _extract(archive, missing, folder, name)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        struct.error,
    ) as error:
        raise UserError(
            f"{scene.archive.filename} is damaged: {error}", cure="Start again; if it stays, fetch the archive anew"
        ) from error


def _target(info: zipfile.ZipInfo, prefix: str, images: Sequence[str]) -> PurePosixPath | None:
    """Where in the scene's folder a member goes; ``None`` if it is not wanted.

    Raises:
        UserError: the member would be written outside of that folder.
    """
    if not info.filename.startswith(prefix) or info.is_dir():
        return None
    path = PurePosixPath(info.filename[len(prefix) :])
    escapes = path.is_absolute() or ".." in path.parts or any(c in info.filename for c in "\\:\0")
    if escapes or stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(
            f"The archive holds {info.filename!r}, a link or a path that leads out of its folder",
            "Such an archive is not unpacked",
            "Fetch it from its authors' page",
        )
    top = path.parts[0]
    return None if top.startswith("images") and top not in images else path


def _complete(path: Path, info: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc == info.CRC


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < needed * 1.02:
        raise UserError(
            f"{folder.parent} has {free / 1e9:.2f} GB free",
            f"{needed / 1e9:.2f} GB are to be written",
            "Free some space, choose another --data-dir, or fewer --images",
        )


def _extract(archive: zipfile.ZipFile, members: dict[PurePosixPath, zipfile.ZipInfo], folder: Path, name: str) -> None:
    with progress(f"{name}: {len(members)} files", sum(info.compress_size for info in members.values())) as advance:
        for target, info in members.items():
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            try:
                with archive.open(info) as source, part.open("wb") as sink:
                    while chunk := source.read(CHUNK):  # checks the CRC-32 at the end
                        sink.write(chunk)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
            advance(info.compress_size)
