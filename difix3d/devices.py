"""Where tensors live."""

from typing import Literal, get_args

import torch

from difix3d.errors import UserError

Device = Literal["auto", "cuda", "cpu"]
"""What can be asked for."""


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a GPU.

    Raises:
        UserError: CUDA is asked for, and there is none; or another device.
    """
    if name not in get_args(Device):
        raise UserError(f"There is no device {name!r} to choose", f"It must be one of {', '.join(get_args(Device))}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "There is no CUDA device that torch can use",
            f"torch {torch.__version__} is installed",
            "Install a CUDA build of torch (pytorch.org), or leave out --device to use the CPU",
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def half(device: torch.device) -> torch.dtype:
    """The 16-bit type that a GPU computes in: bf16 from Ampere on, fp16 before."""
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def short_of_memory(device: torch.device, share: float = 1 / 3) -> bool:
    """Whether less than this share of a GPU's memory is free; the rest is needed more by a training."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return free < share * total


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds torch's generators of the host and of the device: what ``torch.manual_seed`` does, without telling kinds of
    devices that are not in use, for which it walks through the whole stack of calls each time."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
