"""Models far from the origin of their world (UTM and other survey coordinates), which 32-bit floats do not hold.

Float32 has steps of 0.5 at 5,000,000: splats of that world fall on a grid, and the picture is lost. Such a model keeps
its means in float64 in memory, and lies near the origin of its file, beside which stands what has to be added.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from difix3d.errors import UserError
from difix3d.files import load_json, read_json, write_json
from difix3d.types import Gaussians

FORMAT = "difix3d offset"
COMMENT = "offset"
"""First word of the line of a PLY header that has the offset's three numbers."""

FARTHEST = 1e12
"""Of that size and more is no offset: float64 does not hold splats there either."""

FINE = 0.02
"""Float32 holds positions if its steps are, for the median splat, at most this share of its size."""


def local_offset(gaussians: Gaussians) -> Float[np.ndarray, "3"] | None:
    """What to take off the means so that float32 holds them; ``None`` if it does so as they are.

    It is the median of the means, rounded to a grid as wide as the model, so that its numbers are short.
    """
    means = gaussians.means.detach().double().cpu().numpy()
    sizes = gaussians.scales.detach().double().mean(1).exp().cpu().numpy()
    steps = _median_step(means, sizes)
    if not steps > FINE:
        return None
    middle = np.median(means, axis=0)
    width = max(float(np.median(np.abs(means - middle))), float(np.median(sizes)))
    grid = 2.0 ** np.floor(np.log2(width))
    offset = np.round(middle / grid) * grid
    return offset if _median_step(means - offset, sizes) < 0.5 * steps else None


def _median_step(means: Float[np.ndarray, "N 3"], sizes: Float[np.ndarray, "N"]) -> float:
    """Steps of float32 at the means, as a share of the sizes; of the median splat."""
    steps = np.spacing(np.abs(means).max(1).astype(np.float32)).astype(np.float64)
    return float(np.median(steps / sizes)) if len(means) else 0.0


def narrowed(gaussians: Gaussians) -> Gaussians:
    """The means in float32 if that holds them, else in float64."""
    if local_offset(gaussians) is None:
        return replace(gaussians, means=gaussians.means.float())
    return replace(gaussians, means=gaussians.means.double())


def near_origin(gaussians: Gaussians) -> Float[np.ndarray, "4 4"]:
    """The translation that brings a model near the origin if float32 does not hold it where it is."""
    translation = np.eye(4)
    offset = local_offset(gaussians)
    if offset is not None:
        translation[:3, 3] = -offset
    return translation


def taken_off(gaussians: Gaussians, offset: Float[np.ndarray, "3"] | None) -> Gaussians:
    """The model as its file has it: the means in float32, without the offset."""
    if offset is None:
        return replace(gaussians, means=gaussians.means.float())
    means = gaussians.means.double() - torch.from_numpy(offset).to(gaussians.device)
    return replace(gaussians, means=means.float())


def write_offset(path: Path, offset: Float[np.ndarray, "3"] | None) -> None:
    """Writes the offset of a model's file beside it, or removes an older one if there is none."""
    beside = offset_file(path)
    if offset is not None:
        how = f"Add it to x, y and z of {path.name} to get coordinates of the scene's own world."
        write_json(beside, {"format": FORMAT, "version": 1, "offset": offset.tolist(), "how": how})
    elif _is_ours(beside):
        beside.unlink(missing_ok=True)


def read_offset(path: Path, comments: list[str]) -> Float[np.ndarray, "3"] | None:
    """The offset of a model's file: from its header, else from the file beside it (editors drop comments).

    Raises:
        UserError: the file beside it is damaged.
    """
    for comment in comments:
        words = comment.split()
        if words[:1] == [COMMENT] and len(words) == 4:
            return _numbers(words[1:], path)
    beside = offset_file(path)
    return _numbers(read_json(beside).get("offset"), beside) if _is_ours(beside) else None


def offset_file(path: Path) -> Path:
    """``point_cloud.offset.json`` of ``point_cloud.ply``."""
    return path.with_suffix(".offset.json")


def comments(offset: Float[np.ndarray, "3"] | None) -> list[str]:
    """Lines for the header of a PLY file."""
    if offset is None:
        return []
    numbers = " ".join(repr(value) for value in offset.tolist())
    return [f"{COMMENT} {numbers}", "add the offset to x, y and z to get coordinates of the scene's own world"]


def _is_ours(path: Path) -> bool:
    try:
        content = load_json(path) if path.exists() else None
    except UserError:
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def _numbers(values: object, path: Path) -> Float[np.ndarray, "3"]:
    try:
        offset = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        offset = np.zeros(0)
    if offset.shape != (3,) or not (np.abs(offset) < FARTHEST).all():
        raise UserError(f"The offset of {path} is not three numbers: {values}", cure="Put it right, or export again")
    return offset
