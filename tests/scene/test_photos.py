"""Photos and videos without cameras."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from shared_data import require

from difix3d.errors import UserError
from difix3d.images import image_size, read_image
from difix3d.scene import load_scene
from difix3d.scene.photos import extract_frames


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two seconds at 10 frames per second; in each half second the third frame is sharp."""
    iio = pytest.importorskip("imageio.v3")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (20, 64, 96, 3), np.uint8)
    frames = [noise[i] if i % 5 == 2 else np.full_like(noise[i], 10 * i) for i in range(20)]
    iio.imwrite(tmp_path / "walk.mp4", np.stack(frames), plugin="FFMPEG", fps=10, macro_block_size=16)
    return tmp_path / "walk.mp4"


def test_the_sharpest_frames_of_a_video_are_kept(video: Path, tmp_path: Path):
    folder = extract_frames(video, tmp_path / "data")
    assert folder == tmp_path / "data" / "walk"
    frames = sorted((folder / "images").iterdir())
    assert [frame.name for frame in frames] == [f"0000{i}.jpg" for i in range(4)]
    assert all(read_image(frame).std() > 30 for frame in frames)
    assert image_size(frames[0]) == (96, 64)
    stamp = frames[0].stat().st_mtime_ns
    assert extract_frames(video, tmp_path / "data") == folder
    assert frames[0].stat().st_mtime_ns == stamp


def test_a_broken_video_leaves_nothing(tmp_path: Path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"bad\.mp4 cannot be read"):
        load_scene(tmp_path / "bad.mp4", data_dir=tmp_path / "data")
    assert not (tmp_path / "data" / "bad").exists()


def test_a_broken_video_takes_nothing_with_it(tmp_path: Path):
    garage = tmp_path / "data" / "garage"
    (garage / "raw").mkdir(parents=True)
    for name in ("garage.mp4", "raw/1.jpg"):
        (garage / name).write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"garage\.mp4 cannot be read"):
        load_scene(garage / "garage.mp4", data_dir=tmp_path / "data")
    assert sorted(path.name for path in garage.rglob("*")) == ["1.jpg", "garage.mp4", "raw"]
    (tmp_path / "data" / "empty").mkdir()
    (tmp_path / "empty.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"empty\.mp4 cannot be read"):
        load_scene(tmp_path / "empty.mp4", data_dir=tmp_path / "data")
    assert (tmp_path / "data" / "empty").is_dir()


def test_photos_without_overlap_are_refused(tmp_path: Path):
    pytest.importorskip("pycolmap")
    from PIL import Image

    for i in range(3):
        Image.new("RGB", (64, 48), (80 * i, 10, 10)).save(tmp_path / f"{i}.png")
    with pytest.raises(UserError, match="Only 0 of the 3 photos could be placed.*overlap"):
        load_scene(tmp_path)
    assert not (tmp_path / "sparse").exists()
    assert not list(tmp_path.glob(".sfm*"))


@pytest.mark.slow
@pytest.mark.real
def test_cameras_are_found_and_kept(shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pytest.importorskip("pycolmap")
    source = require(shared / "scenes" / "fox_opencv")
    names = [f"{i:04d}.jpg" for i in (1, 2, 3, 4, 6, 7, 8, 9)]
    for name in names:
        shutil.copy(source / "images" / name, tmp_path / name)
    scene = load_scene(tmp_path)
    assert "found the cameras of 8 of 8 photos" in caplog.text
    assert float(scene.cameras.K[0, 0, 0]) == pytest.approx(344, rel=0.1)
    again = load_scene(tmp_path)
    assert (again.cameras.c2w == scene.cameras.c2w).all()
    known = load_scene(source, split="none", normalize=False)
    picked = [i for i, photo in enumerate(known.photos) if photo.name in names]
    x, y = known.cameras.centers[picked].double().numpy(), scene.cameras.centers.double().numpy()
    x, y = x - x.mean(0), y - y.mean(0)
    u, stretch, vh = np.linalg.svd(y.T @ x)
    fitted = stretch.sum() / (x**2).sum() * x @ (u @ vh).T
    assert np.abs(fitted - y).max() < 0.1
