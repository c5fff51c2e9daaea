"""Streams through a fixer: made in advance, and not ended by a single failure."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor

from difix3d.errors import UserError
from difix3d.types import Degraded, Fixer

FAILURES = 3
"""Failures one after the other that are a broken fixer."""
CURE = "Try other weights (--fixer), or fp32 if they are in half precision"
"""For a fixer that gives no images, or not as many as it should."""

Item = TypeVar("Item")


def ahead(items: Iterator[Item], count: int) -> Generator[Item, None, None]:
    """The items in their order, up to ``count`` of them made in advance by a thread; its errors are raised here."""
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as worker:
        coming = deque(worker.submit(next, items, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(worker.submit(next, items, end))
            yield item


def late(items: Iterable[Item], count: int) -> Iterator[Item]:
    """The items in their order, each when ``count`` more are begun: a GPU has those to do while its host uses it."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def tolerant(fixer: Fixer, degraded: Iterable[Degraded]) -> Iterator[Float[Tensor, "H W 3"] | Exception]:
    """What a fixer makes of a stream, in its order; in place of an image the error, where it fails or gives something
    else. See :func:`forgiven`.

    Raises:
        UserError: it gave more images than it was given renders, or fewer.
        Exception: what the stream itself raised, and the fixer before it took a render.
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

    count = 0
    while True:
        try:
            for fixed in fixer(rest()):
                if not given:
                    raise _miscounted(f"gave a second image for render {count - 1}")
                count += 1
                yield _image(fixed, given.popleft())
            break
        except Exception as error:
            if broken or not given:
                raise
            result: Tensor | Exception = error
        first = given.popleft()
        again.extendleft(reversed(given))
        if given:  # it may have been another one of these that it failed at
            result = _alone(fixer, first)
        given.clear()
        count += 1
        yield result
    if given or next(rest(), None) is not None:
        raise _miscounted(f"ended after {count} images")


def forgiven(
    results: Iterable[Float[Tensor, "H W 3"] | Exception], say: Callable[[Exception], None]
) -> Iterator[Float[Tensor, "H W 3"] | None]:
    """The images of a :func:`tolerant` stream; ``None`` for errors, and for images with NaN or infinite values, as 16
    bits may give. The host waits for each image: take it when the next one is queued.

    Args:
        say: is told each failure.

    Raises:
        Exception: the failure, after :data:`FAILURES` in a row, or if there was nothing else.
    """
    failures, done = 0, False
    error: Exception | None = None
    for result in results:
        if isinstance(result, Tensor) and not result.isfinite().all():
            result = UserError("The fixer's image has NaN or infinite values", cure=CURE)
        if isinstance(result, Tensor):
            failures, done = 0, True
            yield result
            continue
        error = result
        say(error)
        failures += 1
        if failures == FAILURES:
            raise error
        yield None
    if error is not None and not done:
        raise error


def words(error: Exception) -> str:
    """An error in a line."""
    if isinstance(error, UserError):
        return error.fact
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")


def _alone(fixer: Fixer, degraded: Degraded) -> Float[Tensor, "H W 3"] | Exception:
    try:
        return _image(next(iter(fixer([degraded])), None), degraded)
    except Exception as error:  # whatever it is: the caller knows that it may fail
        return error


def _image(fixed: Any, degraded: Degraded) -> Float[Tensor, "H W 3"] | Exception:
    """What a fixer gave, if that is an image of the render's size."""
    shape = degraded.rgb.shape
    if isinstance(fixed, Tensor) and fixed.shape == shape:
        return fixed
    what = " x ".join(map(str, fixed.shape)) if isinstance(fixed, Tensor) else f"a {type(fixed).__name__}"
    return UserError(f"The fixer's image is {what}", f"The render is a tensor, {' x '.join(map(str, shape))}", CURE)


def _miscounted(fault: str) -> UserError:
    return UserError(f"The fixer {fault}", "Each render needs one, in their order", CURE)
