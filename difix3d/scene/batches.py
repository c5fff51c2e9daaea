"""The order in which a training sees the photos."""

from collections.abc import Iterator

import numpy as np

from difix3d.types import Scene


def batches(scene: Scene, size: int, seed: int, start: int) -> Iterator[list[int]]:
    """Endless batches of training photos, each of one image size; every photo comes once an epoch.

    The batch of a step follows from the seed and the step alone, so that a resumed run needs no history.

    Args:
        size: photos in a batch; fewer at the end of an epoch.
        start: how many batches were drawn before.
    """
    sizes = np.stack([scene.cameras.width.numpy(), scene.cameras.height.numpy()], 1)[scene.train]
    groups = [scene.train[(sizes == value).all(1)] for value in np.unique(sizes, axis=0)]
    per_epoch = sum(-(-len(group) // size) for group in groups)
    epoch, skip = divmod(start, per_epoch)
    while True:
        rng = np.random.default_rng((seed, epoch))
        chunks = [
            shuffled[i : i + size].tolist()
            for shuffled in map(rng.permutation, groups)
            for i in range(0, len(shuffled), size)
        ]
        for position in rng.permutation(per_epoch)[skip:]:
            yield chunks[position]
        epoch, skip = epoch + 1, 0
