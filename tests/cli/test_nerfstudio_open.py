"""``render``, ``evaluate`` and ``view`` take a run of nerfstudio, which knows its scene."""

import json

import numpy as np
import pytest
from nerfstudio_run import write_run
from small_run import write_scene

from difix3d.cli.render import render
from difix3d.cli.train import train
from difix3d.cli.view import ViewConfig, open_viewer
from difix3d.errors import UserError
from difix3d.evaluate import psnrs
from difix3d.gaussians import from_points
from difix3d.scene import Views
from difix3d.training.splatfile import load_model, results_folder


@pytest.fixture
def capture(tmp_path, toy_scene):
    folder = write_scene(tmp_path / "capture", toy_scene)
    names = [photo.name for photo in toy_scene.photos]
    split = {"train": [names[i] for i in toy_scene.train], "test": [names[i] for i in toy_scene.test]}
    (folder / "split.json").write_text(json.dumps(split))
    return folder


@pytest.fixture
def run(tmp_path, toy_scene, capture):
    """A perfect model of the toy scene, in a world of nerfstudio's."""
    to_theirs = np.eye(4)
    to_theirs[:3] = 0.25 * np.array([[0, -1, 0, 1.0], [1, 0, 0, -2], [0, 0, 1, 3]])
    model = from_points(toy_scene.points, toy_scene.colors, opacity=0.9)
    return write_run(tmp_path / "run", model, to_theirs, capture, parser="Nerfstudio")


def scores(run):
    views = Views(run.scene)
    return psnrs(run.render, [views[index] for index in run.scene.test.tolist()])


def test_it_shows_its_own_scene(run, toy_scene):
    found = load_model(run, device="cpu")
    assert found.config.antialiased
    assert len(found.scene.test) == len(toy_scene.test)
    assert min(scores(found)) > 30


def test_data_that_has_moved(run, capture, tmp_path):
    capture.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="capture"):
        load_model(run, device="cpu")
    assert min(scores(load_model(run, scene=str(tmp_path / "elsewhere"), device="cpu"))) > 30


def test_a_step(run):
    assert len(load_model(run, step=300, device="cpu").gaussians) == len(load_model(run, device="cpu").gaussians)
    with pytest.raises(UserError, match="these steps: 300"):
        load_model(run, step=7, device="cpu")
    checkpoint = run.parent / "nerfstudio_models" / "step-000000300.ckpt"
    assert min(scores(load_model(checkpoint, device="cpu"))) > 30
    assert results_folder(checkpoint) == run.parent / "config"


def test_a_folder_is_told_what_to_pass(run):
    with pytest.raises(UserError, match=r"it has no config.yaml.*Pass .*config\.yml, as it is a run of nerfstudio"):
        load_model(run.parent, device="cpu")


def test_a_training_begins_with_it(run, capture, tmp_path):
    train(["--scene", str(capture), "--init.ply", str(run), "--max-steps", "0", "--fixer", "none", "--device", "cpu",
           "--output-dir", str(tmp_path / "mine")])  # fmt: skip
    (row,) = json.loads((tmp_path / "mine" / "metrics.json").read_text())
    assert row["psnr"] > 30


def test_render_and_view(run, toy_scene):
    render([str(run), "--frames", "2", "--no-video", "--device", "cpu"])
    assert len(list((run.parent / "config").rglob("*.png"))) == 2
    viewer = open_viewer(ViewConfig(run, fixer="none", port=0, device="cpu"))
    try:
        assert len(viewer.model.scene.photos) == len(toy_scene.photos)
    finally:
        viewer.close()
