"""Gaussians that a step on photos leaves out, and when they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d.gaussians import from_points
from difix3d.render import rasterize, torch_twin
from difix3d.scene import Views
from difix3d.training import Trainer, model
from difix3d.training.dropout import drop, rate_at, without
from difix3d.training.events import Stepped


@pytest.fixture
def gaussians(toy_scene):
    return from_points(toy_scene.points, toy_scene.colors, opacity=0.5)


def test_the_rate_falls_to_zero_in_the_last_part_of_a_run():
    assert [rate_at(0.2, step, 1000) for step in (0, 500, 850)] == pytest.approx([0.2] * 3)
    assert rate_at(0.2, 925, 1000) == pytest.approx(0.1)
    assert 0 < rate_at(0.2, 999, 1000) < 0.002


def test_the_expected_opacity_stays(gaussians):
    torch.manual_seed(0)
    opacities = torch.stack([drop(gaussians, 0.2)[0].opacities.sigmoid() for _ in range(400)])
    assert float(opacities.mean()) == pytest.approx(0.5, abs=0.005)
    kept = opacities[opacities > 0.01]
    assert float(kept.min()) == pytest.approx(0.625)
    assert len(kept) / opacities.numel() == pytest.approx(0.8, abs=0.005)


def test_a_draw_follows_from_the_seed(gaussians):
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(drop(gaussians, 0.2)[1])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("run", [rasterize, torch_twin.rasterize])
def test_what_is_left_out_is_not_drawn_and_gets_no_gradient(gaussians, toy_scene, run):
    """The picture is that of the model without it."""
    torch.manual_seed(0)
    parameters = gaussians.map(lambda x: x.clone().requires_grad_())
    shown, keep = drop(parameters, 0.3)
    options = {"sh_degree": 3, "background": torch.zeros(3)}
    out = run(shown, toy_scene.cameras[0], **options)
    expected = run(shown.map(lambda x: x.detach()[keep]), toy_scene.cameras[0], **options)
    torch.testing.assert_close(out.rgb, expected.rgb, atol=1e-5, rtol=1e-5)
    out.rgb.square().sum().backward()
    for name, value in parameters.as_dict().items():
        assert value.grad.isfinite().all(), name
        assert (value.grad[~keep] == 0).all(), name
    assert (parameters.opacities.grad[keep] != 0).any()
    assert (without(out.info, keep)["radii"][:, ~keep] == 0).all()
    assert (without(out.info, keep)["radii"][:, keep] == out.info["radii"][:, keep]).all()


def test_extreme_opacities_keep_their_gradients_finite(gaussians):
    opacities = torch.linspace(-200, 200, len(gaussians)).requires_grad_()
    shown, _ = drop(replace(gaussians, opacities=opacities), 0.2)
    shown.opacities.sum().backward()
    assert opacities.grad.isfinite().all()


def test_packed_radii_of_what_is_left_out_are_zero():
    info = {"radii": torch.ones(3, 2, dtype=torch.int32), "gaussian_ids": torch.tensor([0, 2, 1])}
    assert without(info, torch.tensor([True, False, True]))["radii"].tolist() == [[1, 1], [1, 1], [0, 0]]


def test_densification_counts_only_steps_that_a_gaussian_had_a_part_in(toy_scene, config):
    """The mean gradient, by which Gaussians are added, is over the steps in which one was drawn."""
    trainer = Trainer(replace(config, dropout=0.5, max_steps=100), toy_scene)
    views = Views(toy_scene)
    torch.manual_seed(0)
    drawn = torch.zeros(len(trainer.gaussians))
    for step in range(4):
        torch.manual_seed((config.seed << 32) + step)
        keep = drop(trainer.gaussians, 0.5)[1]
        seen = trainer.model.render(toy_scene.cameras[0]).info["radii"][0].amin(-1) > 0
        drawn += keep & seen
        trainer.model.step([views[0]], step)
    count = trainer.model.densifier.state["count"]
    assert 0 < float(count.mean()) < 3
    assert (count - drawn).abs().mean() < 0.02  # at the picture's edge a larger opacity reaches a little further


def test_novel_views_and_renders_show_the_whole_model(toy_scene, config, monkeypatch):
    """Only steps on photos drop; pictures never do."""
    calls = []
    monkeypatch.setattr(model, "drop", lambda *args: calls.append(1) or drop(*args))
    trainer = Trainer(replace(config, dropout=0.5), toy_scene)
    photo = Views(toy_scene)[0]
    trainer.model.step([replace(photo, index=-1)], 0)
    trainer.model.render(photo.camera)
    assert calls == []
    trainer.model.step([photo], 1)
    assert calls == [1]


def test_without_a_rate_nothing_is_drawn(toy_scene, config, monkeypatch):
    monkeypatch.setattr(model, "drop", None)
    trainer = Trainer(replace(config, dropout=0.0), toy_scene)
    trainer.model.step([Views(toy_scene)[0]], 0)


def test_a_rate_that_was_chosen_resumes_to_the_bit(toy_scene, config):
    end = replace(toy_scene, train=np.array([0, 1, 2, 3]), test=np.array([9, 10, 11]))
    whole = Trainer(replace(config, output_dir=config.output_dir.with_name("whole")), end).train()
    assert_equal(
        Trainer(replace(config, dropout=0.2, output_dir=config.output_dir.with_name("said")), end).train(), whole
    )
    run = replace(config, save_steps=(17,))

    def stop(event):
        if isinstance(event, Stepped) and event.step == 17:
            trainer.control.stop()

    trainer = Trainer(run, end, [stop])
    trainer.train()
    resumed = Trainer(replace(run, resume=True), end)
    assert resumed.first == 17
    assert_equal(resumed.train(), whole)


def assert_equal(a, b):
    for name, value in a.as_dict().items():
        assert torch.equal(value, b.as_dict()[name]), name
