"""Which pairs of photos are matched."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

Pairs = set[tuple[int, int]]
"""Of the photos' numbers, the smaller first."""

WORDS = 64
"""Clusters of descriptors."""
SAMPLE = 500
"""Descriptors of each photo that the clusters are made of."""
ROUNDS = 10
"""Of k-means."""


def exhaustive(count: int) -> Pairs:
    """Each photo with each other."""
    return {(i, j) for i in range(count) for j in range(i + 1, count)}


def sequential(count: int, overlap: int = 10) -> Pairs:
    """Each photo with the next ones, and with some that come 16, 32, 64, ... later (at 10 steps, 10 of these)."""
    steps = [*range(1, overlap + 1), *(2**k for k in range(4, overlap))]
    return {(i, i + step) for step in steps for i in range(count - step)}


def similar(descriptors: Sequence[UInt8[np.ndarray, "_ D"]], neighbours: int, seed: int) -> Pairs:
    """Each photo with those that look most like it.

    Photos are compared by their vectors of locally aggregated descriptors (VLAD: Jégou et al., "Aggregating local
    descriptors into a compact image representation", CVPR 2010; square roots as in Arandjelović and Zisserman, "All
    about VLAD", CVPR 2013). It stands in for a vocabulary tree, which would have to be downloaded.

    Args:
        descriptors: of each photo's features; a photo may have none.
        neighbours: of each photo.
        seed: of the clusters.
    """
    rng = np.random.default_rng(seed)
    sample = [d[rng.permutation(len(d))[:SAMPLE]].astype(np.float32) for d in descriptors]
    if not sum(map(len, sample)):
        return set()
    words = _clusters(np.concatenate(sample), WORDS, rng)
    vectors = np.stack([_vlad(d.astype(np.float32), words) for d in descriptors])
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -np.inf)
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, : min(neighbours, len(vectors) - 1)]
    return {(min(i, j), max(i, j)) for i, row in enumerate(nearest.tolist()) for j in row}


def _clusters(points: Float[np.ndarray, "N D"], count: int, rng: np.random.Generator) -> Float[np.ndarray, "K D"]:
    """Lloyd's k-means, begun from ``count`` of the points."""
    centres = points[rng.permutation(len(points))[:count]]
    for _ in range(ROUNDS):
        label = _nearest(points, centres)
        filled = np.unique(label)
        centres[filled] = [points[label == k].mean(0) for k in filled]
    return centres


def _nearest(points: Float[np.ndarray, "N D"], centres: Float[np.ndarray, "K D"]) -> np.ndarray:
    return ((centres**2).sum(1) - 2 * points @ centres.T).argmin(1)


def _vlad(descriptors: Float[np.ndarray, "N D"], words: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "V"]:
    total = np.zeros_like(words)
    if len(descriptors):
        label = _nearest(descriptors, words)
        np.add.at(total, label, descriptors - words[label])
    total = np.sign(total) * np.sqrt(np.abs(total))
    return total.reshape(-1) / max(float(np.linalg.norm(total)), 1e-12)
