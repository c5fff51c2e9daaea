from dataclasses import replace

import numpy as np
import pytest

from difix3d.scene import near_depth


def test_the_near_plane_is_a_fifth_of_the_nearest_percent_of_depths(toy_scene):
    depths = []
    for point, photo in toy_scene.observations:
        if photo in toy_scene.train:
            w2c = toy_scene.cameras[int(photo)].w2c[0].numpy()
            depths.append(w2c[2, :3] @ toy_scene.points[point] + w2c[2, 3])
    assert near_depth(toy_scene) == pytest.approx(0.2 * np.percentile(depths, 1), rel=1e-4)


def test_without_observations_it_is_the_usual_one(toy_scene):
    assert near_depth(replace(toy_scene, observations=np.zeros((0, 2), np.int64))) == 0.01


def test_it_is_never_behind_the_camera(toy_scene):
    assert near_depth(replace(toy_scene, points=toy_scene.points * 10)) == 0.01
