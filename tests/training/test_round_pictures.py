"""Pictures of rounds are written while the training goes on, and are on disk before anything relies on them."""

import errno
import os
import threading
from dataclasses import replace

import pytest
import torch

from difix3d.distill import DistillConfig
from difix3d.distill import pictures as module
from difix3d.errors import UserError
from difix3d.gaussians import load_checkpoint, newest_checkpoint
from difix3d.images import write_image
from difix3d.training import Trainer
from difix3d.training.events import Evaluated, RoundDone, Saved, Stepped

VIEWS = 3
FILES = 3 * VIEWS + 1
"""Render, fixed and confidence of each view, and the sheet."""


def brighter(degraded):
    for item in degraded:
        yield item.rgb + 0.035  # enough to count, too little to be refused


@pytest.fixture
def config(config):
    """A round before step 4 of sixteen."""
    distill = DistillConfig(mode="once", start=4)
    return replace(config, distill=distill, plus=False, max_steps=16, eval_steps=(), save_steps=())


@pytest.fixture
def opened(monkeypatch):
    """Pictures of rounds are not written before this is set (or two seconds have passed)."""
    opened = threading.Event()

    def write(path, image):
        opened.wait(2)
        write_image(path, image)

    monkeypatch.setattr(module, "write_image", write)
    yield opened
    opened.set()


class Watch:
    """What is on disk when an event comes, and what is done then."""

    def __init__(self, config, kind, step, act=lambda: None):
        self.folder, self.kind, self.step, self.act, self.found = config.output_dir, kind, step, act, None

    def __call__(self, event):
        if isinstance(event, self.kind) and event.step == self.step:
            self.found = on_disk(self.folder)
            self.act()


def on_disk(folder):
    """Pictures, and whether there is the row."""
    return len(list((folder / "rounds").rglob("[!.]*.png"))), (folder / "rounds.json").exists()


def test_the_training_goes_on_while_they_are_written(toy_scene, config, opened):
    watch = Watch(config, Stepped, 6, opened.set)
    events = []
    Trainer(config, toy_scene, [watch, events.append], brighter).train()
    assert watch.found == (0, False)
    assert on_disk(config.output_dir) == (FILES, True)
    (done,) = [event for event in events if isinstance(event, RoundDone)]
    assert done.seconds["write"] < 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_they_are_on_disk_before_an_error_leaves_the_training(toy_scene, config, opened, error):
    def fail():
        threading.Timer(0.3, opened.set).start()
        raise error("by the test")

    watch = Watch(config, RoundDone, 4, fail)
    with pytest.raises(error, match="by the test"):
        Trainer(config, toy_scene, [watch], brighter).train()
    assert watch.found == (0, False)
    assert on_disk(config.output_dir) == (FILES, True)


@pytest.mark.parametrize("kind", [Saved, Evaluated])
def test_a_checkpoint_and_an_evaluation_come_after_them(toy_scene, config, opened, kind):
    config = replace(config, eval_steps=(5,) if kind is Evaluated else (), save_steps=(5,) if kind is Saved else ())
    before = Watch(config, Stepped, 5, threading.Timer(0.3, opened.set).start)
    after = Watch(config, kind, 5)
    Trainer(config, toy_scene, [before, after], brighter).train()
    assert before.found == (0, False)
    assert after.found == (FILES, True)


def test_the_pictures_of_one_round_wait_at_most(toy_scene, config, monkeypatch):
    busy, most, threads, lock = [], [], set(), threading.Lock()

    def write(path, image):
        step = path.relative_to(config.output_dir / "rounds").parts[0]
        with lock:
            busy.append(step)
            most.append(len(set(busy)))
            threads.add(threading.current_thread())
        write_image(path, image)
        with lock:
            busy.remove(step)

    monkeypatch.setattr(module, "write_image", write)
    config = replace(config, distill=DistillConfig(start=10, every=1))
    trainer = Trainer(config, toy_scene, fixer=brighter)
    trainer.train()
    assert len(most) == 12 * FILES
    assert set(most) == {1}
    assert threading.main_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)
    assert [row["step"] for row in trainer.folder.rows("rounds.json")] == list(range(4, 16))


def full(monkeypatch, times):
    """The disk is full for so many pictures of rounds."""
    rename, left = os.replace, [times]

    def replace_file(source, target):
        if "rounds" in target.parts and left[0] > 0:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace_file)


def test_a_full_disk_ends_the_training_and_no_checkpoint_is_ahead_of_its_round(toy_scene, config, monkeypatch, caplog):
    full(monkeypatch, 1000)
    config = replace(config, save_steps=(3, 6))
    trainer = Trainer(config, toy_scene, fixer=brighter)
    with pytest.raises(UserError, match=r"Cannot write .*rounds.*png \(No space left on device\)\. Free some space"):
        trainer.train()
    assert "step 6 could not be saved: Cannot write" in caplog.text
    assert trainer.folder.rows("rounds.json") == []
    assert newest_checkpoint(config.output_dir / "checkpoints").stem == "step_0000003"
    monkeypatch.undo()
    Trainer(replace(config, resume=True), toy_scene, fixer=brighter).train()
    assert on_disk(config.output_dir) == (FILES, True)


def test_an_error_that_passes_loses_nothing(toy_scene, config, monkeypatch, caplog):
    whole = replace(config, output_dir=config.output_dir.with_name("whole"))
    Trainer(whole, toy_scene, fixer=brighter).train()
    full(monkeypatch, 1)
    with pytest.raises(UserError, match="No space left on device"):
        Trainer(config, toy_scene, fixer=brighter).train()
    assert "step 16: saved before the error" in caplog.text
    assert on_disk(config.output_dir) == (FILES, True)
    Trainer(replace(config, resume=True), toy_scene, fixer=brighter).train()
    ends = [load_checkpoint(newest_checkpoint(run.output_dir / "checkpoints"))[1] for run in (whole, config)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_an_error_of_theirs_does_not_hide_the_one_that_ends_the_training(toy_scene, config, monkeypatch, caplog):
    def fail():
        raise KeyboardInterrupt("by the test")

    full(monkeypatch, 1000)
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        Trainer(config, toy_scene, [Watch(config, RoundDone, 4, fail)], brighter).train()
    assert "The pictures of the last round are not whole: Cannot write" in caplog.text
