"""The embedded scenes: exact, the same every time, rich in variants, and an ordinary capture when written."""

import json
import math
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

from difix3d import native
from difix3d.errors import UserError
from difix3d.synthetic import DEMO_SEED, SPLITS, SyntheticScene, capture, parse, write_scene
from difix3d.synthetic.shapes import Lathe, Material, Quad, Quads, box, vec

SIZE = 96, 72
BLANK = Material(torch.full((2, 2, 3), 0.5))


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return SyntheticScene(3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_scene(3, tmp_path_factory.mktemp("synthetic") / "scene", *SIZE)


# --- shapes ----------------------------------------------------------------------------------------------


def rays(n: int = 2000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rays from a shell toward the middle."""
    rng = torch.Generator().manual_seed(seed)
    origin = 5 * torch.nn.functional.normalize(torch.randn(n, 3, generator=rng), dim=1)
    return origin, 0.6 * torch.randn(n, 3, generator=rng) - origin


def test_sphere_as_a_lathe():
    arc = torch.linspace(-1.5, 1.5, 1001)  # all but the poles, where the profile is flat
    ball = Lathe(vec(0, 0, 0), torch.stack([arc.cos(), arc.sin()], 1), BLANK)
    origin, direction = rays(300)
    t, u, v, _ = ball.hit(origin, direction)
    b, c = (origin * direction).sum(1), (origin * origin).sum(1) - 1
    a = (direction * direction).sum(1)
    inner = b * b - a * c
    exact = (-b - inner.clamp(min=0).sqrt()) / a
    hit = (inner > 1e-2) & ((origin + exact[:, None] * direction)[:, 2].abs() < 0.95)
    torch.testing.assert_close(t[hit], exact[hit], atol=2e-4, rtol=0)
    assert (t[inner < -1e-2] == math.inf).all()
    points, normals = ball.at(u[hit], v[hit])
    torch.testing.assert_close(points, (origin + t[:, None] * direction)[hit], atol=2e-4, rtol=0)
    torch.testing.assert_close(normals, points, atol=5e-3, rtol=0)


def test_box_of_quads():
    half = (1.0, 0.5, 0.7)
    faces = box(vec(0, 0, 0), half, [BLANK] * 6, torch.eye(3))
    origin, direction = rays()
    t, u, v, index = Quads(faces).hit(origin, direction)
    slabs = torch.stack([(-torch.tensor(half) - origin) / direction, (torch.tensor(half) - origin) / direction])
    enter, leave = slabs.amin(0).amax(1), slabs.amax(0).amin(1)
    hit = enter < leave - 1e-4
    torch.testing.assert_close(t[hit], enter[hit], atol=1e-5, rtol=1e-5)
    assert (t[enter > leave + 1e-4] == math.inf).all()
    for k, face in enumerate(faces):
        here = hit & (index == k)
        points, normals = face.at(u[here], v[here])
        torch.testing.assert_close(points, (origin + t[:, None] * direction)[here], atol=1e-4, rtol=0)
        assert (normals * points).sum(1).min() > 0.4  # outwards


def test_leaf_is_cut_out():
    leaf = Quad(vec(0, 0, 0), vec(1, 0, 0), vec(0, 1, 0), BLANK, leaf=True)
    origin = torch.tensor([[0.5, 0.5, 1.0], [0.02, 0.03, 1.0], [0.95, 0.95, 1.0]])
    assert torch.isfinite(Quads([leaf]).hit(origin, vec(0, 0, -1).expand(3, 3))[0]).tolist() == [True, False, False]


def test_flat_step_of_a_profile():
    with pytest.raises(ValueError, match="flat step 1"):
        Lathe(vec(0, 0, 0), torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), BLANK)


# --- rendering -------------------------------------------------------------------------------------------


def test_native_is_its_twin(scene, monkeypatch):
    if native.load() is None:
        pytest.skip("no compiler")
    camera = scene.cameras("train", *SIZE)[4]
    fast = scene.render(camera)
    d = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    o = 0.3 * d.flip(0) + vec(0, -3, 2)
    blocked = scene.world.occluded(o, 6 * d)
    monkeypatch.setattr(native, "load", lambda: None)
    slow = scene.render(camera)
    torch.testing.assert_close(fast.depth, slow.depth, atol=1e-3, rtol=1e-4)
    assert (fast.rgb - slow.rgb).abs().mean() < 1e-5
    assert ((fast.rgb - slow.rgb).abs() > 2e-2).float().mean() < 1e-3  # rays that graze an edge
    assert (blocked != scene.world.occluded(o, 6 * d)).float().mean() < 2e-3


def test_same_seed_same_pixels(scene):
    camera = scene.cameras("extrapolation", *SIZE)[2]
    threads = torch.get_num_threads()
    first = scene.render(camera).rgb
    try:
        torch.set_num_threads(3)
        again = SyntheticScene(3)
        assert torch.equal(again.cameras("extrapolation", *SIZE)[2].c2w, camera.c2w)
        assert torch.equal(again.render(camera).rgb, first)
    finally:
        torch.set_num_threads(threads)


def test_seeds_differ(scene):
    other = SyntheticScene(4)
    pair = [s.render(s.cameras("train", *SIZE)[10], depth=False).rgb for s in (scene, other)]
    assert (pair[0] - pair[1]).abs().mean() > 0.1
    assert scene.layout.distance != other.layout.distance


def test_picture_is_a_picture(scene):
    out = scene.render(scene.cameras("train", *SIZE)[::9])
    assert out.rgb.shape == (3, SIZE[1], SIZE[0], 3)
    assert out.alpha.min() == 1
    assert torch.isfinite(out.depth).all()
    assert out.depth.min() > 1
    assert out.rgb.min() >= 0
    assert out.rgb.max() <= 1
    assert 0.2 < out.rgb.mean() < 0.7
    assert out.rgb.std() > 0.1


def lifted(scene: SyntheticScene, camera, depth: torch.Tensor) -> torch.Tensor:
    """World points of all pixels, from the depth along the optical axis."""
    height, width = depth.shape[:2]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    local = torch.stack([x, y, torch.ones_like(x)], 2).reshape(-1, 3) @ torch.linalg.inv(camera.K[0]).T
    return camera.centers + (depth.reshape(-1, 1) * local) @ camera.c2w[0, :3, :3].T


def test_depth_lies_on_the_surfaces(scene):
    camera, other = scene.cameras("train", *SIZE)[6], scene.cameras("train", *SIZE)[7]
    depth = scene.render(camera).depth[0]
    points = lifted(scene, camera, depth)
    pixels, seen = scene.visible(camera, points)
    height, width = depth.shape[:2]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    torch.testing.assert_close(pixels, torch.stack([x, y], 2).reshape(-1, 2), atol=1e-3, rtol=0)
    inside = ((pixels > 1) & (pixels < torch.tensor(SIZE) - 1)).all(1)
    assert seen[inside].float().mean() > 0.999
    pixels, seen = scene.visible(other, points)
    ray = points - other.centers
    again = scene.world.trace(other.centers, ray).t
    assert (again[seen] - 1).abs().max() < 3e-3
    assert (again <= 1 + 1e-3).all()  # nothing is seen through


def test_diffuse_points_look_alike_from_two_sides(scene):
    a, b = scene.cameras("train", *SIZE)[6], scene.cameras("train", *SIZE)[12]
    points = lifted(scene, a, scene.render(a).depth[0])
    _, seen = scene.visible(b, points)
    colors = []
    for camera in (a, b):
        ray = points - camera.centers
        hits = scene.world.trace(camera.centers, ray)
        colors.append(scene.world.radiance(hits))
    both = seen & (scene.world.trace(a.centers, points - a.centers).t > 0.999)
    assert both.float().mean() > 0.4
    assert (colors[0] - colors[1])[both].abs().quantile(0.98) < 1e-3


def test_shadow_rays(scene):
    light = scene.layout.light
    middle, face = light.at(torch.tensor([0.5]), torch.tensor([0.5]))
    below = vec(0, 0, -0.2)[None]  # inside the table's board
    above = middle + face
    assert scene.world.occluded(below, middle - below).all()
    assert not scene.world.occluded(above, middle - above).any()


def test_splits(scene):
    centers = {split: scene.cameras(split).centers for split in SPLITS}
    assert {split: len(c) for split, c in centers.items()} == SPLITS
    spacing = (centers["train"][1:] - centers["train"][:-1]).norm(dim=1).median()
    reach = {split: torch.cdist(c, centers["train"]).amin(1) / spacing for split, c in centers.items()}
    assert reach["interpolation"].max() < 2
    assert reach["extrapolation"].min() > 1.5
    assert reach["extrapolation"].max() > 4


# --- captures --------------------------------------------------------------------------------------------


def test_capture_is_a_colmap_model(folder):
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    assert model.num_images() == sum(SPLITS.values())
    assert model.num_points3D() > 1000
    model.update_point_3d_errors()
    errors = np.array([point.error for point in model.points3D.values()])
    assert np.median(errors) < 0.7
    assert (errors > 3).mean() < 0.1
    for image in model.images.values():
        with Image.open(folder / "images" / image.name) as picture:
            assert picture.size == SIZE
            assert picture.mode == "RGB"


def test_points_are_seen_by_two_training_cameras(folder, scene):
    split = json.loads((folder / "split.json").read_text())
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    train = {key for key, image in model.images.items() if image.name in split["train"]}
    for point in model.points3D.values():
        assert len({element.image_id for element in point.track.elements} & train) >= 2
    cameras = scene.cameras("train", *SIZE)
    poses = {image.name: image.cam_from_world().matrix() for image in model.images.values()}
    for name, w2c in zip(split["train"], cameras.w2c, strict=True):
        np.testing.assert_allclose(poses[name], w2c[:3], atol=1e-5)


def test_splits_are_disjoint(folder):
    split = json.loads((folder / "split.json").read_text())
    names = {path.name for path in (folder / "images").iterdir()}
    assert {*split["train"], *split["eval"], *split["unused"]} == names
    assert len(names) == len(split["train"]) + len(split["eval"]) + len(split["unused"])
    assert not set(split["interpolation"]["train"]) & set(split["interpolation"]["eval"])


def test_a_finished_capture_is_kept_and_an_old_one_made_anew(folder, monkeypatch):
    class Rendering(Exception):
        pass

    def render(*_):
        raise Rendering

    monkeypatch.setattr(capture, "SyntheticScene", render)
    assert write_scene(3, folder, *SIZE) == folder
    marker = folder / capture.MARKER
    stamp = marker.read_text()
    marker.write_text(stamp.replace("generator", "renderer"))
    with pytest.raises(Rendering):
        write_scene(3, folder, *SIZE)
    marker.write_text(stamp)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(capture, "sparse_points", fail)
    with pytest.raises(KeyboardInterrupt):
        write_scene(3, tmp_path / "scene", 32, 24)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_users_own_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="was not made by the generator"):
        write_scene(3, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_full_disk(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(capture, "_fill", fail)
    with pytest.raises(UserError, match=r"No space left.*--data-dir"):
        write_scene(3, tmp_path / "scene", 32, 24)
    assert list(tmp_path.iterdir()) == []


def test_parse():
    assert parse("demo") == DEMO_SEED
    assert parse("synthetic:12") == 12
    assert parse("garden") is None
    for source in ("synthetic:x", "synthetic:-1", "synthetic:", "synthetic:1.5", "synthetic:5000000000"):
        with pytest.raises(UserError, match="no valid seed"):
            parse(source)
