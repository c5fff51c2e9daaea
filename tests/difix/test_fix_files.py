"""``difix3d fix`` keeps what an image file holds besides its colours, and writes what people see."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from difix3d.difix.original import Original, read_original
from difix3d.formats import TURNS, undone
from difix3d.images import read_image


def picture(width: int = 40, height: int = 24) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, (x + y) / 2], -1).astype(np.uint8)


def fix(path: Path, target: Path, by: int = 0) -> Original:
    """The way of a file through the command, with a fixer that adds ``by``."""
    original = read_original(path)
    original.write(target, (original.rgb.astype(int) + by).clip(0, 255).astype(np.uint8))
    return read_original(target)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.avif"])
def test_photos_come_out_upright_and_keep_exif_and_profile(tmp_path: Path, name: str):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    stored = Image.fromarray(picture()).transpose(TURNS[undone(6)])
    stored.save(tmp_path / name, exif=exif, icc_profile=profile, quality=95)
    result = fix(tmp_path / name, tmp_path / "out" / name)
    assert np.abs(result.rgb.astype(int) - picture()).mean() < 4
    with Image.open(tmp_path / "out" / name) as image:
        assert image.size == (40, 24)
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x010F] == "Maker"
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
        assert image.info["icc_profile"] == profile
        assert ImageOps.exif_transpose(image).size == (40, 24)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_alpha_stays_and_the_picture_over_white_is_the_fixed_one(tmp_path: Path, name: str):
    alpha = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (24, 1))
    rgba = np.dstack([picture(), alpha])
    Image.fromarray(rgba).save(tmp_path / name, **({"lossless": True, "exact": True} if name == "a.webp" else {}))
    original = read_original(tmp_path / name)
    result = fix(tmp_path / name, tmp_path / "out.png", by=-20)
    assert np.array_equal(result.stored[..., 3], alpha)
    seen = alpha > 80  # the colour that is seen through weak alpha cannot get darker than it is
    expected = original.rgb.astype(int) - 20
    reach = 255.0 - alpha
    assert np.abs(result.rgb - np.maximum(expected, reach[..., None]))[seen].max() <= 2
    assert np.array_equal(
        fix(tmp_path / name, tmp_path / "same.png").stored[..., 0][alpha == 0], rgba[..., 0][alpha == 0]
    )


def test_into_a_file_without_alpha_it_is_over_white(tmp_path: Path):
    Image.fromarray(np.dstack([picture(), np.full((24, 40), 128, np.uint8)])).save(tmp_path / "a.png")
    result = fix(tmp_path / "a.png", tmp_path / "a.jpg")
    assert np.abs(result.rgb.astype(int) - read_original(tmp_path / "a.png").rgb).mean() < 4
    assert result.stored.shape[2] == 3


@pytest.mark.parametrize(("mode", "name"), [("L", "a.png"), ("LA", "a.png"), ("L", "a.jpg"), ("1", "a.tif")])
def test_grey_stays_grey(tmp_path: Path, mode: str, name: str):
    Image.fromarray(picture()).convert(mode).save(tmp_path / name)
    assert fix(tmp_path / name, tmp_path / "out" / name).stored.shape[2] == (2 if mode == "LA" else 1)


def test_a_profile_of_inks_is_not_that_of_the_result(tmp_path: Path):
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"CMYK"
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=bytes(profile))
    assert fix(tmp_path / "a.jpg", tmp_path / "out.jpg").profile is None


def test_tiffs_keep_no_table_of_another_file(tmp_path: Path):
    Image.fromarray(picture()).save(tmp_path / "a.tif", tiffinfo={270: "words"}, compression="tiff_lzw")
    assert np.array_equal(fix(tmp_path / "a.tif", tmp_path / "out.tif").rgb, picture())


def test_heic_in_heic_out(tmp_path: Path):
    pytest.importorskip("pillow_heif").from_pillow(Image.fromarray(picture())).save(tmp_path / "a.heic", quality=95)
    result = fix(tmp_path / "a.heic", tmp_path / "out" / "a.heic")
    assert np.abs(result.rgb.astype(int) - read_image(tmp_path / "a.heic")).mean() < 4
