"""Which photos are compared with which, and how far away what they show may be."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from difix3d.scene import visible_points
from difix3d.scene.far import directions
from difix3d.scene.points import seen_depths
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
PHOTOS = 100
"""That are compared, at most, where only their cameras are known: frames of a video stand too close together."""
TURNED = 40.0
"""Degrees between two such cameras' axes, at most."""
NEAREST, FARTHEST = 1.5, 60.0
"""How far away what they show may be, in mean distances between a camera and those it is compared with."""


@dataclass(frozen=True)
class Comparison:
    """What a photo is compared with.

    Attributes:
        partners: other photos, the best first; one at least.
        nearest, farthest: how far away what it shows may be, along its optical axis.
    """

    partners: list[int]
    nearest: float
    farthest: float


def comparisons(scene: Scene) -> dict[int, Comparison]:
    """For each training photo that can be compared with others: by the sparse points that they share, or, where it is
    not known who sees which, by the cameras alone."""
    return by_points(scene) or by_cameras(scene)


def by_points(scene: Scene) -> dict[int, Comparison]:
    """With the photos that share many sparse points with it, seen under a good angle."""
    sightings, found = _Sightings(scene), {}
    for photo in scene.train.tolist():
        partners = sightings.partners(photo)
        if partners:
            found[photo] = Comparison(partners, *sightings.depths(photo))
    return found


def by_cameras(scene: Scene) -> dict[int, Comparison]:
    """With those taken next to it that look the same way."""
    photos = scene.train[:: -(-len(scene.train) // PHOTOS)] if len(scene.train) else scene.train
    cameras = scene.cameras[photos]
    centers, forward = cameras.centers.double().numpy(), cameras.c2w[:, :3, 2].double().numpy()
    distances = np.linalg.norm(centers[:, None] - centers, axis=2)
    distances[(forward @ forward.T < np.cos(np.radians(TURNED))) | (distances <= 0)] = np.inf
    found = {}
    for photo, row in zip(photos.tolist(), distances, strict=True):
        nearest = [index for index in np.argsort(row, kind="stable")[:PARTNERS] if np.isfinite(row[index])]
        if nearest:
            apart = float(row[nearest].mean())
            found[photo] = Comparison(photos[nearest].tolist(), NEAREST * apart, FARTHEST * apart)
    return found


class _Sightings:
    """The sparse points by the training photos that see them, in front of their cameras."""

    def __init__(self, scene: Scene):
        self._scene = scene
        seen = scene.observations[np.isin(scene.observations[:, 1], scene.train)]
        seen = np.unique(seen[visible_points(scene)[seen[:, 0]]], axis=0)  # a track may have a photo twice
        depths = seen_depths(scene, seen)
        seen, depths = seen[depths > 0], depths[depths > 0]
        self._depths = csr_array((depths, (seen[:, 1], seen[:, 0])), (len(scene.photos), len(scene.points)))
        sees = self._depths.astype(bool).astype(np.int32)
        self._shared = (sees @ sees.T).toarray()

    def partners(self, photo: int) -> list[int]:
        others = self._scene.train[self._scene.train != photo]
        shared = self._shared[photo, others]
        likely = others[np.argsort(-shared, kind="stable")[:CANDIDATES]].tolist()
        worth = {other: self._worth(photo, other) for other in likely if self._shared[photo, other] >= FEWEST}
        return sorted((other for other in worth if worth[other] > 0), key=lambda other: -worth[other])[:PARTNERS]

    def depths(self, photo: int) -> tuple[float, float]:
        nearest, farthest = np.percentile(self._depths[[photo]].data, [1, 99])
        return NEARER * float(nearest), FARTHER * float(farthest)

    def _worth(self, photo: int, other: int) -> float:
        both = np.intersect1d(*(self._depths[[one]].indices for one in (photo, other)))
        rays = directions(self._scene.cameras[[photo, other]], self._scene.points[both].astype(np.float64))
        angles = np.degrees(np.arccos((rays[0] * rays[1]).sum(1).clip(-1, 1)))
        return float(np.minimum(angles / NARROW, ((WIDEST - angles) / (WIDEST - WIDE)).clip(0, 1)).clip(0, 1).sum())
