"""Pictures inside of the page: JPEGs as data URIs, and maps of errors as colours."""

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

QUALITY = 82
ERROR_SCALE = 0.25
"""Mean absolute error, 0..1, from which a pixel has the brightest colour."""

_RAMP = np.array([(12, 10, 30), (80, 20, 110), (180, 50, 110), (240, 110, 70), (252, 190, 90), (252, 250, 200)])
"""Dark to bright at equal steps, monotone in lightness, so that it can be read in grey as well."""


def data_uri(image: UInt8[np.ndarray, "H W 3"], side: int) -> str:
    """A picture as text for ``src``, reduced to at most ``side`` pixels on its long side."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def error_map(image: UInt8[np.ndarray, "H W 3"], photo: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Where a picture differs from its photo: dark is right, bright is off by :data:`ERROR_SCALE` or more."""
    error = np.abs(image.astype(np.float32) - photo).mean(-1) / 255
    return colorize(error / ERROR_SCALE)


def colorize(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Values in 0..1 as colours."""
    steps = np.linspace(0, 1, len(_RAMP))
    return np.stack([np.interp(values, steps, channel) for channel in _RAMP.T], -1).round().astype(np.uint8)


def ramp_css() -> str:
    """The colours as a CSS gradient, for the legend."""
    return "linear-gradient(90deg, " + ", ".join(f"rgb({r} {g} {b})" for r, g, b in _RAMP) + ")"
