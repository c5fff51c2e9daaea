"""The things that stand about in a synthetic scene, and the room around them. Lengths are decimetres, z is up."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from difix3d.synthetic import textures as tx
from difix3d.synthetic.prints import printed, stamp
from difix3d.synthetic.shapes import Lathe, Material, Quad, Surface, box, vec

Rng = np.random.Generator
Range = tuple[tx.Number, tx.Number]


@dataclass
class Thing:
    """Surfaces that stand together, and the radius of the place they need."""

    surfaces: list[Surface]
    foot: float


def thing(rng: Rng, place: tuple[float, float], toward: float, tall: bool) -> Thing:
    """A random thing on the table at ``place``, its printed side turned about the angle ``toward``."""
    makers: list[Callable[..., Thing]] = TALL if tall else LOW
    return makers[rng.integers(len(makers))](rng, vec(*place, 0.0), toward + rng.normal(0, 0.35))


def turned(angle: float) -> Tensor:
    """Frame of a thing whose front (its -y face) looks along the horizontal angle ``angle``."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[-s, -c, 0.0], [c, -s, 0.0], [0.0, 0.0, 1.0]])


def curve(points: Sequence[Range]) -> Tensor:
    """A smooth profile (Catmull-Rom) through ``(radius, height)``."""
    p = np.array([points[0], *points, points[-1]], np.float64)
    t = np.linspace(0, 1, 6, endpoint=False)[:, None]
    parts = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    return _steep(np.concatenate([*parts, p[-1:]]))


def _steep(profile: np.ndarray) -> Tensor:
    """Tilts the flat steps of a profile slightly, as a lathe needs it."""
    profile = profile.copy()
    profile[:, 0] = profile[:, 0].clip(0)
    for k in range(1, len(profile)):
        dr, dz = profile[k] - profile[k - 1]
        least = 0.03 * abs(dr) + 1e-4
        if abs(dz) < least:
            profile[k:, 1] += (least - abs(dz)) * (1 if dz >= 0 else -1)
    return torch.tensor(profile, dtype=torch.float32)


def material(texture: np.ndarray, **options) -> Material:
    return Material(torch.from_numpy(np.ascontiguousarray(texture, np.float32)), **options)


def glossy(f0: float) -> dict:
    return {"reflect": (f0, f0, f0)}


HUES = (0.01, 0.04, 0.06, 0.09, 0.12, 0.15, 0.27, 0.42, 0.5, 0.55, 0.6, 0.66, 0.95)
"""Hues of paints and dyes that people put on their tables."""


def color(rng: Rng, saturation: Range = (0.3, 0.75), value: Range = (0.35, 0.85)) -> tx.Color:
    """A random one of the :data:`HUES`."""
    return tx.hsv(rng.choice(HUES) + rng.normal(0, 0.012), rng.uniform(*saturation), rng.uniform(*value))


def vase(rng: Rng, at: Tensor, _: float) -> Thing:
    """Belly, neck, lip: glazed pottery, or a bottle."""
    h, r = rng.uniform(2.2, 3.6), rng.uniform(0.6, 1.0)
    neck, lip = rng.uniform(0.25, 0.6) * r, rng.uniform(0.4, 0.8) * r
    belly = rng.uniform(0.25, 0.5)
    outline = [(0.55 * r, 0.0), (r, belly * h), (neck, rng.uniform(0.72, 0.85) * h), (lip, h)]
    inside = [(lip - 0.07, h - 0.01), (neck - 0.06, 0.8 * h), (0.5 * r, 0.5 * h), (0.0, 0.45 * h)]
    texture = tx.glaze(rng, 192, 384, color(rng), color(rng, (0.1, 0.6)))
    return Thing([Lathe(at, curve(outline + inside), material(texture, light_texels=(40, 40), **glossy(0.05)))], r)


