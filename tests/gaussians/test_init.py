import numpy as np
import torch

from difix3d.gaussians.init import from_points, random_points
from difix3d.geometry.sh import SH_C0


def test_size_is_the_rms_distance_to_three_neighbours():
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    gaussians = from_points(points, np.zeros((50, 3), np.uint8), scale=2.0)
    distances = np.sort(np.linalg.norm(points[:, None] - points[None], axis=-1), axis=1)[:, 1:4]
    expected = np.log(2 * np.sqrt((distances**2).mean(1)))
    np.testing.assert_allclose(gaussians.scales.numpy(), np.repeat(expected[:, None], 3, 1), rtol=1e-5)


def test_colours_and_opacity_come_back():
    colors = np.array([[0, 128, 255], [10, 20, 30]], np.uint8)
    gaussians = from_points(np.eye(2, 3, dtype=np.float32), colors, sh_degree=2, opacity=0.3)
    np.testing.assert_allclose(0.5 + SH_C0 * gaussians.sh0[:, 0].numpy(), colors / 255, atol=1e-6)
    torch.testing.assert_close(torch.sigmoid(gaussians.opacities), torch.full((2,), 0.3))
    assert gaussians.sh_degree == 2


def test_one_point_and_equal_points_are_finite():
    for count in (1, 2, 5):
        gaussians = from_points(np.zeros((count, 3), np.float32), np.zeros((count, 3), np.uint8))
        assert torch.isfinite(gaussians.scales).all()


def test_random_points_are_repeatable():
    first, second = random_points(100, 2.0, seed=3), random_points(100, 2.0, seed=3)
    np.testing.assert_array_equal(first[0], second[0])
    assert np.abs(first[0]).max() <= 2
