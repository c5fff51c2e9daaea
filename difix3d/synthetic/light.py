"""Global illumination, computed once for a scene and kept in one radiance texture for each surface."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from difix3d.synthetic.shapes import Vectors
from difix3d.synthetic.world import CHUNK, World

SHADOW_RAYS, BOUNCE_RAYS = 16, 24
"""Of each texel."""

LightMaps = list[Tensor]
"""For each surface its light map [h, w, 3]: linear, what a white surface would send back."""


def bake(world: World, seed: int) -> None:
    """Lights a world: the area light with its soft shadows, then what everything throws on everything else.

    The bounce sees what the area light lit, raised by a quarter in place of the bounces that would follow.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the arrays are small: to wake a second thread for each costs more than it saves
    try:
        _Bake(world, seed).run()
    finally:
        torch.set_num_threads(threads)


class _Bake:
    """Monte-Carlo light maps: the texels of all surfaces in one batch of points."""

    def __init__(self, world: World, seed: int):
        self.world = world
        self.rng = torch.Generator().manual_seed(seed)

    def run(self) -> None:
        fine = [surface.material.light_texels for surface in self.world.surfaces]
        coarse = [((w + 1) // 2, (h + 1) // 2) for w, h in fine]  # what bounces is smooth
        direct = self._maps(self._direct, fine)
        self._store([1.25 * light for light in direct])
        bounce = self._maps(self._bounce, coarse)
        maps = zip(direct, bounce, self.world.surfaces, strict=True)
        self._store([sharp + _enlarged(soft, sharp.shape[:2], surface.wraps) for sharp, soft, surface in maps])

    def _maps(self, light: Callable[..., Vectors], sizes: list[tuple[int, int]]) -> LightMaps:
        """The light on a grid of texels on each surface, all surfaces in one batch."""
        points = []
        normals = []
        both = []
        for surface, (w, h) in zip(self.world.surfaces, sizes, strict=True):
            v, u = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
            point, normal = surface.at(u.reshape(-1), v.reshape(-1))
            if surface.material.both_sides:
                normal = torch.where(normal[:, 2:] < 0, -normal, normal)
            points.append(point + 4e-3 * normal)
            normals.append(normal)
            both.append(torch.full((w * h,), surface.material.both_sides))
        batches = zip(*(torch.cat(column).split(CHUNK) for column in (points, normals, both)), strict=True)
        lights = torch.cat([light(*batch) for batch in batches]).split([w * h for w, h in sizes])
        return [
            _smooth(values.reshape(h, w, 3), surface.wraps)
            for values, (w, h), surface in zip(lights, sizes, self.world.surfaces, strict=True)
        ]

    def _direct(self, points: Vectors, normals: Vectors, both: Tensor) -> Vectors:
        """Light of the area light over pi: stratified, another place in each stratum for each texel."""
        light, n = self.world.light, round(SHADOW_RAYS**0.5)
        total = torch.zeros(len(points))
        for k in range(n * n):
            jitter = torch.rand(2, len(points), generator=self.rng)
            place, face = light.at((k % n + jitter[0]) / n, (k // n + jitter[1]) / n)
            to = place - points
            distance2 = (to * to).sum(1)
            cosine = (to * normals).sum(1) / distance2.sqrt()
            cosine = torch.where(both, 0.65 * cosine.abs(), cosine.clamp(min=0))
            leaving = (-(to * face).sum(1) / distance2.sqrt()).clamp(min=0)
            lit = (cosine * leaving > 0).nonzero()[:, 0]
            visible = torch.zeros(len(points))
            visible[lit] = (~self.world.occluded(points[lit], to[lit])).float()
            total += visible * cosine * leaving / distance2
        area = light.edge_u.norm() * light.edge_v.norm()
        color = light.material.texture.mean((0, 1)) * light.material.emission
        return (total * area / (n * n * math.pi))[:, None] * color

    def _bounce(self, points: Vectors, normals: Vectors, _: Tensor) -> Vectors:
        """Mean radiance over the hemisphere, weighted by the cosine; the light itself is not counted twice."""
        side = torch.where(normals[:, 2:].abs() < 0.9, torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0]))
        x = F.normalize(torch.linalg.cross(side.expand_as(normals), normals), dim=1)
        y = torch.linalg.cross(normals, x)
        spin, total = torch.rand(len(points), generator=self.rng), torch.zeros(len(points), 3)
        lamp = self.world.surfaces.index(self.world.light)
        for k in range(BOUNCE_RAYS):
            share = (k + torch.rand(len(points), generator=self.rng)) / BOUNCE_RAYS
            angle = 2 * math.pi * (spin + 0.6180339887 * k)
            r = share.sqrt()[:, None]
            d = r * torch.cos(angle)[:, None] * x + r * torch.sin(angle)[:, None] * y + (1 - r * r).sqrt() * normals
            hits = self.world.trace(points, d)
            total += torch.where((hits.surface == lamp)[:, None], 0.0, self.world.radiance(hits))
        return total / BOUNCE_RAYS

    def _store(self, lights: LightMaps) -> None:
        """Writes albedo times light (or the emission) into the radiance textures."""
        for index, (surface, light) in enumerate(zip(self.world.surfaces, lights, strict=True)):
            texture, shine = surface.material.texture, surface.material.emission
            lit = shine if shine else _enlarged(light, texture.shape[:2], surface.wraps)
            self.world.store(index, texture * lit)


def _smooth(light: Float[Tensor, "h w 3"], wraps: bool) -> Float[Tensor, "h w 3"]:
    """A light map, freed of noise by a binomial filter."""
    image = light.permute(2, 0, 1)[None]
    image = F.pad(F.pad(image, (0, 0, 1, 1), "replicate"), (1, 1, 0, 0), "circular" if wraps else "replicate")
    image = (image[:, :, :-2] + 2 * image[:, :, 1:-1] + image[:, :, 2:]) / 4
    image = (image[..., :-2] + 2 * image[..., 1:-1] + image[..., 2:]) / 4
    return image[0].permute(1, 2, 0)


def _enlarged(light: Float[Tensor, "h w 3"], size: Sequence[int], wraps: bool) -> Float[Tensor, "H W 3"]:
    """A light map in another size, bilinear; ``wraps`` says that its left side meets its right.

    By hand, because torch's interpolation depends on the number of threads in its last bits.
    """
    for axis, (old, new) in enumerate(zip(light.shape[:2], size, strict=True)):
        at = (torch.arange(new) + 0.5) * (old / new) - 0.5
        low = at.floor()
        share = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        ends = [low.long(), low.long() + 1]
        ends = [end % old if wraps and axis == 1 else end.clamp(0, old - 1) for end in ends]
        light = torch.lerp(light.index_select(axis, ends[0]), light.index_select(axis, ends[1]), share)
    return light
