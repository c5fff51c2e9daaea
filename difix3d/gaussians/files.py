"""Splat models in the files that other programs write."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from difix3d.errors import UserError
from difix3d.files import refuse_pointer
from difix3d.gaussians.compact import GZIP_MAGIC, SPZ_MAGIC, decode_splat, decode_spz
from difix3d.gaussians.nerfstudio import is_nerfstudio_run, read_nerfstudio
from difix3d.gaussians.ply import read_ply
from difix3d.gaussians.sound import sound
from difix3d.types import Gaussians

OTHERS = {
    ".ksplat": "a splat model of GaussianSplats3D",
    ".sog": "a splat model of PlayCanvas",
    ".sogs": "a splat model of PlayCanvas",
    ".lcc": "a splat model of XGRIDS",
    ".rad": "a splat model of Spark",
    ".spx": "a splat model of Reall3d",
    ".glb": "a glTF file",
    ".gltf": "a glTF file",
    ".obj": "a mesh",
    ".fbx": "a mesh",
    ".stl": "a mesh",
    ".usdz": "a USD file",
    ".usd": "a USD file",
    ".las": "a point cloud",
    ".laz": "a point cloud",
    ".e57": "a point cloud",
    ".pcd": "a point cloud",
    ".xyz": "a point cloud",
    ".safetensors": "a checkpoint",
    ".ckpt": "a checkpoint",
    ".pth": "a checkpoint",
    ".pt": "a checkpoint",
    ".zip": "an archive",
    ".html": "a web page",
}
"""What people have besides, by suffix; it is not read."""

SUFFIXES = (".ply", ".splat", ".spz")
"""Of the files that :func:`read_splats` reads, in any case."""


def is_splat_file(path: Path) -> bool:
    """Whether a path is meant as a file with a splat model, or something like it, rather than as a run's folder."""
    known = path.suffix.lower() in (*SUFFIXES, *OTHERS) or is_nerfstudio_run(path)
    return path.is_file() or (known and not path.is_dir())


def read_splats(path: Path) -> Gaussians:
    """Reads a splat model: a ``.ply`` (plain or packed), ``.splat`` or ``.spz``; what it is, its first bytes say.
    Or the ``config.yml`` of a run of nerfstudio.

    Splats that cannot be drawn are dropped with a word.

    Raises:
        UserError: there is no such file, it is damaged, of another format, or has no splat that can be drawn.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}", cure="Pass the point_cloud.ply of a run, or any 3DGS .ply")
    refuse_pointer(path)
    if is_nerfstudio_run(path):
        return read_nerfstudio(path)
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(4)
    if head[:3] == b"ply":
        return read_ply(path)
    if head[:2] == GZIP_MAGIC or head == SPZ_MAGIC:
        return _decoded(path, decode_spz)
    if suffix == ".splat":
        return _decoded(path, decode_splat)
    if suffix in SUFFIXES:
        raise UserError(f"{path} does not begin like a {suffix} file", cure="Export it again; it may be damaged")
    what = OTHERS.get(suffix, "no splat model that is known")
    is_splats = what.startswith("a splat model")
    cure = "Export it as .ply in the 3DGS layout" + (", or convert it by PlayCanvas's splat-transform" * is_splats)
    raise UserError(f"{path} cannot be read: it is {what}", f"Splat models are read from {', '.join(SUFFIXES)}", cure)


def _decoded(path: Path, decode: Callable[[bytes], Gaussians]) -> Gaussians:
    try:
        model = decode(path.read_bytes())
    except UserError as error:
        raise UserError(f"{path}: {error.fact}", error.limit, error.cure) from error
    except (ValueError, OSError, EOFError, MemoryError, OverflowError, zlib.error, struct.error) as error:
        raise UserError(
            f"{path} cannot be read as {path.suffix.lower()} ({error})", cure="Export it again; it may be cut short"
        ) from error
    return sound(model, path)
