"""Do the frames along a path obey its cameras? By matched features and epipolar lines, without any depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from difix3d.types import Cameras

MIN_MATCHES, MAX_ERROR = 10, 2.0
"""T_matches, and T_error in pixels, of the paper's tables."""

EDGE_THRESHOLD = 30
"""Of SIFT, as in the authors' evaluation: keeps features along edges that the default of 10 drops."""


@dataclass(frozen=True)
class Tsed:
    """Thresholded symmetric epipolar distance.

    Attributes:
        score: share of the adjacent pairs that are consistent; NaN if there are no pairs.
        errors: median distance of each pair in pixels; infinite without matches.
    """

    score: float
    errors: tuple[float, ...]


def tsed(
    frames: Sequence[UInt8[Tensor, "H W 3"]],
    cameras: Cameras,
    min_matches: int = MIN_MATCHES,
    max_error: float = MAX_ERROR,
) -> Tsed:
    """The share of adjacent frames that are consistent with their cameras (Yu et al. 2023, "Photoconsistent NVS").

    A pair is, if it has at least ``min_matches`` SIFT matches whose median symmetric epipolar distance is below
    ``max_error``. Features and matches are COLMAP's (through pycolmap, on the CPU) as in the authors' evaluation:
    ratio test and cross check, no geometric verification. The paper's images are 256 pixels wide: a fixed error is
    stricter on larger ones.

    Args:
        frames: pictures along the path, in order.
        cameras: one for each; two adjacent ones at the same place have no epipolar lines, and their pair counts as
            inconsistent.
    """
    extract, match = _sift()
    counts: list[int] = []
    errors: list[float] = []
    before = None
    for index, frame in enumerate(frames):
        points, features = extract(frame)
        if before is not None:
            pairs = match(before[1], features)
            a, b = before[0][pairs[:, 0]], points[pairs[:, 1]]
            distance = epipolar_distance(a, b, cameras[index - 1], cameras[index])
            counts.append(len(pairs))
            errors.append(float(distance.quantile(0.5)) if len(pairs) else float("inf"))
        before = points, features
    consistent = [n >= min_matches and error < max_error for n, error in zip(counts, errors, strict=True)]
    score = sum(consistent) / len(consistent) if consistent else float("nan")
    return Tsed(score, tuple(errors))


def epipolar_distance(
    a: Float[Tensor, "M 2"], b: Float[Tensor, "M 2"], camera_a: Cameras, camera_b: Cameras
) -> Float[Tensor, "M"]:
    """Mean of the distances of two matched pixels to each other's epipolar line, in pixels.

    Args:
        a, b: pixels of the two images; the centre of the top-left one is at (0.5, 0.5).
        camera_a, camera_b: single cameras. NaN if they are at the same place.
    """
    pose = (camera_b.w2c[0] @ camera_a.c2w[0]).double()
    x, y, z = pose[:3, 3].tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    K_a, K_b = camera_a.K[0].double().cpu(), camera_b.K[0].double().cpu()
    F = torch.linalg.inv(K_b).T @ cross @ pose[:3, :3].cpu() @ torch.linalg.inv(K_a)
    a, b = (torch.cat([p.double().cpu(), torch.ones(len(p), 1, dtype=torch.float64)], 1) for p in (a, b))
    lines_b, lines_a = a @ F.T, b @ F
    residual = (b * lines_b).sum(1).abs()
    return (residual / lines_a[:, :2].norm(dim=1) + residual / lines_b[:, :2].norm(dim=1)).float() / 2


def _sift() -> tuple[Any, Any]:
    """Functions that find features (their pixels, and what to match) and that match those of two images."""
    import pycolmap

    options = pycolmap.FeatureExtractionOptions()
    options.sift.edge_threshold = EDGE_THRESHOLD
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value  # it announces itself on stderr
    try:
        extractor = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
        matcher = pycolmap.FeatureMatcher.create(pycolmap.FeatureMatchingOptions(), pycolmap.Device.cpu)
    finally:
        pycolmap.logging.minloglevel = level

    def extract(frame: Tensor) -> tuple[Tensor, Any]:
        features = extractor.extract(pycolmap.Bitmap.from_array(frame.cpu().numpy()).clone_as_grey())
        return torch.from_numpy(pycolmap.keypoints_to_matrix(features[0])[:, :2].copy()), features

    def match(a: Any, b: Any) -> Tensor:
        return torch.from_numpy(matcher.match(*a, *b).astype(np.int64))

    return extract, match
