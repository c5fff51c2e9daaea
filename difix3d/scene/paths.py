"""Camera paths: ready-made ones around a scene, and files (nerfstudio's ``camera_path.json`` and our own).

Our own format is JSON in the user's world (the one of the scene's files), so that a path outlives a run::

    {"format": "difix3d camera path", "version": 1, "fps": 24.0,
     "cameras": [{"c2w": 4 x 4, OpenCV axes, "K": 3 x 3, pixels, "width": pixels, "height": pixels}, ...]}

nerfstudio's files hold ``render_width``, ``render_height``, ``fps`` and ``camera_path``: for each frame
``camera_to_world`` (16 numbers, row by row, OpenGL axes) and ``fov`` (vertical, degrees). Their poses are in the world
that nerfstudio trained in. ``dataparser_transforms.json`` (from nerfstudio's output folder) beside the file says how
to get back; it leads to the coordinates that nerfstudio calls original, those of the COLMAP model. Without it the poses
are taken to be in the user's world.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation
from torch import Tensor

from difix3d.errors import UserError
from difix3d.files import is_file, read_json, write_json
from difix3d.geometry.normalize import transform_poses
from difix3d.geometry.poses import FROM_OPENGL, ellipse, focus_point, interpolate_path, spiral
from difix3d.types import Cameras, Scene

FORMAT, VERSION = "difix3d camera path", 1
PATHS: dict[str, Callable[[Float[Tensor, "N 4 4"], int], Float[Tensor, "frames 4 4"]]] = {
    "ellipse": ellipse,
    "spiral": spiral,
    "interp": interpolate_path,
}
"""Ready-made paths: functions of the training poses and the number of frames."""

FPS = 24.0
"""Frames per second of ready-made paths."""

ABSURD, NARROWEST = 1e12, 1e-3
"""What no number of a path is, and degrees that a camera sees at least."""

LARGEST = 16384
"""Images wider or higher than this many pixels are taken for a mistake."""


@dataclass(frozen=True)
class CameraPath:
    """Cameras to be seen one after the other, in the normalised world of a scene."""

    cameras: Cameras
    fps: float


def path_cameras(name_or_file: str, scene: Scene, frames: int = 120) -> CameraPath:
    """A camera path by its name or from a file.

    Args:
        name_or_file: ``ellipse`` around what the training cameras look at, ``spiral`` within them (for forward-facing
            captures), ``interp`` through them in the order of the photos; or the path of a JSON file.
        scene: whose training cameras the ready-made paths follow; these look through the first one's lens. Of 360
            photos the path follows the front faces.
        frames: how many, at least 1; a file has its own number.

    Raises:
        UserError: no such path, or a broken file.
    """
    if name_or_file not in PATHS:
        file = Path(os.path.expanduser(name_or_file))
        if not is_file(file):
            raise UserError(
                f"There is no camera path {name_or_file!r}",
                f"A path is {', '.join(PATHS)} or a JSON file",
                "Check the spelling and the folder",
            )
        return read_path(file, scene)
    if frames < 1:
        raise UserError(f"The number of frames is {frames}", "A camera path has at least 1")
    train = _followed(scene)
    c2w = PATHS[name_or_file](train.c2w, frames)
    return CameraPath(replace(train[[0] * frames], c2w=c2w), FPS)


def natural_path(scene: Scene) -> str:
    """``ellipse`` where the training cameras stand (nearly) all around what they look at, else ``spiral``."""
    c2w = _followed(scene).c2w
    sides = torch.nn.functional.normalize((c2w[:, :3, 3] - focus_point(c2w))[:, :2], dim=1)  # seen from above
    return "ellipse" if float(sides.mean(0).norm()) < 0.5 else "spiral"  # an arc of 217 degrees has 0.5


def _followed(scene: Scene) -> Cameras:
    """The training cameras in the order of the photos, without the faces of 360 photos that look aside."""
    lenses = {i: scene.photos[i].lens for i in sorted(scene.train.tolist())}
    ahead = [i for i, lens in lenses.items() if lens is None or lens.face == "front"]
    return scene.cameras[ahead or list(lenses)]


def fit(cameras: Cameras, width: int, height: int) -> Cameras:
    """The same cameras with pictures of another size: the vertical field of view stays, the sides are cut or widened.

    Raises:
        UserError: the size is not within 1 to :data:`LARGEST`.
    """
    for side in (width, height):
        if not 1 <= side <= LARGEST:
            raise UserError(f"The size {width} x {height} is not possible", f"Sides are 1 to {LARGEST} pixels")
    scale = (height / cameras.height).to(cameras.K)
    K = cameras.K.clone()
    K[:, :2] *= scale[:, None, None]
    K[:, 0, 2] += (width - cameras.width.to(scale) * scale) / 2
    return Cameras(cameras.c2w, K, torch.full_like(cameras.width, width), torch.full_like(cameras.height, height))


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
    if not 0 < fps <= 1000:
        raise UserError(f"{file} has fps {fps:g}", "Frames per second are more than 0 and at most 1000")
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


def _own(content: dict[str, Any], file: Path) -> Parts:
    cameras = _list(content, "cameras", file)
    c2w = [_rigid(_numbers(camera, "c2w", (4, 4), where), "c2w", where) for where, camera in cameras]
    K = [_intrinsics(camera, where) for where, camera in cameras]
    sizes = [(_side(camera, "width", where), _side(camera, "height", where)) for where, camera in cameras]
    return np.stack(c2w), np.stack(K), np.array(sizes)


def _nerfstudio(content: dict[str, Any], file: Path, to_user: Float[np.ndarray, "4 4"]) -> Parts:
    kind = content.get("camera_type", "perspective")
    if kind != "perspective":
        raise UserError(
            f"{file} has the camera_type {kind!r}", "Only perspective cameras can be rendered", "Export it as one"
        )
    cameras = _list(content, "camera_path", file)
    width, height = (_side(content, key, str(file)) for key in ("render_width", "render_height"))
    c2w, K = [], []
    for where, camera in cameras:
        pose = _numbers(camera, "camera_to_world", (16,), where).reshape(4, 4)
        fov = float(_numbers(camera, "fov", (), where))
        if not NARROWEST <= fov <= 180 - NARROWEST:
            raise UserError(f"{where} has fov {fov:g}", "A field of view is more than 0 and less than 180 degrees")
        focal = 0.5 * height / np.tan(np.radians(fov) / 2)
        c2w.append(_rigid(pose, "camera_to_world", where))
        K.append(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]))
    poses = transform_poses(to_user, np.stack(c2w) @ FROM_OPENGL)
    return poses, np.stack(K), np.array([(width, height)] * len(K))


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
    there = _rigid(matrix, "transform", str(file))
    there[:3] *= scale
    return np.linalg.inv(there)


def _list(content: dict[str, Any], key: str, file: Path) -> list[tuple[str, dict[str, Any]]]:
    """The cameras of a file, each with what errors call it."""
    cameras = content.get(key)
    if not isinstance(cameras, list) or not cameras:
        raise UserError(f"{file} has no cameras", f"The list {key!r} needs at least one", "Export the path again")
    named = [(f"Camera {i} of {len(cameras)} in {file}", camera) for i, camera in enumerate(cameras)]
    wrong = next((where for where, camera in named if not isinstance(camera, dict)), None)
    if wrong:
        raise UserError(f"{wrong} is no JSON object")
    return named


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


def _side(content: dict[str, Any], key: str, where: str) -> int:
    value = float(_numbers(content, key, (), where))
    if not (1 <= value <= LARGEST and value.is_integer()):
        raise UserError(f"{where} has {key} {value:g}", f"Sides are whole numbers of pixels, 1 to {LARGEST}")
    return int(value)


def _intrinsics(camera: dict[str, Any], where: str) -> Float[np.ndarray, "3 3"]:
    K = _numbers(camera, "K", (3, 3), where)
    pinhole = np.array([[K[0, 0], 0, K[0, 2]], [0, K[1, 1], K[1, 2]], [0, 0, 1]])
    if min(K[0, 0], K[1, 1]) <= 0 or not np.array_equal(K, pinhole):
        raise UserError(
            f"{where}: 'K' is not that of a pinhole camera",
            "It is [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], with focal lengths above 0",
        )
    return K


def _rigid(pose: Float[np.ndarray, "4 4"], key: str, where: str) -> Float[np.ndarray, "4 4"]:
    """The pose with its rotation rounded to an exact one; refuses what is more than rounding."""
    rotation = pose[:3, :3]
    with np.errstate(all="ignore"):  # absurd numbers overflow, to an error that is not small
        error = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    orthogonal = error <= 0.01
    if not orthogonal or np.linalg.det(rotation) < 0 or not np.array_equal(pose[3], [0, 0, 0, 1]):
        reason = "it mirrors or its last row is wrong" if orthogonal else f"R^T R misses the identity by {error:.2g}"
        raise UserError(
            f"{where}: {key!r} is not rigid, {reason}",
            "A pose is a rotation (without scale) and a position; its last row is 0 0 0 1",
            "Export the path again",
        )
    rigid = pose.copy()
    rigid[:3, :3] = Rotation.from_matrix(rotation).as_matrix()
    return rigid
