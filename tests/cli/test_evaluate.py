"""``difix3d evaluate``: runs in, tables, pictures and a report out."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch
import yaml
from small_run import write_run

from difix3d.cli.evaluate import evaluate
from difix3d.errors import UserError
from difix3d.evaluate import read_evaluation
from difix3d.gaussians import load_checkpoint, save_checkpoint, transform, write_ply
from difix3d.images import read_image, to_uint8, write_image
from difix3d.postrender import PostRender
from difix3d.scene import Views
from difix3d.training.load import load_run

FILES = {"evaluation.json", "evaluation.csv", "evaluation.md", "evaluation.tex", "evaluation_images.csv", "report.html"}
QUICK = ("--metrics", "psnr", "ssim", "--fixer", "none", "--device", "cpu")


@pytest.fixture
def run(tmp_path, toy_scene):
    """A model that is a little too dark."""
    run = write_run(tmp_path, toy_scene)
    change(run, lambda tensors: tensors["gaussians.sh0"].sub_(0.1))
    return run


def change(run, function):
    """Changes the tensors of the newest checkpoint."""
    step, tensors, extra = load_checkpoint(run / "checkpoints" / "step_0000010.safetensors")
    function(tensors)
    save_checkpoint(run / "checkpoints", step, tensors, extra, keep=0)


@pytest.fixture
def distilled(run):
    """The same with two rounds behind it, and plain 3DGS (half of the points) beside it."""
    scene = load_run(run).scene
    row = {
        "step": 3,
        "decision": "keep",
        "gain": 0.1,
        "weight": 0.3,
        "held_out": ["00.png"],
        "psnr_without": [30.0],
        "trials": [{"weight": 0.3, "psnr": [30.1]}],
        "confidence": [0.5, 1.0, 0.75],
        "references": ["00.png"],
        "cameras": scene.cameras.c2w[scene.test].tolist(),
        "seconds": {"fix": 1.0},
    }
    refused = row | {"step": 6, "decision": "refuse", "gain": None, "weight": 0.0, "psnr_without": [], "trials": []}
    (run / "rounds.json").write_text(json.dumps([row, refused]))
    shutil.copytree(run, run / "plain", ignore=shutil.ignore_patterns("rounds.json"))
    _, tensors, extra = load_checkpoint(run / "checkpoints" / "step_0000005.safetensors")
    save_checkpoint(run / "plain" / "checkpoints", 10, tensors, extra, keep=0)
    return run


@pytest.fixture
def fixer(monkeypatch):
    """Makes everything a bit brighter."""

    def brighter(degraded):
        for item in degraded:
            yield (item.rgb + 0.1).clamp(0, 1)

    class Loader:
        def __call__(self, name, device, references=1, *, anchor_colors=True):
            return None if name == "none" else self.fixer

    class Fixer:
        offload = True

        def __call__(self, degraded):
            return brighter(degraded)

    loader = Loader()
    loader.fixer = Fixer()
    monkeypatch.setattr("difix3d.training.variants.load_fixer", loader)
    return loader.fixer


def call(*args):
    evaluate([str(arg) for arg in args])


def test_a_plain_run(run, capsys):
    call(run, *QUICK)
    assert {path.name for path in run.iterdir()} >= FILES
    found = read_evaluation(run)
    assert (found.scene, found.split, found.step, found.device, found.fixer) == ("scene", "test", 10, "cpu", "none")
    (plain,) = found.variants
    assert (plain.name, plain.gaussians, plain.against, found.left_out) == ("3DGS", 300, None, {})
    loaded = load_run(run)
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


def test_the_papers_ablation(distilled, fixer):
    call(distilled, "--metrics", "psnr", "--fixer", "some")
    found = read_evaluation(distilled)
    assert [(row.name, row.against) for row in found.variants] == [
        ("3DGS", None),
        ("3DGS + Difix", "3DGS"),
        ("Difix3D", "3DGS"),
        ("Difix3D+ (paper)", "Difix3D"),
        ("Difix3D+", "Difix3D"),
    ]
    assert [row.gaussians for row in found.variants] == [150, 150, 300, 300, 300]
    assert fixer.offload is False
    plain, fixed, distilled3d, paper, trusting = (row.mean("psnr") for row in found.variants)
    assert fixed < plain < distilled3d
    assert paper + 3 < trusting  # photos know that brighter is wrong
    assert found.variants[3].mean("right") < -1

    loaded = load_run(distilled)
    camera, name = loaded.scene.cameras[int(loaded.scene.test[1])], loaded.scene.photos[loaded.scene.test[1]].name
    post = PostRender(loaded.render, fixer, loaded.scene, Views(loaded.scene).__getitem__, trust=True)
    np.testing.assert_array_equal(
        read_image(distilled / found.variants[4].pictures / name), to_uint8(post(camera).rgb[0])
    )
    table = (distilled / "evaluation.tex").read_text()
    assert all(row.name in table for row in found.variants)


def test_what_the_fixer_does_to_photos_that_need_nothing(distilled, fixer, monkeypatch, capsys):
    call(distilled, "--metrics", "psnr", "--fixer", "some")
    found = read_evaluation(distilled).fixed_photos
    scene = load_run(distilled).scene
    photos = [Views(scene)[index].image for index in scene.test.tolist()]
    expected = [-20 * math.log10(np.square((x + 0.1).clip(0, 1) - x).mean() ** 0.5) for x in map(np.asarray, photos)]
    assert found["psnr"] == pytest.approx(np.mean(expected), abs=0.2)  # 0.1 is 25.5 of 255
    assert found["count"] == len(photos)
    assert found["contrast"] == pytest.approx(1, abs=0.3)
    note = f"the fixer, given {len(photos)} photos that need nothing: PSNR {found['psnr']:.2f}"
    assert note in capsys.readouterr().out
    monkeypatch.setattr(fixer.__class__, "__call__", lambda _, degraded: (item.rgb for item in degraded))
    call(distilled, "--metrics", "psnr", "--fixer", "some")
    idle = read_evaluation(distilled).fixed_photos
    assert math.isnan(idle["psnr"])  # nothing is changed: infinite
    assert idle["contrast"] == pytest.approx(1, abs=1e-5)
    call(distilled, "--metrics", "psnr", "--fixer", "none")
    assert read_evaluation(distilled).fixed_photos == {}


def test_the_runs_own_fixer_is_the_default(distilled, fixer):
    """Not that of the plain run beside it, which was trained without."""
    for folder, name in ((distilled, "some"), (distilled / "plain", "none")):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"fixer": name}))
    call(distilled, "--metrics", "psnr")
    found = read_evaluation(distilled)
    assert found.fixer == "some"
    assert len(found.variants) == 5


def test_only_equal_steps_are_compared(distilled):
    (distilled / "plain" / "checkpoints" / "step_0000010.safetensors").unlink()
    call(distilled, *QUICK)
    found = read_evaluation(distilled)
    assert [row.name for row in found.variants] == ["Difix3D"]
    assert "plain has no checkpoint of step 10. There are step_0000005" in found.left_out["3DGS"]


def test_chosen_rows_and_what_is_left_out(distilled, fixer):
    call(distilled, "--metrics", "psnr", "--fixer", "none", "--variants", "difix3d", "difix3d+")
    found = read_evaluation(distilled)
    assert [(row.name, row.against) for row in found.variants] == [("Difix3D", None)]
    assert found.left_out == {"Difix3D+": "there is no fixer: name one by --fixer"}
    shutil.rmtree(distilled / "plain")
    call(distilled, *QUICK)
    assert "train with --compare" in read_evaluation(distilled).left_out["3DGS"]
    with pytest.raises(UserError, match=r"has none of the rows 3dgs\b.*--compare"):
        call(distilled, *QUICK, "--variants", "3dgs")
    call(distilled, *QUICK, "--step", 5)  # after the first round, before the second
    assert [row.name for row in read_evaluation(distilled).variants] == ["Difix3D"]


def test_weights_that_cannot_be_had(run, monkeypatch):
    def gone(name, device, references, *, anchor_colors):
        raise UserError(f"The fixer {name!r} cannot be loaded", "", "Pass --fixer FOLDER")

    monkeypatch.setattr("difix3d.training.variants.load_fixer", gone)
    call(run, "--metrics", "psnr")  # the run's own
    found = read_evaluation(run)
    assert [row.name for row in found.variants] == ["3DGS"]
    assert "cannot be loaded. Pass --fixer FOLDER" in found.left_out["rows with the fixer"]
    with pytest.raises(UserError, match=r"'mine' cannot be loaded"):
        call(run, "--metrics", "psnr", "--fixer", "mine")


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
        (("--frames", 1), r"--frames is 1\. It must be 2 or more"),
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


@pytest.mark.real
def test_with_real_tiny_weights(run, shared, monkeypatch):
    monkeypatch.setenv("DIFIX3D_WEIGHTS", str(shared / "weights"))
    call(run, "--metrics", "lpips-alex", "--fixer", shared / "golden" / "tiny_difix_ref")
    found = read_evaluation(run)
    assert [row.name for row in found.variants] == ["3DGS", "3DGS + Difix"]
    assert found.variants[0].mean("lpips_alex") < found.variants[1].mean("lpips_alex")


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
