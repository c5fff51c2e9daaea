"""``transforms.json`` in its dialects."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared_data import require

from difix3d.background import over
from difix3d.errors import UserError
from difix3d.scene import Views, load_scene
from difix3d.scene.transforms import read_transforms

IDENTITY = np.eye(4).tolist()


def pose(x: float) -> list[list[float]]:
    matrix = np.eye(4)
    matrix[0, 3] = x
    return matrix.tolist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.new("RGBA", (40, 30), (200, 100, 50, 0 if i == 0 else 255)).save(tmp_path / "images" / f"r_{i}.png")
    return tmp_path


def write(folder: Path, frames: list[dict] | None = None, name: str = "transforms.json", **meta) -> Path:
    frames = (
        [{"file_path": f"images/r_{i}.png", "transform_matrix": pose(i)} for i in range(3)]
        if frames is None
        else frames
    )
    (folder / name).write_text(json.dumps({**meta, "frames": frames}))
    return folder


def test_blender_needs_an_angle_only_and_no_extensions(folder: Path):
    for role, numbers in (("train", (0, 1)), ("test", (2,))):
        frames = [{"file_path": f"./images/r_{i}", "transform_matrix": pose(i)} for i in numbers]
        write(folder, frames, f"transforms_{role}.json", camera_angle_x=2 * np.arctan(0.5))
    scene = load_scene(folder, normalize=False)
    assert torch.allclose(scene.cameras.K[0], torch.tensor([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]]))
    assert (scene.train.tolist(), scene.test.tolist()) == ([0, 1], [2])
    assert torch.allclose(scene.cameras.c2w[1, :3, :3], torch.diag(torch.tensor([1.0, -1, -1])))  # OpenGL to OpenCV
    empty = Views(scene)[0]
    assert over(empty, torch.ones(3)).image.min() == 1
    assert empty.alpha is not None
    assert empty.alpha.max() == 0
    assert (Views(scene)[1].image[0, 0] * 255).round().tolist() == [200, 100, 50]


def test_a_frames_own_intrinsics_win(folder: Path):
    frames = [{"file_path": f"images/r_{i}.png", "transform_matrix": pose(i), "fl_x": 50 + i} for i in range(3)]
    scene = load_scene(write(folder, frames, w=40, h=30, fl_x=10, fl_y=60, cx=19, cy=16))
    assert scene.cameras.K[2].tolist() == [[52, 0, 19], [0, 60, 16], [0, 0, 1]]


def test_masks_and_points(folder: Path):
    Image.new("L", (40, 30), 0).save(folder / "m.png")
    frames = [{"file_path": f"images/r_{i}.png", "transform_matrix": pose(i), "mask_path": "m.png"} for i in range(3)]
    header = "ply\nformat ascii 1.0\nelement vertex 2\n" + "".join(f"property float {axis}\n" for axis in "xyz")
    colors = "".join(f"property uchar {color}\n" for color in ("red", "green", "blue"))
    (folder / "points.ply").write_text(f"{header}{colors}end_header\n1 2 -3 9 8 7\n0 0 -1 1 2 3\n")
    scene = load_scene(write(folder, frames, fl_x=50, ply_file_path="points.ply"), normalize=False)
    assert scene.points.tolist() == [[1, 2, -3], [0, 0, -1]]
    assert scene.colors[0].tolist() == [9, 8, 7]
    mask = Views(scene)[0].mask
    assert mask is not None
    assert not mask.any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"transforms\.json is broken at line 1, column 2"),
        ("[]", "A JSON object was expected"),
        ({"fl_x": 5}, "has no frames"),
        ({"fl_x": 5, "frames": [{"file_path": "a"}]}, "Frame 0 of 1 .* has no transform_matrix"),
        ({"fl_x": 5, "frames": [{"file_path": "images/r_0.png", "transform_matrix": [[1]]}]}, "no matrix of 4 x 4"),
        ({"frames": [{"file_path": "images/r_0.png", "transform_matrix": IDENTITY}]}, "no focal length for r_0.png"),
        ({"fl_x": 5, "frames": [{"file_path": "images/x.png", "transform_matrix": IDENTITY}]}, "1 of the 1 .*missing"),
        (
            {"fl_x": 5, "camera_model": "ORTHOPHOTO"}
            | {"frames": [{"file_path": "images/r_0.png", "transform_matrix": IDENTITY}]},
            "camera model ORTHOPHOTO",
        ),
        (
            {"fl_x": 5, "frames": [{"file_path": "images/r_0.png", "transform_matrix": IDENTITY}] * 2},
            "more than one pose",
        ),
        (
            {"fl_x": 5, "ply_file_path": "no.ply"}
            | {"frames": [{"file_path": "images/r_0.png", "transform_matrix": IDENTITY}]},
            r"There is no file .*no\.ply.*take them out of the scene",
        ),
    ],
)
def test_bad_files(folder: Path, content, message: str):
    (folder / "transforms.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=message):
        load_scene(folder)


def test_a_pose_that_is_not_rigid(folder: Path):
    shear = [np.array([[1, i, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]).tolist() for i in range(3)]
    frames = [{"file_path": f"images/r_{i}.png", "transform_matrix": shear[i]} for i in range(3)]
    with pytest.raises(UserError, match=r"2 of 3 photos .* not rigid, first r_1\.png"):
        load_scene(write(folder, frames, fl_x=50))


def test_works_without_pycolmap(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    assert Views(load_scene(write(folder, fl_x=50, k1=0.1)))[1].image.shape[2] == 3


@pytest.mark.real
def test_fox_has_the_same_cameras_as_its_colmap_model(shared: Path):
    """Up to a similarity and the calibration: principal points 3.6 pixels apart turn the cameras by 0.6 degrees."""
    folder = require(shared / "scenes" / "fox_opencv")
    a, b = load_scene(folder), load_scene(folder / "transforms.json", split="interpolation")
    assert [photo.name for photo in a.photos] == [photo.name for photo in b.photos]
    assert (len(b.train), len(b.test)) == (43, 7)
    x, y = (scene.cameras.centers.double().numpy() for scene in (a, b))
    x, y = x - x.mean(0), y - y.mean(0)
    u, stretch, vh = np.linalg.svd(y.T @ x)
    rotation = u @ vh
    scale = stretch.sum() / (x**2).sum()
    assert np.abs(scale * x @ rotation.T - y).max() < 0.005  # of the cameras' radius
    turned = torch.from_numpy(rotation) @ a.cameras.c2w[:, :3, :3].double()
    assert (turned - b.cameras.c2w[:, :3, :3].double()).abs().max() < 0.015


PLY = "ply\nformat ascii 1.0\nelement vertex 1\n" + "".join(f"property float {axis}\n" for axis in "xyz")
PLY += "".join(f"property uchar {color}\n" for color in ("red", "green", "blue")) + "end_header\n1 2 -3 9 8 7\n"


@pytest.mark.parametrize(
    "key", [{}, {"ply_file_path": "/home/me/scan/sparse_pc.ply"}, {"ply_file_path": ".\\sparse_pc.ply"}]
)
def test_points_of_another_computer_or_without_a_word(folder: Path, key: dict):
    (folder / "sparse_pc.ply").write_text(PLY)
    assert load_scene(write(folder, fl_x=50, **key), normalize=False).points.tolist() == [[1, 2, -3]]


@pytest.mark.parametrize(
    "called",
    [
        "r_{}.png",
        "images/r_{}.jpg",
        "images\\r_{}.png",
        "/home/me/scan/images/r_{}.png",
        "C:\\scan\\images\\R_{}.PNG",
        "r_{}",
    ],
)
def test_photos_are_found_by_paths_of_other_computers(folder: Path, called: str):
    frames = [{"file_path": called.format(i), "transform_matrix": pose(i)} for i in range(3)]
    scene = load_scene(write(folder, frames, fl_x=50))
    assert [photo.path for photo in scene.photos] == [folder / "images" / f"r_{i}.png" for i in range(3)]
    assert [photo.name for photo in scene.photos] == [f"r_{i}.png" for i in range(3)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_with_a_byte_order_mark(folder: Path, encoding: str):
    path = write(folder, fl_x=50) / "transforms.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert len(load_scene(folder).photos) == 3


def test_a_file_in_a_sub_folder_finds_the_photos_above(folder: Path):
    write(folder, fl_x=50)
    (folder / "nerfstudio").mkdir()
    (folder / "transforms.json").rename(folder / "nerfstudio" / "transforms.json")
    assert load_scene(folder).photos[2].path == folder / "images" / "r_2.png"


def _read(folder: Path):
    return read_transforms({"": folder / "transforms.json"})


def test_ten_thousand_frames(tmp_path):
    """One by one, lenses and poses of 120,000 frames took a minute; a name that stands there twice is told at once."""
    frames = [{"file_path": f"images/r_{i}.png", "transform_matrix": pose(i)} for i in range(10_000)]
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (40, 30)).save(images / "r_0.png")
    for i in range(1, 10_000):
        (images / f"r_{i}.png").symlink_to(images / "r_0.png")
    start = time.process_time()
    capture = _read(write(tmp_path, frames, w=40, h=30, fl_x=5))
    assert capture.names[7] == "r_1003.png"
    assert capture.c2w[7, 0, 3] == 1003
    assert len(set(map(id, capture.lenses))) == 1
    assert time.process_time() - start < 4
    write(tmp_path, [{"file_path": "images/r_0.png", "transform_matrix": IDENTITY}] * 10_000, w=40, h=30, fl_x=5)
    start = time.process_time()
    with pytest.raises(UserError, match=r"more than one pose for images/r_0\.png"):
        load_scene(tmp_path)
    assert time.process_time() - start < 2


def test_poses_together_are_those_one_by_one(folder: Path):
    """Some programs leave the last row out of some of them, or write numbers in quotes."""
    matrices = [pose(1), [["1", "0", "0", "2"], *pose(0)[1:]], pose(3)]
    names = [f"images/r_{i}.png" for i in range(3)]
    frames = [{"file_path": name, "transform_matrix": m} for name, m in zip(names, matrices, strict=True)]
    together = _read(write(folder, frames, fl_x=5))
    frames[2]["transform_matrix"] = pose(3)[:3]
    one_by_one = _read(write(folder, frames, fl_x=5))
    assert together.c2w[:, 0, 3].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(together.c2w, one_by_one.c2w)


def test_frames_with_lenses_of_their_own(folder: Path):
    frames = [{"file_path": f"images/r_{i}.png", "transform_matrix": pose(i), "fl_x": 5 + i % 2} for i in range(3)]
    assert [lens.params[0] for lens in _read(write(folder, frames)).lenses] == [5, 6, 5]
