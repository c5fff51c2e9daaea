"""A training that ends by an error keeps what it has learnt, says where, and does not hide the error."""

import signal
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

from difix3d.errors import UserError
from difix3d.gaussians import checkpoint, load_checkpoint, newest_checkpoint
from difix3d.losses import photometric
from difix3d.training import Trainer
from difix3d.training.events import RoundDone, RoundProgress, Started, Stepped
from difix3d.training.model import SplatModel
from difix3d.training.run import RunFolder


def brighter(degraded):
    for item in degraded:
        yield item.rgb + 0.035  # enough to count, too little to be refused


def ends(config, scene, **options):
    """Of the training, to its end: the tensors of its last checkpoint."""
    Trainer(config, scene, **options).train()
    return load_checkpoint(newest_checkpoint(config.output_dir / "checkpoints"))


def equal(one, other):
    return one[0] == other[0] and all(torch.equal(value, other[1][name]) for name, value in one[1].items())


@pytest.fixture(scope="module")
def whole(toy_scene, tmp_path_factory):
    """Settings with a round before step 4, and what an unbroken training ends with."""
    from difix3d.distill.config import DistillConfig
    from difix3d.training import TrainConfig

    config = TrainConfig(fixer="none", plus=False, max_steps=16, eval_steps=(), save_steps=(), device="cpu")
    config = replace(config, distill=DistillConfig(mode="once", start=4))
    config = replace(config, output_dir=tmp_path_factory.mktemp("whole") / "run")
    return config, ends(config, toy_scene, fixer=brighter)


def at(kind, step, act):
    """A listener that acts at the first event of a kind at a step."""
    left = [act]

    def listen(event):
        if isinstance(event, kind) and event.step == step and left:
            left.pop()()

    return listen


def fail(*_):
    raise RuntimeError("by the test")


def failing_fixer(degraded):
    for number, item in enumerate(degraded):
        if number == 2:
            fail()
        yield item.rgb


def once(function, number):
    """The function; its call of that number fails."""
    calls = []

    def call(*args, **options):
        calls.append(1)
        return fail() if len(calls) == number else function(*args, **options)

    return call


@pytest.fixture(
    params=["listener", "fixer", "gate", pytest.param("round done", marks=pytest.mark.slow), "render", "record"]
)
def broken(request, monkeypatch, whole):
    """Options of a training that fails in some place, and the step of which all is whole."""
    if request.param == "listener":
        return {"listeners": [at(Stepped, 3, fail)]}, 3
    if request.param == "fixer":
        return {"fixer": failing_fixer}, 4
    if request.param == "round done":
        return {"listeners": [at(RoundDone, 4, fail)]}, 4
    if request.param == "gate":
        monkeypatch.setattr(SplatModel, "step", once(SplatModel.step, 5))  # the trial of the first round
        return {}, 4
    if request.param == "record":
        monkeypatch.setattr(RunFolder, "record", once(RunFolder.record, 1))
        return {}, 16  # it is written while the training goes on: the end is the next to rely on it
    monkeypatch.setattr("difix3d.training.model.photometric", once(photometric, 4))
    return {}, 3


def test_an_error_keeps_the_last_whole_step(whole, toy_scene, tmp_path, broken, monkeypatch, caplog):
    config, state = replace(whole[0], output_dir=tmp_path / "run"), whole[1]
    options, step = broken
    with pytest.raises(RuntimeError, match="by the test"):
        Trainer(config, toy_scene, **{"fixer": brighter} | options).train()
    assert load_checkpoint(newest_checkpoint(tmp_path / "run" / "checkpoints"))[0] == step
    assert f"step {step}: saved before the error; --resume goes on from there ({tmp_path / 'run'})" in caplog.text
    monkeypatch.undo()
    assert equal(state, ends(replace(config, resume=True), toy_scene, fixer=brighter))


