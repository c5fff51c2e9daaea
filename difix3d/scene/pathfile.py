"""Files of camera paths: nerfstudio's ``camera_path.json`` and our own.

Our own format is JSON in the user's world (the one of the scene's files), so that a path outlives a run::

    {"format": "difix3d camera path", "version": 1, "fps": 24.0,
     "cameras": [{"c2w": 4 x 4, OpenCV axes, "K": 3 x 3, pixels, "width": pixels, "height": pixels}, ...]}

nerfstudio's files hold ``render_width``, ``render_height``, ``fps`` and ``camera_path``: for each frame
``camera_to_world`` (16 numbers, row by row, OpenGL axes) and ``fov`` (vertical, degrees). Their poses are in the world
that nerfstudio trained in. ``dataparser_transforms.json`` (from nerfstudio's output folder) beside the file says how
to get back; it leads to the coordinates that nerfstudio calls original, those of the COLMAP model. Without it the poses
are taken to be in the user's world.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from difix3d.errors import UserError
from difix3d.files import read_json, write_json
from difix3d.geometry.normalize import transform_poses
from difix3d.geometry.poses import FROM_OPENGL
from difix3d.limits import Limits
from difix3d.types import Cameras, Scene

FORMAT, VERSION = "difix3d camera path", 1

ABSURD, NARROWEST = 1e12, 1e-3
"""What no number of a path is, and degrees that a camera sees at least."""

LARGEST = 16384
"""Images wider or higher than this many pixels are taken for a mistake."""

RATES = Limits(min=0.1, max=1000)
"""Frames per second of videos; ffmpeg is told two decimals."""


@dataclass(frozen=True)
class CameraPath:
    """Cameras to be seen one after the other, in the normalised world of a scene."""

    cameras: Cameras
    fps: float


def read_path(file: Path, scene: Scene, *, from_nerfstudio: Float[np.ndarray, "4 4"] | None = None) -> CameraPath:
    """Reads a camera path file, of nerfstudio or our own (see the module).

    Args:
        file: in JSON.
        scene: into whose world the poses are taken.
        from_nerfstudio: similarity from nerfstudio's world to the user's; by default what is beside the file.

    Raises:
        UserError: what is wrong with the file, by the camera's number (from 0) and the key.
    """
    content = read_json(file)
    if content.get("format") == FORMAT:
        if content.get("version") != VERSION:
            raise UserError(
                f"{file} is a camera path of version {content.get('version')}",
                f"This version of difix3d reads version {VERSION}",
                "Update difix3d",
            )
        c2w, K, sizes = _own(content, file)
    elif "camera_path" in content:
        there = _from_nerfstudio(file.parent) if from_nerfstudio is None else from_nerfstudio
        c2w, K, sizes = _nerfstudio(content, file, there)
    else:
        raise UserError(
            f"{file} is no camera path",
            f"It needs a list 'camera_path' (nerfstudio), or the format {FORMAT!r}",
            "Export it from a viewer again",
        )
    fps = float(_numbers(content, "fps", (), str(file)))
    if not RATES.allow(fps):
        raise UserError(f"{file} has fps {fps:g}", f"Frames per second are {RATES}")
    c2w = transform_poses(scene.from_input, c2w)
    width, height = torch.from_numpy(sizes).unbind(1)
    cameras = Cameras(torch.from_numpy(c2w).float(), torch.from_numpy(K).float(), width.clone(), height.clone())
    return CameraPath(cameras, fps)


def write_path(path: CameraPath, file: Path, scene: Scene) -> None:
    """Writes our own format, in the user's world; the file appears whole or not at all, its folder is made.

    Raises:
        UserError: the file cannot be written.
    """
    cameras = path.cameras.to("cpu")
    c2w = transform_poses(np.linalg.inv(scene.from_input), cameras.c2w.double().numpy())
    content = {
        "format": FORMAT,
        "version": VERSION,
        "fps": path.fps,
        "cameras": [
            {"c2w": pose.tolist(), "K": K.tolist(), "width": int(width), "height": int(height)}
            for pose, K, width, height in zip(c2w, cameras.K, cameras.width, cameras.height, strict=True)
        ],
    }
    write_json(file, content)


Parts = tuple[Float[np.ndarray, "N 4 4"], Float[np.ndarray, "N 3 3"], Int[np.ndarray, "N 2"]]
"""Poses in the user's world (OpenCV axes), intrinsics, and sizes (width, height)."""


Where = Callable[[int], str]
"""What errors call the camera of that number."""


def _own(content: dict[str, Any], file: Path) -> Parts:
    cameras = _list(content, "cameras", file)
    c2w = _rigid(_all_numbers(cameras, "c2w", (4, 4)), "c2w", cameras.where)
    sizes = [_sides(_all_numbers(cameras, key, ()), key, cameras.where) for key in ("width", "height")]
    return c2w, _intrinsics(_all_numbers(cameras, "K", (3, 3)), cameras.where), np.stack(sizes, 1)


def _nerfstudio(content: dict[str, Any], file: Path, to_user: Float[np.ndarray, "4 4"]) -> Parts:
    kind = content.get("camera_type", "perspective")
    if kind != "perspective":
        raise UserError(
            f"{file} has the camera_type {kind!r}", "Only perspective cameras can be rendered", "Export it as one"
        )
    cameras = _list(content, "camera_path", file)
    width, height = (_side(content, key, str(file)) for key in ("render_width", "render_height"))
    poses = _all_numbers(cameras, "camera_to_world", (16,)).reshape(-1, 4, 4)
    fov = _all_numbers(cameras, "fov", ())
    limit = "A field of view is more than 0 and less than 180 degrees"
    _refuse((fov < NARROWEST) | (fov > 180 - NARROWEST), cameras.where, lambda i: (f" has fov {fov[i]:g}", limit))
    c2w = _rigid(poses, "camera_to_world", cameras.where) @ FROM_OPENGL
    K = np.tile(np.array([[0, 0, width / 2], [0, 0, height / 2], [0, 0, 1]]), (len(fov), 1, 1))
    K[:, 0, 0] = K[:, 1, 1] = 0.5 * height / np.tan(np.radians(fov) / 2)
    return transform_poses(to_user, c2w), K, np.tile((width, height), (len(fov), 1))


