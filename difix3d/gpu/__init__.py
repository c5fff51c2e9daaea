"""Triton kernels for CUDA GPUs. Each has a readable twin in plain torch; its module is imported once :func:`usable`."""

import os
import sys
from functools import cache
from importlib.util import find_spec

from torch import Tensor


def usable(x: Tensor) -> bool:
    """Whether kernels can run on this tensor: on a CUDA device, or anywhere in Triton's interpreter.

    Not on a device that the tests only pretend to have.
    """
    if not _installed() or "pretend_cuda" in sys.modules:
        return False
    return x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _installed() -> bool:
    return find_spec("triton") is not None
