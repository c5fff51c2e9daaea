"""Do the frames along a path show the same world? By warping each into the next by rendered depth."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, UInt8
from torch import Tensor

from difix3d.geometry.warp import warp
from difix3d.types import Cameras


@dataclass(frozen=True)
class WarpError:
    """Errors of the pairs of frames.

    Attributes:
        errors: for each pair the mean absolute difference over the pixels both see, in 0..1; NaN if there are none.
        mean: over all compared pixels of all pairs, in 0..1; NaN if there are none.
    """

    errors: tuple[float, ...]
    mean: float


def warp_error(
    frames: Sequence[UInt8[Tensor, "H W 3"]],
    depths: Sequence[Float[Tensor, "H W"]],
    cameras: Cameras,
    step: int = 1,
) -> WarpError:
    """Flicker along a path: each frame against the one ``step`` before, warped to its camera by depth.

    It measures the pictures, not the geometry: the depths should come from the same model for all methods that are
    compared. A surface that changes its look with the direction counts as an error too, so that the plain render's
    own error is the scale to compare with. Short and long range as in Lai et al. 2018: ``step`` 1 and more.

    Args:
        frames: pictures along the path, in order.
        depths: rendered depth of each (along the optical axis, 0 where nothing is seen).
        cameras: one for each frame.
        step: frames between the two of a pair.
    """
    errors, pixels = [], []
    for now in range(step, len(frames)):
        before = now - step
        warped, valid = warp(frames[before].float() / 255, depths[before], cameras[before], depths[now], cameras[now])
        difference = (warped - frames[now].float() / 255).abs().mean(-1)[valid]
        errors.append(float(difference.mean()))
        pixels.append(difference.numel())
    total = sum(error * count for error, count in zip(errors, pixels, strict=True) if count)
    return WarpError(
        errors=tuple(errors),
        mean=total / sum(pixels) if sum(pixels) else float("nan"),
    )
