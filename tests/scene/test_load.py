"""``load_scene``: what it makes of good input, and what it says of bad input."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ring_scene import write_ring

from difix3d.errors import UserError
from difix3d.scene import load_scene, visible_points


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_ring, tmp_path)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_scene_is_normalised_and_split(make_scene):
    scene = load_scene(make_scene())
    assert scene.name == "ring"
    assert scene.cameras.size == (32, 24)
    assert scene.test.tolist() == [0, 8]
    assert sorted([*scene.train, *scene.test]) == list(range(10))
    assert np.abs(scene.cameras.centers.numpy().mean(0)).max() < 1e-6
    assert 1 <= scene.extent < 1.5
    assert scene.photos[3].name == "003.png"
    assert scene.photos[3].lens is None
    assert scene.points.shape == (3, 3)
    assert scene.colors[2].tolist() == [200, 100, 2]


def test_from_input_takes_the_users_world_along(make_scene):
    folder = make_scene()
    ours, users = load_scene(folder), load_scene(folder, normalize=False)
    assert np.array_equal(users.from_input, np.eye(4))
    moved = users.points @ ours.from_input[:3, :3].T + ours.from_input[:3, 3]
    assert np.allclose(moved, ours.points)
    assert np.allclose(users.points[0], [5, 0, 0])
    pixel = [
        scene.cameras.K[4].double().numpy()
        @ (scene.cameras.w2c[4].double().numpy() @ np.append(scene.points[1], 1))[:3]
        for scene in (ours, users)
    ]
    assert np.allclose(pixel[0][:2] / pixel[0][2], pixel[1][:2] / pixel[1][2], atol=1e-3)


def test_points_seen_by_too_few_train_photos_are_known(make_scene):
    folder = make_scene()  # every point is seen by photos 0 and 1
    assert visible_points(load_scene(folder, split="none")).all()
    assert not visible_points(load_scene(folder, split="every:8")).any()  # photo 0 is held out
    assert visible_points(load_scene(folder, split="every:8"), at_least=1).all()


def test_resolution_is_the_long_side_and_never_enlarges(make_scene):
    folder = make_scene()
    small = load_scene(folder, resolution=16)
    assert small.cameras.size == (16, 12)
    assert small.cameras.K[0].tolist() == [[15, 0, 8], [0, 15, 6], [0, 0, 1]]
    assert load_scene(folder, resolution=4000).cameras.size == (32, 24)
    with pytest.raises(UserError, match="resolution is 3"):
        load_scene(folder, resolution=3)


def test_the_smallest_sufficient_folder_is_used(make_scene):
    folder = make_scene()
    for factor in (2, 4):
        (folder / f"images_{factor}").mkdir()
        for photo in (folder / "images").iterdir():
            Image.open(photo).resize((32 // factor, 24 // factor)).save(folder / f"images_{factor}" / photo.name)
    for resolution, used in ((None, "images"), (20, "images"), (16, "images_2")):
        assert load_scene(folder, resolution=resolution).photos[0].path.parent.name == used
    shutil.rmtree(folder / "images")
    scene = load_scene(folder)
    assert scene.photos[0].path.parent.name == "images_2"
    assert scene.cameras.size == (16, 12)


def test_rounded_sizes_are_accepted_and_K_follows(make_scene):
    folder = make_scene(camera="PINHOLE 33 25 30 30 16.5 12.5")
    scene = load_scene(folder)
    assert scene.cameras.size == (32, 24)
    assert scene.cameras.K[0, 0, 2] == 16


def test_sub_folders_and_several_cameras(make_scene):
    folder = make_scene()
    model = folder / "sparse" / "0"
    (folder / "images" / "left").mkdir()
    shutil.move(folder / "images" / "009.png", folder / "images" / "left" / "009.png")
    Image.open(folder / "images" / "008.png").resize((40, 30)).save(folder / "images" / "008.png")
    edit(model / "images.txt", "1 009.png", "1 left/009.png")
    edit(model / "images.txt", "1 008.png", "7 008.png")
    edit(model / "cameras.txt", "1 PINHOLE", "7 SIMPLE_PINHOLE 40 30 38 20 15\n1 PINHOLE")
    (folder / "split.json").write_text(json.dumps({"train": ["000.png", "001", "002.png"], "eval": ["left/"]}))
    scene = load_scene(folder)
    assert scene.photos[9].name == "left/009.png"
    assert scene.cameras.width[8:].tolist() == [40, 32]
    assert scene.train.tolist() == [0, 1, 2]
    assert scene.test.tolist() == [9]


def test_splits(make_scene, tmp_path: Path):
    folder = make_scene()
    names = [f"{i:03d}.png" for i in range(10)]
    assert load_scene(folder, split="none").test.tolist() == []
    assert load_scene(folder, split="every:3").test.tolist() == [0, 3, 6, 9]
    lists = {"train": names[:3], "eval": names[8:], "interpolation": {"train": names[1:], "eval": names[:1]}}
    (folder / "split.json").write_text(json.dumps(lists))
    for split, test in (("auto", [8, 9]), ("extrapolation", [8, 9]), ("interpolation", [0]), ("every:5", [0, 5])):
        assert load_scene(folder, split=split).test.tolist() == test
    (tmp_path / "mine.json").write_text(json.dumps({"train": names[4:], "test": names[:2]}))
    assert load_scene(folder, split=f"file:{tmp_path / 'mine.json'}").train.tolist() == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("content", "split", "message"),
    [
        ({"train": [], "eval": ["000.png"]}, "auto", "leaves no photo to train on"),
        ({"train": ["000.png"], "eval": ["0.png", "001.png"]}, "auto", r"1 of the 2 names .* first '0.png'"),
        ({"train": ["000.png"], "eval": ["000.png"]}, "auto", "in train and in eval, first 000.png"),
        ({"eval": ["000.png"]}, "auto", "no list 'train'"),
        ({"train": ["000.png"], "interpolation": {"train": []}}, "middle", "no split 'middle'.*interpolation"),
        (None, "middle", "has no split.json"),
        (None, "every:1", "all 10 are test"),
        (None, "every:x", "no valid number"),
        (None, "file:nowhere.json", "nowhere.json does not exist"),
        ('{"train": [1,\n}', "auto", "broken at line 2, column 1"),
    ],
)
def test_bad_splits(make_scene, content, split: str, message: str):
    folder = make_scene()
    if content is not None:
        (folder / "split.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=message):
        load_scene(folder, split=split)


def test_masks_are_found_by_both_names(make_scene):
    folder = make_scene()
    (folder / "masks").mkdir()
    for name in ("000.png.png", "001.png"):
        Image.new("L", (32, 24), 255).save(folder / "masks" / name)
    masks = [photo.mask for photo in load_scene(folder).photos]
    assert [mask.name for mask in masks[:2]] == ["000.png.png", "001.png"]
    assert masks[2:] == [None] * 8
    Image.new("L", (16, 24)).save(folder / "masks" / "001.png")
    with pytest.raises(UserError, match=r"001\.png is 16 x 24.*32 x 24"):
        load_scene(folder)


def test_an_unknown_name_is_answered_with_suggestions(tmp_path: Path):
    (tmp_path / "kitchen_mine").mkdir()
    with pytest.raises(UserError, match=r"no scene 'kitchen_mien'.*Did you mean kitchen_mine"):
        load_scene("kitchen_mien", data_dir=tmp_path)
    with pytest.raises(UserError, match="no valid seed"):
        load_scene("synthetic:x", data_dir=tmp_path)


def test_a_name_is_looked_up_in_the_data_folder(make_scene):
    assert len(load_scene("ring", data_dir=make_scene().parent).photos) == 10


@pytest.mark.parametrize(
    ("count", "message"), [(0, "0 photos with a camera"), (1, "1 photos with a camera.*at least 2")]
)
def test_too_few_cameras(make_scene, count: int, message: str):
    with pytest.raises(UserError, match=message):
        load_scene(make_scene(count, points=[]))


def test_missing_photos_are_counted_and_named(make_scene):
    folder = make_scene()
    for i in range(2, 7):
        (folder / "images" / f"00{i}.png").unlink()
    with pytest.raises(UserError, match=r"5 of the 10 photos .* missing: .*002\.png.*003\.png.*004\.png and 2 more"):
        load_scene(folder)


def test_photos_of_another_shape_are_named(make_scene):
    folder = make_scene()
    Image.new("RGB", (30, 30)).save(folder / "images" / "004.png")
    with pytest.raises(UserError, match=r"004\.png is 30 x 30 pixels.*camera is 32 x 24"):
        load_scene(folder)
    Image.new("RGB", (24, 32)).save(folder / "images" / "004.png")
    with pytest.raises(UserError, match="turned by 90 degrees"):
        load_scene(folder)
    (folder / "images" / "004.png").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"004\.png is unreadable"):
        load_scene(folder)


def test_no_points_are_allowed_and_said(make_scene, caplog: pytest.LogCaptureFixture):
    scene = load_scene(make_scene(points=[]))
    assert scene.points.shape == (0, 3)
    assert visible_points(scene).shape == (0,)
    assert "has no sparse points" in caplog.text


def test_points_at_infinity_are_left_out_with_their_observations(make_scene, caplog: pytest.LogCaptureFixture):
    points = ["5 0 0", "inf 0 0", "5 1 0", "1e12 0 0", "nan 0 0", "5 0 1", "6 0 0"]
    scene = load_scene(make_scene(points=points))
    assert "left out 3 of 7 points" in caplog.text
    assert scene.colors[:, 2].tolist() == [0, 2, 5, 6]
    assert np.unique(scene.observations[:, 0]).tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="None of the 2 points"):
        load_scene(make_scene(points=["nan 0 0", "inf 0 0"]))


@pytest.mark.parametrize(("old", "new"), [("1 003.png", "nan"), ("30 30 16 12", "nan 30 16 12")])
def test_poses_and_cameras_that_are_not_numbers(make_scene, old: str, new: str):
    folder = make_scene()
    model = folder / "sparse" / "0"
    if new == "nan":
        lines = (model / "images.txt").read_text().split("\n")
        row = next(i for i, line in enumerate(lines) if line.endswith(old))
        lines[row] = " ".join(["nan" if i == 2 else word for i, word in enumerate(lines[row].split())])
        (model / "images.txt").write_text("\n".join(lines))
    else:
        edit(model / "cameras.txt", old, new)
    with pytest.raises(UserError, match="pose or camera with NaN or infinity, first 00[03].png"):
        load_scene(folder)


def test_a_folder_without_anything(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no COLMAP model, no transforms\.json and 0 photos"):
        load_scene(tmp_path / "empty")
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(UserError, match="is not a scene"):
        load_scene(tmp_path / "note.txt")


def test_links_that_lead_nowhere_are_named(make_scene):
    folder = make_scene()
    for photo in (folder / "images").iterdir():
        photo.unlink()
        photo.symlink_to(f"/nowhere/{photo.name}")
    with pytest.raises(UserError, match=r"10 of the 10 photos of .* are links .* The first leads to /nowhere/000\.png"):
        load_scene(folder)


def test_a_split_is_of_names(make_scene):
    folder = make_scene()
    (folder / "split.json").write_text(json.dumps({"train": [0, 1, 2], "eval": [3]}))
    with pytest.raises(UserError, match="is no list of names"):
        load_scene(folder)
