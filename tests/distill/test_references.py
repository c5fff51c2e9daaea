import torch

from difix3d.distill.references import References
from difix3d.geometry.poses import look_at, nearest
from difix3d.types import Cameras


def depth_of(render, camera):
    return render(camera).depth_map


def test_the_nearest_camera_that_looks_at_the_same_is_chosen(toy_scene, render):
    references = References(toy_scene.cameras, toy_scene.train.tolist(), render)
    for index in toy_scene.test.tolist():
        camera = toy_scene.cameras[index]
        chosen = references(camera, depth_of(render, camera), 1)
        expected = toy_scene.train[int(nearest(camera.c2w, toy_scene.cameras.c2w[toy_scene.train]))]
        assert chosen == [expected]


def test_several_come_without_repetition_and_never_a_photo_left_out(toy_scene, render):
    references = References(toy_scene.cameras, toy_scene.train.tolist(), render)
    camera = toy_scene.cameras[int(toy_scene.test[0])]
    chosen = references(camera, depth_of(render, camera), 4)
    assert len(set(chosen)) == 4
    assert set(chosen) <= set(toy_scene.train.tolist())


def test_a_near_camera_that_looks_away_loses_to_a_farther_one_that_sees_the_scene(toy_scene, render):
    camera = toy_scene.cameras[5]
    position = camera.centers[0]
    away = look_at(position + 0.01, 2 * position, torch.tensor([0.0, 0.0, 1.0]))
    both = Cameras(
        torch.stack([away, toy_scene.cameras.c2w[7]]),
        toy_scene.cameras.K[:2],
        toy_scene.cameras.width[:2],
        toy_scene.cameras.height[:2],
    )
    turned = Cameras(camera.c2w, camera.K, camera.width, camera.height)
    chosen = References(both, [0, 1], render)(turned, depth_of(render, turned), 2)
    assert chosen == [1, 0]


def test_without_any_depth_the_nearest_pose_is_taken(toy_scene, render):
    camera = toy_scene.cameras[5]
    references = References(toy_scene.cameras, toy_scene.train.tolist(), render)
    assert references(camera, torch.zeros(40, 48), 1) == [5]


def test_coarse_keeps_the_view(toy_scene):
    camera = toy_scene.cameras[0].limited(24)
    assert camera.size == (24, 20)
    assert torch.allclose(camera.K[0, :2], toy_scene.cameras.K[0, :2] / 2)
    assert toy_scene.cameras[0].limited(480).size == (48, 40)
