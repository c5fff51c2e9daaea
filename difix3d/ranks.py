"""The processes of one training on several GPUs, as ``torchrun`` starts them. Mostly there is just one.

The Gaussians lie apart: each process has a part of them, with its optimiser. A step draws other views in each process,
from all Gaussians (:func:`difix3d.render.rasterize` sends them, projected, to where they are seen). For all else the
parts are put together (:meth:`Ranks.whole`), and each process has a model like that of a training in one.

All processes have to call these functions in the same order, or they wait for each other for ever.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from difix3d.errors import UserError

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""How long a process waits for the others: the first evaluates alone."""


@dataclass(frozen=True)
class Ranks:
    """This process and how many there are; with one, each method gives back what it is given.

    Attributes:
        rank: number of this process, 0..count - 1.
        count: of the processes.
        local: number of this process on its machine, by which it has its GPU.
        notes: what ``torchrun`` keeps for all of them, also after a process has ended.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    notes: Any = field(default=None, repr=False)

    @staticmethod
    def here() -> "Ranks":
        """What ``torchrun`` says."""
        if not (dist.is_available() and dist.is_torchelastic_launched()) or os.environ["WORLD_SIZE"] == "1":
            return ALONE
        rank, count, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        notes, _, _ = next(dist.rendezvous("env://", timeout=PATIENCE))
        return Ranks(rank, count, local, notes)

    def join(self, device: torch.device) -> "Ranks":
        """This process, which can talk to the others from here on, and on CUDA has its own GPU as the current one.

        Args:
            device: CUDA, whose processes talk by NCCL, or a CPU.

        Raises:
            UserError: there are fewer GPUs than processes.
        """
        if self.count == 1 or dist.is_initialized():
            return self
        if device.type == "cuda":
            if torch.cuda.device_count() <= self.local:
                raise UserError(
                    f"There are {os.environ['LOCAL_WORLD_SIZE']} processes and {torch.cuda.device_count()} GPUs",
                    "Each process needs a GPU of its own",
                    "Lower --nproc-per-node",
                )
            torch.cuda.set_device(self.local)  # what names no device would take the first GPU, and wait for it
        # before there is a group: imported later, its functions keep that as their default, and its threads to the end
        import_module("torch.distributed.nn.functional")
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=self.notes, rank=self.rank, world_size=self.count, timeout=PATIENCE)
        return self

    def close(self) -> None:
        """Ends the talk; not after an error, as the others may still wait for an answer."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process is the one that evaluates, writes and tells."""
        return self.rank == 0

    def fails_first(self) -> bool:
        """Called by a process with an error: whether it is the first. The others' errors are the same, or come of it:
        they cannot talk to one that has ended."""
        return self.count == 1 or int(self.notes.compare_set("failed", "", str(self.rank))) == self.rank

    def device(self, device: torch.device) -> torch.device:
        """The device of this process: its GPU, where a training in one would take CUDA's current one."""
        return device if self.count == 1 or device.type == "cpu" else torch.device(device.type, self.local)

    # what is to be done

    def of_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all; on a CPU."""
        if self.count == 1:
            return make()
        made = [make() if self.first else None]
        dist.broadcast_object_list(made)
        return made[0]  # type: ignore[return-value]

    def after_first(self, make: Callable[[], T]) -> T:
        """What each process makes: the first before the others, which find the files that it wrote."""
        made = make() if self.first else None
        if self.count > 1:
            dist.barrier()
        return made if made is not None or self.first else make()  # type: ignore[return-value]

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of the work. All have as much to do, so that some may be done twice."""
        if self.count == 1:
            return list(items)
        turns = -(-len(items) // self.count)
        return [items[(turn * self.count + self.rank) % len(items)] for turn in range(turns)]

    def collect(self, done: list[T], of: int, packed: Callable[[T], T]) -> list[T]:
        """What all made of their :meth:`share` of ``of`` items, in order; ``packed`` moves one to the CPU for it."""
        if self.count == 1:
            return done
        parts: list[list[T]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, [packed(item) for item in done])
        return [item for turn in zip(*parts, strict=True) for item in turn][:of]

    def totals(self, *values: int) -> list[int]:
        """Each value, summed over the processes. The hosts talk; GPUs are not waited for."""
        if self.count == 1:
            return list(values)
        sums = torch.tensor(values)
        dist.all_reduce(sums)
        return sums.tolist()

    def most(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.count == 1:
            return value
        largest = torch.tensor(value)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    # tensors by Gaussian

    def part(self, x: Tensor) -> Tensor:
        """This process's rows of what all have."""
        return x if self.count == 1 else x[self.rank :: self.count].clone()

    def whole(self, x: Tensor) -> Tensor:
        """The rows of all processes, one process after the other; without gradients."""
        return x if self.count == 1 else torch.cat(self.everyones(x.detach()))

    def whole_on_first(self, x: Tensor) -> Tensor:
        """The same by way of the hosts, for the first process alone: a checkpoint may not fit into one GPU."""
        if self.count == 1:
            return x
        whole = self.whole(x.cpu())
        return whole if self.first else x

    def everyones(self, x: Tensor) -> list[Tensor]:
        """The tensor of each process; they may differ in their first size."""
        lengths = [torch.zeros(1, dtype=torch.long) for _ in range(self.count)]
        dist.all_gather(lengths, torch.tensor([len(x)]))
        longest = max(int(length) for length in lengths)
        padded = torch.cat([x, x.new_zeros(longest - len(x), *x.shape[1:])]).contiguous()
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]

    # gradients

    def share_of_loss(self, loss: Tensor) -> Tensor:
        """What this process adds to the loss of a step, which is the mean of all."""
        return loss if self.count == 1 else loss / self.count

    def add_gradients(self, params: Iterable[Tensor]) -> None:
        """Sums the gradients of parameters that all processes have."""
        for param in params if self.count > 1 else ():
            if param.grad is not None:
                dist.all_reduce(param.grad)


ALONE = Ranks()
