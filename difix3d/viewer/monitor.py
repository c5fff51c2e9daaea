"""What is known of a run: of one that is being trained, from its events; of another, from its folder."""

import math
import time
from pathlib import Path

from difix3d.files import or_nan
from difix3d.training import Trainer
from difix3d.training.control import Control
from difix3d.training.events import (
    Evaluated,
    Event,
    Finished,
    Paused,
    Resumed,
    RoundDone,
    RoundProgress,
    Saved,
    Started,
    Stepped,
)
from difix3d.training.run import RunFolder
from difix3d.types import Scene

EVERY = 10
"""Steps between the points of the curves; reading a loss waits for the GPU."""


class Monitor:
    """What is known of a run; an event listener if it is being trained.

    Attributes:
        control: of the training; ``None`` for a run that nobody trains now.
        can_fix: whether rounds can be asked for.
        version: grows when something has changed.
        phase: what goes on, in words.
        finished: whether the training came to its last step.
    """

    def __init__(self, control: Control | None = None, *, can_fix: bool = False):
        self.control, self.can_fix = control, can_fix
        self.version, self.phase = 0, "" if control is None else "not begun yet"
        self.step = 0
        self.last = 0
        self.rate = 0.0
        self.finished = False
        self.curve: list[tuple[int, float, float]] = []
        self.scores: list[str] = []
        self.rounds: list[str] = []
        self._begin = (0, time.monotonic())

    @classmethod
    def of_trainer(cls, trainer: Trainer) -> "Monitor":
        return cls(trainer.control, can_fix=trainer.fixer is not None)

    @classmethod
    def of_run(cls, folder: Path, scene: Scene) -> "Monitor":
        """What a run's folder tells."""
        monitor, run = cls(), RunFolder(folder, scene)
        for row in run.rows("metrics.json"):
            monitor.scores.append(_score(row["step"], row.get("plus", False), row))
        for number, row in enumerate(run.rows("rounds.json"), 1):
            monitor.rounds.append(_round(number, row["step"], len(row["cameras"]), row["decision"], row["gain"]))
        return monitor

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self.step = event.first
                self.last = event.last
                self._begin = (event.first, time.monotonic())
                self.phase = f"training on {event.device}"
            case Stepped():
                self._stepped(event)
            case RoundProgress():
                self.phase = f"fixing novel view {event.done} of {event.total}"
            case RoundDone():
                verdict = event.verdict
                self.rounds.append(_round(event.number, event.step, event.views, verdict.decision, verdict.gain))
                self.phase = "training"
            case Evaluated(step, result, plus):
                self.scores.append(_score(step, plus, {"psnr": result.mean("psnr"), "ssim": result.mean("ssim")}))
            case Saved(step):
                self.phase = f"saved at step {step:,}"
            case Paused():
                self.phase = "paused"
            case Resumed(step):
                self.phase, self._begin = "training", (step, time.monotonic())
            case Finished():
                self.phase = "stopped" if event.interrupted else "finished"
                self.step, self.finished = event.step, not event.interrupted
        if not isinstance(event, Stepped) or event.step % EVERY == 0:
            self.version += 1

    def _stepped(self, event: Stepped) -> None:
        self.step = event.step
        if event.step % EVERY:
            return
        loss, mse = sum(float(value) for value in event.losses.values()), float(event.mse)
        self.curve.append((event.step, loss, -10 * math.log10(max(mse, 1e-12))))
        first, begin = self._begin
        self.rate = (event.step - first) / max(time.monotonic() - begin, 1e-6)


def _score(step: int, plus: bool, mean: dict[str, float | None]) -> str:
    return f"| {step:,}{' +' if plus else ''} | {or_nan(mean['psnr']):.2f} | {or_nan(mean['ssim']):.3f} |"


def _round(number: int, step: int, views: int, decision: str, gain: float | None) -> str:
    return f"| {number} | {step:,} | {views} | {decision} | {'' if gain is None else f'{gain:+.2f}'} |"
