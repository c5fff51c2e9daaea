"""The normalised world."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from difix3d.geometry import normalize
from difix3d.geometry.poses import ellipse, look_at, spiral


def ring(count: int = 20, up: tuple[float, float, float] = (0, 0, 1)) -> np.ndarray:
    angle = torch.linspace(0, 6, count).double()
    position = torch.stack([40 * angle.cos() + 100, 40 * angle.sin(), 10 + 0 * angle], 1)
    return look_at(position, torch.tensor([100.0, 0, 0]).double(), torch.tensor(up).double()).numpy()


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 100), st.lists(st.floats(-50, 50), min_size=3, max_size=3), st.floats(-3, 3))
def test_does_not_depend_on_the_users_world(scale, shift, turn):
    """Any similarity of the input world leaves the normalised cameras alone, but for a turn about z."""
    c2w = ring()
    world = np.eye(4)
    world[:3, :3] = scale * normalize.rotation_between(np.array([0, 0, 1.0]), np.array([np.sin(turn), 0, np.cos(turn)]))
    world[:3, 3] = shift
    moved = normalize.transform_poses(world, c2w)
    none = np.zeros((0, 3))
    a = normalize.transform_poses(normalize.similarity(c2w, none), c2w)
    b = normalize.transform_poses(normalize.similarity(moved, none), moved)
    distances = [np.linalg.norm(p[:, None, :3, 3] - p[None, :, :3, 3], axis=-1) for p in (a, b)]
    assert np.allclose(*distances, atol=1e-6)
    assert np.allclose(a[:, 2, 3], b[:, 2, 3], atol=1e-6)


def test_small_capture_in_survey_coordinates_keeps_its_scale():
    c2w = ring()
    c2w[:, :3, 3] *= 0.01  # an arm's length about the object, some metres of rounding in units of 1e-6 of UTM
    points = c2w[:, :3, 3] + 5.0
    there = normalize.transform_poses(normalize.similarity(c2w, points), c2w)
    utm = np.array([448251.3, 5411932.7, 120.0])
    c2w[:, :3, 3] += utm
    far = normalize.transform_poses(normalize.similarity(c2w, points + utm), c2w)
    assert np.allclose(far, there, atol=1e-6)


def test_same_world_also_in_survey_coordinates():
    c2w = ring()
    c2w[:, :3, 3] += [448251.3, 5411932.7, 120.0]
    here = normalize.similarity(c2w, np.zeros((0, 3)))
    assert normalize.same_world(here, here * (1 + 1e-14))
    c2w[:, 0, 3] += 1  # of 40 that the cameras reach
    assert not normalize.same_world(here, normalize.similarity(c2w, np.zeros((0, 3))))


def test_centre_scale_and_up():
    c2w = ring()
    transform = normalize.similarity(c2w, np.zeros((0, 3)))
    poses = normalize.transform_poses(transform, c2w)
    assert np.allclose(poses[:, :3, 3].mean(0), 0)
    assert np.quantile(np.linalg.norm(poses[:, :3, 3], axis=1), 0.9) == pytest.approx(1)
    assert np.allclose(np.linalg.det(poses[:, :3, :3]), 1)
    up = -poses[:, :3, 1].mean(0)
    assert np.allclose(up / np.linalg.norm(up), [0, 0, 1])
    assert np.allclose(normalize.transform_points(transform, c2w[:, :3, 3]), poses[:, :3, 3])


def test_cameras_in_one_place_are_scaled_by_the_points():
    c2w = np.tile(np.eye(4), (3, 1, 1))
    transform = normalize.similarity(c2w, np.array([[0, 0, 4.0], [0, 0, 5], [0, 0, 6]]))
    assert np.cbrt(np.linalg.det(transform[:3, :3])) == pytest.approx(1 / 5)
    assert np.isfinite(normalize.similarity(c2w, np.zeros((0, 3)))).all()
    assert normalize.extent(c2w[:, :3, 3]) == 1


def survey(strips: int) -> np.ndarray:
    """Seen from the air, straight down: strips, flown to and fro. The user's up is -y."""
    x, z = (axis.ravel() for axis in np.meshgrid(np.arange(float(strips)), np.arange(6.0), indexing="ij"))
    down = np.tile([0.0, 1, 0], (len(x), 1))
    back = np.where(x % 2 == 0, 1, -1)[:, None] * [0.0, 0, -1]
    c2w = np.tile(np.eye(4), (len(x), 1, 1))
    c2w[:, :3, :3] = np.stack([np.cross(back, down), back, down], -1)
    c2w[:, :3, 3] = np.stack([x, np.full_like(x, -5), z], 1)
    return c2w


@pytest.mark.parametrize("strips", [2, 3, 4])
def test_a_survey_from_the_air_looks_down(strips):
    c2w = survey(strips)
    poses = normalize.transform_poses(normalize.similarity(c2w, np.zeros((0, 3))), c2w)
    assert np.allclose(poses[:, :3, 2], [0, 0, -1])
    for path in (ellipse, spiral):
        frames = path(torch.from_numpy(poses), 12)
        assert torch.isfinite(frames).all()
        assert (frames[:, 2, 2] < 0).all()
        assert torch.allclose(frames[:, 2, 0], torch.zeros(12).double(), atol=1e-6)  # level


def test_cameras_that_look_up_in_all_directions_are_laid_flat():
    c2w = np.concatenate([ring(10), ring(10, up=(0, 0, -1))])
    poses = normalize.transform_poses(normalize.similarity(c2w, np.zeros((0, 3))), c2w)
    assert np.ptp(poses[:, 2, 3]) < 1e-6


@pytest.mark.parametrize("a", [[0, 0, 1.0], [0, 0, -1.0], [0.6, 0, -0.8]])
def test_rotation_between(a):
    rotation = normalize.rotation_between(np.array(a), np.array([0, 0, 1.0]))
    assert np.allclose(rotation @ a, [0, 0, 1])
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_points_at_infinity_are_not_plausible():
    centers = np.zeros((2, 3))
    points = np.array([[1.0, 0, 0], [0, 2, 0], [0, 0, 1.5], [1e9, 0, 0], [np.inf, 0, 0], [0, np.nan, 0]])
    assert normalize.plausible_points(points, centers).tolist() == [True, True, True, False, False, False]


def test_remoteness_is_of_few_cameras_and_does_not_depend_on_the_users_world():
    none = np.zeros((0, 3))
    centers = ring()[:, :3, 3]
    assert normalize.remoteness(centers, none).max() < 2
    centers[[2, 7]] += [[0, 0, 4000], [1e5, 0, 0]]
    remote = normalize.remoteness(centers, none)
    assert np.flatnonzero(remote > normalize.ASIDE).tolist() == [2, 7]
    assert np.allclose(normalize.remoteness(3 * centers + 50, none), remote)


def test_a_camera_that_moved_is_not_remote_where_most_stand_still():
    centers = np.zeros((10, 3))
    centers[3, 0] = 1
    points = np.array([[0, 0, 4.0], [0, 1, 5], [np.inf, 0, 0]])
    assert normalize.remoteness(centers, points).max() < 3
    assert (normalize.remoteness(centers, np.zeros((0, 3))) == 0).all()
