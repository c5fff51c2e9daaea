"""Which photos are equirectangular panoramas, where nobody says what camera took them."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from difix3d.formats import eight_bits, opened
from difix3d.images import image_size

SAMPLE = 16
"""Photos, at most and spread evenly, that are looked at."""
HEAD = 1 << 18
"""Bytes at the beginning of a file in which its XMP lies."""
SEAM, POLE, SIDE = 2.0, 0.7, 0.2
"""Limits of what :func:`_looks` gives, measured: of two sets of drawn panoramas the medians are 0.8, 0.2 and 1.3 or
more. Of eight sets of photos, cut to 2:1, they are 3.9 or more, 0.9 or more and 0.4 or more, and of an object on black
0.3, 1.3 and 0."""


def are_panoramas(photos: Sequence[Path]) -> bool:
    """Whether photos of one camera show the whole sphere: twice as wide as high, and either they say so (Google's photo
    sphere XMP), or left and right edge meet in them and the first and the last row are one point each."""
    sizes = {image_size(path) for path in photos}
    if not all(width == 2 * height for width, height in sizes):
        return False
    some = photos[:: -(-len(photos) // SAMPLE) or 1]
    if any(map(_says_so, some)):
        return True
    seam, pole, side = np.median([_looks(path) for path in some], axis=0)
    return bool(seam < SEAM and pole < POLE and side > SIDE)


def _says_so(path: Path) -> bool:
    with path.open("rb") as file:
        return bool(re.search(rb"ProjectionType\W{1,4}(\w+=)?\W{0,2}equirectangular", file.read(HEAD), re.IGNORECASE))


def _looks(path: Path) -> tuple[float, float, float]:
    """How much the edges differ, in steps from one column to the next; how much the first or last row varies and how
    much the first column does, both in shares of what rows do on average."""
    with opened(path) as image:
        image.draft("RGB", (512, 256))
        small = eight_bits(image).convert("RGB").resize((256, 128), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float64)
    step = np.abs(np.diff(pixels, axis=1)).mean() + 1e-9
    vary = np.abs(pixels - pixels.mean(1, keepdims=True)).mean(axis=(1, 2))
    edge = pixels[:, 0]
    typical = vary.mean() + 1e-9
    return (
        float(np.abs(edge - pixels[:, -1]).mean() / step),
        float(max(vary[0], vary[-1]) / typical),
        float(np.abs(edge - edge.mean(0)).mean() / typical),
    )
