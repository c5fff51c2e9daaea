"""A trained run, to be looked at: from its folder to a model and the scene it shows."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from difix3d.devices import choose_device
from difix3d.errors import UserError
from difix3d.files import read_json
from difix3d.gaussians import load_checkpoint, load_newest, newest_checkpoint, read_ply, transform
from difix3d.gaussians.nerfstudio import CONFIG
from difix3d.render import rasterize
from difix3d.runfiles import changed
from difix3d.scene.load import places
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import merge, read_own
from difix3d.training.data import others_near, scene_of
from difix3d.training.run import check_scene, check_trained_on, gaussians_in
from difix3d.types import Cameras, Gaussians, Render, Scene


@dataclass(frozen=True)
class TrainedRun:
    """A model as it was after a step, with what is needed to render it as in training.

    Attributes:
        near: depth nearer than which nothing is drawn, in scene units.
    """

    config: TrainConfig
    scene: Scene
    gaussians: Gaussians
    step: int
    near: float

    @cached_property
    def settings(self) -> dict[str, Any]:
        """How it is rendered, for :func:`difix3d.render.rasterize`."""
        return self.config.render_settings(self.scene, self.near, self.gaussians.device)

    def render(self, cameras: Cameras, **options: Any) -> Render:
        """Renders cameras of one size as the run is configured, differentiable in the cameras.

        ``options`` go to :func:`difix3d.render.rasterize`.
        """
        return rasterize(self.gaussians, cameras.to(self.gaussians.device), **self.settings | options)


def load_run(
    run: Path,
    *,
    step: int | None = None,
    scene: str | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
) -> TrainedRun:
    """Loads a run from its folder.

    Args:
        run: the folder that training wrote (``config.yaml``, ``scene.json``, ``checkpoints/``).
        step: of the checkpoint; the newest by default.
        scene: where the scene lies now, if it has moved since.
        data_dir: where downloaded and generated scenes lie now, if that has moved.
        device: ``auto``, ``cuda`` or ``cpu``.

    Raises:
        UserError: there is no such run or checkpoint, or the scene is not the one that it was trained on.
    """
    place, config = choose_device(device), _config(run, scene, data_dir)
    path = find_checkpoint(run, step)
    facts = _facts(run / "scene.json")
    try:
        loaded = scene_of(replace(config, scene=_place(config, facts), model=_model(config, facts)))
    except UserError as error:
        raise UserError(
            f"The scene of {run} cannot be loaded: {error}",
            cure="If it has moved, give its new place by --scene FOLDER (or --data-dir FOLDER)",
        ) from error
    check_scene(loaded, facts, run, "Give the scene as it was by --scene FOLDER, or train again")
    cure = f"{run / 'config.yaml'} was changed since: resume with the --scene, --split and --seed that it began with"
    found = load_newest(path.parent) if step is None else None
    path, (at, tensors, extra) = found or (path, load_checkpoint(path))
    check_trained_on(loaded, extra, path, cure)
    return TrainedRun(config, loaded, gaussians_in(tensors).to(place), at, float(facts["near"]))


def as_exported(run: TrainedRun, folder: Path) -> TrainedRun | None:
    """The run as other viewers show it: the model is read from its ``point_cloud.ply``, the near plane is theirs.

    Returns:
        ``None`` if the folder has no such file yet.

    Raises:
        UserError: the file is damaged, or of another step.
    """
    path = folder / "point_cloud.ply"
    if not path.is_file():
        return None
    model = transform(read_ply(path).to(run.gaussians.device), run.scene.from_input)
    if len(model) != len(run.gaussians) or not torch.allclose(model.opacities, run.gaussians.opacities):
        raise UserError(f"{path} is of another step than the checkpoint of step {run.step:,}")
    return replace(run, gaussians=model, near=others_near(run.scene))


def find_checkpoint(run: Path, step: int | None = None) -> Path:
    """The newest checkpoint of a run, or that of a step.

    Raises:
        UserError: there is none; names those that there are.
    """
    folder = run / "checkpoints"
    path = newest_checkpoint(folder) if step is None else folder / f"step_{step:07d}.safetensors"
    if path is not None and (step is None or path.is_file()):
        return path
    present = sorted(file.stem for file in folder.glob("step_*.safetensors"))
    if present:
        raise UserError(
            f"{run} has no checkpoint of step {step}",
            f"There are {', '.join(present)}",
            "Choose one of these, or leave out --step for the newest",
        )
    raise UserError(
        f"There is no checkpoint in {folder}",
        "The first is saved after --save-steps, --autosave-minutes, or at the end",
        f"Train on: difix3d train --resume --output-dir {run}",
    )


def _config(run: Path, scene: str | None, data_dir: Path | None) -> TrainConfig:
    path = run / "config.yaml"
    if not path.is_file():
        fact = f"There is no run in {run}: " + (f"it has no {path.name}" if run.is_dir() else "no such folder")
        cure = f"Pass {run / CONFIG}, as it is a run of nerfstudio" if (run / CONFIG).is_file() else ""
        raise UserError(
            fact, "A run is the folder that training wrote, like outputs/garden/2025-01-31_120000-123", cure
        )
    config = merge(TrainConfig(), read_own(run), source=str(path))
    return replace(config, output_dir=run, scene=scene or config.scene, data_dir=data_dir or config.data_dir)


def _place(config: TrainConfig, facts: dict[str, Any]) -> str:
    """The scene as the run names it or, where that is not here, its place seen from where the training began."""
    here = places(config.scene, config.data_dir)
    if "began_in" in facts and not any(place.exists() for place in here):
        then = (Path(facts["began_in"]) / place for place in here)
        return next((str(place) for place in then if place.exists()), config.scene)
    return config.scene


def _model(config: TrainConfig, facts: dict[str, Any]) -> str | None:
    """The cameras as the run names them or, if it did so from where the training began, their place seen from there."""
    then = Path(facts.get("began_in", "")) / (config.model or "")
    return str(then) if config.model and then.exists() else config.model


def _facts(path: Path) -> dict[str, Any]:
    facts, cure = read_json(path), "Resume the training for a step, which writes it again"
    lost = sorted({"photos", "train", "test", "from_input", "near"} - facts.keys())
    if lost:
        raise UserError(f"{path} has no {', '.join(lost)}", "It was written by another version of difix3d", cure)
    if changed(path):
        raise UserError(f"{path} is damaged", "It is not what training wrote", cure)
    return facts
