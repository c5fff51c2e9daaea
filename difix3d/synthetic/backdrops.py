"""What lies far behind the table, out of focus: panoramas ``[h, w, 3]`` of linear radiance, row 0 straight down."""

import numpy as np

from difix3d.synthetic.textures import Number, Picture, Rng, blend, grid, hsv, noise


def garden(rng: Rng, h: int, w: int, warm: bool) -> Picture:
    """The outdoors as a wide lens opening shows them: sky, trees, meadow, discs of light."""
    _, v = grid(h, w)
    sky = blend((1.1, 1.05, 0.95) if warm else (0.95, 1.02, 1.1), (0.45, 0.66, 1.0), (v - 0.5) * 2)
    sky = blend(sky, (1.15, 1.12, 1.08), noise(rng, h, w, (4, 4), 5) * 0.5 + 0.1)
    tree = blend((0.03, 0.07, 0.02), (0.2, 0.3, 0.07), 0.45 + 0.33 * noise(rng, h, w, (10, 24), 5, 0.75))
    line = v - 0.53 - 0.05 * noise(rng, h, w, (1.5, 10), 4)
    image = blend(tree, sky, line / 0.03)
    lawn = blend((0.12, 0.2, 0.05), (0.3, 0.33, 0.12), 0.5 + 0.3 * noise(rng, h, w, (40, 20), 4))
    image = blend(lawn, image, (v - 0.43 - 0.01 * noise(rng, h, w, (1.5, 14), 3)) / 0.02)
    for _ in range(70):
        r = rng.uniform(0.006, 0.016)
        here, du, dv = _window(rng.uniform(0.03, 0.97), rng.uniform(0.42, 0.6), r, 2 * r, h, w)
        light = np.array(hsv(rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.6), 1.0), np.float32) * rng.uniform(0.2, 0.7)
        image[here] += light * np.clip((1 - np.hypot(du, dv)) * 6, 0, 1)[..., None]
    return image.astype(np.float32)


def room(rng: Rng, h: int, w: int) -> Picture:
    """The rest of a room: shelves, windows, dim corners."""
    _, v = grid(h, w)
    base = np.array(hsv(rng.uniform(0.05, 0.12), rng.uniform(0.15, 0.4), rng.uniform(0.5, 0.75)), np.float32)
    image = base * (0.35 + 0.5 * v)[..., None] * np.exp(0.2 * noise(rng, h, w, (3, 6), 4))[..., None]
    sizes = [(rng.uniform(0.004, 0.03), rng.uniform(0.01, 0.06), False) for _ in range(60)] + [(0.05, 0.12, True)] * 2
    for a, b, window in sizes:
        y = 0.62 if window else rng.uniform(0.3, 0.68)
        here, du, dv = _window(rng.uniform(0.06, 0.94), y, a, b, h, w)
        tone = (1.6, 1.7, 1.9) if window else hsv(rng.uniform(), rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.8))
        image[here] = blend(image[here], np.array(tone), 6 * (1 - np.maximum(np.abs(du), np.abs(dv))))
    return image.astype(np.float32)


def _window(
    x: Number, y: Number, a: Number, b: Number, h: int, w: int
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The texels about (x, y), and their offsets from there in units of the half sizes ``a`` and ``b``."""
    columns = slice(int((x - a) * w), int((x + a) * w) + 2)
    rows = slice(int((y - b) * h), int((y + b) * h) + 2)
    u, v = np.meshgrid(np.arange(w)[columns] + 0.5, np.arange(h)[rows] + 0.5)
    return (rows, columns), (u / w - x) / a, (v / h - y) / b
