"""The fixer in the viewer: one picture at a time, beside the drawing, as it may take minutes on a CPU."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.background import over
from difix3d.geometry.carry import Key, carry
from difix3d.geometry.holes import fills_holes
from difix3d.geometry.warp import COVERED
from difix3d.postrender import PostRender
from difix3d.types import Cameras, Degraded, Fixer, Gaussians, View
from difix3d.viewer.frames import Frame
from difix3d.viewer.viewer_model import ViewerModel

OLDER = 0.01
"""Weight of the fix before the last one: it counts where the last one does not see the surface."""
QUICK = 1.0
"""Seconds that a fix may take, for key frames in motion: the one at rest waits for the last of them."""


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
        self.fills_holes = fills_holes(fixer)
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


class FixQueue:
    """Fixes pictures of a model, one after the other; those that wait can be cancelled.

    Args:
        viewer_model: has a fixer and photos.
    """

    def __init__(self, viewer_model: ViewerModel):
        assert viewer_model.fixer is not None
        self._model = viewer_model
        self._fixer = RecordingFixer(viewer_model.fixer)
        self.fills_holes = self._fixer.fills_holes
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
            post = PostRender(
                partial(self._model.render, gaussians=gaussians),
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


class ClientFixes:
    """One client's fixes: the one that it asked for last, and what the last two changed, carried to where it moves on.

    Args:
        queue: fixes pictures.
        arrived: is called when a fix is there or has failed.

    Attributes:
        took: seconds of the last fix.
    """

    def __init__(self, queue: FixQueue, arrived: Callable[[], None]):
        self._queue = queue
        self._arrived = arrived
        self._asked: tuple[tuple, Future[Fixed]] | None = None
        self.took, self._held_until = 0.0, 0.0
        self._keys: deque[Key] = deque(maxlen=2)
        self._of: tuple | None = None

    @property
    def holding(self) -> bool:
        """Whether a picture is being fixed, or was just now: a newer model waits until that has been seen."""
        return self._asked is not None and not (self._asked[1].done() and time.monotonic() > self._held_until)

    def fix(
        self, frame: Frame, gaussians: Gaussians, trust: bool, moving: bool
    ) -> tuple[Fixed | None, BaseException | None]:
        """The fixed picture of a frame, or what went wrong with it.

        If it is not there it is asked for, and what waited before is dropped. In motion only key frames are, one after
        the other: a frame neither waits for its fix, nor flickers against the last one (:meth:`carried`).
        """
        key = (*frame.key, trust)
        if moving:
            if self._asked is not None and self._asked[1].done() and self.took < QUICK:
                self._ask(key, frame, gaussians, trust)
            return None, None
        if self._asked is None or self._asked[0] != key:
            self.cancel()
            self._ask(key, frame, gaussians, trust)
        assert self._asked is not None
        future = self._asked[1]
        if not future.done() or future.cancelled():
            return None, None
        if future.exception() is not None:
            return None, future.exception()
        return future.result(), None

    def carried(self, frame: Frame, trust: bool) -> Float[Tensor, "H W 3"] | None:
        """The fixed picture of a frame as far as the last fixes tell; ``None`` if they are of something else."""
        if self._of != (frame.of, trust) or not self._keys:
            return None
        weights = (1.0, OLDER)[: len(self._keys)]
        change, _ = carry(list(self._keys), weights, frame.out.depth_map, frame.camera)
        return (frame.out.rgb[0] + change).clamp(0, 1)

    def cancel(self) -> None:
        """Drops what was asked for, unless it is being fixed already."""
        if self._asked is not None:
            self._asked[1].cancel()

    def _ask(self, key: tuple, frame: Frame, gaussians: Gaussians, trust: bool) -> None:
        future = self._queue.submit(frame.camera, gaussians, trust)
        self._asked = key, future
        future.add_done_callback(partial(self._keep, frame, trust))

    def _keep(self, frame: Frame, trust: bool, future: "Future[Fixed]") -> None:
        """Keeps what a fix changed, and drops what is known of another model or crop."""
        if not future.cancelled() and future.exception() is None:
            fixed = future.result()
            self.took = fixed.seconds
            if self._of != (frame.of, trust):
                self._keys.clear()
                self._of = (frame.of, trust)
            change = fixed.rgb - frame.out.rgb[0].clamp(0, 1)
            if self._queue.fills_holes:  # holes have no place that the colours in them could be carried to
                change = torch.where(frame.out.alpha[0] > COVERED, change, 0.0)
            self._keys.appendleft(Key(frame.camera, frame.out.depth_map, change))
            self._held_until = time.monotonic() + max(2.0, 10 * fixed.seconds)
        self._arrived()
