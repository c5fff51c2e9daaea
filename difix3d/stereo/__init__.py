"""Stereo: how far away what photos show is, by comparing them; and dense points of it."""

from difix3d.stereo.points import dense_points

__all__ = ["dense_points"]
