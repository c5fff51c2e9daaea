"""Scenes: photos with known cameras, in the normalised world."""

from difix3d.scene.load import load_scene
from difix3d.scene.splits import visible_points
from difix3d.scene.views import Views

__all__ = ["Views", "load_scene", "visible_points"]
