"""``difix3d evaluate``: runs in, tables, pictures and a report out."""

import csv
import math
import shutil

import numpy as np
import pytest
import torch
import yaml
from evaluating import QUICK, call, change
from small_run import write_run

from difix3d.errors import UserError
from difix3d.evaluate import read_evaluation
from difix3d.gaussians import transform, write_ply
from difix3d.images import read_image, to_uint8, write_image
from difix3d.training.load import load_run

FILES = {"evaluation.json", "evaluation.csv", "evaluation.md", "evaluation.tex", "evaluation_images.csv", "report.html"}


def test_a_plain_run(run, capsys):
    call(run, *QUICK)
    assert {path.name for path in run.iterdir()} >= FILES
    found = read_evaluation(run)
    assert (found.scene, found.split, found.step, found.device, found.fixer) == ("scene", "test", 10, "cpu", "none")
    (plain,) = found.variants
    assert (plain.name, plain.gaussians, plain.against, found.left_out) == ("3DGS", 300, None, {})
    loaded = load_run(run, device="cpu")
    for image, index in zip(plain.images, loaded.scene.test, strict=True):
        name = loaded.scene.photos[index].name
        assert image["name"] == name
        picture = read_image(run / plain.pictures / name)
        np.testing.assert_array_equal(picture, to_uint8(loaded.render(loaded.scene.cameras[int(index)]).rgb[0]))
        error = picture.astype(float) - read_image(loaded.scene.photos[index].path)
        assert image["psnr"] == pytest.approx(-10 * math.log10(np.square(error / 255).mean()), abs=1e-3)
    with (run / "evaluation_images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["name"]) for row in rows] == [("3DGS", image["name"]) for image in plain.images]
    assert float(rows[0]["psnr"]) == plain.images[0]["psnr"]
    out = capsys.readouterr().out
    assert "3DGS" in out
    assert f"{plain.mean('psnr'):.2f}" in out


def test_colours_are_fitted_where_the_run_refined_exposure(run):
    call(run, *QUICK)
    assert read_evaluation(run).variants[0].metrics == ["psnr", "ssim", "seconds"]
    call(run, *QUICK[:1], "cc-psnr", *QUICK[3:])
    assert read_evaluation(run).variants[0].metrics == ["psnr", "cc_psnr", "seconds"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["refine"]["exposure"] = True
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    call(run, *QUICK)
    (row,) = read_evaluation(run).variants
    assert row.metrics == ["psnr", "ssim", "cc_psnr", "cc_ssim", "seconds"]
    assert row.mean("cc_psnr") > row.mean("psnr") + 1
    assert "cc-PSNR" in (run / "report.html").read_text()
    assert "cc-PSNR" in (run / "evaluation.md").read_text()


def test_poses_are_aligned_where_the_run_refined_them(run):
    loaded = load_run(run)
    call(run, *QUICK, "--align-poses")
    asked = read_evaluation(run).variants[0]
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["refine"]["poses"] = True
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    call(run, *QUICK)
    (row,) = read_evaluation(run).variants
    assert row.images[0].keys() == asked.images[0].keys()
    assert [key for key in row.metrics if "aligned" in key] == ["aligned_psnr", "aligned_ssim"]
    name = loaded.scene.photos[loaded.scene.test[0]].name
    assert read_image(run / "evaluation" / "3dgs.aligned" / name).shape == (40, 48, 3)
    assert row.mean("aligned_psnr") > row.mean("psnr") - 0.5  # the poses were exact
    assert "aligned-PSNR" in (run / "report.html").read_text()


def test_several_runs_make_one_table(run, tmp_path, toy_scene, capsys):
    other = write_run(tmp_path / "other", toy_scene, seed=1)
    change(other, lambda tensors: tensors["gaussians.sh0"].sub_(0.2))
    call(run, other, *QUICK, "--output", tmp_path / "tables")
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        f"evaluation.{kind}" for kind in ("csv", "md", "tex")
    }
    with (tmp_path / "tables" / "evaluation.csv").open() as file:
        rows = {(row["variant"], row["metric"]): row for row in csv.DictReader(file)}
    means = [read_evaluation(path).variants[0].mean("psnr") for path in (run, other)]
    assert float(rows["3DGS", "psnr"]["mean"]) == pytest.approx(sum(means) / 2)
    assert rows["3DGS", "psnr"]["runs"] == "2"
    assert "mean of 3 photos" in capsys.readouterr().out


def test_without_held_out_photos_the_training_photos_are_shown(tmp_path, toy_scene):
    run = write_run(tmp_path, toy_scene, split="none")
    call(run, *QUICK)
    assert read_evaluation(run).split == "train"
    assert len(read_evaluation(run).variants[0].images) == 12
    assert "trained on" in (run / "evaluation.md").read_text()
    with pytest.raises(UserError, match="has no test photos.*--split"):
        call(run, *QUICK, "--split", "test")


def test_consistency_along_a_path(run):
    call(run, "--metrics", "tsed", "warp", "--frames", 3, "--fixer", "none")
    sets = read_evaluation(run).variants[0].sets
    assert sets["tsed"].count == sets["warp"].count == 2
    assert 0 < sets["warp"].value < 0.2


def test_only_what_training_cameras_see(run, tmp_path, toy_scene):
    call(run, *QUICK, "--masked", "visible")
    masked = read_evaluation(run)
    assert masked.mask == "visible"
    call(run, *QUICK)
    assert masked.variants[0].mean("psnr") != read_evaluation(run).variants[0].mean("psnr")
    everything = write_run(tmp_path / "all", toy_scene, split="none")
    call(run, *QUICK, "--masked", "visible", "--surface", everything)
    assert read_evaluation(run).mask == "visible"


def test_other_programs_pictures(run, tmp_path):
    scene = load_run(run).scene
    for index in scene.test:
        photo = scene.photos[index]
        write_image(tmp_path / "theirs" / photo.name, read_image(photo.path) // 2)
    call(run, *QUICK, "--pictures", f"theirs={tmp_path / 'theirs'}")
    ours, theirs = read_evaluation(run).variants
    assert (theirs.name, theirs.gaussians) == ("theirs", None)
    assert theirs.mean("psnr") < ours.mean("psnr")
    (tmp_path / "theirs" / scene.photos[scene.test[0]].name).unlink()
    with pytest.raises(UserError, match="theirs holds 2 pictures for 3 photos"):
        call(run, *QUICK, "--pictures", f"theirs={tmp_path / 'theirs'}")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--frames", 1), r"--frames is 1\. It must be 2 to 100,000"),
        (("--pictures", "theirs"), r"--pictures is 'theirs'.*NAME=FOLDER"),
        (("--pictures", "a=nowhere"), "NAME=FOLDER"),
        (("--step", 7), "no checkpoint of step 7"),
        (("again", "--pictures", "a=b"), "belong to one run, and 2 are given"),
        (("--masked", "visible", "--surface", "nowhere"), "no run in nowhere"),
    ],
)
def test_wrong_options(run, args, words):
    before = sorted(run.rglob("*.json"))
    with pytest.raises(UserError, match=words):
        call(run, *args, *QUICK)
    assert sorted(run.rglob("*.json")) == before


