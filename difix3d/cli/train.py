"""``difix3d train``: from a command line, a YAML file and a preset to a run."""

import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import tyro

from difix3d.cli.arguments import from_command_line, read_config
from difix3d.cli.options import Address
from difix3d.console import console
from difix3d.devices import choose_device
from difix3d.errors import UserError
from difix3d.logs import ProgressLog, TensorBoardLog
from difix3d.ranks import Ranks
from difix3d.report import write_report
from difix3d.training import Trainer
from difix3d.training.config import TrainConfig
from difix3d.training.events import Listener
from difix3d.training.presets import find_config, from_preset
from difix3d.training.run import RunFolder

LATER = 30
"""Seconds that a process waits for its end by ``torchrun``, after an error of another."""
WRONG_OPTIONS = 2
"""tyro's exit status."""
LOST = re.compile(r"by peer|Broken pipe|ncclRemoteError")
"""In what gloo and NCCL say where another process has gone; their errors have no class of their own."""


@dataclass(frozen=True)
class ViewerOptions(Address):
    """Whether and where the training is shown; no run's ``config.yaml`` keeps it."""

    viewer: bool = False
    """Show the training in the browser; afterwards the viewer stays until Ctrl-C."""


@dataclass(frozen=True)
class Command:
    """Trains a Gaussian-splatting model on a scene, and repairs it with Difix on the way (Difix3D+).

    Examples:
      difix3d train --scene demo
      difix3d train --scene path/to/capture --resolution 960
      difix3d train --scene path/to/capture --fixer none
      difix3d train --scene path/to/capture --init.ply splat.ply --max-steps 3000
      difix3d train --scene garden --data-dir data
      difix3d train --resume --output-dir outputs/garden/first
      torchrun --nproc-per-node=4 scripts/train.py --scene garden
    """

    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    show: Annotated[ViewerOptions, tyro.conf.arg(name="")] = field(default_factory=ViewerOptions)


def train(args: Sequence[str] | None = None) -> None:
    """Trains as the arguments say; the exit status of a training that was interrupted is 128 and the signal's number,
    as of a program that the signal ended."""
    with together() as ranks:
        command = read(args)
        if command.show.viewer and ranks.count > 1:
            raise UserError(f"--viewer is for one process, and there are {ranks.count}", cure="Leave it out")
        run(command.config, command.show, ranks.join(choose_device(command.config.device)))


def run(config: TrainConfig, show: ViewerOptions, ranks: Ranks) -> None:
    """What the command does, once it is read."""
    if show.viewer:
        from difix3d.viewer import watch  # before anything is written: it may not go with the viser at hand

    with closing(ProgressLog()) as progress, ExitStack() as stack:
        trainer = Trainer(config, listeners=listeners(progress, ranks), ranks=ranks)
        plain = make_plain(trainer, stack) if config.compare else None
        trainer.begin()  # now that both may go on; from here on --resume finds them
        if config.fixer == "auto":
            progress.print(f"fixer: {trainer.config.fixer} (--fixer chooses another)")
        viewer = None
        if show.viewer:
            viewer = watch(trainer, show.host, show.port, show.allow_origin)
            stack.callback(viewer.close)
            progress.print(f"viewer: {viewer.url}")
        beside, interrupted = None, 0
        if plain is not None:
            progress.print("first plain 3DGS, to compare with")
            plain.train()
            beside, interrupted = plain.folder, plain.interrupted
            plain = None  # its model and photos leave the GPU
        if not interrupted:
            trainer.train()
            interrupted = trainer.interrupted
            if ranks.first:
                report(trainer, beside, progress)
        if interrupted:
            raise SystemExit(128 + interrupted)
        if viewer is not None:
            progress.print(f"the viewer is still there: {viewer.url} (Ctrl-C ends it)")
            with suppress(KeyboardInterrupt):
                viewer.wait()


@contextmanager
def together() -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, of which only the first speaks; mostly there is just one.

    Of errors the process tells that had the first, and ends; then ``torchrun`` ends the others. Of a wrong command
    line, which is that of all, the first process tells.
    """
    ranks = Ranks.here()
    if not ranks.first:
        console.quiet = True
        logging.disable(logging.WARNING)
    try:
        yield ranks
    except SystemExit as end:
        if end.code == WRONG_OPTIONS and not ranks.first:
            time.sleep(LATER)
        raise
    except Exception as error:
        if not ranks.fails_first():
            time.sleep(LATER)
            raise SystemExit(1) from None
        if ranks.count > 1 and isinstance(error, RuntimeError) and LOST.search(str(error)):
            raise UserError(
                "Another process of this training was ended", "Main memory may have run out", "Go on with --resume"
            ) from error
        raise
    ranks.close()


def report(trainer: Trainer, plain: RunFolder | None, progress: ProgressLog) -> None:
    """Writes the report of a training with novel views, from a splat file, or beside a plain one."""
    if trainer.fixer is None and plain is None and trainer.config.init.ply is None:
        return
    if trainer.folder.rows("metrics.json"):
        progress.print(f"report: {write_report(trainer.folder, plain)}")
    else:
        progress.print(f"no report: nothing is evaluated yet (difix3d evaluate {trainer.folder.path} does it now)")


def make_plain(trainer: Trainer, stack: ExitStack) -> Trainer:
    """Plain 3DGS for ``--compare``: the same scene, seed, first Gaussians and steps, in the run's folder ``plain``."""
    folder = RunFolder(trainer.folder.path / "plain", trainer.scene)
    resume = trainer.config.resume and folder.begun
    config = replace(trainer.config, fixer="none", compare=False, output_dir=folder.path, resume=resume)
    progress = stack.enter_context(closing(ProgressLog(whole=trainer.folder.path)))
    begun = None if trainer.first else trainer.model.whole_gaussians()
    return Trainer(config, trainer.scene, listeners(progress, trainer.ranks), ranks=trainer.ranks, gaussians=begun)


def listeners(progress: ProgressLog, ranks: Ranks) -> list[Listener]:
    """Who hears of a training: of several processes only the first has some."""
    return [progress, TensorBoardLog()] if ranks.first else []


def read(args: Sequence[str] | None = None) -> Command:
    """The command: defaults, the preset, the scene's YAML file, the command line; later ones win.

    A resumed run begins from its own ``config.yaml`` instead.

    Raises:
        UserError: a file that cannot be read, or an unknown key, preset or value in it.
    """
    config, path = read_config(args, start, lambda said: find_config(said.get("scene", TrainConfig.scene)))
    return from_command_line(Command, "train", args, Command(replace(config, config=path)))


def start(said: dict[str, Any]) -> TrainConfig:
    """The preset's configuration, for what arguments and file say."""
    return from_preset(str(said.get("preset", "auto")), str(said.get("device", "auto")))
