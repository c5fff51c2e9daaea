"""The compact formats of web viewers and phones: ``.splat`` (antimatter15) and ``.spz`` (Niantic), to be read.

Both say in bytes what the 3DGS layout says in floats. The layouts are those of the READMEs of
github.com/antimatter15/splat and github.com/nianticlabs/spz; of .spz, versions 2 and 3 are one gzip stream, version 4
is a header, a table, and one zstd stream for each attribute.
"""

import gzip
import io
import struct
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float

from difix3d.errors import UserError
from difix3d.gaussians.packed import to_tensor, with_largest
from difix3d.gaussians.sound import up_to_degree_3
from difix3d.gaussians.transform import transform
from difix3d.geometry.poses import FROM_OPENGL
from difix3d.geometry.sh import SH_C0
from difix3d.types import Gaussians

SPZ_MAGIC = b"NGSP"
GZIP_MAGIC = b"\x1f\x8b"

RATIO, SMALL = 60, 16_000_000
"""How many times its size a file may unpack to, beside so many bytes; splats do to two or three times."""

SPZ_COLOR = 0.15
"""How much of the range of a colour's byte one unit of ``f_dc`` is."""


def decode_splat(data: bytes) -> Gaussians:
    """A ``.splat``: 32 bytes for each, namely position and sizes (floats), colour and opacity, quaternion (bytes).

    Raises:
        ValueError: the size is not a multiple of 32 bytes.
    """
    if len(data) % 32:
        raise ValueError(f"{len(data):,} bytes are not a multiple of 32")
    floats = np.frombuffer(data, "<f4").reshape(-1, 8)
    codes = np.frombuffer(data, np.uint8).reshape(-1, 32)
    with np.errstate(divide="ignore", invalid="ignore"):  # what has no size is dropped later
        scales = np.log(floats[:, 3:6])
    return Gaussians(
        means=to_tensor(floats[:, :3]),
        quats=to_tensor((codes[:, 28:].astype(np.float32) - 128) / 128),
        scales=to_tensor(scales),
        opacities=torch.logit(to_tensor(codes[:, 27] / 255)),
        sh0=to_tensor((codes[:, 24:27] / 255 - 0.5) / SH_C0)[:, None],
        shN=torch.zeros(len(codes), 0, 3),
    )


def decode_spz(data: bytes) -> Gaussians:
    """A ``.spz`` of version 2, 3 or 4, turned to the axes of a 3DGS ``.ply``.

    Raises:
        UserError: another version, or harmonics of more than degree 4.
        ValueError, OSError, EOFError, zlib.error, struct.error: the file is damaged.
    """
    if data[:2] == GZIP_MAGIC:
        data = _unpacked(data)
    magic, version, count, degree, fraction = struct.unpack_from("<4sIIBB", data)
    if magic != SPZ_MAGIC:
        raise ValueError("it does not begin like one")
    if version not in (2, 3, 4) or degree > 4:
        raise UserError(
            f"It is a .spz of version {version} with harmonics of degree {degree}",
            "Versions 2 to 4 and degrees 0 to 4 are read",
            "Export it as .ply",
        )
    rotation = 3 if version == 2 else 4  # bytes
    widths = (9, 1, 3, 3, rotation, 3 * ((degree + 1) ** 2 - 1))
    parts = _streams(data) if version == 4 else _cut(data[16:], [count * width for width in widths])
    position, alpha, color, scale, quat, harmonics = (
        np.frombuffer(part, np.uint8, count * width).reshape(count, width)
        for part, width in zip([*parts, b""][: len(widths)], widths, strict=True)
    )
    model = Gaussians(
        means=to_tensor(_fixed_point(position) / 2.0**fraction),
        quats=to_tensor(_spz_v2_rotations(quat) if version == 2 else _spz_rotations(quat)),
        scales=to_tensor(scale / 16 - 10),
        opacities=torch.logit(to_tensor(alpha[:, 0] / 255)),
        sh0=to_tensor((color / 255 - 0.5) / SPZ_COLOR)[:, None],
        shN=up_to_degree_3(to_tensor((harmonics.astype(np.float32) - 128) / 128).reshape(count, widths[5] // 3, 3)),
    )
    return transform(model, FROM_OPENGL)  # y up, z backward; a 3DGS .ply has OpenCV's


def _unpacked(packed: bytes) -> bytes:
    """What a gzip stream holds, if that is not absurdly much: some megabytes can be zeros for hundreds of gigabytes."""
    most = room(packed)
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{len(packed):,} bytes unpack to more than {most:,}")
    return data


def room(packed: bytes) -> int:
    """Bytes that a file may unpack to."""
    return SMALL + RATIO * len(packed)


def _cut(data: bytes, sizes: list[int]) -> list[bytes]:
    ends = np.cumsum([0, *sizes]).tolist()
    return [data[start:end] for start, end in pairwise(ends)]


def _streams(data: bytes) -> list[bytes]:
    """The attributes of version 4, of which the header says how many there are and where their table is."""
    import zstandard

    count, table = struct.unpack_from("<BI", data, 15)
    at, left = table + 16 * count, room(data)
    parts = []
    for index in range(count):
        packed, size = struct.unpack_from("<QQ", data, table + 16 * index)
        left -= size
        if left < 0:
            raise ValueError(f"{len(data):,} bytes unpack to more than {room(data):,}")
        try:
            with zstandard.ZstdDecompressor().stream_reader(data[at : at + packed]) as stream:
                parts.append(stream.read(size))  # what a frame says of its own size is not believed
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        at += packed
    return parts


def _fixed_point(codes: np.ndarray) -> Float[np.ndarray, "N 3"]:
    """Signed integers of three bytes."""
    low, middle, high = np.moveaxis(codes.reshape(-1, 3, 3).astype(np.int64), 2, 0)
    value = low | middle << 8 | high << 16
    return np.where(value >= 1 << 23, value - (1 << 24), value).astype(np.float64)


def _spz_v2_rotations(codes: np.ndarray) -> Float[np.ndarray, "N 4"]:
    """Quaternions (wxyz) of three bytes: x, y, z; w is what is missing to one."""
    xyz = codes / 127.5 - 1
    w = np.sqrt(np.maximum(0.0, 1 - np.square(xyz).sum(1)))
    return np.concatenate([w[:, None], xyz], axis=1)


def _spz_rotations(codes: np.ndarray) -> Float[np.ndarray, "N 4"]:
    """Quaternions (wxyz) of a 32-bit word: the top two bits name the largest of x, y, z, w; the others follow in order,
    nine bits of size and one of sign each."""
    words = np.ascontiguousarray(codes).view("<u4")[:, 0]
    fields = np.stack([words >> shift for shift in (20, 10, 0)], axis=1)
    others = (fields & 511) / 511 * np.sqrt(0.5) * np.where(fields >> 9 & 1, -1.0, 1.0)
    return np.roll(with_largest(others, words >> 30), 1, axis=1)
