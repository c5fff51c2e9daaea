"""What distillation can be told; the defaults follow the paper."""

from dataclasses import dataclass
from typing import Literal

from difix3d.errors import UserError
from difix3d.schedule import At, Every

OFFERED = 3
"""Photos that a fixer may look at, and that judge what it makes of a render."""
RANGES = {
    "start": (0, None),
    "every": (1, None),
    "step": (0, None),
    "perturbed": (1, None),
    "share": (0, 1),
    "weight": (0, None),
    "alpha": (0, 1),
    "references": (1, OFFERED),
    "probe": (1, None),
    "held_out": (1, None),
}
"""Least and largest value of each number; ``None`` for no limit."""


@dataclass(frozen=True)
class DistillConfig:
    """Novel views, cleaned by the fixer, as further training views."""

    mode: Literal["progressive", "once", "off"] = "progressive"
    """`progressive`: novel cameras move away from the captured ones round by round. `once`: all at once to their
    targets. `off`: plain 3DGS."""
    targets: str = "auto"
    """Where novel cameras go. `eval`: to the held-out cameras (their photos are never looked at). `perturb`: around the
    captured cameras, further each round. Or a camera path file. `auto`: `eval` if photos are held out, else
    `perturb`."""
    start: int = 3000
    """Step of the first round, at the latest a quarter of the run."""
    every: int = 2000
    """Steps between rounds, at most an eighth of the run."""
    step: float = 0.5
    """How far a novel camera moves in a round, in scene units."""
    perturbed: int = 24
    """`perturb`: novel cameras in a round."""
    share: float = 0.3
    """How often a training step takes a novel view instead of a photo, 0..1. With `--fixer mini`, which has less to
    teach, 0.15 is the default."""
    weight: float = 0.3
    """Loss weight of a novel view; a photo has 1."""
    alpha: float = 0.5
    """Novel pixels that the Gaussians cover less than this do not count, 0..1."""
    references: int = 1
    """Photos that the fixer looks at beside each render, at most 3; published weights are trained with one."""
    gate: Literal["on", "off"] = "on"
    """`on`: a fix counts only where photos do not speak against it, and a round is kept only if photos left out of it
    do not get worse. `off`: every fixed pixel counts, as in the paper."""
    probe: int = 100
    """Gate: steps to train, with and without the novel views, before it judges; at most a fifth of `every`."""
    held_out: int = 4
    """Gate: photos to leave out of a round and to judge it by; at most an eighth of the photos, at least one."""
    tolerance: float = 0.25
    """Gate: loss of PSNR on the photos left out, in dB, that is still taken for chance."""

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not (value >= low and (high is None or value <= high)):
                limit = f"{low} or more" if high is None else f"{low} to {high}"
                raise UserError(f"--distill.{name.replace('_', '-')} is {value}", f"It is {limit}")

    def period(self, max_steps: int) -> int:
        """Steps between the rounds of a run."""
        return max(1, min(self.every, max_steps // 8))

    def schedule(self, max_steps: int) -> At:
        """The steps before which novel views are painted anew; empty if distillation is off."""
        start = min(self.start, max_steps // 4)
        if self.mode == "off" or start >= max_steps:
            return At()
        if self.mode == "once":
            return At(start)
        rounds = Every(self.period(max_steps), start)
        return At(*(step for step in range(max_steps) if step in rounds))

    def probe_steps(self, max_steps: int) -> int:
        """Steps of each branch of the gate's trial."""
        return max(1, min(self.probe, self.period(max_steps) // 5))
