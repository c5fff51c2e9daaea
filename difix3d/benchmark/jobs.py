"""One scene, one method, one seed: what is to be done, what has been done, and doing the rest."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import yaml

from difix3d.benchmark.config import Benchmark
from difix3d.benchmark.scenes import source, split_file
from difix3d.errors import UserError
from difix3d.evaluate.results import FILE as EVALUATION
from difix3d.files import write_text
from difix3d.gaussians import newest_checkpoint
from difix3d.interrupt import SIGNALS
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import merge, read_yaml
from difix3d.training.presets import PRESETS, from_preset

SETTINGS = "job.yaml"


@dataclass(frozen=True)
class Job:
    """A run of a benchmark.

    Attributes:
        folder: of the run, absolute; ``job.yaml`` (its settings) and ``log.txt`` are in it, too.
        max_steps: at which it is trained.
        settings: differences from the preset.
        evaluate: options of ``difix3d evaluate``; ``None`` if the run is only trained.
    """

    scene: str
    method: str
    seed: int
    folder: Path
    max_steps: int
    settings: dict[str, Any] = field(hash=False)
    evaluate: dict[str, Any] | None = field(hash=False)

    def __str__(self) -> str:
        return f"{self.scene} / {self.method} / seed {self.seed}"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def step(self) -> int | None:
        """Of the newest checkpoint; ``None`` before the first."""
        path = newest_checkpoint(self.folder / "checkpoints")
        return None if path is None else int(path.stem.removeprefix("step_"))

    @property
    def trained(self) -> bool:
        return (self.step or 0) >= self.max_steps

    @property
    def done(self) -> bool:
        return self.trained if self.evaluate is None else (self.folder / EVALUATION).is_file()

    @property
    def state(self) -> str:
        """In words, for people."""
        if self.done:
            return "done"
        if self.trained:
            return "trained"
        return "new" if self.step is None else f"at step {self.step:,} of {self.max_steps:,}"

    @property
    def commands(self) -> list[list[str]]:
        """What is left to do, as arguments of ``difix3d``."""
        if self.done:
            return []
        train = ["train", "--config", str(self.folder / SETTINGS), "--output-dir", str(self.folder)]
        if self.step is not None:
            train.append("--resume")
        left = [] if self.trained else [train]
        if self.evaluate is not None:
            left.append(["evaluate", str(self.folder), *flags(self.evaluate)])
        return left

    @property
    def changed(self) -> list[str]:
        """What was set otherwise when this run was begun, in words."""
        path = self.folder / SETTINGS
        if not path.exists() or (self.step is None and not self.done):
            return []
        before = read_yaml(path)
        keys = [key for key in sorted({*before, *self.settings}) if before.get(key) != self.settings.get(key)]
        return [f"{key} was {before.get(key)}, now it is {self.settings.get(key)}" for key in keys]

    def check(self) -> None:
        """Refuses to go on with a run that was begun with other settings."""
        if changed := self.changed:
            raise UserError(
                f"{self.folder} was begun with other settings: {'; '.join(changed)}",
                "The runs of a benchmark are all made alike",
                "Use the old settings, another --output-dir, or delete the folder",
            )


def make_jobs(benchmark: Benchmark, data_dir: Path, output_dir: Path, changes: dict[str, Any]) -> list[Job]:
    """All runs of a benchmark, scene by scene; those that are only trained first, since others need them.

    What is set later wins: for all runs, for the scene, ``changes``, for the method.

    Raises:
        UserError: a setting that does not exist, with where it comes from; or runs begun with other settings.
    """
    jobs = _jobs(benchmark, data_dir, output_dir, changes)
    for job in jobs:
        job.check()
    return jobs


def finished_jobs(benchmark: Benchmark, data_dir: Path, output_dir: Path, changes: dict[str, Any]) -> list[Job]:
    """The runs of :func:`make_jobs` that are finished, with any seed; not those that were begun with other settings."""
    seeds = {int(path.name.removeprefix("seed_")) for path in output_dir.glob("*/*/seed_*")}
    jobs = _jobs(replace(benchmark, seeds=tuple(sorted(seeds))), data_dir, output_dir, changes)
    return [job for job in jobs if job.done and not job.changed]


def _jobs(benchmark: Benchmark, data_dir: Path, output_dir: Path, changes: dict[str, Any]) -> list[Job]:
    jobs, evaluate = [], benchmark.evaluate
    for scene, own in benchmark.scenes.items():
        place = {"scene": source(benchmark, scene), "data_dir": str(data_dir.resolve())}
        lists, folder = split_file(benchmark, scene, output_dir), output_dir.resolve() / scene
        split = f"file:{lists}" if lists else benchmark.split
        common = joined({"preset": "standard", **place, "split": split}, benchmark.train, own, changes)
        runs: list[tuple[str, dict, int, dict | None]] = []
        if benchmark.surface:
            runs.append(("surface", benchmark.surface, 0, None))
            evaluate = {**benchmark.evaluate, "surface": str(folder / "surface" / "seed_0")}
        runs += [
            (method, item, seed, evaluate) for method, item in benchmark.methods.items() for seed in benchmark.seeds
        ]
        for method, difference, seed, options in runs:
            settings = joined(common, difference, {"seed": seed})
            if Path(settings.get("fixer", "none")).exists():
                settings["fixer"] = str(Path(settings["fixer"]).resolve())
            config = _config(settings, f"{benchmark.name} ({scene}, {method})")
            jobs.append(Job(scene, method, seed, folder / method / f"seed_{seed}", config.max_steps, settings, options))
    return sorted(jobs, key=lambda job: job.evaluate is not None)


def joined(*layers: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings laid over each other; later ones win."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            result[key] = joined(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def flags(options: dict[str, Any]) -> list[str]:
    """Options as they are typed: ``{"metrics": ["psnr", "fid"], "crop": True}`` is ``--metrics psnr fid --crop``."""
    words = []
    for name, value in options.items():
        name = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def _config(settings: dict[str, Any], origin: str) -> TrainConfig:
    preset = settings["preset"]
    if preset not in PRESETS:  # `auto` would make results depend on the machine
        raise UserError(f"{origin} sets preset to {preset!r}", f"it must be one of {', '.join(PRESETS)}")
    return merge(from_preset(preset), settings, source=origin)


def run_job(job: Job, environment: dict[str, str] | None = None) -> str | None:
    """Does what is left of a job, in processes of its own, whose output goes to its log.

    Args:
        environment: variables to change for them.

    Returns:
        what went wrong, in a sentence; ``None`` if all is done.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log:
        if not _lock(log):
            return f"another process is at work in {job.folder}"
        write_text(job.folder / SETTINGS, yaml.safe_dump(job.settings, sort_keys=False))
        for command in job.commands:
            log.write(f"\n== {datetime.now():%Y-%m-%d %H:%M:%S} difix3d {' '.join(command)}\n")
            log.flush()
            error = _call(command, log, environment or {}) or _unfinished(job, command)
            if error:
                return error
    return None


