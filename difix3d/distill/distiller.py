"""One round of distillation: novel cameras, rendered, fixed, and compared with photos."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from difix3d.background import recolored, within
from difix3d.distill.confidence import ConfidenceConfig, Evidence, compare_with_photos, confidence, mean_agreement
from difix3d.distill.config import DistillConfig
from difix3d.distill.novel import perturbed, toward
from difix3d.distill.pseudo import PseudoViews
from difix3d.distill.references import References
from difix3d.errors import UserError
from difix3d.ranks import ALONE, Ranks
from difix3d.types import Cameras, Degraded, Fixer, RenderFn, Scene, View

KEPT = 0.5
"""Weight of a pixel that is to stay as it was rendered, where a fix counts beside it."""
EDGE = 2
"""Pixels at the edge of an object that novel views do not teach: fixers, which see it over black, draw a rim there."""


@dataclass(frozen=True)
class Round:
    """The result of a round.

    Attributes:
        pseudo: the new training views, which show the render where a fix does not count.
        renders, fixed: what the fixer was given, and what it made of it, 8 bits.
        seconds: time of each phase: ``move``, ``render`` (with the choice of references), ``fix``, ``compare``.
    """

    pseudo: PseudoViews
    renders: tuple[UInt8[Tensor, "_ _ 3"], ...]
    fixed: tuple[UInt8[Tensor, "_ _ 3"], ...]
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Fixed:
    """A novel view of a round, before the round is known as a whole."""

    before: UInt8[Tensor, "H W 3"]
    after: UInt8[Tensor, "H W 3"]
    alpha: UInt8[Tensor, "H W"]
    covered: Float[Tensor, "H W"]
    evidence: Evidence | None
    reference: int
    backdrop: bool

    def on_cpu(self) -> "_Fixed":
        evidence = self.evidence
        if evidence is not None:
            evidence = Evidence(**{name: value.cpu() for name, value in vars(evidence).items()})
        return replace(self, covered=self.covered.cpu(), evidence=evidence)


class Distiller:
    """Makes pseudo views of a model; it holds no state of its own, so that a round follows from its step.

    Args:
        config: what to do.
        scene: whose captured cameras the novel ones start from.
        photo: gives a captured view by its index.
        fixer: cleans renders.
        targets: where the novel cameras go; ``None`` to perturb the captured ones.
        max_steps: length of the run.
        seed: of the perturbations.
        device: where the model renders.
        ranks: the processes, each of which fixes its share of a round; the result is of all.
    """

    def __init__(
        self,
        config: DistillConfig,
        scene: Scene,
        photo: Callable[[int], View],
        fixer: Fixer,
        *,
        targets: Cameras | None,
        max_steps: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        ranks: Ranks = ALONE,
    ):
        self.config = config
        self.scene = scene
        self.photo = photo
        self.fixer = fixer
        self.captured = scene.cameras.to(device)
        self.targets = None if targets is None else targets.to(device)
        self.steps = list(config.schedule(max_steps))
        self.seed = seed
        self.ranks = ranks

    def held_out(self, step: int) -> list[int]:
        """The captured photos that the round at a step neither looks at nor trains on, for the gate; turn by turn."""
        train = self.scene.train
        if self.config.gate == "off" or len(train) < 2:
            return []
        count = max(1, min(self.config.num_held_out, len(train) // 8))
        order = np.random.default_rng(self.seed).permutation(train)
        first = self.steps.index(step) * count
        return [int(order[(first + i) % len(order)]) for i in range(count)]

    def cameras(self, step: int, render: RenderFn) -> Cameras:
        """The novel cameras of the round at a step."""
        captured = self.captured[self.scene.train]
        number = self.steps.index(step) + 1
        if self.targets is None:
            distance = self.config.step_size * number
            generator = torch.Generator().manual_seed((self.seed << 32) + step)
            return perturbed(captured, self.config.num_perturbed, distance, render, generator)
        if self.config.mode == "once":
            return self.targets
        return toward(captured, self.targets, number, self.config.step_size)

    @torch.no_grad()
    def run_round(
        self, render: RenderFn, step: int, progress: Callable[[int, int], None] = lambda _done, _of: None
    ) -> Round:
        """The round at a step of the schedule.

        Args:
            render: the model, with depth.
            step: of the training.
            progress: is told how many views of how many are fixed.

        Raises:
            UserError: the fixer gave something else than a finite image of the render's size.
        """
        clock = Clock()
        with clock("move"):
            cameras = self.cameras(step, render)
        mine = self.ranks.share(range(len(cameras)))
        left_out = set(self.held_out(step))
        references = References(self.captured, [i for i in self.scene.train.tolist() if i not in left_out], render)
        pending: deque[Degraded] = deque()

        def renders() -> Iterator[Degraded]:
            for i in mine:
                with clock("render"):
                    out = render(cameras[i])
                    out = recolored(out, None) if self.scene.alpha else out
                    degraded = references.degraded(cameras[i], out, self.photo)
                pending.append(degraded)
                yield degraded

        stream = self.fixer(renders())
        done: list[_Fixed] = []
        for i in range(len(mine)):
            with clock("fix"):
                fixed = next(stream, None)
            if fixed is None or not pending:
                fault = f"ended after {i} images" if fixed is None else f"gave a second image for render {i - 1}"
                raise UserError(f"The fixer {fault}", f"There are {len(mine)} renders, and one image for each")
            degraded = pending.popleft()
            self._check(fixed, degraded, i)
            fixed = within(fixed, degraded.alpha) if self.scene.alpha else fixed
            with clock("compare"):
                done.append(self._compared(degraded, fixed))
            progress(min((i + 1) * self.ranks.count, len(cameras)), len(cameras))
        next(stream, None)  # ends the stream, so that the fixer can put its model away
        seconds = clock.seconds
        seconds["fix"] -= seconds["render"]  # which runs inside of it
        done = self.ranks.collect(done, len(cameras), _Fixed.on_cpu)
        if self.config.gate == "on":
            evidence = [item.evidence for item in done if item.evidence is not None]
            weights = confidence_maps([item.covered for item in done], evidence, self.config.confidence)
            taught = [kept(item, weight) for item, weight in zip(done, weights, strict=True)]
        else:
            taught = [(item.after, _bytes(item.covered)) for item in done]
        images, confidence = zip(*taught, strict=True)
        pseudo = PseudoViews(
            cameras=cameras.to("cpu"),
            images=images,
            confidence=confidence,
            reference=torch.tensor([item.reference for item in done]),
            weight=self.config.weight,
            step=step,
            alpha=tuple(item.alpha for item in done) if self.scene.alpha else None,
        )
        return Round(pseudo, tuple(item.before for item in done), tuple(item.after for item in done), seconds)

    def _compared(self, degraded: Degraded, fixed: Tensor) -> "_Fixed":
        there = (degraded.alpha >= self.config.min_alpha).float()
        on = self.config.gate == "on"
        return _Fixed(
            before=_bytes(degraded.rgb),
            after=_bytes(fixed),
            alpha=_bytes(degraded.alpha),
            covered=eroded(there, EDGE) if self.scene.alpha else there,
            evidence=compare_with_photos(degraded, fixed, self.config.confidence) if on else None,
            reference=degraded.references[0].index if degraded.references else -1,
            backdrop=degraded.foreground is not None,
        )

    def _check(self, fixed: Tensor, degraded: Degraded, number: int) -> None:
        if fixed.shape != degraded.rgb.shape or not fixed.isfinite().all():
            raise UserError(
                f"The fixer's image of novel camera {number} is {tuple(fixed.shape)}"
                f"{'' if fixed.isfinite().all() else ' with NaN or infinite values'}",
                f"The render is {tuple(degraded.rgb.shape)}, and values are in 0..1",
                "Try other weights (--fixer), or fp32 if they are in half precision",
            )


def kept(view: _Fixed, weight: Float[Tensor, "H W"]) -> tuple[UInt8[Tensor, "H W 3"], UInt8[Tensor, "H W"]]:
    """What a novel view teaches, and the weight of each pixel: where the fix does not count, to stay as rendered.

    No photo need see what is there, and Gaussians that follow the fix beside it would be free to spread over it: black
    behind an object turned grey, round by round. A view in which nothing counts stays without a say; nor is anything
    held without a backdrop, as there holes have to be free to fill from their edges.
    """
    if not view.backdrop:
        return view.after, _bytes(weight)
    rest = (weight == 0) & (view.covered > 0) & weight.any()
    weights, as_rendered = _bytes(torch.stack([torch.where(rest, KEPT, weight), rest.float()]))
    return torch.where(as_rendered[..., None] > 0, view.before, view.after), weights


def eroded(mask: Float[Tensor, "H W"], pixels: int) -> Float[Tensor, "H W"]:
    """A mask of 0 and 1 without the pixels that are so near to its outside."""
    return -torch.nn.functional.max_pool2d(-mask[None], 2 * pixels + 1, 1, pixels)[0]


def confidence_maps(
    covered: Sequence[Float[Tensor, "_ _"]], evidence: Sequence[Evidence], config: ConfidenceConfig
) -> list[Float[Tensor, "_ _"]]:
    """The confidence of each view of a round: where it is covered (1, else 0), as far as the evidence goes."""
    round_agreement = mean_agreement(evidence, config)
    return [
        mask * confidence(item, (mask.shape[0], mask.shape[1]), round_agreement, config)
        for mask, item in zip(covered, evidence, strict=True)
    ]


class Clock:
    """Adds up the seconds of named phases."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("move", "render", "fix", "compare"), 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[phase] += time.perf_counter() - start


def _bytes(values: Tensor) -> Tensor:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
