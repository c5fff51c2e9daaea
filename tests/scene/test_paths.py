"""Camera paths: ready-made, nerfstudio's and our own files, in whatever world they are."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from difix3d.errors import UserError
from difix3d.geometry.normalize import transform_poses
from difix3d.geometry.poses import look_at
from difix3d.geometry.warp import project
from difix3d.scene.pathfile import CameraPath, read_path, write_path
from difix3d.scene.paths import FPS, PATHS, fit, focus_of, natural_path, path_cameras
from difix3d.types import Cameras

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def similarity(scale: float, seed: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = scale * Rotation.random(random_state=seed).as_matrix()
    matrix[:3, 3] = [3.0, -2.0, 5.0]
    return matrix


@pytest.fixture
def scene(toy_scene):
    """The toy scene, as if its files were in a world four times as large, turned and shifted."""
    return replace(toy_scene, from_input=similarity(0.25, seed=1))


@pytest.fixture
def user_poses(scene):
    """The training poses in the user's world."""
    return transform_poses(np.linalg.inv(scene.from_input), scene.cameras.c2w.double().numpy())


def nerfstudio(poses, **changes) -> dict:
    frames = [{"camera_to_world": (pose @ FLIP).flatten().tolist(), "fov": 50, "aspect": 1.5} for pose in poses]
    return {"camera_type": "perspective", "render_height": 40, "render_width": 60, "fps": 30, "seconds": 1.0} | {
        "camera_path": frames,
        **changes,
    }


def own(**changes) -> dict:
    camera = {"c2w": np.eye(4).tolist(), "K": [[50.0, 0, 30], [0, 50.0, 20], [0, 0, 1]], "width": 60, "height": 40}
    return {"format": "difix3d camera path", "version": 1, "fps": 24, "cameras": [camera, camera | changes]}


def save(folder, content, name="camera_path.json"):
    (folder / name).write_text(json.dumps(content))
    return folder / name


def assert_same(a: Cameras, b: Cameras) -> None:
    torch.testing.assert_close(a.c2w, b.c2w, atol=1e-6, rtol=0)
    torch.testing.assert_close(a.K, b.K)
    assert a.width.tolist() == b.width.tolist()
    assert a.height.tolist() == b.height.tolist()


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("frames", [1, 7])
def test_ready_made_paths_have_the_first_training_cameras_lens(scene, name, frames):
    path = path_cameras(name, scene, frames)
    assert path.fps == FPS
    assert path.cameras.c2w.shape == (frames, 4, 4)
    assert path.cameras.size == (48, 40)
    first = scene.cameras[int(scene.train[0])]
    assert torch.equal(path.cameras.K, first.K.expand(frames, 3, 3))
    identity = path.cameras.c2w[:, :3, :3] @ path.cameras.c2w[:, :3, :3].mT
    torch.testing.assert_close(identity, torch.eye(3).expand(frames, 3, 3), atol=1e-5, rtol=0)


def facing(scene, outward, points):
    """The scene as seven cameras see it that face one way, from z = 0, and as much outward; with these points."""
    x = torch.linspace(-1, 1, 7)
    centers = torch.stack([x, torch.zeros(7), 0.3 * x.square()], 1)
    ahead = torch.stack([outward * x, torch.zeros(7), torch.ones(7)], 1)
    c2w = look_at(centers, centers + ahead, torch.tensor([0.0, -1.0, 0.0]))
    K, size = torch.tensor([[40.0, 0, 24], [0, 40, 20], [0, 0, 1]]).expand(7, 3, 3), torch.tensor([48] * 7)
    cameras = Cameras(c2w, K.clone(), size, size - 8)
    colors = np.zeros(points.shape, np.uint8)
    return replace(scene, cameras=cameras, train=np.arange(7), photos=scene.photos[:7], points=points, colors=colors)