def test_out_of_memory(whole, toy_scene, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("difix3d.training.model.squared_error", full)
    config = replace(whole[0], output_dir=tmp_path / "run")
    with pytest.raises(UserError, match=r"ran out of memory at step 0 .*--resume"):
        Trainer(config, toy_scene, fixer=brighter).train()
    assert not caplog.records  # there is nothing to be kept yet


@pytest.mark.parametrize("damage", ["half a step", "not finite", "no room"])
def test_what_is_not_worth_it_is_not_saved(whole, toy_scene, tmp_path, monkeypatch, caplog, damage):
    """The older checkpoint stays, the error is the first one, and --resume goes on."""
    config, state = replace(whole[0], output_dir=tmp_path / "run", save_steps=(2,)), whole[1]
    trainer = Trainer(config, toy_scene, fixer=brighter)

    def act():
        if damage == "not finite":
            trainer.gaussians.means.data[0] = float("nan")
        if damage == "no room":
            monkeypatch.setattr(checkpoint, "save_file", Mock(side_effect=OSError(28, "No space left on device")))
        if damage == "half a step":
            monkeypatch.setattr(trainer.model.splats, "step", fail)
        else:
            fail()

    trainer.listeners = [at(Stepped, 3, act)]
    with pytest.raises(RuntimeError, match="by the test"):
        trainer.train()
    assert "step 3 could not be saved: " in caplog.text
    monkeypatch.undo()
    assert load_checkpoint(newest_checkpoint(tmp_path / "run" / "checkpoints"))[0] == 2
    assert equal(state, ends(replace(config, resume=True), toy_scene, fixer=brighter))


def test_a_bad_model_is_not_saved(whole, toy_scene, tmp_path):
    """Nor is it without an error: the checkpoint before would be pruned for it."""
    config = replace(whole[0], output_dir=tmp_path / "run", save_steps=(3, 5), keep_checkpoints=1)
    trainer = Trainer(config, toy_scene, fixer=brighter)
    trainer.listeners = [at(Stepped, 5, lambda: trainer.gaussians.sh0.data.fill_(float("inf")))]
    with pytest.raises(UserError, match=r"NaN or infinite.*go on with --resume"):
        trainer.train()
    assert [path.stem for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_0000003"]


@pytest.mark.parametrize("when", ["views", "trial", "asked for"])
def test_a_round_is_broken_off_by_a_signal(whole, toy_scene, tmp_path, monkeypatch, when):
    """Whoever sends SIGTERM may wait for seconds only, and a round can take minutes; it is made anew at the resume."""
    config = replace(whole[0], output_dir=tmp_path / "run")
    views, steps = [], []

    def stop():
        signal.raise_signal(signal.SIGTERM)

    def listen(event):
        if isinstance(event, RoundProgress):
            views.append(event.done)

    original = SplatModel.step

    def step(self, *args, **options):
        steps.append(1)
        if when == "trial" and len(steps) == 5:
            stop()
        return original(self, *args, **options)

    monkeypatch.setattr(SplatModel, "step", step)
    trainer = Trainer(config, toy_scene, fixer=brighter, listeners=[listen])
    if when == "views":
        trainer.listeners.append(at(RoundProgress, 4, stop))
    if when == "asked for":
        trainer.listeners += [at(Stepped, 2, trainer.control.request_round), at(RoundProgress, 2, stop)]
    trainer.train()
    assert trainer.interrupted == signal.SIGTERM
    assert len(steps) == {"views": 4, "trial": 5, "asked for": 2}[when]
    assert len(views) == 1 or when == "trial"
    assert trainer.folder.rows("rounds.json") == []
    monkeypatch.undo()
    found = ends(replace(config, resume=True), toy_scene, fixer=brighter)
    if when != "asked for":
        assert equal(whole[1], found)
        return
    config = replace(whole[0], output_dir=tmp_path / "unbroken")
    trainer = Trainer(config, toy_scene, fixer=brighter)
    trainer.listeners = [at(Stepped, 2, trainer.control.request_round)]
    trainer.train()
    assert [row["step"] for row in trainer.folder.rows("rounds.json")] == [2, 4]
    assert equal(load_checkpoint(newest_checkpoint(config.output_dir / "checkpoints")), found)


def test_a_signal_while_listeners_prepare(whole, toy_scene, tmp_path):
    """They may take seconds, as TensorBoard does; the program was killed then."""
    config = replace(whole[0], output_dir=tmp_path / "run")
    trainer = Trainer(config, toy_scene, fixer=brighter)
    trainer.listeners = [lambda event: signal.raise_signal(signal.SIGTERM) if isinstance(event, Started) else None]
    trainer.train()
    assert trainer.interrupted == signal.SIGTERM
