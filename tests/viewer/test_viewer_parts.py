"""The viewer's parts that need no server."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_browser import until

from difix3d.errors import UserError
from difix3d.gaussians import from_points, transform, write_ply
from difix3d.render import rasterize
from difix3d.scene.pathfile import CameraPath, read_path, write_path
from difix3d.types import Cameras
from difix3d.viewer.frames import FRAME, SMALLEST, AdaptiveScale, FrameLoop
from difix3d.viewer.page import escape
from difix3d.viewer.pictures import INVENTED, SEEN, Seen, compared, depth_colors, letterbox, picture, seen_colors, split
from difix3d.viewer.training_tab import smooth
from difix3d.viewer.view_tab import within
from difix3d.viewer.viewer_model import ViewerModel, model_of_ply, result_path
from difix3d.viewer.viser_scene import fov_of, pinhole, splat_arrays


def test_what_photos_see_is_told_from_what_they_do_not(toy_scene, truth):
    front = toy_scene.cameras[6]
    seen = Seen(toy_scene.cameras[toy_scene.train], truth)
    out = truth(front)
    covered = out.alpha[0, ..., 0] > 0.5
    count = seen(front, out.depth[0, ..., 0])
    assert (count[covered] >= 2).float().mean() > 0.8
    turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    behind = replace(front, c2w=turn @ front.c2w)  # half a turn about the vertical axis: where no camera was
    hidden = truth(behind)
    back = seen(behind, hidden.depth[0, ..., 0])
    assert (back[hidden.alpha[0, ..., 0] > 0.5] == 0).float().mean() > 0.3
    assert (count[out.depth[0, ..., 0] == 0] == 0).all()


def test_layers(truth, toy_scene):
    out = truth(toy_scene.cameras[0])
    zero = torch.zeros(40, 48, dtype=torch.long)
    assert torch.equal(picture("colour", out, lambda: zero), out.rgb[0].clamp(0, 1))
    assert torch.equal(picture("coverage", out, lambda: zero)[..., 1], out.alpha[0, ..., 0])
    assert not torch.equal(picture("depth", out, lambda: zero), picture("seen or invented", out, lambda: zero))


def test_depth_goes_from_blue_to_red():
    depth = torch.tensor([[0.0, 1.0, 2.0, 100.0]])
    colors = depth_colors(depth)[0]
    assert torch.equal(colors[0], torch.zeros(3))
    assert colors[1, 2] > colors[1, 1] > 0  # near: dark violet
    assert colors[3, 0] > colors[3, 2]  # far: red
    assert torch.equal(depth_colors(torch.zeros(2, 2)), torch.zeros(2, 2, 3))


def test_tints():
    rgb, alpha = torch.ones(1, 3, 3), torch.tensor([[1.0, 1.0, 0.0]])
    tinted = seen_colors(rgb, alpha, torch.tensor([[0, 5, 5]]))[0]
    torch.testing.assert_close(tinted, torch.stack([INVENTED, SEEN, torch.zeros(3)]))


def test_pictures_of_two_pictures():
    left, right = torch.zeros(4, 10, 3), torch.full((4, 10, 3), 0.5)
    both = split(left, right, 0.3)
    assert both[0, :, 0].tolist() == [0, 0, 1, 1, *[0.5] * 6]
    assert torch.equal(split(left, right, 0.0)[:, 1:], right[:, 1:])
    assert torch.equal(split(left, right, 7.0)[:, :9], left[:, :9])
    assert compared("side by side", left, right, 0).shape == (4, 20, 3)
    assert compared("difference", left, right, 0).unique().tolist() == [1.0]
    assert torch.equal(compared("blink", left, right, 0), left)
    assert torch.equal(compared("blink", left, right, 1), right)
    assert letterbox(left, 5.0).shape == (4, 20, 3)
    assert letterbox(left, 1.0).shape == (10, 10, 3)
    assert torch.equal(letterbox(left, 5.0)[:, 5:15], left)


def test_the_pace_settles_at_the_time_of_a_frame():
    adaptive = AdaptiveScale()
    for _ in range(30):
        adaptive.took(2.0 * adaptive.scale**2)  # two seconds at full size
    assert 2.0 * adaptive.scale**2 == pytest.approx(FRAME, rel=0.01) or adaptive.scale == SMALLEST
    for _ in range(30):
        adaptive.took(0.01)
    assert adaptive.scale == 1.0


def test_the_loop_draws_the_last_of_many_changes_and_again_at_rest():
    drawn = []

    def draw(moving):
        drawn.append(moving)
        time.sleep(0.05)

    loop = FrameLoop(draw, drawn.append)
    loop.start()
    for _ in range(40):
        loop.wake(moved=True)
        time.sleep(0.005)
    until(lambda: drawn[-1] is False)
    assert 3 <= len(drawn) < 20
    time.sleep(0.3)
    count = len(drawn)
    time.sleep(0.3)
    assert len(drawn) == count  # an idle loop draws nothing
    loop.close()
    loop.join(2)
    assert not loop.is_alive()


def test_the_loop_survives_errors_and_draws_again_by_itself():
    calls, errors = [], []

    def draw(moving):
        calls.append(moving)
        if len(calls) == 1:
            raise ValueError("first")
        return 0.01

    loop = FrameLoop(draw, errors.append)
    loop.start()
    until(lambda: errors)
    assert str(errors[0]) == "first"
    loop.wake()
    until(lambda: len(calls) > 4)
    loop.close()


def test_a_camera_and_its_field_of_view():
    camera = pinhole(torch.eye(4), 1.1, 200, 100)
    assert fov_of(camera) == pytest.approx(1.1)
    assert float(camera.K[0, 1, 2]) == 50
    top = torch.tensor([0.0, -math.tan(0.55), 1.0])
    assert (camera.K[0] @ top)[1].item() == pytest.approx(0, abs=1e-4)


def test_splats_are_the_models_gaussians():
    rng = np.random.default_rng(0)
    points, colors = rng.uniform(-1, 1, (5, 3)).astype(np.float32), rng.integers(0, 256, (5, 3), dtype=np.uint8)
    model = from_points(points, colors, opacity=0.7)
    model = replace(model, quats=torch.randn(5, 4), scales=torch.randn(5, 3))
    arrays = splat_arrays(model)
    np.testing.assert_allclose(arrays["rgbs"] * 255, colors, atol=1e-3)
    np.testing.assert_allclose(arrays["opacities"], 0.7, atol=1e-6)
    values = np.linalg.eigvalsh(arrays["covariances"])
    np.testing.assert_allclose(np.sort(values), np.sort(model.scales.exp().numpy() ** 2), rtol=1e-3)
    front = pinhole(torch.eye(4), 1.0, 8, 8)
    assert rasterize(model, front).rgb.isfinite().all()


def test_a_box_keeps_what_lies_in_it():
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 5, 0]], np.float32)
    model = from_points(points, np.zeros((3, 3), np.uint8))
    assert within(model, (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)).means.tolist() == points[:2].tolist()


def test_model_in_survey_coordinates_stands_near_the_origin_and_paths_in_its_own_world(tmp_path, toy_scene):
    utm = np.array([448251.3, 5411932.7, 120.0])
    near = from_points(toy_scene.points, toy_scene.colors)
    far = replace(near, means=near.means.double() + torch.from_numpy(utm))
    write_ply(far, tmp_path / "a.ply")
    model = model_of_ply(tmp_path / "a.ply", torch.device("cpu"))
    shift = -model.scene.from_input[:3, 3]
    torch.testing.assert_close(
        model.snapshot.gaussians.means.double() + torch.from_numpy(shift), far.means, atol=1e-6, rtol=0
    )
    camera = Cameras(torch.eye(4)[None], torch.eye(3)[None], torch.tensor([8]), torch.tensor([6]))
    write_path(CameraPath(camera, 24.0), tmp_path / "path.json", model.scene)
    pose = np.array(json.loads((tmp_path / "path.json").read_text())["cameras"][0]["c2w"])
    np.testing.assert_allclose(pose[:3, 3], shift)
    assert torch.equal(read_path(tmp_path / "path.json", model.scene).cameras.c2w, camera.c2w)


def test_model_in_small_units_is_not_cut_away_by_the_near_plane(tmp_path, toy_scene):
    model = from_points(toy_scene.points, toy_scene.colors)
    write_ply(transform(model, np.diag([1e-4, 1e-4, 1e-4, 1.0])), tmp_path / "a.ply")
    camera = toy_scene.cameras[0]
    c2w = camera.c2w.clone()
    c2w[:, :3, 3] *= 1e-4
    seen = model_of_ply(tmp_path / "a.ply", torch.device("cpu")).render(replace(camera, c2w=c2w)).alpha
    torch.testing.assert_close(seen, rasterize(model, camera, near=0.01).alpha, atol=1e-3, rtol=0)


def test_names_stay_in_their_folder(tmp_path):
    assert result_path(tmp_path, "mine", ".ply") == tmp_path / "mine.ply"
    assert result_path(tmp_path, "mine.ply", ".ply") == tmp_path / "mine.ply"
    for name in ("", ".", "..", "../x", "a/b", "a\\b", ".hidden", "x" * 101, "a b\n"):
        with pytest.raises(UserError, match="cannot be called"):
            result_path(tmp_path, name, ".ply")


def test_messages_are_shown_as_they_are():
    assert escape("a_b <c> {d} [e](f)") == "a\\_b \\<c\\> \\{d\\} \\[e\\](f)"


def test_curves_are_thinned_to_means():
    curve = np.stack([np.arange(1000.0), np.arange(1000.0)], 1)
    thin = smooth(curve, 300)
    assert len(thin) == 250
    np.testing.assert_allclose(thin[0], [1.5, 1.5])


def test_photos_with_alpha_are_looked_at_over_what_renders_are_over(cutout, middle, tmp_path):
    settings = {"near": 0.01, "background": torch.ones(3)}
    viewer_model = ViewerModel(middle, cutout, tmp_path, settings)
    empty = viewer_model.photo(0).alpha == 0
    shown = torch.from_numpy(viewer_model.camera_list.captured[0].picture())
    assert (shown[empty] == 255).all()
    rendered = viewer_model.render(cutout.cameras[0]).rgb[0]
    assert (rendered - shown / 255).abs().mean() < 0.005
