"""The parameters of a splat model, each with an Adam of its own, as gsplat's densification strategies want them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from difix3d import native
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
        adam_steps(list(self.optimizers.values()))
        for param in self.params.values():
            param.grad = None

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """The state of the optimisers, by parameter."""
        return moments(self.params, self.optimizers)

    def add(self, gaussians: Gaussians) -> None:
        """Adds some, before the first step."""
        self.load(Gaussians.cat([self.gaussians.map(Tensor.detach), gaussians.to(self.params["means"].device)]), {})

    def load(self, gaussians: Gaussians, state: dict[str, dict[str, Tensor]]) -> None:
        """Puts back a model and what :meth:`moments` gave beside it."""
        for name, value in gaussians.as_dict().items():
            self.params[name].data = value.to(self.params[name].device)
        load_moments(self.params, self.optimizers, state)


def adam_steps(optimizers: Sequence[Optimizer]) -> None:
    """A step of each of several Adams of one float32 parameter, without weight decay or AMSGrad.

    On a CPU one C++ pass moves them all; on a GPU torch's own kernels do, without what an optimiser does around them,
    which takes the host longer. The state is what ``torch.optim.Adam`` itself keeps.
    """
    params = [optimizer.param_groups[0]["params"][0] for optimizer in optimizers]
    alike = all(x.dtype == torch.float32 and x.grad is not None and x.device == params[0].device for x in params)
    if alike and params[0].device.type == "cpu" and native.load() is not None:
        steps_natively(optimizers)
    elif alike and params[0].is_cuda and all(optimizer.state for optimizer in optimizers):
        steps_on_gpu(optimizers)
    else:
        for optimizer in optimizers:
            optimizer.step()


def steps_natively(optimizers: Sequence[Optimizer]) -> None:
    """:func:`adam_steps` in C++."""
    rows = []
    rates, kept = [], []
    for optimizer in optimizers:
        group = optimizer.param_groups[0]
        param = group["params"][0]
        state, grad = optimizer.state[param], param.grad.contiguous()
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(param), torch.zeros_like(param)
        tensors = (param.data, grad, state["exp_avg"], state["exp_avg_sq"], state["step"])
        rows.append([*(x.data_ptr() for x in tensors), param.numel()])
        rates.append([group["lr"], *group["betas"], group["eps"]])
        kept.append(grad)
    numbers = torch.tensor(rows), torch.tensor(rates, dtype=torch.float64)
    native.call(native.load().difix3d_adam, *numbers, len(rows), torch.get_num_threads())  # type: ignore[union-attr]


@torch.no_grad()
def steps_on_gpu(optimizers: Sequence[Optimizer]) -> None:
    """:func:`adam_steps` by the kernel of torch's fused Adam, for optimisers that have made a step before."""
    groups = [optimizer.param_groups[0] for optimizer in optimizers]
    params = [group["params"][0] for group in groups]
    states = [optimizer.state[param] for optimizer, param in zip(optimizers, params, strict=True)]
    torch._foreach_add_([state["step"] for state in states], 1)
    for group, param, state in zip(groups, params, states, strict=True):
        average, square, count = ([state[name]] for name in ("exp_avg", "exp_avg_sq", "step"))
        beta1, beta2 = group["betas"]
        torch._fused_adam_(
            [param], [param.grad], average, square, [], count, lr=group["lr"], beta1=beta1, beta2=beta2,
            weight_decay=0.0, eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip


def moments(params: Mapping[str, Tensor], optimizers: Mapping[str, Optimizer]) -> dict[str, dict[str, Tensor]]:
    """The states of optimisers that hold one parameter each."""
    return {name: dict(optimizer.state[params[name]]) for name, optimizer in optimizers.items()}


def load_moments(
    params: Mapping[str, Tensor], optimizers: Mapping[str, Optimizer], state: Mapping[str, dict[str, Tensor]]
) -> None:
    """Puts back what :func:`moments` gave. The count of steps goes to where the optimiser keeps it: an Adam that is not
    fused reads it on the host, and would wait for a GPU in each step."""
    for name, optimizer in optimizers.items():
        device = params[name].device
        counted = device if optimizer.param_groups[0]["fused"] else torch.device("cpu")
        places = {key: counted if key == "step" else device for key in state.get(name, {})}
        optimizer.state[params[name]] = {key: x.to(places[key]) for key, x in state.get(name, {}).items()}
