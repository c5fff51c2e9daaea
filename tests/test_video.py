"""Videos: the frames that went in come out, or there is no file."""

import subprocess

import imageio.v2 as imageio
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from difix3d.errors import UserError
from difix3d.video import video_writer


def read(path):
    with imageio.get_reader(path, "ffmpeg") as reader:
        return [np.asarray(frame) for frame in reader], reader.get_meta_data()


@pytest.mark.parametrize("size", [(40, 60), (37, 51)], ids=["even", "odd"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_frames_come_back(tmp_path, size, suffix):
    colors = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (255, 255, 255), (0, 0, 0)]
    path = tmp_path / "new" / f"clip{suffix}"
    with video_writer(path, 12.5) as write:
        for color in colors:
            write(np.full((*size, 3), color, np.uint8))
        assert not path.exists()
    frames, meta = read(path)
    assert meta["fps"] == 12.5
    assert len(frames) == len(colors)
    for frame, color in zip(frames, colors, strict=True):
        assert frame.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
        assert np.abs(frame.astype(int) - color).max() <= 6


@pytest.mark.parametrize("size", [(40, 60), (37, 52), (36, 51), (1, 1)])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_every_player_shows_it(tmp_path, size, suffix):
    path = tmp_path / f"clip{suffix}"
    with video_writer(path, 24.0) as write:
        write(np.full((*size, 3), 90, np.uint8))
    said = subprocess.run([get_ffmpeg_exe(), "-i", path], capture_output=True, text=True, check=False).stderr
    assert "h264" in said
    assert "yuv420p" in said
    if suffix != ".avi":  # which does not hold the name of the colours; the stream inside does
        assert "yuv420p(tv, bt709" in said
    if suffix in (".mp4", ".mov"):  # the index first
        data = path.read_bytes()
        assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_of_odd_sides_the_last_row_and_column_are_there_twice(tmp_path):
    frame = np.zeros((21, 31, 3), np.uint8)
    frame[-1], frame[:, -1] = (250, 250, 250), (250, 250, 250)
    with video_writer(tmp_path / "clip.mp4", 24.0) as write:
        write(frame)
    (read_back,), _ = read(tmp_path / "clip.mp4")
    assert read_back.shape == (22, 32, 3)
    assert read_back[-2:].min() > 200
    assert read_back[:, -2:].min() > 200
    assert read_back[:18, :28].max() < 40


def test_no_frames_no_file(tmp_path):
    with video_writer(tmp_path / "clip.mp4", 24.0):
        pass
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_after_an_error_and_the_old_file_stays(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")

    def fail():
        with video_writer(path, 24.0) as write:
            write(np.zeros((40, 60, 3), np.uint8))
            raise KeyError("of the caller")

    with pytest.raises(KeyError):
        fail()
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("clip.mp4", b"old")]


def test_all_frames_have_one_size(tmp_path):
    with (  # noqa: PT012 (the context is what is tested)
        pytest.raises(UserError, match=r"clip\.mp4 is 50 x 40 pixels.*the size of the first: 60 x 40"),
        video_writer(tmp_path / "clip.mp4", 24.0) as write,
    ):
        write(np.zeros((40, 60, 3), np.uint8))
        write(np.zeros((40, 50, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(UserError, match=r"Cannot write .*clip\.mp4 \(.*\)\. Free some space"),
        video_writer(tmp_path / "file" / "clip.mp4", 24.0) as write,
    ):
        write(np.zeros((40, 60, 3), np.uint8))
