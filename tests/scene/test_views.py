"""Decoding: right pixels, in order, within the memory limit."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from ring_scene import write_ring
from shared_data import require

from difix3d.errors import UserError
from difix3d.geometry.lens import sampling_map
from difix3d.images import read_image
from difix3d.scene import Views, load_scene
from difix3d.scene.cache import KEEP_FREE_BYTES, prune, read_reduced
from difix3d.scene.views import decode
from difix3d.types import Lens

DISTORTED = "OPENCV 32 24 30 30 16 12 -0.3 0.02 0.001 0.001"
IMAGE_BYTES = 32 * 24 * 3


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_ring, tmp_path)


def test_a_view_is_the_photo(make_scene):
    scene = load_scene(make_scene())
    view = Views(scene)[3]
    assert (view.name, view.index, view.mask) == ("003.png", 3, None)
    assert torch.equal(view.image, torch.from_numpy(read_image(scene.photos[3].path)).float() / 255)
    assert torch.equal(view.camera.c2w, scene.cameras.c2w[[3]])


def test_the_stream_keeps_the_callers_order_and_may_be_endless(make_scene):
    views = Views(load_scene(make_scene()), threads=4, ahead=5)
    order = [int(i) for i in np.random.default_rng(0).integers(0, 10, 40)]
    streamed = list(views.stream(order))
    assert [view.index for view in streamed] == order
    for view in streamed:
        assert torch.equal(view.image, views[view.index].image)
    assert [view.index for view in itertools.islice(views.stream(itertools.cycle([4, 2])), 3)] == [4, 2, 4]


def test_memory_stays_under_the_limit(make_scene):
    limit = 7 * IMAGE_BYTES
    views = Views(load_scene(make_scene(60)), memory_limit_bytes=limit, ahead=4, threads=1)
    for _ in views.stream([*range(60), *range(60)]):
        assert views.held_bytes <= limit
    assert views.held_bytes == limit
    assert sorted(views._kept) == list(range(53, 60))


def test_the_least_recently_used_goes_first(make_scene):
    views = Views(load_scene(make_scene()), memory_limit_bytes=3 * IMAGE_BYTES)
    for index in (0, 1, 2, 0, 3):
        _ = views[index]
    assert list(views._kept) == [2, 0, 3]


def test_an_image_is_decoded_once_if_it_fits(make_scene, monkeypatch: pytest.MonkeyPatch):
    decoded = []
    monkeypatch.setattr("difix3d.scene.views.decode", lambda p, *rest: decoded.append(p.name) or decode(p, *rest))
    views = Views(load_scene(make_scene()), threads=1)
    list(views.stream([*range(10), *range(10)]))
    assert len(decoded) == 10


@pytest.mark.gpu
def test_photos_on_their_way_to_a_gpu_are_in_pinned_memory(make_scene, monkeypatch: pytest.MonkeyPatch):
    scene, pinned, pin = load_scene(make_scene()), [], torch.Tensor.pin_memory
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: pinned.append(x.shape) or pin(x))
    for keep_on, count in (("cpu", 2), ("cuda", 0)):
        views = Views(scene, "cuda", keep_on=keep_on)
        streamed = list(views.stream([0, 1]))
        assert len(pinned) == count
        pinned.clear()
        for view, index in zip(streamed, (0, 1), strict=True):
            assert torch.equal(view.image.cpu(), Views(scene)[index].image)


def test_a_photo_that_breaks_after_loading_is_named(make_scene):
    scene = load_scene(make_scene())
    data = scene.photos[1].path.read_bytes()
    scene.photos[1].path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"001\.png is unreadable"):
        list(Views(scene).stream([0, 1, 2]))


def test_masks_follow_the_image(make_scene):
    folder = make_scene(camera=DISTORTED)
    (folder / "masks").mkdir()
    mask = np.zeros((24, 32), np.uint8)
    mask[:, :16] = 255
    Image.fromarray(mask).save(folder / "masks" / "000.png")
    seen = Views(load_scene(folder))[0].mask
    assert seen is not None
    middle = seen.shape[1] // 2
    assert seen[:, : middle - 2].all()
    assert not seen[:, middle + 2 :].any()


def test_pixels_outside_of_the_photo_do_not_count(make_scene):
    scene = load_scene(make_scene(camera=DISTORTED))
    camera = scene.cameras[0]
    wide = replace(camera, K=camera.K * torch.tensor([[0.5, 1, 1], [1, 0.5, 1], [1, 1, 1]]))  # looks past the borders
    image, mask = decode(scene.photos[0], wide)
    assert mask is not None
    assert not mask[0, 0]
    assert mask[image.shape[0] // 2, image.shape[1] // 2]


def test_undistorting_keeps_straight_lines_straight(tmp_path: Path, make_scene):
    """A photo drawn through the lens shows, undistorted, the pinhole picture of the same plane."""
    params = (300.0, 300.0, 160.0, 120.0, -0.2, 0.05, 0.001, -0.001)
    lens = Lens("OPENCV", params, 320, 240)
    dense = sampling_map(lens, np.array([[600.0, 0, 640], [0, 600, 480], [0, 0, 1]]), 1280, 960)[0]
    plane = (np.stack(np.meshgrid(np.arange(1280) + 0.5, np.arange(960) + 0.5), -1) - [640, 480]) / 600
    photo, count = np.zeros((240, 320)), np.zeros((240, 320))
    pattern = np.sin(40 * plane[..., 0]) + np.cos(35 * plane[..., 1])
    column, row = (dense * [320, 240]).astype(int).reshape(-1, 2).T
    inside = (column >= 0) & (column < 320) & (row >= 0) & (row < 240)
    np.add.at(photo, (row[inside], column[inside]), pattern.reshape(-1)[inside])
    np.add.at(count, (row[inside], column[inside]), 1)
    picture = (photo / np.maximum(count, 1) * 60 + 128).astype(np.uint8)
    folder = make_scene(camera="OPENCV 320 240 " + " ".join(map(str, params)))
    for path in (folder / "images").iterdir():
        Image.fromarray(picture).convert("RGB").save(path)
    view = Views(load_scene(folder))[0]
    height, width = view.image.shape[:2]
    K = view.camera.K[0].numpy()
    x, y = np.meshgrid((np.arange(width) + 0.5 - K[0, 2]) / K[0, 0], (np.arange(height) + 0.5 - K[1, 2]) / K[1, 1])
    expected = (np.sin(40 * x) + np.cos(35 * y)) * 60 + 128
    assert np.abs(view.image[..., 0].numpy() * 255 - expected).mean() < 3


def _leave(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Tests must not depend on how full the disk is that they run on."""
    monkeypatch.setattr("difix3d.scene.cache.shutil.disk_usage", lambda _: SimpleNamespace(free=free))


