"""Streams through a fixer: made in advance, and not ended by a single failure."""

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor

from difix3d.types import Degraded, Fixer

FAILURES = 3
"""Failures one after the other that are a broken fixer."""

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


def ahead(items: Iterator[Item], count: int) -> Generator[Item, None, None]:
    """The items in their order, up to ``count`` of them made in advance by a thread; its errors are raised here."""
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as worker:
        coming = deque(worker.submit(next, items, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(worker.submit(next, items, end))
            yield item


def behind_by_one(items: Iterable[Item]) -> Iterator[Item]:
    """The items in their order, each when the next one is begun: a GPU has that to do while its host uses this one."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def tolerant(fixer: Fixer, degraded: Iterable[Degraded]) -> Iterator[Float[Tensor, "H W 3"] | None]:
    """What a fixer makes of a stream, in its order; ``None`` for those at which it fails, which is said once.

    Raises:
        Exception: what the fixer raised, after :data:`FAILURES` failures in a row, or if it did nothing else; what the
            stream itself raised.
    """
    source = iter(degraded)
    given: deque[Degraded] = deque()  # to the fixer, and nothing came back yet
    again: deque[Degraded] = deque()  # given before it failed at another
    broken = False

    def rest() -> Iterator[Degraded]:
        nonlocal broken
        while True:
            try:
                item = again.popleft() if again else next(source, None)
            except BaseException:
                broken = True
                raise
            if item is None:
                return
            given.append(item)
            yield item

    failures, done = 0, False
    error: Exception | None = None
    while True:
        try:
            for fixed in fixer(rest()):
                given.popleft()
                failures, done = 0, True
                yield fixed
            break
        except Exception as caught:
            if broken or not given:
                raise
            if error is None:
                logger.warning("the fixer failed at a frame (%s), which stays as rendered", _words(caught))
            error = caught
        first = given.popleft()
        again.extendleft(reversed(given))
        alone = _alone(fixer, first) if given else None  # it may have been another one of these that it failed at
        given.clear()
        failures = failures + 1 if alone is None else 0
        if failures == FAILURES:
            raise error
        done |= alone is not None
        yield alone
    if error is not None and not done:
        raise error


def _alone(fixer: Fixer, degraded: Degraded) -> Float[Tensor, "H W 3"] | None:
    try:
        return next(iter(fixer([degraded])))
    except Exception:  # whatever it is: the caller knows that it may fail
        return None


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
