"""Procedural textures with the statistics of photographs: every one is ``[h, w, 3]``, linear RGB, row 0 at the bottom."""

import colorsys
import math

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

Image_ = Float[np.ndarray, "h w 3"]
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
    """Fractal noise [h, w] about 0 with a deviation of about 1; ``cells`` along (v, u) in the first octave; wraps along u."""
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


def blend(a: Color | np.ndarray, b: Color | np.ndarray, share: np.ndarray) -> Image_:
    """Mixes two colours or images, by a share that is clipped to 0..1."""
    share = np.clip(share, 0, 1)[..., None]
    return ((1 - share) * np.asarray(a, np.float32) + share * np.asarray(b, np.float32)).astype(np.float32)


def grid(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) of the texels' centres, [h, w] each."""
    v, u = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
    return u.astype(np.float32), v.astype(np.float32)


def wood(rng: Rng, h: int, w: int, color: Color, planks: int = 1) -> Image_:
    """Grain along u, in planks that are stacked along v."""
    rows = []
    for height in np.diff(np.linspace(0, h, planks + 1).astype(int)).tolist():
        u, v = grid(height, w)
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


def bricks(rng: Rng, h: int, w: int, color: Color, rows: int = 12) -> Image_:
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


def plaster(rng: Rng, h: int, w: int, color: Color) -> Image_:
    """Painted wall, unevenly rolled, with stains."""
    tone = 0.07 * noise(rng, h, w, (3, 3), 6, 0.6) + 0.06 * noise(rng, h, w, (50, 50), 3)
    return np.clip(np.asarray(color, np.float32) * np.exp(tone)[..., None], 0.01, 0.95).astype(np.float32)


def wallpaper(rng: Rng, h: int, w: int, color: Color, repeats: int = 9) -> Image_:
    """Stripes and a rosette ornament."""
    u, v = grid(h, w)
    x, y = u * repeats * w / h, v * repeats
    ornament = np.zeros((h, w), np.float32)
    for shift in (0.0, 0.5):
        cx, cy = (x + shift) % 1 - 0.5, (y + shift) % 1 - 0.5
        r, a = np.hypot(cx, cy), np.arctan2(cy, cx)
        ornament = np.maximum(ornament, (0.16 + 0.1 * np.cos(rng.integers(4, 8) * a) - r) / 0.03)
    stripe = 0.3 * (np.sin(4 * math.pi * x) > 0)
    base = np.asarray(color, np.float32)
    image = blend(base, base * 0.45 + 0.02, np.clip(ornament, 0, 0.8) + stripe * (ornament <= 0))
    return image * np.exp(0.05 * noise(rng, h, w, (30, 30), 4))[..., None].astype(np.float32)


def fabric(rng: Rng, h: int, w: int, color: Color, second: Color, threads: int = 90) -> Image_:
    """A woven cloth with a plaid of two colours."""
    u, v = grid(h, w)
    x, y = u * threads * w / h, v * threads
    bands = rng.uniform(0, 1, (2, 4)) * 6
    plaid = sum(0.25 * ((np.sin(2 * math.pi * (6 * u * w / h + b)) > 0.3) * 1.0) for b in bands[0, :2])
    plaid = plaid + sum(0.25 * ((np.sin(2 * math.pi * (6 * v + b)) > 0.3) * 1.0) for b in bands[1, :2])
    weave = np.where((np.floor(x) + np.floor(y)) % 2 > 0, np.sin(math.pi * (x % 1)), np.sin(math.pi * (y % 1)))
    tone = 0.25 * (weave - 0.7) + 0.12 * noise(rng, h, w, (h / 8, w / 8), 3) + 0.05 * noise(rng, h, w, (4, 4), 4)
    return np.clip(blend(color, second, plaid) * np.exp(tone)[..., None], 0.005, 0.95).astype(np.float32)


def tiles(rng: Rng, h: int, w: int, color: Color, second: Color, count: int = 8) -> Image_:
    """A worn chequered floor."""
    u, v = grid(h, w)
    x, y = u * count * w / h, v * count
    stone = noise(rng, h, w, (12, 12), 6, 0.65)
    veins = np.exp(-np.abs(noise(rng, h, w, (5, 5), 5)) * 9)
    odd = (np.floor(x) + np.floor(y)) % 2
    image = blend(color, second, odd) * np.exp(0.14 * stone)[..., None] + 0.12 * veins[..., None]
    joint = np.minimum(np.minimum(x % 1, 1 - x % 1), np.minimum(y % 1, 1 - y % 1))
    return np.clip(image * np.clip(0.35 + joint / 0.03, 0.35, 1)[..., None], 0.01, 0.95).astype(np.float32)


