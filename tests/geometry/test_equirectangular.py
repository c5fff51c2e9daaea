"""360 photos: the convention is pycolmap's, the faces of the cube cover everything, nothing shows at seam and poles."""

import math
from itertools import combinations

import numpy as np
import pytest

from difix3d.geometry.lens import intrinsics, project, sampling_map, undistorted
from difix3d.geometry.panorama import EQUIRECTANGULAR, FACES, PAD, continued
from difix3d.types import Lens


def lens_of(face: str, width: int = 800) -> Lens:
    return Lens(EQUIRECTANGULAR, (float(width), width / 2), width, width // 2, face)


@pytest.mark.parametrize("face", FACES)
def test_directions_lie_where_pycolmap_has_them(face):
    pycolmap = pytest.importorskip("pycolmap")
    if EQUIRECTANGULAR not in pycolmap.CameraModelId.__members__:
        pytest.skip("this pycolmap does not know 360 cameras")
    camera = pycolmap.Camera(model=EQUIRECTANGULAR, width=800, height=400, params=[800, 400])
    plane = np.random.default_rng(0).uniform(-1.1, 1.1, (200, 2))
    rays = np.concatenate([plane, np.ones((200, 1))], 1) @ FACES[face].T
    assert np.allclose(project(lens_of(face), plane), camera.img_from_cam(rays), atol=1e-6)


def test_faces_are_cameras_that_look_six_ways():
    for turn in FACES.values():
        assert np.array_equal(turn @ turn.T, np.eye(3))
        assert np.linalg.det(turn) == pytest.approx(1)
    ahead = {name: turn[:, 2].tolist() for name, turn in FACES.items()}
    assert (ahead["front"], ahead["right"], ahead["down"]) == ([0, 0, 1], [1, 0, 0], [0, 1, 0])
    assert all(np.dot(ahead[a], ahead[b]) < 0.5 for a, b in combinations(FACES, 2))


def test_faces_keep_the_pixels_per_radian_and_show_each_direction():
    fx, fy, cx, cy, width, height = undistorted(lens_of("left", 4000))
    assert (fx, fy, cx, cy) == intrinsics(lens_of("left", 4000))
    assert fx == fy == pytest.approx(4000 / (2 * math.pi))
    assert cx == cy == width / 2 == height / 2
    rays = np.random.default_rng(1).normal(size=(1000, 3))
    local = [rays @ turn for turn in FACES.values()]
    shown = [(z > 0) & (abs(fx * x / z) < cx + 0.5) & (abs(fy * y / z) < cy + 0.5) for x, y, z in (r.T for r in local)]
    assert np.any(shown, 0).all()  # but for half a pixel: sides are whole


def test_a_panorama_goes_on_behind_its_seam_and_over_its_poles():
    def pixel(row: int, column: int) -> list[float]:
        longitude, latitude = 2 * math.pi * ((column + 0.5) / 40 - 0.5), math.pi * ((row + 0.5) / 20 - 0.5)
        across = math.cos(latitude)
        return [across * math.sin(longitude), math.sin(latitude), across * math.cos(longitude)]

    image = np.array([[pixel(row, column) for column in range(40)] for row in range(20)])
    wider = np.array([[pixel(row, column) for column in range(-PAD, 40 + PAD)] for row in range(-PAD, 20 + PAD)])
    assert np.allclose(continued(image), wider)


@pytest.mark.parametrize("face", FACES)
def test_all_of_a_face_lies_in_the_photo(face):
    fx, fy, cx, cy, width, height = undistorted(lens_of(face))
    _, inside = sampling_map(lens_of(face), np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), width, height)
    assert inside.all()
