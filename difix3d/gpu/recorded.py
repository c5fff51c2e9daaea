"""CUDA graphs: what the host queues in a thousand calls is recorded once, and replayed in one.

A fix is some thousand kernels, and each takes the host tens of microseconds to queue: more than the GPU needs for a
small picture. Nothing here needs Triton.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from difix3d.devices import short_of_memory

KEPT = 8
"""Kinds of calls that stay recorded, as many as pictures of two sizes with references need; each keeps what it computes
in between in the GPU's memory."""
ROOM = 0.5
"""Share of a GPU's memory that has to be free: no plan of a training's memory counts with what is recorded."""
Made = TypeVar("Made", bound="Tensor | list[Tensor]")
"""What a function gives back."""

log = logging.getLogger(__name__)


class Recordings:
    """Calls functions of tensors; on a GPU the second call of a kind is recorded, and those behind it are replayed.

    A function must do the same for tensors of the same shapes, without a look at their values. Weights are recorded as
    addresses: :meth:`clear` before they move.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, Recording[Any] | None] = OrderedDict()
        self._refused: set[Hashable] = set()

    def clear(self) -> None:
        """Forgets all recordings; their memory is torch's again."""
        self._known.clear()

    def make_room(self, device: torch.device) -> None:
        """Forgets them where a GPU's memory is less than half free."""
        if self._known and short_of_memory(device, ROOM):
            self.clear()

    def __call__(self, function: Callable[..., Made], tensors: Sequence[Tensor], kind: Hashable) -> Made:
        """``function(*tensors)``.

        Args:
            kind: what else makes a difference to what is done.
        """
        key = (kind, *((x.shape, x.stride(), x.dtype, x.device) for x in tensors))
        recording = self._known.get(key)
        if recording is None:
            if key in self._refused or not may_record(tensors[0].device):
                return function(*tensors)
            if key not in self._known:  # cuDNN chooses its kernels and Triton compiles in this call
                self._known[key] = None
                if len(self._known) > KEPT:
                    self._known.popitem(last=False)
                return function(*tensors)
            try:
                recording = self._known[key] = Recording(function, tensors)
            except RuntimeError as error:  # a GPU, or a torch, that this was never tried on
                reason = str(error).splitlines()[0]
                log.warning("a CUDA graph could not be recorded (%s): the host is slower without", reason)
                self._refused.add(key)
                return function(*tensors)
        self._known.move_to_end(key)
        return recording(tensors)


class Recording(Generic[Made]):
    """A function's kernels, for tensors like these.

    Raises:
        RuntimeError: they cannot be recorded.
    """

    def __init__(self, function: Callable[..., Made], tensors: Sequence[Tensor]):
        self.inputs = [x.clone() for x in tensors]
        self.graph = torch.cuda.CUDAGraph()
        # other threads may render meanwhile
        with torch.cuda.device_of(tensors[0]), torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.output: Made = function(*self.inputs)

    def __call__(self, tensors: Sequence[Tensor]) -> Made:
        for kept, given in zip(self.inputs, tensors, strict=True):
            kept.copy_(given)
        with torch.cuda.device_of(tensors[0]):
            self.graph.replay()
        return _copied(self.output)


def _copied(made: Made) -> Made:
    copies: Any = made.clone() if isinstance(made, Tensor) else [part.clone() for part in made]
    return copies


def may_record(device: torch.device) -> bool:
    """Whether a call can be recorded: on a GPU (a pretended one has nothing to record with) that has memory to keep it
    in, and in the main thread: while a thread records, no other one can draw torch's random numbers."""
    real = device.type == "cuda" and torch.backends.cuda.is_built()
    alone = threading.current_thread() is threading.main_thread()
    return real and alone and not short_of_memory(device, ROOM)
