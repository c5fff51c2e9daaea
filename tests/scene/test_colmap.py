"""COLMAP models: equal to pycolmap's reading, and damaged files that pycolmap does not survive."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ring_scene import write_ring
from shared_data import require

from difix3d.errors import UserError
from difix3d.scene import load_scene
from difix3d.scene.candidates import candidates
from difix3d.scene.capture import Capture
from difix3d.scene.colmap import MODEL_IDS, PARAM_COUNTS, read_colmap

pycolmap = pytest.importorskip("pycolmap")


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_ring, tmp_path)


def read(folder: Path) -> Capture:
    return read_colmap(folder, candidates(folder)[0].place)


def assert_equals_pycolmap(folder: Path) -> None:
    ours, theirs = read(folder), pycolmap.Reconstruction(folder / "sparse" / "0")
    images = sorted(theirs.images.values(), key=lambda image: image.name)
    assert ours.names == [image.name for image in images]
    for image, c2w, lens in zip(images, ours.c2w, ours.lenses, strict=True):
        assert np.allclose(np.linalg.inv(c2w)[:3], image.cam_from_world().matrix(), atol=1e-9)
        camera = theirs.cameras[image.camera_id]
        assert (lens.model, lens.width, lens.height) == (camera.model.name, camera.width, camera.height)
        assert np.allclose(lens.params, camera.params)
    position = {image.image_id: i for i, image in enumerate(images)}
    expected = sorted(
        (*point.xyz, *point.color, *sorted({position[element.image_id] for element in point.track.elements}))
        for point in theirs.points3D.values()
    )
    photos: list[list[int]] = [[] for _ in ours.points]
    for point, photo in ours.observations.tolist():
        photos[point].append(photo)
    found = sorted((*xyz, *color, *seen) for xyz, color, seen in zip(ours.points, ours.colors, photos, strict=True))
    assert found == expected


def test_text_and_binary_equal_pycolmap(make_scene):
    folder = make_scene(camera="OPENCV 32 24 30 31 16 12 0.1 0.01 0.001 0.002")
    assert_equals_pycolmap(folder)
    model = folder / "sparse" / "0"
    reconstruction = pycolmap.Reconstruction(model)
    for text in model.glob("*.txt"):
        text.unlink()
    reconstruction.write_binary(model)
    assert_equals_pycolmap(folder)


@pytest.mark.real
@pytest.mark.parametrize("name", ["fox_opencv", "temple"])
def test_real_models_equal_pycolmap(shared: Path, name: str):
    assert_equals_pycolmap(require(shared / "scenes" / name))


def test_the_table_of_models_is_colmaps():
    for number, name in enumerate(MODEL_IDS):
        assert pycolmap.CameraModelId(number).name == name
        assert len(pycolmap.Camera.create_from_model_name(0, name, 1.0, 2, 2).params) == PARAM_COUNTS[name]


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0", "."])
def test_models_are_found_where_programs_put_them(make_scene, place: str):
    folder = make_scene()
    target = folder / place
    if place != "sparse/0":
        shutil.move(folder / "sparse" / "0", folder / "model")
        shutil.rmtree(folder / "sparse")
        target.mkdir(parents=True, exist_ok=True)
        for file in (folder / "model").iterdir():
            shutil.move(file, target / file.name)
    assert len(read(folder).names) == 10


@pytest.mark.parametrize("file", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
def test_truncated_binary_files_are_named(make_scene, file: str, share: float):
    folder = make_scene()
    model = folder / "sparse" / "0"
    pycolmap.Reconstruction(model).write_binary(model)
    path = model / f"{file}.bin"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=rf"{file}\.bin is (damaged: \d+ bytes|empty)"):
        read(folder)


@pytest.mark.parametrize("file", ["cameras", "images", "points3D"])
def test_broken_text_files_are_named(make_scene, file: str):
    folder = make_scene()
    path = folder / "sparse" / "0" / f"{file}.txt"
    path.write_text("1 2 three\n")
    with pytest.raises(UserError, match=rf"{file}\.txt is damaged"):
        read(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"has no {file}") if file != "images" else pytest.raises(IndexError):
        read(folder)


def test_models_of_lenses_are_named_if_colmap_has_none_such(make_scene):
    folder = make_scene()
    cameras = folder / "sparse" / "0" / "cameras.txt"
    good = cameras.read_text()
    cameras.write_text(good.replace("PINHOLE", "pinhole"))
    assert read(folder).lenses[0].model == "PINHOLE"
    cameras.write_text(good.replace("PINHOLE", "DOUBLE_SPHERE"))
    with pytest.raises(UserError, match=r"cameras\.txt: a camera has the model DOUBLE_SPHERE.*Undistort"):
        read(folder)
    cameras.write_text(good)
    model = cameras.parent
    pycolmap.Reconstruction(model).write_binary(model)
    data = bytearray((model / "cameras.bin").read_bytes())
    data[12] = 18
    (model / "cameras.bin").write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"cameras\.bin: a camera has the model number 18"):
        read(folder)


def test_an_image_without_its_camera_is_an_error(make_scene):
    folder = make_scene()
    cameras = folder / "sparse" / "0" / "cameras.txt"
    cameras.write_text(cameras.read_text().replace("1 PINHOLE", "2 PINHOLE"))
    with pytest.raises(UserError, match="the camera 1, which is not in the cameras file"):
        read(folder)


def image_lines(folder: Path) -> list[str]:
    return [
        line.rstrip() for line in (folder / "sparse" / "0" / "images.txt").read_text().split("\n")
        if line.endswith(".png")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "layout",
    [
        "{}",  # no keypoint lines at all
        "{}\n",
        "{}\n3.5 4 -1 7.25 8 3",
        "\n# a comment\n  {}\n\n\n",
        "{}\r\n\r",
    ],
)
def test_images_with_and_without_keypoint_lines(make_scene, layout: str):
    folder = make_scene()
    before = read(folder)
    lines = [line.replace("003.png", "my photo 3.png") for line in image_lines(folder)]
    text = "\n".join(layout.format(line) for line in lines)
    (folder / "sparse" / "0" / "images.txt").write_bytes(text.encode())
    after = read(folder)
    assert sorted(after.names) == sorted(name.replace("003.png", "my photo 3.png") for name in before.names)
    assert np.allclose(sorted(after.c2w[:, 0, 3]), sorted(before.c2w[:, 0, 3]))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_models_with_a_byte_order_mark(make_scene, encoding: str):
    folder = make_scene()
    names = read(folder).names
    for path in (folder / "sparse" / "0").iterdir():
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    assert read(folder).names == names


def test_points_that_only_a_ply_holds_and_numbers_with_a_point(make_scene):
    folder = make_scene()
    model = folder / "sparse" / "0"
    (model / "cameras.txt").write_text("1 PINHOLE 32.0 24.0 30 30 16 12\n")
    rows = (model / "points3D.txt").read_text().replace(" 200 100 ", " 200.0 100.0 ")
    (model / "points3D.txt").write_text(rows)
    assert read(folder).colors[0].tolist() == [200, 100, 0]
    (model / "points3D.txt").unlink()
    header = "ply\nformat ascii 1.0\nelement vertex 1\n" + "".join(f"property float {axis}\n" for axis in "xyz")
    colors = "".join(f"property uchar {color}\n" for color in ("red", "green", "blue"))
    (model / "points3D.ply").write_text(f"{header}{colors}end_header\n5 0 0 9 8 7\n")
    capture = read(folder)
    assert (capture.points.tolist(), capture.colors.tolist()) == ([[5, 0, 0]], [[9, 8, 7]])
    assert len(capture.observations) == 0


def test_what_is_wrong_with_a_model_is_not_called_damage(tmp_path: Path):
    folder = write_ring(tmp_path)
    model = folder / "sparse" / "0"
    whole = (model / "points3D.txt").read_text()
    (model / "points3D.txt").write_text(whole.replace(".", ","))
    with pytest.raises(UserError, match=r"points3D\.txt has decimal commas"):
        load_scene(folder)
    (model / "points3D.txt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="is a pointer of Git LFS, not the file.*git lfs pull"):
        load_scene(folder)
