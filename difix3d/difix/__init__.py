"""Difix: the single-step diffusion model that cleans renders, number for number the published one (docs/method.md)."""

from difix3d.difix.fixer import DifixFixer
from difix3d.difix.pipeline import PROMPT, TIMESTEP, DifixPipeline, load_difix

__all__ = ["PROMPT", "TIMESTEP", "DifixFixer", "DifixPipeline", "load_difix"]
