"""Where tensors live."""

import torch

from difix3d.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a GPU.

    Raises:
        UserError: CUDA is asked for, and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "There is no CUDA device that torch can use",
            f"torch {torch.__version__} is installed",
            "Install a CUDA build of torch (pytorch.org), or leave out --device to train on the CPU",
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
