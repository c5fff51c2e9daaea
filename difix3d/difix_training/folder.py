"""The folder of a training of Difix."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from difix3d.difix_training.config import TrainDifixConfig
from difix3d.errors import UserError
from difix3d.gaussians.checkpoint import newest_checkpoint
from difix3d.training.configfile import write_yaml


def open_folder(config: TrainDifixConfig, main: bool = True) -> None:
    """Makes the run's folder, with its ``config.yaml``; an old run in it is not touched.

    Args:
        main: whether this is the process that writes.

    Raises:
        UserError: it holds a run already, or cannot be written to.
    """
    folder = config.output_dir
    if not config.resume and newest_checkpoint(folder / "checkpoints") is not None:
        raise UserError(
            f"{folder} holds a run already",
            "",
            "Go on with it by --resume, give another --output-dir, or delete the folder",
        )
    if main:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_yaml(replace(config, resume=False), folder / "config.yaml")
        except OSError as error:
            raise UserError(f"{folder} cannot be written ({error})", "", "Choose another --output-dir") from error


def record(folder: Path, row: dict[str, Any]) -> None:
    """Adds a row to ``metrics.json``; rows of the same or later steps (before a resume) go."""
    path, rows = folder / "metrics.json", _rows(folder)
    partial = path.with_name("metrics.json.partial")
    partial.write_text(json.dumps([*(old for old in rows if old["step"] < row["step"]), row], indent=1), "utf-8")
    os.replace(partial, path)


def recorded(folder: Path, step: int) -> dict[str, float]:
    """The mean scores that were recorded at a step; none if there are none."""
    scores: dict[str, float] = next((row for row in _rows(folder) if row["step"] == step), {})
    return {name: value for name, value in scores.items() if name not in ("step", "pairs")}


def _rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
