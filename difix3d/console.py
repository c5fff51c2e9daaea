"""What people see in a terminal: one console for messages, one for results, one progress.

Text is text: square brackets in paths and names are no markup. Output that cannot be written (a closed pipe, a log on a
full disk) is lost; it never ends what is being done.
"""

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Task as RichTask
from rich.table import Table
from rich.text import Text

from difix3d.errors import visible
from difix3d.streams import LenientStream

Item = TypeVar("Item")


class _Stream:
    """``sys.stderr`` or ``sys.stdout`` as it is at the moment, made lenient."""

    def __init__(self, name: Literal["stderr", "stdout"]):
        self._name = name
        self._before: Any = self  # which no stream is

    @property
    def _file(self) -> Any:
        file = getattr(sys, self._name)
        file = getattr(file, "rich_proxied_file", file)  # while a bar is shown, rich stands in its place
        if isinstance(file, LenientStream):
            return file
        if self._before is not file:
            self._before = file
            self._lenient = LenientStream(open(os.devnull, "w") if file is None else file)  # noqa: SIM115 (None: closed)
        return self._lenient

    def write(self, text: str) -> int:
        try:
            self._file.write(text)
        except UnicodeEncodeError as error:  # better some question marks than nothing
            self._file.write(text.encode(error.encoding, "replace").decode(error.encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _PlainConsole(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        """Text in which names out of other people's files steer nothing."""
        return super().render_str(visible(text), **options)


def _console(name: Literal["stderr", "stdout"]) -> Console:
    file: Any = _Stream(name)
    return _PlainConsole(file=file, markup=False, emoji=False, highlight=False, soft_wrap=True)


console = _console("stderr")
"""For messages and progress. Lines are not wrapped."""

results = _console("stdout")
"""For what was asked for: tables, lists."""

WIDE = 200
"""Columns of a table in a pipe or a file."""


def print_table(table: Table) -> None:
    """A table of results, within the terminal; cells that are strings are taken as they are."""
    if not results.is_terminal:
        results.width = WIDE
    results.print(table, soft_wrap=False)


class RunningMean:
    """Exponentially weighted; of the first value it is that value.

    Args:
        keep: weight of what was before, in 0..1.
    """

    def __init__(self, keep: float):
        self._keep, self._mean = keep, math.nan

    def __call__(self, value: float) -> float:
        """The mean with one value more."""
        known = not math.isnan(self._mean)
        self._mean = self._keep * self._mean + (1 - self._keep) * value if known else value
        return self._mean


class _Count(MofNCompleteColumn):
    def render(self, task: RichTask) -> Text:
        return Text() if task.total is None else super().render(task)


class Bar:
    """How far something is: a live line on a terminal, which leaves no trace.

    Elsewhere :meth:`step` prints a line for every tenth, and :meth:`update` nothing.

    Args:
        title: what is being done.
        total: how much there is to do; ``None`` if that is unknown.
        first: how much of it was done before.
        of: what is counted.
        shown: whether there is anything at all; of several processes one shows it.
        to: where.
    """

    def __init__(
        self,
        title: str,
        total: int | None = None,
        *,
        first: int = 0,
        of: Literal["steps", "bytes"] = "steps",
        shown: bool = True,
        to: Console = console,
    ):
        self._console = to
        self._shown = shown
        self._first = first
        self._total = total
        self._begin = time.perf_counter()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *([_Count()] if of == "steps" else [DownloadColumn(), TransferSpeedColumn()]),
            TextColumn("{task.fields[status]}", markup=False),
            TimeRemainingColumn(),
            console=to,
            transient=True,
            disable=not (shown and to.is_terminal),
        )
        self._task = self._bar.add_task(title, total=total, completed=first, status="")

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()

    def update(self, done: int | None = None, *, title: str | None = None, total: int | None = None) -> None:
        """Moves the live line."""
        self._bar.update(self._task, completed=done, description=title, total=total)

    def advance(self, amount: int) -> None:
        """So much more is done."""
        self._bar.advance(self._task, amount)

    def status(self, text: str) -> None:
        """Says something behind the counts of the live line."""
        self._bar.update(self._task, status=text)

    def is_tenth(self, done: int) -> bool:
        """Whether :meth:`step` prints a line for it."""
        tenth = max(1, ((self._total or 0) - self._first) // 10)
        return self._shown and not self._console.is_terminal and (done - self._first) % tenth == 0

    def step(self, done: int, status: str) -> None:
        """So much is done: shows the status and the rate.

        Args:
            done: of the total, more than ``first``.
            status: such as the loss.
        """
        rate = (done - self._first) / max(time.perf_counter() - self._begin, 1e-9)
        status = f"{status}  {rate:.3g} it/s" if rate < 10 else f"{status}  {rate:.1f} it/s"
        self._bar.update(self._task, completed=done, status=status)
        if self.is_tenth(done) and self._total is not None:
            left = (self._total - done) / rate / 60
            self.print(f"step {done:,} of {self._total:,}  {status}  {left:.1f} min left")

    def print(self, line: str) -> None:
        """A line that stays, above the live one."""
        if self._shown:
            self._console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def track(items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    """The same items, with a :class:`Bar` of how many were taken."""
    often = max(1, total // 1000)  # an update takes 10 us, which quick items should not wait for
    with Bar(title, total) as bar:
        for number, item in enumerate(items):
            if number % often == 0:
                bar.update(number)
            yield item
