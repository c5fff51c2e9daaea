"""How a run goes: what is known of it, from a training's events or from its folder, and the panel that shows it."""

import math
import threading
import time
from pathlib import Path

import numpy as np
import viser
import viser.uplot

from difix3d.files import or_nan
from difix3d.training.control import Control
from difix3d.training.events import (
    Evaluated,
    Event,
    Finished,
    Paused,
    PilotDone,
    PilotProgress,
    Resumed,
    RoundDone,
    RoundProgress,
    Saved,
    Started,
    Stepped,
)
from difix3d.training.run import RunFolder
from difix3d.types import Scene
from difix3d.viewer.page import Page

EVERY = 10
"""Steps between the points of the curves; reading a loss waits for the GPU."""
POINTS = 300
"""Of a curve in the browser."""


class Monitor:
    """What is known of a run; an event listener if it is being trained.

    Attributes:
        control: of the training; ``None`` for a run that nobody trains now.
        can_fix: whether rounds can be asked for.
        version: grows when something has changed.
        phase: what goes on, in words.
    """

    def __init__(self, control: Control | None = None, *, can_fix: bool = False):
        self.control, self.can_fix = control, can_fix
        self.version, self.phase = 0, "" if control is None else "not begun yet"
        self.step = 0
        self.last = 0
        self.rate = 0.0
        self.curve: list[tuple[int, float, float]] = []
        self.scores: list[str] = []
        self.rounds: list[str] = []
        self._begin = (0, time.monotonic())

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
            case PilotProgress():
                self.phase = f"pilot: step {event.done} of {event.total}"
            case PilotDone() if not event.pilot.helps:
                self.phase = "training; the pilot found that fixing does not help here, so that there are no rounds"
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
                self.step = event.step
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


class TrainingTab:
    """One client's panel.

    Args:
        page: whose.
        monitor: what it shows.
    """

    def __init__(self, page: Page, monitor: Monitor):
        self._monitor = monitor
        self._lock = threading.Lock()
        self._version = -1
        gui = page.gui
        self.bar = gui.add_progress_bar(0.0, visible=monitor.control is not None)
        self.status = gui.add_markdown("")
        if monitor.control is not None:
            self._add_buttons(page, monitor.control)
        self._plots = [
            gui.add_uplot(
                (np.zeros(1), np.zeros(1)),
                ({}, {"label": name, "stroke": color, "width": 2}),
                title=title,
                scales={"x": {"time": False}},
                aspect=2.0,
                visible=False,
            )
            for name, title, color in (
                ("loss", "Loss", "#c2410c"),
                ("PSNR", "PSNR of the training views, dB", "#1d4ed8"),
            )
        ]
        self.tables = gui.add_markdown("")
        self.update()

    def update(self) -> None:
        """Shows what has changed."""
        monitor = self._monitor
        with self._lock:
            if monitor.version == self._version:
                return
            self._version = monitor.version
            self.status.content = monitor.phase
            if monitor.last:
                self.bar.value = 100 * monitor.step / monitor.last
                self.status.content = (
                    f"Step {monitor.step:,} of {monitor.last:,}, {monitor.rate:.1f} a second: {monitor.phase}"
                )
            if monitor.control is not None:
                self.pause.label = "Resume" if monitor.control.paused else "Pause"
            if len(monitor.curve) > 1:
                curve = smooth(np.array(monitor.curve), POINTS)
                for plot, column in zip(self._plots, (1, 2), strict=True):
                    plot.data, plot.visible = (curve[:, 0], curve[:, column]), True
            self.tables.content = _tables(monitor)

    def _add_buttons(self, page: Page, control: Control) -> None:
        def toggle() -> None:
            control.resume() if control.paused else control.pause()
            self.pause.label = "Resume" if control.paused else "Pause"

        self.pause = page.button("Pause", toggle, icon=viser.Icon.PLAYER_PAUSE)
        self.save = page.button("Save now", control.save, icon=viser.Icon.DEVICE_FLOPPY)
        self.fix_now = page.button(
            "Fix now",
            control.request_round,
            icon=viser.Icon.SPARKLES,
            visible=self._monitor.can_fix,
            hint="A round of novel views, now",
        )


def smooth(curve: np.ndarray, points: int) -> np.ndarray:
    """Means of neighbours, so that at most that many rows are left."""
    size = -(-len(curve) // points)
    return np.stack([curve[i : i + size].mean(0) for i in range(0, len(curve), size)])


def _tables(monitor: Monitor) -> str:
    parts = []
    if monitor.scores:
        parts += ["**Evaluation**", "", "| step | PSNR | SSIM |", "|---|---|---|", *monitor.scores, ""]
    if monitor.rounds:
        head = ["| round | step | views | gate | dB |", "|---|---|---|---|---|"]
        parts += ["**Rounds**", "", *head, *monitor.rounds]
    return "\n".join(parts)


def _score(step: int, plus: bool, mean: dict[str, float | None]) -> str:
    return f"| {step:,}{' +' if plus else ''} | {or_nan(mean['psnr']):.2f} | {or_nan(mean['ssim']):.3f} |"


def _round(number: int, step: int, views: int, decision: str, gain: float | None) -> str:
    return f"| {number} | {step:,} | {views} | {decision} | {'' if gain is None else f'{gain:+.2f}'} |"