def plant(rng: Rng, at: Tensor, _: float) -> Thing:
    """A terracotta pot with earth and many leaves."""
    r, h = rng.uniform(0.6, 0.85), rng.uniform(1.0, 1.4)
    profile = [
        (0.72 * r, 0),
        (0.95 * r, 0.76 * h),
        (1.12 * r, 0.77 * h),
        (1.14 * r, h),
        (1.0 * r, h + 0.01),
        (0.97 * r, 0.9 * h),
    ]
    clay = tx.plaster(rng, 128, 256, tx.hsv(rng.uniform(0.03, 0.07), 0.62, 0.75))
    earth = tx.plaster(rng, 64, 64, (0.05, 0.03, 0.02))
    surfaces: list[Surface] = [
        Lathe(at, _steep(np.array(profile, np.float64)), material(clay, light_texels=(40, 24))),
        Lathe(at, _steep(np.array([(r, 0.92 * h), (0.0, 0.95 * h)])), material(earth)),
    ]
    hue = rng.uniform(0.22, 0.38)
    wide = rng.uniform(0.25, 0.6)
    count = int(rng.integers(34, 60))
    looks = [
        material(
            tx.leaf(rng, 96, 64, tx.hsv(hue + rng.normal(0, 0.02), rng.uniform(0.5, 0.8), rng.uniform(0.35, 0.65))),
            both_sides=True,
            light_texels=(5, 8),
        )
        for _ in range(4)
    ]
    for k in range(count):
        turn, rise = 2.4 * k + rng.normal(0, 0.2), 1.35 * (1 - (k / count)) ** 0.6 + rng.normal(0, 0.12)
        out = vec(math.cos(turn) * math.cos(rise), math.sin(turn) * math.cos(rise), math.sin(rise))
        side = vec(-math.sin(turn), math.cos(turn), 0.0) + 0.25 * torch.from_numpy(rng.normal(size=3)).float()
        length = rng.uniform(0.9, 1.5)
        root = at + vec(0.0, 0.0, h) + out * rng.uniform(0.1, 0.9)
        width = wide * length * torch.nn.functional.normalize(side, dim=0)
        surfaces.append(Quad(root - width / 2, width, out * length, looks[k % 4], leaf=True))
    return Thing(surfaces, 1.1 * r)


def can(rng: Rng, at: Tensor, toward: float) -> Thing:
    """A tin with a printed label around it."""
    r, h = rng.uniform(0.4, 0.7), rng.uniform(1.0, 2.0)
    label = printed(rng, 256, 256, color(rng, (0.05, 0.8), (0.6, 1)), color(rng, (0.3, 0.9), (0.1, 0.5)))
    tin = tx.plaster(rng, 32, 32, (0.5, 0.5, 0.5))
    low, high = 0.05, h - 0.05
    body = [(0.94 * r, 0), (r, low), (r, high), (0.94 * r, h)]
    lid = [(0.94 * r, h), (0.9 * r, h - 0.06), (0.0, h - 0.07)]
    frame = turned(toward + math.pi / 2)
    rim: list[Surface] = [Lathe(at, _steep(np.array(lid)), material(tin, reflect=(0.5, 0.5, 0.5)), frame)]
    wrapped = np.concatenate([label, label], 1)
    return Thing(
        [Lathe(at, _steep(np.array(body)), material(wrapped, light_texels=(48, 24), **glossy(0.03)), frame), *rim], r
    )


def carton(rng: Rng, at: Tensor, toward: float) -> Thing:
    """A printed box."""
    half = (rng.uniform(0.5, 0.95), rng.uniform(0.25, 0.5), rng.uniform(0.7, 1.35))
    paper, ink = color(rng, (0.05, 0.8), (0.6, 1)), color(rng, (0.3, 0.9), (0.1, 0.5))
    front = material(printed(rng, 320, int(320 * half[0] / half[2]), paper, ink), light_texels=(24, 32), **glossy(0.03))
    side = material(
        printed(rng, 256, int(256 * half[1] / half[2]), paper, ink, rows=2), light_texels=(16, 32), **glossy(0.03)
    )
    top = material(tx.plaster(rng, 64, 64, paper))
    center = at + vec(0.0, 0.0, half[2])
    return Thing(
        [*box(center, half, [side, side, front, front, top, top], turned(toward))], math.hypot(half[0], half[1])
    )


