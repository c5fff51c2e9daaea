"""Distillation: novel views, cleaned by a fixer, become training views (Difix3D, section 4.2), with a gate."""

from difix3d.distill.config import DistillConfig
from difix3d.distill.distiller import Distiller, Round
from difix3d.distill.gate import Verdict, judge

__all__ = ["DistillConfig", "Distiller", "Round", "Verdict", "judge"]
