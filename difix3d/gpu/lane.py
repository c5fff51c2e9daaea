"""A second queue of a GPU: what is queued there does not stand behind the work of another queue."""

from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True)
class Handed(Generic[Item]):
    """What was queued in a lane, for work in another queue.

    Attributes:
        item: may not be made yet: :meth:`take` it.
        done: comes when it is; ``None`` where there is one queue for all.
    """

    item: Item
    done: torch.cuda.Event | None = None

    def take(self) -> Item:
        """The item, for whose making the caller's queue waits, and not its host. May be called in several queues."""
        if self.done is not None:
            own = torch.cuda.current_stream(self.done.device)
            own.wait_event(self.done)
            for tensor in _tensors(self.item):
                tensor.record_stream(own)  # its memory is not given to others before it was used here
        return self.item


class Lane:
    """A CUDA stream of its own, in which threads queue work.

    A host that waits for a value waits for all that its stream was given before. So a thread that renders, and asks a
    few times how much there is to do, would each time wait for the fix that another thread has just queued; and a frame
    that is done would come out only after the fix of the next one. On other devices (a pretended one has no streams)
    there is one queue for all.

    Args:
        device: where the work is done. What the caller has queued there so far is done first.
        urgent: comes before the work of others, where that has not begun.
    """

    def __init__(self, device: torch.device, *, urgent: bool = False):
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda" and torch.backends.cuda.is_built():
            self._stream = torch.cuda.Stream(device, priority=-1 if urgent else 0)
            self._callers = torch.cuda.current_stream(device)
            self._stream.wait_stream(self._callers)

    def each(self, items: Iterator[Item]) -> Generator[Handed[Item], None, None]:
        """The items, whose making is queued in the lane; the thread is the one that asks for them. However it ends, the
        caller's queue then waits for the lane: what was made there may be kept, and used in another one."""
        end: Any = object()
        try:
            while (handed := self._run(lambda: next(items, end))).item is not end:
                yield handed
        finally:
            if self._stream is not None:
                self._callers.wait_stream(self._stream)

    def _run(self, function: Callable[[], Item]) -> Handed[Item]:
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            item = function()
            return Handed(item, None if self._stream is None else self._stream.record_event())


def _tensors(item: Any) -> list[Tensor]:
    """All tensors of a GPU in an item, its fields, and what these hold."""
    if isinstance(item, Tensor):
        return [item] if item.is_cuda else []
    if isinstance(item, tuple | list):
        return [tensor for part in item for tensor in _tensors(part)]
    if is_dataclass(item) and not isinstance(item, type):
        return [tensor for field in fields(item) for tensor in _tensors(getattr(item, field.name))]
    return []
