"""The folder of a run: configuration, checkpoints, metrics, pictures."""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from difix3d.errors import UserError
from difix3d.files import append_row, read_rows, write_json
from difix3d.gaussians import load_checkpoint, newest_checkpoint, save_checkpoint
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import write_yaml
from difix3d.types import Scene


@dataclass(frozen=True)
class RunFolder:
    """``config.yaml``, ``scene.json``, ``checkpoints/``, ``metrics.json``, ``eval/``, ``point_cloud.ply``; with a fixer
    also ``rounds.json`` and ``rounds/``."""

    path: Path
    scene: Scene

    @classmethod
    def open(cls, config: TrainConfig, scene: Scene, **facts: Any) -> "RunFolder":
        """Makes the folder of a new run, or finds that of a run to resume; ``facts`` go into its ``scene.json``.

        Raises:
            UserError: a new run would overwrite an old one, or there is nothing to resume.
        """
        if config.resume and config.output_dir is None:
            raise UserError("--resume needs the run's folder", cure="Add --output-dir outputs/SCENE/RUN")
        stamp = datetime.now().strftime("%Y-%m-%d_%H%M%S")
        path = config.output_dir or Path("outputs") / scene.name / stamp
        run = cls(path, scene)
        if not config.resume and newest_checkpoint(run.checkpoints) is not None:
            raise UserError(
                f"{path} holds a run already",
                cure="Go on with it by --resume, give another --output-dir, or delete the folder",
            )
        try:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            write_yaml(replace(config, output_dir=path, resume=False), path / "config.yaml")
            facts |= {
                "name": scene.name,
                "photos": [photo.name for photo in scene.photos],
                "train": [scene.photos[i].name for i in scene.train],
                "test": [scene.photos[i].name for i in scene.test],
                "from_input": scene.from_input.tolist(),
                "extent": scene.extent,
                "began_in": str(Path.cwd()),
            }
            write_json(path / "scene.json", facts)
        except OSError as error:
            raise UserError(
                f"The run's folder {path} cannot be written ({error})", cure="Choose another --output-dir"
            ) from error
        return run

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def save(self, step: int, tensors: dict[str, Tensor], *, keep: int) -> Path:
        """Writes a checkpoint that knows which photos it was trained on."""
        extra = {"photos": [self.scene.photos[i].name for i in self.scene.train]}
        return save_checkpoint(self.checkpoints, step, tensors, extra, keep=keep)

    def load(self) -> tuple[int, dict[str, Tensor]]:
        """The step and the tensors of the newest checkpoint, by dotted names.

        Raises:
            UserError: there is none, or it was trained on other photos than this scene's.
        """
        path = newest_checkpoint(self.checkpoints)
        if path is None:
            raise UserError(f"There is no checkpoint in {self.checkpoints}", cure="Train it without --resume")
        step, tensors, extra = load_checkpoint(path)
        if extra["photos"] != [self.scene.photos[i].name for i in self.scene.train]:
            raise UserError(
                f"{path} was trained on other photos than those of this scene and split",
                cure="Resume with the --scene, --split and --seed that the run began with (config.yaml)",
            )
        return step, tensors

    def record(self, name: str, row: dict[str, Any]) -> None:
        """Adds a row to a JSON list (``metrics.json``, ``rounds.json``); rows of later steps (before a resume) go."""
        append_row(self.path / name, row, lambda old: old["step"] <= row["step"] and _kind(old) != _kind(row))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """What was recorded; empty if nothing."""
        return read_rows(self.path / name)


def _kind(row: dict[str, Any]) -> tuple[int, bool]:
    """What there is only one row of: a step, with and without the post-render pass."""
    return row["step"], row.get("plus", False)
