"""Images on disk."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difix3d.errors import UserError
from difix3d.images import image_size, read_image, read_mask, read_photo, resize, straight, to_uint8, write_image


def picture(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, (x + y) / 2], -1).astype(np.uint8)


def test_round_trip_is_exact_and_leaves_nothing_else(tmp_path: Path):
    image = picture(20, 10)
    write_image(tmp_path / "new" / "a.png", image)
    assert np.array_equal(read_image(tmp_path / "new" / "a.png"), image)
    assert image_size(tmp_path / "new" / "a.png") == (20, 10)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_floats_are_clamped_and_rounded(tmp_path: Path):
    values = torch.tensor([-1.0, 0.0, 0.5, 100.4 / 255, 100.6 / 255, 1.0, 2.0])
    assert to_uint8(values).tolist() == [0, 0, 128, 100, 101, 255, 255]
    write_image(tmp_path / "a.png", values.reshape(1, 7, 1).expand(1, 7, 3))
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 128, 100, 101, 255, 255]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_image(tmp_path / "a.png", picture(4, 4))
    before = (tmp_path / "a.png").read_bytes()

    def full_disk(_self, path, **_options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_image(tmp_path / "a.png", picture(8, 8))
    assert (tmp_path / "a.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_transparency_becomes_white(tmp_path: Path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., 0], rgba[0, :, 3] = 200, 255
    rgba[1, 2, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image[0, 0].tolist() == [200, 0, 0]
    assert image[1, 0].tolist() == [255, 255, 255]
    assert np.allclose(image[1, 2], [227, 127, 127], atol=1)


def _png16(path: Path, rgba: np.ndarray) -> None:
    """16 bits a channel, which Pillow reads and does not write."""
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in rgba)
    head = struct.pack(">IIBBBBB", rgba.shape[1], rgba.shape[0], 16, 6, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def _hole() -> np.ndarray:
    """Orange on the left; on the right half, invisible, bright green."""
    rgba = np.zeros((8, 16, 4), np.uint8)
    rgba[:, :8], rgba[:, 8:] = (200, 100, 0, 255), (0, 255, 0, 0)
    return rgba


@pytest.mark.parametrize("kind", ["rgba.png", "rgba.webp", "rgba.tif", "16.png", "la.png", "palette.png", "colour.png"])
def test_alpha_is_kept_whatever_the_file_says_it_with(tmp_path: Path, kind: str):
    rgba, path = _hole(), tmp_path / kind
    layer = Image.fromarray(rgba)
    if kind == "16.png":
        _png16(path, rgba)
    elif kind == "la.png":
        layer.convert("LA").save(path)
    elif kind == "palette.png":
        layer.quantize(8, Image.Quantize.FASTOCTREE).save(path)
    elif kind == "colour.png":
        layer.convert("RGB").save(path, transparency=(0, 255, 0))
    else:
        layer.save(path, lossless=True) if path.suffix == ".webp" else layer.save(path)
    pixels = read_photo(path)
    colour = [119] * 3 if kind == "la.png" else [200, 100, 0]
    assert np.abs(pixels[0, 0].astype(int) - [*colour, 255]).max() <= 8  # palettes are coarse
    assert pixels[0, 15].tolist() == [0, 0, 0, 0]


def test_what_is_invisible_leaves_no_fringe_when_images_shrink(tmp_path: Path):
    rgba = np.tile(_hole(), (4, 4, 1))
    rgba[..., 1] = np.where(rgba[..., 3] > 0, 100, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    small = read_photo(tmp_path / "a.png", (21, 11)).astype(float)
    over_itself = small[..., :3] + (255 - small[..., 3:]) / 255 * [200, 100, 0]
    assert np.abs(over_itself - [200, 100, 0]).max() < 2
    assert (small[..., :3] <= small[..., 3:]).all()


def test_a_file_with_alpha_that_is_opaque_is_read_as_one_without(tmp_path: Path):
    image = picture(40, 30)
    Image.fromarray(image).save(tmp_path / "rgb.png")
    Image.fromarray(image).convert("RGBA").save(tmp_path / "rgba.png")
    for size in (None, (13, 9)):
        assert np.array_equal(read_photo(tmp_path / "rgba.png", size), read_photo(tmp_path / "rgb.png", size))


def test_multiplied_colours_come_back_from_a_file(tmp_path: Path):
    rgba = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    image = (rgba[..., :3] * (rgba[..., 3:] / 255)).round().astype(np.uint8)
    write_image(tmp_path / "a.png", straight(image, rgba[..., 3]))
    back = read_photo(tmp_path / "a.png")
    assert np.array_equal(back[..., 3], rgba[..., 3])
    assert np.abs(back[..., :3].astype(int) - image).max() <= 1


def test_sixteen_bits_grey_and_palette(tmp_path: Path):
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[0, :, 1].tolist() == [0, 128, 255]
    Image.fromarray(picture(8, 8)).convert("P").save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (8, 8, 3)
    Image.fromarray(picture(8, 8)[..., 0]).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (8, 8, 3)


def test_exif_does_not_turn_the_pixels(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (10, 20, 3)


def test_reading_small_is_near_to_reading_and_resizing(tmp_path: Path):
    rng = np.random.default_rng(0)
    noisy = (picture(800, 600) * 0.7 + rng.integers(0, 70, (600, 800, 3))).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "a.jpg", quality=95)
    small = read_image(tmp_path / "a.jpg", (100, 75))
    assert small.shape == (75, 100, 3)
    slow = resize(read_image(tmp_path / "a.jpg"), 100, 75)
    assert np.abs(small.astype(float) - slow).mean() < 1
    assert read_image(tmp_path / "a.jpg", (1000, 750)).shape == (750, 1000, 3)


def test_masks_are_true_where_not_zero(tmp_path: Path):
    Image.fromarray(np.array([[0, 1, 255, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[False, True, True, True]]
    assert read_mask(tmp_path / "m.png", (2, 1)).tolist() == [[True, True]]


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes | None):
    path = tmp_path / "broken.jpg"
    if content is None:  # cut short
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.jpg is (unreadable|empty)"):
        read_image(path)
    with pytest.raises(UserError, match="does not exist"):
        read_image(tmp_path / "missing.jpg")


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Cannot write"):
        write_image(tmp_path / "file" / "a.png", np.zeros((2, 2, 3), np.uint8))
