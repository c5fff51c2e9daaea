"""The parameters of a splat model, each with an Adam of its own, as gsplat's densification strategies want them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from difix3d.limits import Limits
from difix3d.types import Gaussians


@dataclass(frozen=True)
class OptimConfig:
    """Learning rates of Adam, for one view a step; a batch of B multiplies them by the square root of B."""

    means: Annotated[float, Limits(min=0, max=10)] = 1.6e-4
    """Positions, in scene extents a step."""
    means_final: Annotated[float, Limits(above=0, max=1)] = 0.01
    """What the positions' rate has fallen to (exponentially) at the last step, as a share of the first."""
    scales: Annotated[float, Limits(min=0, max=10)] = 5e-3
    """Log scales."""
    quats: Annotated[float, Limits(min=0, max=10)] = 1e-3
    """Quaternions."""
    opacities: Annotated[float, Limits(min=0, max=10)] = 5e-2
    """Opacity logits."""
    sh0: Annotated[float, Limits(min=0, max=10)] = 2.5e-3
    """Colours: spherical harmonics of degree 0."""
    shN: Annotated[float, Limits(min=0, max=10)] = 2.5e-3 / 20
    """Spherical harmonics of the higher degrees."""


class SplatOptimizer:
    """Holds and moves the Gaussians.

    Attributes:
        params: one parameter for each field of :class:`Gaussians`; densification replaces them in place.
        optimizers: an Adam for each.
    """

    def __init__(self, gaussians: Gaussians, config: OptimConfig, *, extent: float, batch_size: int, max_steps: int):
        self._means_rate = config.means * extent * batch_size**0.5
        self._means_final = config.means_final
        self._max_steps = max_steps
        self.params: dict[str, Tensor] = {}
        self.optimizers: dict[str, Optimizer] = {}
        for name, value in gaussians.as_dict().items():
            rate = self._means_rate if name == "means" else getattr(config, name) * batch_size**0.5
            self.params[name] = Parameter(value.detach().clone())
            # a batch of B is taken for B steps at once: rate and moments follow (square-root scaling)
            self.optimizers[name] = torch.optim.Adam(
                [self.params[name]],
                lr=rate,
                betas=(0.9**batch_size, 0.999**batch_size),
                eps=1e-15 / batch_size**0.5,
                fused=True,
            )

    @property
    def gaussians(self) -> Gaussians:
        """The model as it is now; its tensors are the parameters themselves."""
        return Gaussians(**self.params)

    def means_rate(self, step: int) -> float:
        """Learning rate of the positions: exponential decay over the run (3DGS, section 7)."""
        return self._means_rate * self._means_final ** (step / self._max_steps)

    def step(self, step: int) -> None:
        """One step of all optimisers; gradients are cleared."""
        self.optimizers["means"].param_groups[0]["lr"] = self.means_rate(step)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """The state of the optimisers, by parameter."""
        return moments(self.params, self.optimizers)

    def load(self, gaussians: Gaussians, state: dict[str, dict[str, Tensor]]) -> None:
        """Puts back a model and what :meth:`moments` gave beside it."""
        for name, value in gaussians.as_dict().items():
            self.params[name].data = value.to(self.params[name].device)
        load_moments(self.params, self.optimizers, state)


def moments(params: Mapping[str, Tensor], optimizers: Mapping[str, Optimizer]) -> dict[str, dict[str, Tensor]]:
    """The states of optimisers that hold one parameter each."""
    return {name: dict(optimizer.state[params[name]]) for name, optimizer in optimizers.items()}


def load_moments(
    params: Mapping[str, Tensor], optimizers: Mapping[str, Optimizer], state: Mapping[str, dict[str, Tensor]]
) -> None:
    """Puts back what :func:`moments` gave."""
    for name, optimizer in optimizers.items():
        optimizer.state[params[name]] = {key: x.to(params[name].device) for key, x in state.get(name, {}).items()}
