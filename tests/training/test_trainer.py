import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d.difix import DifixFixer
from difix3d.difix.architecture import random_difix
from difix3d.errors import UserError
from difix3d.gaussians import load_checkpoint, newest_checkpoint, read_ply
from difix3d.gaussians.checkpoint import nested
from difix3d.images import read_image
from difix3d.logs import ProgressLog, TensorBoardLog
from difix3d.training import Trainer, model
from difix3d.training.configfile import merge
from difix3d.training.events import Evaluated, Finished, Saved, Started, Stepped
from difix3d.types import Gaussians


def assert_equal(a, b) -> None:
    for name, value in a.as_dict().items():
        assert torch.equal(value, b.as_dict()[name]), name


def test_a_run_learns_and_leaves_everything_in_its_folder(toy_scene, config):
    events = []
    config = replace(config, max_steps=150, eval_steps=(1,), save_steps=(100,))
    config = merge(config, {"densify": {"reset_every": 0}}, source="test")
    run = Trainer(config, toy_scene, listeners=[events.append, ProgressLog(), TensorBoardLog()])
    gaussians = run.train()
    folder = config.output_dir

    first, last = (event.result.mean("psnr") for event in events if isinstance(event, Evaluated))
    assert last > first + 3
    rows = json.loads((folder / "metrics.json").read_text())
    assert [row["step"] for row in rows] == [1, 150]
    assert rows[1]["psnr"] == pytest.approx(last)
    assert [image["name"] for image in rows[1]["images"]] == ["02.png", "06.png", "10.png"]
    for image in rows[1]["images"]:  # what training photos show of it is kept beside the pictures
        seen = read_image(folder / "eval" / "step_000150" / "seen" / image["name"])[..., 0] > 0
        assert image["seen"] == pytest.approx(seen.mean())
    assert rows[1]["seen_psnr"] > 0

    assert [event.step for event in events if isinstance(event, Saved)] == [100, 150]
    assert sum(isinstance(event, Stepped) for event in events) == 150
    assert isinstance(events[0], Started)
    assert events[-1] == Finished(150, events[-1].seconds, False)
    for name, value in read_ply(folder / "point_cloud.ply").as_dict().items():  # this scene's world is the user's
        torch.testing.assert_close(value, gaussians.as_dict()[name].detach(), atol=1e-5, rtol=1e-5)
    render = read_image(folder / "eval" / "step_000150" / "renders" / "02.png")
    compare = read_image(folder / "eval" / "step_000150" / "compare" / "02.png")
    assert compare.shape == (40, 3 * 48, 3)
    np.testing.assert_array_equal(compare[:, :48], read_image(toy_scene.photos[2].path))
    np.testing.assert_array_equal(compare[:, 48:96], render)
    assert list((folder / "tensorboard").iterdir())
    assert (folder / "config.yaml").exists()


def test_a_compressed_file_on_request(toy_scene, config):
    Trainer(replace(config, max_steps=1, compressed_ply=True), toy_scene).train()
    assert (config.output_dir / "point_cloud.compressed.ply").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"densify": {"kind": "mcmc", "cap_max": 330}},
        {"densify": {"absgrad": True, "grow_grad2d": 0.0004}},
        {"densify": {"kind": "none"}},
        {"batch_size": 3},
        {"background": "random"},
        {"dropout": 0.3},
        {"dropout": 0.3, "batch_size": 2, "background": "random"},
        {"antialiased": True},
        {"loss": {"opacity": 0.01, "scale": 0.01, "depth": 0.1}},
        {"refine": {"poses": True, "exposure": True}},
        {"sh_degree": 0},
    ],
    ids=lambda change: "-".join(f"{key}={value}" for key, value in change.items()),
)
def test_each_option_changes_the_run_and_resumes_to_the_bit(toy_scene, config, change):
    """A run that dies and is resumed ends with the bits of one that did not."""
    plain = Trainer(config, toy_scene).train()
    config = merge(config, change, source="test")
    whole = Trainer(replace(config, output_dir=config.output_dir.with_name("whole")), toy_scene).train()
    assert len(whole) != len(plain) or not torch.equal(whole.means, plain.means)

    class Death(BaseException):  # as a kill, it leaves no time to save
        pass

    def die(event):
        if isinstance(event, Stepped) and event.step == 20:
            raise Death

    halves = replace(config, output_dir=config.output_dir.with_name("halves"), save_steps=(17,))
    with pytest.raises(Death):
        Trainer(halves, toy_scene, listeners=[die]).train()
    resumed = Trainer(replace(halves, resume=True), toy_scene)
    assert resumed.first == 17
    assert_equal(resumed.train(), whole)


