"""What a training begins from, and the order in which it sees the photos."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from difix3d.errors import UserError
from difix3d.gaussians import from_points, random_points
from difix3d.scene import visible_points
from difix3d.training.config import TrainConfig
from difix3d.types import Cameras, Gaussians, Scene


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a GPU; asking for CUDA without one is an error."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "There is no CUDA device that torch can use",
            f"torch {torch.__version__} is installed",
            "Install a CUDA build of torch (pytorch.org), or leave out --device to train on the CPU",
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def render_settings(config: TrainConfig, near: float, device: torch.device) -> dict[str, Any]:
    """How the models of a run are rendered once trained, for :func:`difix3d.render.rasterize`.

    A random background is black then.
    """
    background = torch.ones(3, device=device) if config.background == "white" else None
    return {"near": near, "antialiased": config.antialiased, "packed": config.packed, "background": background}


def initial_gaussians(scene: Scene, config: TrainConfig) -> Gaussians:
    """Gaussians on the sparse points that enough training photos see, or on random points where there are none."""
    keep = visible_points(scene, at_least=config.init.seen_by)
    points, colors = scene.points[keep], scene.colors[keep]
    if len(points) == 0:
        points, colors = random_points(config.init.points, 3 * scene.extent, config.seed)
    return from_points(
        points.astype(np.float32),
        colors,
        sh_degree=config.sh_degree,
        opacity=config.init.opacity,
        scale=config.init.scale,
    )


def batches(scene: Scene, size: int, seed: int, start: int) -> Iterator[list[int]]:
    """Endless batches of training photos, each of one image size; every photo comes once an epoch.

    The batch of a step follows from the seed and the step alone, so that a resumed run needs no history.
    """
    sizes = torch.stack([scene.cameras.width, scene.cameras.height], 1).cpu().numpy()[scene.train]
    groups = [scene.train[(sizes == value).all(1)] for value in np.unique(sizes, axis=0)]
    per_epoch = sum(-(-len(group) // size) for group in groups)
    epoch, skip = divmod(start, per_epoch)
    while True:
        rng = np.random.default_rng((seed, epoch))
        chunks = [
            shuffled[i : i + size].tolist()
            for shuffled in map(rng.permutation, groups)
            for i in range(0, len(shuffled), size)
        ]
        for position in rng.permutation(per_epoch)[skip:]:
            yield chunks[position]
        epoch, skip = epoch + 1, 0


def stack(cameras: list[Cameras]) -> Cameras:
    """Single cameras as one batch."""
    return Cameras(
        *(torch.cat([getattr(camera, name) for camera in cameras]) for name in ("c2w", "K", "width", "height"))
    )
