"""Ray casting: nearest hits, and the light that comes back from them."""

import ctypes
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from difix3d import native
from difix3d.synthetic.shapes import Lathe, Numbers, Origins, Quad, Quads, Surface, Vectors, bound

CHUNK = 1 << 13
"""Rays that torch follows at once: few enough for the cache, and for torch not to split them among threads."""


@dataclass
class Hits:
    """Nearest hits of M rays: ray parameter (infinite where nothing is met), index of the surface, (u, v) on it."""

    t: Numbers
    surface: Int[Tensor, "M"]
    u: Numbers
    v: Numbers


@dataclass
class _Part:
    """Surfaces that are met together, the index of the first of them, and a sphere around them."""

    shape: Quads | Lathe
    first: int
    center: Float[Tensor, "3"]
    radius: float


class World:
    """Surfaces and the light that leaves them.

    The light is that of :mod:`difix3d.synthetic.light`: one radiance texture for each surface, black before.
    Mirror reflections are added when a picture is taken.
    """

    def __init__(self, things: list[list[Surface]], light: Quad):
        self.surfaces: list[Surface] = []
        self._parts: list[_Part] = []
        for thing in things:
            quads = [surface for surface in thing if isinstance(surface, Quad)]
            lathes = [surface for surface in thing if isinstance(surface, Lathe)]
            if quads:
                self._parts.append(_Part(Quads(quads), len(self.surfaces), *bound(quads)))
            self.surfaces += quads
            for lathe in lathes:
                self._parts.append(_Part(lathe, len(self.surfaces), *bound([lathe])))
                self.surfaces.append(lathe)
        self.light = light
        data = [part.shape.numbers() for part in self._parts]
        starts = np.cumsum([0, *map(len, data)]).tolist()
        self._data = torch.cat(data)
        self._spheres = torch.stack([torch.cat([part.center, torch.tensor([part.radius])]) for part in self._parts])
        rows = [(isinstance(part.shape, Lathe), part.first, part.shape.count) for part in self._parts]
        self._table = torch.tensor([(*row, at) for row, at in zip(rows, starts[:-1], strict=True)], dtype=torch.int64)
        sizes = torch.tensor([surface.material.texture.shape[:2] for surface in self.surfaces])
        start = F.pad(sizes.prod(1).cumsum(0), (1, 0))[:-1]
        wraps = torch.tensor([surface.wraps for surface in self.surfaces])
        self._layout = torch.stack([start, sizes[:, 1], sizes[:, 0], wraps], 1)
        self._reflect = torch.tensor([surface.material.reflect for surface in self.surfaces])
        self._radiance = torch.zeros(int(sizes.prod(1).sum()), 3)

    def trace(self, o: Origins, d: Vectors) -> Hits:
        """The nearest surface along each ray ``o + t d``; ``o`` may be one common point [1, 3]."""
        library = native.load()
        return self._trace(o, d) if library is None else self._trace_natively(library, o, d)

    def occluded(self, o: Origins, d: Vectors) -> Bool[Tensor, "M"]:
        """Whether something lies on the way from ``o`` to ``o + d``."""
        library = native.load()
        hits = self._trace(o, d) if library is None else self._trace_natively(library, o, d, any_before=0.999)
        return hits.t < 0.999

    def cast(self, o: Origins, d: Vectors) -> tuple[Vectors, Numbers]:
        """Linear radiance that comes back along each ray, and the ray parameter of where it comes from."""
        library = native.load()
        if library is None:
            hits = [(rays, self._trace(o, rays)) for rays in d.split(CHUNK)]
            return torch.cat([self.shade(o, *pair) for pair in hits]), torch.cat([hit.t for _, hit in hits])
        n = len(d)
        color, t = torch.empty(n, 3), torch.empty(n)
        looks = self._radiance, self._layout, self._reflect
        native.call(library.ray_cast, *self._rays(o, d), *looks, _threads(n), color, t)
        return color, t

    def _trace_natively(self, library: ctypes.CDLL, o: Origins, d: Vectors, any_before: float = 0.0) -> Hits:
        """Many times faster; the tests compare it with its twin below."""
        n = len(d)
        t = torch.empty(n)
        surface = torch.empty(n, dtype=torch.int64)
        u = torch.empty(n)
        v = torch.empty(n)
        native.call(library.ray_trace, *self._rays(o, d), any_before, _threads(n), t, surface, u, v)
        return Hits(torch.where(t < 1e29, t, math.inf), surface, u, v)

    def _rays(self, o: Origins, d: Vectors) -> tuple:
        """What all native functions are told first: the rays and the shapes."""
        shared_origin = len(o) == 1 and len(d) != 1
        shapes = self._spheres, self._table, len(self._table), self._data
        return o.contiguous(), d.contiguous(), len(d), int(shared_origin), *shapes

    def _trace(self, o: Origins, d: Vectors) -> Hits:
        none = torch.zeros(len(d))
        hits = Hits(torch.full((len(d),), math.inf), torch.zeros(len(d), dtype=torch.int64), none, none.clone())
        for part, near in zip(self._parts, self._near(o, d), strict=True):
            if not len(near):
                continue
            t, u, v, index = part.shape.hit(o if len(o) == 1 else o[near], d[near])
            closer = (t < hits.t[near]).nonzero()[:, 0]
            near = near[closer]
            hits.t[near] = t[closer]
            hits.u[near] = u[closer]
            hits.v[near] = v[closer]
            hits.surface[near] = part.first + index[closer]
        return hits

    def _near(self, o: Origins, d: Vectors) -> list[Int[Tensor, "K"]]:
        """For each part, the rays (forward half-lines) that touch the sphere around it."""
        centers = torch.stack([part.center for part in self._parts])
        od = (o * d).sum(1)
        dd = (d * d).sum(1)
        oo = (o * o).sum(1)
        along = centers @ d.T - od
        far2 = oo - 2 * (centers @ o.T) + (centers * centers).sum(1, keepdim=True)
        reach2 = torch.tensor([[part.radius**2] for part in self._parts])
        touches = (far2 - along * along / dd < reach2) & ((along > 0) | (far2 < reach2))
        return [row.nonzero()[:, 0] for row in touches]

    def shade(self, o: Origins, d: Vectors, hits: Hits) -> Vectors:
        """Linear radiance that comes back along the rays."""
        color = self.radiance(hits)
        shiny = (self._reflect[:, 0] > 0)[hits.surface].nonzero()[:, 0]
        if len(shiny):
            hit = Hits(hits.t[shiny], hits.surface[shiny], hits.u[shiny], hits.v[shiny])
            incoming = F.normalize(d[shiny], dim=1)
            normal = self._normals(hit)
            cosine = (incoming * normal).sum(1, keepdim=True)
            normal = torch.where(cosine > 0, -normal, normal)
            outgoing = incoming + 2 * cosine.abs() * normal
            point = (o if len(o) == 1 else o[shiny]) + hit.t[:, None] * d[shiny] + 2e-3 * normal
            f0 = self._reflect[hit.surface]
            fresnel = f0 + (1 - f0) * (1 - cosine.abs()).clamp(0, 1) ** 5
            color[shiny] += fresnel * self.radiance(self.trace(point, outgoing))
        return color

    def radiance(self, hits: Hits) -> Vectors:
        """Diffuse or emitted radiance at the hits, bilinear between texels."""
        start, width, height, wraps = self._layout[hits.surface].T
        x, y = hits.u * width - 0.5, hits.v * height - 0.5
        x0, y0 = x.floor(), y.floor()
        fx, fy = (x - x0)[:, None], (y - y0)[:, None]
        x0, y0 = x0.long(), y0.long()
        columns = [torch.where(wraps > 0, c % width, torch.minimum(c.clamp(min=0), width - 1)) for c in (x0, x0 + 1)]
        rows = [start + torch.minimum(r.clamp(min=0), height - 1) * width for r in (y0, y0 + 1)]
        (a, b), (c, e) = ([self._radiance.index_select(0, row + column) for column in columns] for row in rows)
        return torch.lerp(torch.lerp(a, b, fx), torch.lerp(c, e, fx), fy)

    def store(self, index: int, radiance: Float[Tensor, "h w 3"]) -> None:
        """Sets the radiance texture of one surface."""
        start = int(self._layout[index, 0])
        self._radiance[start : start + radiance.shape[0] * radiance.shape[1]] = radiance.reshape(-1, 3)

    def _normals(self, hits: Hits) -> Vectors:
        normal = torch.zeros(len(hits.t), 3)
        for index in hits.surface.unique().tolist():
            here = (hits.surface == index).nonzero()[:, 0]
            normal[here] = self.surfaces[index].at(hits.u[here], hits.v[here])[1]
        return normal


def _threads(rays: int) -> int:
    """Few rays are done before a second thread has woken up."""
    return torch.get_num_threads() if rays > CHUNK else 1


def look(linear: Vectors) -> Vectors:
    """Linear light to the values of a photo in 0..1: a film's S-curve, then the gamma of sRGB."""
    x = linear.clamp(min=0)
    film = x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)
    return film.clamp(0, 1) ** (1 / 2.2)
