"""Whatever kind of image file: the right picture, or the reason and the cure."""

import logging
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from difix3d.errors import UserError
from difix3d.formats import MAX_PIXELS
from difix3d.images import image_size, read_image, read_mask


def ramp(width: int = 32, height: int = 20) -> np.ndarray:
    """Grey values 0..255, as floats."""
    return np.linspace(0, 255, width * height).reshape(height, width)


def grey(path: Path) -> np.ndarray:
    return read_image(path)[..., 1].astype(float)


@pytest.mark.parametrize("top", [1, 255])
def test_floats_of_0_to_1_and_of_0_to_255(tmp_path: Path, top: float):
    Image.fromarray((ramp() / 255 * top).astype(np.float32)).save(tmp_path / "a.tif")
    assert np.abs(grey(tmp_path / "a.tif") - ramp()).max() <= 0.51


def test_floats_with_a_black_background_and_of_filters_that_overshoot(tmp_path: Path):
    values = ramp()
    values[:15] = 0
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "dark.tif")
    assert np.abs(grey(tmp_path / "dark.tif") - values).max() <= 0.51
    Image.fromarray((ramp() / 255 * 1.1 - 0.05).astype(np.float32)).save(tmp_path / "a.tif")
    assert np.abs(grey(tmp_path / "a.tif") - ramp()).max() < 14


@pytest.mark.parametrize("values", [ramp() / 50, (ramp() / 255) ** 8 * 200, ramp() - 30, ramp() * np.nan])
def test_floats_of_another_range_are_refused(tmp_path: Path, values: np.ndarray):
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "hdr.tif")
    with pytest.raises(UserError, match=r"hdr\.tif reach from .* 0\.\.1, or in 0\.\.255"):
        read_image(tmp_path / "hdr.tif")


def tiff(
    bits: list[int], sample: int, pixels: bytes, width: int, height: int, photometric: int = 2, planes: int = 1
) -> bytes:
    """An uncompressed TIFF of one strip, as libraries write it that Pillow does not follow."""
    entries = [(256, 4, [width]), (257, 4, [height]), (258, 3, bits), (259, 3, [1]), (262, 3, [photometric])]
    entries += [(273, 4, [0]), (277, 3, [len(bits)]), (278, 4, [height]), (279, 4, [len(pixels)])]
    entries += [(284, 3, [planes]), (339, 3, [sample] * len(bits))]
    extra, table, start = b"", b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, numbers in entries:
        data = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if tag == 273:
            data = struct.pack("<I", start + 2 * len(bits) * 2)
        if len(data) > 4:
            data, extra = struct.pack("<I", start + len(extra)), extra + data
        table += struct.pack("<HHI", tag, kind, len(numbers)) + data.ljust(4, b"\0")
    extra = extra.ljust(2 * len(bits) * 2, b"\0")
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + extra + pixels


def test_float_colours_are_named(tmp_path: Path):
    (tmp_path / "a.tif").write_bytes(tiff([32] * 3, 3, np.ones((4, 5, 3), np.float32).tobytes(), 5, 4))
    with pytest.raises(UserError, match=r"a\.tif is a TIFF of 3 x 32-bit floats, .* Convert it to PNG or JPEG"):
        read_image(tmp_path / "a.tif")


def test_sixteen_bits_in_colour(tmp_path: Path):
    deep = (ramp()[..., None] * [257, 200, 100]).astype("<u2")
    (tmp_path / "a.tif").write_bytes(tiff([16] * 3, 1, deep.tobytes(), 32, 20))
    assert np.abs(read_image(tmp_path / "a.tif").astype(float) - deep / 257).max() <= 1
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    (tmp_path / "a.png").write_bytes(png(32, 20, 16, 2, rows))
    assert np.abs(read_image(tmp_path / "a.png").astype(float) - deep / 257).max() <= 1


