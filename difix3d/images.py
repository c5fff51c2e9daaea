"""Images on disk: read, write, resize. 8 bits per channel, colours as stored, rows from the top."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image

from difix3d.files import whole_file
from difix3d.formats import HEIF, TURNS, eight_bits, opened, orientation, register_heif, turned

GAP = 4
"""White pixels between the pictures of a strip."""


def image_size(path: Path, turn: int = 1) -> tuple[int, int]:
    """(width, height) from the file's header, if turned by an EXIF orientation; the pixels are not decoded."""
    with opened(path) as image:
        return turned(image.size, turn)


def image_turn(path: Path) -> int:
    """The EXIF orientation (1..8) by which the file asks to be turned when it is shown; from the header."""
    with opened(path) as image:
        return orientation(image)


def read_image(
    path: Path, size: tuple[int, int] | None = None, turn: int = 1, *, white: bool = True
) -> UInt8[np.ndarray, "H W 3"]:
    """:func:`read_photo`, over white (or else black) where it is transparent."""
    pixels = read_photo(path, size, turn)
    return pixels[..., :3] + (255 - pixels[..., 3:]) if white and pixels.shape[2] == 4 else pixels[..., :3]


def read_photo(path: Path, size: tuple[int, int] | None = None, turn: int = 1) -> UInt8[np.ndarray, "H W C"]:
    """Decodes an image; 16-bit channels keep their upper 8 bits.

    C is 3, or 4 if some of the image is transparent (files of any kind: RGBA, LA, a palette, a transparent colour). The
    colours of files are not multiplied by alpha, those returned are: as seen over black, and none above its alpha. So
    what is invisible has no say when images are resized, and edges get no fringes (Porter and Duff 1984).

    Args:
        size: (width, height) to resize to. Large JPEGs are decoded at a fraction of their size then, which is 2-4 times
            faster and leaves the filter at least twice the pixels it needs.
        turn: the EXIF orientation that the pixels are turned by; they are as stored otherwise, whatever the file says.
    """
    size = size and turned(size, turn)
    with opened(path) as image:
        if size is not None:
            image.draft(None, (2 * size[0], 2 * size[1]))
        layer = _layer(eight_bits(image))
    if size is not None and layer.size != size:
        # Lanczos overshoots at edges, where alpha would be cut at 1 and colours not: a light fringe
        sharp = Image.Resampling.LANCZOS if layer.mode == "RGB" else Image.Resampling.HAMMING
        layer = layer.resize(size, sharp, reducing_gap=2.0)
    pixels = np.array(turned_upright(layer, turn))
    return pixels if pixels.shape[2] == 3 else np.minimum(pixels, pixels[..., 3:])


def turned_upright(image: Image.Image, turn: int) -> Image.Image:
    """The image turned by an EXIF orientation."""
    return image.transpose(TURNS[turn]) if turn in TURNS else image


def _layer(image: Image.Image) -> Image.Image:
    """As RGB, or as RGBa (premultiplied) where some of it is transparent."""
    if image.mode.endswith("A"):
        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema() != (255, 255):
            return layer.convert("RGBa")
    return image.convert("RGB")


def may_be_transparent(path: Path) -> bool:
    """Whether the file has alpha or a transparent colour, by its header; all of it may be opaque nevertheless."""
    with opened(path) as image:
        return image.has_transparency_data


def straight(premultiplied: UInt8[np.ndarray, "H W 3"], alpha: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 4"]:
    """RGBA as files have it, of colours that are multiplied by alpha."""
    return np.array(Image.fromarray(np.dstack([premultiplied, alpha]), "RGBa").convert("RGBA"))


def read_mask(path: Path, size: tuple[int, int] | None = None, turn: int = 1) -> Bool[np.ndarray, "H W"]:
    """True where a mask file is not zero; resized to (width, height), a pixel counts if half of it does.

    What is transparent does not count either. In a mask of one colour alpha alone says what counts.

    Args:
        turn: the EXIF orientation that the pixels are turned by.
    """
    size = size and turned(size, turn)
    with opened(path) as image:
        values = np.asarray(image if image.mode[0] in "IF" else image.convert("L"))
        counts = values > 0
        if image.has_transparency_data:
            opaque = np.asarray(image.convert("RGBA"))[..., 3] > 0
            counts = opaque if not opaque.all() and values.min() == values.max() else opaque & counts
        mask = Image.fromarray(counts).convert("L")
    if size is not None and mask.size != size:
        mask = mask.resize(size, Image.Resampling.BOX)
    return np.asarray(turned_upright(mask, turn)) > 127


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


def resize(image: UInt8[np.ndarray, "H W C"], width: int, height: int) -> UInt8[np.ndarray, "height width C"]:
    """Lanczos, antialiased when the image shrinks; each channel by itself."""
    if image.shape[:2] == (height, width):
        return image
    if image.shape[2] == 3:
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    channels = np.moveaxis(image, 2, 0)
    resized = [Image.fromarray(c).resize((width, height), Image.Resampling.LANCZOS) for c in channels]
    return np.stack([np.asarray(channel) for channel in resized], 2)


def sample(
    image: UInt8[np.ndarray, "h w C"], shares: Float[np.ndarray, "H W 2"], mode: str
) -> UInt8[np.ndarray, "H W C"]:
    """The image at the given shares (0..1) of its width and height; colours stay below their alpha.

    Args:
        mode: ``bilinear`` or ``bicubic``.
    """
    channels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    where = torch.from_numpy(shares).float()[None] * 2 - 1
    sampled = torch.nn.functional.grid_sample(channels, where, mode, "border", align_corners=False)
    if len(sampled[0]) == 4:  # what bicubic sampling overshoots in alpha it does in colour as well
        sampled = sampled * 255 / sampled[:, 3:].clamp(min=255)
        sampled = torch.minimum(sampled, sampled[:, 3:])
    return sampled[0].permute(1, 2, 0).clamp(0, 255).round().byte().contiguous().numpy()


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
    if isinstance(image, torch.Tensor):
        return to_bytes(image).cpu().numpy()
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def to_bytes(image: Float[torch.Tensor, "*shape"]) -> UInt8[torch.Tensor, "*shape"]:
    """:func:`to_uint8` on the device where the image is."""
    return (image.detach().float().clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def write_image(path: Path, image: Shaped[torch.Tensor, "H W C"] | Shaped[np.ndarray, "H W C"], **options: Any) -> None:
    """Writes floats in 0..1 or bytes as an 8-bit file whose format follows from the suffix; the folder is made.

    The file appears complete or not at all. ``options`` go to Pillow (``quality=95``); PNG is compressed lightly, which
    is several times as fast and hardly larger.
    """
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else image
    array = array if array.dtype == np.uint8 else to_uint8(array)
    if path.suffix.lower() in HEIF:
        register_heif(path)
    if path.suffix.lower() == ".png":
        options = {"compress_level": 1} | options
    with whole_file(path, sync=False) as partial:
        Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array).save(partial, **options)