def test_no_run():
    with pytest.raises(UserError, match="No run is given"):
        call()


def test_a_run_without_a_checkpoint(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match=r"no checkpoint in .*run.*--resume"):
        call(run, *QUICK)


def test_a_damaged_model_is_named(run, caplog):
    change(run, lambda tensors: tensors["gaussians.sh0"][3:5].fill_(torch.nan))
    with pytest.raises(UserError, match=r"step_0000010.safetensors is damaged \(NaN or infinite values\)"):
        call(run, *QUICK, "--step", "10")
    assert not (run / "evaluation.json").exists()
    call(run, *QUICK)
    assert read_evaluation(run).step == 5
    assert "that of step 5 is taken" in caplog.text


def test_the_exported_model_is_scored_as_other_viewers_show_it(run, capsys):
    """A wall between the eye and the run's near plane: hidden by the run, drawn by everyone else."""
    loaded = load_run(run)
    camera = loaded.scene.cameras[int(loaded.scene.test[0])]

    def wall(tensors):
        ahead = camera.centers[0] + 0.5 * loaded.near * camera.c2w[0, :3, 2]
        for name in list(tensors):
            if name.startswith("gaussians."):
                tensors[name] = torch.cat([tensors[name], tensors[name][:1]])
        tensors["gaussians.means"][-1] = ahead
        tensors["gaussians.scales"][-1] = math.log(loaded.near)
        tensors["gaussians.opacities"][-1] = 4

    change(run, wall)
    loaded = load_run(run)
    to_input = np.linalg.inv(loaded.scene.from_input)
    write_ply(transform(loaded.gaussians, to_input), run / "point_cloud.ply")
    call(run, *QUICK)
    (plain,) = read_evaluation(run).variants
    assert plain.images[0]["psnr_ply"] < plain.images[0]["psnr"] - 3
    assert "PSNR (.ply)" in capsys.readouterr().out

    write_ply(loaded.gaussians.map(lambda tensor: tensor[:-1]), run / "point_cloud.ply")
    call(run, *QUICK)
    found = read_evaluation(run)
    assert "psnr_ply" not in found.variants[0].metrics
    assert "another step" in found.left_out["PSNR (.ply) of 3DGS"]


def test_without_fog_both_scores_are_equal(run):
    loaded = load_run(run)
    write_ply(transform(loaded.gaussians, np.linalg.inv(loaded.scene.from_input)), run / "point_cloud.ply")
    call(run, *QUICK)
    (plain,) = read_evaluation(run).variants
    assert plain.mean("psnr_ply") == pytest.approx(plain.mean("psnr"), abs=0.01)
