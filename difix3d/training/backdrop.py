"""A backdrop: Gaussians on a shell far around the scene, so that something stands behind all that is modelled.

Black behind a model is wrong twice. Where no photo sees, a view far off the photos has a black hole. And whatever is
dark can be left empty, whatever is bright has to be made of something: fog in front of the cameras does it, and from
few photos it stays. With an opaque shell behind everything neither pays. It has the photos' colours by direction,
blurred, and is trained, densified and exported as all Gaussians are; only it stays opaque.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from difix3d.gaussians import from_points
from difix3d.gaussians.init import InitConfig
from difix3d.images import to_uint8
from difix3d.scene import Views, visible_points
from difix3d.training.optim import SplatOptimizer
from difix3d.types import Gaussians, Scene

RADIUS, MARGIN, FARTHEST = 10.0, 1.5, 99
"""Of the shell: so many scene extents, and at least so many times this percentile of the sparse points' distances."""
BEYOND, SURFACES = 0.7, 0.5
"""Shares of the radius: whatever is farther from the centre belongs to the backdrop, and up to where depth along an
optical axis is that of a surface. The backdrop's own is less than its distance, at the edges of wide pictures."""
OPACITY = 0.9
"""The least that each of its Gaussians covers; they overlap."""
EVERY = 10
"""Steps after which that is seen to; resets of all opacities take place at such."""
PHOTOS, SIDE = 24, 32
"""Training photos, at most, that give its first colours, and their long side in pixels."""
SHARPNESS = 8.0
"""Of its first colours: pixels count by exp(8 cos(angle)), which fades to a half over 24 degrees."""


@dataclass(frozen=True)
class Backdrop:
    """Where the shell is.

    Attributes:
        center: of the training cameras.
        radius: in scene units.
        count: of its Gaussians at the start.
    """

    center: Float[Tensor, "3"]
    radius: float
    count: int

    @property
    def surfaces(self) -> float:
        """The depth up to which there are surfaces; what is farther is backdrop."""
        return SURFACES * self.radius

    def beyond(self, means: Float[Tensor, "N 3"]) -> Bool[Tensor, "N"]:
        """Which Gaussians belong to it."""
        return (means - self.center.to(means)).square().sum(1) > (BEYOND * self.radius) ** 2

    @torch.no_grad()
    def hold(self, splats: SplatOptimizer, step: int) -> None:
        """At the end of a step, in which opacities may have been reset: keeps it opaque."""
        if step % EVERY == 0:
            opacities = splats.params["opacities"].data
            opaque = opacities.clamp_min(math.log(OPACITY / (1 - OPACITY)))
            opacities.copy_(torch.where(self.beyond(splats.params["means"]), opaque, opacities))

    def gaussians(self, scene: Scene, sh_degree: int) -> Gaussians:
        """Its first Gaussians, evenly spread, as opaque as it stays, in the photos' colours."""
        directions = spread(self.count)
        return from_points(
            (self.center.numpy() + self.radius * directions).astype(np.float32),
            colors_around(scene, directions),
            sh_degree=sh_degree,
            opacity=OPACITY,
        )


def backdrop_of(scene: Scene, config: InitConfig) -> Backdrop | None:
    """Where a run's backdrop is, if it has one; it follows from the scene."""
    if not config.backdrop:
        return None
    center = scene.cameras.centers[scene.train].mean(0).float().cpu()
    points = scene.points[visible_points(scene, at_least=config.seen_by)]
    distances = np.linalg.norm(points - center.numpy(), axis=1)
    farthest = float(np.percentile(distances, FARTHEST)) if len(points) else 0.0
    return Backdrop(center, max(RADIUS * scene.extent, MARGIN * farthest), config.backdrop)


def spread(count: int) -> Float[np.ndarray, "N 3"]:
    """Unit vectors, evenly over the sphere: a golden spiral."""
    index = np.arange(count) + 0.5
    z, angle = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], 1)


def colors_around(scene: Scene, directions: Float[np.ndarray, "N 3"]) -> UInt8[np.ndarray, "N 3"]:
    """The colours that the training photos have in some directions, blurred; where none looks, those it looks next to.

    It is as if all stood in one place and showed what is infinitely far: the sky up there, the ground down here.
    """
    views = Views(scene)
    wanted = torch.from_numpy(directions).float()
    total = torch.zeros(len(wanted), 4)
    for index in scene.train[:: -(-len(scene.train) // PHOTOS)].tolist():
        view = views[index]
        small = view.camera.limited(SIDE)
        width, height = small.size
        counts = torch.ones_like(view.image[..., :1]) if view.mask is None else view.mask[..., None].float()
        pixels = torch.cat([view.image * counts, counts], 2).permute(2, 0, 1)
        pixels = torch.nn.functional.adaptive_avg_pool2d(pixels, (height, width)).flatten(1).T
        row, column = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        rays = torch.stack([column, row, torch.ones_like(row)], -1).reshape(-1, 3) @ torch.linalg.inv(small.K[0]).T
        rays = torch.nn.functional.normalize(rays @ small.c2w[0, :3, :3].T, dim=1)
        total += torch.exp(SHARPNESS * (wanted @ rays.T - 1)) @ pixels
    colors, weights = total[:, :3], total[:, 3:]
    return to_uint8(torch.where(weights > 0, colors / weights, 0.5))
