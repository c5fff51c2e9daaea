"""Structure from motion: what is tried, what is kept, what is said. Real COLMAP runs are in test_photos.py."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difix3d.errors import UserError
from difix3d.interrupt import unwinding
from difix3d.sfm import cameras
from difix3d.sfm.database import Colmap, by_camera
from difix3d.sfm.listing import read_header
from difix3d.sfm.pairs import exhaustive, sequential, similar

pytest.importorskip("pycolmap")


class Model:
    """A stand-in for a reconstruction: so many photos with a camera, each with so many points."""

    def __init__(self, *photos: int, points: int = 50):
        self.images = {
            i: SimpleNamespace(name=f"{i:06d}.jpg", num_points3D=points, frame_id=i, image_id=i) for i in photos
        }
        self.registered = list(photos)

    def reg_image_ids(self) -> list[int]:
        return self.registered

    def deregister_frame(self, frame: int) -> None:
        self.registered.remove(frame)

    def write(self, folder: Path) -> None:
        (folder / "images.bin").write_text(" ".join(self.images[i].name for i in self.registered))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten photos, and a COLMAP that finds no features."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Colmap, "extract", lambda self, groups, panoramas, sensitive: None)
    monkeypatch.setattr(Colmap, "descriptors", lambda self: [np.zeros((0, 128), np.uint8)] * 10)
    monkeypatch.setattr(Colmap, "match", lambda self, pairs: len(pairs))
    for number in range(10):
        Image.new("RGB", (32, 24), (number, 0, 0)).save(tmp_path / f"my photo {number}.png")
    return tmp_path


def give(monkeypatch: pytest.MonkeyPatch, incremental: list[Any], globally: list[Any]) -> list[str]:
    """What the mappers return, call by call; returns the list that their calls are noted in."""
    calls: list[str] = []
    for name, models in (("incremental", incremental), ("globally", globally)):
        monkeypatch.setattr(Colmap, name, lambda self, name=name, models=models: (calls.append(name), models.pop(0))[1])
    return calls


def find(folder: Path, video: bool = False) -> Path:
    return cameras.find_cameras(folder, sorted(p.name for p in folder.glob("*.png")), folder, video, 0)


def test_one_way_is_enough_if_it_finds_most(photos: Path, monkeypatch, caplog):
    calls = give(monkeypatch, [[Model(7, 8, 9), Model(0, 1, 2, 3, 4)]], [])
    model = find(photos)
    assert calls == ["incremental"]
    assert model == photos / "sparse" / "0"
    assert (model / "images.bin").read_text().split(".png")[:2] == ["my photo 0", " my photo 1"]
    assert "parts of [5, 3] that do not join: the largest is taken" in caplog.text
    assert "found the cameras of 5 of 10 photos; left out: my photo 5.png" in caplog.text
    assert not list(photos.rglob(".sfm*"))
    assert not list((photos / "cache").rglob("*.png"))


def test_the_best_of_all_ways_is_kept(photos: Path, monkeypatch, caplog):
    calls = give(monkeypatch, [[Model(0, 1)], []], [[Model(*range(4)), Model(*range(10), points=3)], [Model(0, 1, 2)]])
    model = find(photos)
    assert calls == ["incremental", "globally"] * 2
    assert (model / "images.bin").read_text().count("photo") == 4
    assert "found the cameras of 4 of 10 photos" in caplog.text


def test_what_was_tried_is_said_before_giving_up(photos: Path, monkeypatch):
    calls = give(monkeypatch, [[], [], [], []], [[], [Model(1, 2)], [], []])
    with pytest.raises(
        UserError, match=r"Only 2 of the 10 photos.*each frame with its neighbours.*globally.*more feat"
    ):
        find(photos, video=True)
    assert len(calls) == 8
    assert not (photos / "sparse").exists()


def test_of_many_photos_those_that_look_alike_are_matched(photos: Path, monkeypatch):
    rng = np.random.default_rng(0)
    places = rng.integers(0, 255, (2, 60, 128), np.uint8)
    seen = [places[i % 2][rng.permutation(60)[:40]] for i in range(10)]
    matched: list[Any] = []
    monkeypatch.setattr(cameras, "EXHAUSTIVE", 5)
    monkeypatch.setattr(cameras, "ALIKE", (4, 8))
    monkeypatch.setattr(Colmap, "descriptors", lambda self: seen)
    monkeypatch.setattr(Colmap, "match", lambda self, pairs: matched.append(pairs) or len(pairs))
    give(monkeypatch, [[Model(0, 1, 2)], [Model(*range(10))]], [[]])
    find(photos)
    assert len(matched) == 2
    assert matched[0] == sequential(10, 5) | {(i, j) for i, j in exhaustive(10) if i % 2 == j % 2}
    assert matched[0] < matched[1]


def test_a_half_written_model_stays_and_is_named_before_the_work(photos: Path, monkeypatch, caplog):
    half = photos / "sparse" / "0" / "cameras.bin"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"mine")
    give(monkeypatch, [[Model(*range(10))]], [])
    assert find(photos) == photos / "sparse" / "1"
    assert half.read_bytes() == b"mine"
    assert "0 is no whole model" in caplog.text
    assert caplog.text.index("no whole") < caplog.text.index("found the")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(photos: Path, monkeypatch):
    calls = give(monkeypatch, [], [])
    (photos / "sparse").write_text("a file")
    with pytest.raises(UserError, match=r"Cannot write to .*sparse.*kept beside the photos"):
        find(photos)
    assert not calls


def test_ctrl_c_leaves_nothing(photos: Path, monkeypatch):
    def stop(self: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Colmap, "incremental", stop)
    with pytest.raises(KeyboardInterrupt):
        find(photos)
    assert not (photos / "sparse").exists()
    assert not list(photos.glob(".*"))


def test_being_terminated_unwinds_like_ctrl_c():
    import pycolmap  # noqa: F401  (which takes the signal for itself)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"), unwinding():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_being_terminated_unwinds_also_within_a_command_that_began_before_the_import():
    code = (
        "import signal; from difix3d.interrupt import unwinding\n"
        "with unwinding():\n"
        "    import pycolmap\n"
        "    with unwinding(): signal.raise_signal(signal.SIGTERM)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 128 + signal.SIGTERM


def test_photos_share_a_camera_by_folder_size_and_focal_length(tmp_path: Path):
    wide = Image.Exif()
    wide.get_ifd(0x8769)[0xA405] = 13
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = {"a": ((32, 24), None), "b": ((24, 32), None), "c": ((32, 24), wide), "d": ((32, 24), turned)}
    for name, (size, exif) in kinds.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.jpg", **({"exif": exif} if exif is not None else {}))
    (tmp_path / "left").mkdir()
    shutil.copy(tmp_path / "a.jpg", tmp_path / "left/a.jpg")
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "left/a.jpg"]
    assert by_camera(names, [read_header(tmp_path / name) for name in names]) == [[0], [1, 3], [2], [4]]


@pytest.mark.parametrize("suffix", [".webp", ".jpg"])
def test_colmap_is_given_what_it_can_read_upright(tmp_path: Path, suffix: str):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA405] = 26
    Image.new("RGB", (32, 24)).save(tmp_path / f"ünï côdé{suffix}", exif=exif)
    cameras._link(tmp_path / f"ünï côdé{suffix}", tmp_path, 7, 6)
    header = read_header(tmp_path / "000007.jpg")
    assert header.size == (24, 32)
    assert not header.sideways
    assert header.focal[1] == 26


def test_pairs():
    assert len(exhaustive(10)) == 45
    near = sequential(200)
    assert {(0, 1), (0, 10), (0, 16), (0, 128), (189, 199)} <= near
    assert (0, 11) not in near
    rng = np.random.default_rng(0)
    places = rng.integers(0, 255, (3, 60, 128), np.uint8)  # three places, four photos of each
    seen = [places[i % 3][rng.permutation(60)[:40]] for i in range(12)]
    assert similar(seen, 3, 0) == {(i, j) for i, j in exhaustive(12) if i % 3 == j % 3}
    none = np.zeros((0, 128), np.uint8)
    assert similar([none] * 4, 2, 0) == set()
    assert similar([none, *seen[1:]], 3, 0) >= similar(seen, 3, 0) - {(0, j) for j in range(12)}
