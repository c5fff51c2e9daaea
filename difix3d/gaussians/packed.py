"""The packed `.ply` layout of SuperSplat (``.compressed.ply``): 16 bytes for a splat, in chunks of 256.

The element ``chunk`` has the bounds of 256 splats each; ``vertex`` has four 32-bit words for each splat; ``sh``, where
there is one, the higher harmonics in bytes. The layout is PlayCanvas's; gsplat writes the same.

Splats lie in the order of a curve that fills space (Morton's), so that those of a chunk are neighbours and its bounds
narrow.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt32, UInt64
from plyfile import PlyData, PlyElement

from difix3d.gaussians.sound import finite_rows, up_to_degree_3
from difix3d.geometry.sh import SH_C0
from difix3d.types import Gaussians

CHUNK = 256
"""Splats that share their bounds."""

SH_RANGE = 8.0
"""Coefficients of the harmonics lie in a range of this width about 0."""

COEFFICIENTS = (0, 9, 24, 45, 72)
COEFFICIENTS_TOLD = "degrees 0 to 4 have 0, 9, 24, 45 or 72"
"""Values of the harmonics above the constant one, by degree."""

FAINT = 1 / 255
"""Splats of at most this opacity are not packed: a byte tells them from nothing no more."""

WORDS = ("position", "rotation", "scale", "color")
THREE = ((21, 11), (11, 10), (0, 11))
FOUR = ((24, 8), (16, 8), (8, 8), (0, 8))
ROTATION = ((20, 10), (10, 10), (0, 10))
"""Where numbers lie in a word: shifts and widths in bits."""

Words = UInt32[np.ndarray, "N"]
"""One for each splat."""

Fields = tuple[tuple[int, int], ...]


def is_packed(ply: PlyData) -> bool:
    return "vertex" in ply and "packed_position" in {prop.name for prop in ply["vertex"].properties}


def unpack(ply: PlyData) -> Gaussians:
    """The splats of a packed file.

    Raises:
        KeyError: a property is missing.
        ValueError: there are more splats than chunks have room for, or an odd number of harmonics.
    """
    chunk, vertex = ply["chunk"], ply["vertex"]
    count = len(vertex.data)
    if len(chunk.data) * CHUNK < count:
        raise ValueError(f"{len(chunk.data)} chunks cannot hold {count} splats")
    of_splat = np.arange(count) // CHUNK

    def spread(values: Float[np.ndarray, "N 3"], name: str) -> Float[np.ndarray, "N 3"]:
        """From 0..1 to the bounds of each splat's chunk."""
        low, high = (_columns(chunk, [name.format(end, axis) for axis in "xyz"])[of_splat] for end in ("min", "max"))
        return low + values * (high - low)

    words = {name: np.asarray(vertex[f"packed_{name}"], np.uint32) for name in WORDS}
    color = _bits(words["color"], FOUR)
    rgb = color[:, :3]
    if "min_r" in {prop.name for prop in chunk.properties}:  # since SuperSplat 2
        low, high = (_columns(chunk, [f"{end}_{channel}" for channel in "rgb"])[of_splat] for end in ("min", "max"))
        rgb = low + rgb * (high - low)
    return Gaussians(
        means=to_tensor(spread(_bits(words["position"], THREE), "{}_{}")),
        quats=to_tensor(_rotations(words["rotation"])),
        scales=to_tensor(spread(_bits(words["scale"], THREE), "{}_scale_{}")),
        opacities=torch.logit(to_tensor(color[:, 3])),
        sh0=to_tensor((rgb - 0.5) / SH_C0)[:, None],
        shN=_harmonics(next((element for element in ply if element.name == "sh"), None), count),
    )


def pack(gaussians: Gaussians) -> list[PlyElement]:
    """The elements of a packed file, without splats that are not finite or fainter than :data:`FAINT`.

    Args:
        gaussians: on the CPU, the means in float32.
    """
    good = finite_rows(gaussians) & (gaussians.opacities.sigmoid() > FAINT)
    kept = gaussians.map(lambda tensor: tensor[good])
    order = torch.from_numpy(np.argsort(_morton(kept.means.numpy()), kind="stable"))
    kept = kept.map(lambda tensor: tensor[order])
    means, quats, scales, opacities, sh0 = (
        tensor.double().numpy() for tensor in (kept.means, kept.quats, kept.scales, kept.opacities, kept.sh0)
    )
    alpha = 1 / (1 + np.exp(-opacities[:, None]))
    bounds: dict[str, np.ndarray] = {}
    words = {"packed_rotation": _rotation_words(quats)}
    for word, names, values in (
        ("position", ("{}_x", "{}_y", "{}_z"), means),
        ("scale", ("{}_scale_x", "{}_scale_y", "{}_scale_z"), scales.clip(-20, 20)),
        ("color", ("{}_r", "{}_g", "{}_b"), 0.5 + SH_C0 * sh0[:, 0]),
    ):
        units, low, high = _in_chunks(values)
        bounds |= {name.format("min"): column for name, column in zip(names, low.T, strict=True)}
        bounds |= {name.format("max"): column for name, column in zip(names, high.T, strict=True)}
        words[f"packed_{word}"] = _words(np.c_[units, alpha], FOUR) if word == "color" else _words(units, THREE)
    elements = {
        "chunk": _table(bounds, "<f4"),
        "vertex": _table({f"packed_{name}": words[f"packed_{name}"] for name in WORDS}, "<u4"),
    }
    if kept.shN.shape[1]:
        harmonics = kept.shN.float().transpose(1, 2).flatten(1).numpy()
        codes = np.floor((harmonics / SH_RANGE + 0.5) * 256).clip(0, 255)
        elements["sh"] = _table({f"f_rest_{i}": column for i, column in enumerate(codes.T)}, "u1")
    return [PlyElement.describe(table, name) for name, table in elements.items()]


