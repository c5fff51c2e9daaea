"""What others may ask of a training while it runs. It looks here between two steps, and knows nobody who asks."""

import threading
from typing import Literal

from difix3d.types import Cameras

Request = Literal["save", "round"]


class Interrupted(Exception):
    """A pilot, a round or an evaluation was broken off; it is made anew when the training goes on."""


class Control:
    """Requests from any thread; without any, training goes its way to the bit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: set[Request] = set()
        self._targets: Cameras | None = None
        self._resumed = threading.Event()
        self._resumed.set()
        self.stopped = False

    @property
    def paused(self) -> bool:
        return not self._resumed.is_set()

    def pause(self) -> None:
        """Wait after the step that is being done; saving and rounds go on."""
        self._resumed.clear()

    def resume(self) -> None:
        self._resumed.set()

    def stop(self) -> None:
        """Save and end after the next step, as by Ctrl-C."""
        self.stopped = True
        self._resumed.set()

    def save(self) -> None:
        """Write a checkpoint and a .ply."""
        with self._lock:
            self._asked.add("save")

    def request_round(self) -> None:
        """Fix a round of novel views before the next step, beside those of the schedule."""
        with self._lock:
            self._asked.add("round")

    def set_targets(self, targets: Cameras) -> None:
        """Send the novel cameras of all further rounds there."""
        with self._lock:
            self._targets = targets

    def pop(self, request: Request) -> bool:
        """Whether that was asked for; it no longer is then."""
        with self._lock:
            asked = request in self._asked
            self._asked.discard(request)
        return asked

    def pop_targets(self) -> Cameras | None:
        """New targets, if there are any; they are handed out once."""
        with self._lock:
            targets, self._targets = self._targets, None
        return targets

    def wait(self, seconds: float) -> None:
        """Waits while it is paused, at most that long."""
        self._resumed.wait(seconds)