def book(rng: Rng, center: Tensor, half: tuple[float, float, float], frame: Tensor) -> list[Quad]:
    """Lies flat (thin along z): the spine in front, its title readable from there."""
    cloth, ink = color(rng, (0.3, 0.85), (0.25, 0.75)), tx.hsv(rng.uniform(0.08, 0.16), 0.3, 0.95)
    spine = material(printed(rng, 48, 384, cloth, ink, rows=1), light_texels=(32, 8))
    cover = material(printed(rng, int(288 * half[1] / half[0]), 288, cloth, ink), light_texels=(40, 32))
    lines = 0.75 + 0.08 * tx.noise(rng, 64, 64, (40, 2), 2)
    pages = material(np.clip(lines, 0.3, 0.9)[..., None] * np.array([1, 0.94, 0.82]), light_texels=(16, 8))
    return box(center, half, [pages, pages, spine, pages, cover, cover], frame)


def books(rng: Rng, at: Tensor, toward: float) -> Thing:
    """A pile of books, with something on top now and then."""
    surfaces: list[Surface] = []
    height = 0.0
    for _ in range(rng.integers(2, 5)):
        half = (rng.uniform(0.85, 1.15), rng.uniform(0.6, 0.8), rng.uniform(0.12, 0.28))
        surfaces += book(rng, at + vec(0.0, 0.0, height + half[2]), half, turned(toward + rng.normal(0, 0.15)))
        height += 2 * half[2] + 0.004
    if rng.uniform() < 0.6:
        surfaces += LOW[rng.integers(3)](rng, at + vec(0.0, 0.0, height), toward).surfaces
    return Thing(surfaces, 1.25)


def fruit(rng: Rng, at: Tensor, _: float) -> Thing:
    """An apple, a pear, an orange."""
    r, kind = rng.uniform(0.34, 0.46), rng.integers(3)
    if kind == 0:
        outline = [(0.0, 0.12), (0.55, 0.0), (1.0, 0.75), (0.9, 1.35), (0.45, 1.65), (0.0, 1.45)]
        hues = (rng.uniform(0.14, 0.25), rng.uniform(-0.03, 0.03))
    elif kind == 1:
        outline = [(0.0, 0.1), (0.6, 0.0), (1.0, 0.8), (0.65, 1.7), (0.42, 2.2), (0.0, 2.4)]
        hues = (rng.uniform(0.14, 0.2), rng.uniform(0.1, 0.16))
    else:
        outline = [(0.0, 0.0), (0.7, 0.28), (1.0, 0.98), (0.72, 1.68), (0.0, 1.92)]
        hues = (rng.uniform(0.07, 0.11), rng.uniform(0.06, 0.08))
    texture = tx.skin(rng, 128, 256, tx.hsv(hues[0], 0.8, 0.85), tx.hsv(hues[1], 0.88, 0.8))
    profile = curve([(r * a, r * b) for a, b in outline])
    surfaces: list[Surface] = [Lathe(at, profile, material(texture, light_texels=(28, 28), **glossy(0.035)))]
    if kind < 2:
        stalk = tx.wood(rng, 16, 16, (0.1, 0.06, 0.03))
        base = float(profile[-1, 1]) - 0.05
        lean = torch.linalg.qr(torch.eye(3) + 0.2 * torch.from_numpy(rng.normal(size=(3, 3))).float())[0]
        lean = lean * torch.sign(torch.diagonal(lean))
        stem = _steep(np.array([(0.03, 0.0), (0.025, 0.2), (0.04, 0.3), (0.0, 0.31)]))
        surfaces.append(Lathe(at + vec(0, 0, base), stem, material(stalk, light_texels=(4, 4)), lean))
    return Thing(surfaces, r)


def mug(rng: Rng, at: Tensor, _: float) -> Thing:
    """A mug or bowl with something in it."""
    r = rng.uniform(0.42, 0.7)
    h = rng.uniform(0.6, 1.0)
    flare = rng.uniform(0.6, 1.0)
    outline = [(0.9 * flare * r, 0), (flare * r, 0.1), (r, h), (r - 0.03, h + 0.02), (r - 0.06, h), (r - 0.08, 0.7 * h)]
    texture = tx.glaze(rng, 160, 320, color(rng, (0.1, 0.8), (0.5, 1)), color(rng))
    drink = tx.plaster(rng, 32, 32, tx.hsv(rng.uniform(0.03, 0.12), rng.uniform(0.4, 0.9), rng.uniform(0.15, 0.6)))
    level = 0.75 * h
    return Thing(
        [
            Lathe(at, _steep(np.array(outline)), material(texture, light_texels=(40, 32), **glossy(0.05))),
            Lathe(at, _steep(np.array([(r - 0.05, level), (0.0, level + 0.01)])), material(drink, **glossy(0.03))),
        ],
        r,
    )


