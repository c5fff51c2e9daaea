"""Difix3D+: Gaussian-splatting reconstruction, repaired by a single-step diffusion model.

The names below are loaded on first use, so that ``import difix3d`` is quick and touches neither CUDA nor a model library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Cameras": "types",
    "Gaussians": "types",
    "Render": "types",
    "Scene": "types",
    "View": "types",
    "UserError": "errors",
    "load_scene": "scene",
    "rasterize": "render",
    "Trainer": "training",
    "TrainConfig": "training",
}

__all__ = sorted(_HOME)  # noqa: PLE0605

if TYPE_CHECKING:
    from difix3d.errors import UserError
    from difix3d.render import rasterize
    from difix3d.scene import load_scene
    from difix3d.training import TrainConfig, Trainer
    from difix3d.types import Cameras, Gaussians, Render, Scene, View


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'difix3d' has no attribute {name!r}")
    return getattr(import_module(f"difix3d.{_HOME[name]}"), name)
