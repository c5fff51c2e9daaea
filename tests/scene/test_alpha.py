"""Photos with alpha: from the file to the view."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ring_scene import CAMERA, write_ring

from difix3d.background import over
from difix3d.errors import UserError
from difix3d.images import read_photo
from difix3d.scene import Views, load_scene
from difix3d.scene.cache import KEEP_FREE_BYTES, read_reduced

DISTORTED = "OPENCV 32 24 30 30 16 12 -0.3 0.02 0.001 0.001"


def write_object(folder: Path, camera: str = CAMERA, with_alpha=range(10), size: tuple[int, int] = (32, 24)) -> Path:
    """Photos of an orange disc; what is invisible around it is green in the files."""
    scene = write_ring(folder, camera=camera)
    for i in with_alpha:
        Image.fromarray(disc(*size)).save(scene / "images" / f"{i:03d}.png")
    return scene


def disc(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    inside = np.hypot(x, y) < 0.3 * height
    return np.where(inside[..., None], (200, 100, 0, 255), (0, 255, 0, 0)).astype(np.uint8)


@pytest.mark.parametrize("camera", [CAMERA, DISTORTED, "PINHOLE 64 48 60 60 32 24"])
def test_alpha_goes_with_the_image_through_lens_and_scale(tmp_path: Path, camera: str):
    size = (64, 48) if "64" in camera else (32, 24)
    scene = load_scene(write_object(tmp_path, camera, size=size), resolution=32)
    assert scene.alpha
    view = Views(scene)[0]
    assert view.alpha is not None
    assert view.alpha.shape == view.image.shape[:2]
    height, width = view.alpha.shape
    assert view.alpha[height // 2, width // 2] == 1
    assert view.alpha[0, 0] == 0
    orange = torch.tensor([200, 100, 0]) / 255
    assert (over(view, orange).image - orange).abs().max() < 0.01  # no fringe of another colour


def test_a_photo_has_alpha_and_mask(tmp_path: Path):
    folder = write_object(tmp_path)
    (folder / "masks").mkdir()
    counts = np.zeros((24, 32), np.uint8)
    counts[:, :16] = 255
    Image.fromarray(counts).save(folder / "masks" / "000.png")
    view = Views(load_scene(folder))[0]
    assert view.mask is not None
    assert view.alpha is not None
    assert torch.equal(view.mask, torch.from_numpy(counts > 0))
    assert torch.equal(view.alpha > 0.5, torch.from_numpy(disc(32, 24)[..., 3] > 0))


def test_memory_is_counted_with_alpha(tmp_path: Path):
    views = Views(load_scene(write_object(tmp_path)))
    _ = views[0], views[1]
    assert views.held_bytes == 2 * 32 * 24 * 4


def test_photos_without_alpha_among_others_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    scene = load_scene(write_object(tmp_path, with_alpha=range(2, 10)))
    assert scene.alpha
    assert "2 of 10 photos have no alpha, first 000.png" in caplog.text
    assert Views(scene)[0].alpha is None


def test_opaque_files_with_alpha_are_photos_without(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write_ring(tmp_path)
    before = Views(load_scene(folder))[3].image
    for path in (folder / "images").iterdir():
        Image.open(path).convert("RGBA").save(path)
    scene = load_scene(folder)
    assert not scene.alpha
    assert Views(scene)[3].alpha is None
    assert torch.equal(Views(scene)[3].image, before)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_photos_of_nothing_are_refused_and_one_of_them_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write_object(tmp_path)
    Image.new("RGBA", (32, 24)).save(folder / "images" / "004.png")
    views = Views(load_scene(folder))
    for _ in range(2):
        assert views[4].alpha is not None
    assert caplog.text.count("004.png is wholly transparent") == 1
    for path in (folder / "images").iterdir():
        Image.new("RGBA", (32, 24)).save(path)
    with pytest.raises(UserError, match=r"are wholly transparent, first 000\.png.*Export them again"):
        load_scene(folder)


def test_the_cache_of_reduced_photos_keeps_alpha(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "difix3d.scene.cache.shutil.disk_usage", lambda _: type("Usage", (), {"free": 2 * KEEP_FREE_BYTES})
    )
    Image.fromarray(disc(2400, 1800)).save(tmp_path / "a.png")
    first = read_reduced(tmp_path / "a.png", (160, 120), tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert np.array_equal(first, read_photo(tmp_path / "a.png", (160, 120)))
    assert np.array_equal(read_reduced(tmp_path / "a.png", (160, 120), tmp_path / "cache"), first)
