"""Which files of a folder are taken for photos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difix3d.errors import UserError
from difix3d.sfm.listing import list_photos

NAMES = [f"{i:04d}" for i in range(4)]


def photo(path: Path, number: int = 0, mode: str = "RGB") -> None:
    """A picture of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


def depth(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((24, 32), 1500, np.uint16)).save(path)


def write(folder: Path, suffix: str = ".jpg") -> list[str]:
    for number, name in enumerate(NAMES):
        photo(folder / f"{name}{suffix}", number)
    return [f"{name}{suffix}" for name in NAMES]


def listed(folder: Path) -> list[str]:
    root, names = list_photos(folder)
    return [(root / name).relative_to(folder).as_posix() for name in names]


@pytest.mark.parametrize(
    "others",
    [
        "masks/{}.png",
        "depth_maps/{}.png",
        "a/Confidence/{}.png",
        "images_4/{}.jpg",
        "outputs/run/eval/renders/{}.png",
        ".thumb/{}.jpg",
        "@eaDir/{}.jpg/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/._{}.jpg",
        "._{}.jpg",
        "{}_mask.png",
        "mask_{}.png",
        "{}.jpg.png",
        "{}_depth_0001.png",
        "{}.png",
    ],
)
def test_what_is_no_photo_is_left_out_and_counted(tmp_path: Path, others: str, caplog: pytest.LogCaptureFixture):
    names = write(tmp_path)
    for number, name in enumerate(NAMES):
        photo(tmp_path / others.format(name), 10 + number)
    assert listed(tmp_path) == names
    assert "4 photos; left out: 4" in caplog.text
    assert len(caplog.records) == 1


def test_files_that_are_no_images_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    names = write(tmp_path)
    whole = (tmp_path / names[0]).read_bytes()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / f"{NAMES[0]} (1).jpg").write_bytes(whole)
    depth(tmp_path / "z.png")
    (tmp_path / "pointer.jpg").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "gone.jpg").symlink_to("/nowhere/gone.jpg")
    assert listed(tmp_path) == [f"{NAMES[0]} (1).jpg", *names[1:]] or listed(tmp_path) == names
    for reason in (
        "1 links that lead nowhere (gone.jpg)",
        "1 empty",
        "1 pointers of Git LFS: git lfs pull (pointer.jpg)",
        "2 unreadable (cut.jpg)",
        "1 with 16-bit depths",
        "1 copies of others",
    ):
        assert reason in caplog.text


def test_raw_folders_of_phone_scanners(tmp_path: Path):
    for folder in ("keyframes/images", "keyframes/corrected_images"):
        write(tmp_path / folder)
    for name in NAMES:
        depth(tmp_path / "keyframes/depth" / f"{name}.png")
    assert listed(tmp_path) == [f"keyframes/images/{name}.jpg" for name in NAMES]
    photo(tmp_path / "thumbnail.jpg", 9)
    assert listed(tmp_path) == [f"keyframes/images/{name}.jpg" for name in NAMES]
    thermal = tmp_path / "two"
    write(thermal / "rgb")
    write(thermal / "thermal")
    assert listed(thermal) == [f"rgb/{name}.jpg" for name in NAMES]
    for number, name in enumerate(NAMES):
        photo(tmp_path / "grey/a" / f"{name}.jpg", number)
        photo(tmp_path / "grey/b" / f"{name}.png", number, "L")
    assert listed(tmp_path / "grey") == [f"a/{name}.jpg" for name in NAMES]


def test_what_may_be_a_photo_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for day in ("day 1", "day 2"):  # cameras begin to count again
        write(tmp_path / "days" / day)
    photo(tmp_path / "days/day 1/0003.jpg", 33)
    for number, name in enumerate(NAMES):
        photo(tmp_path / "days/day 2" / f"{name}.jpg", 20 + number)
        photo(tmp_path / "grey" / f"{name}.jpg", number, "L")
        depth(tmp_path / "deep" / f"{number}.png")
        photo(tmp_path / "masks" / f"mask_{name}.jpg", number)
    Image.fromarray(np.full((24, 32), 1, np.uint16)).save(tmp_path / "deep/0.png")
    photo(tmp_path / "grey" / "carnival mask.jpg", 50)
    assert len(listed(tmp_path / "days")) == 8
    assert len(listed(tmp_path / "grey")) == 5
    assert len(listed(tmp_path / "masks")) == 4
    assert not caplog.records


def test_photos_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setattr("difix3d.sfm.listing.reads_heic", lambda: False)
    names = write(tmp_path)
    for name in ("IMG_1.HEIC", "IMG_2.heic", f"{NAMES[0]}.HEIC", f"{NAMES[1]}.DNG", "._IMG_1.HEIC"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    assert listed(tmp_path) == names
    assert "2 HEIC files beside 4 JPG are not read: pip install 'difix3d[heic]'" in caplog.text
    caplog.clear()
    (tmp_path / "IMG_3.DNG").write_bytes(b"II*\0")
    listed(tmp_path)
    assert "1 DNG and 2 HEIC files" in caplog.text


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["IMG_1.HEIC", "IMG_2.HEIC"], r"0 photos; 2 HEIC files are not read: pip install"),
        (["a.MOV"], r"Give the video itself: .*a\.MOV"),
        (["masks/1.png", "masks/2.png", "masks/3.png"], r"3 in masks/.*give their folder itself: .*masks"),
        (["1.png", "2.png"], r"2 photos\. To find the cameras takes 3"),
        ([], r"0 photos\. "),
    ],
)
def test_too_few_photos_is_an_error_that_says_why(tmp_path: Path, files: list[str], says: str, monkeypatch):
    monkeypatch.setattr("difix3d.sfm.listing.reads_heic", lambda: False)
    for number, name in enumerate(files):
        if name.endswith(".png"):
            photo(tmp_path / name, number)
        else:
            (tmp_path / name).write_bytes(bytes(20))
    with pytest.raises(UserError, match=says):
        list_photos(tmp_path)


def test_folders_behind_links_are_looked_into_once(tmp_path: Path):
    names = write(tmp_path / "disk")
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "day1").symlink_to(tmp_path / "disk")
    (tmp_path / "scan" / "again").symlink_to(tmp_path / "scan")
    assert listed(tmp_path / "scan") == [f"day1/{name}" for name in names]