def blocks(rng: Rng, at: Tensor, toward: float) -> Thing:
    """Toy blocks with letters, two or three, the last one on top."""
    surfaces: list[Surface] = []
    places = [(-0.42, 0.0, 0.3), (0.4, 0.12, 0.3), (0.0, 0.03, 0.9)][: rng.integers(2, 4)]
    for x, y, z in places:
        faces = []
        for _ in range(6):
            paint = color(rng, (0.6, 0.9), (0.6, 0.95))
            letter = "ABCDEFGHKLMNPRSTXYZ"[rng.integers(19)]
            wooden = tx.wood(rng, 96, 96, (0.55, 0.36, 0.19))
            letters = stamp(96, letter)
            faces.append(material(tx.blend(wooden, paint, 0.85 * letters), light_texels=(14, 14), **glossy(0.02)))
        frame = turned(toward)
        surfaces += box(at + frame @ vec(x, y, z), (0.3, 0.3, 0.3), faces, turned(toward + rng.normal(0, 0.3)))
    return Thing(surfaces, 0.85)


def ball(rng: Rng, at: Tensor, _: float) -> Thing:
    """A polished metal ball, or a striped toy ball."""
    r = rng.uniform(0.35, 0.6)
    arc = np.linspace(-math.pi / 2, math.pi / 2, 33)
    profile = _steep(np.stack([r * np.cos(arc), r + r * np.sin(arc)], 1))
    if rng.uniform() < 0.5:
        tint = [(0.9, 0.9, 0.9), (0.9, 0.68, 0.35), (0.85, 0.5, 0.36)][rng.integers(3)]
        look = material(tx.plaster(rng, 32, 64, (0.02, 0.02, 0.02)), reflect=tint, light_texels=(16, 16))
    else:
        u, v = tx.grid(128, 256)
        stripes = ((u * rng.integers(4, 9)).astype(int) % 2).astype(np.float32)
        image = tx.blend(color(rng), color(rng, (0.0, 0.5), (0.8, 1)), stripes)
        image = tx.blend(image, color(rng), (np.abs(v - 0.5) < 0.06).astype(np.float32))
        look = material(
            image * np.exp(0.06 * tx.noise(rng, 128, 256, (8, 8), 5))[..., None], light_texels=(32, 32), **glossy(0.05)
        )
    lean = turned(rng.uniform(0, 6)) @ torch.linalg.matrix_exp(torch.tensor([[0, 0, 0.5], [0, 0, 0], [-0.5, 0, 0]]))
    middle = vec(0.0, 0.0, r)
    return Thing([Lathe(at + middle - lean @ middle, profile, look, lean)], r)


def picture(rng: Rng, at: Tensor, toward: float) -> Thing:
    """A framed print that leans back."""
    half = (rng.uniform(0.8, 1.2), 0.08, rng.uniform(0.9, 1.3))
    lean = torch.linalg.matrix_exp(torch.tensor([[0, 0, 0], [0, 0, 0.2], [0, -0.2, 0]]))
    frame = turned(toward) @ lean
    rim = material(tx.wood(rng, 48, 192, color(rng, (0.3, 0.7), (0.2, 0.7))), light_texels=(24, 24))
    center = at + frame @ vec(0.0, 0.0, half[2]) + vec(0.0, 0.0, 0.02)
    surfaces: list[Surface] = [*box(center, half, [rim] * 6, frame)]
    w, h = half[0] - 0.14, half[2] - 0.14
    print_ = printed(rng, 352, int(352 * w / h), color(rng, (0.0, 0.3), (0.8, 1)), color(rng, (0.2, 0.9), (0.1, 0.5)))
    corner = center + frame @ vec(-w, -half[1] - 0.005, -h)
    surfaces.append(
        Quad(corner, 2 * w * frame[:, 0], 2 * h * frame[:, 2], material(print_, light_texels=(28, 28), **glossy(0.04)))
    )
    return Thing(surfaces, 1.1)


TALL: list[Callable[..., Thing]] = [vase, plant, carton, picture, books, vase, plant]
LOW: list[Callable[..., Thing]] = [fruit, mug, ball, can, blocks, fruit, mug, books]
