"""One training, begun in processes of its own and resumed, and what it ends with beside one that nothing befell."""

import json
import os
import random
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.utils.tensorboard  # takes a second, which the forks share

torch.set_num_threads(1)

import difix3d.viewer  # noqa: E402, F401
from difix3d import cli, runfiles  # noqa: E402 (after the number of threads)
from difix3d.cli import evaluate, render, train, view  # noqa: E402, F401 (loaded before the forks)
from difix3d.gaussians import load_checkpoint, newest_checkpoint  # noqa: E402
from difix3d.training import trainer  # noqa: E402
from difix3d.training.configfile import read_own  # noqa: E402

SEED = 0


def fixer(degraded: Iterator) -> Iterator:
    for item in degraded:
        yield item.rgb + 0.035  # enough to count, too little to be refused


trainer.load_fixer = lambda *_, **__: fixer


class Campaign:
    """Attempts of one kind.

    Attributes:
        whole: folder of the training that nothing befell.
        seconds: that it took.
    """

    def __init__(self, folder: Path, kind: str):
        self.scene, self.folder, self.kind = folder / "scene", folder / kind, kind
        self.random = random.Random(SEED)
        self.held = self.lost = 0
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        begin = time.monotonic()
        self.whole = self.folder / "whole"
        assert self.wait(self.start(self.whole)) == 0, self.said()
        self.seconds = time.monotonic() - begin
        self.expected = result(self.whole)

    def start(self, run: Path, before: Callable[[], object] = lambda: None, log: int | None = None) -> int:
        """Begins a training, or goes on with it, in a process; returns its id.

        Args:
            before: is called there first.
            log: file descriptor for all that it prints, in place of a file.
        """
        words = ["--scene", self.scene, "--split", "every:4", "--device", "cpu", "--init.points", "300"]
        words += ["--max-steps", "40", "--eval-steps", "12", "--save-steps", "26", "--autosave-minutes", "1e-9"]
        words += ["--fixer", "mini", "--distill.mode", "progressive", "--output-dir", run]
        if (run / "config.yaml").exists():
            words = ["--resume", "--output-dir", run]
        return self.fork("train", words, before, log)

    def fork(self, name: str, words: list, before: Callable[[], object] = lambda: None, log: int | None = None) -> int:
        """Runs a command in a process; returns its id."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            file = log or os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            before()
            cli.dispatch(name, [str(word) for word in words])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def wait(self, pid: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def finish(self, run: Path, name: str, wrong: list[str]) -> None:
        """Goes on with a training to its end, and counts the attempt as held if all is as without the interruption."""
        wrong += half_written(run)
        code = self.wait(self.start(run))
        wrong += [f"resumed with {code}: {self.said()[-400:]}"] if code else differences(self.expected, result(run))
        self.count(name, wrong)
        shutil.rmtree(run)

    def count(self, name: str, wrong: list[str]) -> None:
        self.held += not wrong
        self.lost += bool(wrong)
        if wrong:
            print(f"LOST {self.kind} {name}: {'; '.join(wrong[:4])}", flush=True)


def result(run: Path) -> dict[str, object]:
    """All that a run ends with, but for seconds."""
    step, tensors, _ = load_checkpoint(newest_checkpoint(run / "checkpoints"))
    rows = {name: timeless(json.loads((run / name).read_text())) for name in ("metrics.json", "rounds.json")}
    return {"step": step, **tensors, **rows, "model": (run / "point_cloud.ply").read_bytes()}


def timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if "seconds" not in key}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def differences(one: dict, other: dict) -> list[str]:
    def same(key: str) -> bool:
        a, b = one.get(key), other.get(key)
        return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b

    return [f"{key} differs" for key in sorted({*one, *other}) if not same(key)]


def half_written(run: Path) -> list[str]:
    """Files of a run under their names that are not whole. (Parts under other names are swept at the next start.)"""
    wrong = []
    try:
        for path in run.glob("checkpoints/step_*"):
            load_checkpoint(path)
        for name in ("metrics.json", "rounds.json"):
            runfiles.read_rows(run / name)
        if (run / "config.yaml").exists():
            read_own(run)
    except Exception as error:
        wrong.append(f"half-written: {error}")
    return wrong
