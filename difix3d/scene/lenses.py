"""The camera of a photo as ``transforms.json`` describes it, by the keys of nerfstudio, instant-ngp and COLMAP."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from difix3d.errors import UserError
from difix3d.geometry.lens import PARAMETERS
from difix3d.geometry.panorama import EQUIRECTANGULAR
from difix3d.images import image_size
from difix3d.types import Lens

PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
"""One model under several names, as in nerfstudio: a pinhole with whatever distortion the file has besides."""
EQUIDISTANT = ("OPENCV_FISHEYE", "FISHEYE", "SIMPLE_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
"""OPENCV_FISHEYE, with as many of its parameters as the file has."""
ALIASES = {
    "FISHEYE624": "RAD_TAN_THIN_PRISM_FISHEYE",
    "SIMPLE_DIVISION": "DIVISION",
    "PLUMB_BOB": "OPENCV",
    "RADTAN": "OPENCV",
    "RATIONAL_POLYNOMIAL": "FULL_OPENCV",
    "EQUIDISTANT": "OPENCV_FISHEYE",
}
"""Names read as another of COLMAP's models: Project Aria's in nerfstudio, one with a single focal length, ROS's."""
KEYS = {"fx": "fl_x", "fy": "fl_y", "width": "w", "height": "h"}
"""What other programs call nerfstudio's keys."""
FLAGS = {"latlong": EQUIRECTANGULAR, "equirectangular": EQUIRECTANGULAR, "orthographic": "ORTHOGRAPHIC"}
"""Keys of instant-ngp that name a camera model."""
PANORAMAS = (EQUIRECTANGULAR, "SPHERICAL")
"""What nerfstudio and Metashape call a 360 photo."""
ALL_AROUND = ("OMNIDIRECTIONAL", "VR180", "CUBE", "DUAL", "CYLIND", "PANO")
"""How the names of other cameras begin that see all around."""
DISTORTION = re.compile(
    r"k\d*|p\d|s\d|s[xy]\d|b\d|tau_?[xy]|omega|alpha|beta|xi|skew|ftheta_p\d"
    r"|dist(ortion(_(params|coeffs?|coefficients))?|_?coeffs?)?|coeffs",
    re.IGNORECASE,
)
"""Keys that hold distortion. Those that a model does not have must be zero: none is dropped in silence."""
LISTS = {
    12: PARAMETERS["RAD_TAN_THIN_PRISM_FISHEYE"].split()[4:],
    6: ["k1", "k2", "k3", "k4", "p1", "p2"],
    4: ["k1", "k2", "k3", "k4"],
}
"""What stands in nerfstudio's list ``distortion_params``, by its length; four are a fisheye's."""

LARGEST = 1_000_000


def read_lens(keys: dict[str, Any], photo: Path, file: Path) -> Lens:
    """The lens of one frame.

    Args:
        keys: of the frame and, behind them, of the whole file.
        photo: gives the size in pixels where ``w`` and ``h`` are missing.
        file: for the errors.

    Raises:
        UserError: no focal length, an unknown model, or distortion that the model does not have.
    """
    keys = {KEYS[key]: value for key, value in keys.items() if key in KEYS} | keys
    sized = keys.get("w") is not None and keys.get("h") is not None
    width, height = (_side(keys, "w", file), _side(keys, "h", file)) if sized else image_size(photo)
    model = _named(keys)
    if model in PANORAMAS:
        return _panorama(keys, photo, width, height, file)
    if model.startswith(ALL_AROUND):
        raise UserError(
            f"{file} has the camera model {model}",
            "Of cameras that see all around, only EQUIRECTANGULAR is supported: one picture of 2:1 from one place",
            "Export the photos as equirectangular panoramas, or cut into ordinary ones with their poses",
        )
    focal_x, focal_y = (_focal(keys, axis, side, file) for axis, side in (("x", width), ("y", height)))
    focal_x, focal_y = focal_x or focal_y, focal_y or focal_x
    if not (focal_x and focal_y):
        raise UserError(
            f"{file} gives no focal length for {photo.name}", "It needs fl_x or camera_angle_x", "Add it to the file"
        )
    cx, cy = (_number(keys, key, file, side / 2) for key, side in (("cx", width), ("cy", height)))
    distortion = _distortion(keys, file)
    model = _model(keys, distortion, file)
    names = PARAMETERS[model].split()
    values = {"fx": focal_x, "fy": focal_y, "cx": cx, "cy": cy, **distortion}
    lost = sorted(distortion.keys() - set(names))
    if lost:
        raise UserError(
            f"{file} has {', '.join(f'{key} = {distortion[key]:g}' for key in lost)} for {photo.name}",
            f"The camera model {_named(keys)} is read as {model}, which has {', '.join(names)}",
            "Name the model that these belong to as camera_model, or undistort the photos",
        )
    return Lens(model, tuple(float(values.get(name, 0.0)) for name in names), width, height)


