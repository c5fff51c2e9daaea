from dataclasses import replace

import numpy as np
import pytest

from difix3d.scene import dropped_points, near_depth, visible_points


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


def test_points_count_if_enough_training_photos_see_them_or_all_that_do(toy_scene):
    """Photos 2, 6 and 10 are held out; networks write points with one photo, or none, in their tracks."""
    tracks = [[0, 1], [0, 2], [2, 6], [0], [2], [], [0, 1, 2]]
    pairs = np.array([(point, photo) for point, track in enumerate(tracks) for photo in track], np.int64)
    scene = replace(toy_scene, points=toy_scene.points[: len(tracks)], colors=toy_scene.colors[:7], observations=pairs)
    assert visible_points(scene).tolist() == [True, False, False, True, False, True, True]
    assert visible_points(scene, at_least=1).tolist() == [True, True, False, True, False, True, True]
    assert visible_points(scene, at_least=0).all()
    assert dropped_points(scene, 2) == "3 of 7 points dropped: seen by fewer than 2 training photos"
    assert dropped_points(toy_scene, 2) == ""


def test_points_of_one_photo_each_are_begun_from(toy_scene, config, tmp_path):
    from difix3d.training import Trainer

    one = toy_scene.observations[np.unique(toy_scene.observations[:, 0], return_index=True)[1]]
    one[:, 1] = np.arange(300) % 12
    events: list = []
    trainer = Trainer(replace(config, max_steps=1), replace(toy_scene, observations=one), [events.append])
    assert len(trainer.gaussians) == 225
    trainer.train()
    assert events[0].note == "75 of 300 points dropped: seen by fewer than 2 training photos"
