"""What people see of a training of Difix."""

import time

from rich.console import Console

from difix3d.progress import training_bar


class TrainingBar:
    """A live bar on a terminal; in a pipe or a log file, a line for every tenth of the run.

    Args:
        shown: only the first process of several shows anything.
    """

    def __init__(self, first: int, last: int, shown: bool = True):
        self.console = Console(stderr=True, highlight=False, quiet=not shown)
        self._first, self._last, self._begin, self._loss = first, last, time.perf_counter(), 0.0
        self._bar = training_bar("train Difix", self.console)
        self._task = self._bar.add_task("", total=last, completed=first, status="")

    def __enter__(self) -> "TrainingBar":
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()

    def print(self, line: str) -> None:
        """A line above the bar."""
        self.console.print(line, soft_wrap=True)

    def step(self, done: int, loss: float) -> None:
        """Shows that many steps done, and a running mean of the loss."""
        self._loss = loss if done == self._first + 1 else 0.95 * self._loss + 0.05 * loss
        rate = (done - self._first) / (time.perf_counter() - self._begin)
        status = f"loss {self._loss:.4f}  {rate:.2f} it/s"
        self._bar.update(self._task, completed=done, status=status)
        tenth = max(1, (self._last - self._first) // 10)
        if not self.console.is_terminal and (done - self._first) % tenth == 0:
            left = (self._last - done) / rate / 60
            self.print(f"step {done:,} of {self._last:,}  {status}  {left:.1f} min left")
