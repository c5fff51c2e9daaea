"""Camera models of ``transforms.json``: with all their parameters, or an error that names what would be lost."""

from pathlib import Path

import numpy as np
import pytest

from difix3d.errors import UserError
from difix3d.scene.lenses import read_lens
from difix3d.types import Lens

KEYS = {"w": 40, "h": 30, "fl_x": 50}


def read(**keys) -> Lens:
    return read_lens({**KEYS, **keys}, Path("a.png"), Path("transforms.json"))


@pytest.mark.parametrize(
    ("keys", "model", "params"),
    [
        ({}, "PINHOLE", ()),
        ({"k1": 0, "k3": 0.0, "k4": 0, "distortion_params": [0] * 6}, "PINHOLE", ()),
        ({"k1": 0.1, "p2": 0.01}, "OPENCV", (0.1, 0, 0, 0.01)),
        ({"camera_model": "SIMPLE_RADIAL", "k": 0.1}, "OPENCV", (0.1, 0, 0, 0)),
        ({"k1": 0.1, "k3": 0.02}, "FULL_OPENCV", (0.1, 0, 0, 0, 0.02, 0, 0, 0)),
        ({"k1": 0.1, "k4": 0.2, "k5": 0.3, "k6": 0.4}, "FULL_OPENCV", (0.1, 0, 0, 0, 0, 0.2, 0.3, 0.4)),
        ({"camera_model": "FULL_OPENCV", "k4": 0.2}, "FULL_OPENCV", (0, 0, 0, 0, 0, 0.2, 0, 0)),
        ({"distortion_params": [0.1, 0.2, 0, 0, 0.3, 0.4]}, "OPENCV", (0.1, 0.2, 0.3, 0.4)),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k4": 0.01}, "OPENCV_FISHEYE", (0.1, 0, 0, 0.01)),
        ({"camera_model": "fisheye", "distortion_params": [1, 2, 3, 4]}, "OPENCV_FISHEYE", (1, 2, 3, 4)),
        ({"camera_model": "RADIAL_FISHEYE", "k1": 0.1, "k2": 0.2}, "OPENCV_FISHEYE", (0.1, 0.2, 0, 0)),
        ({"is_fisheye": True, "k1": 0.1}, "OPENCV_FISHEYE", (0.1, 0, 0, 0)),
        (
            {"camera_model": "THIN_PRISM_FISHEYE", "k1": 1, "k2": 2, "P1": 3, "p2": 4, "sx1": 5, "sy1": 6, "k4": 7},
            "THIN_PRISM_FISHEYE",
            (1, 2, 3, 4, 0, 7, 5, 6),
        ),
        (
            {"camera_model": "FISHEYE624", "distortion_params": list(range(12))},
            "RAD_TAN_THIN_PRISM_FISHEYE",
            tuple(range(12)),
        ),
        ({"distortion_model": "equidistant", "k1": 0.1}, "OPENCV_FISHEYE", (0.1, 0, 0, 0)),
        ({"distortion_model": "plumb_bob", "k1": 0.1, "distance": 7.0}, "OPENCV", (0.1, 0, 0, 0)),
        ({"camera_model": "FOV", "omega": 0.7}, "FOV", (0.7,)),
        ({"camera_model": "DIVISION", "k": -0.1}, "DIVISION", (-0.1,)),
        ({"camera_model": "EUCM", "alpha": 0.5}, "EUCM", (0.5, 1)),
    ],
)
def test_a_model_keeps_all_its_parameters(keys: dict, model: str, params: tuple):
    lens = read(**keys)
    assert (lens.model, lens.params[:4], lens.params[4:]) == (model, (50, 50, 20, 15), params)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "p1": 0.05}, "p1 = 0.05 for a.png.*is read as OPENCV_FISHEYE"),
        ({"is_fisheye": 1, "k5": 0.1}, "k5 = 0.1"),
        ({"k1": 0.1, "s1": 0.01}, "s1 = 0.01"),
        ({"b1": 3.0}, "b1 = 3 for"),
        ({"k4": 0.1}, "OPENCV with k4 = 0.1.*name FULL_OPENCV"),
        ({"camera_model": "RADIAL_FISHEYE", "dist_coeffs": [0.1, 0, 0, 0]}, "'dist_coeffs' of 4"),
        ({"distortion": [0.1, 0.2, 0, 0, 0.3]}, "'distortion' of 5 numbers.*a key of its own"),
        ({"camera_model": "VR180_L"}, "camera model VR180_L.*as equirectangular panoramas"),
        ({"camera_model": "EQUIRECTANGULAR", "cx": 30}, "cx = 30 for the 360 photo a.png of 40 x 30"),
        ({"camera_model": "ORTHOPHOTO"}, "camera model ORTHOPHOTO"),
        ({"orthographic": True}, "camera model ORTHOGRAPHIC"),
        ({"ftheta_p0": 0.5}, "ftheta_p0 = 0.5"),
        ({"k1": "wide"}, "k1 in transforms.json is 'wide'"),
        ({"w": 0}, "w = 0"),
        ({"h": "inf"}, "h = inf"),
        ({"fl_x": None, "camera_angle_x": 69.4}, r"69\.4 radians.*If it is in degrees, write 1\.2113"),
        ({"fl_x": 0, "camera_angle_x": -1}, "-1 radians"),
        ({"fl_x": 0}, "no focal length for a.png"),
    ],
)
def test_what_a_model_cannot_hold_is_an_error(keys: dict, message: str):
    with pytest.raises(UserError, match=message):
        read(**keys)


def test_numbers_may_be_quoted_and_instant_ngp_has_keys_of_its_own():
    assert read(w="40.0", h="30", fl_x="50.5", k1="0.1").params[:5] == (50.5, 50.5, 20, 15, 0.1)
    assert np.isclose(read(fl_x=0, x_fov=90).params[0], 20)
    assert read(latlong=True, fl_x=None, w=60, camera_model=None).model == "EQUIRECTANGULAR"


def test_fx_and_width_are_read_where_nerfstudios_keys_are_not_there():
    other = {"width": 40, "height": 30, "fx": 50, "fy": 51, "cx": 20, "cy": 15}
    assert read_lens(other, Path("a.png"), Path("t.json")) == Lens("PINHOLE", (50.0, 51.0, 20.0, 15.0), 40, 30)
    assert read(fx=1, width=2).params[0] == 50