def _call(command: Sequence[str], log: TextIOWrapper, environment: dict[str, str]) -> str | None:
    status = _status([sys.executable, "-m", "difix3d.cli", *command], log, {**os.environ, **environment})
    if status < 0:
        return f"{command[0]} was killed by {signal.Signals(-status).name}"
    if status - 128 in SIGNALS:
        return None  # it ended in order; how far it came says the rest
    if status:
        return last_line(Path(log.name)) or f"{command[0]} ended with status {status}"
    return None


_running: set["subprocess.Popen[bytes]"] = set()


def _status(command: list[str], log: TextIOWrapper, environment: dict[str, str]) -> int:
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
    ) as process:
        _running.add(process)
        try:
            return process.wait()
        finally:
            _running.discard(process)


def stop_jobs() -> None:
    """Asks all processes of jobs on this machine to end, which save what they have; does not wait for them."""
    for process in list(_running):
        process.terminate()


def _unfinished(job: Job, command: Sequence[str]) -> str | None:
    """A training that was interrupted is saved, but not finished."""
    if command[0] == "train" and not job.trained:
        return f"interrupted {job.state}"
    return None if command[0] == "train" or job.done else f"there is no {EVALUATION} after the evaluation"


def _lock(log: TextIOWrapper) -> bool:
    """Holds the log, also for the processes that write to it, until the last of them has ended; false if it is held."""
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        return True
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def last_line(log: Path) -> str:
    """What a job said last; empty if nothing."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
        lines = file.read().decode("utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
