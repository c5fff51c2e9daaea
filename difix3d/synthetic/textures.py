"""Procedural textures with the statistics of photographs: each is ``[h, w, 3]``, linear RGB, row 0 at the bottom."""

import colorsys
import math

import numpy as np
from jaxtyping import Float
from PIL import Image

Picture = Float[np.ndarray, "h w 3"]
Number = int | float | np.floating
Color = tuple[Number, Number, Number]
Rng = np.random.Generator


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Linear RGB of a colour that is named as in sRGB."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return r**2.2, g**2.2, b**2.2


def noise(
    rng: Rng, h: int, w: int, cells: tuple[Number, Number] = (4, 4), octaves: int = 5, gain: float = 0.55
) -> np.ndarray:
    """Fractal noise [h, w] of mean 0 and deviation about 1 that wraps along u; ``cells`` (v, u) of the first octave."""
    total, power = np.zeros((h, w), np.float32), 0.0
    for octave in range(octaves):
        rows, columns = (max(2, min(round(c * 2**octave), n)) for c, n in zip(cells, (h, w), strict=True))
        grid = rng.standard_normal((rows + 4, columns), dtype=np.float32)
        grid = np.concatenate([grid[:, -2:], grid, grid[:, :2]], 1)
        crop = (2, 2, 2 + columns, 2 + rows)
        layer = Image.fromarray(grid).resize((w, h), Image.Resampling.BICUBIC, box=crop)
        total += gain**octave * np.asarray(layer)
        power += gain ** (2 * octave) * 0.5
    return total / math.sqrt(power)


def blend(a: Color | np.ndarray, b: Color | np.ndarray, share: np.ndarray) -> Picture:
    """Mixes two colours or images, by a share that is clipped to 0..1."""
    share = np.clip(share, 0, 1)[..., None]
    return ((1 - share) * np.asarray(a, np.float32) + share * np.asarray(b, np.float32)).astype(np.float32)


def grid(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) of the texels' centres, [h, w] each."""
    v, u = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
    return u.astype(np.float32), v.astype(np.float32)


def wood(rng: Rng, h: int, w: int, color: Color, planks: int = 1) -> Picture:
    """Grain along u, in planks that are stacked along v."""
    rows = []
    for height in np.diff(np.linspace(0, h, planks + 1).astype(int)).tolist():
        _, v = grid(height, w)
        warp = 0.35 * noise(rng, height, w, (1.2, 2), 3) + 0.12 * noise(rng, height, w, (3, 3), 3)
        rings = np.sin(2 * math.pi * (rng.uniform(2, 4) * (v - 0.5) ** 2 + rng.uniform(1.5, 3) * v + warp) * 2.2)
        pores = noise(rng, height, w, (height / 3, w / 90), 2)
        tone = 0.13 * rings + 0.1 * pores + 0.1 * noise(rng, height, w, (height / 12, w / 60), 3) + rng.normal(0, 0.1)
        plank = np.asarray(color, np.float32) * np.exp(tone * 1.3)[..., None] ** np.array([0.8, 1.0, 1.3], np.float32)
        if planks > 1:
            seam = np.minimum(v, 1 - v) * height
            plank = plank * np.clip(0.3 + seam / 2.5, 0.3, 1)[..., None]
        rows.append(plank)
    return np.clip(np.concatenate(rows), 0.003, 0.95).astype(np.float32)


def bricks(rng: Rng, h: int, w: int, color: Color, rows: int = 12) -> Picture:
    """A brick wall in running bond, with worn edges and mortar."""
    u, v = grid(h, w)
    row = np.floor(v * rows)
    columns = max(2, round(rows * w / h / 2.6))
    x, y = (u * columns + 0.5 * (row % 2)) % columns, v * rows % 1
    brick = (row * columns + np.floor(x)).astype(int)
    wear = 0.035 * noise(rng, h, w, (20, 20), 3)
    edge = np.minimum(np.minimum(x % 1, 1 - x % 1) * 2.6, np.minimum(y, 1 - y)) + wear
    tint = rng.normal(0, 0.28, (rows + 1) * columns + 1)[brick] + 0.16 * noise(rng, h, w, (40, 40), 4)
    face = np.asarray(color, np.float32) * np.exp(tint)[..., None] ** np.array([0.9, 1.1, 1.1], np.float32)
    mortar = 0.42 * np.exp(0.1 * noise(rng, h, w, (60, 60), 3))[..., None] * np.array([1, 0.95, 0.88], np.float32)
    return np.clip(blend(mortar, face, (edge - 0.06) / 0.05), 0.01, 0.95)


def plaster(rng: Rng, h: int, w: int, color: Color) -> Picture:
    """Painted wall, unevenly rolled, with stains."""
    tone = 0.07 * noise(rng, h, w, (3, 3), 6, 0.6) + 0.06 * noise(rng, h, w, (50, 50), 3)
    return np.clip(np.asarray(color, np.float32) * np.exp(tone)[..., None], 0.01, 0.95).astype(np.float32)


def wallpaper(rng: Rng, h: int, w: int, color: Color) -> Picture:
    """Stripes and a rosette ornament."""
    u, v = grid(h, w)
    x, y = u * 9 * w / h, v * 9
    ornament = np.zeros((h, w), np.float32)
    for shift in (0.0, 0.5):
        cx, cy = (x + shift) % 1 - 0.5, (y + shift) % 1 - 0.5
        r, a = np.hypot(cx, cy), np.arctan2(cy, cx)
        ornament = np.maximum(ornament, (0.16 + 0.1 * np.cos(rng.integers(4, 8) * a) - r) / 0.03)
    stripe = 0.3 * (np.sin(4 * math.pi * x) > 0)
    base = np.asarray(color, np.float32)
    image = blend(base, base * 0.45 + 0.02, np.clip(ornament, 0, 0.8) + stripe * (ornament <= 0))
    return image * np.exp(0.05 * noise(rng, h, w, (30, 30), 4))[..., None].astype(np.float32)


