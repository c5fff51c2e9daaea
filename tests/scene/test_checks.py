"""Cameras of every kind of wrongness: put right with a word, or refused with the cure."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ring_scene import HEIGHT, WIDTH, ring, write_photos, write_ring

from difix3d.errors import UserError
from difix3d.scene import load_scene

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
META = {"w": WIDTH, "h": HEIGHT, "fl_x": 30.0, "cx": 16.0, "cy": 12.0}
POINTS = np.random.default_rng(0).normal((5, 0, 0), 0.3, (50, 3))

Matrices = np.ndarray
Words = pytest.LogCaptureFixture


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    return partial(_write, tmp_path / "scene")


def _write(folder: Path, matrices: Matrices | None = None, points: np.ndarray | None = POINTS, **meta) -> Path:
    """A transforms.json of a ring of ten cameras; ``None`` among the keys takes one out."""
    matrices = ring(10) @ OPENGL if matrices is None else matrices
    names = write_photos(folder / "images", len(matrices))
    frames = [
        {"file_path": f"images/{n}", "transform_matrix": m.tolist()} for n, m in zip(names, matrices, strict=True)
    ]
    content = {key: value for key, value in {**META, **meta, "frames": frames}.items() if value is not None}
    if points is not None:
        content["ply_file_path"] = "points.ply"
        keys = [f"property float {axis}\n" for axis in "xyz"]
        keys += [f"property uchar {color}\n" for color in ("red", "green", "blue")]
        rows = "\n".join(" ".join(map(str, row)) + " 9 99 200" for row in points)
        header = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n{''.join(keys)}end_header\n"
        (folder / "points.ply").write_text(header + rows + "\n")
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def with_outliers(*distances: float) -> Matrices:
    matrices = ring(12) @ OPENGL
    for i, distance in enumerate(distances):
        matrices[3 + i, 0, 3] += distance
    return matrices


def radius_of_the_good(scene, bad: int) -> float:
    centers = np.delete(scene.cameras.centers.numpy(), np.arange(3, 3 + bad), 0)
    return float(np.linalg.norm(centers - centers.mean(0), axis=1).max())


def test_good_cameras_need_no_word(write, caplog: Words):
    load_scene(write())
    assert caplog.text == ""


@pytest.mark.parametrize("distances", [(1e4,), (1e4, -1e5), (1e9,)])
def test_cameras_far_off_do_not_shrink_the_others_and_are_not_used(write, caplog: Words, distances: tuple):
    scene = load_scene(write(with_outliers(*distances)), split="none")
    assert 0.8 < radius_of_the_good(scene, len(distances)) < 1.5
    assert scene.extent < 2
    assert len(scene.train) == 12 - len(distances)
    assert not {3, 4} & set(scene.train.tolist()) or len(distances) == 1
    assert caplog.text.count("far off") == 1
    assert f"{len(distances)} of 12 cameras stand far off" in caplog.text
    assert "not used" in caplog.text


def test_a_camera_rather_far_off_is_used_but_does_not_count(write, caplog: Words):
    scene = load_scene(write(with_outliers(100)), split="none")
    assert radius_of_the_good(scene, 1) > 0.8
    assert scene.extent < 2
    assert len(scene.train) == 12
    assert "1 of 12 cameras stand far off, 003.png first" in caplog.text
    assert "not counted for the size" in caplog.text


def test_three_photos_and_one_far_off_in_a_colmap_model(tmp_path: Path, caplog: Words):
    folder = write_ring(tmp_path, 3)
    images = folder / "sparse" / "0" / "images.txt"
    lines = images.read_text().split("\n")
    row = next(i for i, line in enumerate(lines) if line.endswith("002.png"))
    words = lines[row].split()
    words[5] = "50000"
    lines[row] = " ".join(words)
    images.write_text("\n".join(lines))
    scene = load_scene(folder, split="none")
    assert scene.train.tolist() == [0, 1]
    assert np.ptp(scene.cameras.centers[:2].numpy(), axis=0).max() > 0.1
    assert "002.png first" in caplog.text
    (folder / "split.json").write_text(json.dumps({"train": ["002.png"], "eval": ["001.png"]}))
    with pytest.raises(UserError, match=r"no other photo is trained on, first 002\.png"):
        load_scene(folder)


def test_cameras_in_one_place_identical_poses_and_two_photos(write, caplog: Words):
    still = np.tile(ring(1) @ OPENGL, (8, 1, 1))
    assert len(load_scene(write(still), split="none").train) == 8
    still[-1, :3, 3] += 0.5  # one is moved; the points tell that this is not far
    scene = load_scene(write(still), split="none")
    assert len(scene.train) == 8
    assert np.isfinite(scene.cameras.c2w.numpy()).all()
    assert len(load_scene(write(ring(2) @ OPENGL), split="none").train) == 2
    assert "far off" not in caplog.text


@pytest.mark.parametrize("side", ["left", "right"])
def test_mirrored_poses_are_refused_with_the_cure(write, side: str):
    mirror = np.diag([1.0, 1, -1, 1])
    matrices = ring(10) @ OPENGL
    matrices[4:] = mirror @ matrices[4:] if side == "left" else matrices[4:] @ mirror
    with pytest.raises(UserError, match=r"6 of 10 photos .* mirrored pose \(determinant -1\), first 004.*Unity"):
        load_scene(write(matrices))


def test_a_scale_in_the_rotations_is_taken_out(write, caplog: Words):
    expected = load_scene(write(), normalize=False).cameras.c2w
    matrices = ring(10) @ OPENGL
    matrices[:, :3, :3] *= 2.5
    scene = load_scene(write(matrices), normalize=False)
    assert np.allclose(scene.cameras.c2w, expected, atol=1e-5)
    assert "10 of 10 poses have a scale in their rotation, first 000.png by 2.5" in caplog.text
    caplog.clear()
    assert np.allclose(load_scene(write(3 * (ring(10) @ OPENGL)), normalize=False).cameras.c2w, expected, atol=1e-5)
    assert caplog.text == ""  # a matrix and its multiple are one in homogeneous coordinates


def test_a_transposed_matrix_is_named(write):
    with pytest.raises(UserError, match=r"images/000\.png .* has the last row .*Transpose the matrix"):
        load_scene(write((ring(10) @ OPENGL).transpose(0, 2, 1)))
    matrices = ring(10) @ OPENGL
    matrices[:, 3, 3] = 0
    with pytest.raises(UserError, match="has the last row"):
        load_scene(write(matrices))


@pytest.mark.parametrize("times", [2, 4, 8, 0.5, 2.52])
@pytest.mark.parametrize("sized", [True, False])
def test_intrinsics_of_photos_of_another_size(write, caplog: Words, times: float, sized: bool):
    sizes = {} if sized else {"w": None, "h": None}
    scene = load_scene(write(fl_x=30.0 * times, cx=16.3 * times, cy=11.8 * times, **sizes))
    exact = times != 2.52  # no usual one: taken from the principal point, which is not quite the middle
    assert np.allclose(scene.cameras.K[0], [[30, 0, 16.3], [0, 30, 11.8], [0, 0, 1]], atol=1e-4 if exact else 0.1)
    assert f"at {times if exact else 2.52:.3g} times the middle of the photos" in caplog.text


def test_tiles_of_large_photos_are_no_photos_of_another_size(write, caplog: Words):
    folder = write()
    content = json.loads((folder / "transforms.json").read_text())
    for frame, (cx, cy) in zip(content["frames"], [(32, 24), (0, 24), (32, 0), (0, 0)] * 3, strict=False):
        frame |= {"cx": cx, "cy": cy}
    (folder / "transforms.json").write_text(json.dumps(content))
    assert load_scene(folder).cameras.K[1, :2, 2].tolist() == [0, 24]
    assert "lie at the edge or outside" in caplog.text


def test_principal_points_at_the_edge_get_a_word_only(write, caplog: Words):
    scene = load_scene(write(cx=0.5, cy=0.5))
    assert scene.cameras.K[0, 0, 2] == 0.5
    assert "10 of 10 photos lie at the edge or outside, first 000.png" in caplog.text
    caplog.clear()
    load_scene(write(cx=12.0, cy=17.0))  # off the middle, as of photos that were cut to a part
    assert caplog.text == ""


@pytest.mark.parametrize("focal", [-30.0, 0.8, 1e-9])
def test_focal_lengths_that_no_camera_has(write, focal: float):
    with pytest.raises(UserError, match=r"000\.png .* focal length of .*pixels"):
        load_scene(write(fl_x=focal))


def test_distortion_that_leaves_little_of_the_photos_gets_a_word(write, caplog: Words):
    load_scene(write(k1=-0.05))
    assert caplog.text == ""
    load_scene(write(k1=40.0))
    assert re.search("10 of 10 photos keep less than 60 % of their width .* first 000.png", caplog.text)


def test_a_wide_fisheye_is_no_mistake(write):
    assert load_scene(write(fl_x=8.0, camera_model="OPENCV_FISHEYE")).photos[0].lens is not None


def test_poses_in_opencvs_axes_are_turned_if_the_points_say_so(write, caplog: Words):
    expected = load_scene(write(), normalize=False).cameras.c2w
    scene = load_scene(write(ring(10)), normalize=False)
    assert np.allclose(scene.cameras.c2w, expected)
    assert "seem to be in OpenCV's axes" in caplog.text
    caplog.clear()
    load_scene(write(ring(10), points=None))  # without points nothing tells
    assert "OpenCV" not in caplog.text


AWAY = np.array([0.0, 40.0, 0.0])
MOVED = ring(10) @ OPENGL
MOVED[:, :3, 3] += AWAY


@pytest.mark.parametrize(
    ("matrices", "points", "message"),
    [
        (np.linalg.inv(ring(10) @ OPENGL), POINTS, "seem to go from world to camera"),
        (np.linalg.inv(ring(10)), POINTS, "seem to go from world to camera"),
        (MOVED, (POINTS + AWAY)[:, [0, 2, 1]] * [1, -1, 1], "world with other axes"),
        (MOVED, (POINTS + AWAY)[:, [0, 2, 1]] * [1, 1, -1], "world with other axes"),
        (MOVED, POINTS + 3 * AWAY[[0, 2, 1]], "poses, points or focal lengths are wrong"),
    ],
)
def test_points_that_no_photo_sees_get_a_word(write, caplog: Words, matrices, points, message: str):
    load_scene(write(matrices, points))
    assert re.search(r" \d+ % of the points are in view of any photo", caplog.text)
    assert message in caplog.text
