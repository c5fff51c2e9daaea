"""Nothing large stays near the ways between cameras, where other viewers would draw it as fog."""

import math
from dataclasses import replace

import pytest
import torch

from difix3d.gaussians import from_points
from difix3d.render import rasterize
from difix3d.training import Trainer
from difix3d.training.clear import ClearWay, ways
from difix3d.training.densify import Densifier, DensifyConfig
from difix3d.training.optim import OptimConfig, SplatOptimizer
from difix3d.types import Cameras, Gaussians

NEAR, OTHERS_NEAR, STEPS = 0.2, 0.01, 100


def row(places, aside: float = 0.0) -> Cameras:
    """Cameras beside each other that look along z, all ``aside`` along y."""
    c2w = torch.eye(4).repeat(len(places), 1, 1)
    c2w[:, 0, 3] = torch.tensor(places)
    c2w[:, 1, 3] = aside
    K = torch.tensor([[40.0, 0, 20], [0, 40, 20], [0, 0, 1]]).repeat(len(places), 1, 1)
    sizes = torch.full((len(places),), 40)
    return Cameras(c2w, K, sizes, sizes)


def splats(fog, sigma: float = 0.06) -> SplatOptimizer:
    """A wall at depth 2, and Gaussians of the standard deviation ``sigma`` at the places of ``fog``."""
    x, y = torch.meshgrid(torch.linspace(-2, 2, 24), torch.linspace(-2, 2, 24), indexing="ij")
    wall = torch.stack([x, y, torch.full_like(x, 2.0)], -1).reshape(-1, 3)
    means = torch.cat([wall, torch.tensor(fog)])
    colors = torch.full((len(means), 3), 200, dtype=torch.uint8).numpy()
    model = from_points(means.numpy(), colors, opacity=0.9)
    scales = torch.full_like(model.scales, 0.1)
    scales[len(wall) :] = sigma
    return SplatOptimizer(replace(model, scales=scales.log()), OptimConfig(), extent=1.0, batch_size=1, max_steps=STEPS)


def run(clear: ClearWay, model: SplatOptimizer) -> Gaussians:
    torch.manual_seed(0)
    for step in range(STEPS):
        clear(model, {}, step)
    return model.gaussians.map(torch.Tensor.detach)


