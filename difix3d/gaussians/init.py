"""The first Gaussians: one for each sparse point, as wide as its neighbourhood is sparse (3DGS, section 5.1)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.spatial import KDTree

from difix3d.geometry.sh import SH_C0
from difix3d.limits import Limits
from difix3d.types import Gaussians


@dataclass(frozen=True)
class InitConfig:
    """The first Gaussians."""

    ply: Path | None = None
    """Splat file to start from: .ply, .spz or .splat of any trainer, in the world of the cameras as their files have
    them. What held-out photos tell counts only if it was made without them."""
    points: Annotated[int, Limits(min=1, max=100_000_000)] = 100_000
    """Random points to start from where there are neither sparse nor enough dense ones."""
    opacity: Annotated[float, Limits(above=0, below=1)] = 0.1
    """Initial opacity."""
    scale: Annotated[float, Limits(above=0, max=1000)] = 1.0
    """Initial size, as a multiple of the distance to the nearest three points."""
    dense: Annotated[int, Limits(min=0, max=10_000_000)] = 40_000
    """Points that comparing the training photos finds between the sparse ones (plane-sweep stereo), where these are
    fewer than that: thin things have Gaussians from the start. At most half of --densify.cap-max. 0: none."""
    backdrop: Annotated[int | None, Limits(min=0, max=20_000)] = None
    """Gaussians on an opaque shell far around the scene: behind the model stands what photos show in that direction,
    blurred, instead of black, which takes away fog as well. By default 2,000 if the views asked for are twice as far
    from the photos as these are from each other, by angle; else 0: none. It is in the .ply as well, where who looks
    from far outside sees the shell."""
    seen_by: Annotated[int, Limits(min=0)] = 2
    """Use only sparse points that at least this many training photos see, so that held-out photos do not leak in."""


def from_points(
    points: Float[np.ndarray, "P 3"],
    colors: UInt8[np.ndarray, "P 3"],
    *,
    sh_degree: int = 3,
    opacity: float = 0.1,
    scale: float = 1.0,
) -> Gaussians:
    """Isotropic Gaussians on points.

    Args:
        points: positions in the normalised world; at least one.
        colors: their colours, 0..255.
        sh_degree: degree to make room for; all coefficients but the constant one start at 0.
        opacity: initial opacity in 0..1.
        scale: factor on the initial size, which is the root mean square distance to the three nearest neighbours.
    """
    count = len(points)
    neighbours = min(3, count - 1)
    if neighbours > 0:
        distances, _ = KDTree(points).query(points, k=neighbours + 1, workers=-1)
        size = np.sqrt(np.mean(np.square(distances[:, 1:]), axis=1))
    else:
        size = np.ones(count)
    log_size = torch.from_numpy(np.log(np.maximum(size, 1e-7) * scale)).float()
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1
    return Gaussians(
        means=torch.from_numpy(np.ascontiguousarray(points)).float(),
        quats=quats,
        scales=log_size[:, None].repeat(1, 3),
        opacities=torch.full((count,), float(np.log(opacity / (1 - opacity)))),
        sh0=((torch.from_numpy(colors).float() / 255 - 0.5) / SH_C0)[:, None, :],
        shN=torch.zeros(count, (sh_degree + 1) ** 2 - 1, 3),
    )


def random_points(count: int, radius: float, seed: int) -> tuple[Float[np.ndarray, "P 3"], UInt8[np.ndarray, "P 3"]]:
    """Points and colours drawn evenly from a cube of half-width ``radius`` about the origin."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-radius, radius, (count, 3)).astype(np.float32)
    return points, rng.integers(0, 256, (count, 3), dtype=np.uint8)
