"""Which photos are compared with which, and how far away what they show may be: by the sparse points they see."""

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array

from difix3d.scene import visible_points
from difix3d.types import Scene

PARTNERS, CANDIDATES = 4, 16
"""Photos, at most, that one is compared with, and among how many that share most points with it they are chosen."""
FEWEST = 5
"""Points that two photos must share."""
NARROW, WIDE, WIDEST = 5.0, 20.0, 50.0
"""Degrees between two rays at a point: up to the first depth is vague, from the second on neighbourhoods look
different, and from the third on they do not match."""
NEARER, FARTHER = 0.7, 1.6
"""What a photo shows lies this many times as far away as its nearest and farthest points, at the least and most."""


class Sightings:
    """The sparse points by the training photos that see them.

    Args:
        scene: its cameras, points and observations.
    """

    def __init__(self, scene: Scene):
        self._photos = scene.train
        self._points = scene.points.astype(np.float64)
        self._centers = scene.cameras.centers.double().cpu().numpy()
        self._forward = scene.cameras.c2w[:, :3, 2].double().cpu().numpy()
        seen = scene.observations[np.isin(scene.observations[:, 1], self._photos)]
        seen = seen[visible_points(scene)[seen[:, 0]]]
        shape = len(scene.photos), len(self._points)
        self._seen = csr_array((np.ones(len(seen), np.int32), (seen[:, 1], seen[:, 0])), shape)
        self._shared = (self._seen @ self._seen.T).toarray()

    def partners(self, photo: int) -> list[int]:
        """The training photos to compare one with, the best first: those that share many points with it, seen under a
        good angle. Empty if there is none."""
        others = self._photos[self._photos != photo]
        shared = self._shared[photo, others]
        likely = others[np.argsort(-shared, kind="stable")[:CANDIDATES]].tolist()
        worth = {other: self._worth(photo, other) for other in likely if self._shared[photo, other] >= FEWEST}
        return sorted((other for other in worth if worth[other] > 0), key=lambda other: -worth[other])[:PARTNERS]

    def depths(self, photo: int) -> tuple[float, float]:
        """How far away what a photo shows may be, along its optical axis."""
        ahead = (self._points[self._of(photo)] - self._centers[photo]) @ self._forward[photo]
        nearest, farthest = np.percentile(ahead[ahead > 0], [1, 99])
        return NEARER * float(nearest), FARTHER * float(farthest)

    def _of(self, photo: int) -> Int[np.ndarray, "N"]:
        return self._seen[[photo]].indices

    def _worth(self, photo: int, other: int) -> float:
        points = self._points[np.intersect1d(self._of(photo), self._of(other))]
        rays = [points - self._centers[one] for one in (photo, other)]
        cosines = (rays[0] * rays[1]).sum(1) / np.prod([np.linalg.norm(ray, axis=1) for ray in rays], axis=0)
        angles = np.degrees(np.arccos(cosines.clip(-1, 1)))
        return float(np.minimum(angles / NARROW, ((WIDEST - angles) / (WIDEST - WIDE)).clip(0, 1)).clip(0, 1).sum())
