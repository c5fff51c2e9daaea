"""Which photos show the part of the scene that a novel camera sees."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.geometry.poses import pose_distance
from difix3d.geometry.warp import seen_by_each, unproject
from difix3d.types import Cameras, Degraded, Render, RenderFn, View

OFFERED = 3
"""Photos that a fixer may look at, and that judge what it makes of a render."""
CANDIDATES = 8
"""Nearest captured cameras among which those are chosen."""
COARSE = 80
"""Long side, in pixels, of the depth maps that overlap is measured with."""
SIDE = 320
"""Long side, in pixels, of the depth maps that photos are carried by."""


def bare(camera: Cameras, out: Render) -> Degraded:
    """A render of a single camera, without references."""
    foreground = None if out.foreground is None else out.foreground[0, ..., 0]
    rgb, alpha = out.rgb[0].clamp(0, 1), out.alpha[0, ..., 0]
    return Degraded(camera.to(rgb.device), rgb, alpha, out.depth_map, foreground=foreground)


class References:
    """Chooses the best of the captured cameras by pose and overlap.

    The nearest pose is not always the best view: a wall may stand between, or the camera look elsewhere. So among the
    eight nearest those count that see most of what the novel camera sees, and of those the nearest come first.

    Args:
        cameras: all captured cameras.
        candidates: indices of those that may be chosen.
        render: the model, whose depth tells what hides what.
    """

    def __init__(self, cameras: Cameras, candidates: Sequence[int], render: RenderFn):
        self.cameras = cameras
        self.candidates = torch.tensor(list(candidates), dtype=torch.long)
        self.render = render
        self._poses = cameras.c2w.cpu()[self.candidates]
        self._depths: dict[tuple[int, int], Float[Tensor, "H W"]] = {}

    def __call__(self, camera: Cameras, depth: Float[Tensor, "H W"], count: int) -> list[int]:
        """The ``count`` best captured cameras for a novel one with its rendered depth, the best first."""
        return self._best(self._near(camera, count), camera, depth)[:count]

    def _best(self, near: list[int], camera: Cameras, depth: Float[Tensor, "H W"]) -> list[int]:
        overlaps = self._overlaps(camera, depth, near)
        enough = 0.9 * max(overlaps)
        # those that see (nearly) as much as the best one come first, by distance; then the others, by overlap
        ranks = [(0.0, i) if overlap >= enough else (1 - overlap, i) for i, overlap in enumerate(overlaps)]
        return [near[i] for _, i in sorted(ranks)]

    def degraded(self, camera: Cameras, out: Render, photo: Callable[[int], View], own: int = -1) -> Degraded:
        """A render of a novel camera as fixers get it: with the best photos, and the depth that their cameras see.

        Args:
            camera: the single novel camera.
            out: what it sees, with depth; all goes to where it is.
            photo: gives a captured view by its index.
            own: the index of a photo that must not be among them.
        """
        near = self._near(camera, OFFERED + (own >= 0))
        best = [index for index in self._best(near, camera, out.depth_map) if index != own][:OFFERED]
        depths = tuple(self.depth(index, SIDE) for index in best)
        photos = tuple(photo(index).to(out.rgb.device) for index in best)
        others = [index for index in near if index != own]
        beside = self.cameras[others] if others else None
        return replace(bare(camera, out), references=photos, reference_depths=depths, near=beside)

    def like(self, other: Degraded, camera: Cameras, out: Render) -> Degraded:
        """A render with the references of another one, which need not be its best."""
        near = self.cameras[self._near(camera, 0)]
        given = bare(camera, out)
        return replace(given, references=other.references, reference_depths=other.reference_depths, near=near)

    def depth(self, index: int, side: int) -> Float[Tensor, "H W"]:
        """Depth map of a captured camera, of at most ``side`` pixels on the long side; rendered once."""
        if (index, side) not in self._depths:
            self._depths[index, side] = self.render(self.cameras[index].limited(side)).depth_map
        return self._depths[index, side]

    def _near(self, camera: Cameras, count: int) -> list[int]:
        """The captured cameras nearest by pose, at least eight if there are so many."""
        order = pose_distance(camera.c2w.cpu(), self._poses).argsort()[: max(CANDIDATES, count)]
        return self.candidates[order].tolist()

    def _overlaps(self, camera: Cameras, depth: Float[Tensor, "H W"], captured: list[int]) -> list[float]:
        """Share of the novel pixels that each captured camera sees as well."""
        stride = max(1, max(depth.shape) // COARSE)
        points = unproject(depth, camera)[::stride, ::stride]
        there = depth[::stride, ::stride] > 0
        sizes: dict[torch.Size, list[int]] = {}
        for index in captured:
            sizes.setdefault(self.depth(index, COARSE).shape, []).append(index)
        seen: dict[int, Tensor] = {}
        for alike in sizes.values():
            depths = torch.stack([self.depth(index, COARSE) for index in alike])
            small = self.cameras[alike].limited(COARSE)
            those, _ = seen_by_each(points, small, depths, tolerance=0.1)
            seen |= zip(alike, (those & there).sum((1, 2)), strict=True)
        counts = [there.sum(), *(seen[index] for index in captured)]
        total, *shared = torch.stack(counts).tolist()  # at once: a GPU is waited for once
        return [count / max(1, total) for count in shared]
