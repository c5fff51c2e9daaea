"""Cameras of programs that are not read get a word before cameras are found anew."""

from pathlib import Path
from unittest.mock import Mock

import pytest
from ring_scene import write_photos

from difix3d.scene import photos
from difix3d.scene.foreign import foreign_cameras


@pytest.mark.parametrize(
    ("file", "whose"),
    [
        ("poses_bounds.npy", "LLFF"),
        ("bundle/bundle.rd.out", "Bundler"),
        ("scan.nvm", "VisualSFM"),
        ("opensfm/reconstruction.json", "OpenSfM"),
        ("Cameras.xml", "Metashape"),
        ("export/cameras.csv", "RealityScan"),
        ("keyframes/corrected_cameras/1.json", "Polycam"),
        ("MeshroomCache/StructureFromMotion/ab/sfm.abc", "Meshroom"),
        ("sparse/0/cameras.bin.gz", "unpacked"),
    ],
)
def test_files_of_other_programs_are_named(tmp_path: Path, file: str, whose: str):
    write_photos(tmp_path / "images", 3)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"x")
    assert whose in foreign_cameras(tmp_path)


@pytest.mark.parametrize("file", ["metadata.json", "notes.txt", "poses/photo.jpg", "mesh_info.json", "model.xml"])
def test_other_files_are_not(tmp_path: Path, file: str):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"{}")
    assert foreign_cameras(tmp_path) == ""


def test_it_is_said_before_cameras_are_found_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    write_photos(tmp_path / "images", 3)
    (tmp_path / "poses_bounds.npy").write_bytes(b"x")
    monkeypatch.setattr(photos, "find_cameras", Mock(side_effect=InterruptedError))
    with pytest.raises(InterruptedError):
        photos.reconstruct(tmp_path, tmp_path)
    assert "poses_bounds.npy (LLFF) seems to hold cameras, and is not read" in caplog.text