def test_large_photos_are_decoded_once_and_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _leave(monkeypatch, free=2 * KEEP_FREE_BYTES)
    photo, cache = tmp_path / "large.jpg", tmp_path / "cache"
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(noise).resize((2400, 1800)).save(photo)
    first = read_reduced(photo, (160, 120), cache)
    assert np.array_equal(first, read_image(photo, (160, 120)))
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr("difix3d.scene.cache.read_photo", None)
        assert np.array_equal(read_reduced(photo, (160, 120), cache), first)
    (entry,) = cache.iterdir()
    content = entry.read_bytes()
    for damaged in (
        content[:1000],
        content[:-9] + b"x" + content[-8:],
        b"",
        content[:5000] + b"\xff\0" + content[5002:],
    ):
        entry.write_bytes(damaged)  # decoded again, and kept
        assert np.array_equal(read_reduced(photo, (160, 120), cache), first)
        assert entry.read_bytes() == content
    Image.fromarray(255 - noise).resize((2400, 1800)).save(photo)  # another photo of the same name
    assert not np.array_equal(read_reduced(photo, (160, 120), cache), first)
    assert len(list(cache.iterdir())) == 2
    prune(cache, limit_bytes=first.nbytes + 500)
    assert len(list(cache.iterdir())) == 1
    read_reduced(photo, (2300, 1725), cache)  # hardly smaller: not worth it
    assert len(list(cache.iterdir())) == 1


def test_the_cache_can_be_done_without(make_scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("difix3d.scene.cache.EXPENSIVE", 0)
    monkeypatch.setattr("difix3d.scene.cache.KEEP_FREE_BYTES", 0)
    scene = load_scene(make_scene(), resolution=16)
    for cache, kept in ((False, 0), (True, 1)):
        assert Views(scene, cache=cache)[0].image.shape[1] == 16
        assert len(list((tmp_path / "cache").rglob("*.npy"))) == kept


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _leave(monkeypatch, free=KEEP_FREE_BYTES)
    Image.new("RGB", (2400, 1800)).save(tmp_path / "large.jpg")
    assert read_reduced(tmp_path / "large.jpg", (160, 120), tmp_path / "cache").shape == (120, 160, 3)
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path):
    Image.new("RGB", (2400, 1800)).save(tmp_path / "large.jpg")
    (tmp_path / "file").touch()
    assert read_reduced(tmp_path / "large.jpg", (160, 120), tmp_path / "file" / "cache").shape == (120, 160, 3)


@pytest.mark.real
def test_fox_undistorted_is_fox(shared: Path):
    """COLMAP's undistorter made fox out of what fox_opencv holds; both went through JPEG."""
    ours = load_scene(require(shared / "scenes" / "fox_opencv"))
    theirs = load_scene(require(shared / "scenes" / "fox"))
    assert torch.allclose(ours.cameras.c2w, theirs.cameras.c2w, atol=1e-5)
    for i in (0, 25, 49):
        K = theirs.cameras.K[i].double()
        lens = Lens("PINHOLE", (float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])), *theirs.cameras.size)
        expected = decode(replace(theirs.photos[i], lens=lens), ours.cameras[i])[0].float()
        error = (decode(ours.photos[i], ours.cameras[i])[0].float() - expected).square().mean()
        assert 10 * torch.log10(255**2 / error) > 40


@pytest.mark.real
def test_large_photos_are_decoded_small(shared: Path):
    scene = load_scene(require(shared / "scenes" / "castle"), resolution=120)
    assert Views(scene)[0].image.shape == (80, 120, 3)
