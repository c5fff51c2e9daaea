"""A scene for measurements on a GPU, drawn in seconds at any size: textured spheres in a textured room."""

import math
from pathlib import Path

import numpy as np
import torch

from difix3d.gaussians import from_points
from difix3d.geometry.poses import look_at
from difix3d.images import write_image
from difix3d.render import rasterize
from difix3d.types import Cameras, Photo, Scene


def drawn_scene(folder: Path, device: torch.device, *, width: int, height: int, photos: int, gaussians: int) -> Scene:
    """Photos of ``gaussians`` opaque Gaussians on surfaces, from cameras on an arc; every eighth is held out."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(gaussians, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    which = rng.integers(0, 6, gaussians)
    radius = np.where(which < 3, 0.5, 3.0)  # three spheres, and one around all
    middle = np.array([[-0.8, 0, 0], [0.2, 0.7, 0], [0.7, -0.5, 0.2], [0, 0, 0], [0, 0, 0], [0, 0, 0]])[which]
    points = (middle + radius[:, None] * directions).astype(np.float32)
    waves = rng.normal(size=(3, 3)) * 6
    colors = (127.5 + 127 * np.sin(points @ waves + which[:, None])).astype(np.uint8)
    truth = from_points(points, colors, opacity=0.95).to(device)

    angle = torch.linspace(-1.5, 1.5, photos).double()
    positions = torch.stack([2 * angle.cos(), 2 * angle.sin(), 0.4 + 0.2 * (3 * angle).sin()], 1)
    c2w = look_at(positions, torch.zeros(3).double(), torch.tensor([0, 0, 1.0]).double()).float()
    focal = width / 2 / math.tan(0.6)
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]).repeat(photos, 1, 1)
    cameras = Cameras(c2w, K, torch.full((photos,), width), torch.full((photos,), height))

    found = []
    for index in range(photos):
        path = folder / f"{index:03d}.png"
        with torch.no_grad():
            write_image(path, rasterize(truth, cameras[index].to(device)).rgb[0].cpu())
        found.append(Photo(path.name, path))
    indices = np.arange(photos)
    return Scene(
        name="drawn",
        cameras=cameras,
        photos=tuple(found),
        points=points[: gaussians // 10],
        colors=colors[: gaussians // 10],
        observations=np.zeros((0, 2), np.int64),
        train=indices[indices % 8 != 4],
        test=indices[indices % 8 == 4],
        from_input=np.eye(4),
        extent=1.1 * float((positions - positions.mean(0)).norm(dim=1).max()),
    )