def marble(rng: Rng, h: int, w: int, color: Color) -> Image_:
    """Veined stone."""
    warp = noise(rng, h, w, (3, 3), 6, 0.6)
    vein = np.exp(-np.abs(noise(rng, h, w, (3, 4), 4) + 0.5 * warp) * 7) + 0.5 * np.exp(-np.abs(warp) * 14)
    return np.clip(np.asarray(color, np.float32) * np.exp(0.08 * warp - 0.8 * vein)[..., None], 0.01, 0.95).astype(
        np.float32
    )


def glaze(rng: Rng, h: int, w: int, color: Color, second: Color) -> Image_:
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


def skin(rng: Rng, h: int, w: int, color: Color, second: Color) -> Image_:
    """A fruit's skin: streaks along v, a blush on one side, spots."""
    u, v = grid(h, w)
    streak = noise(rng, h, w, (2, w / 10), 4, 0.7)
    blush = 0.5 + 0.6 * np.cos(2 * math.pi * (u - rng.uniform())) * np.sin(math.pi * v) + 0.25 * streak
    spots = np.clip(noise(rng, h, w, (h / 5, w / 5), 2) - 1.7, 0, 1)
    image = blend(color, second, blush) * np.exp(0.06 * streak + 0.05 * noise(rng, h, w, (30, 30), 3))[..., None]
    return np.clip(blend(image, (0.6, 0.45, 0.2), spots * 0.6), 0.005, 0.95)


def leaf(rng: Rng, h: int, w: int, color: Color) -> Image_:
    """A leaf with its veins; v from the stalk to the tip."""
    u, v = grid(h, w)
    side = np.abs(u - 0.5)
    ribs = np.exp(-(((v * 7 - side * 6) % 1 - 0.5) ** 2) * 60) * 0.35
    middle = np.exp(-((side / 0.03) ** 2)) * 0.9
    tone = 0.2 * noise(rng, h, w, (5, 5), 4) - 0.25 * side
    return np.clip(np.asarray(color, np.float32) * np.exp(tone + ribs + middle)[..., None], 0.01, 0.9).astype(
        np.float32
    )


def garden(rng: Rng, h: int, w: int, warm: bool) -> Image_:
    """A blurred outdoor backdrop, as a wide lens opening shows it: sky, trees, meadow, discs of light. Radiance, not albedo."""
    u, v = grid(h, w)
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


WORDS = (
    "TEA COFFEE HONEY FIELD NOTES ATLAS GARDEN RIVER NORTH LIGHT SALT PAPER ORANGE SUMMER HARBOUR STONE BREAD MOON FOREST "
    "CITY MUSIC TRAVEL HISTORY POEMS WINTER OLIVE COCOA BLUE STAR SEA FINE WILD EST 1924 No 7 FRESH"
).split()


