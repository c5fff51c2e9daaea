"""Image files: opened whatever their kind, or refused with the cure; and any kind of pixel as 8 bits per channel."""

import logging
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Num
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from difix3d.errors import UserError
from difix3d.files import check_file, refuse_pointer

log = logging.getLogger(__name__)

HEIF = {".heic", ".heif", ".hif"}
"""Photos of iPhones and of some cameras; read by pillow-heif, which is an extra."""
IMAGES = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".avif"} | HEIF
"""Suffixes of the files that are taken for images, in lower case."""
RAW = {
    *(".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".3fr", ".iiq"),
    *(".x3f", ".gpr"),
}
"""Of what camera sensors saw, before it is a picture. Many are TIFFs, of which Pillow would take the thumbnail."""

MAX_PIXELS = 1_000_000_000
"""More are refused: they take 4 GB to decode, and a file of some kilobytes can claim to have them."""
LARGE = 64_000_000
"""Pixels of images that are decoded one at a time, whatever the number of threads: 4 bytes each, and as much again."""

HUGE, EMPTY = 200_000_000, 100
"""Pixels from which an image has to have a byte for so many of them: those of photos have one for ten at least."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientations other than 1, and what makes their pixels stand upright; from 5 on width and height are swapped."""

BITS, PHOTOMETRIC, PLANES, SAMPLE_FORMAT = 258, 262, 284, 339
"""Tags of TIFFs."""

_ONE_LARGE = threading.Lock()
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns of more, and refuses twice as many


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image, of which the header is read; what goes wrong when the pixels are decoded is explained, too.

    Raises:
        UserError: it is not there, or not an image, or of a kind that is not read.
    """
    if path.suffix.lower() in RAW:
        raise UserError(f"{path} is a raw photo", "Raw photos are not developed here", "Export it as JPEG, PNG or TIFF")
    check_file(path)
    try:
        with _open(path) as image, _ONE_LARGE if image.width * image.height > LARGE else nullcontext():
            _check_claim(image, path)
            yield image
    except FileNotFoundError:
        raise UserError(f"The image {path} does not exist", "", "Check the path") from None
    except Image.DecompressionBombError:
        limit = f"At most {MAX_PIXELS / 1e6:.0f} megapixels are decoded"
        raise UserError(f"The image {path} is larger than that", limit, "Reduce it, or cut it into parts") from None
    except MemoryError:
        raise UserError(f"There is not enough memory to decode the image {path}", "", "Reduce it") from None
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        reason = str(error).split(" '")[0] or type(error).__name__
        raise UserError(
            f"The image {path} is unreadable ({reason})", "", "Copy it again, or leave it out of the scene"
        ) from None


def _check_claim(image: Image.Image, path: Path) -> None:
    """Refuses an image with so few bytes for its many pixels that it shows nothing: decoding it takes minutes."""
    pixels, size = image.width * image.height, path.stat().st_size
    if pixels > HUGE and size < pixels / EMPTY:
        raise UserError(
            f"The image {path} claims {pixels / 1e6:.0f} megapixels in {size:,} bytes", "It is empty", "Reduce it"
        )


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 (upright) if the file says nothing, or nonsense."""
    try:
        turn = Image.Image.getexif(image).get(0x0112, 1)  # a PNG's own would decode the whole file
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return 1
    return turn if isinstance(turn, int) and turn in TURNS else 1


def turned(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """(width, height) after the pixels are turned by an EXIF orientation; before and after may change places."""
    return (size[1], size[0]) if turn >= 5 else size


def undone(turn: int) -> int:
    """The EXIF orientation that turns back what ``turn`` does."""
    return {6: 8, 8: 6}.get(turn, turn)


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        refuse_pointer(path)
        kind = _kind(path)
        if kind is None:
            raise
        if kind != "HEIF":
            raise UserError(f"The image {path} is {kind}, which is not read", "", "Convert it to PNG or JPEG") from None
        register_heif(path)
        return Image.open(path)


def register_heif(path: Path) -> None:
    """Lets Pillow read and write HEIC, for the file that is named in the error if pillow-heif is not there."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UserError(
            f"The photo {path} is HEIC, which needs pillow-heif", "", "pip install 'difix3d[heic]'"
        ) from None
    register_heif_opener()


def _kind(path: Path) -> str | None:
    """What a file is that Pillow does not know, by its first bytes; ``None`` if that is not known here either."""
    with path.open("rb") as file:
        start = file.read(32)
        if start[:4] in (b"II*\0", b"MM\0*"):
            tags = TiffImagePlugin.ImageFileDirectory_v2(start[:8])
            file.seek(tags.next)
            tags.load(file)
            bits, sample = tags.get(BITS, (1,)), tags.get(SAMPLE_FORMAT, (1,))[0]
            numbers = {2: "signed integers", 3: "floats"}.get(sample, "integers")
            return f"a TIFF of {len(bits)} x {bits[0]}-bit {numbers}"
    if start[4:8] == b"ftyp":
        brands = {start[i : i + 4] for i in (8, *range(16, 32, 4))}
        return "AVIF" if brands & {b"avif", b"avis"} else "Canon's raw photo" if b"crx " in brands else "HEIF"
    kinds = {
        b"\x76\x2f\x31\x01": "OpenEXR (radiances without an upper limit)",
        b"#?R": "Radiance HDR (radiances without an upper limit)",
        b"\xff\x0a": "JPEG XL",
        b"\0\0\0\x0cJXL ": "JPEG XL",
        b"II\x2b\0": "a BigTIFF",
        b"MM\0\x2b": "a BigTIFF",
        b"II\xbc\x01": "JPEG XR",
        b"FUJIFILM": "a raw photo",
    }
    return next((kind for magic, kind in kinds.items() if start.startswith(magic)), None)


def eight_bits(image: Image.Image) -> Image.Image:
    """Decodes: grey or colours of 8 bits, with alpha if the file has any (modes L, LA, RGB, RGBA).

    Values stay as stored, in the colour space they are in: profiles are not applied. Deeper integers are divided by
    their range. Of animations and of files of many pages it is the first picture.

    Raises:
        UserError: floats whose range is not 0..1 or 0..255.
    """
    if getattr(image, "is_animated", False) and image.format != "MPO":  # whose others are previews, or the other eye
        _tell(f"{_folder(image)} holds animations or files of several pages: the first picture of each is read")
    tags = getattr(image, "tag_v2", {})
    if tags.get(PLANES) == 2 and max(tags.get(BITS, (8,))) > 8:  # of which Pillow makes noise
        deep = f"The image {_name(image)} is a TIFF of more than 8 bits with one plane after the other"
        raise UserError(deep, "", "Save it with the channels of a pixel side by side, or as PNG")
    if image.mode == "F":
        return Image.fromarray(_from_floats(np.asarray(image), _name(image)))
    if image.mode.startswith("I"):
        return Image.fromarray(_from_integers(image))
    grey = image.mode in ("1", "L", "LA", "La")
    return image.convert(("L" if grey else "RGB") + ("A" if image.has_transparency_data else ""))


def _from_floats(values: Num[np.ndarray, "H W"], name: str) -> Num[np.ndarray, "H W"]:
    """0..1 (a little beyond is cut), or 0..255, where most of what is not black lies above 1."""
    low, high = (values.min(), values.max()) if np.isfinite(values).all() else (np.nan, np.nan)
    if low >= -0.1 and high <= 1.1:
        return (values.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if low >= -0.1 and 16 < high <= 255.5 and np.median(values[values > 0]) > 1:
        return (values.clip(0, 255) + 0.5).astype(np.uint8)
    raise UserError(
        f"The values of the image {name} reach from {low:.4g} to {high:.4g}",
        "Floats are read that lie in 0..1, or in 0..255",
        "Scale all images alike, or save them as 16-bit PNG or TIFF",
    )


def _from_integers(image: Image.Image) -> Num[np.ndarray, "H W"]:
    """Integers of 16 bits, or of as many as the file says; those of 32 bits are taken for the fewest bytes they fit."""
    tags = getattr(image, "tag_v2", {})
    signed = tags.get(SAMPLE_FORMAT, (1,))[0] == 2
    bits = int(tags.get(BITS, (16,))[0]) - signed
    values = np.asarray(image).astype(np.int64 if bits > 16 else np.int32)
    if bits == 32:
        values = np.asarray(image).astype(np.uint32).astype(np.int64)  # Pillow has them as signed
    top = int(values.max(initial=0))
    if bits > 16:
        bits = 8 if top < 2**8 else 16 if top < 2**16 else bits
    elif bits >= 15 and 0 < top < 4096:
        _tell(
            f"{_folder(image)} holds 16-bit images whose values stay below 4096 of 65535: they are read as they are, "
            "nearly black. If the camera has 12 bits, multiply all of them by 16"
        )
    if tags.get(PHOTOMETRIC) == 0:  # 0 is white
        values = 2**bits - 1 - values
    return (values.clip(0, 2**bits - 1) * 256 >> bits).astype(np.uint8)


def _name(image: Image.Image) -> str:
    return str(getattr(image, "filename", "")) or "without a name"


def _folder(image: Image.Image) -> str:
    return str(Path(_name(image)).parent)


@cache
def _tell(message: str) -> None:
    log.warning("%s", message)
