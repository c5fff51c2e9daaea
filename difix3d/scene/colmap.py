"""COLMAP models, binary and text.

The files are read here rather than by pycolmap because pycolmap trusts them: a truncated file makes it hang, end the
process, or return nonsense. The tests compare with pycolmap on intact ones. Format: COLMAP's documentation, "Output
format".
"""

import codecs
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from difix3d.errors import UserError
from difix3d.files import check_file, refuse_pointer
from difix3d.geometry.lens import PARAMETERS
from difix3d.geometry.panorama import EQUIRECTANGULAR
from difix3d.scene.capture import Capture
from difix3d.scene.locate import find_photos, photo_folders
from difix3d.scene.masks import find_masks
from difix3d.scene.pointcloud import read_points
from difix3d.types import Lens

MODEL_IDS = (
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "OPENCV_FISHEYE",
    "FULL_OPENCV",
    "FOV",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "THIN_PRISM_FISHEYE",
    "RAD_TAN_THIN_PRISM_FISHEYE",
    "SIMPLE_DIVISION",
    "DIVISION",
    "SIMPLE_FISHEYE",
    "FISHEYE",
    "EUCM",
    EQUIRECTANGULAR,
)
PARAM_COUNTS = {name: len(params.split()) for name, params in PARAMETERS.items()}
PARAM_COUNTS[EQUIRECTANGULAR] = 2


class Pose(NamedTuple):
    """An image of the model: world to camera as quaternion (wxyz) and translation."""

    image_id: int
    quat: tuple[float, ...]
    translation: tuple[float, ...]
    camera_id: int
    name: str


class Points(NamedTuple):
    """The sparse points, and which image (by its id) sees which point (by its row)."""

    xyz: Float[np.ndarray, "P 3"]
    rgb: UInt8[np.ndarray, "P 3"]
    point: Int[np.ndarray, "O"]
    image_id: Int[np.ndarray, "O"]


def is_model(folder: Path) -> bool:
    """Whether a folder holds a COLMAP model, whole or not."""
    return any((folder / f"images.{kind}").is_file() for kind in ("bin", "txt"))


def read_colmap(folder: Path, model: Path) -> Capture:
    """Reads a model; its photos lie in ``images/`` of the scene or of a folder between, or in one of these themselves.

    Args:
        folder: of the scene.
        model: the folder of the model, usually inside it.

    Raises:
        UserError: a file is missing or damaged, or the model has no images.
    """
    cameras = _read(model, "cameras", _cameras_binary, _cameras_text)
    poses = _read(model, "images", _images_binary, _images_text)
    points = _read_points(model)
    orphan = next((pose for pose in poses if pose.camera_id not in cameras), None)
    if orphan is not None:
        raise UserError(
            f"{model}: the image {orphan.name} has the camera {orphan.camera_id}, which is not in the cameras file",
            "",
            "Export the model again",
        )
    photos = find_photos([pose.name for pose in poses], photo_folders(folder, model))
    order = sorted(range(len(poses)), key=photos.names.__getitem__)
    names, poses = [photos.names[i] for i in order], [poses[i] for i in order]
    home = photos.folder.parent if photos.folder.name in ("images", "input") else photos.folder
    return Capture(
        folder=home,
        names=names,
        files=[photos.files[i] for i in order],
        c2w=_camera_to_world(poses),
        lenses=[cameras[pose.camera_id] for pose in poses],
        masks=find_masks([home], photos.folder, names),
        points=points.xyz,
        colors=points.rgb,
        observations=_observations(points, poses),
        notes=(photos.note,) if photos.note else (),
    )


def _read_points(model: Path) -> Points:
    """The points file, or what 3DGS and others make of it: ``points3D.ply``, which does not know who sees what."""
    cloud = model / "points3D.ply"
    if cloud.is_file() and not any((model / f"points3D.{kind}").is_file() for kind in ("bin", "txt")):
        nobody = np.zeros(0, np.int64)
        return Points(*read_points(cloud), nobody, nobody)
    return _read(model, "points3D", _points_binary, _points_text)


