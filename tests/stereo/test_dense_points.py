"""Dense points of a drawn capture, whose surfaces are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from difix3d.images import write_image
from difix3d.scene import load_scene
from difix3d.stereo import dense_points, partners, points
from difix3d.stereo.partners import CANDIDATES, PARTNERS, by_cameras, by_points
from difix3d.synthetic.capture import write_scene
from difix3d.synthetic.scene import SyntheticScene
from difix3d.types import Cameras, View

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A drawn scene of which every fourth photo of the training ones is left."""
    scene = load_scene(write_scene(3, tmp_path_factory.mktemp("drawn") / "scene", 160, 120), split="extrapolation")
    return replace(scene, train=scene.train[::4])


@pytest.fixture(scope="module")
def found(capture):
    return dense_points(capture, 5000, 0, CPU)


def in_pixels(scene, index, places):
    """Where world points lie in a photo, and how far away."""
    camera = scene.cameras[index]
    local = (torch.from_numpy(places) - camera.centers) @ camera.c2w[0, :3, :3]
    pixels = (local @ camera.K[0].T)[:, :2] / local[:, 2:]
    return pixels, local[:, 2]


def test_points_lie_on_the_surfaces(capture, found):
    """Of those in a photo nearly all that are not hidden have the depth there; few float well in front."""
    places, _ = found
    assert len(places) == 5000
    index = int(capture.train[2])
    pixels, depth = in_pixels(capture, index, places)
    inside = ((pixels >= 0) & (pixels < torch.tensor([160, 120]))).all(1) & (depth > 0)
    scale = float(np.cbrt(np.linalg.det(capture.from_input[:3, :3])))
    camera = replace(capture.cameras[index], c2w=as_drawn(capture, index))
    surface = SyntheticScene(3).render(camera).depth[0, ..., 0] * scale
    column, row = pixels[inside].long().unbind(1)
    there = depth[inside] / surface[row, column]
    assert inside.float().mean() > 0.5
    assert ((there - 1).abs() < 0.05).float().mean() > 0.6
    assert (there < 0.9).float().mean() < 0.2


def as_drawn(scene, index):
    """A camera's pose in the world that the scene was drawn in."""
    back = torch.from_numpy(np.linalg.inv(scene.from_input)).float()
    scale = float(np.cbrt(np.linalg.det(scene.from_input[:3, :3])))
    pose = back @ scene.cameras.c2w[index]
    pose[:3, :3] *= scale
    return pose[None]


def test_colors_are_those_of_the_photos(capture, found):
    places, colors = found
    assert colors.dtype == np.uint8
    nearest = ((capture.points[:, None] - places[None, :500]) ** 2).sum(2).argmin(0)
    difference = np.abs(capture.colors[nearest].astype(int) - colors[:500]).mean(1)
    assert np.median(difference) < 25
    assert np.std(colors.astype(float)) > 20


def test_the_draw_follows_the_seed_and_fewer_are_there_than_asked_for(capture, found):
    again, other = dense_points(capture, 5000, 0, CPU), dense_points(capture, 5000, 1, CPU)
    np.testing.assert_array_equal(again[0], found[0])
    assert not np.array_equal(other[0], found[0])
    everything = dense_points(capture, 10**7, 0, CPU)[0]
    pixels = len(capture.train) * 160 * 120
    assert 0.2 * pixels < len(everything) < pixels


def test_held_out_photos_are_not_looked_at(capture, found):
    gone = [replace(photo, path=photo.path.parent / "gone.png") for photo in capture.photos]
    photos = tuple(photo if i in capture.train else gone[i] for i, photo in enumerate(capture.photos))
    np.testing.assert_array_equal(dense_points(replace(capture, photos=photos), 5000, 0, CPU)[0], found[0])


def test_masked_pixels_give_none(capture, tmp_path):
    """Left halves count; points in the right half of a photo come of other photos' left ones."""
    half = torch.zeros(120, 160, 3)
    half[:, :80] = 1
    write_image(tmp_path / "half.png", half)
    photos = tuple(replace(photo, mask=tmp_path / "half.png") for photo in capture.photos)
    places, _ = dense_points(replace(capture, photos=photos), 10**7, 0, CPU)
    pixels = [in_pixels(capture, index, places)[0] for index in capture.train.tolist()]
    in_left = torch.stack([(there[:, 0] <= 80) for there in pixels]).any(0)
    assert len(places) > 1000
    assert in_left.all()


