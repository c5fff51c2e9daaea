"""Composes a random still life: a table, things on it, the surroundings, the light and where the camera stands."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from difix3d.synthetic import textures as tx
from difix3d.synthetic.backdrops import garden, room
from difix3d.synthetic.prints import printed
from difix3d.synthetic.shapes import Material, Quad, Surface, box, vec
from difix3d.synthetic.things import Rng, color, glossy, material, thing

FRONT = -math.pi / 2
"""Horizontal angle that the middle of the camera arc looks from."""


@dataclass
class Layout:
    """What a seed stands for."""

    things: list[list[Surface]]
    light: Quad
    target: tuple[float, float, float]
    distance: float
    elevation: float


def compose(rng: Rng) -> Layout:
    """A table with things; tall ones behind, low ones in front."""
    indoor = rng.uniform() < 0.55
    light = lamp(rng)
    fixed: list[list[Surface]] = [[light], *surroundings(rng, indoor), table(rng)]
    placed: list[list[Surface]] = []
    spots: list[tuple[float, float, float]] = []
    wanted = [True] * int(rng.integers(3, 5)) + [False] * int(rng.integers(5, 8))
    for tall in wanted:
        for _ in range(40):
            x = rng.uniform(-3.4, 3.4)
            y = rng.uniform(0.3, 2.0) if tall else rng.uniform(-2.2, 0.9)
            new = None
            if all(math.hypot(x - a, y - b) > 0.55 + r for a, b, r in spots):
                new = thing(rng, (x, y), FRONT + 0.12 * x, tall)
                if all(math.hypot(x - a, y - b) > new.foot * 0.95 + r for a, b, r in spots):
                    spots.append((x, y, new.foot * 0.95))
                    placed.append(new.surfaces)
                    break
    target = (0.0, 0.2, float(rng.uniform(0.7, 1.1)))
    return Layout([*fixed, *placed], light, target, float(rng.uniform(8.5, 11.0)), float(rng.uniform(0.22, 0.45)))


def lamp(rng: Rng) -> Quad:
    """A large soft light from above, from the left or the right: a window, a soft box, the sun behind a cloud."""
    azimuth = FRONT + rng.choice([-1, 1]) * rng.uniform(0.6, 2.2)
    height, size = rng.uniform(0.42, 0.8), rng.uniform(1.6, 4.0)
    away = vec(math.cos(azimuth) * math.cos(height), math.sin(azimuth) * math.cos(height), math.sin(height))
    across = vec(-math.sin(azimuth), math.cos(azimuth), 0.0) * size
    up = torch.linalg.cross(across, away)  # the front faces the table
    tint = np.array(tx.hsv(rng.uniform(0.06, 0.13), rng.uniform(0.05, 0.3), 1.0), np.float32)
    power = rng.uniform(1000, 2200) / size**2
    shine = material(np.broadcast_to(tint, (4, 4, 3)).copy(), emission=power, light_texels=(1, 1))
    return Quad(16 * away - across / 2 - up / 2, across, up, shine)


def table(rng: Rng) -> list[Surface]:
    """The table's top and its board below."""
    half = (rng.uniform(4.6, 5.6), rng.uniform(3.0, 3.6), 0.15)
    w, h = 1536, int(1536 * half[1] / half[0])
    kind = rng.integers(5)
    if kind <= 1:
        brown = tx.hsv(rng.uniform(0.055, 0.09), rng.uniform(0.4, 0.65), rng.uniform(0.4, 0.75))
        top = tx.wood(rng, h, w, brown, int(rng.integers(3, 7)))
    elif kind == 2:
        top = tx.fabric(rng, h, w, color(rng, (0.0, 0.3), (0.75, 0.95)), color(rng, (0.4, 0.8), (0.3, 0.8)))
    elif kind == 3:
        top = tx.marble(rng, h, w, color(rng, (0.0, 0.12), (0.7, 0.92)))
    else:
        top = tx.tiles(rng, h, w, color(rng, (0.05, 0.5), (0.7, 0.9)), color(rng, (0.2, 0.7), (0.25, 0.6)), 6)
    shine = glossy(float(rng.uniform(0.02, 0.04))) if kind != 2 and rng.uniform() < 0.5 else {}
    edge = material(tx.wood(rng, 64, 512, (0.2, 0.11, 0.05)), light_texels=(40, 4))
    plate = material(top, light_texels=(168, 112), **shine)
    return [*box(vec(0.0, 0.0, -half[2]), half, [edge] * 4 + [edge, plate], torch.eye(3))]


