"""Keeps the ways between the cameras clear, so that a model looks the same in viewers without its near plane.

A run draws nothing before its near plane (:func:`difix3d.scene.near_depth`), other viewers do. What they show there is
fog: Gaussians that are large beside their distance. The linearised projection draws them all over the picture when they
stand beside a camera (the footprint grows with 1 / depth), however well they look from elsewhere. So no Gaussian near
the ways between neighbouring cameras may be large, and none far from them a giant, which is drawn so when it comes to
lie aside of a viewer: it is split in two, again and again, while others can still make up for it, and kept small from
then on. What lies right on a way is removed; what is nearer than the near plane fades. And some steps have the near
plane of other viewers, so that the photos tell what does not belong before it.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import KDTree
from torch import Tensor

from difix3d.training.optim import SplatOptimizer
from difix3d.types import Cameras

EVERY, LOOKS = 25, 100
"""Steps between two looks at all Gaussians; in long runs as many as make so many looks a run."""
POINTS, LONGEST = 8, 4.0
"""Points on a way; its length in near planes, above which none leads from one camera to the other."""
RATIO, FAR_RATIO, SMALLEST = 0.15, 0.3, 0.01
"""Largest standard deviation, as a share of the distance to a viewer, in reach of the ways and beyond; never less than
this share of the near plane."""
REACH, CLEAR, ASIDE = 3.0, 0.1, 0.25
"""In near planes, the reach of the ways, how far from them Gaussians are removed, and how far aside viewers may stand.

Removing more is no way out: training photos need what is there, seen from farther cameras.
"""
BLOCK = 2**24
"""Distances between cameras computed at a time, so that long videos fit into memory."""
SHARE = 0.2
"""Of the steps on photos that have the near plane of other viewers."""
ROOM = 0.5
"""Of the most Gaussians, the share up to which large ones are split; beyond it they are made small, and the rest is for
the detail that photos ask for."""
FADE = 0.8
"""Opacity that is left, at each look, to Gaussians nearer to the ways than the near plane: no photo sees a point there,
so that nothing belongs there but what its photos bring back."""
SET_BACK, FAINT = 0.75, 0.01
"""Share of densification at which opacities there are set back to this, where no reset of all takes place."""
STOP = 0.9
"""Share of the run after which none is removed: the last steps mend. Fading and the bound on sizes last to the end."""


class ClearWay:
    """Bounds the Gaussians near the training cameras and the ways between them; held-out cameras are not looked at.

    Args:
        cameras: the training cameras.
        near: near plane of the run, in scene units.
        others_near: that of other viewers.
        split_until: step from which on Gaussians are kept small, not split: as densification.
        max_steps: of the run.
        cap: the most Gaussians; with half as many (:data:`ROOM`), they are made small instead of split.
        set_back: whether opacities of what is nearer than the near plane are set back once, so that densification
            removes what photos do not bring back.
        seed: of the choice of steps.
    """

    def __init__(
        self,
        cameras: Cameras,
        near: float,
        others_near: float,
        *,
        split_until: int,
        max_steps: int,
        cap: int,
        set_back: bool = False,
        seed: int = 0,
    ):
        self.near = near
        self.others_near = others_near
        self.seed = seed
        self.room = ROOM * cap
        self.start = round(0.05 * max_steps)
        self.split_until = split_until
        self.stop = round(STOP * max_steps)
        self.every = max(EVERY, max_steps // LOOKS)
        self.set_back = round(SET_BACK * split_until) if set_back else max_steps
        self.ways = KDTree(ways(cameras.centers, LONGEST * near).cpu().numpy())

    def near_at(self, step: int) -> float:
        """The near plane of a step on photos; it follows from the seed and the step."""
        open_way = step >= self.start and np.random.default_rng((self.seed, step, 2)).random() < SHARE
        return min(self.near, self.others_near) if open_way else self.near

    @torch.no_grad()
    def __call__(self, splats: SplatOptimizer, state: dict[str, Any], step: int) -> None:
        """After a step of the optimisers; ``state`` are statistics by Gaussian, which follow."""
        from gsplat.strategy.ops import remove, split

        if step % self.every or step < self.start:
            return
        distance = self.distance(splats)
        if step < self.stop:
            lost = distance < CLEAR * self.near
            if lost.any() and not lost.all():
                remove(splats.params, splats.optimizers, state, lost)
                distance = distance[~lost]
        self._fade(splats, distance, to=FAINT if step - self.every < self.set_back <= step else 1.0)
        bounded = RATIO * (distance - ASIDE * self.near)
        bounded = torch.where(distance < REACH * self.near, bounded, FAR_RATIO * distance)
        limit = bounded.clamp_min(SMALLEST * self.near)
        scales = splats.params["scales"]
        large: Bool[Tensor, "N"] = scales.amax(1) > limit.log()
        if step < self.split_until and len(scales) + int(large.sum()) <= self.room:
            if large.any():
                split(splats.params, splats.optimizers, state, large, revised_opacity=True)
        else:
            scales.data.copy_(torch.minimum(scales, limit.log()[:, None]))

    def _fade(self, splats: SplatOptimizer, distance: Float[Tensor, "N"], *, to: float) -> None:
        opacities = splats.params["opacities"]
        fading = distance < self.near
        left = (FADE * opacities.data[fading].sigmoid()).clamp_max(to)
        opacities.data[fading] = torch.logit(left, eps=1e-6)

    def distance(self, splats: SplatOptimizer) -> Float[Tensor, "N"]:
        """From each Gaussian to the nearest point on a way; infinite for one that is nowhere."""
        means = splats.params["means"]
        far = torch.finfo(means.dtype).max  # the loss tells of a NaN, and on which photo
        places = torch.nan_to_num(means, nan=far).cpu().numpy()
        distance, _ = self.ways.query(places, workers=-1)
        return torch.from_numpy(distance).to(means)


def ways(centers: Float[Tensor, "C 3"], longest: float) -> Float[Tensor, "W 3"]:
    """Points on the straight ways between neighbours, and the cameras themselves.

    Neighbours are cameras with no third one in the ball of which their way is a diameter (Gabriel and Sokal 1969), so
    that gaps in a row of cameras are bridged. Cameras in the same place, as the faces of a 360 photo are, count once.
    """
    centers = centers.unique(dim=0)
    apart = torch.cdist(centers, centers)
    pairs = (apart <= longest).triu(1).nonzero()
    free = []
    for part in pairs.split(max(1, BLOCK // len(centers))):
        others = torch.cdist(centers[part].mean(1), centers).scatter(1, part, torch.inf)
        free.append(others.amin(1) >= apart[part[:, 0], part[:, 1]] / 2)
    a, b = pairs[torch.cat(free)].T
    share = torch.arange(1, POINTS, device=centers.device)[:, None, None] / POINTS
    between = (1 - share) * centers[a] + share * centers[b]
    return torch.cat([centers, between.reshape(-1, 3)])
