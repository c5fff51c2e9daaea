"""``render``, ``evaluate`` and ``view`` take a splat file with the scene that it shows."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import write_scene

from difix3d.cli.evaluate import evaluate
from difix3d.cli.render import render
from difix3d.cli.train import train
from difix3d.cli.view import ViewConfig, open_viewer
from difix3d.errors import UserError
from difix3d.evaluate import psnrs, read_evaluation
from difix3d.gaussians import from_points, read_ply, write_ply
from difix3d.images import read_image
from difix3d.render import rasterize
from difix3d.scene import Views
from difix3d.training import Trainer
from difix3d.training.config import TrainConfig
from difix3d.training.splatfile import load_model

QUICK = ("--metrics", "psnr", "ssim", "--device", "cpu")


@pytest.fixture
def capture(tmp_path, toy_scene):
    names = [photo.name for photo in toy_scene.photos]
    folder = write_scene(tmp_path / "capture", toy_scene)
    split = {"train": [names[i] for i in toy_scene.train], "test": [names[i] for i in toy_scene.test]}
    (folder / "split.json").write_text(json.dumps(split))
    return folder


@pytest.fixture
def theirs(tmp_path, toy_scene):
    path = tmp_path / "theirs.ply"
    model = from_points(toy_scene.points, toy_scene.colors, opacity=0.9, sh_degree=1)
    write_ply(replace(model, sh0=model.sh0 - 0.1), path)
    return path


@pytest.fixture
def score(theirs, toy_scene):
    """Its PSNR on the held-out photos, as others show it."""
    photos = map(Views(toy_scene).__getitem__, toy_scene.test.tolist())
    return np.mean(psnrs(lambda camera: rasterize(read_ply(theirs), camera, near=0.01), photos))


def test_evaluate_scores_it_as_it_came_and_fixed(theirs, capture, score, capsys, monkeypatch):
    def keep(degraded):
        for item in degraded:
            yield item.rgb

    keep.offload = True
    monkeypatch.setattr("difix3d.training.variants.load_fixer", lambda *_, **__: keep)
    before = theirs.read_bytes()
    evaluate([str(theirs), "--scene", str(capture), *QUICK])
    folder = theirs.parent / "theirs"
    found = read_evaluation(folder)
    assert [row.name for row in found.variants] == ["As it came", "As it came, fixed (+)"]
    assert found.variants[0].mean("psnr") == pytest.approx(score, abs=0.01)
    assert found.given == str(theirs)
    assert (folder / "report.html").is_file()
    assert "As it came is" in (folder / "report.html").read_text()
    assert "only if it was made without them" in capsys.readouterr().out
    assert theirs.read_bytes() == before


def test_results_go_where_it_is_said_and_never_into_folders_of_others(theirs, capture, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "report.html").write_text("mine")
    with pytest.raises(UserError, match=r"theirs holds files that difix3d did not write.*another output folder"):
        evaluate([str(theirs), "--scene", str(capture), "--fixer", "none", *QUICK])
    evaluate([str(theirs), "--scene", str(capture), "--fixer", "none", *QUICK, "--output", str(tmp_path / "out")])
    assert (tmp_path / "out" / "theirs" / "report.html").is_file()
    assert (tmp_path / "out" / "evaluation.csv").is_file()
    assert (tmp_path / "theirs" / "report.html").read_text() == "mine"


def test_render_draws_it_along_a_path_of_its_scene(theirs, capture, tmp_path):
    render([str(theirs), "--scene", str(capture), "--path", "interp", "--frames", "3", "--no-video", "--device", "cpu"])
    frames = sorted((tmp_path / "theirs" / "renders" / "interp" / "frames").glob("*.png"))
    assert len(frames) == 3
    assert read_image(frames[0]).std() > 20


def test_render_plus_through_difix(theirs, capture, tmp_path, shared):
    fixer = str(shared / "golden" / "tiny_difix_ref")
    options = ["--scene", str(capture), "--path", "interp", "--frames", "2", "--no-video", "--device", "cpu"]
    render([str(theirs), *options, "--plus", "--no-trust", "--fixer", fixer, "-o", str(tmp_path / "plus")])
    render([str(theirs), *options, "-o", str(tmp_path / "plain")])
    plus, plain = (read_image(tmp_path / name / "frames" / "00001.png").astype(int) for name in ("plus", "plain"))
    assert np.abs(plus - plain).mean() > 5


def test_the_viewer_has_photos_and_a_fixer(theirs, capture):
    try:
        import difix3d.viewer  # noqa: F401
    except UserError as older:  # viser, as nerfstudio installs it
        pytest.skip(str(older))
    viewer = open_viewer(ViewConfig(model=theirs, scene=str(capture), fixer="mini", device="cpu", port=0))
    try:
        assert viewer.model.fixer is not None
        assert len(viewer.model.camera_list.captured) == 12
    finally:
        viewer.close()
    alone = open_viewer(ViewConfig(model=theirs, device="cpu", port=0))
    try:
        assert "--scene" in alone.model.why_no_fixer
    finally:
        alone.close()


@pytest.mark.parametrize("command", [evaluate, render])
def test_without_a_scene_an_error_says_what_to_give(theirs, command):
    with pytest.raises(UserError, match=r"theirs\.ply comes without photos and cameras.*Add --scene"):
        command([str(theirs)])
    with pytest.raises(UserError, match=r"--step is 5, but .*theirs\.ply is a splat file"):
        command([str(theirs), "--step", "5"])
    assert not theirs.with_suffix("").exists()


def test_a_file_that_is_not_there(capture, tmp_path):
    with pytest.raises(UserError, match=r"no file .*none\.ply"):
        load_model(tmp_path / "none.ply", scene=str(capture))


def test_one_command_from_a_splat_to_a_better_one_and_a_report(theirs, capture, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--preset", "quick", "--fixer", "none", "--max-steps", "30", "--device", "cpu", "--output-dir", str(run)]
    train(["--scene", str(capture), "--init.ply", str(theirs), *options])
    report = (run / "report.html").read_text()
    assert "3DGS against As it came: " in report
    assert f"As it came is {theirs}" in report
    assert "as it came: PSNR" in capsys.readouterr().err
    assert len(read_ply(run / "point_cloud.ply")) == 300


def test_evaluate_shows_what_a_run_began_with(theirs, capture, tmp_path, score):
    config = TrainConfig(scene=str(capture), output_dir=tmp_path / "run", max_steps=3, fixer="none", device="cpu")
    Trainer(replace(config, eval_steps=(), save_steps=(), init=replace(config.init, ply=theirs))).train()
    evaluate([str(tmp_path / "run"), "--fixer", "none", *QUICK])
    came, trained = read_evaluation(tmp_path / "run").variants
    assert (came.name, trained.name) == ("As it came", "3DGS")
    assert came.mean("psnr") == pytest.approx(score, abs=0.01)
    assert trained.mean("psnr") > came.mean("psnr")
    model = read_ply(theirs)
    write_ply(model.map(lambda tensor: tensor[:200]), theirs)
    evaluate([str(tmp_path / "run"), "--fixer", "none", *QUICK])
    found = read_evaluation(tmp_path / "run")
    assert [row.name for row in found.variants] == ["3DGS"]
    assert "200 Gaussians now, and had 300" in found.left_out["As it came"]
    torch.testing.assert_close(torch.tensor(found.variants[0].mean("psnr")), torch.tensor(trained.mean("psnr")))
