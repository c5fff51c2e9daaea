"""Trainings that are killed, filled and signalled at many moments, each in a process of its own, and resumed.

``campaign.py KIND FOLDER ATTEMPTS`` prints a line for each attempt that is lost, and how many were held. FOLDER holds a
scene. Everything is imported once, and each attempt is a fork of that: a training takes a second or two then.
"""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from attempts import Campaign, differences, result

from difix3d.gaussians import checkpoint, newest_checkpoint
from difix3d.training import trainer
from difix3d.training.rounds import Distiller
from difix3d.training.trainer import SplatModel, Trainer


def kill(campaign: Campaign, attempts: int) -> None:
    """SIGKILL one to three times at random moments."""
    for number in range(attempts):
        run, wrong = campaign.folder / f"{number}", []
        for again in range(campaign.random.choice([1, 1, 2, 3])):
            pid = campaign.start(run)
            time.sleep(campaign.random.uniform(0, campaign.seconds * (0.6 if again else 1)))
            os.kill(pid, signal.SIGKILL)
            code = campaign.wait(pid)
            wrong += [f"ended with {code}: {campaign.said()[-300:]}"] if code not in (-signal.SIGKILL, 0) else []
        campaign.finish(run, f"{number}", wrong)


def full(campaign: Campaign, attempts: int) -> None:
    """No room from some write, sync or renaming on; a tmpfs of some size where one may be mounted."""
    ways = ("write", "sync", "rename")
    counts = {way: _counted(campaign, way) for way in ways}
    struck = campaign.folder / "struck"
    for number in range(attempts):
        way = (*ways, "tmpfs")[number % 4]
        run = campaign.folder / f"{number}"
        if way == "tmpfs":
            _small_disk(campaign, run)
            continue
        first = campaign.random.randrange(counts[way])
        struck.unlink(missing_ok=True)
        code = campaign.wait(campaign.start(run, partial(_fill, way, first, struck=struck)))
        # threads that meet at a missing folder ask for it more than once: a training writes 250 to 257 times
        wrong = _named(campaign, code) if struck.exists() else [f"ended with {code}"] * (code != 0)
        campaign.finish(run, f"{way} {first}", wrong + _left(run))


def _named(campaign: Campaign, code: int) -> list[str]:
    said = campaign.said()
    wrong = [] if code == 2 else [f"ended with {code}"]
    wrong += ["a traceback"] if "Traceback" in said else []
    return wrong + ([] if "No space left on device" in said else [f"did not say why: {said[-300:]}"])


def _left(run: Path) -> list[str]:
    return [f"{path} is left" for path in run.rglob(".*.partial*")]


def _counted(campaign: Campaign, way: str) -> int:
    """How often a whole training writes in this way."""
    note, run = campaign.folder / f"{way}.count", campaign.folder / way
    campaign.wait(campaign.start(run, lambda: _fill(way, sys.maxsize, note)))
    shutil.rmtree(run)
    return note.stat().st_size