def _from_nerfstudio(folder: Path) -> Float[np.ndarray, "4 4"]:
    """The similarity from nerfstudio's world to the user's; the identity without ``dataparser_transforms.json``."""
    file = folder / "dataparser_transforms.json"
    if not file.is_file():
        return np.eye(4)
    content = read_json(file)
    scale = float(_numbers(content, "scale", (), str(file)))
    if scale < 1 / ABSURD:
        raise UserError(f"{file} has scale {scale:g}", "A scale is more than 0")
    matrix = np.vstack([_numbers(content, "transform", (3, 4), str(file)), [0.0, 0.0, 0.0, 1.0]])
    there = _rigid(matrix[None], "transform", lambda _: str(file))[0]
    there[:3] *= scale
    return np.linalg.inv(there)


@dataclass(frozen=True)
class _List:
    """The cameras of a file, at least one."""

    items: list[dict[str, Any]]
    file: Path

    def where(self, number: int) -> str:
        """What errors call a camera."""
        return f"Camera {number} of {len(self.items)} in {self.file}"


def _list(content: dict[str, Any], key: str, file: Path) -> _List:
    items = content.get(key)
    if not isinstance(items, list) or not items:
        raise UserError(f"{file} has no cameras", f"The list {key!r} needs at least one", "Export the path again")
    wrong = next((number for number, camera in enumerate(items) if not isinstance(camera, dict)), None)
    if wrong is not None:
        raise UserError(f"Camera {wrong} of {len(items)} in {file} is no JSON object")
    return _List(items, file)


def _all_numbers(cameras: _List, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """:func:`_numbers` of each camera; at once where all are good, for there may be a hundred thousand."""
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        values = np.array([camera[key] for camera in cameras.items], np.float64)
        if values.shape == (len(cameras.items), *shape) and (np.abs(values) < ABSURD).all():
            return values
    return np.stack([_numbers(item, key, shape, cameras.where(i)) for i, item in enumerate(cameras.items)])


def _numbers(content: dict[str, Any], key: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    """The finite numbers of that shape under the key."""
    if key not in content:
        raise UserError(f"{where} has no {key!r}")
    try:
        values = np.array(content[key], np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.full(0, np.nan)
    if values.shape != shape:
        wanted = f"{' x '.join(map(str, shape))} numbers" if shape else "a number"
        raise UserError(f"{where}: {key!r} is not {wanted}")
    if not (np.abs(values) < ABSURD).all():
        raise UserError(f"{where}: {key!r} is not finite", f"It holds NaN, infinity or numbers of {ABSURD:g} or more")
    return values


def _refuse(bad: Bool[np.ndarray, "N"], where: Where, why: Callable[[int], tuple[str, ...]]) -> None:
    """Raises the error for the first bad one; its fact goes on from where that is."""
    if bad.any():
        first = int(np.argmax(bad))
        fact, *rest = why(first)
        raise UserError(f"{where(first)}{fact}", *rest)


def _side(content: dict[str, Any], key: str, where: str) -> int:
    return int(_sides(_numbers(content, key, (), where)[None], key, lambda _: where)[0])


def _sides(values: Float[np.ndarray, "N"], key: str, where: Where) -> Int[np.ndarray, "N"]:
    limit = f"Sides are whole numbers of pixels, 1 to {LARGEST}"
    bad = (values < 1) | (values > LARGEST) | (values != np.round(values))
    _refuse(bad, where, lambda i: (f" has {key} {values[i]:g}", limit))
    return values.astype(np.int64)


def _intrinsics(K: Float[np.ndarray, "N 3 3"], where: Where) -> Float[np.ndarray, "N 3 3"]:
    zero = (K[:, [0, 1, 2, 2], [1, 0, 0, 1]] == 0).all(1) & (K[:, 2, 2] == 1)
    bad = ~zero | (K[:, 0, 0] <= 0) | (K[:, 1, 1] <= 0)
    limit = "It is [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], with focal lengths above 0"
    _refuse(bad, where, lambda _: (": 'K' is not that of a pinhole camera", limit))
    return K


def _rigid(poses: Float[np.ndarray, "N 4 4"], key: str, where: Where) -> Float[np.ndarray, "N 4 4"]:
    """The poses with their rotations rounded to exact ones; refuses what is more than rounding."""
    rotation = poses[:, :3, :3]
    with np.errstate(all="ignore"):  # absurd numbers overflow, to an error that is not small
        error = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max((1, 2))
        mirrored = np.linalg.det(rotation) < 0
    orthogonal = error <= 0.01

    def why(i: int) -> tuple[str, ...]:
        miss = f"R^T R misses the identity by {error[i]:.2g}"
        reason = "it mirrors or its last row is wrong" if orthogonal[i] else miss
        limit = "A pose is a rotation (without scale) and a position; its last row is 0 0 0 1"
        return f": {key!r} is not rigid, {reason}", limit, "Export the path again"

    _refuse(~orthogonal | mirrored | (poses[:, 3] != [0, 0, 0, 1]).any(1), where, why)
    rigid = poses.copy()
    rigid[:, :3, :3] = Rotation.from_matrix(rotation).as_matrix()
    return rigid
