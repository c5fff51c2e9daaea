"""Layouts of the published data sets, as far as their documentation tells, with toy photos."""

import json
import shutil

import numpy as np
import pytest
from toy_benchmark import write_benchmark

from difix3d.benchmark import make_jobs, prepare, read_benchmark
from difix3d.benchmark.config import find_benchmark
from difix3d.benchmark.scenes import larger_cluster
from difix3d.errors import UserError
from difix3d.images import write_image
from difix3d.scene import load_scene

SIZE = (48, 40)


def write_colmap(folder, names, factor=1):
    """A text model of a camera of ``factor`` times the photos' size; the second half of the photos stands elsewhere."""
    folder.mkdir(parents=True)
    width, height = SIZE[0] * factor, SIZE[1] * factor
    (folder / "cameras.txt").write_text(f"1 PINHOLE {width} {height} {width} {width} {width / 2} {height / 2}\n")
    places = np.arange(len(names)) * 0.1 + 3 * (np.arange(len(names)) >= len(names) * 2 // 3)
    lines = [f"{i + 1} 1 0 0 0 {x} 0 2 1 {name}\n\n" for i, (name, x) in enumerate(zip(names, places, strict=True))]
    (folder / "images.txt").write_text("".join(lines))
    points = np.random.default_rng(0).uniform(-1, 1, (30, 3))
    (folder / "points3D.txt").write_text(
        "".join(f"{i + 1} {x} {y} {z} 9 99 199 0.5 1 0 2 0\n" for i, (x, y, z) in enumerate(points))
    )


def write_photos(folder, names):
    for i, name in enumerate(names):
        write_image(folder / name, np.full((SIZE[1], SIZE[0], 3), 10 * i, np.uint8))


def load(benchmark, scene, data, out):
    """A scene as its runs load it."""
    chosen = benchmark.choose([scene])
    prepare(chosen, data, out)
    settings = make_jobs(chosen, data, out, {})[-1].settings
    return load_scene(settings["scene"], data_dir=data, split=settings["split"], resolution=settings["resolution"])


def test_nerfbusters(tmp_path):
    names = [f"frame_{i:05}.png" for i in range(1, 7)] + [f"frame_1_{i:05}.png" for i in range(1, 4)]
    scene = tmp_path / "nerfbusters" / "aloe"
    write_colmap(scene / "colmap" / "sparse" / "0", names, factor=2)
    write_photos(scene / "images_2", names)
    (scene / "transforms.json").write_text("{}")
    benchmark = read_benchmark(find_benchmark("nerfbusters"), tmp_path)
    loaded = load(benchmark, "aloe", tmp_path, tmp_path / "out")
    assert [loaded.photos[i].name for i in loaded.train] == names[:6]
    assert [loaded.photos[i].name for i in loaded.test] == names[6:]
    shutil.rmtree(scene / "colmap")  # without the model, transforms.json has the same names
    pose = np.eye(4)
    frames = []
    for i, name in enumerate(names):
        pose[0, 3] = i
        frames.append({"file_path": f"images/{name}", "transform_matrix": pose.tolist()})
    (scene / "transforms.json").write_text(json.dumps({"fl_x": 96, "w": 96, "h": 80, "frames": frames}))
    again = load(benchmark, "aloe", tmp_path, tmp_path / "again")
    assert [again.photos[i].name for i in again.train] == names[:6]
    assert [again.photos[i].name for i in again.test] == names[6:]


def test_dl3dv(tmp_path):
    benchmark = read_benchmark(find_benchmark("dl3dv"), tmp_path)
    name = next(iter(benchmark.scenes))
    photos = [f"frame_{i:05}.png" for i in range(1, 10)]
    folder = tmp_path / "dl3dv" / name / "gaussian_splat"
    write_colmap(folder / "sparse" / "0", photos, factor=4)
    write_photos(folder / "images_4", photos)
    loaded = load(benchmark, name, tmp_path, tmp_path / "out")
    assert [loaded.photos[i].name for i in loaded.train] == photos[:6]
    assert [loaded.photos[i].name for i in loaded.test] == photos[6:]
    assert (loaded.cameras.width[0], loaded.cameras.height[0]) == SIZE
    with pytest.raises(UserError, match=r"27 of 28 scenes of DL3DV are missing.*gaussian_splat.*licence.*--scenes"):
        prepare(benchmark, tmp_path, tmp_path / "out")


def test_scenes_that_can_be_downloaded_are_not_missing(tmp_path, monkeypatch):
    from difix3d.benchmark import scenes

    fetched = []
    monkeypatch.setattr(scenes, "find_source", lambda place, data: fetched.append(place))
    benchmark = read_benchmark(find_benchmark("mipnerf360"), tmp_path)
    prepare(benchmark.choose(["garden", "room"]), tmp_path, tmp_path)
    assert fetched == ["garden", "room"]


def test_a_split_without_photos(tmp_path):
    names = ["x.png", "y.png"]
    write_colmap(tmp_path / "a" / "sparse" / "0", names)
    write_photos(tmp_path / "a" / "images", names)
    text = "name: n\nscenes: [a]\nmethods: {3dgs: }\nsplit: {train: ['*.png'], eval: ['frame_1_*']}\n"
    benchmark = read_benchmark(write_benchmark(tmp_path, text), tmp_path)
    with pytest.raises(UserError, match=r"No photo of .*a is in 'eval'.*2 photos have names like 'x.png'"):
        prepare(benchmark, tmp_path, tmp_path / "out")


def test_the_larger_of_two_clusters():
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.normal(0, 0.3, (7, 3)), rng.normal(4, 0.3, (12, 3))])
    order = rng.permutation(19)
    np.testing.assert_array_equal(larger_cluster(points[order]), (order >= 7))
    np.testing.assert_array_equal(larger_cluster(np.eye(3)[[0, 1]]), [True, False])
