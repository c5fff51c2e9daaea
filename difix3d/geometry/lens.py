"""Lens distortion: COLMAP's camera models, and the pinhole camera that a distorted photo is turned into."""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float

from difix3d.errors import UserError
from difix3d.geometry.panorama import EQUIRECTANGULAR, face_pinhole, project_to_panorama
from difix3d.types import Lens

MODELS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
    "SIMPLE_FISHEYE": "f cx cy",
    "FISHEYE": "fx fy cx cy",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
}
"""Parameters of the models that are computed here, in COLMAP's order."""

OTHER_MODELS = {
    "FOV": "fx fy cx cy omega",
    "THIN_PRISM_FISHEYE": "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1",
    "RAD_TAN_THIN_PRISM_FISHEYE": "fx fy cx cy k0 k1 k2 k3 k4 k5 p0 p1 s0 s1 s2 s3",
    "SIMPLE_DIVISION": "f cx cy k",
    "DIVISION": "fx fy cx cy k",
    "EUCM": "fx fy cx cy alpha beta",
}
"""The same of the models that go through pycolmap."""

PARAMETERS = {**MODELS, **OTHER_MODELS}

DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")

MAX_GROWTH = 2.0
"""An undistorted photo may be this many times as wide and as high as the photo: a fisheye would become endless."""


def is_pinhole(lens: Lens) -> bool:
    """Whether the photo is the pinhole image already."""
    if lens.model not in MODELS or "FISHEYE" in lens.model:
        return False
    return not any(value for name, value in named_params(lens).items() if name[0] in "kp")


def named_params(lens: Lens) -> dict[str, float]:
    """The parameters by name, with ``fx, fy, cx, cy`` among them; only for the models of :data:`PARAMETERS`."""
    params = dict(zip(PARAMETERS[lens.model].split(), lens.params, strict=True))
    focal = params.pop("f", None)
    return params if focal is None else {"fx": focal, "fy": focal, **params}


def intrinsics(lens: Lens) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels of the photo."""
    if lens.model == EQUIRECTANGULAR:
        return face_pinhole(lens)[:4]
    if lens.model in PARAMETERS:
        params = named_params(lens)
        return params["fx"], params["fy"], params["cx"], params["cy"]
    camera = _pycolmap_camera(lens)
    return camera.focal_length_x, camera.focal_length_y, camera.principal_point_x, camera.principal_point_y


def project(lens: Lens, plane: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    """Where the photo shows the directions (x, y, 1): positions in pixels, NaN where it cannot.

    Source of the formulas: the documentation of OpenCV's calib3d (rational polynomial with tangential terms; fisheye).
    """
    if lens.model == EQUIRECTANGULAR:
        return project_to_panorama(lens, plane)
    if lens.model not in MODELS:
        rays = np.concatenate([plane, np.ones_like(plane[:, :1])], 1)
        return np.asarray(_pycolmap_camera(lens).img_from_cam(rays), np.float64)
    params = named_params(lens)
    k1, k2, k3, k4, k5, k6, p1, p2 = (params.get(name, 0.0) for name in DISTORTION)
    x, y = plane[:, 0], plane[:, 1]
    if "FISHEYE" in lens.model:
        radius = np.hypot(x, y)
        theta = np.arctan(radius)
        square = theta * theta
        bent = theta * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))
        factor = np.where(radius > 1e-12, bent / np.maximum(radius, 1e-12), 1.0)
        x, y = x * factor, y * factor
    else:
        square = x * x + y * y
        factor = 1 + square * (k1 + square * (k2 + square * k3))
        factor /= 1 + square * (k4 + square * (k5 + square * k6))
        x, y = (
            x * factor + 2 * p1 * x * y + p2 * (square + 2 * x * x),
            y * factor + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
        )
    return np.stack([params["fx"] * x + params["cx"], params["fy"] * y + params["cy"]], 1)


@lru_cache(maxsize=1024)
def undistorted(lens: Lens) -> tuple[float, float, float, float, int, int]:
    """The pinhole camera (fx, fy, cx, cy, width, height) that a photo is resampled to.

    It keeps the focal lengths, and scales size and principal point by the largest factor (at most :data:`MAX_GROWTH`)
    for which every one of its pixels lies in the photo: no blank pixels, like COLMAP's undistorter by default. Of a 360
    photo it is a face.
    """
    if lens.model == EQUIRECTANGULAR:
        return face_pinhole(lens)
    fx, fy, cx, cy = intrinsics(lens)
    if is_pinhole(lens):
        return fx, fy, cx, cy, lens.width, lens.height
    along = np.linspace(0, 1, 65)
    zero, one = np.zeros_like(along), np.ones_like(along)
    border = np.stack([np.r_[along, along, zero, one], np.r_[zero, one, along, along]], 1)
    scales = np.arange(0.1, MAX_GROWTH + 1e-9, 0.001)
    reach = (border * [lens.width, lens.height] - [cx, cy]) / [fx, fy]
    inside = _inside(project(lens, (scales[:, None, None] * reach).reshape(-1, 2)), lens, margin=0.01)
    fits = inside.reshape(len(scales), -1).all(1)
    last = len(scales) if fits.all() else int(np.argmin(fits))  # grown from small to large: a polynomial may fold back
    if last == 0:
        raise UserError(
            f"The {lens.model} camera {lens.params} of {lens.width} x {lens.height} pixels cannot be undistorted",
            "Its distortion must be invertible in the middle of the photo at least",
            "Check the calibration",
        )
    width = max(1, int(scales[last - 1] * lens.width + 1e-6))
    height = max(1, int(scales[last - 1] * lens.height + 1e-6))
    return fx, fy, cx * width / lens.width, cy * height / lens.height, width, height


def sampling_map(
    lens: Lens, K: Float[np.ndarray, "3 3"], width: int, height: int
) -> tuple[Float[np.ndarray, "height width 2"], Bool[np.ndarray, "height width"]]:
    """For each pixel of the pinhole camera: where to look in the photo, as shares (0..1) of its width and height, and
    whether that lies in the photo."""
    x = (np.arange(width) + 0.5 - K[0, 2]) / K[0, 0]
    y = (np.arange(height) + 0.5 - K[1, 2]) / K[1, 1]
    plane = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float64)
    pixels = project(lens, plane)
    inside = _inside(pixels, lens, margin=0.5).reshape(height, width)
    return (pixels / [lens.width, lens.height]).astype(np.float32).reshape(height, width, 2), inside


def _inside(pixels: Float[np.ndarray, "N 2"], lens: Lens, margin: float) -> Bool[np.ndarray, "N"]:
    low, high = np.full(2, -margin), np.array([lens.width, lens.height]) + margin
    return np.all((pixels > low) & (pixels < high), axis=1)


def _pycolmap_camera(lens: Lens):
    import pycolmap

    try:
        return pycolmap.Camera(model=lens.model, width=lens.width, height=lens.height, params=list(lens.params))
    except (ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"The camera model {lens.model} with {len(lens.params)} parameters is unknown to pycolmap",
            "",
            "Undistort the photos with COLMAP (colmap image_undistorter) and use its output",
        ) from error
