"""difix-mini, the weights in the package."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import yaml

from difix3d.difix import DifixPipeline, load_difix
from difix3d.difix.colors import anchor_colors
from difix3d.difix.hub import fetch
from difix3d.difix.load import load_fixer
from difix3d.gaussians.init import InitConfig
from difix3d.images import to_uint8
from difix3d.metrics import psnr
from difix3d.postrender import PostRender
from difix3d.scene import Views, load_scene
from difix3d.training import TrainConfig, Trainer


@pytest.fixture(scope="module")
def mini() -> DifixPipeline:
    return load_difix("mini", "cpu")


def test_it_is_small_and_says_where_it_comes_from():
    folder = fetch("mini")
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) < 20e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"
    assert "https://github.com/noname0310/snowmiku2023plush-splat" in card


def test_it_looks_at_warped_photos(mini, pictures):
    """A blurred render is brought nearer to the photo that its depth carries there, and not moved without one."""
    photo = pictures.smooth(1, 3, 96, 128)
    photo = (photo + 0.15 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    render = torch.nn.functional.avg_pool2d(photo, 5, 1, 2, count_include_pad=False)
    seen = torch.ones(1, 1, 96, 128)
    guide = torch.cat([seen, photo, seen, photo, seen], 1)
    alone, guided = mini.fix(render), mini.fix(render, guide=guide)
    assert torch.equal(guided, mini.fix(render, guide=guide))
    before = (render - photo).square().mean()
    assert (guided - photo).square().mean() < 0.8 * before
    assert (alone - photo).square().mean() < 1.5 * before


def test_what_needs_nothing_keeps_its_contrast(mini, pictures):
    """The network itself takes 2 to 3 % away, and lifts black; a photo is fixed without a guide here."""
    photo = pictures.smooth(1, 3, 96, 128)
    raw = mini.fix(photo)
    anchored = anchor_colors(raw, photo)

    def contrast(image):
        x, y = (v - v.mean((2, 3), keepdim=True) for v in (photo, image))
        return (x * y).sum((2, 3)) / x.square().sum((2, 3))

    assert (contrast(raw) - 1).abs().max() < 0.03
    assert (contrast(anchored) - 1).abs().max() < 0.003
    assert (anchored - photo).square().mean() < 0.5 * (raw - photo).square().mean()


def test_a_run_says_whether_its_fixer_keeps_colours(tmp_path):
    for anchored in (True, False):
        config = TrainConfig("demo", fixer="mini", anchor_colors=anchored, output_dir=tmp_path / str(anchored))
        trainer = Trainer(replace(config, device="cpu"), load_scene("demo", data_dir=tmp_path, resolution=64))
        assert trainer.fixer.anchor_colors == anchored


def gains(scene, folder, **options) -> list[float]:
    """What fixing gives views of a scene that are held out, in dB, after a short training."""
    steps = {"max_steps": 300, "eval_steps": (), "save_steps": (), "fixer": "none", "plus": False}
    init = InitConfig(dense=0)  # with which there is less to repair
    trainer = Trainer(TrainConfig(scene=scene.name, output_dir=folder, device="cpu", init=init, **steps), scene)
    trainer.train()
    views = Views(scene)
    render = partial(trainer.model.render, depth=True)
    fixed = PostRender(render, load_fixer("mini", torch.device("cpu")), scene, views.__getitem__, **options)

    def score(model, view):
        picture, photo = (torch.from_numpy(to_uint8(image)) for image in (model(view.camera).rgb[0], view.image))
        return psnr(picture, photo)

    return [score(fixed, view) - score(render, view) for view in (views[int(index)] for index in scene.test)]


@pytest.mark.slow
def test_it_repairs_a_scene_that_it_never_saw(tmp_path):
    """Views far off the cameras of an embedded scene: better on average, and nowhere much worse."""
    gained = gains(load_scene("demo", data_dir=tmp_path, resolution=160), tmp_path / "run")
    assert np.mean(gained) > 0.2
    assert min(gained) > -0.3


@pytest.mark.real
def test_photos_larger_than_the_depth_that_carries_them_help_as_well(tmp_path, shared):
    """Depth maps have 320 pixels at most; carried at a wrong scale, photos took 12 dB from such a view."""
    scene = load_scene(shared / "scenes" / "fern", split="every:8", resolution=400)
    assert np.mean(gains(scene, tmp_path / "run", trust=False)) > 0.3
