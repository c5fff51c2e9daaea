"""Files that Git LFS has not fetched are not called damaged, whatever they should be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from difix3d.errors import UserError
from difix3d.files import read_json
from difix3d.gaussians import read_splats
from difix3d.images import image_size
from difix3d.scene.pointcloud import read_points
from difix3d.sfm.frames import extract_frames


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.png", image_size),
        ("transforms.json", read_json),
        ("a.ply", read_splats),
        ("a.splat", read_splats),
        ("points.ply", read_points),
        ("a.mp4", lambda path: extract_frames(path, path.parent / "data")),
    ],
)
def test_pointers_of_git_lfs_and_empty_files(tmp_path: Path, name: str, read: Callable[[Path], object]):
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match=rf"{name} is a pointer of Git LFS.*git lfs pull"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=f"{name} is empty"):
        read(path)
