"""The folder of a run: configuration, checkpoints, metrics, pictures."""

import logging
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import UInt8
from torch import Tensor

from difix3d.errors import UserError
from difix3d.evaluate import Name
from difix3d.files import as_json, cannot_write, read_json, sweep
from difix3d.gaussians import load_newest, newest_checkpoint, save_checkpoint, write_ply
from difix3d.gaussians.transform import transform
from difix3d.geometry.normalize import same_world
from difix3d.images import write_image
from difix3d.limits import flag
from difix3d.runfiles import append_row, changed, lock, mend_rows, read_rows, refuse_foreign, write_state
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import merge, read_own, write_yaml
from difix3d.types import Gaussians, Scene

log = logging.getLogger(__name__)

ROWS = ("metrics.json", "rounds.json")
"""Files of a run that grow by a row at a time."""
WRITTEN = ("config.yaml", "scene.json", "point_cloud.ply", "report.html", "eval")
"""Names that nothing else may have in a new run's folder."""
KEPT = ("seed", "resolution", "near", "background", "antialiased", "sh_degree")
"""What a run keeps to its end, beside how it begins: its model would be shown, and scored, in another way."""


@dataclass(frozen=True)
class RunFolder:
    """``config.yaml``, ``scene.json``, ``checkpoints/``, ``metrics.json``, ``eval/``, ``point_cloud.ply``; with a fixer
    also ``rounds.json`` and ``rounds/``."""

    path: Path
    scene: Scene

    @classmethod
    def find(cls, config: TrainConfig, scene: Scene) -> "RunFolder":
        """The folder of a new run, or that of a run to resume. Nothing is written: what is refused stays as it was.

        Raises:
            UserError: a new run would overwrite an old one, or there is nothing to resume.
        """
        if config.resume and config.output_dir is None:
            raise UserError("--resume needs the run's folder", cure="Add --output-dir outputs/SCENE/RUN")
        stamp = datetime.now().strftime("%Y-%m-%d_%H%M%S-%f")[:-3]  # milliseconds keep trainings of a script apart
        run = cls(config.output_dir or Path("outputs") / scene.name / stamp, scene)
        if config.resume and not run.begun:
            raise UserError(f"There is no run in {run.path}", "config.yaml is missing", "Train it without --resume")
        if not config.resume and newest_checkpoint(run.checkpoints) is not None:
            raise UserError(
                f"{run.path} holds a run already",
                cure="Go on with it by --resume, give another --output-dir, or delete the folder",
            )
        if not config.resume:
            refuse_foreign(run.path, WRITTEN, partial(_began, run.path), "run")
        return run

    def as_begun(self, config: TrainConfig) -> TrainConfig:
        """The configuration of a run to resume, with the dropout, the backdrop and the mode of distillation that it
        began with where they are left open: those of versions that did not choose them.

        Raises:
            UserError: something else that the model is trained and shown with is not what it began with.
        """
        own = read_own(self.path)
        begun = merge(TrainConfig(), own, source=str(self.path / "config.yaml"))
        begun = replace(begun, init=replace(begun.init, backdrop=begun.init.backdrop or 0))
        if config.dropout is None:
            config = replace(config, dropout=begun.dropout or 0.0)
        if config.init.backdrop is None:
            config = replace(config, init=replace(config.init, backdrop=begun.init.backdrop))
        if config.distill.mode == "auto":
            mode = (own.get("distill") or {}).get("mode", "progressive")
            config = replace(config, distill=replace(config.distill, mode=mode))
        _check_kept(config, begun, self.path)
        return config

    def begin(self, config: TrainConfig, **facts: Any) -> None:
        """Writes ``config.yaml`` and ``scene.json``, from which a run is resumed and loaded; ``facts`` go into the
        latter. Damaged rows of an earlier part of the run are moved aside."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            sweep(self.path)
            self._check_places()
            for name in ROWS:
                mend_rows(self.path / name)
            if changed(self.path / "scene.json"):
                log.warning("%s is not as it was written, or missing: it is written anew", self.path / "scene.json")
            write_yaml(replace(config, output_dir=self.path, resume=False), self.path / "config.yaml")
            facts |= {"name": self.scene.name, **identity(self.scene), "extent": self.scene.extent}
            facts["began_in"] = str(Path.cwd())
            write_state(self.path / "scene.json", as_json(facts))
        except OSError as error:
            raise UserError(
                f"The run's folder {self.path} cannot be written ({error})", cure="Choose another --output-dir"
            ) from error

    def _check_places(self) -> None:
        """Refuses at once what would end the training at its next checkpoint."""
        for place in (self.path / "point_cloud.ply", *self.checkpoints.glob("step_*.safetensors")):
            if place.is_dir():
                raise UserError(f"{place} is a folder", "Training writes a file of that name", "Move it away")

    def taken(self, config: TrainConfig, **facts: Any) -> FileLock:
        """The right to write here, until it is released or the process ends; then :meth:`begin`.

        Raises:
            UserError: another training has it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        right = lock(self.path)
        try:
            self.begin(config, **facts)
        except UserError:
            right.release(force=True)
            raise
        return right

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with, though perhaps without a checkpoint yet."""
        return (self.path / "config.yaml").is_file()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def save(self, step: int, tensors: dict[str, Tensor], *, keep: int) -> Path:
        """Writes a checkpoint that knows which scene and photos it was trained on."""
        return save_checkpoint(self.checkpoints, step, tensors, {"scene": identity(self.scene)}, keep=keep)

    def export(self, gaussians: Gaussians, *, compressed: bool) -> None:
        """Writes a model for other viewers: a .ply in the user's world, also packed if ``compressed``."""
        model = transform(gaussians.map(Tensor.detach), np.linalg.inv(self.scene.from_input), dtype=torch.float64)
        write_ply(model, self.path / "point_cloud.ply")
        if compressed:
            write_ply(model, self.path / "point_cloud.compressed.ply", compressed=True)

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        """The step and the tensors of the newest whole checkpoint, by dotted names; ``None`` before the first.

        Raises:
            UserError: it was trained on another scene or other photos than these.
        """
        found = load_newest(self.checkpoints)
        if found is None:
            return None
        path, (step, tensors, extra) = found
        cure = "Resume with the --scene, --split and --seed that the run began with (config.yaml)"
        check_trained_on(self.scene, extra, path, cure)
        return step, tensors

    def check_step(self, step: int, max_steps: int) -> None:
        """Refuses to go on from a step that is past the last one."""
        if step > max_steps:
            raise UserError(
                f"The run in {self.path} is at step {step} already",
                f"--max-steps is {max_steps}",
                "Raise --max-steps, or leave out --resume and give another --output-dir",
            )

    def model_at(self, step: int) -> Name:
        """Row of the ablation that its model is after a step: what a splat file gave before the first, then plain 3DGS
        until there have been novel views."""
        if step == 0:
            return "given"
        return "difix3d" if any(row["step"] < step for row in self.rows("rounds.json")) else "3dgs"

    def record(self, name: str, row: dict[str, Any]) -> None:
        """Adds a row to a JSON list (``metrics.json``, ``rounds.json``); rows of later steps (before a resume) go."""
        append_row(self.path / name, row, lambda old: old["step"] <= row["step"] and _kind(old) != _kind(row))

    def keep_pilot(self, row: dict[str, Any], sheet: UInt8[np.ndarray, "_ _ 3"]) -> None:
        """Writes ``pilot.json``, and its picture beside it."""
        try:
            write_image(self.path / "pilot.png", sheet)
            write_state(self.path / "pilot.json", as_json(row))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def pilot(self) -> dict[str, Any] | None:
        """What the pilot found; ``None`` if there was none."""
        path = self.path / "pilot.json"
        return read_json(path) if path.is_file() else None

    def rows(self, name: str) -> list[dict[str, Any]]:
        """What was recorded; empty if nothing."""
        return read_rows(self.path / name)


