import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from difix3d.errors import UserError
from difix3d.gaussians import newest_checkpoint, read_ply
from difix3d.images import read_image
from difix3d.logs import ProgressLog, TensorBoardLog
from difix3d.training import Trainer, trainer
from difix3d.training.events import Evaluated, Finished, Saved, Started, Stepped
from difix3d.training.trainer import batches, choose_device, initial_gaussians


def assert_equal(a, b) -> None:
    for name, value in a.as_dict().items():
        assert torch.equal(value, b.as_dict()[name]), name


def test_a_run_learns_and_leaves_everything_in_its_folder(toy_scene, config):
    events = []
    config = replace(config, max_steps=150, eval_steps=(1,), save_steps=(100,))
    run = Trainer(config, toy_scene, listeners=[events.append, ProgressLog(), TensorBoardLog()])
    gaussians = run.train()
    folder = config.output_dir

    first, last = (event.result.mean("psnr") for event in events if isinstance(event, Evaluated))
    assert last > first + 3
    rows = json.loads((folder / "metrics.json").read_text())
    assert [row["step"] for row in rows] == [1, 150]
    assert rows[1]["psnr"] == pytest.approx(last)
    assert [image["name"] for image in rows[1]["images"]] == ["02.png", "06.png", "10.png"]

    assert [event.step for event in events if isinstance(event, Saved)] == [100, 150]
    assert sum(isinstance(event, Stepped) for event in events) == 150
    assert isinstance(events[0], Started)
    assert events[-1] == Finished(150, events[-1].seconds, False)
    assert_equal(read_ply(folder / "point_cloud.ply"), gaussians)  # this scene's world is the user's
    render = read_image(folder / "eval" / "step_000150" / "renders" / "02.png")
    compare = read_image(folder / "eval" / "step_000150" / "compare" / "02.png")
    assert compare.shape == (40, 3 * 48, 3)
    np.testing.assert_array_equal(compare[:, :48], read_image(toy_scene.photos[2].path))
    np.testing.assert_array_equal(compare[:, 48:96], render)
    assert list((folder / "tensorboard").iterdir())
    assert (folder / "config.yaml").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"densify": {"kind": "mcmc", "cap": 400, "start": 5, "every": 10}},
        {"densify": {"absgrad": True, "grad": 0.0004, "start": 5, "every": 10}},
        {"densify": {"kind": "none"}},
        {"batch_size": 3},
        {"background": "random"},
        {"antialiased": True},
        {"loss": {"opacity": 0.01, "scale": 0.01, "depth": 0.1}},
        {"refine": {"poses": True, "exposure": True}},
        {"sh_degree": 0},
    ],
    ids=lambda change: "-".join(change),
)
def test_options_train_and_resume_to_the_bit(toy_scene, config, change):
    """Each option learns; and a run that was stopped and resumed ends with the bits of one that was not."""
    from difix3d.training.configfile import merge

    config = merge(config, change, source="test")
    whole = Trainer(config, toy_scene)
    before = float(np.mean([whole.step([whole.views[int(i)]], 0)[1] for i in toy_scene.train[:3]]))
    whole = Trainer(config, toy_scene)
    gaussians = whole.train()
    _, after = whole.step([whole.views[int(toy_scene.train[0])]], 59)
    assert float(after) < before
    if change.get("densify", {}).get("kind") != "none":
        assert len(gaussians) != len(toy_scene.points)

    halves = replace(config, output_dir=config.output_dir.with_name("halves"), save_steps=(33,))

    class Killed(Exception):
        pass

    def kill(event):
        if isinstance(event, Stepped) and event.step == 40:
            raise Killed

    with pytest.raises(Killed):
        Trainer(halves, toy_scene, listeners=[kill]).train()
    resumed = Trainer(replace(halves, resume=True), toy_scene)
    assert resumed.first == 33
    assert_equal(
        resumed.train(), Trainer(replace(config, output_dir=config.output_dir.with_name("b")), toy_scene).train()
    )


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
    real, calls = trainer.photometric, []

    def poisoned(rgb, views, loss):
        calls.append(views[0].name)
        terms = real(rgb, views, loss)
        return terms | {"l1": terms["l1"] * 0 + bad} if len(calls) == 31 else terms

    monkeypatch.setattr(trainer, "photometric", poisoned)
    with pytest.raises(UserError, match="at step 31, on .*The last good checkpoint.*was kept") as error:
        Trainer(replace(config, save_steps=(30, 35)), toy_scene).train()
    assert calls[30] in str(error.value)
    assert newest_checkpoint(config.output_dir / "checkpoints").stem == "step_0000030"