def png(width: int, height: int, bits: int, kind: int, rows: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_twelve_bits_are_known_by_the_file_or_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    packed = bytearray()
    values = (ramp() / 255 * 4095).astype(int)
    for a, b in values.reshape(-1, 2):
        packed += bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
    (tmp_path / "a.tif").write_bytes(tiff([12], 1, bytes(packed), 32, 20, photometric=1))
    assert np.abs(grey(tmp_path / "a.tif") - ramp()).max() <= 1
    assert not caplog.messages
    for name in ("b.png", "c.png"):
        Image.fromarray(values.astype(np.uint16)).save(tmp_path / name)
        assert grey(tmp_path / name).max() == 15
    assert [str(tmp_path) in message and "multiply all of them by 16" in message for message in caplog.messages] == [
        True
    ]


def test_wide_integers_of_bytes_are_bytes(tmp_path: Path):
    Image.fromarray(ramp().astype(np.int32)).save(tmp_path / "a.tif")
    assert np.abs(grey(tmp_path / "a.tif") - ramp()).max() <= 1
    Image.fromarray((ramp() * 257).astype(np.int32)).save(tmp_path / "b.tif")
    assert np.abs(grey(tmp_path / "b.tif") - ramp()).max() <= 1


def test_integers_of_other_widths_and_signs(tmp_path: Path):
    for bits, sample, values in (
        (32, 1, (ramp() / 255 * (2**32 - 1)).astype("<u4")),
        (32, 2, (ramp() / 255 * (2**31 - 1)).astype("<i4")),
        (16, 2, (ramp() / 255 * (2**15 - 1)).astype("<i2")),
    ):
        (tmp_path / "a.tif").write_bytes(tiff([bits], sample, values.tobytes(), 32, 20, photometric=1))
        assert np.abs(grey(tmp_path / "a.tif") - ramp()).max() <= 1, (bits, sample)
    inverted = (65535 - ramp() * 257).astype("<u2")
    (tmp_path / "a.tif").write_bytes(tiff([16], 1, inverted.tobytes(), 32, 20, photometric=0))
    assert np.abs(grey(tmp_path / "a.tif") - ramp()).max() <= 1


def test_deep_planes_are_refused(tmp_path: Path):
    pixels = np.zeros((3, 20, 32), "<u2").tobytes()
    (tmp_path / "a.tif").write_bytes(tiff([16] * 3, 1, pixels, 32, 20, planes=2))
    with pytest.raises(UserError, match=r"a\.tif .*plane after the other"):
        read_image(tmp_path / "a.tif")


def test_pointers_of_git_lfs_are_named(tmp_path: Path):
    (tmp_path / "a.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match=r"a\.jpg is a pointer of Git LFS.*git lfs pull"):
        image_size(tmp_path / "a.jpg")


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "a.jpg"), ("P", "a.png"), ("LA", "a.png"), ("1", "a.png")])
def test_other_modes(tmp_path: Path, mode: str, name: str):
    picture = np.repeat((ramp() > 128)[..., None] * np.uint8(255), 3, 2)
    Image.fromarray(picture).convert(mode).save(tmp_path / name)
    assert np.abs(read_image(tmp_path / name).astype(int) - picture).mean() < 4


def test_of_several_pictures_the_first_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pages = [Image.fromarray(np.full((4, 5, 3), v, np.uint8)) for v in (10, 200)]
    for name in ("a.tif", "a.webp", "a.gif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        assert abs(grey(tmp_path / name).mean() - 10) < 3
    assert len(caplog.messages) == 1  # for the folder
    assert "the first picture of each" in caplog.text


def test_deep_masks_count_where_they_are_not_zero(tmp_path: Path):
    for name, kind in (("a.png", np.uint16), ("a.tif", np.float32)):
        Image.fromarray(np.array([[0, 1, 200]], kind)).save(tmp_path / name)
        assert read_mask(tmp_path / name).tolist() == [[False, True, True]]


def test_larger_than_pillows_limit(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    Image.new("1", (20000, 10000), 1).save(tmp_path / "a.png")  # 200 megapixels in some kilobytes
    assert image_size(tmp_path / "a.png") == (20000, 10000)
    assert read_image(tmp_path / "a.png", (40, 20)).min() == 255
    assert not [w for w in recwarn if "bomb" in str(w.message)]
    (tmp_path / "bomb.png").write_bytes(png(MAX_PIXELS // 1000 + 1, 1000, 1, 0, b"\0"))
    with pytest.raises(UserError, match=r"bomb\.png is larger than that\. At most 1000 megapixels"):
        image_size(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"\x76\x2f\x31\x01", "OpenEXR"),
        (b"#?RADIANCE\n", "Radiance HDR"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "raw photo"),
        (b"II*\0\x08\0\0\0" + bytes(40), "unreadable|TIFF"),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".exr"])
def test_other_kinds_are_named_by_what_is_in_them(tmp_path: Path, start: bytes, said: str, suffix: str):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(start + bytes(100))
    with pytest.raises(UserError, match=said) as error:
        image_size(path)
    assert "Convert it" in str(error.value) or "Copy it again" in str(error.value)


def test_raw_photos_are_not_read_by_their_thumbnails(tmp_path: Path):
    Image.new("RGB", (160, 120)).save(tmp_path / "a.DNG", format="tiff")
    with pytest.raises(UserError, match=r"a\.DNG is a raw photo.*Export it as JPEG"):
        image_size(tmp_path / "a.DNG")


def test_heic_is_read_or_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    heif = pytest.importorskip("pillow_heif")
    picture = np.repeat(ramp(64, 48)[..., None], 3, 2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(picture).transpose(Image.Transpose.ROTATE_90)
    heif.from_pillow(turned).save(tmp_path / "a.HEIC", quality=95, exif=exif.tobytes())
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.HEIC").read_bytes())  # as phones share them
    for name in ("a.HEIC", "b.jpg"):
        assert image_size(tmp_path / name) == (64, 48)  # this kind of file stands upright by itself
        assert np.abs(read_image(tmp_path / name).astype(int) - picture).mean() < 3
    monkeypatch.setattr("difix3d.formats.Image.open", unidentified)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"a\.HEIC is HEIC.*pip install 'difix3d\[heic\]'"):
        image_size(tmp_path / "a.HEIC")


def unidentified(path: Path) -> Image.Image:
    raise UnidentifiedImageError


def test_avif(tmp_path: Path):
    Image.fromarray(np.repeat(ramp(64, 48)[..., None], 3, 2).astype(np.uint8)).save(tmp_path / "a.avif", quality=95)
    assert np.abs(grey(tmp_path / "a.avif") - ramp(64, 48)).mean() < 3


def test_nothing_is_said_of_ordinary_files(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    Image.fromarray((ramp() * 257).astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(ramp().astype(np.uint8)).save(tmp_path / "a.jpg")
    read_image(tmp_path / "a.png"), read_image(tmp_path / "a.jpg")
    assert not caplog.messages