def surroundings(rng: Rng, indoor: bool) -> list[list[Surface]]:
    """A cube around everything that shows a panorama, and indoors two walls and a floor."""
    panorama = room(rng, 384, 1024) if indoor else garden(rng, 384, 1024, bool(rng.uniform() < 0.5))
    cube: list[Surface] = [*_cube(panorama, 26.0 if indoor else 32.0)]
    return [cube, [*_corner(rng)]] if indoor else [cube]


def _cube(panorama: np.ndarray, half: float) -> list[Quad]:
    """The inside of a cube; what it shows depends on the direction from its middle alone."""
    middle = vec(0.0, 0.0, 2.0)
    blank = Material(torch.zeros(2, 2, 3))
    image = torch.from_numpy(panorama).permute(2, 0, 1)[None]
    image = torch.cat([image, image[..., :1]], 3)  # the first column again: the seam closes
    quads = []
    for face in box(middle, (half, half, half), [blank] * 6, torch.eye(3)):
        inner = Quad(face.corner + face.edge_u, -face.edge_u, face.edge_v, blank)
        share = (torch.arange(512) + 0.5) / 512
        v, u = torch.meshgrid(share, share, indexing="ij")
        d = torch.nn.functional.normalize(inner.at(u.reshape(-1), v.reshape(-1))[0] - middle, dim=1)
        x = torch.atan2(d[:, 1], d[:, 0]) / math.pi
        y = torch.asin(d[:, 2].clamp(-1, 1)) * 2 / math.pi
        where = torch.stack([x % 2 - 1, y], 1).reshape(1, 512, 512, 2)
        texture = torch.nn.functional.grid_sample(image, where, padding_mode="border", align_corners=True)
        inner.material = Material(texture[0].permute(1, 2, 0).contiguous(), emission=0.6, light_texels=(1, 1))
        quads.append(inner)
    return quads


def _corner(rng: Rng) -> list[Quad]:
    """A wall behind the table, one beside it, a floor; a poster or two."""
    back = rng.uniform(4.5, 6.5)
    side = rng.uniform(7.5, 11.0)
    floor = -7.0
    sign = rng.choice([-1.0, 1.0])
    paint = color(rng, (0.05, 0.4), (0.4, 0.85))
    make = [
        lambda h, w: tx.bricks(rng, h, w, tx.hsv(rng.uniform(0.02, 0.08), 0.55, 0.65), 24),
        lambda h, w: tx.plaster(rng, h, w, paint),
        lambda h, w: tx.wallpaper(rng, h, w, paint),
    ][rng.integers(3)]
    x = vec(1.0, 0, 0)
    y = vec(0, 1.0, 0)
    z = vec(0, 0, 1.0)
    deep = 18.0
    origin = vec(-side * sign, back, floor)
    wide = 24.0
    walls = [
        Quad(
            origin if sign > 0 else origin - wide * x,
            wide * x,
            17 * z,
            material(make(768, 1152), light_texels=(96, 64)),
        ),
        Quad(
            origin - deep * y if sign > 0 else origin,
            (y if sign > 0 else -y) * deep,
            17 * z,
            material(make(640, 768), light_texels=(48, 48)),
        ),
    ]
    boards = material(tx.wood(rng, 768, 768, (0.3, 0.17, 0.08), 12), light_texels=(48, 48))
    ground = Quad(vec(-20.0, -20.0, floor), 40 * x, 40 * y, boards)
    posters = []
    for k in range(rng.integers(1, 4)):
        w, h = rng.uniform(1.6, 2.6), rng.uniform(1.8, 3.2)
        sheet = printed(
            rng, 448, int(448 * w / h), color(rng, (0.0, 0.4), (0.75, 1)), color(rng, (0.2, 0.9), (0.1, 0.5))
        )
        place = vec(-4.6 + 3.4 * k + rng.uniform(-0.4, 0.4), back - 0.05, rng.uniform(1.6, 2.8))
        posters.append(Quad(place, w * x, h * z, material(sheet, light_texels=(24, 24))))
    return [*walls, ground, *posters]
