"""Point clouds in ``.ply`` files, with colours in any of the ways that programs write them."""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from plyfile import PlyElement

from difix3d.errors import UserError
from difix3d.gaussians.files import OTHERS, read_splats
from difix3d.gaussians.packed import is_packed
from difix3d.gaussians.ply import open_ply
from difix3d.geometry.sh import SH_C0

log = logging.getLogger(__name__)

COLORS = (
    ("red", "green", "blue"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
    ("r", "g", "b"),
    ("scalar_red", "scalar_green", "scalar_blue"),
    ("scalar_r", "scalar_g", "scalar_b"),
)
"""Names of the three channels, in small letters; the first that are there count."""

HARMONICS = ("f_dc_0", "f_dc_1", "f_dc_2")
"""Of splat models."""

GREYS = ("intensity", "scalar_intensity", "reflectance", "gray", "grey")
"""Names of a single channel, taken where there are no colours."""

STEP = 1e-3
"""Rounding of positions that is worth a word, as a share of the points' spread."""

GREY = 128
"""Of points without colours."""


def read_points(path: Path) -> tuple[Float[np.ndarray, "P 3"], UInt8[np.ndarray, "P 3"]]:
    """The positions and colours of a point cloud, a mesh's vertices, or a splat model's means.

    Colours may be bytes, 16-bit numbers, floats of 0..1 or 0..255, splats' ``f_dc_*`` or a laser's intensity; grey,
    with a word, where there are none.

    Raises:
        UserError: the file is missing, damaged, or has no positions.
    """
    cure = "Copy the points again, or take them out of the scene (ply_file_path)"
    suffix = path.suffix.lower()
    if suffix in OTHERS and path.is_file():
        raise UserError(f"{path} is a {suffix} file", "Points are read from .ply", "Convert it")
    if suffix in (".splat", ".spz"):
        return _of_splat_file(path)
    ply = open_ply(path, cure=cure)
    vertex = next((element for element in ply if element.name.lower() in ("vertex", "vertices", "point")), None)
    columns = {} if vertex is None else {prop.name.lower(): prop.name for prop in vertex.properties}
    if is_packed(ply) or columns.keys() >= {*HARMONICS, "opacity"}:
        return _of_splat_file(path)
    if vertex is None or not columns.keys() >= set("xyz"):
        raise UserError(f"The points {path} have no positions", "The element vertex needs x, y and z", cure)
    try:
        points = np.stack([np.asarray(vertex[columns[axis]], np.float64) for axis in "xyz"], 1)
        _check_steps(points, path)
        return points, _colors(vertex, columns, path)
    except (ValueError, TypeError) as error:  # lists in place of numbers
        raise UserError(f"The points {path} cannot be read ({error})", "", cure) from error


def _check_steps(points: Float[np.ndarray, "P 3"], path: Path) -> None:
    """Says so where the points were rounded to 32-bit floats that are coarse for them, as in survey coordinates."""
    finite = points[np.isfinite(points).all(1)]
    if len(finite) and np.array_equal(finite, finite.astype(np.float32)):
        step = float(np.spacing(np.abs(finite).max().astype(np.float32)))
        spread = float(np.median(np.abs(finite - np.median(finite, axis=0))))
        if step > STEP * spread > 0:
            log.warning("%s: its 32-bit positions are rounded to %g; export them as double", path, step)


def _of_splat_file(path: Path) -> tuple[Float[np.ndarray, "P 3"], UInt8[np.ndarray, "P 3"]]:
    model = read_splats(path)
    return model.means.double().numpy(), _bytes(_of_splats(model.sh0[:, 0].numpy()))


def _colors(vertex: PlyElement, columns: dict[str, str], path: Path) -> UInt8[np.ndarray, "P 3"]:
    def stacked(names: Iterable[str]) -> np.ndarray:
        return np.stack([np.asarray(vertex[columns[name]]) for name in names], 1)

    for names in COLORS:
        if columns.keys() >= set(names):
            return _bytes(_of_range(stacked(names)))
    if columns.keys() >= set(HARMONICS):
        return _bytes(_of_splats(stacked(HARMONICS)))
    grey = next((name for name in GREYS if name in columns), None)
    if grey is not None:
        return np.repeat(_bytes(_of_intensity(stacked([grey]))), 3, axis=1)
    if len(vertex.data):
        log.warning("%s: the points have no colours (red, green, blue); grey is taken for all", path)
    return np.full((len(vertex.data), 3), GREY, np.uint8)


def _of_splats(coefficients: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "P 3"]:
    return 255 * (0.5 + SH_C0 * coefficients.astype(np.float64))


def _of_range(values: np.ndarray) -> Float[np.ndarray, "P 3"]:
    """As 0..255: what range the colours have, their type and their largest values say."""
    colors = values.astype(np.float64)
    known = colors[np.isfinite(colors)]
    if values.dtype == np.uint8 or len(known) == 0:
        return colors
    if values.dtype.kind == "f" and np.quantile(known, 0.95) <= 1:  # a few may be brighter than white
        return 255 * colors
    return colors if known.max() <= 255 else colors * (255 / max(65535, float(known.max())))


def _of_intensity(values: np.ndarray) -> Float[np.ndarray, "P 1"]:
    """As 0..255: bytes as they are; else the brightest but for one of a hundred is white, as lasers have no unit."""
    grey = values.astype(np.float64)
    known = grey[np.isfinite(grey)]
    if values.dtype == np.uint8 or len(known) == 0:
        return grey
    return grey * (255 / max(float(np.quantile(known, 0.99)), 1e-12))


def _bytes(colors: Float[np.ndarray, "P C"]) -> UInt8[np.ndarray, "P C"]:
    return np.where(np.isfinite(colors), colors, GREY).clip(0, 255).round().astype(np.uint8)