def test_what_is_transparent_gives_none(cutout):
    """And photos of other sizes go together."""
    cameras = [cutout.cameras[i] for i in range(len(cutout.cameras))]
    mixed = Cameras.cat(camera.resized(36, 30) if i % 2 else camera for i, camera in enumerate(cameras))
    scene = replace(cutout, cameras=mixed)
    places, colors = dense_points(scene, 10**6, 0, CPU)
    assert (np.abs(places) < 1.0).all()
    assert 50 < len(places) == len(colors)


def test_what_is_even_beside_an_edge_gives_none():
    """A dark wall far behind a bright pattern, whose windows reach over it."""
    torch.manual_seed(0)
    camera = Cameras(torch.eye(4)[None], torch.eye(3)[None], torch.tensor([40]), torch.tensor([30]))
    image = torch.full((30, 40, 3), 0.02)
    image[:, 20:] = torch.rand(30, 20, 3)
    here = points.DepthMap(View(camera, image, "edge"), torch.full((30, 40), 2.0), torch.full((30, 40), 0.9))
    good = points.usable(here, [here])
    assert good[:, 20:].all()
    assert not good[:, :19].any()


def test_larger_photos_are_made_small(capture, monkeypatch):
    monkeypatch.setattr(points, "SIDE", 80)
    places, _ = dense_points(capture, 10**7, 0, CPU)
    assert 0 < len(places) < len(capture.train) * 80 * 60


def test_partners_share_points_and_stand_well_apart(capture):
    scene = replace(capture, train=np.sort(np.concatenate([capture.train, capture.train + 1])))
    found = by_points(scene)
    assert list(found) == scene.train.tolist()
    for photo, it in found.items():
        assert 0 < len(it.partners) <= PARTNERS < CANDIDATES
        assert photo not in it.partners
        assert set(it.partners) <= set(scene.train.tolist())
        depth = in_pixels(capture, photo, capture.points.astype(np.float32))[1]
        assert 0 < it.nearest < depth.median() < it.farthest


def test_points_behind_a_camera_are_no_sightings(capture):
    """Whatever the file says."""
    first = int(capture.train[0])
    c2w = capture.cameras.c2w.clone()
    c2w[first, :3, :3] = c2w[first, :3, :3] @ torch.diag(torch.tensor([-1.0, 1, -1]))
    found = by_points(replace(capture, cameras=replace(capture.cameras, c2w=c2w)))
    assert first not in found
    assert set(found) == set(capture.train.tolist()) - {first}
    assert all(first not in it.partners for it in found.values())


def test_without_points_the_cameras_alone_tell(capture, found):
    """Nearly the same surfaces are found; who sees what may be unknown where there are points."""
    unknown = replace(capture, observations=np.zeros((0, 2), np.int64))
    bare = replace(unknown, points=capture.points[:0], colors=capture.colors[:0])
    places, _ = dense_points(bare, 5000, 0, CPU)
    np.testing.assert_array_equal(dense_points(unknown, 5000, 0, CPU)[0], places)
    tree = KDTree(found[0])
    assert len(places) == 5000
    assert (tree.query(places)[0] < 0.1 * capture.extent).mean() > 0.8


def test_cameras_next_to_each_other_that_look_the_same_way_are_compared(capture):
    found = by_cameras(capture)
    centers = capture.cameras.centers.numpy()
    for photo, it in found.items():
        ways = np.linalg.norm(centers[it.partners] - centers[photo], axis=1)
        assert (np.diff(ways) >= 0).all()
        assert it.nearest == pytest.approx(1.5 * ways.mean(), rel=1e-4)
    alone = capture.cameras.c2w.clone()
    last = int(capture.train[-1])
    alone[last, :3, :3] = alone[last, :3, :3] @ torch.diag(torch.tensor([-1.0, 1, -1]))  # it looks back
    turned = by_cameras(replace(capture, cameras=replace(capture.cameras, c2w=alone)))
    assert last in found
    assert last not in turned
    assert all(last not in it.partners for it in turned.values())


def test_of_many_frames_some_are_compared(capture, monkeypatch):
    monkeypatch.setattr(partners, "PHOTOS", 5)
    found = by_cameras(replace(capture, train=np.arange(20)))
    some = {0, 4, 8, 12, 16}
    assert len(found) > 2
    assert set(found) <= some
    assert all(set(it.partners) <= some for it in found.values())


def test_photos_with_nothing_in_common_give_none(capture):
    none = capture.train[:0]
    same = replace(
        capture, cameras=replace(capture.cameras, c2w=capture.cameras.c2w[:1].repeat(len(capture.photos), 1, 1))
    )
    for scene in (replace(capture, train=capture.train[:1]), replace(capture, train=none), same):
        places, colors = dense_points(replace(scene, observations=np.zeros((0, 2), np.int64)), 100, 0, CPU)
        assert places.shape == (0, 3)
        assert colors.shape == (0, 3)
