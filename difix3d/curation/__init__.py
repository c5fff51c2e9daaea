"""Curation: pairs of a bad render and the true photo, made from scenes (Difix3D+, section 4.1)."""

from difix3d.curation.collect import Curated, assemble, read_curated
from difix3d.curation.pictures import write_report, write_sheet
from difix3d.curation.recipe import Recipe
from difix3d.curation.strategies import STRATEGIES

__all__ = ["STRATEGIES", "Curated", "Recipe", "assemble", "read_curated", "write_report", "write_sheet"]
