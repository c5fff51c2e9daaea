"""The packed `.ply` layout of SuperSplat (``.compressed.ply``): 16 bytes for a splat, in chunks of 256.

The element ``chunk`` has the bounds of 256 splats each; ``vertex`` has four 32-bit words for each splat; ``sh``, where
there is one, the higher harmonics in bytes. The layout is PlayCanvas's; gsplat writes the same.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt32
from plyfile import PlyData, PlyElement

from difix3d.gaussians.sound import up_to_degree_3
from difix3d.geometry.sh import SH_C0
from difix3d.types import Gaussians

CHUNK = 256
"""Splats that share their bounds."""

SH_RANGE = 8.0
"""Coefficients of the harmonics lie in a range of this width about 0."""

COEFFICIENTS = (0, 9, 24, 45, 72)
COEFFICIENTS_TOLD = "degrees 0 to 4 have 0, 9, 24, 45 or 72"
"""Values of the harmonics above the constant one, by degree."""

Words = UInt32[np.ndarray, "N"]
"""One for each splat."""


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

    words = {
        name: np.asarray(vertex[f"packed_{name}"], np.uint32) for name in ("position", "rotation", "scale", "color")
    }
    color = _bits(words["color"], (24, 8), (16, 8), (8, 8), (0, 8))
    rgb = color[:, :3]
    if "min_r" in {prop.name for prop in chunk.properties}:  # since SuperSplat 2
        low, high = (_columns(chunk, [f"{end}_{channel}" for channel in "rgb"])[of_splat] for end in ("min", "max"))
        rgb = low + rgb * (high - low)
    return Gaussians(
        means=to_tensor(spread(_bits(words["position"], (21, 11), (11, 10), (0, 11)), "{}_{}")),
        quats=to_tensor(_rotations(words["rotation"])),
        scales=to_tensor(spread(_bits(words["scale"], (21, 11), (11, 10), (0, 11)), "{}_scale_{}")),
        opacities=torch.logit(to_tensor(color[:, 3])),
        sh0=to_tensor((rgb - 0.5) / SH_C0)[:, None],
        shN=_harmonics(next((element for element in ply if element.name == "sh"), None), count),
    )


def _bits(words: Words, *fields: tuple[int, int]) -> Float[np.ndarray, "N fields"]:
    """Fields (shift, width) of the words, each as 0..1."""
    return np.stack([(words >> shift & (1 << width) - 1) / ((1 << width) - 1) for shift, width in fields], axis=1)


def _rotations(words: Words) -> Float[np.ndarray, "N 4"]:
    """Unit quaternions (wxyz): the top two bits name the largest component, the three others follow in order."""
    largest = words >> 30
    others = (_bits(words, (20, 10), (10, 10), (0, 10)) - 0.5) * np.sqrt(2)
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