def _read(model: Path, name: str, binary, text):
    """Reads one file of the model in the format that is there; whatever is wrong with it becomes a UserError."""
    path = next((p for p in (model / f"{name}.bin", model / f"{name}.txt") if p.exists()), None)
    if path is None:
        raise UserError(
            f"The COLMAP model {model} has no {name}.bin or {name}.txt",
            "A model consists of cameras, images and points3D",
            "Export it again (colmap model_converter)",
        )
    check_file(path)
    refuse_pointer(path)
    data = path.read_bytes()
    try:
        return binary(data) if path.suffix == ".bin" else text(decode(data))
    except UserError as error:
        raise UserError(f"{path}: {error.fact}", error.limit, error.cure) from None
    except (struct.error, ValueError, IndexError, KeyError, OverflowError) as error:
        if path.suffix == ".txt" and re.search(rb"(?m)^\s*\d[^\n]*\s-?\d+,\d+\s", data):
            raise UserError(f"{path} has decimal commas", "COLMAP writes points: 0.5", "Export it again so") from None
        raise UserError(
            f"{path} is damaged: {len(data)} bytes, {error}",
            "",
            "Copy it again or export the model again (colmap model_converter)",
        ) from None


def _cameras_binary(data: bytes) -> dict[int, Lens]:
    (count,) = struct.unpack_from("<Q", data)
    at = 8
    cameras = {}
    for _ in range(count):
        camera_id, model_id, width, height = struct.unpack_from("<iiQQ", data, at)
        model = _model_name(model_id)
        params = struct.unpack_from(f"<{_param_count(model)}d", data, at + 24)
        cameras[camera_id] = Lens(model, params, width, height)
        at += 24 + 8 * len(params)
    return cameras


def _cameras_text(text: str) -> dict[int, Lens]:
    cameras = {}
    for line in _lines(text):
        camera_id, model, width, height, *params = line.split()
        model = model.upper()
        if len(params) != _param_count(model):
            raise ValueError(f"{model} has {_param_count(model)} parameters, not {len(params)}")
        cameras[int(camera_id)] = Lens(model, tuple(map(float, params)), round(float(width)), round(float(height)))
    return cameras


def _model_name(model_id: int) -> str:
    if not 0 <= model_id < 100:  # COLMAP's numbers are small
        raise ValueError(f"a camera has the model {model_id}")
    return MODEL_IDS[model_id] if model_id < len(MODEL_IDS) else f"number {model_id}"


def _param_count(model: str) -> int:
    if model not in PARAM_COUNTS:
        raise UserError(
            f"a camera has the model {model}, which COLMAP 4.2 does not have",
            f"Known are {', '.join(MODEL_IDS)}",
            "Undistort the photos with the program that wrote it (colmap image_undistorter) and use the output",
        )
    return PARAM_COUNTS[model]


def _images_binary(data: bytes) -> list[Pose]:
    (count,) = struct.unpack_from("<Q", data)
    at = 8
    poses = []
    for _ in range(count):
        image_id, *pose, camera_id = struct.unpack_from("<i7di", data, at)
        end = data.index(b"\0", at + 64)
        (seen,) = struct.unpack_from("<Q", data, end + 1)
        name = data[at + 64 : end].decode(errors="surrogateescape")
        if not name:
            raise ValueError("an image has no name")
        poses.append(Pose(image_id, tuple(pose[:4]), tuple(pose[4:]), camera_id, name))
        at = end + 9 + 24 * seen
    if at > len(data):
        raise ValueError(f"{at} expected")
    return poses


def _images_text(text: str) -> list[Pose]:
    """Each image is a line, and its keypoints are the next: empty if there are none, and left out by some writers."""
    poses: list[Pose] = []
    after_image = False
    for line in _lines(text):
        if after_image and _are_keypoints(line):
            after_image = False
            continue
        image_id, qw, qx, qy, qz, tx, ty, tz, camera_id, name = line.split(maxsplit=9)
        values = tuple(map(float, (qw, qx, qy, qz, tx, ty, tz)))
        poses.append(Pose(int(image_id), values[:4], values[4:], int(camera_id), name))
        after_image = True
    return poses


