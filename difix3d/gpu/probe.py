"""The smallest kernel there is: whether Triton works at all."""

from typing import no_type_check

import torch
import triton
import triton.language as tl


@triton.jit
@no_type_check
def _fill(x, BLOCK: tl.constexpr):
    tl.store(x + tl.arange(0, BLOCK), tl.full((BLOCK,), 1.0, tl.float32))


def probe(device: torch.device) -> bool:
    """Runs a kernel; whether it did what it should."""
    x = torch.zeros(32, device=device)
    with torch.cuda.device_of(x):
        _fill[(1,)](x, BLOCK=32)
    return bool((x == 1).all())