def test_corrections_are_learnt(toy_scene, config):
    run = Trainer(merge(config, {"refine": {"poses": True, "exposure": True}}, source="test"), toy_scene)
    run.train()
    moved = run.model.corrections.motion.detach().abs().sum(1) > 0
    assert moved[toy_scene.train].all()
    assert not moved[toy_scene.test].any()
    assert not torch.equal(run.model.corrections.exposure[0], torch.eye(3, 4))


def test_a_cap_ends_growth(toy_scene, config):
    grown = len(Trainer(config, toy_scene).train())
    config = merge(
        config, {"densify": {"cap_max": 301}, "output_dir": str(config.output_dir) + "-capped"}, source="test"
    )
    assert 300 < len(Trainer(config, toy_scene).train()) < grown


def test_another_seed_is_another_run(toy_scene, config):
    a = Trainer(config, toy_scene).train()
    b = Trainer(replace(config, seed=1, output_dir=config.output_dir.with_name("b")), toy_scene).train()
    assert len(a) != len(b) or not torch.equal(a.means, b.means)


def test_ctrl_c_saves_and_says_how_to_go_on(toy_scene, config, capsys):
    def interrupt(event):
        if isinstance(event, Stepped) and event.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    Trainer(config, toy_scene, listeners=[interrupt, ProgressLog()]).train()
    assert signal.getsignal(signal.SIGINT) is before
    assert newest_checkpoint(config.output_dir / "checkpoints").stem == "step_0000007"
    assert "stopped at step 7; go on with: --resume --output-dir" in capsys.readouterr().err.replace("\n", " ")
    resumed = Trainer(replace(config, resume=True), toy_scene)
    assert resumed.first == 7


@pytest.mark.parametrize("bad", [float("nan"), 1e6])
def test_a_loss_that_is_none_stops_the_run(toy_scene, config, monkeypatch, bad):
    real, calls = model.photometric, []

    def poisoned(rgb, views, loss):
        calls.append(views[0].name)
        terms = real(rgb, views, loss)
        return terms | {"l1": terms["l1"] * 0 + bad} if len(calls) == 21 else terms

    monkeypatch.setattr(model, "photometric", poisoned)
    with pytest.raises(UserError, match="at step 21, on .*The last good checkpoint.*was kept") as error:
        Trainer(replace(config, save_steps=(20, 25)), toy_scene).train()
    assert calls[20] in str(error.value)
    assert newest_checkpoint(config.output_dir / "checkpoints").stem == "step_0000020"


@pytest.mark.parametrize("packed", [False, True])
def test_out_of_memory_says_what_to_lower(toy_scene, config, monkeypatch, packed):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "rasterize", full)
    with pytest.raises(UserError, match="memory at step 0 with 300 Gaussians.*--densify.cap-max, --resolution") as told:
        Trainer(replace(config, packed=packed), toy_scene).train()
    assert ("add --packed" in str(told.value)) != packed  # that cure is taken already


def test_out_of_memory_in_a_round_loses_nothing(toy_scene, config):
    def full(renders):
        next(iter(renders))
        raise torch.OutOfMemoryError("CUDA out of memory")

    change = replace(config.distill, start=6)
    with pytest.raises(
        UserError, match="memory at step 6 with .*--fixer mini or --fixer none; then go on with --resume"
    ):
        Trainer(replace(config, distill=change), toy_scene, fixer=full).train()
    assert newest_checkpoint(config.output_dir / "checkpoints").stem == "step_0000006"


def test_a_folder_holds_one_run(toy_scene, config):
    Trainer(config, toy_scene).train()
    with pytest.raises(UserError, match="holds a run already.*--resume"):
        Trainer(config, toy_scene)


def test_resume_needs_a_checkpoint_of_the_same_photos(toy_scene, config):
    with pytest.raises(UserError, match="There is no run in"):
        Trainer(replace(config, resume=True), toy_scene)
    with pytest.raises(UserError, match="--resume needs the run's folder"):
        Trainer(replace(config, resume=True, output_dir=None), toy_scene)
    Trainer(replace(config, max_steps=5), toy_scene).train()
    with pytest.raises(UserError, match="other photos than .* was trained on"):
        Trainer(replace(config, resume=True), replace(toy_scene, train=toy_scene.train[1:]))
    with pytest.raises(UserError, match="is at step 5 already"):
        Trainer(replace(config, resume=True, max_steps=3), toy_scene)


