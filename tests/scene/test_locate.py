"""Photos that lie elsewhere, or are called otherwise, than the model says."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from ring_scene import CAMERA, write_model, write_photos, write_ring

from difix3d.errors import UserError
from difix3d.scene import load_scene

pycolmap = pytest.importorskip("pycolmap")


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_ring, tmp_path)


def rename_in_model(folder: Path, rename: Callable[[str], str], encoding: str = "utf-8") -> None:
    names = [rename(f"{i:03d}.png") for i in range(10)]
    write_model(folder / "sparse" / "0", names, CAMERA)
    images = folder / "sparse" / "0" / "images.txt"
    images.write_bytes(images.read_text().encode(encoding))


def contents(folder: Path) -> list[int]:
    """The blue of each photo's file, of which the ninth part is its number."""
    return [Image.open(photo.path).getpixel((0, 0))[2] // 9 for photo in load_scene(folder, split="none").photos]


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"C:\\Users\\me\\scan\\{name}",
        lambda name: f"/home/me/scan/images/{name}",
        lambda name: f"left/{name}",
        lambda name: name.replace(".png", ".jpg"),
        lambda name: name.replace(".png", ".PNG"),
        lambda name: name.replace(".png", ".HEIC"),
        lambda name: name.replace(".png", ""),
        lambda name: f"images/{name}",
        lambda name: f"./{name}",
    ],
)
def test_photos_that_are_called_otherwise(make_scene, rename: Callable[[str], str]):
    folder = make_scene()
    rename_in_model(folder, rename)
    assert contents(folder) == list(range(10))


def test_other_suffixes_are_said_and_separators_are_not(make_scene, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    (folder / "images" / "cam 1").mkdir()
    for path in list((folder / "images").glob("*.png")):
        shutil.move(path, folder / "images" / "cam 1" / path.name)
    rename_in_model(folder, lambda name: f"cam 1\\{name}")
    assert load_scene(folder).photos[3].name == "cam 1/003.png"
    assert caplog.messages == []
    rename_in_model(folder, lambda name: f"cam 1/{name}".replace("png", "jpg"))
    load_scene(folder)
    assert "10 of 10 photos have another name on the disk: cam 1/000.png is read for cam 1/000.jpg" in caplog.text


@pytest.mark.parametrize(
    ("page", "letter"),
    [("cp1252", "\u00f6"), ("cp932", "\u8868"), ("utf-8", "\u00f6"), ("cp1251", "\u0444"), ("gbk", "\u7167")],
)
def test_code_pages_of_windows(make_scene, page: str, letter: str, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    for path in list((folder / "images").iterdir()):
        path.rename(path.with_name(f"{letter}e {path.name}"))
    rename_in_model(folder, lambda name: f"{letter}e {name}", page)
    assert contents(folder) == list(range(10))
    assert load_scene(folder).photos[2].name == f"{letter}e 002.png"
    assert caplog.messages == []


@pytest.mark.parametrize("place", ["input", "rgb", "photos/day 1", "."])
def test_photos_in_folders_of_any_name(make_scene, place: str):
    folder = make_scene()
    shutil.move(folder / "images", folder / "was")
    (folder / place).mkdir(parents=True, exist_ok=True)
    for path in (folder / "was").iterdir():
        shutil.move(path, folder / place / path.name)
    Image.new("L", (32, 24)).save(folder / "000_mask.png")
    assert contents(folder) == list(range(10))


def test_what_could_be_two_photos_is_an_error(make_scene):
    folder = make_scene()
    for side in ("left", "right"):
        write_photos(folder / "images" / side, 10)
        for path in (folder / "images").glob("*.png"):
            path.unlink()
    with pytest.raises(UserError, match=r"10 of the 10 photos .* missing: .*images/000\.png"):
        load_scene(folder)


def test_photos_in_two_formats_are_named(make_scene):
    folder = make_scene()
    for path in list((folder / "images").iterdir()):
        shutil.copy(path, path.with_suffix(".webp"))
    rename_in_model(folder, lambda name: name.replace(".png", ".jpg"))
    with pytest.raises(UserError, match=r"000\.jpg.*There are 000\.png and 000\.webp: keep one of them"):
        load_scene(folder)
