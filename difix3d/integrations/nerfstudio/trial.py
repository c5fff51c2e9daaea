"""The gate's trial inside nerfstudio: a few iterations of its own trainer, then all is put back."""

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from nerfstudio.utils import writer


@contextmanager
def put_back(trainer: Any) -> Iterator[None]:
    """Afterwards the trainer's model, optimizers, schedulers and gradient scaler are what they were.

    Values are written back into the tensors that they came from: nerfstudio's own loading makes new parameters of
    Splatfacto, of which its optimizers would not know. Densification must rest meanwhile.
    """
    model = trainer.pipeline.model
    tensors = {name: value.detach().clone() for name, value in model.state_dict().items()}
    parts = [*trainer.optimizers.optimizers.values(), *trainer.optimizers.schedulers.values(), trainer.grad_scaler]
    states = [copy.deepcopy(part.state_dict()) for part in parts]
    sampler = getattr(model, "proposal_sampler", None)
    counters = {} if sampler is None else {"_steps_since_update": sampler._steps_since_update}
    logged = len(writer.EVENT_STORAGE)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in model.state_dict().items():
                value.copy_(tensors[name])
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)
        for name, count in counters.items():
            setattr(sampler, name, count)
        del writer.EVENT_STORAGE[logged:]
        trainer.optimizers.zero_grad_all()


def iterate(trainer: Any, steps: Collection[int]) -> None:
    """Iterations of the trainer, without callbacks: nothing is densified."""
    trainer.pipeline.train()
    for step in steps:
        trainer.train_iteration(step)
