"""The fixer in the viewer: one picture at a time, beside the drawing, as it may take minutes on a CPU."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.background import over
from difix3d.geometry.carry import Key, carry
from difix3d.postrender import PostRender
from difix3d.types import Cameras, Degraded, Fixer, Gaussians, Render, View
from difix3d.viewer.viewer_model import ViewerModel

OLDER = 0.01
"""Weight of the fix before the last one: it counts where the last one does not see the surface."""


@dataclass(frozen=True)
class Fixed:
    """What became of a picture.

    Attributes:
        rgb: the fixed picture, 0..1.
        reference: the photo that the fixer looked at.
        seconds: in the fixer.
    """

    rgb: Float[Tensor, "H W 3"]
    reference: View | None
    seconds: float


class RecordingFixer:
    """A fixer that remembers which photo it looked at last, and how long that picture took."""

    def __init__(self, fixer: Fixer):
        self.fixer = fixer
        self.reference: View | None = None
        self.seconds = 0.0

    def __call__(self, degraded: Iterable[Degraded]) -> Iterator[Float[Tensor, "H W 3"]]:
        start = 0.0

        def noted() -> Iterator[Degraded]:
            nonlocal start
            for item in degraded:
                self.reference = item.references[0] if item.references else None
                start = time.perf_counter()
                yield item

        for image in self.fixer(noted()):
            self.seconds = time.perf_counter() - start
            yield image


class CarriedFix:
    """What the last two fixes changed, carried to a camera that moves on."""

    def __init__(self) -> None:
        self._keys: deque[Key] = deque(maxlen=2)
        self._of: object = None

    def keep(self, of: object, camera: Cameras, out: Render, fixed: Float[Tensor, "H W 3"]) -> None:
        """Keeps a fix of a render; those of anything but ``of`` (a model, a crop, ...) are dropped."""
        if of != self._of:
            self._keys.clear()
            self._of = of
        self._keys.appendleft(Key(camera, out.depth_map, fixed - out.rgb[0].clamp(0, 1)))

    def to(self, of: object, camera: Cameras, out: Render) -> Float[Tensor, "H W 3"] | None:
        """The fixed picture as far as is known; ``None`` where nothing is."""
        if of != self._of or not self._keys:
            return None
        weights = (1.0, OLDER)[: len(self._keys)]
        change, _ = carry(list(self._keys), weights, out.depth_map, camera)
        return (out.rgb[0] + change).clamp(0, 1)


class FixQueue:
    """Fixes pictures of a model, one after the other; those that wait can be cancelled.

    Args:
        viewer_model: has a fixer and photos.
    """

    def __init__(self, viewer_model: ViewerModel):
        assert viewer_model.fixer is not None
        self._model = viewer_model
        self._fixer = RecordingFixer(viewer_model.fixer)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="viewer fixer")
        self._last: tuple[tuple[int, bool], PostRender] | None = None

    def submit(self, camera: Cameras, gaussians: Gaussians, trust: bool) -> "Future[Fixed]":
        """Fixes what a camera sees of a model.

        Args:
            camera: a single one.
            gaussians: the model.
            trust: keep rendered pixels that photos agree with.
        """
        return self._executor.submit(self._fix, camera, gaussians, trust)

    def model(self, gaussians: Gaussians, trust: bool) -> PostRender:
        """The model with the fixer behind it; the last one is kept, with what it knows about the photos."""
        key = (id(gaussians.means), trust)
        if self._last is None or self._last[0] != key:
            render = partial(self._model.render, gaussians=gaussians)
            post = PostRender(
                render,
                self._fixer,
                self._model.scene,
                self._model.photo,
                trust=trust,
                confidence=self._model.confidence,
                device=self._model.device,
            )
            self._last = key, post
        return self._last[1]

    def close(self) -> None:
        """Drops what waits; what is being fixed ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    @torch.no_grad()
    def _fix(self, camera: Cameras, gaussians: Gaussians, trust: bool) -> Fixed:
        post = self.model(gaussians, trust)
        if trust:
            _ = post.mean_agreement  # which looks at other photos
        rgb = post(camera).rgb[0]
        photo = self._fixer.reference
        shown = None if photo is None else over(photo, self._model.settings.get("background"))
        return Fixed(rgb.clamp(0, 1), shown, self._fixer.seconds)
