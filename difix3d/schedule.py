"""Schedules are values: ``if step in schedule``."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Every:
    """Steps ``start, start + period, ...`` up to and including ``stop``; never, if ``period`` is 0."""

    period: int
    start: int = 0
    stop: int | None = None

    def __contains__(self, step: int) -> bool:
        if self.period <= 0 or step < self.start or (self.stop is not None and step > self.stop):
            return False
        return (step - self.start) % self.period == 0


@dataclass(frozen=True, init=False)
class At:
    """Exactly the steps that are named: ``At(7000, 30000)``."""

    steps: frozenset[int]

    def __init__(self, *steps: int):
        object.__setattr__(self, "steps", frozenset(steps))

    def __contains__(self, step: int) -> bool:
        return step in self.steps

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.steps))