@pytest.mark.parametrize("outward", [0.0, 0.02, 0.2])
def test_cameras_that_face_one_way_look_at_what_they_see(scene, outward):
    """Their axes do not say how far away that is; the points do, but for those that no camera sees."""
    rng = np.random.default_rng(0)
    wall = np.column_stack([rng.uniform(-9, 9, (500, 2)), rng.normal(12, 0.1, 500)]).astype(np.float32)
    behind = np.column_stack([rng.uniform(-1, 1, (900, 2)), rng.uniform(-3, -1, 900)]).astype(np.float32)
    seen = facing(scene, outward, np.concatenate([behind, wall]))
    assert float(focus_of(seen)[2]) == pytest.approx(12, abs=0.5)
    spiral = path_cameras("spiral", seen, 8).cameras
    pixels, _ = project(torch.tensor([0.0, 0.0, 12.0]), spiral[0])
    assert (pixels - torch.tensor([24.0, 20.0])).abs().max() < 3
    alone = focus_of(facing(scene, outward, wall[:0]))
    assert 1 < float(alone[2]) < 4  # without any: some spreads of the cameras


def test_cameras_whose_axes_meet_look_there_whatever_is_behind(scene):
    far = np.random.default_rng(0).normal(0, 1, (500, 3))
    far = (10 * far / np.linalg.norm(far, axis=1, keepdims=True)).astype(np.float32)
    backdrop = replace(scene, points=far, colors=np.zeros(far.shape, np.uint8))
    torch.testing.assert_close(focus_of(backdrop), focus_of(scene), atol=0.1, rtol=0)


def test_interp_goes_through_the_training_cameras_in_the_order_of_the_photos(scene):
    shuffled = replace(scene, train=scene.train[::-1].copy())
    path = path_cameras("interp", shuffled, 2 * len(scene.train) - 1)
    torch.testing.assert_close(path.cameras.c2w[::2], scene.cameras.c2w[scene.train], atol=1e-5, rtol=0)


def test_one_training_camera_is_enough(scene):
    lonely = replace(scene, train=scene.train[:1])
    for name in PATHS:
        assert torch.isfinite(path_cameras(name, lonely, 5).cameras.c2w).all()


def test_wrong_names_and_numbers(scene, tmp_path):
    with pytest.raises(UserError, match=r"no camera path 'elipse'.*ellipse, spiral, interp or a JSON file"):
        path_cameras("elipse", scene, 5)
    with pytest.raises(UserError, match="number of frames is 0.*at least 1"):
        path_cameras("spiral", scene, 0)


def test_own_files_come_back(scene, tmp_path):
    sizes = torch.arange(len(scene.cameras))
    cameras = replace(scene.cameras, width=scene.cameras.width + sizes, height=scene.cameras.height + 2 * sizes)
    file = tmp_path / "new" / "path.json"
    write_path(CameraPath(cameras, 29.97), file, scene)
    path = path_cameras(str(file), scene)
    assert path.fps == 29.97
    assert_same(path.cameras, cameras)
    assert [entry.name for entry in file.parent.iterdir()] == ["path.json"]


def test_own_files_are_in_the_users_world(scene, user_poses, tmp_path):
    """A path that one run wrote is the same path for another run, whose world is normalised in another way."""
    file = tmp_path / "path.json"
    write_path(CameraPath(scene.cameras, 24.0), file, scene)
    stored = np.array([camera["c2w"] for camera in json.loads(file.read_text())["cameras"]])
    np.testing.assert_allclose(stored, user_poses, atol=1e-6)
    other = similarity(7.0, seed=2)
    path = read_path(file, replace(scene, from_input=other))
    torch.testing.assert_close(
        path.cameras.c2w, torch.from_numpy(transform_poses(other, user_poses)).float(), atol=1e-4, rtol=1e-5
    )


def test_nerfstudio_without_its_transform_is_in_the_users_world(scene, user_poses, tmp_path):
    path = read_path(save(tmp_path, nerfstudio(user_poses)), scene)
    focal = 20 / np.tan(np.radians(25))
    K = torch.tensor([[focal, 0, 30], [0, focal, 20], [0, 0, 1]]).float()
    ones = torch.ones(12, dtype=torch.int64)
    assert path.fps == 30
    assert_same(path.cameras, Cameras(scene.cameras.c2w, K.expand(12, 3, 3), 60 * ones, 40 * ones))


