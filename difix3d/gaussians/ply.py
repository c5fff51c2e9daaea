"""The `.ply` layout of the 3DGS authors, which every splat viewer opens."""

import io
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from difix3d.errors import UserError
from difix3d.files import check_file, refuse_pointer, whole_file
from difix3d.gaussians.offset import comments, local_offset, narrowed, read_offset, taken_off, write_offset
from difix3d.gaussians.packed import COEFFICIENTS, COEFFICIENTS_TOLD, is_packed, pack, unpack
from difix3d.gaussians.sound import sound, up_to_degree_3
from difix3d.types import Gaussians

log = logging.getLogger(__name__)

HEADER, LINES = 500_000, 8_000
"""Bytes and lines of a header, at most: thousands of properties are read."""

NEEDED = (b"vertex", b"vertices", b"point", b"chunk", b"sh")
"""Elements of splats and points, in small letters; what lies behind them all, as a mesh's faces, is not read."""

LISTS = 200_000
"""Rows with lists before the vertices, at most: they are read one by one."""


def write_ply(gaussians: Gaussians, path: Path, *, compressed: bool = False) -> None:
    """Writes a model; the file appears whole or not at all.

    Where 32-bit floats do not hold the positions, the file lies near its own origin, and says in its header and in a
    ``.offset.json`` beside it what to add (:mod:`difix3d.gaussians.offset`).

    Args:
        gaussians: the model, in the world that the file shall be in; the means may be float64.
        path: target file.
        compressed: SuperSplat's packed layout, about a quarter of the size and lossy.

    Raises:
        UserError: the file cannot be written.
    """
    offset = local_offset(gaussians)
    model = taken_off(gaussians.map(lambda tensor: tensor.detach().cpu()), offset)
    with whole_file(path) as partial:
        elements = pack(model) if compressed else [PlyElement.describe(_to_table(model), "vertex")]
        PlyData(elements, byte_order="<", comments=comments(offset)).write(str(partial))
    write_offset(path, offset)


def _to_table(gaussians: Gaussians) -> np.ndarray:
    def flat(tensor: Tensor) -> np.ndarray:
        return tensor.float().reshape(len(gaussians), -1).numpy()

    # the layout keeps normals that nobody uses, and the colour channel as the slow axis of f_rest
    columns = {
        **dict(zip("xyz", flat(gaussians.means).T, strict=True)),
        **{name: np.zeros(len(gaussians), np.float32) for name in ("nx", "ny", "nz")},
        **{f"f_dc_{i}": column for i, column in enumerate(flat(gaussians.sh0).T)},
        **{f"f_rest_{i}": column for i, column in enumerate(flat(gaussians.shN.transpose(1, 2)).T)},
        "opacity": flat(gaussians.opacities)[:, 0],
        **{f"scale_{i}": column for i, column in enumerate(flat(gaussians.scales).T)},
        **{f"rot_{i}": column for i, column in enumerate(flat(gaussians.quats).T)},
    }
    table = np.empty(len(gaussians), dtype=[(name, "<f4") for name in columns])
    for name, column in columns.items():
        table[name] = column
    return table


def read_ply(path: Path) -> Gaussians:
    """Reads a model of any degree of spherical harmonics (no ``f_rest_*`` at all is degree 0), plain or packed
    (SuperSplat's ``.compressed.ply``), in any order and type of the properties; others are passed over. Splats that
    cannot be drawn are dropped with a word (:func:`difix3d.gaussians.sound.sound`).

    Returns:
        The model in the user's world. Its means are float64 where float32 does not hold them: far from the origin,
        with an offset in the header or beside the file. ``transform`` takes it to a world near the origin.

    Raises:
        UserError: the file is missing, damaged, not a splat model, has an impossible number of coefficients, or no
            splat that can be drawn.
    """
    ply = open_ply(path, cure="Pass the point_cloud.ply of a run, or any 3DGS .ply")
    try:
        model = sound(unpack(ply) if is_packed(ply) else _from_table(ply, path), path)
    except (KeyError, ValueError, TypeError) as error:
        raise _unreadable(path, error) from error
    offset = read_offset(path, ply.comments)
    if offset is not None:
        return narrowed(replace(model, means=model.means.double() + torch.from_numpy(offset)))
    model = narrowed(model)
    if model.means.dtype == torch.float64 and torch.equal(model.means, model.means.float().double()):
        log.warning("%s: 32-bit positions are too coarse for its large coordinates; export it near the origin", path)
    return model


def open_ply(path: Path, *, cure: str) -> PlyData:
    """The elements of a PLY file, whatever they are.

    Args:
        path: the file.
        cure: what to do if there is none.

    Raises:
        UserError: the file is missing or damaged.
    """
    check_file(path)
    if not path.exists():
        raise UserError(f"There is no file {path}", cure=cure)
    refuse_pointer(path)
    try:
        with _Reader(path, _header(path)) as file:
            return PlyData.read(file)
    except (
        PlyParseError,
        ArithmeticError,
        LookupError,
        ValueError,
        TypeError,
        EOFError,
        MemoryError,
        OSError,
    ) as error:
        raise _unreadable(path, error) from error


