"""A model on the GPU takes cameras, photos and backgrounds from the host: nobody has to move small things himself."""

from dataclasses import replace

import pytest
import torch

from difix3d import rasterize
from difix3d.difix import DifixFixer
from difix3d.difix.architecture import random_difix
from difix3d.distill import DistillConfig, Distiller
from difix3d.evaluate.align import align
from difix3d.evaluate.measures import consistency, psnrs
from difix3d.evaluate.seen import only_visible, seen_pixels
from difix3d.gaussians import from_points
from difix3d.geometry.warp import warp
from difix3d.postrender import PostRender
from difix3d.scene import Views

pytestmark = pytest.mark.gpu


@pytest.fixture
def there(toy_scene):
    """The toy scene's model on the GPU; the scene stays on the host."""
    return from_points(toy_scene.points, toy_scene.colors, opacity=0.9).to("cuda")


def test_a_render_with_everything_else_on_the_host(toy_scene, there):
    camera, background = toy_scene.cameras[0], torch.tensor([1.0, 0, 0], requires_grad=True)
    pose = camera.c2w.clone().requires_grad_()
    out = rasterize(there, type(camera)(pose, camera.K, camera.width, camera.height), background=background)
    expected = rasterize(there.to("cpu"), camera, background=background)
    assert out.rgb.device.type == "cuda"
    assert (out.rgb.cpu() - expected.rgb).abs().max() < 0.02
    out.rgb.mean().backward()
    assert pose.grad.abs().sum() > 0
    assert background.grad.abs().sum() > 0


@pytest.mark.parametrize("trust", [False, True])
def test_a_fixer_behind_it(toy_scene, there, trust):
    fixer = DifixFixer(random_difix().optimize(compile=False), "cuda")
    photo = Views(toy_scene).__getitem__
    model = PostRender(lambda camera: rasterize(there, camera), fixer, toy_scene, photo, trust=trust)
    assert model(toy_scene.cameras[2]).rgb.isfinite().all()
    frames = list(model.stream([toy_scene.cameras[i] for i in (2, 3, 4)], every=2, mix=0.5))
    assert [tuple(frame.shape) for frame in frames] == [(40, 48, 3)] * 3


def test_a_fixer_takes_images_from_the_host_to_the_gpu(toy_scene, there):
    """Renders of the CPU, fixed on the GPU."""
    fixer = DifixFixer(random_difix().optimize(compile=False), "cuda")
    photo = Views(toy_scene).__getitem__
    model = PostRender(lambda camera: rasterize(there.to("cpu"), camera), fixer, toy_scene, photo)
    assert model(toy_scene.cameras[2]).rgb.device.type == "cpu"


def test_a_pose_is_aligned(toy_scene, there):
    found = align(lambda camera, **options: rasterize(there, camera, **options), Views(toy_scene)[0])
    assert found.c2w.isfinite().all()


def test_a_warp_with_cameras_of_the_host(toy_scene, there):
    one, other = (rasterize(there, toy_scene.cameras[i]) for i in (0, 1))
    warped, valid = warp(other.rgb[0], other.depth_map, toy_scene.cameras[1], one.depth_map, toy_scene.cameras[0])
    assert warped.device.type == "cuda"
    assert valid.any()


def test_a_distillation_round(toy_scene, there):
    fixer = DifixFixer(random_difix().optimize(compile=False), "cuda")
    config = DistillConfig(num_perturbed=2)
    distiller = Distiller(config, toy_scene, Views(toy_scene).__getitem__, fixer, targets=None, max_steps=100)
    done = distiller.run_round(lambda camera: rasterize(there, camera), distiller.steps[0])
    assert len(done.pseudo.images) == 2


def test_what_is_measured(toy_scene, there):
    def render(camera):
        return rasterize(there, camera)

    photo = Views(toy_scene)[2]
    masked = replace(photo, mask=torch.ones(40, 48, dtype=torch.bool))
    train = toy_scene.cameras[toy_scene.train]
    (seen,) = only_visible([masked], render, train)
    assert seen.mask.any()
    assert seen_pixels(render, train)(masked).any()
    assert psnrs(render, [masked, seen])[0] > 30
    cameras = [toy_scene.cameras[i] for i in (0, 1)]
    assert 0 <= consistency(["warp"], render, render, cameras, "3DGS")["warp"].value < 1
