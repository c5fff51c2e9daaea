"""Objects on transparent photos: what is empty stays empty, and no colour behind it gets into the model."""

from dataclasses import replace

import pytest
import torch

from difix3d.background import over, recolored
from difix3d.distill.pseudo import pack, unpack
from difix3d.images import read_image, read_photo
from difix3d.losses import photometric
from difix3d.render import rasterize
from difix3d.scene import Views
from difix3d.training import Trainer
from difix3d.training.configfile import merge


@pytest.fixture
def config(config):
    return merge(config, {"max_steps": 120, "init": {"opacity": 0.5}, "densify": {"reset_every": 0}}, source="test")


def outside(trainer, scene) -> float:
    """Mean coverage where the held-out photos are empty."""
    views = Views(scene)
    found = []
    for index in scene.test.tolist():
        alpha = trainer.model.render(scene.cameras[index]).alpha[0, ..., 0].detach()
        found.append(alpha[views[index].alpha == 0])
    return float(torch.cat(found).mean())


def on_object(trainer, scene) -> float:
    """PSNR of the held-out photos where the object is, over black."""
    errors = []
    for index in scene.test.tolist():
        view = Views(scene)[index]
        rgb = trainer.model.render(view.camera, background=None).rgb[0].detach().clamp(0, 1)
        errors.append((rgb - view.image)[view.alpha > 0.8].square())
    return -10 * float(torch.cat(errors).mean().log10())


def test_what_is_empty_stays_empty_and_is_measured_over_white(cutout, config):
    trainer = Trainer(config, cutout)
    assert outside(trainer, cutout) > 0.1  # points around the object, to be taken away
    trainer.train()
    white = Trainer(replace(config, background="white", output_dir=config.output_dir / "white"), cutout)
    white.train()
    assert outside(trainer, cutout) < 0.02
    assert on_object(trainer, cutout) > on_object(white, cutout) - 1
    picture = read_image(trainer.folder.path / "eval" / "step_000120" / "renders" / f"{cutout.places[2]}.png")
    photo = read_photo(cutout.photos[2].path)
    empty = photo[..., 3] == 0
    assert picture[empty].mean() > 250
    strip = read_image(trainer.folder.path / "eval" / "step_000120" / "compare" / f"{cutout.places[2]}.png")
    assert (strip[:, :48][empty] == 255).all()  # the photo, over white as well


@pytest.mark.parametrize("background", ["auto", "black", "white", "random"])
def test_the_true_model_has_no_loss_over_any_background(cutout, middle, config, background):
    model = Trainer(replace(config, background=background), cutout).model
    views = [Views(cutout)[0]]
    seen = set()
    for step in (1, 2):
        torch.manual_seed(step)
        color = model._background(views)
        seen.add(None if color is None else tuple(color.tolist()))
        out = rasterize(middle, views[0].camera, background=color)
        losses = photometric(out.rgb, [over(view, color) for view in views], config.loss)
        assert float(losses["l1"]) < 0.6 / 255
    assert len(seen) == (2 if background in ("auto", "random") else 1)


def test_without_alpha_the_default_background_is_black(toy_scene, config):
    assert Trainer(config, toy_scene).model._background([Views(toy_scene)[0]]) is None


def test_exposure_is_of_what_is_there_not_of_what_is_behind_it(cutout, middle, config):
    model = Trainer(replace(config, refine=replace(config.refine, exposure=True)), cutout).model
    affine = torch.tensor([[0.9, 0.05, 0, 0.02], [0, 1.1, 0, -0.03], [0, 0, 0.8, 0.1]])
    model.corrections.exposure.data[0] = affine
    view, color = Views(cutout)[0], torch.tensor([1.0, 0.3, 0.6])
    out = rasterize(middle, view.camera, background=color)
    got = model.corrections.colors(out, [view])
    black = recolored(out, None)
    expected = black.rgb @ affine[:, :3].T + black.alpha * affine[:, 3] + (1 - black.alpha) * color
    torch.testing.assert_close(got, expected)
    assert torch.allclose(got[0][view.alpha == 0], color, atol=0.01)


def shell(degraded):
    """A fixer that sees a bright room around the object, and a halo at its edge."""
    for item in degraded:
        yield torch.where(item.alpha[..., None] > 0.9, item.rgb, 1.0)


def test_rounds_build_nothing_around_the_object(cutout, config):
    change = {"distill": {"gate": "off", "novel_prob": 0.5, "weight": 1.0, "min_alpha": 0.2}}
    trainer = Trainer(merge(config, change, source="test"), cutout, fixer=shell)
    trainer.train()
    assert outside(trainer, cutout) < 0.02
    pseudo = trainer.rounds.pseudo
    assert pseudo is not None
    assert pseudo.alpha is not None
    view = pseudo.view(0, "cpu")
    assert (view.image <= view.alpha[..., None]).all()
    counted = view.confidence > 0
    near_outside = torch.nn.functional.max_pool2d((view.alpha < 0.2).float()[None], 5, 1, 2)[0] > 0
    assert counted.any()
    assert not (counted & near_outside).any()  # a rim around the object teaches nothing
    fixed = read_photo(trainer.folder.path / "rounds" / f"step_{pseudo.step:06d}" / "fixed" / "00.png")
    assert fixed.shape[2] == 4


def test_novel_views_come_back_from_a_checkpoint_with_their_alpha(cutout, config):
    trainer = Trainer(merge(config, {"distill": {"gate": "off"}, "max_steps": 20}, source="test"), cutout, fixer=shell)
    trainer.train()
    pseudo = trainer.rounds.pseudo
    again = unpack(pack(pseudo))
    assert all(map(torch.equal, again.alpha, pseudo.alpha))
