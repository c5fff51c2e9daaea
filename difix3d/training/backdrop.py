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
from difix3d.geometry.warp import unproject
from difix3d.images import to_uint8
from difix3d.scene import Views, visible_points
from difix3d.training.optim import SplatOptimizer
from difix3d.types import Gaussians, Scene, View

RADIUS, MARGIN, FARTHEST = 10.0, 1.5, 99
"""Of the shell: so many scene extents, and at least so many times this percentile of the sparse points' distances."""
BEHIND_SPLATS = 1000.0
"""Its radius around what a splat file gave, in scene extents: behind a sky of its own."""
BEYOND, SURFACES = 0.7, 0.5
"""Shares of the radius: whatever is farther from the centre belongs to the backdrop, and up to where depth along an
optical axis is that of a surface. The backdrop's own is less than its distance, at the edges of wide pictures."""
OPACITY = 0.9
"""The least that each of its Gaussians covers; they overlap."""
EVERY = 10
"""Steps after which that is seen to; resets of all opacities take place at such."""
PHOTOS, SIDE = 24, 32
"""Training photos, at most, that give its first colours, and their long side in pixels."""
BLOCK = 250
"""Of its Gaussians are given colours at a time."""
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
        return (means - self.center).square().sum(1) > (BEYOND * self.radius) ** 2

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
            (self.center.cpu().numpy() + self.radius * directions).astype(np.float32),
            colors_around(scene, directions),
            sh_degree=sh_degree,
            opacity=OPACITY,
        )


def backdrop_of(scene: Scene, config: InitConfig, device: torch.device | str = "cpu") -> Backdrop | None:
    """Where a run's backdrop is, if it has one; it follows from the scene. ``device``: of the model."""
    if not config.backdrop:
        return None
    center = scene.cameras.centers[scene.train].mean(0).float().cpu()
    if config.ply is not None:
        return Backdrop(center.to(device), BEHIND_SPLATS * scene.extent, config.backdrop)
    points = scene.points[visible_points(scene, at_least=config.seen_by)]
    distances = np.linalg.norm(points - center.numpy(), axis=1)
    farthest = float(np.percentile(distances, FARTHEST)) if len(points) else 0.0
    return Backdrop(center.to(device), max(RADIUS * scene.extent, MARGIN * farthest), config.backdrop)


def spread(count: int) -> Float[np.ndarray, "N 3"]:
    """Unit vectors, evenly over the sphere: a golden spiral."""
    index = np.arange(count) + 0.5
    z, angle = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], 1)


def colors_around(scene: Scene, directions: Float[np.ndarray, "N 3"]) -> UInt8[np.ndarray, "N 3"]:
    """The colours that the training photos have in some directions, each the median of all pixels, which count less
    the more they look aside: of an object on black, black.

    It is as if all stood in one place and showed what is infinitely far: the sky up there, the ground down here.
    """
    views = Views(scene)
    rays, colors = zip(*(_pixels(views[index]) for index in scene.some_train(PHOTOS)), strict=True)
    seen, pixels = torch.cat(rays), torch.cat(colors)
    if len(seen) == 0:
        return np.full((len(directions), 3), 128, np.uint8)
    found = []
    for wanted in torch.from_numpy(directions).float().split(BLOCK):
        weights = torch.exp(SHARPNESS * (wanted @ seen.T - 1))
        found.append(torch.stack([_median(weights, channel) for channel in pixels.T], 1))
    return to_uint8(torch.cat(found))


def _pixels(view: View) -> tuple[Float[Tensor, "P 3"], Float[Tensor, "P 3"]]:
    """Where the pixels of a photo, made small, look, in the world, and their colours."""
    small = view.camera.limited(SIDE)
    width, height = small.size
    rays = unproject(torch.ones(height, width), small).flatten(0, 1) - small.centers
    counts = torch.ones_like(view.image[..., 0]) if view.mask is None else view.mask.float()
    stack = torch.cat([view.image.permute(2, 0, 1), counts[None]])
    stack = torch.nn.functional.adaptive_avg_pool2d(stack, (height, width)).flatten(1).T
    whole = stack[:, 3] > 0.99
    return torch.nn.functional.normalize(rays[whole], dim=1), stack[whole, :3]


def _median(weights: Float[Tensor, "N P"], values: Float[Tensor, "P"]) -> Float[Tensor, "N"]:
    """The value that half of the weight lies below, for each row of weights."""
    order = values.argsort()
    below = weights[:, order].cumsum(1)
    index = torch.searchsorted(below, below[:, -1:] / 2)[:, 0].clamp_max(len(values) - 1)
    return values[order][index]
