"""How a training goes: progress, curves, rounds, and what can be asked of it."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import viser
import viser.uplot

from difix3d.training.control import Control
from difix3d.viewer.monitor import Monitor
from difix3d.viewer.status_line import StatusLine

POINTS = 300
"""Of a curve in the browser."""


class TrainingTab:
    """One client's panel.

    Args:
        client: whose.
        monitor: what it shows.
        status_line: tells the client something.
    """

    def __init__(self, client: viser.ClientHandle, monitor: Monitor, status_line: StatusLine):
        self._monitor = monitor
        self._lock = threading.Lock()
        self._version = -1
        live = monitor.control is not None
        gui: Any = client.gui  # mypy takes viser's values for read-only
        self.bar = gui.add_progress_bar(0.0, visible=live)
        self.status = gui.add_markdown("")
        if monitor.control is not None:
            self._add_buttons(client, monitor.control, status_line)
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

    def _add_buttons(self, client: viser.ClientHandle, control: Control, status_line: StatusLine) -> None:
        gui: Any = client.gui
        self.pause = gui.add_button("Pause", icon=viser.Icon.PLAYER_PAUSE)
        self.save = gui.add_button("Save now", icon=viser.Icon.DEVICE_FLOPPY)
        self.fix_now = gui.add_button(
            "Fix now", icon=viser.Icon.SPARKLES, visible=self._monitor.can_fix, hint="A round of novel views, now"
        )

        def toggle() -> None:
            control.resume() if control.paused else control.pause()
            self.pause.label = "Resume" if control.paused else "Pause"

        asks: list[tuple[viser.GuiButtonHandle, Callable[[], Any]]] = [
            (self.pause, toggle),
            (self.save, control.save),
            (self.fix_now, control.request_round),
        ]
        for button, action in asks:
            button.on_click(partial(_ask, status_line, action))


def _ask(status_line: StatusLine, action: Callable[[], Any], _: viser.GuiEvent) -> None:
    status_line.attempt(action)


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
