"""Difix3D+: Gaussian-splatting reconstruction, repaired by a single-step diffusion model.

The names below are loaded on first use, so that ``import difix3d`` is quick and touches neither CUDA nor a
model library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from difix3d.errors import UserError
    from difix3d.render import rasterize
    from difix3d.scene import load_scene
    from difix3d.training import TrainConfig, Trainer
    from difix3d.types import Cameras, Gaussians, Render, Scene, View

__all__ = [
    "Cameras",
    "Gaussians",
    "Render",
    "Scene",
    "TrainConfig",
    "Trainer",
    "UserError",
    "View",
    "load_scene",
    "rasterize",
]

_HOME = {
    "UserError": "errors",
    "load_scene": "scene",
    "rasterize": "render",
    "TrainConfig": "training",
    "Trainer": "training",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'difix3d' has no attribute {name!r}")
    return getattr(import_module(f"difix3d.{_HOME.get(name, 'types')}"), name)
