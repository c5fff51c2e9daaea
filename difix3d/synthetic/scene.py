"""A still life with its cameras: renders any view, and knows what a photographer's round of photos would be."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difix3d.geometry.poses import look_at
from difix3d.synthetic.layout import FRONT, compose
from difix3d.synthetic.light import bake
from difix3d.synthetic.world import World, look
from difix3d.types import Cameras, Render

SPLITS = {"train": 26, "interpolation": 5, "extrapolation": 7}
"""Kinds of cameras and how many of each: an arc on one side, more views inside it, and views far beyond its end."""

Samples = tuple[tuple[float, float], ...]

SAMPLES: Samples = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
"""Where a pixel is sampled, as offsets from its centre; the mean of the samples is its colour."""

CENTER: Samples = ((0.0, 0.0),)

ARC = (-0.75, 0.45)
"""First and last horizontal angle of the training cameras, in radians from the table's front."""


class SyntheticScene:
    """A random still life. Lengths are decimetres; z is up; the table's top is at z = 0.

    The same seed gives the same scene and pixels. Composing and lighting takes a few seconds, a view a fraction of one.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.layout = compose(np.random.default_rng([seed, 0]))
        self.world = World(self.layout.things, self.layout.light)
        bake(self.world, seed)
        view = self.cameras("interpolation", 64, 48)[2]
        linear, _ = self.world.cast(view.centers, _directions(view, CENTER))
        self._exposure = 0.17 / float(linear.mean(1).median())

    def cameras(self, split: str, width: int = 320, height: int = 240) -> Cameras:
        """Cameras of one of the :data:`SPLITS`, always the same ones for the same seed."""
        rng = np.random.default_rng([self.seed, 1 + list(SPLITS).index(split)])
        n = SPLITS[split]
        step = (ARC[1] - ARC[0]) / (SPLITS["train"] - 1)
        height_angle, distance = self.layout.elevation, self.layout.distance
        if split == "extrapolation":
            turn = FRONT + ARC[1] + step * np.linspace(2, 7, n) * 1.2
            rise = height_angle + rng.uniform(-0.12, 0.25, n)
            away = distance * rng.uniform(0.75, 1.05, n)
        else:
            inside = np.linspace(0, 1, n) if split == "train" else np.linspace(0.12, 0.88, n)
            turn = FRONT + ARC[0] + (ARC[1] - ARC[0]) * inside + step * rng.uniform(-0.2, 0.2, n)
            rise = height_angle + rng.normal(0, 0.03, n)
            away = distance * (1 + rng.normal(0, 0.02, n))
        target, roll = np.array(self.layout.target) + rng.normal(0, 0.1, (n, 3)), rng.normal(0, 0.02, n)
        back = np.stack([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)], 1)
        up = np.stack([-roll * np.sin(turn), roll * np.cos(turn), np.ones(n)], 1)
        views = [torch.from_numpy(values).float() for values in (target + away[:, None] * back, target, up)]
        c2w = torch.stack([look_at(*view) for view in zip(*views, strict=True)])
        focal = 1.15 * width
        K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float32)
        sizes = torch.tensor([width, height]).expand(n, 2)
        return Cameras(c2w, K.expand(n, 3, 3).contiguous(), sizes[:, 0], sizes[:, 1])

    def render(self, cameras: Cameras, depth: bool = True) -> Render:
        """Exact pictures: colours are the mean of 2 x 2 samples, depth is that of the pixels' centres.

        Args:
            cameras: B cameras of one size.
            depth: cast the fifth ray of each pixel that depth needs.

        Returns:
            rgb in 0..1, alpha (1 everywhere: the scene is closed) and depth, on the CPU.
        """
        width, height = cameras.size
        pictures, depths = [], []
        for index in range(len(cameras)):
            linear, _ = self.world.cast(cameras.centers[index, None], _directions(cameras[index], SAMPLES))
            pictures.append(look(linear * self._exposure).reshape(len(SAMPLES), height, width, 3).mean(0))
            if depth:
                hits = self.world.trace(cameras.centers[index, None], _directions(cameras[index], CENTER))
                depths.append(hits.t.reshape(height, width, 1))
        rgb = torch.stack(pictures)
        return Render(rgb, torch.ones_like(rgb[..., :1]), torch.stack(depths) if depth else None)

    def visible(self, camera: Cameras, points: Float[Tensor, "P 3"]) -> tuple[Float[Tensor, "P 2"], Bool[Tensor, "P"]]:
        """Pixel positions of points, and whether each lies in the picture and nothing is in front of it."""
        to = points - camera.centers
        local = to @ camera.c2w[0, :3, :3]
        pixels = (local @ camera.K[0].T)[:, :2] / local[:, 2:]
        width, height = camera.size
        inside = (local[:, 2] > 0) & (pixels > 1).all(1) & (pixels[:, 0] < width - 1) & (pixels[:, 1] < height - 1)
        return pixels, inside & (self.world.trace(camera.centers, to).t > 0.998)


def _directions(camera: Cameras, samples: Samples) -> Float[Tensor, "M 3"]:
    """Rays through the samples of each pixel, as long as one unit of depth."""
    width, height = camera.size
    K, c2w = camera.K[0], camera.c2w[0]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    offset = torch.tensor(samples)[:, :, None, None]
    x, y = (x + offset[:, 0] - K[0, 2]) / K[0, 0], (y + offset[:, 1] - K[1, 2]) / K[1, 1]
    return torch.stack([x, y, torch.ones_like(x)], 3).reshape(-1, 3) @ c2w[:3, :3].T
