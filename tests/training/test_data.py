from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d.gaussians.init import InitConfig
from difix3d.geometry.warp import project
from difix3d.scene import Views
from difix3d.training.config import TrainConfig
from difix3d.training.data import initial_gaussians


def test_points_that_only_held_out_photos_see_are_not_begun_with(toy_scene):
    seen = np.array([[0, 0], [0, 1], [1, 0], [1, 2], [2, 2], [2, 6]])  # 2 and 6 are held out
    scene = replace(toy_scene, points=toy_scene.points[:3], colors=toy_scene.colors[:3], observations=seen)
    first = initial_gaussians(scene, TrainConfig(init=InitConfig(dense=0)))
    np.testing.assert_allclose(first.means.numpy(), scene.points[:1])


def test_without_points_it_begins_on_random_ones(toy_scene):
    scene = replace(
        toy_scene,
        points=np.zeros((0, 3), np.float32),
        colors=np.zeros((0, 3), np.uint8),
        observations=np.zeros((0, 2), np.int64),
    )
    config = TrainConfig(sh_degree=1, init=InitConfig(points=50, dense=0))
    first, again = initial_gaussians(scene, config), initial_gaussians(scene, config)
    assert (len(first), first.sh_degree) == (50, 1)
    torch.testing.assert_close(first.means, again.means)


def test_without_points_an_object_begins_where_its_photos_leave_it(cutout):
    """Random points lie where no training photo is empty; those of opaque photos all around."""
    empty = {"points": np.zeros((0, 3), np.float32), "colors": np.zeros((0, 3), np.uint8)}
    scene = replace(cutout, observations=np.zeros((0, 2), np.int64), **empty)
    config = TrainConfig(init=InitConfig(points=3000, dense=0))
    means = initial_gaussians(scene, config).means
    assert 50 < len(means) < 3000
    views = Views(scene)
    for index in scene.train.tolist():
        camera = scene.cameras[index]
        pixels, _ = project(means, camera)
        column, row = pixels.long().unbind(1)
        shown = (pixels >= 0).all(1) & (column < 48) & (row < 40)
        assert (views[index].alpha[row[shown], column[shown]] > 0).all()
    assert len(initial_gaussians(replace(scene, alpha=False), config).means) == 3000


def begun_with(scene, dense):
    return len(initial_gaussians(scene, TrainConfig(init=InitConfig(dense=dense))))


def test_dense_points_come_to_few_sparse_ones(toy_scene):
    """As many as asked for, if the photos give them; none where there are as many sparse ones."""
    sparse = len(toy_scene.points)
    assert begun_with(toy_scene, 0) == sparse
    assert begun_with(toy_scene, sparse) == sparse
    assert begun_with(toy_scene, sparse + 1) == 2 * sparse + 1
    assert sparse + 1000 < begun_with(toy_scene, InitConfig().dense) < InitConfig().dense


@pytest.mark.parametrize(("most", "expected"), [(1000, 300 + 500), (400, 400), (200, 300)])
def test_dense_points_leave_room_to_grow(toy_scene, most, expected):
    densify = replace(TrainConfig().densify, cap_max=most)
    assert len(initial_gaussians(toy_scene, TrainConfig(densify=densify))) == expected


def test_a_line_says_how_many_dense_points_there_are(toy_scene, capfd):
    begun_with(toy_scene, 500)
    line = "500 dense points found by comparing 9 photos (--init.dense 0 goes without)"
    assert line in capfd.readouterr().err
    begun_with(toy_scene, 0)
    assert "dense" not in capfd.readouterr().err


def test_without_sparse_points_dense_ones_do(toy_scene, cutout):
    """If they are enough; an object has the points of its hull as well."""
    empty = {"points": np.zeros((0, 3), np.float32), "colors": np.zeros((0, 3), np.uint8)}
    bare = replace(toy_scene, observations=np.zeros((0, 2), np.int64), **empty)
    assert begun_with(bare, 2000) == 2000
    assert begun_with(bare, 500) == 500 + InitConfig().points
    bare = replace(cutout, observations=np.zeros((0, 2), np.int64), **empty)
    assert begun_with(bare, 300) > begun_with(bare, 0) > 300
