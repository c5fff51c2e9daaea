"""Ctrl-C, SIGTERM and SIGHUP end a training between two steps, saved; --resume goes on with what is missing."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from small_run import write_scene

from difix3d.cli import train as command
from difix3d.gaussians import load_checkpoint, newest_checkpoint
from difix3d.interrupt import SIGNALS, interruptible
from difix3d.training import Trainer
from difix3d.training import trainer as training
from difix3d.training.events import Evaluated, Finished, Saved, Started, Stepped


@pytest.fixture(autouse=True)
def handlers():
    """As in a terminal: whoever runs the tests may have Ctrl-C ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def keep(degraded):
    for item in degraded:
        yield item.rgb


def send(number, kind=Stepped, step=7, run=""):
    """A listener that sends this process a signal at an event of a step (of a run)."""
    folder = []

    def listen(event):
        if isinstance(event, Started):
            folder[:] = [event.run.name]
        if isinstance(event, kind) and event.step == step and (not run or folder == [run]):
            os.kill(os.getpid(), number)

    return listen


def steps(folder):
    return [int(path.stem.removeprefix("step_")) for path in sorted((folder / "checkpoints").iterdir())]


def evaluated(folder):
    path = folder / "metrics.json"
    return [(row["step"], row["plus"]) for row in json.loads(path.read_text())] if path.exists() else []


@pytest.mark.parametrize("number", SIGNALS)
def test_every_way_to_ask_for_an_end_saves(toy_scene, config, number):
    before = [signal.getsignal(each) for each in SIGNALS]
    trainer = Trainer(config, toy_scene, [send(number)])
    trainer.train()
    assert trainer.interrupted == number
    assert steps(config.output_dir) == [7]
    assert (config.output_dir / "point_cloud.ply").is_file()
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_closed_terminal_signals_twice_and_only_a_second_ctrl_c_ends_the_program():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with interruptible() as signalled:
        assert signalled() == 0
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
        assert signalled() == signal.SIGHUP
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptible() as signalled:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signalled() == 0


def test_a_signal_while_it_evaluates_loses_no_step(toy_scene, config):
    """Between the saving of a step and the next step nothing looked at the signal: 20 steps would be lost."""
    config = replace(config, eval_steps=(20,))
    Trainer(config, toy_scene, [send(signal.SIGTERM, Evaluated, 20)]).train()
    assert steps(config.output_dir) == [20]


