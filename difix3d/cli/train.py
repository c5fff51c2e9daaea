"""``difix3d train``: from a command line, a YAML file and a preset to a run."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

from difix3d.cli.arguments import from_command_line
from difix3d.errors import UserError
from difix3d.limits import Limits
from difix3d.logs import ProgressLog, TensorBoardLog
from difix3d.report import write_report
from difix3d.training import Trainer
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import merge, read_yaml
from difix3d.training.presets import from_preset
from difix3d.training.run import RunFolder


@dataclass(frozen=True)
class Command(TrainConfig):
    # what the command takes beside the configuration, and no run's config.yaml keeps
    viewer: bool = False
    """Show the training in the browser; afterwards the viewer stays until Ctrl-C."""
    host: str = "127.0.0.1"
    """Address that the viewer listens on. Any other than this machine's own lets everyone in who can reach it: there
    are no passwords."""
    port: Annotated[int, Limits(min=1, max=65_535)] = 8080
    """Port of the viewer; the next free one is taken if it is not."""


Command.__doc__ = TrainConfig.__doc__


def train(args: Sequence[str] | None = None) -> None:
    """Trains as the arguments say."""
    command = read(args)
    config = bare(command)
    with closing(ProgressLog()) as progress, ExitStack() as stack:
        trainer = Trainer(config, listeners=[progress, TensorBoardLog()])
        plain = make_plain(trainer, progress) if config.compare else None
        trainer.begin()  # now that both may go on; from here on --resume finds them
        if config.fixer == "auto":
            progress.print(f"fixer: {trainer.config.fixer} (--fixer chooses another)")
        viewer = None
        if command.viewer:
            from difix3d.viewer import watch

            viewer = watch(trainer, command.host, command.port)
            stack.callback(viewer.close)
            progress.print(f"viewer: {viewer.url}")
        if plain is not None:
            progress.print("first plain 3DGS, to compare with")
            plain.train()
        trainer.train()
        if trainer.rounds is not None or plain is not None:
            progress.print(f"report: {write_report(trainer.run, plain.run if plain else None)}")
        if viewer is not None and viewer.monitor.finished:
            progress.print(f"the viewer is still there: {viewer.url} (Ctrl-C ends it)")
            with suppress(KeyboardInterrupt):
                viewer.wait()


def make_plain(trainer: Trainer, progress: ProgressLog) -> Trainer:
    """Plain 3DGS for ``--compare``: the same scene, seed and steps, in the run's folder ``plain``."""
    folder = RunFolder(trainer.run.path / "plain", trainer.scene)
    resume = trainer.config.resume and folder.begun
    config = replace(trainer.config, fixer="none", compare=False, output_dir=folder.path, resume=resume)
    return Trainer(config, trainer.scene, [progress, TensorBoardLog()])


def parse(args: Sequence[str] | None = None) -> TrainConfig:
    """The configuration that :func:`read` finds."""
    return bare(read(args))


def bare(command: TrainConfig) -> TrainConfig:
    """The configuration alone."""
    return TrainConfig(**{field.name: getattr(command, field.name) for field in fields(TrainConfig)})


def read(args: Sequence[str] | None = None) -> Command:
    """The command: defaults, the preset, what suits the fixer, the scene's YAML file, the command line; later ones win.

    A resumed run begins from its own ``config.yaml`` instead.

    Raises:
        UserError: a file that cannot be read, or an unknown key, preset or value in it.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--scene", default=TrainConfig.scene)
    first.add_argument("--output-dir", "--output_dir", type=Path)
    first.add_argument("--resume", action="store_true")
    first.add_argument("--preset", default=None)
    first.add_argument("--config", type=Path, default=None)
    first.add_argument("--fixer", default=None)
    first.add_argument("--device", default=None)
    known, _ = first.parse_known_args(args)

    if known.resume and known.output_dir is not None:
        path = known.output_dir / "config.yaml"
        if not path.is_file():
            raise UserError(
                f"There is no run in {known.output_dir}", f"{path.name} is missing", "Train it without --resume"
            )
        values = read_yaml(path)
    else:
        path = known.config or find_config(known.scene)
        values = read_yaml(path) if path else {}
    name = known.preset or values.get("preset", "auto")
    device = known.device or values.get("device", TrainConfig.device)
    fixer = known.fixer or values.get("fixer", TrainConfig.fixer)
    config = merge(from_preset(name, device, fixer), values, source=str(path))
    default = Command(**vars(replace(config, preset=name, config=path)))
    return from_command_line(Command, "train", args, default)


def find_config(scene: str) -> Path | None:
    """``configs/SCENE.yaml`` in the current folder, or among those that come with the program."""
    package = Path(__file__).parents[1]
    for folder in (Path("configs"), package / "configs", package.parent / "configs"):
        path = folder / f"{scene}.yaml"
        if "/" not in scene and path.is_file():
            return path
    return None
