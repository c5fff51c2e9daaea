"""Photos that phones store sideways, with an EXIF orientation: read as their cameras were found."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from ring_scene import write_ring

from difix3d.formats import TURNS, undone
from difix3d.images import image_size, image_turn, read_image
from difix3d.scene import Views, load_scene


def store(path: Path, upright: np.ndarray, turn: int) -> None:
    """Saves a picture turned, with the EXIF orientation that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(upright).transpose(TURNS[undone(turn)]).save(path, exif=exif)


def pixels(folder: Path, index: int) -> np.ndarray:
    return (Views(load_scene(folder))[index].image.numpy() * 255).round().astype(np.uint8)


def random_pictures(folder: Path, count: int = 10, size: tuple[int, int] = (32, 24)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (size[1], size[0], 3), np.uint8) for _ in range(count)]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / "images" / f"{number:03d}.png")
    return pictures


@pytest.mark.parametrize("turn", range(2, 9))
def test_all_readers_agree_with_pillow_on_what_is_upright(tmp_path: Path, turn: int):
    picture = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    store(tmp_path / "a.png", picture, turn)
    assert image_turn(tmp_path / "a.png") == turn
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png"))), picture)
    assert np.array_equal(read_image(tmp_path / "a.png", turn=turn), picture)
    assert image_size(tmp_path / "a.png", turn) == (32, 24)
    small = read_image(tmp_path / "a.png", (16, 12), turn).astype(int)
    assert np.abs(small - np.asarray(Image.fromarray(picture).resize((16, 12), Image.Resampling.LANCZOS))).mean() < 1


def test_cameras_of_upright_photos_see_them_upright(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write_ring(tmp_path)
    pictures = random_pictures(folder)
    for number, turn in enumerate([6, 8, 5, 7, 3, 6, 6, 6, 6, 6]):  # the size does not tell of 3: it is like the others
        store(folder / "images" / f"{number:03d}.png", pictures[number], turn)
    for number in range(5):
        assert np.array_equal(pixels(folder, number), pictures[number])
    assert "10 photos are turned as their EXIF says" in caplog.text


def test_cameras_of_photos_as_stored_see_them_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write_ring(tmp_path)
    pictures = random_pictures(folder)  # of the cameras' size
    stored = [np.asarray(Image.fromarray(picture).transpose(TURNS[6])) for picture in pictures]
    for number, picture in enumerate(stored):
        store(folder / "images" / f"{number:03d}.png", picture, 6)
    assert np.array_equal(pixels(folder, 3), pictures[3])
    assert not caplog.messages


def test_what_no_size_tells_is_as_stored_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write_ring(tmp_path)
    pictures = random_pictures(folder)
    store(folder / "images" / "003.png", pictures[3], 3)
    assert np.array_equal(pixels(folder, 3), pictures[3][::-1, ::-1])
    assert "1 photos are stored turned (EXIF)" in caplog.text
    assert "first 003.png" in caplog.text


@pytest.mark.parametrize("photo_upright", [True, False])
@pytest.mark.parametrize("mask_upright", [True, False])
def test_masks_upright_or_as_stored_lie_on_their_photos(tmp_path: Path, photo_upright: bool, mask_upright: bool):
    folder = write_ring(tmp_path)
    seen = random_pictures(folder)[0]  # as the camera sees it
    upright = seen if photo_upright else np.asarray(Image.fromarray(seen).transpose(TURNS[6]))
    for number in range(10):
        store(folder / "images" / f"{number:03d}.png", upright, 6)
    (folder / "masks").mkdir()
    mask = Image.fromarray((upright[..., 0] > 100).astype(np.uint8) * 255)
    mask = mask if mask_upright else mask.transpose(TURNS[undone(6)])
    for number in range(10):
        mask.save(folder / "masks" / f"{number:03d}.png")
    view = Views(load_scene(folder))[2]
    assert view.mask is not None
    assert np.array_equal(view.mask.numpy(), seen[..., 0] > 100)


def test_reduced_photos_of_the_cache_are_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("difix3d.scene.cache.EXPENSIVE", 0)
    monkeypatch.setattr("difix3d.scene.views.photo_cache", lambda: tmp_path / "cache" / "photos")
    folder = write_ring(tmp_path)
    for number, picture in enumerate(random_pictures(folder, size=(64, 48))):
        store(folder / "images" / f"{number:03d}.png", picture, 6)
    first, again = pixels(folder, 4), pixels(folder, 4)
    assert first.shape == (24, 32, 3) or first.shape == (48, 64, 3)
    assert np.array_equal(first, again)
    whole = read_image(folder / "images" / "004.png", (first.shape[1], first.shape[0]), 6)
    assert np.array_equal(first, whole)


def test_nonsense_in_exif_is_upright(tmp_path: Path):
    for name, value in (("a.png", 0), ("b.png", 9), ("c.png", 6)):
        exif = Image.Exif()
        exif[0x0112] = value
        data = exif.tobytes()
        Image.new("RGB", (4, 3)).save(tmp_path / name, exif=data[:12] if name == "c.png" else data)
        assert image_turn(tmp_path / name) == 1
