"""What all clients look at: a model, which training may replace while they look, and the scene around it."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.background import over
from difix3d.distill.confidence import ConfidenceConfig
from difix3d.errors import UserError
from difix3d.gaussians import near_origin, read_splats, transform
from difix3d.geometry.holes import fills_holes
from difix3d.render import rasterize
from difix3d.scene import Views
from difix3d.training import Trainer
from difix3d.training.load import TrainedRun
from difix3d.types import Cameras, Degraded, Fixer, Gaussians, Render, Scene, View
from difix3d.viewer.camera_views import CameraList


class LockedFixer:
    """A fixer that several threads may use: a stream waits until the one before has ended."""

    def __init__(self, fixer: Fixer):
        self.fixer = fixer
        self.fills_holes = fills_holes(fixer)
        self._lock = threading.Lock()

    def __call__(self, degraded: Iterable[Degraded]) -> Iterator[Float[Tensor, "H W 3"]]:
        with self._lock:
            yield from self.fixer(degraded)


@dataclass(frozen=True)
class Snapshot:
    """A model at a moment; ``number`` tells the moments apart."""

    gaussians: Gaussians
    number: int
    step: int | None


class ViewerModel:
    """A scene and its latest model.

    Args:
        gaussians: the model; nobody changes these tensors any more.
        scene: with its photos; one without any for a model from elsewhere.
        folder: where paths, videos and exports go.
        settings: of :func:`difix3d.render.rasterize` (near plane, background, antialiasing).
        photo: gives a captured view by its index.
        step: of the training.
        fixer: cleans renders; ``None`` for none.
        why_no_fixer: what to tell then.
        confidence: the numbers by which photos judge fixes.
    """

    def __init__(
        self,
        gaussians: Gaussians,
        scene: Scene,
        folder: Path,
        settings: dict[str, Any],
        *,
        photo: Callable[[int], View] | None = None,
        step: int | None = None,
        fixer: Fixer | None = None,
        why_no_fixer: str = "",
        confidence: ConfidenceConfig | None = None,
    ):
        self.scene = scene
        self.folder = folder
        self.settings = settings
        self.photo = photo or Views(scene, gaussians.device).__getitem__
        self.fixer = None if fixer is None else LockedFixer(fixer)
        self.why_no_fixer = why_no_fixer
        self.confidence = confidence
        self.snapshot = Snapshot(gaussians, 0, step)
        white = settings.get("background") is not None
        self.camera_list = CameraList(scene, self.shown, folder, white=white)
        self.on_change: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def shown(self, index: int) -> View:
        """A photo as it is looked at: with alpha, over the colour that renders are over."""
        return over(self.photo(index), self.settings.get("background"))

    @property
    def device(self) -> torch.device:
        return self.snapshot.gaussians.device

    def replace(self, gaussians: Gaussians, step: int) -> None:
        """Shows another model from now on; the tensors are taken as they are, so give copies."""
        self.snapshot = Snapshot(gaussians, self.snapshot.number + 1, step)
        for callback in list(self.on_change):
            callback()

    @torch.no_grad()
    def render(self, camera: Cameras, gaussians: Gaussians | None = None, **options: Any) -> Render:
        """One camera's picture of the latest model, or of another one; clients take turns."""
        model = self.snapshot.gaussians if gaussians is None else gaussians
        with self._lock:
            return rasterize(model, camera.to(model.device), **{**self.settings, **options})


def model_of_run(run: TrainedRun, folder: Path, fixer: Fixer | None, why_no_fixer: str) -> ViewerModel:
    """A finished run, or one that was interrupted."""
    return ViewerModel(
        run.gaussians,
        run.scene,
        folder,
        run.settings,
        step=run.step,
        fixer=fixer,
        why_no_fixer=why_no_fixer,
        confidence=run.config.distill.confidence,
    )


def model_of_ply(path: Path, device: torch.device) -> ViewerModel:
    """Any splat model, as it lies in its file or, where that is too far out for 32-bit floats, near the origin; results
    go beside it.

    Raises:
        UserError: the file cannot be read.
    """
    model = read_splats(path)
    from_input = near_origin(model)
    nowhere = Cameras(torch.zeros(0, 4, 4), torch.zeros(0, 3, 3), *torch.zeros(2, 0, dtype=torch.int64))
    no_points = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros((0, 2), np.int64)
    no_photos = np.zeros(0, np.int64), np.zeros(0, np.int64)
    scene = Scene(path.stem, nowhere, (), *no_points, *no_photos, from_input, 1.0)
    why = "A splat file comes without photos, and the fixer looks at photos: add them by `--scene`"
    model = transform(model, from_input).to(device)
    near = 0.01 * min(1.0, float((model.means - model.means.median(0).values).norm(dim=1).median()))  # small units
    return ViewerModel(model, scene, path.parent, {"near": near or 0.01}, why_no_fixer=why)


def model_of_trainer(trainer: Trainer) -> ViewerModel:
    """A training in progress; show it new models by :meth:`ViewerModel.replace`. From now on both share the fixer."""
    viewer_model = ViewerModel(
        copy(trainer.gaussians),
        trainer.scene,
        trainer.folder.path,
        trainer.model.settings,
        photo=trainer.views.__getitem__,
        step=trainer.first,
        fixer=trainer.fixer,
        why_no_fixer="" if trainer.fixer else "This training runs with `--fixer none`",
        confidence=trainer.config.distill.confidence,
    )
    if viewer_model.fixer is not None:
        trainer.fixer = trainer.rounds.distiller.fixer = viewer_model.fixer
    return viewer_model


def copy(gaussians: Gaussians) -> Gaussians:
    """The model as it is now, which training no longer touches."""
    return gaussians.map(lambda tensor: tensor.detach().clone())


def bounds(gaussians: Gaussians) -> Float[Tensor, "2 3"]:
    """Lowest and highest corner of the box around all finite means, on the CPU."""
    means = gaussians.means.cpu()
    means = means[means.isfinite().all(1)]
    return torch.stack([means.amin(0), means.amax(0)]) if len(means) else torch.tensor([[-1.0] * 3, [1.0] * 3])


def result_path(folder: Path, name: str, suffix: str) -> Path:
    """A file of that name in the folder, and nowhere else.

    Raises:
        UserError: the name has other characters than letters, digits, ``-``, ``_`` and ``.``, or begins with a dot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name):
        raise UserError(
            f"A file cannot be called {name[:100]!r}", "Names have 1 to 100 letters, digits, - and _", "Choose another"
        )
    return folder / f"{name.removesuffix(suffix)}{suffix}"
