"""The robust fit of colours in one kernel: as operations of torch it is hundreds of them on a few thousand cells.

The twin is :func:`difix3d.difix.colors.fit_colors`, which names the numbers.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor


# no_type_check keeps the tests' import hook, which wraps functions, away from what Triton compiles
@triton.jit
@no_type_check
def _fit(x, y, weight, total, prior, pull):
    mean_x = tl.sum(weight * x, 0) / tl.maximum(total, 1e-6)
    mean_y = tl.sum(weight * y, 0) / tl.maximum(total, 1e-6)
    apart = x - mean_x
    gain = (tl.sum(weight * apart * (y - mean_y), 0) + prior) / (tl.sum(weight * apart * apart, 0) + prior)
    return gain, mean_x + (mean_y - mean_x) * total / (total + pull) - gain * mean_x


@triton.jit
@no_type_check
def _weighed(share, error0, error1, error2, tolerated):
    doubt = 1.0 + (error0 * error0 + error1 * error1 + error2 * error2) / 3.0 / tolerated
    return share / (doubt * doubt)


@triton.jit
@no_type_check
def _outside(gain, low, high):
    return tl.maximum(low - gain, 0.0) + tl.maximum(gain - high, 0.0)


@triton.jit
@no_type_check
def _colors(
    sums, out, cells, prior, pull, tolerated, shrink, least, most, low, high, beyond,
    STEPS: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, CELLS)
    inside = at < cells
    at += tl.program_id(0) * 7 * cells
    share = tl.load(sums + at, mask=inside, other=0.0)
    seen = tl.maximum(share, 1e-6)
    x0 = tl.load(sums + cells + at, mask=inside, other=0.0) / seen
    x1 = tl.load(sums + 2 * cells + at, mask=inside, other=0.0) / seen
    x2 = tl.load(sums + 3 * cells + at, mask=inside, other=0.0) / seen
    y0 = tl.load(sums + 4 * cells + at, mask=inside, other=0.0) / seen
    y1 = tl.load(sums + 5 * cells + at, mask=inside, other=0.0) / seen
    y2 = tl.load(sums + 6 * cells + at, mask=inside, other=0.0) / seen
    total = tl.sum(share, 0)
    gain0, offset0 = _fit(x0, y0, share, total, prior, pull)
    gain1, offset1 = _fit(x1, y1, share, total, prior, pull)
    gain2, offset2 = _fit(x2, y2, share, total, prior, pull)
    for _ in range(STEPS - 1):
        error0, error1, error2 = gain0 * x0 + offset0 - y0, gain1 * x1 + offset1 - y1, gain2 * x2 + offset2 - y2
        weight = _weighed(share, error0, error1, error2, tolerated)
        total = tl.sum(weight, 0)
        gain0, offset0 = _fit(x0, y0, weight, total, prior, pull)
        gain1, offset1 = _fit(x1, y1, weight, total, prior, pull)
        gain2, offset2 = _fit(x2, y2, weight, total, prior, pull)
        tolerated *= shrink
    error0, error1, error2 = gain0 * x0 + offset0 - y0, gain1 * x1 + offset1 - y1, gain2 * x2 + offset2 - y2
    weight = _weighed(share, error0, error1, error2, tolerated)
    explained = tl.sum(weight, 0) / tl.maximum(tl.sum(share, 0), 1e-6)
    apart = tl.maximum(_outside(gain0, low, high), tl.maximum(_outside(gain1, low, high), _outside(gain2, low, high)))
    used = tl.minimum(tl.maximum((explained - least) / (most - least), 0.0), 1.0) * tl.maximum(1 - apart / beyond, 0.0)
    out += tl.program_id(0) * 6
    tl.store(out, 1 + used * (gain0 - 1))
    tl.store(out + 1, 1 + used * (gain1 - 1))
    tl.store(out + 2, 1 + used * (gain2 - 1))
    tl.store(out + 3, used * offset0)
    tl.store(out + 4, used * offset1)
    tl.store(out + 5, used * offset2)


def fit_colors(
    sums: Float[Tensor, "B 7 N"],
    *,
    scales: tuple[float, ...],
    prior: tuple[float, float],
    explained: tuple[float, float],
    gains: tuple[float, float],
    beyond: float,
) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B 3"]]:
    """Gain and offset of each channel; arguments as its twin has them, ``scales`` a falling geometric series."""
    batch, _, cells = sums.shape
    out = sums.new_empty(batch, 6)
    shrink = (scales[-1] / scales[0]) ** (2 / (len(scales) - 1))
    with torch.cuda.device_of(sums):
        _colors[(batch,)](
            sums.contiguous(), out, cells, prior[0] * cells, prior[1] * cells, scales[0] ** 2, shrink,
            *explained, *gains, beyond, len(scales), triton.next_power_of_2(cells), num_warps=8,
        )  # fmt: skip
    return out[:, :3], out[:, 3:]
