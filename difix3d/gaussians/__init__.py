"""Splat models: how they begin, and how they are stored."""

from difix3d.gaussians.checkpoint import load_checkpoint, load_newest, newest_checkpoint, save_checkpoint
from difix3d.gaussians.files import is_splat_file, read_splats
from difix3d.gaussians.init import from_points, random_points
from difix3d.gaussians.offset import near_origin
from difix3d.gaussians.ply import read_ply, write_ply
from difix3d.gaussians.transform import transform

__all__ = [
    "from_points",
    "is_splat_file",
    "load_checkpoint",
    "load_newest",
    "near_origin",
    "newest_checkpoint",
    "random_points",
    "read_ply",
    "read_splats",
    "save_checkpoint",
    "transform",
    "write_ply",
]
