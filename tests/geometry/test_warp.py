"""Warping by depth, on a plane whose image any camera knows."""

import math
from dataclasses import replace

import pytest
import torch

from difix3d.geometry.poses import look_at
from difix3d.geometry.warp import guide, project, seen_by, seen_by_each, times, unproject, warp, warped_references
from difix3d.types import Cameras, Degraded, View

W, H = 64, 48
UP = torch.tensor([0.0, -1.0, 0.0])


def camera(x: float, y: float = 0.0, target_x: float = 0.0) -> Cameras:
    c2w = look_at(torch.tensor([[x, y, -3.0]]), torch.tensor([[target_x, 0.0, 0.0]]), UP)
    K = torch.tensor([[[60.0, 0, W / 2], [0, 60.0, H / 2], [0, 0, 1]]])
    return Cameras(c2w, K, torch.tensor([W]), torch.tensor([H]))


def plane(view: Cameras, z: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Image [H,W,2] and depth [H,W] of the plane at ``z``, painted with a smooth pattern of x and y."""
    rays = unproject(torch.ones(H, W), view) - view.centers[0]
    depth = (z - view.centers[0, 2]) / rays[..., 2]
    points = unproject(depth, view)
    return torch.stack([torch.sin(2 * points[..., 0]), torch.cos(3 * points[..., 1])], -1), depth


def test_project_undoes_unproject():
    view = camera(0.7, 0.3)
    depth = torch.rand(H, W) + 1
    pixels, z = project(unproject(depth, view), view)
    assert torch.allclose(z, depth, atol=1e-5)
    assert torch.allclose(pixels[0, 0], torch.tensor([0.5, 0.5]), atol=1e-3)
    assert torch.allclose(pixels[-1, -1], torch.tensor([W - 0.5, H - 0.5]), atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize(("points", "matrix"), [((5, 7, 3), (3, 3)), ((2, 9, 3), (2, 3, 3)), ((1, 9, 3), (1, 3, 3))])
def test_a_gpu_multiplies_points_as_a_host_does(points, matrix):
    points, matrix = torch.randn(points), torch.randn(matrix)
    torch.testing.assert_close(times(points.cuda(), matrix.cuda()).cpu(), points @ matrix, atol=1e-5, rtol=1e-5)


def test_warped_plane_is_the_plane_as_the_other_camera_sees_it():
    source, target = camera(-0.5), camera(0.4, 0.3)
    image, image_depth = plane(source)
    expected, depth = plane(target)
    warped, valid = warp(image, image_depth, source, depth, target)
    assert valid.float().mean() > 0.6
    difference = (warped - expected)[valid].abs()
    assert difference.mean() < 5e-3
    assert difference.max() < 0.05  # half a pixel from the edge, where samples are clamped
    assert (warped[~valid] == 0).all()


@pytest.mark.parametrize("size", [(W // 2, H // 2), (W - 16, H - 12)])
def test_a_photo_is_carried_by_a_depth_map_of_another_size(size):
    source, target = camera(-0.4, 0.2), camera(0.5)
    image, image_depth = plane(source)
    (width, height), small = size, source.resized(*size)
    rays = unproject(torch.ones(height, width), small) - small.centers[0]
    _, depth = plane(target)
    expected, _ = warp(image, image_depth, source, depth, target)
    warped, valid = warp(image, 3 / rays[..., 2], small, depth, target)
    assert valid.float().mean() > 0.6
    assert (warped - expected)[valid].abs().max() < 0.02


def test_what_hides_behind_something_nearer_is_not_seen():
    source, target = camera(-0.5), camera(0.4)
    _, depth = plane(target)
    _, wall = plane(source, z=-1.0)
    assert not seen_by(unproject(depth, target), source, wall)[0].any()


def test_empty_depth_and_points_behind_are_invalid():
    source, target = camera(0.0), camera(0.1)
    image, image_depth = plane(source)
    assert not warp(image, image_depth, source, torch.zeros(H, W), target)[1].any()
    away = look_at(torch.tensor([[0.0, 0.0, -3.0]]), torch.tensor([[0.0, 0.0, -9.0]]), UP)
    behind = Cameras(away, source.K, source.width, source.height)
    warped, valid = warp(image, image_depth, behind, plane(target)[1], target)
    assert not valid.any()
    assert warped.isfinite().all()


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_valid_share_is_the_overlap_of_the_views(share):
    reach = W / 60 * 3  # width of what a camera sees of the plane
    source, target = camera(0.0), camera(share * reach, target_x=share * reach)
    _, image_depth = plane(source)
    image, depth = plane(target)
    valid = warp(image, image_depth, source, depth, target)[1]
    assert math.isclose(float(valid.float().mean()), 1 - share, abs_tol=0.02)


def three_photos(target: Cameras, *sources: Cameras) -> Degraded:
    """A render of the plane, whose references show it from other sides, each in a colour of its own (blue)."""
    views, depths = [], []
    for i, source in enumerate(sources):
        image, depth = plane(source)
        blue = torch.full((H, W, 1), (i + 1) / 4)
        views.append(View(source, torch.cat([image.abs(), blue], -1), f"photo {i}", i))
        depths.append(depth)
    _, depth = plane(target)
    return Degraded(target, torch.zeros(H, W, 3), torch.ones(H, W), depth, tuple(views), tuple(depths))


def layers_in_loops(degraded: Degraded, count: int) -> torch.Tensor:
    """For each pixel: what the references show that see it, in their order."""
    warps = [
        warp(view.image, depth, view.camera, degraded.depth, degraded.camera)
        for view, depth in zip(degraded.references, degraded.reference_depths, strict=True)
    ]
    layers = torch.zeros(count, H, W, 4)
    for row in range(H):
        for column in range(W):
            seen = [image[row, column] for image, valid in warps if valid[row, column]]
            for layer, color in enumerate(seen[:count]):
                layers[layer, row, column] = torch.cat([color, torch.ones(1)])
    return layers


def test_layers_hold_the_references_that_see_a_pixel_in_their_order():
    degraded = three_photos(camera(0.2), camera(-1.2), camera(1.5), camera(0.9, 0.5))
    layers = warped_references(degraded, 2)
    assert torch.equal(layers, layers_in_loops(degraded, 2))
    shown = {round(4 * value, 3) for value in layers[0, ..., 2].unique().tolist()}
    assert {1.0, 2.0} <= shown  # where the first does not look, the second comes forward
    assert (layers[1, ..., 3] <= layers[0, ..., 3]).all()
    assert (layers[layers[..., 3] == 0] == 0).all()


def test_layers_are_empty_where_nothing_is_covered_or_offered():
    degraded = three_photos(camera(0.2), camera(-0.5))
    alpha = torch.ones(H, W)
    alpha[:, : W // 2] = 0.3
    half = warped_references(replace(degraded, alpha=alpha), 1)
    assert half[:, :, : W // 2].max() == 0
    assert half[0, :, W // 2 :, 3].mean() > 0.5
    assert warped_references(replace(degraded, references=(), reference_depths=()), 2).shape == (2, H, W, 4)


def test_what_is_outside_of_a_photos_alpha_is_not_carried():
    degraded = three_photos(camera(0.2), camera(-0.5))
    alpha = torch.ones(H, W)
    alpha[: H // 2] = 0.0
    photo = replace(degraded.references[0], image=degraded.references[0].image * alpha[..., None], alpha=alpha)
    whole = warped_references(degraded, 1)
    half = warped_references(replace(degraded, references=(photo,)), 1)
    assert half[0, : H // 2 - 2].max() == 0
    assert torch.allclose(half[0, H // 2 + 2 :], whole[0, H // 2 + 2 :])


def test_the_guide_is_coverage_and_the_layers():
    degraded = three_photos(camera(0.2), camera(-1.2), camera(1.5))
    degraded = replace(degraded, alpha=torch.linspace(0.6, 1, H * W).view(H, W))
    found, layers = guide(degraded, 2), warped_references(degraded, 2)
    assert found.shape == (9, H, W)
    assert torch.equal(found[0], degraded.alpha)
    for layer in range(2):
        assert torch.equal(found[1 + 4 * layer : 5 + 4 * layer], layers[layer].permute(2, 0, 1))
    before_a_backdrop = guide(replace(degraded, foreground=degraded.alpha / 2), 2)
    assert torch.equal(before_a_backdrop[0], degraded.alpha / 2)
    assert torch.equal(before_a_backdrop[1:], found[1:])
    assert torch.equal(guide(replace(degraded, foreground=degraded.alpha / 2), 2, foreground=False), found)


def test_what_several_cameras_see_at_once():
    """Also of points behind a camera, beside its picture, and nowhere."""
    generator = torch.Generator().manual_seed(0)
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, :3, 3] = torch.randn(3, 3, generator=generator)
    poses[1, :3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    K = torch.tensor([[9.0, 0, 5], [0, 9, 4], [0, 0, 1]]).repeat(3, 1, 1)
    cameras = Cameras(poses, K, torch.full((3,), 10), torch.full((3,), 8))
    points = 3 * torch.randn(20, 30, 3, generator=generator) + torch.tensor([0.0, 0, 3])
    points[0, 0] = torch.nan
    depths = 2 + 4 * torch.rand(3, 8, 10, generator=generator)
    found, pixels = seen_by_each(points, cameras, depths, tolerance=0.3)
    for i in range(3):
        seen, places = seen_by(points, cameras[i], depths[i], tolerance=0.3)
        assert torch.equal(found[i], seen)
        torch.testing.assert_close(pixels[i], places, equal_nan=True)
    assert 20 < found.sum() < found.numel() / 2
