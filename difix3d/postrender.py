"""The "+" of Difix3D+: every rendered frame passes through the fixer once more (section 4.3)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.background import behind, recolored, within
from difix3d.distill.confidence import ConfidenceConfig, compare_with_photos, mean_agreement, share_of_fix
from difix3d.distill.references import References
from difix3d.types import Cameras, Degraded, Fixer, Render, RenderFn, Scene, View

CALIBRATION = 3
"""Captured cameras at which it is measured how far fixes agree with photos."""
AHEAD = 2
"""Frames that are rendered while one is fixed."""

Item = TypeVar("Item")


class PostRender:
    """A model, as it is now, with a fixer behind it: a camera in, a fixed frame out.

    Args:
        render: the model, with depth, over the colour that is to be behind the frames.
        fixer: cleans frames.
        scene: its training photos are the references.
        photo: gives a captured view by its index.
        trust: keep rendered pixels that photos agree with, instead of all fixed ones.
        confidence: the numbers of that.
        device: where the model renders.
    """

    def __init__(
        self,
        render: RenderFn,
        fixer: Fixer,
        scene: Scene,
        photo: Callable[[int], View],
        *,
        trust: bool = True,
        confidence: ConfidenceConfig | None = None,
        device: torch.device | str = "cpu",
    ):
        self.render = render
        self.fixer = fixer
        self.photo = photo
        self.trust = trust
        self.confidence = confidence or ConfidenceConfig()
        self.device = torch.device(device)
        self._train = scene.train.tolist()
        self._alpha = scene.alpha
        self._nearest = References(scene.cameras.to(device), self._train, render)

    @cached_property
    def mean_agreement(self) -> float:
        """Mean agreement of fixes with photos: at three captured cameras, without their own photos."""
        chosen = [self._train[i * (len(self._train) - 1) // CALIBRATION] for i in range(CALIBRATION)]
        prepared = [self._prepare(self._nearest.cameras[i], i)[0] for i in dict.fromkeys(chosen)]
        pairs = zip(prepared, self.fixer(prepared), strict=True)
        evidence = [compare_with_photos(item, fixed, self.confidence) for item, fixed in pairs]
        return mean_agreement(evidence, self.confidence)

    @torch.no_grad()
    def __call__(self, camera: Cameras) -> Render:
        """Renders one camera; alpha and depth are the model's, as the fixer does not touch them."""
        degraded, out = self._prepare(camera.to(self.device))
        rgb = self._finish(degraded, out, next(iter(self.fixer([degraded]))))
        return replace(out, rgb=rgb[None])

    def stream(self, cameras: Iterable[Cameras]) -> Iterator[Float[Tensor, "H W 3"]]:
        """Fixed frames of single cameras, in their order; the next frames are rendered while one is fixed."""
        if self.trust:
            _ = self.mean_agreement  # before the stream begins: a fixer may put its model away at the end of each
        waiting: deque[tuple[Degraded, Render]] = deque()

        def degraded() -> Iterator[Degraded]:
            for item in ahead((self._prepare(camera.to(self.device)) for camera in cameras), AHEAD):
                waiting.append(item)
                yield item[0]

        for fixed in self.fixer(degraded()):
            yield self._finish(*waiting.popleft(), fixed)

    @torch.no_grad()
    def _prepare(self, camera: Cameras, own: int = -1) -> tuple[Degraded, Render]:
        """A render as the fixer gets it, with its references without the photo ``own``, and as it is shown."""
        out = self.render(camera)
        given = recolored(out, None) if self._alpha else out
        return self._nearest.degraded(camera, given, self.photo, own), out

    @torch.no_grad()
    def _finish(self, degraded: Degraded, out: Render, fixed: Float[Tensor, "H W 3"]) -> Float[Tensor, "H W 3"]:
        if self.trust:
            evidence = compare_with_photos(degraded, fixed, self.confidence)
            share = share_of_fix(evidence, (fixed.shape[0], fixed.shape[1]), self.mean_agreement, self.confidence)
            fixed = degraded.rgb + share[..., None] * (fixed - degraded.rgb)
        if self._alpha:  # around the object nothing is to be fixed: it stays the colour that it is
            fixed = behind(within(fixed, degraded.alpha), degraded.alpha, out.background)
        return fixed


def ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
    """The items in their order, up to ``count`` of them made in advance by a thread; its errors are raised here."""
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as worker:
        coming = deque(worker.submit(next, items, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(worker.submit(next, items, end))
            yield item
