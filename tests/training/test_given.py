"""A splat file of any trainer is begun with: it scores as it came, and training makes it better, not worse."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_run import write_scene

from difix3d.errors import UserError
from difix3d.evaluate import psnrs
from difix3d.gaussians import from_points, read_ply, transform, write_ply
from difix3d.render import rasterize
from difix3d.scene import Views, load_scene
from difix3d.training import Trainer
from difix3d.training.configfile import merge
from difix3d.training.data import initial_gaussians
from difix3d.training.densify import DensifyConfig
from difix3d.training.events import Started
from difix3d.training.load import as_exported, load_run
from difix3d.training.run import gaussians_in
from difix3d.types import Gaussians

QUARTER = np.array([[0, -2, 0, 3], [2, 0, 0, -1], [0, 0, 2, 0.5], [0, 0, 0, 1.0]])
"""A similarity: turned by a quarter, twice as large, moved."""


@pytest.fixture
def theirs(tmp_path, toy_scene):
    """A model of somebody else: not quite the truth, with colours that depend on the direction; and its scene."""
    model = from_points(toy_scene.points, toy_scene.colors, opacity=0.9)
    noise = torch.randn(model.shN.shape, generator=torch.Generator().manual_seed(0))
    model = replace(model, sh0=model.sh0 - 0.2, shN=0.1 * noise)
    path = tmp_path / "theirs.ply"
    write_ply(model, path)
    return path


@pytest.fixture
def begun(config, theirs):
    return merge(config, {"init": {"ply": str(theirs)}, "split": "every:4"}, source="test")


def rows(folder):
    return [(row["step"], row["plus"], row["psnr"]) for row in json.loads((folder / "metrics.json").read_text())]


def keep(degraded):
    for item in degraded:
        yield item.rgb


def test_it_is_the_same_from_the_same_cameras_in_the_scenes_world(tmp_path, toy_scene, begun, theirs):
    scene = load_scene(write_scene(tmp_path / "scene", toy_scene), split="every:4")
    assert not np.allclose(scene.from_input, np.eye(4), atol=0.1)
    given, original = initial_gaussians(scene, begun), read_ply(theirs)
    for i in (0, 5):
        shown = rasterize(given, scene.cameras[i], near=1e-3).rgb
        torch.testing.assert_close(shown, rasterize(original, toy_scene.cameras[i], near=1e-3).rgb, atol=2e-3, rtol=0)


def test_nothing_is_trained_but_it_is_scored_and_fixed(toy_scene, begun, theirs):
    trainer = Trainer(replace(begun, max_steps=0), toy_scene, fixer=keep)
    trainer.train()
    photos = map(Views(toy_scene).__getitem__, toy_scene.test.tolist())
    expected = psnrs(lambda camera: rasterize(read_ply(theirs), camera, near=0.01), photos)
    folder = begun.output_dir
    assert [row[:2] for row in rows(folder)] == [(0, False), (0, True)]
    assert rows(folder)[0][2] == pytest.approx(np.mean(expected), abs=1e-3)
    came, went = read_ply(theirs), read_ply(folder / "point_cloud.ply")
    for name, value in came.as_dict().items():
        torch.testing.assert_close(went.as_dict()[name], value, atol=1e-5, rtol=1e-5)
    theirs.unlink()  # the run holds all that it needs
    Trainer(replace(begun, max_steps=0, resume=True), toy_scene, fixer=keep).train()
    assert [row[:2] for row in rows(folder)] == [(0, False), (0, True)]


def test_what_plain_training_exported_comes_back_at_its_exported_score(tmp_path, toy_scene, config):
    source = str(write_scene(tmp_path / "scene", toy_scene))
    config = replace(config, scene=source, split="every:4", plus=False)
    Trainer(config).train()
    run = load_run(config.output_dir)
    exported = as_exported(run, config.output_dir)
    expected = np.mean(psnrs(exported.render, map(Views(run.scene).__getitem__, run.scene.test.tolist())))
    again = merge(config, {"init": {"ply": str(config.output_dir / "point_cloud.ply")}, "max_steps": 0}, source="test")
    again = replace(again, output_dir=tmp_path / "again")
    Trainer(again).train()
    assert rows(again.output_dir)[0][2] == pytest.approx(expected, abs=0.01)


def test_training_goes_on_from_it_and_does_not_lose_its_score(toy_scene, begun):
    trainer = Trainer(replace(begun, max_steps=40, densify=DensifyConfig()), toy_scene)
    trainer.train()
    before, after = rows(begun.output_dir)
    assert (before[0], after[0]) == (0, 40)
    assert after[2] > before[2] + 1
    assert trainer.config.sh_degree_at(0) == 3


@pytest.mark.parametrize(("degree", "words"), [(1, "colours of degree 3: cut to --sh-degree 1"), (3, "")])
def test_its_colours_have_the_degree_that_is_asked_for(toy_scene, begun, theirs, caplog, degree, words):
    whole = read_ply(theirs)
    first = initial_gaussians(toy_scene, replace(begun, sh_degree=degree))
    assert first.sh_degree == degree
    torch.testing.assert_close(first.shN, whole.shN[:, : first.shN.shape[1]], atol=1e-5, rtol=1e-5)
    assert words in caplog.text
    assert bool(words) == bool(caplog.text)


def test_a_file_of_a_lower_degree_looks_the_same_and_may_learn_more(toy_scene, begun, theirs):
    model = read_ply(theirs)
    write_ply(replace(model, shN=model.shN[:, :3]), theirs)
    first = initial_gaussians(toy_scene, begun)
    assert first.sh_degree == 3
    low = rasterize(read_ply(theirs), toy_scene.cameras[2]).rgb
    torch.testing.assert_close(rasterize(first, toy_scene.cameras[2]).rgb, low, atol=1e-5, rtol=0)


def test_opacities_are_not_reset_and_rounds_begin_at_once(toy_scene, begun):
    left = Trainer(replace(begun, densify=replace(begun.densify, reset_every=None)), toy_scene).config
    assert (left.densify.reset_every, left.distill.start) == (0, 0)
    asked = merge(begun, {"distill": {"start": 7}, "densify": {"reset_every": 12}}, source="test")
    asked = Trainer(asked, toy_scene).config
    assert (asked.densify.reset_every, asked.distill.start) == (12, 7)


def test_it_is_resumed_without_the_file_and_from_elsewhere(toy_scene, begun, theirs, monkeypatch, tmp_path):
    monkeypatch.chdir(theirs.parent)
    begun = merge(begun, {"init": {"ply": theirs.name}}, source="test")
    Trainer(replace(begun, max_steps=5), toy_scene).train()
    kept = yaml.safe_load((begun.output_dir / "config.yaml").read_text())["init"]["ply"]
    assert kept == str(theirs)
    theirs.unlink()
    trainer = Trainer(replace(begun, max_steps=10, resume=True), toy_scene)
    trainer.train()
    assert [row[0] for row in rows(begun.output_dir)] == [0, 5, 10]
    for file in (begun.output_dir / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"no file .*theirs\.ply"):
        Trainer(replace(begun, max_steps=10, resume=True), toy_scene)


def saved_at_0(folder):
    (path,) = (folder / "checkpoints").glob("*_0000000.safetensors")
    return gaussians_in(load_file(path))


@pytest.fixture
def far_off(toy_scene):
    """The scene with photos at one end only; views at the other are asked for."""
    return replace(toy_scene, train=np.array([0, 1, 2, 3]), test=np.array([9, 10, 11]))


def test_far_off_a_backdrop_joins_it_behind_all_that_it_has(far_off, begun, theirs):
    """After it was scored and kept as it came. Its own sky is not touched: it would be made opaque."""
    sky = read_ply(theirs).map(lambda x: x[:5])
    write_ply(
        Gaussians.cat([read_ply(theirs), replace(sky, means=sky.means * 100, opacities=sky.opacities - 9)]), theirs
    )
    trainer = Trainer(replace(begun, max_steps=6, densify=DensifyConfig(every=1000)), far_off)
    assert (trainer.config.init.backdrop, trainer.config.dropout) == (2000, 0)
    trainer.train()
    folder, backdrop = begun.output_dir, trainer.model.backdrop
    assert [(row["step"], row["gaussians"]) for row in json.loads((folder / "metrics.json").read_text())] == [
        (0, 305),
        (6, 2305),
    ]
    came = saved_at_0(folder)
    assert len(came) == 305
    ended = trainer.gaussians
    assert not backdrop.beyond(ended.means[:300]).any()
    assert backdrop.beyond(ended.means[305:]).all()
    assert ended.opacities[300:305].sigmoid().max() < 0.1
    assert rasterize(ended, far_off.cameras, near=1e-3).alpha.min() > 0.97
    assert rasterize(came, far_off.cameras, near=1e-3).alpha.min() < 0.9


def test_the_backdrop_joins_it_once(far_off, begun, theirs):
    """Stopped before the first step, resumed, and saved at step 0 as well; a file that has it gets no second."""
    config = replace(begun, max_steps=4, densify=DensifyConfig(every=1000))

    def stop(event):
        if isinstance(event, Started):
            trainer.control.stop()

    trainer = Trainer(config, far_off, [stop])
    trainer.train()
    trainer = Trainer(replace(config, resume=True), far_off)
    assert (trainer.first, len(trainer.gaussians)) == (0, 300)
    trainer.control.save()
    assert len(trainer.train()) == 2300
    for file in (begun.output_dir / "checkpoints").glob("*4.safetensors"):
        file.unlink()
    trainer = Trainer(replace(config, resume=True), far_off)
    assert (trainer.first, len(trainer.gaussians)) == (0, 2300)
    assert len(trainer.train()) == 2300


def test_a_splat_of_another_world_is_an_error_or_a_word(toy_scene, begun, theirs, caplog):
    model = read_ply(theirs)
    far = np.eye(4)
    far[:3, 3] = 1000
    write_ply(transform(model, far), theirs)
    with pytest.raises(UserError, match=r"cameras of toy see nothing of .*theirs\.ply.*not of one world.*--scene"):
        Trainer(begun, toy_scene)
    assert not begun.output_dir.exists()
    write_ply(transform(model, QUARTER), theirs)
    Trainer(begun, toy_scene)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "does not look like the photos" in line
    assert "not of one world" in line


def test_a_splat_of_this_world_is_taken_without_a_word(toy_scene, begun, caplog):
    Trainer(begun, toy_scene)
    assert not caplog.records


def test_without_a_splat_there_must_be_steps(toy_scene, config, begun):
    with pytest.raises(UserError, match=r"--max-steps is 0 and no splat is given.*--init.ply FILE"):
        Trainer(replace(config, max_steps=0), toy_scene)
    with pytest.raises(UserError, match="--compare needs a training"):
        Trainer(replace(begun, max_steps=0, compare=True), toy_scene)
    assert not config.output_dir.exists()


def test_nothing_is_added_to_a_file_above_the_cap_and_that_is_said(toy_scene, begun):
    notes = []
    capped = merge(begun, {"densify": {"cap_max": 100, "grow_grad2d": 0.0}}, source="test")
    trainer = Trainer(capped, toy_scene, [lambda event: notes.append(getattr(event, "note", ""))])
    assert len(trainer.train()) <= 300
    assert "theirs.ply is large: none are added, as --densify.cap-max is 100" in notes
    assert math.isfinite(rows(begun.output_dir)[-1][2])
