"""Difix3D+: Gaussian-splatting reconstruction, repaired by a single-step diffusion model.

The names below are loaded on first use, so that ``import difix3d`` is quick and touches neither CUDA nor a
model library.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# OpenMP reads these when torch is loaded. Without them its threads spin for milliseconds after each operator, and a
# busy machine slows down by several times; now they sleep unless the next operator comes soon. Whoever has set one of
# them has decided. Processes that are started from here inherit them.
_WAITING = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}
if not os.environ.keys() & {"OMP_WAIT_POLICY", *_WAITING}:
    os.environ.update(_WAITING)

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