class _Reader(io.BufferedReader):
    """A file with another header of the same length."""

    def __init__(self, path: Path, header: bytes):
        super().__init__(io.FileIO(path))
        self._header = header

    def read(self, size: int | None = -1, /) -> bytes:
        before = self.tell()
        data = super().read(size)
        return self._header[before : before + len(data)] + data[max(0, len(self._header) - before) :]


def _header(path: Path) -> bytes:
    """The header, in which what is not needed has no rows.

    Raises:
        ValueError: it would take minutes to read, or claims more than the file can hold.
    """
    with path.open("rb") as file:
        head = file.read(HEADER)
    end = head.find(b"end_header")
    if end < 0 or head.count(b"\n", 0, end) > LINES:
        raise ValueError(f"its header has more than {HEADER:,} bytes or {LINES:,} lines, or no end")
    first, *elements = re.split(rb"(?<=[\r\n])(?=element\s)", head[:end])
    claimed = needed = 0
    for number, element in enumerate(elements, 1):
        name, count = _rows(element)
        if count < 0:
            raise ValueError(f"it has {count} of {name.decode(errors='replace')}")
        claimed += count * len(re.findall(rb"[\r\n]property\s", element))  # a byte each at least
        needed = number if name.lower() in NEEDED else needed
    if claimed > path.stat().st_size:
        raise ValueError(f"its header claims {claimed:,} bytes at least, and it has {path.stat().st_size:,}")
    lists = sum(_rows(element)[1] for element in elements[:needed] if re.search(rb"[\r\n]property\s+list\s", element))
    if lists > LISTS:
        raise ValueError(f"{lists:,} lists come before its vertices end, and at most {LISTS:,} are read")
    return b"".join([first, *elements[:needed], *map(_without_rows, elements[needed:])])


def _rows(element: bytes) -> tuple[bytes, int]:
    """The name of an element and how many rows it has; what is no header is left to the library."""
    words = re.match(rb"element\s+(\S+)\s+(-?\d{1,20})\s", element)
    return (words[1], int(words[2])) if words else (b"", 0)


def _without_rows(element: bytes) -> bytes:
    return re.sub(rb"^(element\s+\S+\s+)(\d+)", lambda found: found[1] + b"0" * len(found[2]), element)


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} cannot be read as PLY ({error})", cure="Export it again; it may be cut short")


def _from_table(ply: PlyData, path: Path) -> Gaussians:
    table = ply["vertex"]
    names = {prop.name for prop in table.properties}
    needed = [
        *"xyz",
        "opacity",
        "scale_0",
        "scale_1",
        *(f"rot_{i}" for i in range(4)),
        *(f"f_dc_{i}" for i in range(3)),
    ]
    if missing := [name for name in needed if name not in names]:
        raise UserError(
            f"{path} lacks the properties {', '.join(missing)}",
            "a splat model in the 3DGS layout has positions, f_dc_*, opacity, scale_* and rot_*",
            "If it is a plain point cloud, train on it as the scene's points instead",
        )
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest not in COEFFICIENTS:
        raise UserError(f"{path} has {rest} f_rest_* properties", COEFFICIENTS_TOLD)

    def columns(*keys: str, dtype: type = np.float32) -> Tensor:
        return torch.from_numpy(np.stack([np.asarray(table[key], dtype) for key in keys], axis=1))

    count = len(table.data)
    coefficients = columns(*(f"f_rest_{i}" for i in range(rest))) if rest else torch.zeros(count, 0)
    scales = columns(*(name for name in ("scale_0", "scale_1", "scale_2") if name in names))
    if scales.shape[1] == 2:
        log.warning("%s: flat splats (2DGS), which are drawn with a thickness of 1/1000 of their width", path)
        scales = torch.cat([scales, scales.amin(1, keepdim=True) + np.log(1e-3)], 1)
    model = Gaussians(
        means=columns(*"xyz", dtype=np.float64),  # some files have doubles
        quats=columns(*(f"rot_{i}" for i in range(4))),
        scales=scales,
        opacities=columns("opacity")[:, 0],
        sh0=columns(*(f"f_dc_{i}" for i in range(3)))[:, None],
        shN=up_to_degree_3(coefficients.reshape(count, 3, rest // 3).transpose(1, 2)).contiguous(),
    )
    return _filtered(model, columns("filter_3D")) if "filter_3D" in names else model


def _filtered(gaussians: Gaussians, width: Float[Tensor, "N 1"]) -> Gaussians:
    """The model with Mip-Splatting's 3D smoothing filter in its scales and opacities (equation 7), as all others do."""
    before = (2 * gaussians.scales.double()).exp()
    after = before + width.double().square()
    opacities = gaussians.opacities.double().sigmoid() * (before / after).prod(1).sqrt()
    return replace(gaussians, scales=0.5 * after.log().float(), opacities=opacities.logit().float())
