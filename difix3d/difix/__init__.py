"""Difix: the single-step diffusion model that cleans renders, number for number the published one (docs/method.md).

The names below are loaded on first use: diffusers and transformers take seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from difix3d.difix.operators import define_missing

if TYPE_CHECKING:
    from difix3d.difix.fixer import DifixFixer
    from difix3d.difix.pipeline import PROMPT, TIMESTEP, DifixPipeline, load_difix

__all__ = ["PROMPT", "TIMESTEP", "DifixFixer", "DifixPipeline", "load_difix"]

define_missing()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'difix3d.difix' has no attribute {name!r}")
    return getattr(import_module("difix3d.difix.fixer" if name == "DifixFixer" else "difix3d.difix.pipeline"), name)