def _fill(way: str, first: int, note: Path | None = None, struck: Path | None = None) -> None:
    """In this process every write, sync or renaming from that number on finds no room (``struck`` is there then)."""
    left = [first]

    def no_room(path: object) -> None:
        left[0] -= 1
        if note is not None:
            with open(note, "ab") as file:
                file.write(b".")
        if left[0] < 0:
            if struck is not None:
                os.close(os.open(struck, os.O_CREAT))
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def before(function: Callable, place: int = 0) -> Callable:
        def call(*args: object, **options: object) -> object:
            no_room(args[place])
            return function(*args, **options)

        return call

    def halfway(self: Path, content: bytes) -> int:
        with open(self, "wb") as file:
            file.write(content[: len(content) // 2])
        no_room(self)
        with open(self, "wb") as file:
            return file.write(content)

    if way == "rename":
        os.replace = before(os.replace, 1)
    elif way == "sync":
        os.fsync = before(os.fsync)
    else:
        Path.write_bytes = halfway
        checkpoint.save_file = before(checkpoint.save_file, 1)
        Path.mkdir = before(Path.mkdir)


def _small_disk(campaign: Campaign, run: Path) -> None:
    """Counts nothing where no disk can be mounted."""
    run.mkdir()
    size = sum(path.stat().st_size for path in campaign.whole.rglob("*"))
    kilobytes = int(size / 1024 * campaign.random.uniform(0.01, 0.9)) + 8
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", run], check=False).returncode:
        return
    try:
        code = campaign.wait(campaign.start(run / "run"))
        wrong = (_named(campaign, code) if code else []) + _left(run)
        subprocess.run(["mount", "-o", f"remount,size={4 * size}", run], check=True)
        campaign.finish(run / "run", f"disk of {kilobytes} kB", wrong)
    finally:
        subprocess.run(["umount", run], check=True)


def signals(campaign: Campaign, attempts: int) -> None:
    """SIGTERM and SIGHUP while it loads, trains, makes a round and evaluates."""
    for number in range(attempts):
        phase = ("load", "train", "round", "evaluation")[number % 4]
        asked = (signal.SIGTERM, signal.SIGHUP)[number // 4 % 2]
        run, sent = campaign.folder / f"{number}", campaign.folder / "sent"
        code = campaign.wait(campaign.start(run, partial(_signal_in, phase, asked, sent)))
        seconds = time.time() - sent.stat().st_mtime
        wrong = [] if code in (128 + asked, -asked) else [f"ended with {code}"]
        wrong += [f"took {seconds:.1f} s"] if seconds > max(2, campaign.seconds / 2) else []
        if phase != "load":
            wrong += [] if "go on with: --resume" in campaign.said() else ["did not say how to go on"]
            wrong += [] if newest_checkpoint(run / "checkpoints") else ["no checkpoint"]
        campaign.finish(run, f"{asked.name} in {phase}", wrong)


def _signal_in(phase: str, number: int, sent: Path) -> None:
    """In this process a signal arrives in that phase."""
    owner, name, turn = {
        "load": (trainer, "near_plane", 1),
        "train": (SplatModel, "step", 2),
        "round": (Distiller, "held_out", 1),
        "evaluation": (Trainer, "shown", 2),
    }[phase]
    original, calls = getattr(owner, name), []

    def call(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == turn:
            sent.touch()
            signal.raise_signal(number)
        return original(*args, **options)

    setattr(owner, name, call)


def logs(campaign: Campaign, attempts: int) -> None:
    """Nobody takes what it prints: a reader that left, a full log disk, closed streams."""
    for number in range(attempts):
        way = ("head", "full", "closed")[number % 3]
        run, ends = campaign.folder / f"{number}", ()
        if way == "head":
            ends = os.pipe()
            log = ends[1]
        else:
            log = os.open("/dev/full" if way == "full" else os.devnull, os.O_WRONLY)
            ends = (log,)
        before = (lambda: (os.close(1), os.close(2))) if way == "closed" else (lambda: None)
        pid = campaign.start(run, before, log)
        if way == "head":
            os.close(log)
            os.read(ends[0], 1)
        os.close(ends[0])
        code = campaign.wait(pid)
        wrong = [f"ended with {code}"] if code else differences(campaign.expected, result(run))
        campaign.count(f"{way} {number}", wrong)


def beside(campaign: Campaign, attempts: int) -> None:
    """``evaluate``, ``render`` and ``view`` while a training replaces and prunes what they look at."""
    run = campaign.folder / "run"
    words = ["--scene", campaign.scene, "--split", "every:4", "--device", "cpu", "--fixer", "mini"]
    words += ["--distill.mode", "progressive", "--eval-steps", "--save-steps", "--max-steps", "100000"]
    words += ["--autosave-minutes", "1e-9", "--keep-checkpoints", "1"]
    with open(campaign.folder / "training", "w") as log:
        training = campaign.fork("train", [*words, "--output-dir", run], log=log.fileno())
    try:
        while newest_checkpoint(run / "checkpoints") is None:
            time.sleep(0.05)
        for number in range(attempts):
            before = newest_checkpoint(run / "checkpoints")
            name, *words = (
                ["evaluate", run, "--metrics", "psnr", "--fixer", "none"],
                ["render", run, "--frames", "2", "--path", "interp"],
                ["view", run, "--port", "0", "--fixer", "none"],
            )[number % 3]
            pid = campaign.fork(name, [*words, "--device", "cpu"])
            if name == "view":
                end = time.monotonic() + 60
                while "viewer: http" not in campaign.said() and time.monotonic() < end:
                    time.sleep(0.05)
                os.kill(pid, signal.SIGINT)
            code = campaign.wait(pid)
            wrong = [] if code == 0 else [f"ended with {code}: {campaign.said()[-400:]}"]
            wrong += ["a traceback"] if "Traceback" in campaign.said() else []
            wrong += [] if newest_checkpoint(run / "checkpoints") != before else ["the training stood still"]
            campaign.count(f"{name} {number}", wrong)
    finally:
        os.kill(training, signal.SIGTERM)
        code = campaign.wait(training)
    campaign.count("training", [] if code == 128 + signal.SIGTERM else [f"ended with {code}"])


KINDS = {function.__name__: function for function in (kill, full, signals, logs, beside)}

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kind, folder, attempts = sys.argv[1:]
    made = Campaign(Path(folder), kind)
    KINDS[kind](made, int(attempts))
    print(f"{kind}: {made.held + made.lost} attempts, {made.held} held, {made.lost} lost")
    sys.exit(made.lost > 0)
