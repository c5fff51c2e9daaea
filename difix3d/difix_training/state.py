"""What a training of Difix goes on from, as the tensors of a checkpoint."""

from typing import Any

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def state(trained: dict[str, nn.Parameter], optimizer: torch.optim.AdamW, ema: Any = None) -> dict[str, Tensor]:
    """The weights that are trained, their moments, and their moving average if one is kept (diffusers' EMAModel)."""
    tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in trained.items()}
    for name, p in trained.items():
        tensors |= {f"{key}.{name}": optimizer.state[p][key] for key in MOMENTS if p in optimizer.state}
    if ema is not None:
        tensors |= {f"ema.{name}": p for name, p in zip(trained, ema.shadow_params, strict=True)}
    return tensors


@torch.no_grad()
def load_state(
    tensors: dict[str, Tensor], trained: dict[str, nn.Parameter], optimizer: torch.optim.AdamW, ema: Any, step: int
) -> None:
    """Puts back what :func:`state` gave at a step, to the bit.

    Raises:
        KeyError: it is that of another network, or of one with (or without) a moving average.
    """
    names = {key.removeprefix("model.") for key in tensors if key.startswith("model.")}
    if names != trained.keys():
        raise KeyError(f"it trains {len(names)} tensors, this configuration {len(trained)}")
    if (ema is not None) != any(key.startswith("ema.") for key in tensors):
        raise KeyError(f"it has {'no' if ema is not None else 'a'} moving average")
    for name, p in trained.items():
        p.copy_(tensors[f"model.{name}"])
        moments = {key: tensors[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in tensors}
        on_cpu = not optimizer.defaults["fused"]
        optimizer.state[p] = {
            key: value.clone() if key == "step" and on_cpu else value.to(p.device, copy=True)
            for key, value in moments.items()
        }
    if ema is not None:
        ema.shadow_params = [tensors[f"ema.{name}"].to(p.device, copy=True) for name, p in trained.items()]
        ema.optimization_step = step