def identity(scene: Scene) -> dict[str, Any]:
    """What tells whether a scene is the one that a model was trained on: its photos, their split, its cameras."""
    names = [photo.name for photo in scene.photos]
    split = {"train": [names[i] for i in scene.train], "test": [names[i] for i in scene.test]}
    return {"photos": names, **split, "from_input": scene.from_input.tolist()}


def check_trained_on(scene: Scene, extra: dict[str, Any], path: Path, cure: str) -> None:
    """Refuses a checkpoint that was trained on another scene than this, as :func:`check_scene` does.

    Args:
        extra: of the checkpoint.
        path: its file.
        cure: what to do about it.
    """
    known = extra["scene"] if "scene" in extra else {"train": extra["photos"]}  # all that older versions kept
    check_scene(scene, known, path, cure)


def gaussians_in(tensors: dict[str, Tensor]) -> Gaussians:
    """The model among the tensors of a checkpoint."""
    prefix = "gaussians."
    return Gaussians(**{key.removeprefix(prefix): x for key, x in tensors.items() if key.startswith(prefix)})


def check_scene(scene: Scene, known: dict[str, Any], path: Path, cure: str) -> None:
    """Refuses a scene with other photos, split or cameras: the model would be shown from the wrong places, or be tried
    on the very photos that it was trained on.

    Args:
        known: what is kept of :func:`identity`.
        path: where that is kept.
        cure: what to do about it.
    """
    here = identity(scene)
    for key in ("photos", "train", "test"):
        if known.get(key, here[key]) != here[key]:
            changed = sorted(set(here[key]) ^ set(known[key]))
            raise UserError(
                f"The scene has other photos than {path} was trained on",
                f"{key}: {len(here[key])} now, {len(known[key])} then"
                + (f"; first of {len(changed)} that differ is {changed[0]}" if changed else ", in another order"),
                cure,
            )
    if not same_world(scene.from_input, np.array(known.get("from_input", scene.from_input))):
        raise UserError(
            f"The scene has other cameras than {path} was trained on",
            "Its photos have the same names, but other poses",
            cure,
        )


def _kind(row: dict[str, Any]) -> tuple[int, bool]:
    """What there is only one row of: a step, with and without the post-render pass."""
    return row["step"], row.get("plus", False)


def _check_kept(config: TrainConfig, begun: TrainConfig, path: Path) -> None:
    """Refuses to go on with other settings than those that a run keeps."""
    pairs = [(name, getattr(begun, name), getattr(config, name)) for name in KEPT]
    pairs += [
        (f"init.{item.name}", *(getattr(x.init, item.name) for x in (begun, config))) for item in fields(begun.init)
    ]
    for name, then, now in pairs:
        if now != then:
            option = flag(name)
            raise UserError(
                f"The run in {path} began {f'without {option}' if then is None else f'with {option} {then}'}",
                f"It cannot go on with {now}: what is trained would be shown, and scored, in another way",
                "Leave the option out, or train anew with another --output-dir",
            )


def _began(path: Path) -> bool:
    """Whether a training wrote into the folder."""
    facts = path / "scene.json"
    return facts.exists() and "began_in" in read_json(facts)
