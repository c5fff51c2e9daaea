"""The two surfaces that everything in a synthetic scene is made of, each met by a ray in closed form.

A :class:`Quad` is a parallelogram, or a leaf cut out of one; a :class:`Lathe` is a profile turned about an axis, a
stack of cone frusta. Both carry coordinates (u, v) in 0..1 under which their texture is stored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

NEAR = 1e-4
"""Rays start this far (in multiples of their direction) from their origin."""

Vectors = Float[Tensor, "M 3"]
Origins = Float[Tensor, "O 3"]
"""One for each ray, or a single one that all share."""

Numbers = Float[Tensor, "M"]
Hit = tuple[Numbers, Numbers, Numbers, Int[Tensor, "M"]]
"""Ray parameter (infinite where nothing is met), u, v, and which of several surfaces it is."""


def vec(*numbers: int | float) -> Float[Tensor, "n"]:
    """A float32 vector, of whatever kind of numbers."""
    return torch.tensor([float(number) for number in numbers])


@dataclass
class Material:
    """What a surface looks like.

    Attributes:
        texture: linear RGB in 0..1: the diffuse albedo, or the radiance where ``emission`` is not 0.
        reflect: mirror reflectance at normal incidence (Schlick's approximation to Fresnel), for each colour.
        emission: factor of the texture for surfaces that shine and are not lit; else 0.
        both_sides: lit from both sides, as a leaf is.
        light_texels: size of the light map along u and v.
    """

    texture: Float[Tensor, "h w 3"]
    reflect: tuple[float, float, float] = (0.0, 0.0, 0.0)
    emission: float = 0.0
    both_sides: bool = False
    light_texels: tuple[int, int] = (20, 20)


@dataclass
class Quad:
    """The parallelogram ``corner + u edge_u + v edge_v``; its front is where ``edge_u x edge_v`` points to."""

    corner: Float[Tensor, "3"]
    edge_u: Float[Tensor, "3"]
    edge_v: Float[Tensor, "3"]
    material: Material
    leaf: bool = False
    wraps = False
    face: Float[Tensor, "3"] = field(init=False)

    def __post_init__(self) -> None:
        self.face = torch.nn.functional.normalize(torch.linalg.cross(self.edge_u, self.edge_v), dim=0)

    def bound(self) -> tuple[Float[Tensor, "3"], float]:
        """Centre and radius of a sphere around the surface."""
        half = torch.stack([self.edge_u + self.edge_v, self.edge_u - self.edge_v]) / 2
        return self.corner + half[0], float(half.norm(dim=1).max())

    def at(self, u: Numbers, v: Numbers) -> tuple[Vectors, Vectors]:
        """Points and unit normals."""
        points = self.corner + u[:, None] * self.edge_u + v[:, None] * self.edge_v
        return points, self.face.expand_as(points)


class Quads:
    """Many quads that are met at once."""

    def __init__(self, quads: list[Quad]):
        dual = [
            torch.linalg.pinv(torch.stack([q.edge_u, q.edge_v]).double()).float() for q in quads
        ]  # [3, 2]: to (u, v)
        self._planes = torch.stack([torch.cat([q.face[:, None], m], 1) for q, m in zip(quads, dual, strict=True)], 2)
        corners = torch.stack([q.corner for q in quads])
        self._offset = torch.einsum("qc,ckq->kq", corners, self._planes)[..., None]
        self._leaf = torch.tensor([q.leaf for q in quads])[:, None]
        self._planes = self._planes.reshape(3, -1).T.contiguous()
        self.count = len(quads)

    def numbers(self) -> Float[Tensor, "n"]:
        """What ``ray.cpp`` reads."""
        planes = torch.cat(
            [self._planes.T.reshape(3, 3, -1), self._offset[None, :, :, 0]]
        )  # xyz and offset; of n, u, v
        return torch.cat([planes.transpose(0, 1).flatten(), self._leaf[:, 0].float()])

    def hit(self, o: Origins, d: Vectors) -> Hit:
        """The nearest quad met by the rays ``o + t d``; ``o`` may be one common point."""
        start = (self._planes @ o.T).reshape(3, -1, len(o)) - self._offset  # height over the plane, u, v of each quad
        change = (self._planes @ d.T).reshape(3, -1, len(d))
        t = -start[0] / change[0]
        u, v = start[1] + t * change[1], start[2] + t * change[2]
        inside = (t > NEAR) & (torch.minimum(u * (1 - u), v * (1 - v)) >= 0)
        if bool(self._leaf.any()):
            inside &= ((u - 0.5).abs() < 0.5 * leaf_width(v)) | ~self._leaf
        t, index = torch.where(inside, t, math.inf).min(0)
        return t, u.gather(0, index[None])[0], v.gather(0, index[None])[0], index


def leaf_width(v: Tensor) -> Tensor:
    """Width of a leaf, 0..1, at the share ``v`` of its length."""
    return 2.9 * v.clamp(0, 1).sqrt() * (1 - v).clamp(0, 1) * (1.05 - 0.3 * v)


@dataclass
class Lathe:
    """The profile ``(radius, height)`` turned about the z axis of a frame; u goes round, v along the profile.

    Normals are those of the smooth profile, to the right of its direction (outwards when it goes up). Steps of the
    profile must not be flat: every segment changes height.
    """

    origin: Float[Tensor, "3"]
    profile: Float[Tensor, "P 2"]
    material: Material
    frame: Float[Tensor, "3 3"] = field(default_factory=lambda: torch.eye(3))
    wraps = True

    def __post_init__(self) -> None:
        radius, height = self.profile.T
        step = self.profile.diff(dim=0)
        flat = step[:, 1].abs() < 0.02 * step[:, 0].abs() + 1e-5
        if bool(flat.any()):
            raise ValueError(f"flat step {int(flat.nonzero()[0])} of a lathe's profile")
        slope = step[:, 0] / step[:, 1]
        cones = torch.stack([slope, radius[:-1] - slope * height[:-1], height[:-1], height[1:]])[..., None]
        self._slope, self._base = cones[0], cones[1]  # a cone's radius at height z: base + slope z
        self._low, self._high = torch.minimum(cones[2], cones[3]), torch.maximum(cones[2], cones[3])
        self.count = len(step)
        length = step.norm(dim=1)
        self._along = torch.cat([torch.zeros(1), length.cumsum(0)]) / length.sum()
        normal = torch.nn.functional.normalize(torch.stack([step[:, 1], -step[:, 0]], 1), dim=1)
        smooth = torch.cat([normal[:1], normal[1:] + normal[:-1], normal[-1:]])
        self._normal = torch.nn.functional.normalize(smooth, dim=1)

    def numbers(self) -> Float[Tensor, "n"]:
        """What ``ray.cpp`` reads."""
        height, along = self.profile[:, 1], self._along
        cones = [self._slope, self._base, self._low, self._high, height[:-1], height[1:], along[:-1], along[1:]]
        cones += [*self._normal[:-1].T, *self._normal[1:].T]
        return torch.cat([self.frame.flatten(), self.origin, *(row.flatten() for row in cones)])

    def bound(self) -> tuple[Float[Tensor, "3"], float]:
        """Centre and radius of a sphere around the surface."""
        middle = (self.profile[:, 1].min() + self.profile[:, 1].max()) / 2
        radius = torch.hypot(self.profile[:, 0], self.profile[:, 1] - middle).max()
        return self.origin + self.frame[:, 2] * middle, float(radius)

    def at(self, u: Numbers, v: Numbers) -> tuple[Vectors, Vectors]:
        """Points and unit normals."""
        segment = (torch.searchsorted(self._along, v.contiguous()) - 1).clamp(0, len(self.profile) - 2)
        share = ((v - self._along[segment]) / (self._along[segment + 1] - self._along[segment]))[:, None]
        place = torch.lerp(self.profile[segment], self.profile[segment + 1], share)
        normal = torch.nn.functional.normalize(
            torch.lerp(self._normal[segment], self._normal[segment + 1], share), dim=1
        )
        cos, sin = torch.cos(2 * math.pi * u), torch.sin(2 * math.pi * u)

        def turn(rz: Tensor) -> Tensor:
            return torch.stack([rz[:, 0] * cos, rz[:, 0] * sin, rz[:, 1]], 1) @ self.frame.T

        return self.origin + turn(place), turn(normal)

    def hit(self, o: Origins, d: Vectors) -> Hit:
        """Where the rays ``o + t d`` meet it first; ``o`` may be one common point."""
        o, d = (o - self.origin) @ self.frame, d @ self.frame
        nearest = -(o * d).sum(1) / (d * d).sum(1)  # start there: small numbers keep the quadratic exact
        o = o + nearest[:, None] * d
        (ox, oy, oz), (dx, dy, dz) = o.T.contiguous(), d.T.contiguous()
        radius = self._base + self._slope * oz  # [P-1, M]: of each cone at the height of the ray's start
        growth = self._slope * dz
        a = (dx * dx + dy * dy) - growth * growth
        b = (ox * dx + oy * dy) - growth * radius
        c = (ox * ox + oy * oy) - radius * radius
        inner = b * b - a * c
        q = -(
            b + torch.copysign(inner.clamp(min=0).sqrt(), b)
        )  # the root of a negative number would cost 50 times more
        t = torch.full_like(q, math.inf)
        for candidate in (q / a, c / q):
            z = oz + candidate * dz
            on = (z >= self._low) & (z <= self._high) & (self._base + self._slope * z >= 0)
            on &= (candidate > NEAR - nearest) & (inner >= 0)
            t = torch.where(on, torch.minimum(candidate, t), t)
        t, segment = t.min(0)
        p = o + t[:, None].nan_to_num(posinf=0) * d
        u = torch.atan2(p[:, 1], p[:, 0]) / (2 * math.pi) % 1.0
        high = self.profile[segment + 1, 1] - self.profile[segment, 1]
        share = ((p[:, 2] - self.profile[segment, 1]) / high).clamp(0, 1)
        v = torch.lerp(self._along[segment], self._along[segment + 1], share)
        return t + nearest, u, v, torch.zeros_like(segment)


Surface = Quad | Lathe


def bound(surfaces: Sequence[Surface]) -> tuple[Float[Tensor, "3"], float]:
    """Centre and radius of a sphere around surfaces."""
    spheres = [surface.bound() for surface in surfaces]
    low = torch.stack([center - radius for center, radius in spheres]).amin(0)
    high = torch.stack([center + radius for center, radius in spheres]).amax(0)
    middle = (low + high) / 2
    return middle, max(float((center - middle).norm()) + radius for center, radius in spheres)


def box(center: Tensor, half: tuple[float, float, float], materials: list[Material], frame: Tensor) -> list[Quad]:
    """The six faces of a box, in the order -x, +x, -y, +y, -z, +z of its frame's columns; u is level on the sides."""
    axes = [frame[:, k] * half[k] for k in range(3)]
    quads: list[Quad] = []
    for axis, side in ((0, -1), (0, 1), (1, -1), (1, 1), (2, -1), (2, 1)):
        across = axes[1] * side if axis == 0 else axes[0] * (-side if axis == 1 else side)
        up = axes[1] if axis == 2 else axes[2]
        corner = center + side * axes[axis] - across - up
        quads.append(Quad(corner, 2 * across, 2 * up, materials[len(quads)]))
    return quads
