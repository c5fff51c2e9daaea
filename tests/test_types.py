import pytest
import torch

from difix3d.types import Cameras, Render


def test_sizes_stay_on_the_host(toy_scene):
    """Nothing that asks for a size waits for a GPU ("meta" stands for one here: it has no values to wait for)."""
    cameras = toy_scene.cameras.to("meta")
    assert cameras.size == cameras[3].size == cameras[[1, 2]].size == cameras[:4].size == (48, 40)
    assert cameras.limited(24).size == (24, 20)
    assert cameras[torch.tensor([0, 1])].c2w.device.type == "meta"


def test_cameras_in_one_batch(toy_scene):
    cameras = toy_scene.cameras
    again = Cameras.cat([cameras[:2], cameras[2], cameras[3:]])
    for name in ("c2w", "K", "width", "height"):
        assert torch.equal(getattr(again, name), getattr(cameras, name))


def test_cameras_of_several_sizes_have_no_common_one(toy_scene):
    with pytest.raises(ValueError, match="2 different image sizes"):
        _ = Cameras.cat([toy_scene.cameras[0], toy_scene.cameras[1].resized(24, 20)]).size


def test_a_depth_map():
    depth = torch.rand(1, 4, 5, 1)
    assert torch.equal(Render(torch.zeros(1, 4, 5, 3), torch.zeros(1, 4, 5, 1), depth).depth_map, depth[0, :, :, 0])
