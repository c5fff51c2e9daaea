"""Printed matter: covers, labels, posters, letters."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from difix3d.synthetic.textures import Color, Number, Picture, Rng, hsv, noise

WORDS = [
    "TEA",
    "COFFEE",
    "HONEY",
    "FIELD",
    "NOTES",
    "ATLAS",
    "GARDEN",
    "RIVER",
    "NORTH",
    "LIGHT",
    "SALT",
    "PAPER",
    "ORANGE",
    "SUMMER",
    "HARBOUR",
    "STONE",
    "BREAD",
    "MOON",
    "FOREST",
    "CITY",
    "MUSIC",
    "TRAVEL",
    "HISTORY",
    "POEMS",
    "WINTER",
    "OLIVE",
    "COCOA",
    "BLUE",
    "STAR",
    "SEA",
    "FINE",
    "WILD",
    "EST",
    "1924",
    "No",
    "7",
    "FRESH",
]


def printed(rng: Rng, h: int, w: int, paper: Color, ink: Color, rows: int = 3) -> Picture:
    """A printed cover, label or poster: frames, shapes, words, small print."""
    sheet = Image.new("RGB", (w, h), _srgb(paper))
    draw = ImageDraw.Draw(sheet)
    accent = _srgb(
        hsv(rng.choice([0.02, 0.07, 0.12, 0.3, 0.5, 0.58, 0.64]), rng.uniform(0.45, 0.8), rng.uniform(0.4, 0.9))
    )
    margin = max(2, min(h, w) // 16)
    if rng.uniform() < 0.7:
        draw.rectangle((margin, margin, w - margin, h - margin), outline=_srgb(ink), width=max(1, margin // 3))
    top, bottom = sorted(rng.uniform(0.2, 0.9, 2) * h)
    _picture(draw, rng, (2 * margin, int(top), w - 2 * margin, int(max(bottom, top + 0.25 * h))), accent, _srgb(ink))
    y = 1.6 * margin
    for row in range(rows):
        text = " ".join(rng.choice(WORDS, 1 if row == 0 else 2))
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


def _picture(
    draw: ImageDraw.ImageDraw, rng: Rng, area: tuple[int, int, int, int], accent: tuple[int, ...], ink: tuple[int, ...]
) -> None:
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
            r = rng.uniform(0.04, 0.2) * w
            x = rng.uniform(x0, x1)
            y = rng.uniform(y0, y1)
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
