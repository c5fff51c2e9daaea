"""The frames of videos: whose they are, which way up, and what of a damaged video is kept."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from difix3d.errors import UserError
from difix3d.images import image_size, read_image
from difix3d.sfm.frames import extract_frames, list_frames

ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()


def make(path: Path, *options: str, colour: str = "red", seconds: float = 2, rate: int = 10) -> Path:
    """A video of one colour, with a moving bar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = f"color={colour}:s=96x64:r={rate}:d={seconds}"
    command = [ffmpeg, "-v", "error", "-y", "-f", "lavfi", "-i", source, *options, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def colour(folder: Path) -> np.ndarray:
    root, names = list_frames(folder)
    return read_image(root / names[0]).mean((0, 1)).round()


def test_two_videos_of_one_name_keep_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = tmp_path / "data"
    monday = make(tmp_path / "monday/IMG_0001.MOV")
    tuesday = make(tmp_path / "tuesday/IMG_0001.MOV", colour="blue")
    first, second = extract_frames(monday, data), extract_frames(tuesday, data)
    assert (first.name, second.name) == ("IMG_0001", "IMG_0001-2")
    assert colour(first)[0] > 200
    assert colour(second)[2] > 200
    assert "IMG_0001 holds frames of another video" in caplog.text
    caplog.clear()
    assert (extract_frames(monday, data), extract_frames(tuesday, data)) == (first, second)
    moved = tmp_path / "wednesday/IMG_0001.MOV"
    moved.parent.mkdir()
    shutil.move(tuesday, moved)
    os.utime(moved)
    assert extract_frames(moved, data) == second
    assert not caplog.records
    make(monday, colour="lime")  # recorded anew under the same name
    assert colour(extract_frames(monday, data))[1] > 200
    assert colour(first)[0] > 200


def test_frames_of_an_older_version_are_taken_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    video = make(tmp_path / "walk.mp4")
    folder = extract_frames(video, tmp_path)
    (folder / "video.json").unlink()
    assert extract_frames(video, tmp_path) == folder
    assert "made by an older version" in caplog.text
    (folder / "images/00000.jpg").rename(folder / "images/my photo.jpg")
    assert extract_frames(video, tmp_path).name == "walk-2"


def test_a_video_may_lie_in_the_folder_that_its_frames_go_to(tmp_path: Path):
    video = make(tmp_path / "garage/garage.mp4")
    assert extract_frames(video, tmp_path) == tmp_path / "garage"
    assert sorted(p.name for p in (tmp_path / "garage").iterdir()) == ["garage.mp4", "images", "video.json"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.MOV", ["-pix_fmt", "yuv420p"]),
        ("a.webm", ["-c:v", "libvpx", "-pix_fmt", "yuv420p"]),
        ("a.m4v", ["-pix_fmt", "yuv420p"]),
        ("a.gif", []),
        ("a.AVI", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]),
        ("hdr.mkv", ["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=error"]),
        ("slow motion.mp4", ["-r", "240", "-pix_fmt", "yuv420p"]),
        ("uneven.mp4", ["-vf", "select='lt(n,5)+not(mod(n,4))'", "-fps_mode", "vfr", "-pix_fmt", "yuv420p"]),
    ],
)
def test_usual_videos(tmp_path: Path, name: str, options: list[str]):
    folder = extract_frames(make(tmp_path / name, *options), tmp_path / "data")
    assert len(list_frames(folder)[1]) in (3, 4, 5)  # two a second, by the clock
    assert colour(folder)[0] > 200
    assert image_size(folder / "images/00000.jpg") == (96, 64)


def test_videos_of_phones_stand_upright(tmp_path: Path):
    flat = make(tmp_path / "flat.mp4", "-vf", "drawbox=0:0:48:64:white:fill", "-pix_fmt", "yuv420p")
    turned = tmp_path / "turned.mov"
    command = [ffmpeg, "-v", "error", "-display_rotation", "90", "-i", flat, "-c", "copy", turned]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    folder = extract_frames(turned, tmp_path / "data")
    frame = read_image(folder / "images/00000.jpg")
    assert frame.shape == (96, 64, 3)
    low, high = sorted([frame[:40].mean(), frame[-40:].mean()])
    assert high > 240 > 120 > low  # white lies above or below red, no longer beside it


def test_hdr_of_phones_is_not_washed_out(tmp_path: Path):
    tags = ["-color_primaries", "bt2020", "-color_trc", "arib-std-b67", "-colorspace", "bt2020nc"]
    hlg = "zscale=tin=bt709:min=bt709:pin=bt709:rin=tv:t=arib-std-b67:m=bt2020nc:p=bt2020:r=tv:npl=300,"
    options = ["-vf", f"format=yuv444p,{hlg}format=yuv420p10le", "-c:v", "libx265", "-x265-params", "log-level=error"]
    folder = extract_frames(make(tmp_path / "hdr.mov", *options, *tags), tmp_path / "data")
    red, green, blue = colour(folder)
    assert red > 180
    assert max(green, blue) < 60


def test_a_video_that_was_cut_short_gives_what_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    options = ["-vf", "noise=alls=80:allf=t", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    video = make(tmp_path / "cut.mp4", *options, seconds=6)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    folder = extract_frames(video, tmp_path / "data")
    assert 3 <= len(list_frames(folder)[1]) <= 9
    assert "cut short or damaged" in caplog.text
    assert "of 6.0 seconds could be read" in caplog.text


def test_what_is_no_video_is_named(tmp_path: Path):
    whole = make(tmp_path / "whole.mp4", "-pix_fmt", "yuv420p").read_bytes()
    (tmp_path / "no index.mp4").write_bytes(whole[:700])
    (tmp_path / "empty.mp4").touch()
    sound = ["-f", "lavfi", "-i", "sine=d=1", "-map", "1:a"]
    make(tmp_path / "sound.mp4", *sound)
    for name, says in (
        ("no index.mp4", "cannot be read: its end is missing"),
        ("empty.mp4", "is empty"),
        ("sound.mp4", "cannot be read: it has sound, but no pictures"),
    ):
        with pytest.raises(UserError, match=f"{name} {says}"):
            extract_frames(tmp_path / name, tmp_path / "data")
    assert not list((tmp_path / "data").glob("*"))
    with pytest.raises(UserError, match="gave 2 frames.*Film for"):
        list_frames(extract_frames(make(tmp_path / "short.mp4", seconds=1), tmp_path / "data"))