def _are_keypoints(line: str) -> bool:
    """Whether it holds triples of x, y and the number of a point: an image's third word is a part of its rotation, and
    its tenth begins the name."""
    words = line.split()
    try:
        return len(words) % 3 == 0 and all(int(words[i]) >= -1 for i in (2, -1)) and math.isfinite(float(words[-2]))
    except ValueError:
        return False


def _points_binary(data: bytes) -> Points:
    (count,), at = struct.unpack_from("<Q", data), 8
    starts, lengths = [], []
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", data, at + 43)
        starts.append(at)
        lengths.append(length)
        at += 51 + 8 * length
    if at > len(data):
        raise ValueError(f"{at} expected")
    raw = np.frombuffer(data, np.uint8)
    start = np.array(starts, np.int64)
    length = np.array(lengths, np.int64)
    fields = raw[start[:, None] + np.arange(8, 35)] if count else np.zeros((0, 27), np.uint8)
    point = np.repeat(np.arange(count), length)
    nth = np.arange(len(point)) - np.repeat(np.cumsum(length) - length, length)
    track = start[point] + 51 + 8 * nth
    image_id = np.ascontiguousarray(raw[track[:, None] + np.arange(4)]).view("<i4").reshape(-1)
    xyz = np.ascontiguousarray(fields[:, :24]).view("<f8").reshape(-1, 3)
    return Points(xyz, np.ascontiguousarray(fields[:, 24:]), point, image_id.astype(np.int64))


def _points_text(text: str) -> Points:
    rows = [line.split() for line in _lines(text)]
    if any(len(row) < 7 for row in rows):
        raise ValueError("a point has an id, three coordinates and three colours")
    track = [(row, int(image_id)) for row, values in enumerate(rows) for image_id in values[8::2]]
    pairs = np.array(track, np.int64).reshape(-1, 2)
    xyz = np.array([values[1:4] for values in rows], np.float64).reshape(-1, 3)
    rgb = np.array([values[4:7] for values in rows], np.float64).reshape(-1, 3).clip(0, 255).astype(np.uint8)
    return Points(xyz, rgb, pairs[:, 0], pairs[:, 1])


def decode(data: bytes) -> str:
    """Text in UTF-8, or in whatever its byte-order mark says; bytes of other encodings come as surrogates."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")


def _lines(text: str) -> Iterator[str]:
    """The lines that say something; ``str.splitlines`` would also end them at bytes of code pages."""
    lines = (line.strip() for line in text.replace("\r", "\n").split("\n"))
    return (line for line in lines if line and not line.startswith("#"))


def _observations(points: Points, poses: list[Pose]) -> Int[np.ndarray, "O 2"]:
    """Unique pairs (point, position of the image)."""
    position = {pose.image_id: i for i, pose in enumerate(poses)}
    photo = np.array([position.get(i, -1) for i in points.image_id.tolist()], np.int64)
    pairs = np.stack([points.point, photo], 1)[photo >= 0]
    return np.unique(pairs, axis=0) if len(pairs) else np.zeros((0, 2), np.int64)


def _camera_to_world(poses: list[Pose]) -> Float[np.ndarray, "N 4 4"]:
    quats = np.array([pose.quat for pose in poses], np.float64).reshape(-1, 4)
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],  # the transpose: camera to world
        [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
        [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
    ]
    c2w = np.tile(np.eye(4), (len(poses), 1, 1))
    c2w[:, :3, :3] = np.array(rows).transpose(2, 0, 1)
    translation = np.array([pose.translation for pose in poses], np.float64).reshape(-1, 3)
    c2w[:, :3, 3] = -np.einsum("nij,nj->ni", c2w[:, :3, :3], translation)
    return c2w
