"""What is refused leaves a run as it was; a model is only ever shown and scored on the scene that it was trained on."""

import errno
import json
import shutil
from dataclasses import replace

import pytest
from small_run import write_run, write_scene

from difix3d.cli.train import train
from difix3d.errors import UserError
from difix3d.scene import load_scene
from difix3d.training import Trainer
from difix3d.training.load import load_run
from difix3d.training.run import RunFolder


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def same_names_elsewhere(folder, scene):
    """The same photos by name, seen from other places."""
    c2w = scene.cameras.c2w.clone()
    c2w[:, :3, 3] *= 2
    return write_scene(folder, replace(scene, cameras=replace(scene.cameras, c2w=c2w)))


def options(tmp_path, toy_scene, *more):
    scene = write_scene(tmp_path / "scene", toy_scene)
    words = ["--scene", str(scene), "--split", "every:4", "--device", "cpu", "--init.points", "300", "--fixer", "none"]
    return [*words, "--eval-steps", "--save-steps", "--output-dir", str(tmp_path / "run"), *more]


def test_a_refused_resume_leaves_the_run_as_it_was(tmp_path, toy_scene):
    run = tmp_path / "run"
    other = str(same_names_elsewhere(tmp_path / "other", toy_scene))
    train(options(tmp_path, toy_scene, "--max-steps", "5"))
    before = contents(run)
    for change, message in (
        (("--split", "none"), "other photos than .*step_0000005.*config.yaml"),
        (("--max-steps", "3"), "is at step 5 already"),
        (("--scene", other), "other cameras than .*step_0000005"),
        (("--fixer", str(tmp_path / "nothing")), "cannot be loaded"),
        (("--near", "2.5"), "began without --near.*cannot go on with 2.5"),
        (("--resolution", "16"), "--resolution.*cannot go on with 16"),
        (("--antialiased",), "began with --antialiased False"),
        (("--background", "white"), "began with --background auto"),
        (("--seed", "7"), "began with --seed 0"),
        (("--init.ply", "nope.ply"), "began without --init.ply"),
    ):
        with pytest.raises(UserError, match=message):
            train(["--resume", "--output-dir", str(run), *change])
        assert contents(run) == before
    train(["--resume", "--output-dir", str(run), "--max-steps", "6"])
    assert load_run(run).step == 6


def test_a_refused_comparison_changes_neither_run(tmp_path, toy_scene):
    """Plain 3DGS is further than the steps that are asked for: not even the settings of the other run may change."""
    train(options(tmp_path, toy_scene, "--max-steps", "5", "--compare"))
    assert "Difix3D left out: at step 5 no round was done yet" in (tmp_path / "run" / "report.html").read_text()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = contents(tmp_path / "run")
    with pytest.raises(UserError, match="plain is at step 5 already"):
        train(["--resume", "--output-dir", str(tmp_path / "run"), "--max-steps", "4"])
    assert contents(tmp_path / "run") == before


def test_pictures_of_an_evaluation_that_are_gone_are_made_again(tmp_path, toy_scene):
    train(options(tmp_path, toy_scene, "--max-steps", "4", "--compare"))
    run = tmp_path / "run"
    scores = (run / "metrics.json").read_text()
    shutil.rmtree(run / "eval")
    train(["--resume", "--output-dir", str(run)])
    assert list(run.glob("eval/step_000004/renders/*.png"))
    assert [row["psnr"] for row in json.loads((run / "metrics.json").read_text())] == [
        row["psnr"] for row in json.loads(scores)
    ]


def test_a_run_that_was_stopped_before_its_first_checkpoint_is_resumed_from_the_start(toy_scene, config):
    Trainer(config, toy_scene).begin()
    assert Trainer(replace(config, resume=True), toy_scene).first == 0


def test_a_splat_file_that_could_not_be_written_at_the_end_is_written_by_the_resume(toy_scene, config, monkeypatch):
    """The checkpoint of that step is whole, and the file is that of an earlier step."""
    config = replace(config, max_steps=8, save_steps=(4,))
    whole = replace(config, output_dir=config.output_dir / "whole")
    Trainer(whole, toy_scene).train()
    export = RunFolder.export

    def no_room(run, *args, **options):
        if (run.checkpoints / "step_0000008.safetensors").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        export(run, *args, **options)

    broken = replace(config, output_dir=config.output_dir / "broken")
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "export", no_room)
        with pytest.raises(OSError, match="No space left"):
            Trainer(broken, toy_scene).train()
    Trainer(replace(broken, resume=True), toy_scene).train()
    files = [(run.output_dir / "point_cloud.ply").read_bytes() for run in (whole, broken)]
    assert files[0] == files[1]


@pytest.mark.parametrize("change", ["split", "scene"])
def test_a_run_whose_settings_were_changed_is_not_scored(tmp_path, toy_scene, change):
    """Settings and scene.json agree with each other, and not with the model: held-out photos might be training ones."""
    path = write_run(tmp_path, toy_scene)
    config = load_run(path).config
    if change == "split":
        config = replace(config, split="every:5")
    else:
        config = replace(config, scene=str(same_names_elsewhere(tmp_path / "other", toy_scene)))
    scene = load_scene(config.scene, split=config.split)
    RunFolder(path, scene).begin(config, near=0.1)
    kind = {"split": "photos", "scene": "cameras"}[change]
    with pytest.raises(UserError, match=f"other {kind} than .*step_0000010.*config.yaml was changed since: resume"):
        load_run(path)
