"""Videos: the frames that went in come out, or there is no file."""

import imageio.v2 as imageio
import numpy as np
import pytest

from difix3d.errors import UserError
from difix3d.video import video_writer


def read(path):
    with imageio.get_reader(path, "ffmpeg") as reader:
        return [np.asarray(frame) for frame in reader], reader.get_meta_data()


@pytest.mark.parametrize("size", [(40, 60), (37, 51)], ids=["even", "odd"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
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
        assert frame.shape == (*size, 3)
        assert np.abs(frame.astype(int) - color).max() <= 6


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
