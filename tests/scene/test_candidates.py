"""Several descriptions of a scene's cameras: which is found, which is taken, what is said."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ring_scene import CAMERA, ring, write_model, write_photos, write_ring

from difix3d.errors import UserError
from difix3d.scene import load_scene

NAMES = [f"{i:03d}.png" for i in range(10)]
DISTORTED = "OPENCV 32 24 30 30 16 12 0.01 0 0 0"


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_ring, tmp_path)


def names(folder: Path, **options) -> list[str]:
    return [photo.name for photo in load_scene(folder, **options).photos]


def write_transforms(folder: Path, photos: list[str], **meta) -> None:
    """The ring's cameras as nerfstudio has them: turned by 90 degrees, OpenGL axes."""
    turn = np.array([[0, 1, 0, 0], [-1, 0, 0, 2], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": (turn @ ring(10)[NAMES.index(name)] @ FLIP).tolist()}
        for name in photos
    ]
    meta = {"w": 32, "h": 24, "fl_x": 30, "fl_y": 30, "cx": 16, "cy": 12, **meta}
    (folder / "transforms.json").write_text(json.dumps({**meta, "frames": frames}))


FLIP = np.diag([1.0, -1, -1, 1])


def test_the_model_with_the_most_photos_is_taken_and_any_can_be_chosen(make_scene, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    write_model(folder / "sparse" / "0", NAMES[:3], CAMERA)
    write_model(folder / "sparse" / "1", NAMES[1:], CAMERA)
    write_model(folder / "sparse" / "10", NAMES[:2], CAMERA)
    assert names(folder) == NAMES[1:]
    assert (
        "from sparse/1 (9 photos): the most photos; not from sparse/0 (3), sparse/10 (2). --model PATH" in caplog.text
    )
    assert "1 of 10 photos have no camera, and are not used: 000.png" in caplog.text
    for model in ("sparse/0", str(folder / "sparse" / "0"), folder / "sparse" / "0" / "images.txt"):
        assert names(folder, model=model) == NAMES[:3]
    assert names(folder, model="sparse") == NAMES[1:]
    with pytest.raises(UserError, match=r"There is no model sparse/7.*There is sparse/0, sparse/1, sparse/10"):
        load_scene(folder, model="sparse/7")
    with pytest.raises(UserError, match="images holds no cameras"):
        load_scene(folder, model="images")


def test_photos_count_that_are_there(make_scene):
    folder = make_scene()
    write_model(folder / "sparse" / "0", [f"gone_{name}" for name in NAMES] + NAMES[:2], CAMERA)
    write_model(folder / "sparse" / "1", NAMES[:4], CAMERA)
    assert names(folder) == NAMES[:4]


@pytest.mark.parametrize(
    "place",
    ["sparse/1", "sparse_text", "distorted/sparse/0", "colmap/sparse/2", "colmap", "dense/0/sparse", "dense/sparse/0",
     "undistorted/sparse", "colmap/dense/0/sparse", "sfm/0", "mine/sparse/0", "scan 7/undistorted/sparse"],
)  # fmt: skip
def test_models_are_found_where_programs_leave_them(make_scene, place: str):
    folder = make_scene()
    target = folder / place
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder / "sparse" / "0", target)
    scene = load_scene(folder)
    assert len(scene.photos) == 10
    assert scene.photos[0].path == folder / "images" / "000.png"


def test_an_undistorted_workspace_has_photos_of_its_own_and_wins_a_tie(make_scene, caplog: pytest.LogCaptureFixture):
    folder = make_scene(camera=DISTORTED)
    write_photos(folder / "dense" / "0" / "images", 10, (16, 12))
    write_model(folder / "dense" / "0" / "sparse", NAMES, "PINHOLE 16 12 15 15 8 6")
    scene = load_scene(folder)
    assert scene.photos[0].path == folder / "dense" / "0" / "images" / "000.png"
    assert scene.cameras.size == (16, 12)
    assert "dense/0/sparse (10 photos): its photos are undistorted; not from sparse/0 (10)" in caplog.text
    assert load_scene(folder, model="sparse/0").photos[0].lens is not None
    assert load_scene(folder, model="dense/0").photos[0].path == scene.photos[0].path


def test_3dgs_leaves_the_photos_of_the_distorted_model_in_input(make_scene):
    folder = make_scene(8)
    write_photos(folder / "input", 10, (40, 30))
    write_model(folder / "distorted" / "sparse" / "0", NAMES, "OPENCV 40 30 38 38 20 15 0.01 0 0 0")
    assert load_scene(folder).photos[0].path == folder / "input" / "000.png"
    write_model(folder / "sparse" / "0", NAMES, CAMERA)
    write_photos(folder / "images", 10)
    assert load_scene(folder).photos[0].path == folder / "images" / "000.png"


@pytest.mark.parametrize("damage", ["images.txt", "points3D.txt", "cameras.txt"])
def test_a_damaged_model_is_left_out_beside_a_good_one(make_scene, damage: str, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    write_model(folder / "sparse" / "1", NAMES[:5], CAMERA)
    (folder / "sparse" / "0" / damage).write_text("1 2 three\n")
    assert names(folder) == NAMES[:5]
    assert f"left out, as there are other cameras: {folder / 'sparse' / '0' / damage} is damaged" in caplog.text
    with pytest.raises(UserError, match="is damaged"):
        load_scene(folder, model="sparse/0")


def test_nerfstudios_file_is_taken_with_the_points_of_the_model_it_was_made_of(make_scene, caplog):
    folder = make_scene()
    (folder / "colmap").mkdir()
    shutil.move(folder / "sparse", folder / "colmap" / "sparse")
    model = load_scene(folder, normalize=False, split="none")
    write_transforms(folder, NAMES)
    scene = load_scene(folder, normalize=False, split="none")
    assert "from transforms.json (10 photos): the usual place; not from colmap/sparse/0 (10)" in caplog.text
    assert np.array_equal(scene.observations, model.observations)
    for ours, theirs in ((scene, model),):
        local = [
            s.cameras.w2c[4, :3, :3].numpy() @ s.points.T + s.cameras.w2c[4, :3, 3:].numpy() for s in (ours, theirs)
        ]
        assert np.allclose(*local, atol=1e-5)
    for source, chosen in ((folder, "transforms.json"), (folder / "transforms.json", None)):
        same = load_scene(source, model=chosen, normalize=False, split="none")
        assert np.array_equal(same.observations, model.observations)
    write_transforms(folder, NAMES[2:8])  # frames that somebody took out
    assert names(folder, model="transforms.json") == NAMES[2:8]
    assert names(folder) == NAMES


def test_a_folder_of_scenes_is_no_scene(make_scene, tmp_path: Path):
    for name in ("garden", "kitchen"):
        shutil.copytree(make_scene(), tmp_path / "data" / name)
    with pytest.raises(UserError, match=r"holds 2 scenes: garden, kitchen\. .*Give one of them"):
        load_scene(tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "kitchen")
    assert names(tmp_path / "data") == NAMES


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_scene_in_folders_of_an_archive_is_found(make_scene, tmp_path: Path, depth: int):
    around = tmp_path / "data" / "/".join("abc"[: depth - 1])
    shutil.copytree(make_scene(), around / "garden")
    assert names(tmp_path / "data") == NAMES
    shutil.copytree(make_scene(), around / "kitchen")
    with pytest.raises(UserError, match=r"holds 2 scenes: .*garden, .*kitchen\. "):
        load_scene(tmp_path / "data")


@pytest.mark.parametrize("called", ["transforms_undistorted.json", "transforms_all.json"])
def test_a_transforms_file_of_another_name_is_found(tmp_path: Path, called: str):
    write_photos(tmp_path / "images", 10)
    write_transforms(tmp_path, NAMES)
    (tmp_path / "transforms.json").rename(tmp_path / called)
    assert names(tmp_path) == NAMES
    write_transforms(tmp_path, NAMES[:4])
    (tmp_path / "transforms_normalize.json").write_text('{"scale": 1}')
    assert names(tmp_path) == NAMES


def test_the_models_own_folder_can_be_given(make_scene):
    folder = make_scene()
    assert names(folder / "sparse" / "0") == NAMES
    assert names(folder / "sparse") == NAMES


def test_cameras_without_photos_are_left_out_if_they_are_few(make_scene, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    for name in NAMES[:4]:
        (folder / "images" / name).unlink()
    scene = load_scene(folder, split="none")
    assert [photo.name for photo in scene.photos] == NAMES[4:]
    assert len(scene.points) == 3
    assert "4 of 10 photos are missing, and are left out: 000.png, 001.png, 002.png and more" in caplog.text


def test_other_files_beside_photos(make_scene, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    for name in ("x_mask.png", "mask_y.png", "._002.png", "notes.txt", "r_0_depth_0001.png"):
        (folder / "images" / name).write_bytes(b"x")
    for name in (
        "a.CR2",
        "b.cr2",
        "c.dng",
        "001.tif",
        "005.HEIC",
        "006.jp2",
    ):  # the last three are known photos in other formats
        (folder / "images" / name).write_bytes(b"x")
    (folder / "images" / "masks").mkdir()
    Image.new("L", (32, 24)).save(folder / "images" / "masks" / "x.png")
    load_scene(folder)
    assert [message.removeprefix(f"{folder}: ") for message in caplog.messages] == [
        f"{count} {kind} beside the photos: a kind that is not read" for count, kind in ((2, ".cr2"), (1, ".dng"))
    ]


def test_the_photos_folder_can_be_given(make_scene, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    assert load_scene(folder / "images").photos[0].path == folder / "images" / "000.png"
    assert "those beside it" in caplog.text
    write_photos(folder / "images_2", 10, (16, 12))
    assert len(load_scene(folder / "images_2").photos) == 10