def test_nerfstudios_world_is_undone(scene, user_poses, tmp_path):
    there = similarity(1.0, seed=3)
    poses = there @ user_poses
    poses[:, :3, 3] *= 0.1
    save(tmp_path, {"transform": there[:3].tolist(), "scale": 0.1}, "dataparser_transforms.json")
    path = read_path(save(tmp_path, nerfstudio(poses)), scene)
    torch.testing.assert_close(path.cameras.c2w, scene.cameras.c2w, atol=1e-6, rtol=0)


def test_rounded_rotations_become_exact(scene, tmp_path):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix().round(3)
    path = read_path(save(tmp_path, own(c2w=pose.tolist())), scene)
    rotation = path.cameras.c2w[1, :3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["own", "nerfstudio"])
def test_ten_thousand_cameras(scene, tmp_path, kind):
    """One by one, a hundred thousand took half a minute; the wrong one among them is named."""
    content = own() if kind == "own" else nerfstudio([np.eye(4)] * 2)
    key, wrong = ("cameras", {"K": 5}) if kind == "own" else ("camera_path", {"fov": 0})
    content[key] *= 5_000
    start = time.process_time()
    whole = read_path(save(tmp_path, content), scene)
    assert len(whole.cameras) == 10_000
    assert_same(whole.cameras[[0]], read_path(save(tmp_path, content | {key: content[key][:1]}), scene).cameras)
    content[key] = [*content[key], content[key][0] | wrong]
    with pytest.raises(UserError, match=rf"Camera 10000 of 10001 in .*{next(iter(wrong))}"):
        read_path(save(tmp_path, content), scene)
    assert time.process_time() - start < 3


def at(row: int, column: int, value: float) -> list[list[float]]:
    matrix = np.eye(4)
    matrix[row, column] = value
    return matrix.tolist()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"frames": []}, "is no camera path.*'camera_path'"),
        (own() | {"version": 2}, "version 2.*reads version 1"),
        (own() | {"cameras": []}, "has no cameras.*'cameras' needs at least one"),
        (own() | {"cameras": [1]}, "Camera 0 of 1 in .*is no JSON object"),
        (own() | {"fps": 1e-300}, "fps 1e-300.*Frames per second are 0.1 to 1,000"),
        (own() | {"fps": float("nan")}, "'fps' is not finite"),
        (own() | {"fps": "fast"}, "'fps' is not a number"),
        (own(width=0), "Camera 1 of 2 in .* has width 0.*1 to 16384"),
        (own(height=20000), "Camera 1 of 2 in .* has height 20000.*1 to 16384"),
        (own(width=60.5), "has width 60.5.*whole numbers"),
        (own(width=None), "'width' is not finite"),
        (own(c2w=[1, 2]), "Camera 1 of 2 in .*: 'c2w' is not 4 x 4 numbers"),
        (own(c2w=[[1], [2, 3]]), "'c2w' is not 4 x 4 numbers"),
        (own(c2w=at(0, 3, float("inf"))), "Camera 1 of 2 in .*: 'c2w' is not finite"),
        (own(c2w=at(0, 0, 2.0)), "'c2w' is not rigid, R\\^T R misses the identity by 3"),
        (own(c2w=at(0, 0, 1e200)), "'c2w' is not finite.*numbers of 1e\\+12 or more"),
        (own(c2w=at(0, 0, -1.0)), "'c2w' is not rigid, it mirrors"),
        (own(c2w=at(3, 3, 2.0)), "'c2w' is not rigid, .*last row"),
        (own(K=[[50, 1, 30], [0, 50, 20], [0, 0, 1]]), "Camera 1 of 2 in .*: 'K' is not that of a pinhole"),
        (own(K=[[-50, 0, 30], [0, 50, 20], [0, 0, 1]]), "'K' is not that of a pinhole.*above 0"),
        (nerfstudio([]), "has no cameras"),
        (nerfstudio([np.eye(4)], camera_type="fisheye"), "camera_type 'fisheye'.*perspective"),
        (nerfstudio([np.eye(4)], camera_type="equirectangular"), "camera_type 'equirectangular'.*perspective"),
        (nerfstudio([np.eye(4)], render_width=-1), "has render_width -1"),
        (nerfstudio([np.eye(4)], camera_path=[{"fov": 50}]), "Camera 0 of 1 in .* has no 'camera_to_world'"),
        (nerfstudio([np.eye(4)], camera_path=[{"camera_to_world": [0] * 12}]), "'camera_to_world' is not 16 numbers"),
        (
            nerfstudio([np.eye(4)], camera_path=[{"camera_to_world": np.eye(4).flatten().tolist(), "fov": 180}]),
            "Camera 0 of 1 in .* has fov 180.*less than 180",
        ),
        (nerfstudio([2 * np.eye(4)]), "'camera_to_world' is not rigid, R\\^T R misses the identity by 3"),
    ],
)
def test_malformed_files_are_named_by_camera_and_key(scene, tmp_path, content, words):
    with pytest.raises(UserError, match=words) as error:
        read_path(save(tmp_path, content), scene)
    assert "camera_path.json" in str(error.value)