def _in_chunks(
    values: Float[np.ndarray, "N 3"],
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "chunks 3"], Float[np.ndarray, "chunks 3"]]:
    """The values as 0..1 of their chunk's bounds, and these."""
    starts = np.arange(0, len(values), CHUNK)
    if len(values) == 0:
        return values, values, values
    low, high = (end.reduceat(values, starts).astype(np.float32) for end in (np.minimum, np.maximum))
    width = np.where(high > low, high - low, 1)
    of_splat = np.arange(len(values)) // CHUNK
    return (values - low[of_splat]) / width[of_splat], low, high


def _words(units: Float[np.ndarray, "N fields"], fields: Fields) -> Words:
    """Numbers of 0..1 in the fields of words; the opposite of :func:`_bits`."""
    words = np.zeros(len(units), np.uint32)
    for unit, (shift, width) in zip(units.T, fields, strict=True):
        largest = (1 << width) - 1
        words |= (unit * largest).round().clip(0, largest).astype(np.uint32) << shift
    return words


def _rotation_words(quats: Float[np.ndarray, "N 4"]) -> Words:
    quats = quats / np.maximum(np.linalg.norm(quats, axis=1, keepdims=True), 1e-30)
    largest = np.abs(quats).argmax(1)
    rows = np.arange(len(quats))
    quats = quats * np.where(quats[rows, largest] < 0, -1, 1)[:, None]
    others = quats[largest[:, None] != np.arange(4)].reshape(-1, 3)
    return _words(others / np.sqrt(2) + 0.5, ROTATION) | largest.astype(np.uint32) << 30


def _morton(means: Float[np.ndarray, "N 3"]) -> UInt64[np.ndarray, "N"]:
    """Places along Morton's curve: the bits of three 21-bit coordinates, one of each in turn."""
    if len(means) == 0:
        return np.zeros(0, np.uint64)
    low, high = means.min(0).astype(np.float64), means.max(0)
    cells = ((means - low) / np.maximum(high - low, 1e-30) * (2**21 - 1)).astype(np.uint64)
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        cells = (cells | cells << np.uint64(shift)) & np.uint64(mask)
    return cells[:, 0] | cells[:, 1] << np.uint64(1) | cells[:, 2] << np.uint64(2)


def _table(columns: dict[str, np.ndarray], kind: str) -> np.ndarray:
    table = np.empty(len(next(iter(columns.values()))), [(name, kind) for name in columns])
    for name, column in columns.items():
        table[name] = column
    return table


def _bits(words: Words, fields: Fields) -> Float[np.ndarray, "N fields"]:
    """Fields (shift, width) of the words, each as 0..1."""
    return np.stack([(words >> shift & (1 << width) - 1) / ((1 << width) - 1) for shift, width in fields], axis=1)


def _rotations(words: Words) -> Float[np.ndarray, "N 4"]:
    """Unit quaternions (wxyz): the top two bits name the largest component, the three others follow in order."""
    largest = words >> 30
    others = (_bits(words, ROTATION) - 0.5) * np.sqrt(2)
    return with_largest(others, largest)


def with_largest(others: Float[np.ndarray, "N 3"], largest: UInt32[np.ndarray, "N"]) -> Float[np.ndarray, "N 4"]:
    """Unit quaternions from three components, in order, and the index of the fourth, which is not negative."""
    missing = np.sqrt(np.maximum(0.0, 1 - np.square(others).sum(1)))
    quats = np.empty((len(others), 4))
    for index in range(4):
        here = largest == index
        quats[here] = np.insert(others[here], index, missing[here], axis=1)
    return quats


def _harmonics(element: PlyElement | None, count: int) -> torch.Tensor:
    """Coefficients of degree 1 and more; the middle of what a byte stands for, but for the first and the last."""
    if element is None or not element.properties:
        return torch.zeros(count, 0, 3)
    rest = len(element.properties)
    if rest not in COEFFICIENTS:
        raise ValueError(f"{rest} f_rest_* properties; {COEFFICIENTS_TOLD}")
    codes = _columns(element, [f"f_rest_{i}" for i in range(rest)])
    values = np.where(codes == 0, 0.0, np.where(codes == 255, 1.0, (codes + 0.5) / 256))
    return up_to_degree_3(to_tensor((values - 0.5) * SH_RANGE).reshape(count, 3, -1).transpose(1, 2)).contiguous()


def _columns(element: PlyElement, names: list[str]) -> Float[np.ndarray, "N columns"]:
    return np.stack([np.asarray(element[name], np.float32) for name in names], axis=1)


def to_tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.float32))
