from dataclasses import replace

import numpy as np
import torch

from difix3d.gaussians.init import InitConfig
from difix3d.geometry.warp import project
from difix3d.scene import Views
from difix3d.training import Trainer
from difix3d.training.config import TrainConfig
from difix3d.training.data import initial_gaussians
from difix3d.training.events import Started


def test_points_that_only_held_out_photos_see_are_not_begun_with(toy_scene):
    seen = np.array([[0, 0], [0, 1], [1, 0], [1, 2], [2, 2], [2, 6]])  # 2 and 6 are held out
    scene = replace(toy_scene, points=toy_scene.points[:3], colors=toy_scene.colors[:3], observations=seen)
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


def test_without_points_an_object_begins_where_its_photos_leave_it(cutout):
    """Random points lie where no training photo is empty; those of opaque photos all around."""
    empty = {"points": np.zeros((0, 3), np.float32), "colors": np.zeros((0, 3), np.uint8)}
    scene = replace(cutout, observations=np.zeros((0, 2), np.int64), **empty)
    config = TrainConfig(init=InitConfig(points=3000))
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


def test_a_line_says_how_many_dense_points_there_are(toy_scene, config):
    config = replace(config, init=replace(config.init, dense=500, backdrop=100), max_steps=1)
    notes = []
    for init in (config.init, replace(config.init, dense=0)):
        started = []
        folder = config.output_dir.with_name(str(init.dense))
        Trainer(replace(config, init=init, output_dir=folder), toy_scene, [started.append]).train()
        notes += [event.note for event in started if isinstance(event, Started)]
    assert "500 dense points were found by comparing the photos (--init.dense 0 goes without)" in notes[0]
    assert "dense" not in notes[1]
