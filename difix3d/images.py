"""Images on disk: read, write, resize. 8 bits per channel, colours as stored, rows from the top."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image

from difix3d.files import whole_file
from difix3d.formats import TURNS, eight_bits, opened, orientation, turned

GAP = 4
"""White pixels between the pictures of a strip."""
BACKGROUND = 255
"""What transparent pixels become: white, as scenes made with Blender expect."""


def image_size(path: Path, turn: int = 1) -> tuple[int, int]:
    """(width, height) from the file's header, if turned by an EXIF orientation; the pixels are not decoded."""
    with opened(path) as image:
        return turned(image.size, turn)


def image_turn(path: Path) -> int:
    """The EXIF orientation (1..8) by which the file asks to be turned when it is shown; from the header."""
    with opened(path) as image:
        return orientation(image)


def read_image(path: Path, size: tuple[int, int] | None = None, turn: int = 1) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes an image, over white where it is transparent; 16-bit channels keep their upper 8 bits.

    Args:
        size: (width, height) to resize to. Large JPEGs are decoded at a fraction of their size then, which is 2-4 times
            faster and leaves the filter at least twice the pixels it needs.
        turn: the EXIF orientation that the pixels are turned by; they are as stored otherwise, whatever the file says.
    """
    size = size and turned(size, turn)
    with opened(path) as image:
        if size is not None:
            image.draft(None, (2 * size[0], 2 * size[1]))
        opaque = _opaque(eight_bits(image))
    if size is not None and opaque.size != size:
        opaque = opaque.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.array(_turn(opaque, turn))


def _turn(image: Image.Image, turn: int) -> Image.Image:
    return image.transpose(TURNS[turn]) if turn in TURNS else image


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.endswith("A"):
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (BACKGROUND,) * 4)
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def read_mask(path: Path, size: tuple[int, int] | None = None, turn: int = 1) -> Bool[np.ndarray, "H W"]:
    """True where a mask file is not zero; resized to (width, height), a pixel counts if half of it does.

    Args:
        turn: the EXIF orientation that the pixels are turned by.
    """
    size = size and turned(size, turn)
    with opened(path) as image:
        values = np.asarray(image if image.mode[0] in "IF" else image.convert("L"))
        mask = Image.fromarray(values > 0).convert("L")
    if size is not None and mask.size != size:
        mask = mask.resize(size, Image.Resampling.BOX)
    return np.asarray(_turn(mask, turn)) > 127


def read_channels(path: Path, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "H W C"]:
    """A grey picture (C = 1), or one with holes (C = 4): alpha becomes 255 or 0, and where it is 0 so does the colour.

    Args:
        size: (width, height) to resize to.
    """
    with opened(path) as image:
        layer = eight_bits(image)
        layer = layer.convert("RGBA" if layer.mode.endswith("A") else "L")
    if size is not None and layer.size != size:
        layer = layer.resize(size, Image.Resampling.BILINEAR)
    pixels = np.array(layer)
    if pixels.ndim == 2:
        return pixels[..., None]
    there = pixels[..., 3:] > 127
    return np.where(there, np.concatenate([pixels[..., :3], np.full_like(pixels[..., 3:], 255)], 2), 0).astype(np.uint8)


def resize(image: UInt8[np.ndarray, "H W 3"], width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
    """Lanczos, antialiased when the image shrinks."""
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def strip(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], axis: int = 1) -> UInt8[np.ndarray, "_ _ 3"]:
    """Pictures beside (axis 1) or below each other (0) on white, with gaps between them."""
    longest = max(picture.shape[1 - axis] for picture in pictures)
    parts: list[np.ndarray] = []
    for picture in pictures:
        margins = [(0, 0), (0, 0), (0, 0)]
        margins[axis] = (GAP if parts else 0, 0)
        margins[1 - axis] = (0, longest - picture.shape[1 - axis])
        parts.append(np.pad(picture, margins, constant_values=255))
    return np.concatenate(parts, axis)


def to_uint8(image: Float[torch.Tensor, "*shape"] | Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """0..1 to 0..255, clamped and rounded to nearest."""
    array = image.detach().cpu().float().numpy() if isinstance(image, torch.Tensor) else image
    return (array.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def write_image(path: Path, image: Shaped[torch.Tensor, "H W C"] | Shaped[np.ndarray, "H W C"], **options: Any) -> None:
    """Writes floats in 0..1 or bytes as an 8-bit file whose format follows from the suffix; the folder is made.

    The file appears complete or not at all. ``options`` go to Pillow (``quality=95``).
    """
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else image
    array = array if array.dtype == np.uint8 else to_uint8(array)
    with whole_file(path, sync=False) as partial:
        Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array).save(partial, **options)
