"""Captures to curate, and what lies in a folder of pairs."""

import json

import numpy as np
from plyfile import PlyData, PlyElement
from small_run import write_scene as write_photos

from difix3d.files import OWN


def write_scene(folder, scene):
    """With sparse points: a hundred thousand random ones would take most of the tests' time."""
    write_photos(folder, scene)
    kinds = [(name, "f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    rows = [(*point, *color) for point, color in zip(scene.points.tolist(), scene.colors.tolist(), strict=True)]
    PlyData([PlyElement.describe(np.array(rows, kinds), "vertex")]).write(folder / "points.ply")
    path = folder / "transforms.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ply_file_path": "points.ply"}))
    return folder


def files(folder):
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != OWN)
    return {path.relative_to(folder): path.read_bytes() for path in found}