@pytest.mark.parametrize("key", ["camera_path", "render_width", "render_height", "fps"])
def test_missing_keys_of_nerfstudio(scene, tmp_path, key):
    content = nerfstudio([np.eye(4)])
    del content[key]
    with pytest.raises(UserError, match=key):
        read_path(save(tmp_path, content), scene)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"transform": np.eye(4)[:3].tolist()}, r"dataparser_transforms.json has no 'scale'"),
        ({"transform": np.eye(4)[:3].tolist(), "scale": 0}, "scale 0.*more than 0"),
        ({"transform": np.eye(4).tolist(), "scale": 1}, "'transform' is not 3 x 4 numbers"),
    ],
)
def test_malformed_transforms_of_nerfstudio(scene, tmp_path, content, words):
    save(tmp_path, content, "dataparser_transforms.json")
    with pytest.raises(UserError, match=words):
        read_path(save(tmp_path, nerfstudio([np.eye(4)])), scene)


def test_broken_json_and_unwritable_folders(scene, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match=r"broken\.json is broken at line 1"):
        path_cameras(str(tmp_path / "broken.json"), scene)
    with pytest.raises(UserError, match=r"Cannot write .*path\.json"):
        write_path(CameraPath(scene.cameras, 24.0), tmp_path / "broken.json" / "path.json", scene)


def test_another_size_keeps_the_vertical_field_of_view(scene):
    cameras = fit(scene.cameras[:2], 96, 80)
    assert_same(cameras, scene.cameras[:2].resized(96, 80))
    wide = fit(scene.cameras[:2], 200, 80)
    assert wide.size == (200, 80)
    torch.testing.assert_close(wide.K[:, 1, 1] / 80, scene.cameras.K[:2, 1, 1] / 40)
    assert (wide.K[:, 0, 0] == wide.K[:, 1, 1]).all()
    assert wide.K[0, 0, 2] == 100
    with pytest.raises(UserError, match="size 0 x 80.*1 to 16384"):
        fit(scene.cameras, 0, 80)


@pytest.mark.parametrize(("arc", "name"), [(0.5, "spiral"), (3.0, "spiral"), (5.0, "ellipse"), (6.1, "ellipse")])
def test_the_natural_path_goes_around_what_was_captured_all_around(scene, arc, name):
    angles = torch.linspace(0, arc, 12)
    centers = torch.stack([2 * angles.cos(), 2 * angles.sin(), torch.full((12,), 1.5)], 1)  # high above, looking down
    c2w = look_at(centers, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    assert natural_path(replace(scene, cameras=replace(scene.cameras, c2w=c2w), train=np.arange(12))) == name