def test_what_was_stopped_before_its_evaluation_is_evaluated_when_it_is_resumed(toy_scene, config):
    whole = replace(config, output_dir=config.output_dir.with_name("whole"), eval_steps=(20,))
    Trainer(whole, toy_scene, fixer=keep).train()
    config = replace(config, eval_steps=(20,))
    resume = replace(config, resume=True)

    class Death(BaseException):  # as a kill, it leaves no time to save
        pass

    def die(event):
        if (isinstance(event, Saved) and event.step == 30) or (isinstance(event, Evaluated) and event.step == 30):
            raise Death

    Trainer(config, toy_scene, [send(signal.SIGTERM, step=20)], keep).train()
    assert evaluated(config.output_dir) == []  # whoever sends SIGTERM may wait for a few seconds only
    with pytest.raises(Death):  # killed at the last checkpoint, and then after the first of two evaluations
        Trainer(resume, toy_scene, [die], keep).train()
    assert evaluated(config.output_dir) == [(20, False)]
    with pytest.raises(Death):
        Trainer(resume, toy_scene, [die], keep).train()
    assert evaluated(config.output_dir) == [(20, False), (30, False)]
    events = []
    Trainer(resume, toy_scene, [events.append], keep).train()
    assert [type(event) for event in events] == [Started, Evaluated, Finished]
    assert evaluated(config.output_dir) == evaluated(whole.output_dir) == [(20, False), (30, False), (30, True)]
    scores = [[row["psnr"] for row in json.loads((c.output_dir / "metrics.json").read_text())] for c in (config, whole)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("plus", [False, True])
def test_a_signal_breaks_an_evaluation_off(toy_scene, config, monkeypatch, plus):
    """Three photos may be three hundred, and a fixer takes seconds for each."""
    config = replace(config, eval_steps=(20,))
    shown, drawn = Trainer.shown, []
    second = 2 + (6 if plus else 0)

    def photo(self, index):
        drawn.append(index)
        if len(drawn) == second:
            signal.raise_signal(signal.SIGTERM)
        return shown(self, index)

    monkeypatch.setattr(Trainer, "shown", photo)
    trainer = Trainer(config, toy_scene, fixer=keep)
    trainer.train()
    assert trainer.interrupted == signal.SIGTERM
    assert len(drawn) == second
    assert steps(config.output_dir)[-1] == (30 if plus else 20)
    assert evaluated(config.output_dir) == ([(20, False), (30, False)] if plus else [])
    monkeypatch.undo()
    Trainer(replace(config, resume=True), toy_scene, fixer=keep).train()
    assert evaluated(config.output_dir) == [(20, False), (30, False), (30, True)]


@pytest.fixture
def start(tmp_path, toy_scene, monkeypatch):
    """Runs the command on a toy scene; a listener may be added to all of its trainings."""
    scene = write_scene(tmp_path / "scene", toy_scene)
    folder = tmp_path / "run"
    monkeypatch.setattr(training, "load_fixer", lambda name, *_, **__: None if name == "none" else keep)
    words = [
        "--scene",
        str(scene),
        "--split",
        "every:4",
        "--device",
        "cpu",
        "--init.points",
        "300",
        "--max-steps",
        "30",
    ]
    words += ["--eval-steps", "--save-steps", "--fixer", "mini", "--output-dir", str(folder)]
    words += ["--distill.mode", "progressive"]

    def start(*more, listener=None):
        monkeypatch.setattr(command, "TensorBoardLog", lambda: listener or (lambda event: None))
        try:
            command.train(["--resume", "--output-dir", str(folder), *more] if folder.exists() else [*words, *more])
        except SystemExit as end:
            return end.code
        return 0

    start.folder = folder
    return start


def test_an_interrupted_comparison_ends_the_command_and_goes_on_where_it_was(start, capsys):
    assert start("--compare", listener=send(signal.SIGINT, run="plain")) == 128 + signal.SIGINT
    said = capsys.readouterr().err
    assert f"stopped at step 7; go on with: --resume --output-dir {start.folder}\n" in said
    assert steps(start.folder / "plain") == [7]
    assert steps(start.folder) == []
    assert not (start.folder / "report.html").exists()

    assert start(listener=send(signal.SIGTERM, run="run")) == 128 + signal.SIGTERM  # plain, then the run itself
    assert steps(start.folder / "plain") == [7, 30]
    assert steps(start.folder) == [7]
    assert f"no report: nothing is evaluated yet (difix3d evaluate {start.folder}" in capsys.readouterr().err
    assert start("--eval-steps", "12", listener=send(signal.SIGINT, step=13, run="run")) == 130
    page = (start.folder / "report.html").read_text()
    assert "3DGS left out: it was not evaluated at step 12: there is nothing to compare with" in page
    assert start() == 0
    assert "Difix3D+ against 3DGS" in (start.folder / "report.html").read_text()
    assert evaluated(start.folder)[-2:] == [(30, False), (30, True)]


def test_ctrl_c_before_the_first_evaluation_is_no_error(start, capsys):
    assert start(listener=send(signal.SIGINT)) == 130
    said = capsys.readouterr().err
    assert "step 7: saved" in said
    assert "no report: nothing is evaluated yet" in said
    assert start() == 0
    assert load_checkpoint(newest_checkpoint(start.folder / "checkpoints"))[0] == 30


def spawn(tmp_path, toy_scene, *more, **streams):
    scene = write_scene(tmp_path / "scene", toy_scene)
    words = ["--scene", str(scene), "--split", "every:4", "--device", "cpu", "--init.points", "300", "--fixer", "none"]
    words += ["--output-dir", str(tmp_path / "run"), "--eval-steps", "--save-steps", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "difix3d.cli", "train", *words], env=environment, **streams)


def test_sigterm_to_the_program(tmp_path, toy_scene):
    words = ["--max-steps", "100000", "--save-steps", "1", "--keep-checkpoints", "1"]
    process = spawn(tmp_path, toy_scene, *words, stderr=subprocess.PIPE, text=True)
    next(line for line in process.stderr if line.startswith("step 1: saved"))
    process.terminate()
    said = process.stderr.read()
    assert process.wait(60) == 128 + signal.SIGTERM
    (step,) = steps(tmp_path / "run")
    assert f"stopped at step {step:,}; go on with: --resume --output-dir {tmp_path / 'run'}" in said


def test_a_reader_that_leaves_does_not_end_a_training(tmp_path, toy_scene):
    """``difix3d train 2>&1 | head -1``"""
    process = spawn(tmp_path, toy_scene, "--max-steps", "40", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert steps(tmp_path / "run") == [40]
