"""``difix3d train_difix``: from a command line and a YAML file to a Difix of your own."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from difix3d.cli.arguments import from_command_line
from difix3d.difix_training.config import TrainDifixConfig
from difix3d.errors import UserError
from difix3d.training.configfile import merge, read_yaml


def train_difix(args: Sequence[str] | None = None) -> None:
    """Trains as the arguments say."""
    config = parse(args)
    from difix3d.difix_training.trainer import DifixTrainer  # brings accelerate and diffusers, which take seconds

    DifixTrainer(config).train()


def parse(args: Sequence[str] | None = None) -> TrainDifixConfig:
    """The configuration: defaults, then the YAML file, then the command line; later ones win.

    A resumed run begins from its own ``config.yaml`` instead.

    Raises:
        UserError: a file that cannot be read, or an unknown key or value in it.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--output-dir", "--output_dir", type=Path, default=TrainDifixConfig.output_dir)
    first.add_argument("--resume", action="store_true")
    first.add_argument("--config", type=Path, default=None)
    known, _ = first.parse_known_args(args)
    path = known.config
    if known.resume:
        path = known.output_dir / "config.yaml"
        if not path.is_file():
            raise UserError(
                f"There is no run in {known.output_dir}", f"{path.name} is missing", "Train it without --resume"
            )
    default = TrainDifixConfig()
    if path is not None:
        default = replace(merge(default, read_yaml(path), source=str(path)), config=path)
    return from_command_line(TrainDifixConfig, "train_difix", args, default)
