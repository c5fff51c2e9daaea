from dataclasses import replace

import numpy as np
import torch

from difix3d.training.config import TrainConfig
from difix3d.training.data import initial_gaussians


def test_points_that_only_held_out_photos_see_are_not_begun_with(toy_scene):
    seen = np.array([[0, 0], [0, 1], [1, 0], [1, 2], [2, 2], [2, 6]])  # 2 and 6 are held out
    scene = replace(toy_scene, observations=seen)
    first = initial_gaussians(scene, TrainConfig())
    np.testing.assert_allclose(first.means.numpy(), scene.points[:1])


def test_without_points_it_begins_on_random_ones(toy_scene):
    scene = replace(
        toy_scene,
        points=np.zeros((0, 3), np.float32),
        colors=np.zeros((0, 3), np.uint8),
        observations=np.zeros((0, 2), np.int64),
    )
    config = TrainConfig(sh_degree=1, init=replace(TrainConfig().init, points=50))
    first, again = initial_gaussians(scene, config), initial_gaussians(scene, config)
    assert (len(first), first.sh_degree) == (50, 1)
    torch.testing.assert_close(first.means, again.means)
