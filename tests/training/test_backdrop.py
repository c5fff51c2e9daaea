"""The shell of Gaussians behind everything."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from difix3d.distill.references import References
from difix3d.errors import UserError
from difix3d.gaussians.init import InitConfig
from difix3d.images import write_image
from difix3d.render import rasterize
from difix3d.scene import Views
from difix3d.training import TrainConfig, Trainer
from difix3d.training.backdrop import BEYOND, OPACITY, backdrop_of, colors_around, spread
from difix3d.training.data import initial_gaussians
from difix3d.training.events import Stepped
from difix3d.types import Cameras, Photo

SHELL = InitConfig(dense=0, backdrop=2000)


@pytest.fixture
def shell(toy_scene):
    return backdrop_of(toy_scene, SHELL)


@pytest.fixture
def shelled(config):
    """A run with one."""
    return replace(config, init=SHELL)


def looking(directions):
    """Cameras in the middle of the toy scene's, wide, that look there."""
    poses = []
    for forward in np.asarray(directions, float):
        right = np.cross(forward, [0.1, 0.2, 1.0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
        poses.append(pose)
    count = len(poses)
    K = torch.tensor([[20.0, 0, 20], [0, 20, 20], [0, 0, 1]]).repeat(count, 1, 1)
    size = torch.full((count,), 40)
    return Cameras(torch.from_numpy(np.stack(poses)).float(), K, size, size)


def photos_of(scene, colors, folder, masks=None):
    """The scene with plain photos, one for each of its training cameras."""
    photos = []
    for index, color in enumerate(colors):
        path = folder / f"plain_{index}.png"
        write_image(path, torch.tensor(color).expand(40, 40, 3))
        mask = None
        if masks is not None:
            mask = folder / f"mask_{index}.png"
            write_image(mask, torch.full((40, 40, 3), float(masks[index])))
        photos.append(Photo(path.name, path, mask=mask))
    empty = {"points": scene.points[:0], "colors": scene.colors[:0], "observations": np.zeros((0, 2), int)}
    chosen = {"photos": tuple(photos), "train": np.arange(len(photos)), "test": np.array([], int)}
    return replace(scene, **empty, **chosen)


def test_it_is_opaque_all_around(toy_scene, shell):
    """From the middle, and from the cameras, in all directions."""
    model = shell.gaussians(toy_scene, 3)
    assert len(model) == 2000
    assert rasterize(model, looking(spread(12))).alpha.min() > 0.97
    assert rasterize(model, toy_scene.cameras).alpha.min() > 0.97


def test_it_lies_behind_all_sparse_points(toy_scene, shell):
    distances = np.linalg.norm(toy_scene.points - shell.center.numpy(), axis=1)
    assert shell.radius >= max(1.5 * np.percentile(distances, 99), 10 * toy_scene.extent) * 0.999
    far = replace(toy_scene, points=toy_scene.points * 100)
    assert backdrop_of(far, SHELL).radius > 100
    model = initial_gaussians(toy_scene, TrainConfig(init=SHELL))
    assert shell.beyond(model.means).tolist() == [False] * 300 + [True] * 2000
    assert backdrop_of(toy_scene, InitConfig(backdrop=0)) is backdrop_of(toy_scene, InitConfig()) is None


def test_it_has_the_colors_of_the_photos_that_look_there(toy_scene, tmp_path):
    """Red where one looks, blue on the other side; masked pixels have no say."""
    two = replace(toy_scene, cameras=looking([[1, 0, 0], [-1, 0, 0]]))
    there = np.array([[1.0, 0, 0], [-1, 0, 0], [0.3, 0.95, 0]])
    colors = [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
    found = colors_around(photos_of(two, colors, tmp_path), there).astype(int)
    assert found.tolist() == [[255, 0, 0], [0, 0, 255], [255, 0, 0]]
    found = colors_around(photos_of(two, colors, tmp_path, masks=(1, 0)), there)
    assert (found == [255, 0, 0]).all()
    assert (colors_around(photos_of(two, colors, tmp_path, masks=(0, 0)), there) == 128).all()


def test_depth_is_that_of_what_stands_before_it(toy_scene, shell):
    """A little of the shell that shines through would move it."""
    model = initial_gaussians(toy_scene, TrainConfig(init=replace(SHELL, opacity=0.9, scale=0.5)))
    body = model.map(lambda x: x[:300])
    camera = toy_scene.cameras[0]
    alone, mixed = rasterize(body, camera), rasterize(model, camera)
    clean = rasterize(model, camera, surfaces=shell.surfaces)
    covered = alone.alpha > 0.5
    assert covered.float().mean() > 0.1
    torch.testing.assert_close(clean.depth[covered], alone.depth[covered])
    assert (mixed.depth - alone.depth)[covered & (alone.alpha < 0.95)].mean() > 0.5
    assert (~covered).float().mean() > 0.02
    torch.testing.assert_close(clean.depth[~covered], mixed.depth[~covered])
    for name in ("rgb", "alpha"):
        assert torch.equal(getattr(clean, name), getattr(mixed, name))
    assert rasterize(model, camera, surfaces=shell.surfaces, depth=False).depth is None


def test_foreground_is_what_covers_the_backdrop(toy_scene, shell):
    model = initial_gaussians(toy_scene, TrainConfig(init=replace(SHELL, opacity=0.9, scale=0.5)))
    camera = toy_scene.cameras[0]
    clean = rasterize(model, camera, surfaces=shell.surfaces)
    torch.testing.assert_close(clean.foreground, rasterize(model.map(lambda x: x[:300]), camera).alpha)
    assert clean.alpha.min() > 0.8 > 0.5 > clean.foreground.min()
    assert rasterize(model, camera).foreground is None
    references = References(toy_scene.cameras, [0, 1, 3], partial(rasterize, model, surfaces=shell.surfaces))
    photo = Views(toy_scene).__getitem__
    assert torch.equal(references.degraded(camera, clean, photo).coverage, clean.foreground[0, ..., 0])
    plain = rasterize(model, camera)
    assert torch.equal(references.degraded(camera, plain, photo).coverage, plain.alpha[0, ..., 0])


@pytest.mark.gpu
def test_depth_before_it_on_a_gpu(toy_scene, shell):
    model = initial_gaussians(toy_scene, TrainConfig(init=SHELL))
    here, there = (
        rasterize(model.to(device), toy_scene.cameras[:3], surfaces=shell.surfaces) for device in ("cpu", "cuda")
    )
    close = (here.depth - there.depth.cpu()).abs() < 1e-2
    assert close.float().mean() > 0.99  # but where half of a pixel is covered, give or take a rounding


def test_it_stays_opaque_and_is_never_too_large(toy_scene, shelled):
    """Through resets of all opacities, after which densification removes what is large and what is faint."""
    shelled = replace(shelled, densify=replace(shelled.densify, every=5, reset_every=10, stop=1.0), max_steps=41)
    trainer = Trainer(shelled, toy_scene)
    first = len(trainer.gaussians)
    trainer.train()
    model, shell = trainer.gaussians, trainer.model.backdrop
    far = shell.beyond(model.means)
    assert int(far.sum()) >= 2000
    assert trainer.model.densifier.too_large < model.scales[far].exp().amax(1).median()
    assert model.opacities[far].sigmoid().min() > OPACITY - 1e-4
    assert model.opacities[~far].sigmoid().max() < OPACITY
    assert len(model) != first


def test_what_is_too_large_before_it_goes(toy_scene, shelled):
    trainer = Trainer(replace(shelled, densify=replace(shelled.densify, every=5, reset_every=7, stop=1.0)), toy_scene)
    with torch.no_grad():
        trainer.gaussians.scales[:4] = 1.0
    trainer.train()
    far = trainer.model.backdrop.beyond(trainer.gaussians.means)
    assert trainer.gaussians.scales[~far].exp().max() < 1


def test_a_run_with_it_resumes_to_the_bit_and_loads(toy_scene, shelled, config):
    whole = Trainer(replace(shelled, output_dir=config.output_dir.with_name("whole")), toy_scene).train()

    def stop(event):
        if isinstance(event, Stepped) and event.step == 17:
            trainer.control.stop()

    trainer = Trainer(shelled, toy_scene, [stop])
    trainer.train()
    resumed = Trainer(replace(config, resume=True), toy_scene)
    assert (resumed.first, resumed.config.init.backdrop) == (17, 2000)
    for name, value in resumed.train().as_dict().items():
        assert torch.equal(value, getattr(whole, name)), name


def test_without_it_nothing_of_it_runs(toy_scene, config):
    trainer = Trainer(config, toy_scene)
    assert trainer.model.backdrop is None
    assert trainer.model.settings["surfaces"] is None
    assert trainer.model.densifier.strategy.prune_scale3d == 0.1


def test_points_out_of_sight_are_found_in_front_of_it(toy_scene, shelled):
    away = replace(toy_scene, points=toy_scene.points * 0.1 + [0, 0, 500.0])
    with pytest.raises(UserError, match="Before step 0 none of 9 training photos .* shows a Gaussian"):
        Trainer(shelled, away).train()


def test_gaussians_stay_on_their_side(toy_scene, shelled):
    """None of the backdrop comes nearer than its limit by training, though its colours are trained."""
    trainer = Trainer(replace(shelled, densify=replace(shelled.densify, kind="none")), toy_scene)
    before = trainer.gaussians.map(lambda x: x.detach().clone())
    after = trainer.train()
    distance = (after.means - trainer.model.backdrop.center).norm(dim=1)
    assert distance[300:].min() > 1.2 * BEYOND * trainer.model.backdrop.radius
    assert not torch.equal(after.sh0[300:], before.sh0[300:])
