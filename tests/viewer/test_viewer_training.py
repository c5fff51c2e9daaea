"""The viewer of a training: it shows what happens, asks for things, and changes nothing by looking."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_browser import FakeBrowser, until
from small_run import write_scene

from difix3d.training import Trainer
from difix3d.training.events import Stepped
from difix3d.viewer import watch


@pytest.fixture
def training(toy_scene, config):
    """A training in another thread, with its viewer."""
    opened = []

    def begin(fixer=None, **changes):
        trainer = Trainer(replace(config, **changes), toy_scene, fixer=fixer)
        viewer = watch(trainer, port=0)
        worker = threading.Thread(target=trainer.train)
        opened.append((trainer, viewer, worker))
        return opened[-1]

    yield begin
    for trainer, viewer, worker in opened:
        trainer.control.stop()
        if worker.ident is not None:
            worker.join(60)
        viewer.close()


def test_looking_changes_no_bit(toy_scene, config, training, join):
    plain = Trainer(replace(config, output_dir=config.output_dir.with_name("plain")), toy_scene).train()
    trainer, viewer, worker = training()
    browser, session = join(viewer)
    for x in range(8):
        browser.move((0.1 * x, -2, 0.3))
    worker.start()
    worker.join(60)
    assert all(torch.equal(value, plain.as_dict()[name]) for name, value in trainer.gaussians.as_dict().items())
    until(lambda: "step 30" in session.view.status.content)  # and the last model is shown
    assert torch.equal(viewer.model.snapshot.gaussians.means, trainer.gaussians.means)
    until(lambda: "Step 30 of 30" in session.training.status.content)
    assert "finished" in session.training.status.content
    until(lambda: "| 30 |" in session.training.tables.content)


def test_buttons(training, join, config):
    _, viewer, worker = training(max_steps=100_000)
    browser, session = join(viewer)
    worker.start()
    until(lambda: len(viewer.monitor.curve) > 3)
    until(lambda: session.training._plots[0].visible)
    assert len(session.training._plots[0].data[0]) > 1
    browser.set(session.training.pause, True)
    until(lambda: viewer.monitor.phase == "paused")
    step = viewer.monitor.step
    until(lambda: f"step {step:,}" in session.view.status.content)
    until(lambda: session.training.pause.label == "Resume")
    time.sleep(0.2)
    assert viewer.monitor.step == step
    assert not session.training._monitor.can_fix
    browser.set(session.training.save, True)
    until(lambda: (config.output_dir / "point_cloud.ply").exists())
    browser.set(session.training.pause, True)
    until(lambda: viewer.monitor.step > step)


def test_fix_now_and_targets(training, join, redden, config):
    trainer, viewer, worker = training(fixer=redden, max_steps=1000, distill=replace(config.distill, gate="off"))
    browser, session = join(viewer)
    session.cameras.targets.place()
    trainer.control.pause()
    worker.start()
    until(lambda: viewer.monitor.phase == "paused")
    session.cameras.targets.hand_over()
    browser.set(session.training.fix_now, True)
    until(lambda: viewer.monitor.rounds)
    assert "| 1 | 0 | 1 | unchecked |" in viewer.monitor.rounds[0]
    until(lambda: session.cameras.round.options == ("none", "round 0"))
    (camera_view,) = viewer.model.camera_list.rounds()["round 0"]
    assert camera_view.picture()[..., 0].min() == 255
    browser.set(session.view.fixing, "on")  # the same fixer, by turns
    until(lambda: "fix " in session.view.status.content)


@pytest.mark.slow
@pytest.mark.skipif(
    "DIFIX3D_BROWSER_TESTS" not in os.environ, reason="times a training: set DIFIX3D_BROWSER_TESTS=1 on a quiet machine"
)
def test_idle_viewers_take_little_of_a_training(toy_scene, config, monkeypatch):
    """Processor time of a step without and with two clients that look on, in turns within one run."""
    trainer = Trainer(replace(config, max_steps=100_000, densify=replace(config.densify, kind="none")), toy_scene)
    viewer = watch(trainer, port=0)
    seconds, mark, watchers = {False: [], True: []}, [0.0], []

    def turns(event):
        if not isinstance(event, Stepped) or event.step % 150:
            return
        if event.step > 150:
            seconds[bool(watchers)].append(time.process_time() - mark[0])
        if watchers:
            for watcher in watchers:
                watcher.close()
            watchers.clear()
        else:
            watchers.extend(FakeBrowser(viewer.url, size=(640, 360)) for _ in range(2))
        mark[0] = time.process_time()
        if event.step >= 150 * 14:
            trainer.control.stop()

    trainer.listeners = [*trainer.listeners, turns]
    trainer.train()
    viewer.close()
    slowdown = np.median(seconds[True]) / np.median(seconds[False]) - 1
    assert slowdown < 0.10, slowdown


@pytest.mark.slow
def test_the_command_trains_and_stays_until_ctrl_c(tmp_path, toy_scene):
    scene = write_scene(tmp_path / "scene", toy_scene)
    command = [sys.executable, "-m", "difix3d.cli", "train", "--scene", str(scene), "--fixer", "none", "--viewer"]
    options = ["--max-steps", "5", "--split", "every:4", "--init.points", "100", "--eval-steps", "--save-steps"]
    place = ["--output-dir", str(tmp_path / "run"), "--device", "cpu", "--port", "0"]
    process = subprocess.Popen(
        [*command, *options, *place],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a background job ignores
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "still there" in line:
            break
    url = next(line.split()[1] for line in lines if line.startswith("viewer: http://127.0.0.1:"))
    browser = FakeBrowser(url)
    until(lambda: browser.received > 1000)
    browser.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, process.stderr.read()
    assert (tmp_path / "run" / "point_cloud.ply").exists()
    assert "viewer" not in (tmp_path / "run" / "config.yaml").read_text()
