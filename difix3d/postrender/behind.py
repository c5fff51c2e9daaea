"""A fixer behind a rasteriser."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difix3d.background import behind, recolored, within
from difix3d.distill.confidence import ConfidenceConfig, compare_with_photos, mean_agreement, share_of_fix
from difix3d.distill.references import OFFERED, References, bare
from difix3d.errors import UserError
from difix3d.geometry.carry import Key, carry, share_seen
from difix3d.geometry.holes import fills_holes, without_holes
from difix3d.geometry.warp import COVERED
from difix3d.gpu.lane import Handed, Lane
from difix3d.postrender.pipe import ahead, forgiven, late, tolerant, words
from difix3d.types import Cameras, Degraded, Fixer, Render, RenderFn, Scene, View

CALIBRATION = 3
"""Captured cameras at which it is measured how far fixes agree with photos."""
AHEAD = 2
"""Frames that are rendered while one is fixed."""
LATEST = OFFERED + 1
"""Photos that are kept, as frames of a path share them."""
LEAST_SEEN = 0.4
"""Share of a frame's surface that the last fixed frame has to see, for its changes to be carried there."""
MIXED = 0.5
"""Share of the last fixed frame's change in that of the next one, where every fixed pixel is taken. It costs held-out
photos of five scenes no PSNR, and takes away most of the flicker that fixing adds (docs/method.md)."""
MOST_MIXED = 0.9
"""Share of the last fixed frame's change in that of the next one, at most: mistakes shall go away again."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """A render on its way to the screen.

    Attributes:
        degraded: as fixers get it; of frames between key frames without references, or with those of the key frame
            before, by which holes are filled.
        out: as it is shown.
        is_key: whether it goes through the fixer.
    """

    degraded: Degraded
    out: Render
    is_key: bool


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
        self.photo = lru_cache(LATEST)(photo)
        self.trust = trust
        self.confidence = confidence or ConfidenceConfig()
        self.device = torch.device(device)
        self._train = scene.train.tolist()
        self._alpha = scene.alpha
        self._fills = fills_holes(fixer)
        self._said = False
        self._nearest = References(scene.cameras.to(device), self._train, render)

    @cached_property
    def mean_agreement(self) -> float:
        """Mean agreement of fixes with photos: at three captured cameras, without their own photos."""
        chosen = [self._train[i * (len(self._train) - 1) // CALIBRATION] for i in range(CALIBRATION)]
        prepared = [self._prepare(self._nearest.cameras[i], i).degraded for i in dict.fromkeys(chosen)]
        pairs = zip(prepared, forgiven(tolerant(self.fixer, prepared), self._say), strict=True)
        evidence = [compare_with_photos(item, fixed, self.confidence) for item, fixed in pairs if fixed is not None]
        return mean_agreement(evidence, self.confidence)

    @torch.no_grad()
    def __call__(self, camera: Cameras) -> Render:
        """Renders one camera; alpha and depth are the model's, as the fixer does not touch them."""
        frame = self._prepare(camera.to(self.device))
        rgb = self._trusted(frame.degraded, next(iter(self.fixer([frame.degraded]))))
        return replace(frame.out, rgb=self._shown(frame, rgb)[None])

    def stream(
        self, cameras: Iterable[Cameras], *, every: int = 1, mix: float | None = None
    ) -> Iterator[Float[Tensor, "H W 3"]]:
        """Fixed frames of single cameras, in their order.

        A thread renders two frames ahead while one is fixed, and the next batch (of the fixer's ``batch``, by default
        one) is with the fixer while the caller uses the last.
        The fixer runs in the caller's thread, to which recorded CUDA graphs belong. On a GPU renders, fixes and what
        the caller does are three queues (:mod:`difix3d.gpu.lane`), so that nothing waits for the next fix.

        Cameras may jump, leave the scene, and have different sizes. A frame at which the fixer fails, or in which
        nothing of the model is seen, stays as rendered.

        Args:
            cameras: along a path.
            every: only each ``every``-th frame goes through the fixer, and those of which the one before sees too
                little; what it changed is carried to the frames between (:mod:`difix3d.geometry.carry`). These come
                when the next one is fixed: up to twice ``every`` frames late, for each frame of a batch.
            mix: share, 0..0.9, of the change of the last fixed frame, carried along, in that of the next one. It takes
                away the flicker of a fixer that decides anew for each frame. Default is 0 with trust, which keeps
                what is steady, else 0.5.

        Raises:
            UserError: a number out of its range.
            Exception: what the fixer raises again and again.
        """
        if mix is None:
            mix = 0.0 if self.trust else MIXED
        if every < 1 or not 0 <= mix <= MOST_MIXED:
            raise UserError(f"every is {every}, mix {mix:g}", f"1 or more, and 0 to {MOST_MIXED:g}")
        if self.trust:
            _ = self.mean_agreement  # before the stream begins: a fixer may put its model away at the end of each
        return self._stream(cameras, every, mix)

    @torch.no_grad()
    def _stream(self, cameras: Iterable[Cameras], every: int, mix: float) -> Iterator[Float[Tensor, "H W 3"]]:
        waiting: deque[Handed[Frame]] = deque()

        def keys() -> Iterator[Degraded]:
            for handed in frames:
                waiting.append(handed)
                frame = handed.take()
                if frame.is_key:
                    yield frame.degraded

        before: Key | None = None
        with (  # after an error, too, the thread and the lanes end
            closing(Lane(self.device, urgent=True).each(self._frames(cameras, every))) as renders,
            closing(ahead(renders, AHEAD)) as frames,
            closing(Lane(self.device).each(tolerant(self.fixer, keys()))) as fixes,
        ):
            batch = getattr(self.fixer, "batch", 1)
            for fixed in forgiven((handed.take() for handed in late(fixes, batch)), self._say):
                between = []
                while not (frame := waiting.popleft().take()).is_key:
                    between.append(frame)
                rgb, after = self._fixed(frame, fixed, before, mix, carries=every > 1 or mix > 0)
                yield from self._between(between, before, after)
                yield self._shown(frame, rgb)
                before = after
            yield from self._between([last.take() for last in waiting], before, None)

    @torch.no_grad()
    def _frames(self, cameras: Iterable[Cameras], every: int) -> Iterator[Frame]:
        """The renders; those that are to be fixed with their references."""
        last: Degraded | None = None
        since = 0
        for camera in cameras:
            camera = camera.to(self.device)
            out = replace(self.render(camera), info={})  # it grows with the model, and many frames wait
            since += 1
            frame = self._frame(camera, out, last if since < every else None)
            if last is not None and not frame.is_key and share_seen(frame.degraded, last) < LEAST_SEEN:
                frame = self._frame(camera, out)
            if frame.is_key:
                last, since = frame.degraded, 0
            yield frame

    def _fixed(
        self, frame: Frame, fixed: Float[Tensor, "H W 3"] | None, before: Key | None, mix: float, carries: bool
    ) -> tuple[Float[Tensor, "H W 3"], Key | None]:
        """A frame that went through the fixer, and what is carried from it to others; as rendered where that failed."""
        degraded = frame.degraded
        if fixed is None:
            return degraded.rgb, None
        rgb = self._trusted(degraded, fixed)
        if not carries:
            return rgb, None
        base = self._base(degraded)
        if mix and before is not None:
            carried, seen = carry([before], [1.0], degraded.depth, degraded.camera)
            mixed = base + (1 - mix) * (rgb - base) + mix * carried
            rgb = torch.where(seen[..., None] & _shows_model(degraded), mixed.clamp(0, 1), rgb)
        return rgb, Key(degraded.camera, degraded.depth, rgb - base)

    def _between(
        self, frames: Sequence[Frame], before: Key | None, after: Key | None
    ) -> Iterator[Float[Tensor, "H W 3"]]:
        """Frames between two that were fixed: changed as those were, by how near they are."""
        for place, frame in enumerate(frames, 1):
            rgb = self._base(frame.degraded)
            near = ((before, len(frames) + 1 - place), (after, place))
            known = [(key, float(weight)) for key, weight in near if key is not None]
            if known:
                keys, weights = zip(*known, strict=True)
                change, _ = carry(keys, weights, frame.degraded.depth, frame.degraded.camera)
                rgb = torch.where(_shows_model(frame.degraded), (rgb + change).clamp(0, 1), rgb)
            yield self._shown(frame, rgb)

    @torch.no_grad()
    def _prepare(self, camera: Cameras, own: int = -1) -> Frame:
        """A frame that is to be fixed, whose references are without the photo ``own``."""
        return self._frame(camera, self.render(camera), own=own)

    def _frame(self, camera: Cameras, out: Render, key: Degraded | None = None, *, own: int = -1) -> Frame:
        """A key frame; or one behind a key frame, whose photos say as much about holes as its own would."""
        given = recolored(out, None) if self._alpha else out
        if key is None:
            return Frame(self._nearest.degraded(camera, given, self.photo, own), out, True)
        return Frame(self._nearest.like(key, camera, given) if self._fills else bare(camera, given), out, False)

    def _base(self, degraded: Degraded) -> Float[Tensor, "H W 3"]:
        """What a fix changes, and what is changed likewise in frames near it: the render, without holes if the fixer
        fills them."""
        return without_holes(degraded).rgb if self._fills else degraded.rgb

    @torch.no_grad()
    def _trusted(self, degraded: Degraded, fixed: Float[Tensor, "H W 3"]) -> Float[Tensor, "H W 3"]:
        """As much of a fixed picture as is trusted; nothing of one with NaN or infinite values, as 16 bits may
        give, nor of one that shows nothing of the model."""
        fixed = torch.where(fixed.isfinite().all() & _shows_model(degraded), fixed, degraded.rgb)
        if not self.trust:
            return fixed
        evidence = compare_with_photos(degraded, fixed, self.confidence)
        share = share_of_fix(evidence, (fixed.shape[0], fixed.shape[1]), self.mean_agreement, self.confidence)
        return degraded.rgb + share[..., None] * (fixed - degraded.rgb)

    def _say(self, error: Exception) -> None:
        """Tells the first failure of the fixer."""
        if not self._said:
            logger.warning("the fixer failed at a frame (%s), which stays as rendered", words(error))
        self._said = True

    def _shown(self, frame: Frame, rgb: Float[Tensor, "H W 3"]) -> Float[Tensor, "H W 3"]:
        """Around an object nothing is to be fixed: it stays the colour that it is."""
        if not self._alpha:
            return rgb
        alpha = frame.degraded.alpha
        return behind(within(rgb, alpha), alpha, frame.out.background)


def _shows_model(degraded: Degraded) -> Bool[Tensor, ""]:
    """Whether there is a surface in a frame; where there is none, a fixer makes a film of nothing."""
    return (degraded.alpha > COVERED).any()