@pytest.mark.parametrize(
    ("aside", "place", "sigma"),
    [
        (0.0, (0.15, 0.05, 0.01), 0.06),
        (0.0, (0.15, 0.0, 0.005), 0.06),
        (0.0, (0.32, -0.06, 0.005), 0.06),
        (0.04, (0.155, 0.05, 0.005), 0.0059),
        (0.0, (2.5, 0.0, 0.015), 2.0),
    ],
)
def test_fog_of_a_camera_between_the_trained_ones_goes(aside, place, sigma):
    held_out, trained = row([0.15], aside), row([0.0, 0.3])
    model = splats([place], sigma)
    clear = ClearWay(trained, NEAR, OTHERS_NEAR, split_until=STEPS // 2, max_steps=STEPS, cap=10_000)

    def fogged(gaussians, camera):
        shown, hidden = (rasterize(gaussians, camera, near=near).rgb for near in (0.001, NEAR))
        return float((shown - hidden).abs().mean())

    before = model.gaussians.map(torch.Tensor.detach)
    assert max(fogged(before, camera) for camera in (held_out, trained)) > 0.01
    after = run(clear, model)
    assert max(fogged(after, camera) for camera in (held_out, trained)) < 0.005
    torch.testing.assert_close(after.means[:576], before.means[:576])
    torch.testing.assert_close(after.scales[:576], before.scales[:576])


@pytest.mark.parametrize("kind", ["default", "mcmc"])
def test_statistics_and_moments_follow(kind):
    model = splats([(0.1, 0.1, 0.05), (0.2, 0.1, 0.05), (0.15, 0.0, 0.001)])
    densifier = Densifier(DensifyConfig(kind=kind), max_steps=STEPS, extent=1.0)
    sizes = {name: tensor.shape for name, tensor in densifier.state.items() if isinstance(tensor, torch.Tensor)}
    if kind == "default":
        densifier.state.update({"grad2d": torch.zeros(579), "count": torch.zeros(579)})
    sum(value.sum() for value in model.params.values()).backward()
    model.step(0)
    clear = ClearWay(row([0.0, 0.3]), NEAR, OTHERS_NEAR, split_until=STEPS // 2, max_steps=STEPS, cap=10_000)
    for step in range(STEPS // 2):
        clear(model, densifier.by_gaussian, step)
    count = len(model.gaussians)
    assert count != 579
    for name, optimizer in model.optimizers.items():
        assert len(optimizer.state[model.params[name]]["exp_avg"]) == count
    if kind == "default":
        assert len(densifier.state["grad2d"]) == len(densifier.state["count"]) == count
    assert all(densifier.state[name].shape == size for name, size in sizes.items())


def test_with_as_many_gaussians_as_allowed_they_are_made_small():
    model = splats([(0.1, 0.1, 0.05)])
    after = run(
        ClearWay(row([0.0, 0.3]), NEAR, OTHERS_NEAR, split_until=STEPS // 2, max_steps=STEPS, cap=2 * 577), model
    )
    assert len(after) == 577
    assert float(after.scales[-1].exp().max()) < 0.04


def test_without_densification_none_are_added():
    densifier = Densifier(DensifyConfig(kind="none"), max_steps=STEPS, extent=1.0)
    model = splats([(0.1, 0.1, 0.05)])
    clear = ClearWay(row([0.0, 0.3]), NEAR, OTHERS_NEAR, split_until=densifier.stop, max_steps=STEPS, cap=10_000)
    assert len(run(clear, model)) == 577


def test_ways_lead_to_neighbours_and_bridge_gaps():
    assert ways(torch.zeros(1, 3), 1.0).tolist() == [[0, 0, 0]]
    places = ways(torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [9, 0, 0]]), 4.0)[:, 0]
    steps = places.sort().values.diff()
    assert float(steps[:-1].max()) == pytest.approx(0.25)  # from 0 to 3 without a hole; no way is as long as 6
    assert float(steps[-1]) == 6


def test_cameras_in_the_same_place_count_once():
    """As the faces of a 360 photo are; their ways lead nowhere, and they do not stand in the way of others."""
    torch.manual_seed(0)
    places = torch.rand(12, 3)
    assert torch.equal(ways(places.repeat(6, 1), 0.7), ways(places, 0.7))
    assert len(ways(places, 0.7)) > 12 + 7 * 6


def test_what_is_nearer_than_the_near_plane_fades():
    model = splats([(0.15, 0.1, 0.05), (0.15, 0.1, 0.3)], sigma=0.001)
    clear = ClearWay(row([0.0, 0.3]), NEAR, OTHERS_NEAR, split_until=STEPS // 2, max_steps=STEPS, cap=10_000)
    before = model.gaussians.opacities.detach().clone()
    after = run(clear, model).opacities
    looks = len(range(25, STEPS, clear.every))
    assert after[576].sigmoid().item() == pytest.approx(0.9 * 0.8**looks, rel=1e-3)
    torch.testing.assert_close(after[577:], before[577:])
    torch.testing.assert_close(after[:576], before[:576])


@pytest.mark.parametrize("set_back", [False, True])
def test_opacities_are_set_back_once(set_back):
    model = splats([(0.15, 0.1, 0.05), (0.15, 0.1, 0.3)], sigma=0.001)
    options = {"split_until": 80, "max_steps": STEPS, "cap": 10_000, "set_back": set_back}
    clear = ClearWay(row([0.0, 0.3]), NEAR, OTHERS_NEAR, **options)
    for step in range(61):  # the look before
        clear(model, {}, step)
    assert float(model.gaussians.opacities[576].detach().sigmoid()) > 0.5
    for step in range(61, 80):
        clear(model, {}, step)
    near, beyond = model.gaussians.opacities[576:].detach().sigmoid().tolist()
    assert (near < 0.0101) == set_back
    assert beyond == pytest.approx(0.9)


def test_some_steps_have_the_near_plane_of_other_viewers():
    clear = ClearWay(row([0.0, 0.3]), NEAR, OTHERS_NEAR, split_until=50, max_steps=1000, cap=1000)
    planes = [clear.near_at(step) for step in range(1000)]
    assert planes == [clear.near_at(step) for step in range(1000)]
    assert planes[:50] == [NEAR] * 50
    assert set(planes) == {NEAR, OTHERS_NEAR}
    assert 0.15 < planes[50:].count(OTHERS_NEAR) / 950 < 0.25
    nearer = ClearWay(row([0.0, 0.3]), 0.001, OTHERS_NEAR, split_until=50, max_steps=1000, cap=1000)
    assert {nearer.near_at(step) for step in range(1000)} == {0.001}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_photos_tell_what_does_not_belong_before_the_near_plane(toy_scene, config, monkeypatch, share):
    """A black disc right before a camera, which the run's near plane hides from it."""
    monkeypatch.setattr("difix3d.training.clear.SHARE", share)
    trainer = Trainer(replace(config, near=0.3, max_steps=100), toy_scene)
    index = int(toy_scene.train[0])
    camera, splats = toy_scene.cameras[index], trainer.model.splats
    with torch.no_grad():
        splats.params["means"][0] = camera.centers[0] + 0.1 * camera.c2w[0, :3, 2]
        splats.params["scales"][0] = math.log(0.01)
        splats.params["opacities"][0] = 2.0
        splats.params["sh0"][0] = -1.7
    for step in range(10, 40):
        trainer.model.step([trainer.views[index]], step, densify=False)
    faded = splats.params["opacities"][0].item() < 1.8
    assert faded == (share > 0)


def test_large_ones_are_kept_small_to_the_end():
    """Fog that grew in the last steps would be in the way of cameras in between."""
    model = splats([(0.1, 0.1, 0.3)], sigma=0.01)
    clear = ClearWay(row([0.0, 0.3]), NEAR, OTHERS_NEAR, split_until=STEPS // 2, max_steps=STEPS, cap=10_000)
    clear.every = 1
    with torch.no_grad():
        model.params["scales"][-1] = math.log(0.2)
    clear(model, {}, STEPS - 1)
    assert float(model.gaussians.scales[-1].detach().exp().max()) < 0.05