def _panorama(keys: dict[str, Any], photo: Path, width: int, height: int, file: Path) -> Lens:
    """A 360 photo, whose focal length says nothing; its middle has to be that of the photo."""
    for key, side in (("cx", width), ("cy", height)):
        middle = _number(keys, key, file, side / 2)
        if abs(middle - side / 2) > 0.01 * side:
            raise UserError(
                f"{file} has {key} = {middle:g} for the 360 photo {photo.name} of {width} x {height} pixels",
                "An equirectangular photo shows the whole sphere and looks ahead in its middle",
                f"Export it whole, not cropped, or leave {key} out",
            )
    return Lens(EQUIRECTANGULAR, (float(width), float(height)), width, height)


def _named(keys: dict[str, Any]) -> str:
    """The model's name as the file gives it, in capitals; instant-ngp has flags."""
    flag = next((key for key in FLAGS if keys.get(key)), None)
    model = FLAGS[flag] if flag else str(keys.get("camera_model") or keys.get("distortion_model") or "OPENCV").upper()
    return ALIASES.get(model, model)


def _model(keys: dict[str, Any], distortion: dict[str, float], file: Path) -> str:
    """COLMAP's name of the smallest model that has what the frame's camera is made of."""
    model = _named(keys)
    if model in EQUIDISTANT or (keys.get("is_fisheye") and model in PERSPECTIVE):
        return "OPENCV_FISHEYE"
    if model in PARAMETERS and model not in PERSPECTIVE:
        return model
    if model not in PERSPECTIVE:
        known = sorted({*PERSPECTIVE, *ALIASES, EQUIRECTANGULAR, *PARAMETERS})
        raise UserError(
            f"{file} has the camera model {model}",
            f"Known are {', '.join(known)}",
            "Undistort the photos to pinhole cameras first",
        )
    if "k4" in distortion and not {"k5", "k6"} & keys.keys():
        raise UserError(
            f"{file} has the camera model {model} with k4 = {distortion['k4']:g}",
            "Programs mean different things by k4: the eighth power of the radius, or a divisor as in FULL_OPENCV",
            "If it is OpenCV's, name FULL_OPENCV as camera_model; else undistort the photos",
        )
    if {"k3", "k4", "k5", "k6"} & distortion.keys():
        return "FULL_OPENCV"
    return "OPENCV" if distortion else "PINHOLE"


def _distortion(keys: dict[str, Any], file: Path) -> dict[str, float]:
    """The distortion by COLMAP's names, without what is zero; EUCM's beta is 1 unless it is given."""
    found = {key.lower(): keys[key] for key in keys if DISTORTION.fullmatch(key) and not isinstance(keys[key], bool)}
    lists = {key: value for key, value in found.items() if isinstance(value, list)}
    values = {key: _number(found, key, file) for key, value in found.items() if key not in lists and value is not None}
    for key, row in lists.items():
        numbers = {str(i): value for i, value in enumerate(row)}
        numbers = {i: _number(numbers, i, file) for i in numbers}
        if not any(numbers.values()):
            continue
        fisheye = "FISHEYE" in _named(keys) or keys.get("is_fisheye")
        if key != "distortion_params" or len(row) not in LISTS or (len(row) == 4 and not fisheye):
            raise UserError(
                f"{file} has a list {key!r} of {len(row)} numbers",
                "Their order is not known",
                "Write each as a key of its own: k1, k2, p1, p2, ...",
            )
        values.update(zip(LISTS[len(row)], numbers.values(), strict=True))
    if "k" in values and "k1" not in values and _named(keys) != "DIVISION":
        values["k1"] = values.pop("k")  # COLMAP's SIMPLE_RADIAL
    if _named(keys) == "EUCM":
        values.setdefault("beta", 1.0)
    return {key: value for key, value in values.items() if value}


def _focal(keys: dict[str, Any], axis: str, side: int, file: Path) -> float | None:
    """In pixels, from itself or from the angle of view: ``camera_angle_x`` in radians, ``x_fov`` in degrees."""
    if focal := _number(keys, f"fl_{axis}", file, 0.0):
        return focal
    angle = _number(keys, f"camera_angle_{axis}", file, 0.0)
    angle = angle or float(np.radians(_number(keys, f"{axis}_fov", file, 0.0)))
    if not 0 <= angle < np.pi:
        raise UserError(
            f"{file} has an angle of view along {axis} of {angle:g} radians",
            f"It is more than 0 and below {np.pi:.2f}; camera_angle_{axis} is in radians",
            f"If it is in degrees, write {np.radians(angle):.4f}" if 0 < angle <= 180 else "Correct it",
        )
    return 0.5 * side / float(np.tan(0.5 * angle)) if angle else None


def _side(keys: dict[str, Any], key: str, file: Path) -> int:
    side = _number(keys, key, file)
    if not 1 <= side <= LARGEST:
        raise UserError(f"{file} has {key} = {side:g}", f"Photos have 1 to {LARGEST} pixels along a side", "Correct it")
    return round(side)


def _number(keys: dict[str, Any], key: str, file: Path, default: float | None = None) -> float:
    """The number under a key; some programs write it in quotes."""
    value = keys.get(key)
    if value is None and default is not None:
        return default
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UserError(f"{key} in {file} is {value!r}", "It must be a number", "Correct it") from None
