"""When a client's picture is drawn, and how large: small while the camera moves, full when it rests."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from difix3d.types import Cameras, Render

REST = 0.2
"""Seconds without a move after which a camera rests."""
FRAME = 1 / 12
"""Seconds that a frame may take in motion."""
SMALLEST = 0.15
"""Least scale in motion."""


@dataclass(frozen=True)
class Frame:
    """A render.

    Attributes:
        of: what it is of: a model, and a crop of it; equal ones are equal Gaussians.
        key: that and the camera; equal ones are equal renders.
        camera: on the model's device.
        out: with depth.
        seconds: that it took.
    """

    of: tuple
    key: tuple
    camera: Cameras
    out: Render
    seconds: float


class AdaptiveScale:
    """Scale of the pictures in motion, 0.15 to 1, so that each takes about :data:`FRAME`."""

    def __init__(self) -> None:
        self.scale = 0.5

    def took(self, seconds: float) -> None:
        """Adapts to the time of a frame in motion; the time goes with the pixels, and those with the scale squared."""
        change = (FRAME / max(seconds, 1e-4)) ** 0.5
        self.scale = min(1.0, max(SMALLEST, self.scale * min(1.3, max(0.5, change))))


class FrameLoop(threading.Thread):
    """Draws when something has changed; changes that come meanwhile are one, so that no request waits in line.

    Args:
        draw: is told whether the camera moves; returns after how many seconds to draw again by itself, or ``None``.
        failed: is given what ``draw`` raised; the loop goes on.

    Attributes:
        closed: whether nothing is to be drawn any more.
    """

    def __init__(self, draw: Callable[[bool], float | None], failed: Callable[[Exception], None]):
        super().__init__(daemon=True, name="viewer frames")
        self._draw, self._failed = draw, failed
        self._changed = threading.Condition()
        self._dirty = True
        self.closed = False
        self._moved = 0.0

    def wake(self, *, moved: bool = False) -> None:
        """Something has changed; ``moved``: the camera."""
        with self._changed:
            self._dirty = True
            if moved:
                self._moved = time.monotonic()
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread after the frame that it is at."""
        with self._changed:
            self.closed = True
            self._changed.notify()

    def run(self) -> None:
        again: float | None = 0.0
        while self._wait(again):
            moving = time.monotonic() - self._moved < REST
            try:
                again = self._draw(moving)
            except Exception as error:  # whatever it is belongs into the panel, not into a dead thread
                again = None
                if not self.closed:
                    self._failed(error)
            if moving:
                again = REST

    def _wait(self, again: float | None) -> bool:
        """Until something changes or the time is over; False when closed."""
        with self._changed:
            if not self._dirty and not self.closed:
                self._changed.wait(again)
            self._dirty = False
            return not self.closed
