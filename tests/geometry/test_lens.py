"""Camera models against pycolmap, and undistortion."""

import numpy as np
import pytest

from difix3d.errors import UserError
from difix3d.geometry.lens import MODELS, PARAMETERS, intrinsics, is_pinhole, project, sampling_map, undistorted
from difix3d.types import Lens

VALUES = {"f": 300.0, "fx": 300.0, "fy": 310.0, "cx": 205.0, "cy": 148.0}
VALUES |= {"k1": -0.11, "k2": 0.03, "k3": 0.01, "k4": -0.02, "k5": 0.01, "k6": 0.005, "p1": 0.002, "p2": -0.003}


def make(model: str, *params: float, width: int = 400, height: int = 300) -> Lens:
    return Lens(model, tuple(map(float, params)), width, height)


def lens_of(model: str) -> Lens:
    return make(model, *(VALUES[name] for name in MODELS[model].split()))


OTHERS = [
    make("FOV", 300, 310, 205, 148, 0.7),
    make("THIN_PRISM_FISHEYE", 300, 310, 205, 148, 0.01, 0.02, 0.001, 0.002, 0.01, 0, 0.001, 0),
    make("RAD_TAN_THIN_PRISM_FISHEYE", 300, 310, 205, 148, 0.01, 0.02, 0, 0.01, 0, 0, 0.001, 0.002, 0.001, 0, 0, 0.001),
    make("SIMPLE_DIVISION", 300, 205, 148, -0.1),
    make("DIVISION", 300, 310, 205, 148, -0.1),
    make("EUCM", 300, 310, 205, 148, 0.5, 1.1),
]
LENSES = [*map(lens_of, MODELS), *OTHERS]


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens.model)
def test_projection_equals_pycolmap(lens):
    pycolmap = pytest.importorskip("pycolmap")
    try:
        camera = pycolmap.Camera(model=lens.model, width=400, height=300, params=list(lens.params))
    except (KeyError, ValueError, RuntimeError):
        pytest.skip(f"this pycolmap does not know {lens.model}")
    plane = np.random.default_rng(0).uniform(-0.6, 0.6, (100, 2))
    expected = camera.img_from_cam(np.concatenate([plane, np.ones((100, 1))], 1))
    assert np.allclose(project(lens, plane), expected, atol=1e-6)


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens.model)
def test_undistorted_has_no_blank_pixels_and_wastes_few(lens):
    fx, fy, cx, cy, width, height = undistorted(lens)
    assert (fx, fy) == intrinsics(lens)[:2]
    where, inside = sampling_map(lens, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), width, height)
    assert inside.all()
    border = np.concatenate([where[0], where[-1], where[:, 0], where[:, -1]])
    edge = np.minimum(border, 1 - border).min()
    assert -0.01 < edge < 0.01  # somewhere the border of the photo is touched


def test_every_model_of_colmap_has_colmaps_parameters():
    pycolmap = pytest.importorskip("pycolmap")
    for model, params in PARAMETERS.items():
        names = pycolmap.Camera.create_from_model_name(0, model, 100.0, 200, 100).params_info.split(", ")
        if "SIMPLE_RADIAL" in model:
            names[3] = "k1"  # COLMAP's k
        assert params.split() == names


def test_a_lens_without_distortion_is_a_pinhole():
    assert is_pinhole(make("OPENCV", 300, 300, 200, 150, 0, 0, 0, 0))
    assert not is_pinhole(lens_of("SIMPLE_RADIAL"))
    assert not is_pinhole(lens_of("SIMPLE_FISHEYE"))
    assert undistorted(lens_of("PINHOLE")) == (300, 310, 205, 148, 400, 300)


def test_a_fisheye_is_cut_at_twice_its_size():
    lens = make("OPENCV_FISHEYE", 150, 150, 300, 300, 0, 0, 0, 0, width=600, height=600)  # 229 degrees
    assert undistorted(lens)[4:] == (1200, 1200)


def test_impossible_lenses_are_refused():
    with pytest.raises(UserError, match="cannot be undistorted"):
        undistorted(make("SIMPLE_RADIAL", 300, 4000, 150, 0.1))
    with pytest.raises(UserError, match="unknown to pycolmap"):
        intrinsics(make("MAGIC", 1))
