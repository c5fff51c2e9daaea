"""Scenes: photos with known cameras, in the normalised world."""

from difix3d.scene.far import times_apart
from difix3d.scene.load import load_scene
from difix3d.scene.points import dropped_points, near_depth, visible_points
from difix3d.scene.views import Views

__all__ = ["Views", "dropped_points", "load_scene", "near_depth", "times_apart", "visible_points"]
