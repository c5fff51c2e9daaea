"""The folder of a training of Difix."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from difix3d.difix_training.config import TrainDifixConfig
from difix3d.errors import UserError
from difix3d.files import or_nan
from difix3d.gaussians.checkpoint import newest_checkpoint
from difix3d.runfiles import append_row, lock, mend_rows, read_rows
from difix3d.training.configfile import write_yaml

METRICS, MODEL = "metrics.json", "difix"


def check_folder(config: TrainDifixConfig) -> None:
    """Refuses a folder that holds another run already; writes nothing."""
    if not config.resume and newest_checkpoint(config.output_dir / "checkpoints") is not None:
        raise UserError(
            f"{config.output_dir} holds a run already",
            "",
            "Go on with it by --resume, give another --output-dir, or delete the folder",
        )
    if not config.resume and (config.output_dir / MODEL).exists():
        raise UserError(
            f"{config.output_dir / MODEL} is there already", "The model goes there", "Choose another --output-dir"
        )


def begin_folder(config: TrainDifixConfig) -> FileLock:
    """Makes the run's folder, with its ``config.yaml``; returns its lock. Damaged scores are moved aside.

    Raises:
        UserError: it cannot be written to, or another training writes there.
    """
    folder = config.output_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = lock(folder)
        mend_rows(folder / METRICS)
        write_yaml(replace(config, resume=False), folder / "config.yaml")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error})", "", "Choose another --output-dir") from error
    return taken


def record(folder: Path, row: dict[str, Any]) -> None:
    """Adds a row to ``metrics.json``; rows of the same or later steps (before a resume) go."""
    append_row(folder / METRICS, row, lambda old: old["step"] < row["step"])


def recorded(folder: Path, step: int) -> dict[str, float]:
    """The mean scores that were recorded at a step; none if there are none."""
    scores: dict[str, float] = next((row for row in read_rows(folder / METRICS) if row["step"] == step), {})
    return {name: or_nan(value) for name, value in scores.items() if name not in ("step", "pairs")}
