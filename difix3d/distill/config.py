"""What distillation can be told; the defaults follow the paper."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from difix3d.distill.confidence import ConfidenceConfig
from difix3d.distill.references import OFFERED
from difix3d.limits import Formerly, Limits
from difix3d.schedule import At, Every

START = 3000
"""Step of the first round of trainings that begin from points."""


@dataclass(frozen=True)
class DistillConfig:
    """Novel views, cleaned by the fixer, as further training views."""

    mode: Literal["auto", "progressive", "once", "off"] = "auto"
    """`progressive`: novel cameras move away from the captured ones round by round. `once`: all at once to their
    targets. `off`: plain 3DGS. `auto`: `progressive`, but `off` with `--fixer mini` where the views asked for lie
    between the photos, as it has nothing to teach there."""
    targets: str = "auto"
    """Where novel cameras go. `eval`: to the held-out cameras (their photos are never looked at). `perturb`: around the
    captured cameras, further each round. Or a camera path file. `auto`: `eval` if photos are held out, else
    `perturb`."""
    start: Annotated[int | None, Limits(min=0)] = None
    """Step of the first round, at the latest a quarter of the run; by default 3000, and 0 where a splat file is begun
    with."""
    every: Annotated[int, Limits(min=1)] = 2000
    """Steps between rounds, at most an eighth of the run."""
    step_size: Annotated[float, Formerly("step"), Limits(min=0)] = 0.5
    """How far a novel camera moves in a round, in scene units."""
    num_perturbed: Annotated[int, Formerly("perturbed"), Limits(min=1)] = 24
    """`perturb`: novel cameras in a round."""
    novel_prob: Annotated[float | None, Formerly("share"), Limits(min=0, max=1)] = None
    """Probability that a training step takes a novel view instead of a photo; by default 0.3, and 0.15 with
    `--fixer mini`, which has less to teach."""
    weight: Annotated[float, Limits(min=0)] = 0.3
    """Loss weight of a novel view; a photo has 1."""
    min_alpha: Annotated[float, Formerly("alpha"), Limits(min=0, max=1)] = 0.5
    """Novel pixels that the Gaussians cover less than this do not count."""
    references: Annotated[int, Limits(min=1, max=OFFERED)] = 1
    """Photos that the fixer looks at beside each render; published weights are trained with one."""
    gate: Literal["on", "off"] = "on"
    """`on`: a fix counts only where photos do not speak against it, and a round is kept only if photos left out of it
    do not get worse. `off`: every fixed pixel counts, as in the paper."""
    trial_steps: Annotated[int, Formerly("probe"), Limits(min=1)] = 100
    """Gate: steps to train, with and without the novel views, before it judges; at most a fifth of `every`."""
    num_held_out: Annotated[int, Formerly("held_out"), Limits(min=1)] = 4
    """Gate: photos to leave out of a round and to judge it by; at most an eighth of the photos, at least one."""
    tolerance: Annotated[float, Limits(min=-100, max=100)] = 0.25
    """Gate: loss of PSNR on the photos left out, in dB, that is still taken for chance."""
    pilot_steps: Annotated[int, Limits(min=0)] = 1000
    """Gate: steps, at most a quarter of the run, of a training without some photos, before the first round. If fixing
    brings its renders no nearer to those photos, nothing is distilled. 0 goes without; so do runs under 1,000 steps and
    captures of fewer than five training photos. Beside a splat file, which has seen all photos, it starts from points,
    and has 500 steps at least."""
    confidence: Annotated[ConfidenceConfig, tyro.conf.Suppress] = field(default_factory=ConfidenceConfig)
    """The numbers by which photos judge fixes; in a YAML file only, not on the command line."""

    def period(self, max_steps: int) -> int:
        """Steps between the rounds of a run."""
        return max(1, min(self.every, max_steps // 8))

    def schedule(self, max_steps: int) -> At:
        """The steps before which novel views are made anew; empty if distillation is off."""
        start = min(START if self.start is None else self.start, max_steps // 4)
        if self.mode == "off" or start >= max_steps:
            return At()
        if self.mode == "once":
            return At(start)
        rounds = Every(self.period(max_steps), start)
        return At(*(step for step in range(max_steps) if step in rounds))

    def steps_of_trial(self, max_steps: int) -> int:
        """Steps of each branch of the gate's trial."""
        return max(1, min(self.trial_steps, self.period(max_steps) // 5))

    def steps_of_pilot(self, max_steps: int) -> int:
        """Steps of the pilot."""
        return min(self.pilot_steps, max_steps // 4)
