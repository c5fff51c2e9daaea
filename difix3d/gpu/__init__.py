"""Triton kernels for what torch does slowly on a GPU; each has a readable twin that runs everywhere else.

The modules here import Triton, which only CUDA builds of torch bring: import them where :func:`usable` says so.
"""

import logging
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

log = logging.getLogger(__name__)


def usable(x: Tensor) -> bool:
    """Whether Triton's kernels run on this tensor; not inside of ``torch.compile``, which fuses the twins itself."""
    return x.is_cuda and not torch.compiler.is_compiling() and _works(x.device)


@cache
def _works(device: torch.device) -> bool:
    """Whether a kernel can be compiled and run: this takes a C compiler and Python's headers beside Triton itself."""
    if find_spec("triton") is None or not torch.backends.cuda.is_built():  # as under a pretended device
        return False
    from difix3d.gpu.probe import probe

    try:
        return probe(device)
    except Exception as error:  # Triton's own, of the C compiler, of the driver
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        log.warning("Triton's kernels do not run here (%s): slower ones of torch take their place", reason)
        return False
