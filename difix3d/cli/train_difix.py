"""``difix3d train-difix``: from a command line and a YAML file to a Difix of your own."""

from collections.abc import Sequence
from dataclasses import replace

from difix3d.cli.arguments import from_command_line, read_config
from difix3d.difix_training.config import TrainDifixConfig


def train_difix(args: Sequence[str] | None = None) -> None:
    """Trains as the arguments say."""
    config = parse(args)
    from difix3d.difix_training.trainer import DifixTrainer  # brings accelerate and diffusers, which take seconds

    trainer = DifixTrainer(config)
    trainer.train()
    if trainer.interrupted:
        raise SystemExit(128 + trainer.interrupted)


def parse(args: Sequence[str] | None = None) -> TrainDifixConfig:
    """The configuration: defaults, then the YAML file, then the command line; later ones win.

    A resumed run begins from its own ``config.yaml`` instead.

    Raises:
        UserError: a file that cannot be read, or an unknown key or value in it.
    """
    own = TrainDifixConfig.output_dir / "config.yaml"
    config, path = read_config(args, lambda _: TrainDifixConfig(), lambda said: own if said.get("resume") else None)
    return from_command_line(TrainDifixConfig, "train-difix", args, replace(config, config=path))