def test_points_that_held_out_views_alone_see_are_left_out(toy_scene, config):
    """Point 0 is seen by the test cameras and one training camera; it must not leak in."""
    seen = toy_scene.observations
    hidden = (seen[:, 0] == 0) & ~np.isin(seen[:, 1], [*toy_scene.test, toy_scene.train[0]])
    scene = replace(toy_scene, observations=seen[~hidden])
    gaussians = Trainer(config, scene).gaussians
    np.testing.assert_array_equal(gaussians.means.detach().numpy(), scene.points[1:])


def test_a_scene_without_points_starts_at_random(toy_scene, config):
    empty = replace(
        toy_scene,
        points=np.zeros((0, 3), np.float32),
        colors=np.zeros((0, 3), np.uint8),
        observations=np.zeros((0, 2), np.int64),
    )
    gaussians = Trainer(replace(config, init=replace(config.init, points=50)), empty).gaussians
    assert len(gaussians) == 50
    assert float(gaussians.means.abs().max()) <= 3 * empty.extent


SCRIPT = """
import pickle, sys
from dataclasses import replace
from difix3d.training import Trainer
import torch
torch.set_num_threads(1)
scene, config = pickle.load(open(sys.argv[1], "rb"))
config = replace(config, resume=any(config.output_dir.glob("checkpoints/*.safetensors")))
Trainer(config, scene).train()
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_is_bit_equal(toy_scene, config, tmp_path):
    """SIGKILL twice, at a random moment after new checkpoints appeared."""
    config = replace(config, max_steps=200, save_steps=tuple(range(2, 200, 2)))
    expected = Trainer(replace(config, output_dir=tmp_path / "whole", save_steps=()), toy_scene).train()

    job = tmp_path / "job.pickle"
    job.write_bytes(pickle.dumps((toy_scene, config)))
    rng, folder = np.random.default_rng(0), config.output_dir / "checkpoints"
    for milestone in (30, 90):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(job)])
        while (path := newest_checkpoint(folder)) is None or path.stem < f"step_{milestone:07d}":
            assert process.poll() is None, "the run ended by itself"
            time.sleep(0.01)
        time.sleep(0.1 * rng.random())
        process.kill()
        process.wait()
    subprocess.run([sys.executable, "-c", SCRIPT, str(job)], check=True)
    _, state, _ = load_checkpoint(newest_checkpoint(folder))
    assert_equal(Gaussians(**nested(state)["gaussians"]), expected)


def test_packed_changes_nothing_on_a_cpu(toy_scene, config):
    plain, packed = (
        Trainer(replace(config, packed=value, output_dir=config.output_dir / str(value)), toy_scene).train()
        for value in (False, True)
    )
    assert_equal(packed, plain)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "change", [{}, {"densify": {"kind": "mcmc", "cap_max": 400}}, {"packed": True}, {"batch_size": 2}]
)
def test_cuda_learns_as_the_cpu_does(toy_scene, config, change):
    config = merge(config, {"max_steps": 150, "densify": {"reset_every": 0}} | change, source="test")
    scores = {}
    for device in ("cpu", "cuda"):
        folder = config.output_dir.with_name(device)
        Trainer(replace(config, device=device, output_dir=folder), toy_scene).train()
        scores[device] = json.loads((folder / "metrics.json").read_text())[-1]["psnr"]
    assert scores["cuda"] == pytest.approx(scores["cpu"], abs=1.5)


def test_a_fixer_that_is_moved_away_is_moved_once_for_all_fixed_pictures(toy_scene, config, monkeypatch):
    pipe, moves = random_difix().optimize(), []
    monkeypatch.setattr(pipe, "to", lambda place: moves.append(place))
    fixer = DifixFixer(pipe, offload=True)
    config = replace(config, max_steps=2, plus=True, distill=replace(config.distill, mode="off"))
    Trainer(config, toy_scene, fixer=fixer).train()
    assert len(list(config.output_dir.glob("eval/*_plus/renders/*"))) == len(toy_scene.test) > 1
    assert moves == ["cpu"]
    assert fixer.offload is True