def fabric(rng: Rng, h: int, w: int, color: Color, second: Color) -> Picture:
    """A woven cloth with a plaid of two colours."""
    u, v = grid(h, w)
    x, y = u * 90 * w / h, v * 90
    bands = rng.uniform(0, 1, (2, 4)) * 6
    plaid = sum(0.25 * ((np.sin(2 * math.pi * (6 * u * w / h + b)) > 0.3) * 1.0) for b in bands[0, :2])
    plaid = plaid + sum(0.25 * ((np.sin(2 * math.pi * (6 * v + b)) > 0.3) * 1.0) for b in bands[1, :2])
    weave = np.where((np.floor(x) + np.floor(y)) % 2 > 0, np.sin(math.pi * (x % 1)), np.sin(math.pi * (y % 1)))
    tone = 0.25 * (weave - 0.7) + 0.12 * noise(rng, h, w, (h / 8, w / 8), 3) + 0.05 * noise(rng, h, w, (4, 4), 4)
    return np.clip(blend(color, second, plaid) * np.exp(tone)[..., None], 0.005, 0.95).astype(np.float32)


def tiles(rng: Rng, h: int, w: int, color: Color, second: Color, count: int = 8) -> Picture:
    """A worn chequered floor."""
    u, v = grid(h, w)
    x, y = u * count * w / h, v * count
    stone = noise(rng, h, w, (12, 12), 6, 0.65)
    veins = np.exp(-np.abs(noise(rng, h, w, (5, 5), 5)) * 9)
    odd = (np.floor(x) + np.floor(y)) % 2
    image = blend(color, second, odd) * np.exp(0.14 * stone)[..., None] + 0.12 * veins[..., None]
    joint = np.minimum(np.minimum(x % 1, 1 - x % 1), np.minimum(y % 1, 1 - y % 1))
    return np.clip(image * np.clip(0.35 + joint / 0.03, 0.35, 1)[..., None], 0.01, 0.95).astype(np.float32)


def marble(rng: Rng, h: int, w: int, color: Color) -> Picture:
    """Veined stone."""
    warp = noise(rng, h, w, (3, 3), 6, 0.6)
    vein = np.exp(-np.abs(noise(rng, h, w, (3, 4), 4) + 0.5 * warp) * 7) + 0.5 * np.exp(-np.abs(warp) * 14)
    return np.clip(np.asarray(color, np.float32) * np.exp(0.08 * warp - 0.8 * vein)[..., None], 0.01, 0.95).astype(
        np.float32
    )


def glaze(rng: Rng, h: int, w: int, color: Color, second: Color) -> Picture:
    """Glazed pottery: bands, speckles, or blots that run down from the rim."""
    u, v = grid(h, w)
    speckle = np.clip(noise(rng, h, w, (h / 5, w / 5), 2) - 1.6, 0, 1)
    edge = v + 0.05 * noise(rng, h, w, (1, 9), 4)
    kind = rng.integers(3)
    if kind == 0:
        share = np.clip((edge - rng.uniform(0.35, 0.6)) * 25, 0, 1)
    elif kind == 1:
        share = np.clip(np.sin(2 * math.pi * v * rng.integers(5, 12)) * 6, 0, 1) * (np.abs(v - 0.3) < 0.18)
    else:
        petals = 0.3 + 0.14 * np.cos(5 * np.arctan2((v - 0.28) * 3, u * 6 % 1 - 0.5))
        share = np.clip((petals - np.hypot((v - 0.28) * 3, u * 6 % 1 - 0.5)) * 25, 0, 1)
    image = blend(color, second, share) * np.exp(0.06 * noise(rng, h, w, (8, 8), 4))[..., None]
    return np.clip(image * (1 - 0.6 * speckle[..., None]), 0.01, 0.95).astype(np.float32)


def skin(rng: Rng, h: int, w: int, color: Color, second: Color) -> Picture:
    """A fruit's skin: streaks along v, a blush on one side, spots."""
    u, v = grid(h, w)
    streak = noise(rng, h, w, (2, w / 10), 4, 0.7)
    blush = 0.5 + 0.6 * np.cos(2 * math.pi * (u - rng.uniform())) * np.sin(math.pi * v) + 0.25 * streak
    spots = np.clip(noise(rng, h, w, (h / 5, w / 5), 2) - 1.7, 0, 1)
    image = blend(color, second, blush) * np.exp(0.06 * streak + 0.05 * noise(rng, h, w, (30, 30), 3))[..., None]
    return np.clip(blend(image, (0.6, 0.45, 0.2), spots * 0.6), 0.005, 0.95)


def leaf(rng: Rng, h: int, w: int, color: Color) -> Picture:
    """A leaf with its veins; v from the stalk to the tip."""
    u, v = grid(h, w)
    side = np.abs(u - 0.5)
    ribs = np.exp(-(((v * 7 - side * 6) % 1 - 0.5) ** 2) * 60) * 0.35
    middle = np.exp(-((side / 0.03) ** 2)) * 0.9
    tone = 0.2 * noise(rng, h, w, (5, 5), 4) - 0.25 * side
    return np.clip(np.asarray(color, np.float32) * np.exp(tone + ribs + middle)[..., None], 0.01, 0.9).astype(
        np.float32
    )
