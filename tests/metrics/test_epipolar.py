"""TSED: hand-made epipolar lines, synthetic paths whose consistency is known, and real photos."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from difix3d.images import read_image
from difix3d.metrics import epipolar_distance, tsed
from difix3d.types import Cameras


def cameras(positions, turns=None, size=(160, 120), focal=100.0):
    """Looking along z, turned about y by so many radians."""
    c2w = torch.eye(4).repeat(len(positions), 1, 1)
    c2w[:, :3, 3] = torch.tensor(positions, dtype=torch.float32)
    for pose, angle in zip(c2w, turns or [], strict=False):
        s, c = math.sin(angle), math.cos(angle)
        pose[:3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    K = torch.tensor([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]]).repeat(len(c2w), 1, 1)
    return Cameras(c2w, K, torch.full((len(c2w),), size[0]), torch.full((len(c2w),), size[1]))


def test_cameras_side_by_side_have_rows_as_epipolar_lines():
    both = cameras([(0, 0, 0), (1, 0, 0)])
    a = torch.tensor([[10.0, 20], [50, 60], [70, 80]])
    b = torch.tensor([[5.0, 20], [30, 63], [90, 75.5]])  # where along the row does not matter
    torch.testing.assert_close(epipolar_distance(a, b, both[0], both[1]), torch.tensor([0, 3, 4.5]))


def test_a_camera_moving_forward_has_lines_through_the_centre():
    """(80 + 30, 60 + 40) lies on a line of direction (3, 4) / 5 in both; 5 pixels across it is 5 to that line."""
    both = cameras([(0, 0, 0), (0, 0, 1)])
    a, along, across = torch.tensor([[110.0, 100]]), torch.tensor([[116.0, 108]]), torch.tensor([[106.0, 103]])
    assert epipolar_distance(a, along, both[0], both[1]) == pytest.approx(0, abs=1e-4)
    in_b = 5.0
    in_a = abs(30 * 43 - 40 * 26) / math.hypot(26, 43)  # of (30, 40) from the line of direction (26, 43)
    assert epipolar_distance(a, across, both[0], both[1]) == pytest.approx((in_b + in_a) / 2, rel=1e-5)


def test_the_distance_agrees_with_lines_drawn_from_points_along_rays():
    rng = np.random.default_rng(0)
    both = cameras([(0, 0, 0), (0.6, 0.1, 0.2)], [0.0, -0.2])
    a, b = (torch.from_numpy(rng.uniform(0, (160, 120), (20, 2))).float() for _ in range(2))

    def to_line(pixel, camera, other, target):
        """Distance of the target in the other image from the line through two points of the pixel's ray."""
        ray = np.linalg.inv(camera.K[0].double().numpy()) @ [*pixel, 1]
        ends = []
        for depth in (1.0, 5.0):
            world = camera.c2w[0].double().numpy() @ [*(ray * depth), 1]
            local = np.linalg.inv(other.c2w[0].double().numpy()) @ world
            seen = other.K[0].double().numpy() @ local[:3]
            ends.append(seen[:2] / seen[2])
        (x0, y0), (x1, y1) = ends
        return abs((x1 - x0) * (target[1] - y0) - (y1 - y0) * (target[0] - x0)) / math.hypot(x1 - x0, y1 - y0)

    expected = [
        (to_line(p, both[0], both[1], q) + to_line(q, both[1], both[0], p)) / 2
        for p, q in zip(a.tolist(), b.tolist(), strict=True)
    ]
    found = epipolar_distance(a, b, both[0], both[1])
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-3)


def test_true_projections_have_distance_zero():
    both = cameras([(0, 0, 0), (0.5, 0.2, -0.3)], [0.1, -0.1])
    points = torch.rand(30, 3) + torch.tensor([-0.5, -0.5, 3])
    pixels = []
    for camera in (both[0], both[1]):
        local = (points - camera.c2w[0, :3, 3]) @ camera.c2w[0, :3, :3]
        pixels.append((local @ camera.K[0].T)[:, :2] / local[:, 2:])
    assert epipolar_distance(*pixels, both[0], both[1]).max() < 1e-3


def wall(seed):
    """A picture full of discs and bars, for features."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (300, 200), "gray")
    draw = ImageDraw.Draw(picture)
    for _ in range(300):
        (x, y), r = rng.uniform(0, (300, 200)), rng.uniform(2, 9)
        draw.rectangle((x - r, y - r * rng.uniform(0.3, 1), x + r, y + r), fill=tuple(rng.integers(0, 256, 3)))
    return torch.from_numpy(np.array(picture))


def windows(picture, count):
    """What cameras one unit apart along x see of a wall four units away: it moves by 25 pixels."""
    return [picture[30:150, 25 * i : 25 * i + 160] for i in range(count)]


def test_a_path_along_a_wall_is_consistent_with_its_own_cameras_only():
    frames = windows(wall(0), 4)
    path = [(float(i), 0, 0) for i in range(4)]
    right = tsed(frames, cameras(path))
    assert right.score == 1
    assert tsed(frames, cameras(path), min_matches=50).score == 1
    assert max(right.errors) < 0.5
    across = tsed(frames, cameras([(0, x, 0) for x, _, _ in path]))
    assert across.score == 0
    assert min(across.errors) > 20


def test_frames_of_another_place_have_too_few_matches():
    frames = windows(wall(0), 2) + windows(wall(1), 2)
    result = tsed(frames, cameras([(float(i), 0, 0) for i in range(4)]))
    assert result.score == pytest.approx(2 / 3)
    assert tsed(frames, cameras([(float(i), 0, 0) for i in range(4)]), min_matches=0, max_error=math.inf).score == 1
    flat = [torch.full((120, 160, 3), 128, dtype=torch.uint8)] * 2
    nothing = tsed(flat, cameras([(0.0, 0, 0), (1.0, 0, 0)]))
    assert nothing == type(nothing)(score=0.0, errors=(math.inf,))


def test_the_thresholds_decide():
    frames = windows(wall(0), 2)
    # the second camera is 5 pixels lower than the frames say, if the wall is four units away
    path = cameras([(0.0, 0, 0), (1.0, 0.2, 0)])
    result = tsed(frames, path)
    (error,) = result.errors
    assert 2 < error < 8
    assert result.score == 0
    assert tsed(frames, path, max_error=error + 0.01).score == 1
    assert tsed(frames, path, max_error=error + 0.01, min_matches=10_000).score == 0


def test_pairs_at_the_same_place_are_not_consistent_and_no_pair_has_no_score():
    frames = windows(wall(0), 2)
    still = tsed(frames, cameras([(0.0, 0, 0), (0.0, 0, 0)]))
    assert still.score == 0
    assert math.isnan(still.errors[0])
    assert math.isnan(tsed(frames[:1], cameras([(0.0, 0, 0)])).score)


@pytest.mark.real
def test_photos_are_consistent_with_their_cameras_until_they_are_moved(shared):
    from difix3d.scene import load_scene

    scene = load_scene(shared / "scenes" / "fox")
    first = [0, 1, 2]
    frames = [torch.from_numpy(read_image(scene.photos[i].path, scene.cameras[i].size)) for i in first]
    right = tsed(frames, scene.cameras[first])
    assert right.score == 1
    assert max(right.errors) < 1
    moved = [frame.roll(8 * (i % 2), 0) for i, frame in enumerate(frames)]
    assert tsed(moved, scene.cameras[first]).score == 0
