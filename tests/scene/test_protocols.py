"""Splits that a data set itself states."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from ring_scene import CAMERA, write_model, write_photos, write_ring

from difix3d.errors import UserError
from difix3d.scene import load_scene


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_ring, tmp_path)


def renamed(folder: Path, names: list[str]) -> Path:
    """The ring with other names for its photos."""
    for path, name in zip(sorted((folder / "images").glob("*.png")), names, strict=True):
        (folder / "images" / name).parent.mkdir(exist_ok=True)
        path.rename(folder / "images" / name)
    write_model(folder / "sparse" / "0", names, CAMERA)
    return folder


def names(scene, role: str) -> list[str]:
    return [scene.photos[i].name for i in getattr(scene, role)]


@pytest.mark.parametrize(
    ("called", "of"),
    [
        (lambda i: f"a_{'train' if i < 7 else 'eval'}_{i}.png", "Difix3D, nerfstudio"),
        (lambda i: f"{'train' if i < 7 else 'test'}/{i}.png", "Difix3D, nerfstudio"),
        (lambda i: f"frame_{'train' if i < 7 else 'val'}_{i:05d}.png", "nerfstudio"),
        (lambda i: f"frame_{i:05d}.png" if i < 7 else f"frame_1_{i:05d}.png", "Nerfbusters"),
    ],
)
def test_photos_names_say_what_is_held_out(make_scene, called: Callable[[int], str], of: str, caplog):
    folder = renamed(make_scene(), [called(i) for i in range(10)])
    scene = load_scene(folder)
    assert sorted(names(scene, "test")) == sorted(called(i) for i in range(7, 10))
    assert "split: 7 photos to train on, 3 held out, as the photos' names say" in caplog.text
    assert of in caplog.text
    assert len(load_scene(folder, split="every:5").test) == 2
    assert len(load_scene(folder, split="none").test) == 0


def test_names_that_are_of_no_protocol(make_scene, caplog: pytest.LogCaptureFixture):
    assert load_scene(renamed(make_scene(), [f"my_train_{i}.png" for i in range(10)])).test.tolist() == [0, 8]
    assert caplog.messages == []


def test_photos_in_neither_part_are_counted(make_scene, caplog: pytest.LogCaptureFixture):
    called = [f"{i}_{'train' if i < 5 else 'eval' if i < 8 else 'other'}_x.png" for i in range(10)]
    scene = load_scene(renamed(make_scene(), called))
    assert (len(scene.train), len(scene.test)) == (5, 3)
    assert "5 photos to train on, 3 held out, 2 in neither" in caplog.text


def write_transforms(folder: Path, count: int = 6, **meta) -> list[str]:
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": [[1, 0, 0, i], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}
        for i, name in enumerate(write_photos(folder / "images", count))
    ]
    keep = frames[: count - 2] if "test_frames" in meta else frames
    meta |= {"test_frames": frames[count - 2 :]} if "test_frames" in meta else {}
    (folder / "transforms.json").write_text(json.dumps({"fl_x": 30, **meta, "frames": keep}))
    return [frame["file_path"] for frame in frames]


@pytest.mark.parametrize(
    ("train", "test", "val", "split", "said"),
    [
        ([0, 1, 2], [3, 4], [5], ([0, 1, 2], [3, 4]), "1 in neither"),
        ([0, 1, 2, 3], [], [4, 5], ([0, 1, 2, 3], [4, 5]), "as the cameras' file says"),
        ([], [4, 5], [4, 5], ([0, 1, 2, 3], [4, 5]), "4 photos to train on, 2 held out"),
        ([0, 1, 2, 3, 4, 5], [4, 5], [], ([0, 1, 2, 3], [4, 5]), "2 photos are in train_filenames and held out"),
        (
            [0, 1, 2, 3, 9],
            [4],
            [],
            ([0, 1, 2, 3], [4]),
            "1 names in its lists of photos are of no frame, first images/9",
        ),
        ([], [], [], ([1, 2, 3, 4, 5], [0]), ""),
    ],
)
def test_nerfstudios_lists(tmp_path: Path, train, test, val, split, said: str, caplog: pytest.LogCaptureFixture):
    paths = [*write_transforms(tmp_path), *(f"images/{i}.png" for i in range(6, 10))]
    lists = {"train": train, "test": test, "val": val}
    write_transforms(tmp_path, **{f"{role}_filenames": [paths[i] for i in which] for role, which in lists.items()})
    scene = load_scene(tmp_path)
    assert (scene.train.tolist(), scene.test.tolist()) == split
    assert said in caplog.text


def test_scannetpp_has_test_frames(tmp_path: Path):
    write_transforms(tmp_path, test_frames=[])
    scene = load_scene(tmp_path)
    assert (scene.train.tolist(), scene.test.tolist()) == ([0, 1, 2, 3], [4, 5])


def test_lists_beside_the_photos(make_scene, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    (folder / "sparse" / "0" / "test.txt").write_text("# held out\n003.png\r\n004\nimages/005.png\ngone.png\n")
    assert load_scene(folder).test.tolist() == [3, 4, 5]
    assert "1 of 4 names are of no photo" in caplog.text
    (folder / "train_test_lists.json").write_text(json.dumps({"train": ["000.JPG", "001.JPG"], "test": ["009.JPG"]}))
    scene = load_scene(folder)
    assert (scene.train.tolist(), scene.test.tolist()) == ([0, 1], [9])
    (folder / "split.json").write_text(json.dumps({"train": ["images/000.png", "x\\001.jpg"], "eval": ["002"]}))
    assert load_scene(folder).train.tolist() == [0, 1]


def test_a_text_that_lists_no_photos_is_no_split(make_scene, caplog: pytest.LogCaptureFixture):
    folder = make_scene()
    (folder / "test.txt").write_text("just a test\n")
    assert load_scene(folder).test.tolist() == [0, 8]
    assert "test.txt is not used: none of its 1 names is of a photo, first just a test" in caplog.text
    (folder / "test.txt").write_text("003.png\n004.png\n", encoding="utf-16")
    assert load_scene(folder).test.tolist() == [3, 4]
    (folder / "test.txt").write_text("001.png\n")
    (folder / "train.txt").write_text("001.png\n002.png\n")
    with pytest.raises(UserError, match=r"1 photos are in train and in test.*test\.txt says, first 001\.png"):
        load_scene(folder)
