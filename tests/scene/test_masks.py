"""Masks by the names and in the folders that programs give them."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from ring_scene import write_photos, write_ring

from difix3d.errors import UserError
from difix3d.images import read_mask
from difix3d.scene import Views, load_scene


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_ring, tmp_path)


def write_mask(path: Path, white: int = 255, size: tuple[int, int] = (32, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size)
    mask.paste(white, (size[0] // 2, 0, *size))
    mask.save(path)


@pytest.mark.parametrize(
    "called",
    [
        "masks/{}.png.png",
        "masks/{}.png",
        "masks/{}.jpg",
        "masks/{}.PNG",
        "mask/{}.png",
        "Masks/{}.png",
        "images_masks/{}.png",
        "image_masks/{}.png",
        "resized_anon_masks/{}.png",
        "masks_2/{}.png",
        "masks/{}_mask.png",
        "masks/mask_{}.png",
        "masks/{}.png.mask.png",
        "masks/scan 1/{}.png",
        "images/{}_mask.png",
        "images/{}.png.mask.png",
        "images/masks/{}.png",
        "masks/{}.tif",
    ],
)
def test_masks_of_usual_names(make_scene, called: str, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    for i in range(10):
        write_mask(folder / called.format(f"{i:03d}"))
    scene = load_scene(folder)
    assert [photo.mask for photo in scene.photos] == [folder / called.format(f"{i:03d}") for i in range(10)]
    assert caplog.messages == []


def test_the_exact_name_goes_first_and_full_size_too(make_scene):
    folder = make_scene()
    for name in ("masks/000.png.png", "masks_2/000.png.png", "masks_2/001.png"):
        write_mask(folder / name)
    assert [photo.mask and photo.mask.relative_to(folder).as_posix() for photo in load_scene(folder).photos[:3]] == [
        "masks/000.png.png",
        "masks_2/001.png",
        None,
    ]


def test_photos_without_a_mask_are_counted(make_scene, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    for i in range(4):
        write_mask(folder / "masks" / f"{i:03d}.png")
    load_scene(folder)
    assert "4 of 10 photos have a mask; of the others all pixels count" in caplog.text


def test_masks_that_fit_nothing_are_an_error(make_scene):
    folder = make_scene()
    for i in range(10):
        write_mask(folder / "masks" / f"frame_{i}.png")
    with pytest.raises(
        UserError,
        match=r"None of the 10 masks in .*masks belongs to a photo, first frame_0\.png.*000\.png\.png, or 000\.png",
    ):
        load_scene(folder)


@pytest.mark.parametrize("given", ["masks/m_{}.png", "masks\\m_{}.png", "/home/me/scan/masks/m_{}.png", None])
def test_masks_of_transforms(tmp_path: Path, given: str | None):
    names = write_photos(tmp_path / "images", 3)
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": [[1, 0, 0, i], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}
        | ({"mask_path": given.format(i)} if given else {})
        for i, name in enumerate(names)
    ]
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 30, "frames": frames}))
    for i in range(3):
        write_mask(tmp_path / "masks" / (f"m_{i}.png" if given else f"{i:03d}.png"))
    masks = [photo.mask for photo in load_scene(tmp_path).photos]
    assert [mask and mask.name for mask in masks] == [f"m_{i}.png" if given else f"{i:03d}.png" for i in range(3)]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_lossy_masks_have_sharp_edges(tmp_path: Path, suffix: str):
    path = tmp_path / f"m{suffix}"
    write_mask(path, size=(64, 48))
    mask = read_mask(path)
    assert not mask[:, :32].any()
    assert mask[:, 32:].all()
    if suffix == ".png":
        write_mask(path, white=1)
        assert read_mask(path).sum() == 16 * 24


def test_masks_of_half_the_size_are_enlarged(make_scene):
    folder = make_scene()
    for i in range(10):
        write_mask(folder / "masks" / f"{i:03d}.png", size=(16, 12))
    mask = Views(load_scene(folder))[2].mask
    assert mask is not None
    assert mask[:, :16].sum() == 0
    assert mask[:, 16:].all()


def test_masks_that_are_named_and_missing(tmp_path: Path):
    frames = [
        {"file_path": f"images/{name}", "mask_path": f"m/{name}"}
        | {"transform_matrix": [[1, 0, 0, i], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}
        for i, name in enumerate(write_photos(tmp_path / "images", 3))
    ]
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 30, "frames": frames}))
    with pytest.raises(UserError, match=r"3 of the masks that the cameras' file names are missing, first .*m/000\.png"):
        load_scene(tmp_path)


def test_scannetpp_has_cameras_photos_and_masks_in_folders_side_by_side(tmp_path: Path):
    dslr = tmp_path / "dslr"
    frames = [
        {"file_path": name, "mask_path": name, "transform_matrix": [[1, 0, 0, i], [0, 1, 0, 0], [0, 0, 1, 0]]}
        for i, name in enumerate(write_photos(dslr / "resized_undistorted_images", 4))
    ]
    (dslr / "nerfstudio").mkdir()
    content = json.dumps({"fl_x": 30, "frames": frames[:3], "test_frames": frames[3:]})
    (dslr / "nerfstudio" / "transforms_undistorted.json").write_text(content)
    for frame in frames:
        write_mask(dslr / "resized_undistorted_masks" / frame["file_path"])
    scene = load_scene(tmp_path)
    assert [photo.mask for photo in scene.photos] == [
        dslr / "resized_undistorted_masks" / f"{i:03d}.png" for i in range(4)
    ]
    assert scene.test.tolist() == [3]


def test_a_folder_of_masks_of_unknown_meaning_gets_a_word(make_scene, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    for i in range(10):
        write_mask(folder / "dynamic_masks" / f"{i:03d}.png")
    assert not any(photo.mask for photo in load_scene(folder).photos)
    assert "dynamic_masks is not used: call it masks" in caplog.text


@pytest.mark.parametrize(("red", "left", "alpha"), [(255, 255, 0), (0, 0, 0), (200, 0, 255), (200, 0, 0)])
def test_masks_with_alpha(tmp_path: Path, red: int, left: int, alpha: int):
    mask = Image.new("RGBA", (32, 24), (red, red, red, 255))
    mask.paste((left, left, left, alpha), (0, 0, 16, 24))
    mask.save(tmp_path / "m.png")
    counts = read_mask(tmp_path / "m.png")
    assert not counts[:, :16].any()
    assert counts[:, 16:].all()