def printed(rng: Rng, h: int, w: int, paper: Color, ink: Color, title: str | None = None, rows: int = 3) -> Image_:
    """A printed cover, label or poster: frames, shapes, words, small print."""
    sheet = Image.new("RGB", (w, h), _srgb(paper))
    draw = ImageDraw.Draw(sheet)
    accent = _srgb(hsv(rng.choice([0.02, 0.07, 0.12, 0.3, 0.5, 0.58, 0.64]), rng.uniform(0.45, 0.8), rng.uniform(0.4, 0.9)))
    margin = max(2, min(h, w) // 16)
    if rng.uniform() < 0.7:
        draw.rectangle((margin, margin, w - margin, h - margin), outline=_srgb(ink), width=max(1, margin // 3))
    top, bottom = sorted(rng.uniform(0.2, 0.9, 2) * h)
    _picture(draw, rng, (2 * margin, int(top), w - 2 * margin, int(max(bottom, top + 0.25 * h))), accent, _srgb(ink))
    y = 1.6 * margin
    for row in range(rows):
        text = title if title and row == 0 else " ".join(rng.choice(WORDS, 1 if row == 0 else 2))
        size = _fit(draw, text, w - 4 * margin, h * (0.3 if row == 0 else rng.uniform(0.08, 0.16)))
        draw.text((w / 2, y), text, fill=_srgb(ink), font=ImageFont.load_default(size), anchor="mt")
        y += size * 1.25
    for line in range(rng.integers(2, 7)):
        text = " ".join(rng.choice(WORDS, 4)).lower()
        y = h - 1.6 * margin - line * h / 22
        draw.text((w / 2, y), text, fill=_srgb(ink), font=ImageFont.load_default(max(6, h // 26)), anchor="mb")
    image = (np.asarray(sheet, np.float32)[::-1] / 255) ** 2.2
    age = 0.05 * noise(rng, h, w, (4, 4), 6, 0.7) + 0.03 * noise(rng, h, w, (h / 4, w / 4), 2)
    return np.clip(image * np.exp(age)[..., None], 0.01, 0.92).astype(np.float32)


def _picture(draw: ImageDraw.ImageDraw, rng: Rng, area: tuple[int, int, int, int], accent: tuple[int, ...], ink: tuple[int, ...]) -> None:
    """A landscape, a sun of rays, discs, or a chequered field."""
    x0, y0, x1, y1 = area
    w, h = x1 - x0, y1 - y0
    kind = rng.integers(4)
    if kind == 0:
        draw.rectangle(area, fill=accent)
        for layer in range(4):
            xs = np.linspace(x0, x1, 24)
            ys = y0 + h * (0.35 + 0.15 * layer + 0.1 * np.sin(xs / w * rng.uniform(4, 14) + rng.uniform(0, 6)))
            shade = tuple(int(c * (0.85 - 0.2 * layer)) for c in accent)
            draw.polygon([(x1, y1), (x0, y1), *zip(xs.tolist(), ys.tolist(), strict=True)], fill=shade)
    elif kind == 1:
        r = min(w, h) / 2
        for k in range(16):
            angle = k * 22.5
            draw.pieslice(
                (x0 + w / 2 - r, y0 + h / 2 - r, x0 + w / 2 + r, y0 + h / 2 + r), angle, angle + 11, fill=accent
            )
        draw.ellipse((x0 + w / 2 - r / 3, y0 + h / 2 - r / 3, x0 + w / 2 + r / 3, y0 + h / 2 + r / 3), fill=ink)
    elif kind == 2:
        for _ in range(14):
            r, x, y = rng.uniform(0.04, 0.2) * w, rng.uniform(x0, x1), rng.uniform(y0, y1)
            color = _srgb(hsv(rng.uniform(-0.05, 0.65), rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.95)))
            draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
    else:
        n = int(rng.integers(4, 9))
        for i in range(n):
            for j in range(n):
                if (i + j) % 2:
                    draw.rectangle(
                        (x0 + w * i / n, y0 + h * j / n, x0 + w * (i + 1) / n, y0 + h * (j + 1) / n), fill=accent
                    )


def _fit(draw: ImageDraw.ImageDraw, text: str, width: Number, height: Number) -> int:
    """Largest font size at which the text fits."""
    reference = draw.textlength(text, font=ImageFont.load_default(40))
    return max(6, int(min(height, 40 * width / max(reference, 1))))


def _srgb(color: Color) -> tuple[int, int, int]:
    r, g, b = (round(255 * min(max(c, 0.0), 1.0) ** (1 / 2.2)) for c in color)
    return r, g, b


def stamp(size: int, letter: str) -> np.ndarray:
    """Coverage [size, size] of a letter in a frame."""
    sheet = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((size // 16, size // 16, size - size // 16, size - size // 16), outline=255, width=size // 16)
    draw.text((size / 2, size / 2), letter, fill=255, font=ImageFont.load_default(int(size * 0.7)), anchor="mm")
    return np.asarray(sheet, np.float32)[::-1] / 255


def room(rng: Rng, h: int, w: int) -> Image_:
    """The blurred rest of a room: shelves, a window, dim corners. Radiance, not albedo."""
    u, v = grid(h, w)
    base = np.array(hsv(rng.uniform(0.05, 0.12), rng.uniform(0.15, 0.4), rng.uniform(0.5, 0.75)), np.float32)
    image = base * (0.35 + 0.5 * v)[..., None] * np.exp(0.2 * noise(rng, h, w, (3, 6), 4))[..., None]
    sizes = [(rng.uniform(0.004, 0.03), rng.uniform(0.01, 0.06), False) for _ in range(60)] + [(0.05, 0.12, True)] * 2
    for a, b, window in sizes:
        y = 0.62 if window else rng.uniform(0.3, 0.68)
        here, du, dv = _window(rng.uniform(0.06, 0.94), y, a, b, h, w)
        tone = (1.6, 1.7, 1.9) if window else hsv(rng.uniform(), rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.8))
        image[here] = blend(image[here], np.array(tone), 6 * (1 - np.maximum(np.abs(du), np.abs(dv))))
    return image.astype(np.float32)


def _window(x: Number, y: Number, a: Number, b: Number, h: int, w: int) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The texels about (x, y), and their offsets from there in units of the half sizes ``a`` and ``b``."""
    columns = slice(int((x - a) * w), int((x + a) * w) + 2)
    rows = slice(int((y - b) * h), int((y + b) * h) + 2)
    u, v = np.meshgrid(np.arange(w)[columns] + 0.5, np.arange(h)[rows] + 0.5)
    return (rows, columns), (u / w - x) / a, (v / h - y) / b