def test_out_of_memory_says_what_to_lower(toy_scene, config, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "rasterize", full)
    with pytest.raises(UserError, match="ran out of memory at step 0 with 300 Gaussians.*--densify.cap, --resolution"):
        Trainer(config, toy_scene).train()


def test_a_folder_holds_one_run(toy_scene, config):
    Trainer(config, toy_scene).train()
    with pytest.raises(UserError, match="holds a run already.*--resume"):
        Trainer(config, toy_scene)


def test_resume_needs_a_checkpoint_of_the_same_photos(toy_scene, config):
    with pytest.raises(UserError, match="There is no checkpoint in"):
        Trainer(replace(config, resume=True), toy_scene)
    with pytest.raises(UserError, match="--resume needs the run's folder"):
        Trainer(replace(config, resume=True, output_dir=None), toy_scene)
    Trainer(replace(config, max_steps=5), toy_scene).train()
    with pytest.raises(UserError, match="trained on other photos"):
        Trainer(replace(config, resume=True), replace(toy_scene, train=toy_scene.train[1:]))
    with pytest.raises(UserError, match="is at step 5 already"):
        Trainer(replace(config, resume=True, max_steps=3), toy_scene)


def test_cuda_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UserError, match="no CUDA device.*Install a CUDA build of torch"):
        choose_device("cuda")


def test_points_that_held_out_views_alone_see_are_left_out(toy_scene, config):
    """Point 0 is seen by the test cameras and one training camera; it must not leak in."""
    seen = toy_scene.observations
    hidden = (seen[:, 0] == 0) & ~np.isin(seen[:, 1], [*toy_scene.test, toy_scene.train[0]])
    scene = replace(toy_scene, observations=seen[~hidden])
    gaussians = initial_gaussians(scene, config)
    np.testing.assert_array_equal(gaussians.means.numpy(), scene.points[1:])


def test_a_scene_without_points_starts_at_random(toy_scene, config):
    empty = replace(
        toy_scene,
        points=np.zeros((0, 3), np.float32),
        colors=np.zeros((0, 3), np.uint8),
        observations=np.zeros((0, 2), np.int64),
    )
    gaussians = initial_gaussians(empty, replace(config, init=replace(config.init, points=50)))
    assert len(gaussians) == 50
    assert float(gaussians.means.abs().max()) <= 3 * empty.extent


def test_batches_visit_each_photo_once_an_epoch_and_never_mix_sizes(toy_scene):
    width = toy_scene.cameras.width.clone()
    width[toy_scene.train[:4]] = 32
    scene = replace(toy_scene, cameras=replace(toy_scene.cameras, width=width))
    order = list(islice(batches(scene, 2, seed=0, start=0), 10))  # 4 + 5 photos: 2 + 3 batches an epoch
    for epoch in (order[:5], order[5:]):
        assert sorted(sum(epoch, [])) == sorted(toy_scene.train.tolist())
    assert all(len({int(width[i]) for i in batch}) == 1 for batch in order)
    assert order[:5] != order[5:]
    assert list(islice(batches(scene, 2, seed=0, start=7), 3)) == order[7:]


SCRIPT = """
import pickle, sys
from dataclasses import replace
from difix3d.training import Trainer
import torch
torch.set_num_threads(1)
scene, config = pickle.load(open(sys.argv[1], "rb"))
config = replace(config, resume=(config.output_dir / "checkpoints").exists() and any((config.output_dir / "checkpoints").glob("*.safetensors")))
Trainer(config, scene).train()
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_is_bit_equal(toy_scene, config, tmp_path):
    """SIGKILL at random moments of a run that saves all the time, until it gets through."""
    import pickle

    config = replace(config, max_steps=600, save_steps=tuple(range(3, 600, 3)))
    expected = Trainer(replace(config, output_dir=tmp_path / "whole"), toy_scene).train()

    job = tmp_path / "job.pickle"
    job.write_bytes(pickle.dumps((toy_scene, config)))
    rng, kills = np.random.default_rng(0), 0
    for patience in [*(4.0 + 3 * rng.random(4)), 120.0]:
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(job)], stderr=subprocess.PIPE)
        try:
            _, stderr = process.communicate(timeout=patience)
            assert process.returncode == 0, stderr.decode()
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
    assert kills >= 1
    assert_equal(read_ply(config.output_dir / "point_cloud.ply"), expected)
