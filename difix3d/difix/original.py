"""An image file that is to be fixed: as it is seen, and what the result keeps of it."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from difix3d.formats import eight_bits, opened, orientation
from difix3d.images import read_image, turned_upright, write_image

OPAQUE = {".jpg", ".jpeg", ".jfif"}
"""Suffixes of files that have no alpha."""
LOSSY = {".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".heic", ".heif", ".hif"}


@dataclass(frozen=True)
class Original:
    """An image file, turned upright as its EXIF asks.

    Attributes:
        rgb: as it is seen, over white where it is transparent.
        stored: the same with the channels of the file: 1 (grey), 2 (grey, alpha), 3, or 4 (colours, alpha).
        exif, profile: of the file, as bytes; without the orientation, and without a thumbnail of what was not fixed.
    """

    rgb: UInt8[np.ndarray, "H W 3"]
    stored: UInt8[np.ndarray, "H W C"]
    exif: bytes | None
    profile: bytes | None

    def write(self, path: Path, fixed: UInt8[np.ndarray, "H W 3"]) -> None:
        """Writes the fixed picture: grey if the original is, with its alpha, colour profile and EXIF."""
        pixels = fixed
        if self.stored.shape[2] in (2, 4) and path.suffix.lower() not in OPAQUE:
            pixels = _with_alpha(fixed, self.stored)
        elif self.stored.shape[2] < 3:
            pixels = np.asarray(Image.fromarray(fixed).convert("L"))[..., None]
        kept = {"exif": self.exif, "icc_profile": self.profile}
        quality = {"quality": 95} if path.suffix.lower() in LOSSY else {}
        write_image(path, pixels, **quality, **{key: value for key, value in kept.items() if value})


def read_original(path: Path) -> Original:
    """Decodes the file.

    Raises:
        UserError: it cannot be read.
    """
    with opened(path) as image:
        turn = orientation(image)
        exif, profile = _exif(image), image.info.get("icc_profile")
        layer = turned_upright(eight_bits(image), turn)
    stored = np.array(layer).reshape(layer.height, layer.width, -1)
    fits = profile and profile[16:20] == (b"GRAY" if stored.shape[2] < 3 else b"RGB ")  # not one of CMYK
    return Original(read_image(path, turn=turn), stored, exif, profile if fits else None)


def _exif(image: Image.Image) -> bytes | None:
    if image.format == "TIFF":  # whose EXIF is in the table that says where its own pixels lie
        return None
    try:
        exif = Image.Image.getexif(image)
        exif.pop(0x0112, None)
        return exif.tobytes() if len(exif) else None
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return None


def _with_alpha(fixed: UInt8[np.ndarray, "H W 3"], stored: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W C"]:
    """The colours that give the fixed picture over white; where nothing is seen, the stored ones."""
    alpha = stored[..., -1:].astype(np.float32) / 255
    white = 255 * (1 - alpha)
    colors = ((fixed - white) / np.maximum(alpha, 1 / 255)).clip(0, 255).round().astype(np.uint8)
    if stored.shape[2] == 2:
        colors = np.asarray(Image.fromarray(colors).convert("L"))[..., None]
    return np.concatenate([np.where(alpha > 0, colors, stored[..., :-1]), stored[..., -1:]], 2)
