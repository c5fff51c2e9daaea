"""Panoramas without cameras: told from other photos, and placed by structure from motion."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ring_scene import ring
from scipy.ndimage import map_coordinates
from shared_data import require

from difix3d.scene import load_scene
from difix3d.sfm.spherical import are_panoramas

VOLUME = np.random.default_rng(0).uniform(0, 255, (48, 48, 48, 3))
GPANO = (
    b'<rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" GPano:ProjectionType="equirectangular"/>'
)


def draw(c2w: np.ndarray, width: int) -> Image.Image:
    """What a 360 camera sees inside of a cube of 8 with coloured noise on its walls."""
    longitude, latitude = np.meshgrid(
        2 * np.pi * ((np.arange(width) + 0.5) / width - 0.5),
        np.pi * ((np.arange(width // 2) + 0.5) / (width // 2) - 0.5),
    )
    across = np.cos(latitude)
    local = np.stack([across * np.sin(longitude), np.sin(latitude), across * np.cos(longitude)], -1)
    rays, center = local @ c2w[:3, :3].T, c2w[:3, 3] - [5, 0, 0]  # the ring is around (5, 0, 0)
    with np.errstate(divide="ignore"):
        hit = center + rays * ((np.sign(rays) * 4 - center) / rays).min(-1, keepdims=True)
    grid = np.moveaxis((hit / 4 + 1) * 23.5, -1, 0)
    return Image.fromarray(
        np.stack([map_coordinates(VOLUME[..., c], grid, order=1) for c in range(3)], -1).astype("u1")
    )


def panoramas(folder: Path, count: int, width: int) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path, c2w in zip(paths, ring(count), strict=True):
        draw(c2w, width).save(path)
    return paths


def test_panoramas_are_told_from_photos_of_their_shape(tmp_path: Path):
    whole = panoramas(tmp_path / "whole", 3, 256)
    assert are_panoramas(whole)
    for path in whole:
        with Image.open(path) as image:
            image.crop((0, 20, 200, 120)).save(path)
    assert not are_panoramas(whole)


def test_photos_that_only_have_the_shape(tmp_path: Path):
    plain = np.full((100, 200, 3), 255, np.uint8)
    plain[30:80, 60:120] = VOLUME[0, 0, 0]  # a thing on white
    noise = np.random.default_rng(1).integers(0, 255, (100, 200, 3), np.uint8)
    for name, pixels in (("plain", plain), ("noise", noise), ("grey", np.full_like(plain, 90))):
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(path)
        assert not are_panoramas([path]), name


@pytest.mark.parametrize("height", [128, 120])
def test_a_photo_that_says_that_it_is_one(tmp_path: Path, height: int):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (height, 256, 3), np.uint8)).save(path, xmp=GPANO)
    assert are_panoramas([path]) == (height == 128)


@pytest.mark.real
@pytest.mark.parametrize("scene", ["fox", "castle", "south", "snowmiku", "temple"])
def test_real_photos_cut_to_the_shape(shared: Path, tmp_path: Path, scene: str):
    paths = []
    for file in sorted(require(shared / "scenes" / scene / "images").iterdir())[::5]:
        with Image.open(file) as image:
            height = min(image.width // 2, image.height)
            image.crop((0, 0, 2 * height, height)).save(tmp_path / f"{file.stem}.png")
        paths.append(tmp_path / f"{file.stem}.png")
    assert not are_panoramas(paths)


@pytest.mark.slow
def test_cameras_of_panoramas_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pytest.importorskip("pycolmap")
    panoramas(tmp_path / "walk" / "images", 8, 768)
    scene = load_scene(tmp_path / "walk", split="none")
    assert "8 of 8 photos are taken for 360 photos" in caplog.text
    assert len(scene.photos) == 48
    found, true = scene.cameras.centers[:8].double().numpy(), ring(8)[:, :3, 3]
    between = [np.linalg.norm(places[:, None] - places[None], axis=-1) for places in (found, true)]
    scale = between[1].sum() / between[0].sum()
    assert np.abs(between[0] * scale - between[1]).max() < 0.03  # of 6
