"""Camera models against pycolmap, and undistortion."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difix3d.errors import UserError
from difix3d.geometry.lens import PARAMETERS, intrinsics, is_pinhole, project, sampling_map, undistorted
from difix3d.scene.views import decode
from difix3d.types import Cameras, Lens, Photo

VALUES = {"f": 300.0, "fx": 300.0, "fy": 310.0, "cx": 205.0, "cy": 148.0}
VALUES |= {"k1": -0.11, "k2": 0.03, "k3": 0.01, "k4": -0.02, "k5": 0.01, "k6": 0.005, "p1": 0.002, "p2": -0.003}
VALUES |= {"omega": 0.7, "k": -0.1, "alpha": 0.5, "beta": 1.1, "sx1": 0.01, "sy1": -0.003}
VALUES |= {"k0": 0.01, "p0": 0.001, "s0": 0.001, "s1": 0.002, "s2": -0.001, "s3": 0.001}


def make(model: str, *params: float, width: int = 400, height: int = 300) -> Lens:
    return Lens(model, tuple(map(float, params)), width, height)


def lens_of(model: str) -> Lens:
    return make(model, *(VALUES[name] for name in PARAMETERS[model].split()))


LENSES = [*map(lens_of, PARAMETERS)]


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
def test_photos_are_undistorted_as_by_pycolmap(lens, tmp_path: Path):
    """Its samples are bilinear and ours bicubic, hence a photo without fine detail."""
    pycolmap = pytest.importorskip("pycolmap")
    x, y = np.meshgrid(np.arange(400), np.arange(300))
    waves = [np.sin(x / 23) * np.cos(y / 31), np.cos(x / 37 + y / 29), x / 200 - 1]
    photo = (127.5 + 127 * np.stack(waves, -1)).round().astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    camera = pycolmap.Camera(model=lens.model, width=400, height=300, params=list(lens.params))
    bitmap, pinhole = pycolmap.undistort_image(
        pycolmap.UndistortCameraOptions(), pycolmap.Bitmap.from_array(photo), camera
    )
    K = torch.from_numpy(pinhole.calibration_matrix()).float()[None]
    ours = Cameras(torch.eye(4)[None], K, torch.tensor([pinhole.width]), torch.tensor([pinhole.height]))
    image = decode(Photo("photo.png", tmp_path / "photo.png", lens), ours)[0].numpy()[..., :3]
    difference = np.abs(image.astype(float) - bitmap.to_array())[2:-2, 2:-2]
    assert difference.mean() < 0.33
    assert difference.max() <= 2


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
