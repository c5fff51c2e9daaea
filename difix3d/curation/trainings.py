"""Models of one scene, trained as far as a strategy asks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from difix3d.curation.recipe import Recipe
from difix3d.devices import Device, choose_device
from difix3d.scene import Views
from difix3d.training import TrainConfig, Trainer
from difix3d.types import Cameras, Gaussians, Render, RenderFn, Scene

OnProgress = Callable[[str, int, int], None]
"""Is told what is being done, and how much of how much."""


@dataclass(frozen=True)
class Model:
    """A model that is bad on purpose, and the photos that it is to be compared with.

    Attributes:
        render: one camera in, a render out.
        cameras: those that it was trained on.
        captured: photos (indices into the scene) of what is in the model; the references are of them.
        render_views: photos (indices into the scene) whose cameras are to be rendered.
        step: of its training.
        detail: what was done to it, in a few words.
    """

    render: RenderFn
    cameras: Cameras
    captured: list[int]
    render_views: list[int]
    step: int
    detail: str


class PartialTraining:
    """A training that goes on as far as it is asked to, and no further; snapshots have to be asked for in order.

    It saves and evaluates nothing: the trainer's own loop would, and nobody looks at it.

    Args:
        config: of the training; its ``output_dir`` gets a few small files.
        scene: its ``train`` are trained on.
        on_progress: hears of the progress.
    """

    def __init__(self, config: TrainConfig, scene: Scene, on_progress: OnProgress):
        self.trainer = Trainer(config, scene)
        self.cameras = scene.cameras[scene.train]
        self.near = self.trainer.near
        self._on_progress = on_progress
        self._done = 0

    def advance_to(self, step: int) -> Gaussians:
        """The model after a step."""
        if step < self._done:
            raise ValueError(f"step {step} is over: the training is at {self._done}")
        photos = self.trainer.photos(self.trainer.scene, self._done)
        try:
            for number in range(self._done, step):
                self.trainer.model.step(next(photos), number)
                self._on_progress("training", number + 1, step)
        finally:
            photos.close()
        self._done = step
        return self.trainer.gaussians.map(lambda tensor: tensor.detach().clone())

    def render(self, gaussians: Gaussians) -> RenderFn:
        """Renders Gaussians as this training does."""
        return partial(_render, self.trainer, gaussians)


@torch.no_grad()
def _render(trainer: Trainer, gaussians: Gaussians, camera: Cameras) -> Render:
    return trainer.model.render(camera.to(trainer.device), gaussians)


class SceneTrainings:
    """A scene and its trainings; two strategies that ask for the same photos share one.

    Args:
        scene: only its ``train`` photos are used.
        recipe: settings.
        device: ``auto``, ``cuda`` or ``cpu``.
        work: folder for what is thrown away afterwards.
        on_progress: hears of the progress.
    """

    def __init__(self, scene: Scene, recipe: Recipe, device: Device, work: Path, on_progress: OnProgress):
        self.scene = scene
        self.recipe = recipe
        self.work = work
        self.on_progress = on_progress
        self.config = recipe.training(device)
        self.steps = self.config.max_steps
        self.views = Views(scene, choose_device(device), memory_limit_bytes=1 << 30)
        self.photos: list[int] = scene.train.tolist()
        self._trainings: dict[tuple[int, ...], PartialTraining] = {}

    def training_on(self, photos: Sequence[int]) -> PartialTraining:
        """The training on some of the scene's photos; the others are what it will be asked to show."""
        key = tuple(sorted(photos))
        if key not in self._trainings:
            others = sorted(set(self.photos) - set(key))
            chosen = replace(self.scene, train=np.array(key, np.int64), test=np.array(others, np.int64))
            self._trainings[key] = self.begin(chosen)
        return self._trainings[key]

    def begin(self, scene: Scene) -> PartialTraining:
        """A training of its own, on any scene."""
        folder = self.work / f"run_{len(list(self.work.glob('run_*')))}"
        return PartialTraining(replace(self.config, output_dir=folder), scene, self.on_progress)

    def sample(self, photos: Sequence[int], rng: np.random.Generator, models: int = 1) -> list[int]:
        """Photos to show by one of so many models: all, or as many as the recipe allows, drawn at random."""
        limit = max(1, self.recipe.max_pairs // models) if self.recipe.max_pairs else len(photos)
        return sorted(rng.choice(np.array(photos), min(limit, len(photos)), replace=False).tolist())
