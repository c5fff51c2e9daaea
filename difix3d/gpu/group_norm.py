"""Group normalisation of channels-last tensors, with what stands before and behind it in a residual block.

torch normalises 32 groups of a picture in 32 thread blocks, and wants channels first: on an H200 that was 80 of the
125 ms of a fix at 576x1024. Here many blocks take the moments of a few rows each, one kernel joins them to a factor
and an offset for each channel, and a last one applies these. The twin is :func:`torch.nn.functional.group_norm`.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

ROWS, CHANNELS = 64, 64
"""Pixels and channels that a program holds at a time."""
SUMMED_ROWS = 32
"""Pixels that it takes the moments of at a time: with more it needs so many registers that few programs run at once."""
PROGRAMS = 2048
"""As many as keep a large GPU busy; a program takes the moments of more rows where a picture has more."""
HELD = 8192
"""Values of the moments that are joined at a time."""


# no_type_check keeps the tests' import hook, which wraps functions, away from what Triton compiles
@triton.jit
@no_type_check
def _moments(
    x, means, squares, rows, channels, STEPS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """Of ``STEPS * ROWS`` rows the mean of every channel, and the sum of its squared differences from that mean.

    Sums are of differences from the first row, one of the values themselves: those of large means do not cancel.
    """
    item, part = tl.program_id(0), tl.program_id(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    x += item.to(tl.int64) * rows * channels
    first = part * STEPS * ROWS
    pivot = tl.load(x + first * channels + channel, mask=inside, other=0.0).to(tl.float32)
    sums = tl.zeros((ROWS, CHANNELS), tl.float32)
    powers = tl.zeros((ROWS, CHANNELS), tl.float32)
    for step in range(STEPS):  # joined behind the loop: within it each sum over rows would stop all threads
        row = first + step * ROWS + tl.arange(0, ROWS)
        there = (row < rows)[:, None] & inside[None, :]
        value = tl.load(x + row[:, None] * channels + channel[None, :], mask=there, other=0.0).to(tl.float32)
        away = tl.where(there, value - pivot[None, :], 0.0)
        sums += away
        powers += away * away
    count = tl.minimum(rows - first, STEPS * ROWS).to(tl.float32)
    apart = tl.sum(sums, 0) / count
    at = (item * tl.num_programs(1) + part) * channels + channel
    tl.store(means + at, pivot + apart, mask=inside)
    tl.store(squares + at, tl.maximum(tl.sum(powers, 0) - count * apart * apart, 0.0), mask=inside)


@triton.jit(do_not_specialize=["rows", "each", "parts"])  # each variant takes a part of a second at first use
@no_type_check
def _affine(
    means, squares, weight, bias, shift, factors, offsets, rows, channels, each, parts, eps,
    SHIFTED: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Joins the moments of a group, and says by what each of its channels is multiplied and what is added then."""
    item, group = tl.program_id(0), tl.program_id(1)
    width = channels // tl.num_programs(1)
    channel = group * width + tl.arange(0, WIDTH)
    inside = tl.arange(0, WIDTH) < width
    added = tl.zeros((WIDTH,), tl.float32)
    if SHIFTED:
        added = tl.load(shift + channel, mask=inside, other=0.0).to(tl.float32)
    base = item * parts * channels
    total = tl.zeros((WIDTH,), tl.float32)
    for step in range(STEPS):
        at, there, count = _some_parts(step, base, channel, inside, rows, channels, each, parts, PARTS)
        total += tl.sum(tl.where(there, tl.load(means + at, mask=there, other=0.0) * count, 0.0), 0)
    mean = tl.sum(tl.where(inside, total / rows + added, 0.0), 0) / width
    square = tl.zeros((WIDTH,), tl.float32)
    for step in range(STEPS):
        at, there, count = _some_parts(step, base, channel, inside, rows, channels, each, parts, PARTS)
        away = tl.load(means + at, mask=there, other=0.0) + added[None, :] - mean
        own = tl.load(squares + at, mask=there, other=0.0) + count * away * away
        square += tl.sum(tl.where(there, own, 0.0), 0)
    deviation = tl.sqrt(tl.sum(square, 0) / (rows.to(tl.float32) * width) + eps)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32) / deviation
    offset = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32) + (added - mean) * factor
    tl.store(factors + item * channels + channel, factor, mask=inside)
    tl.store(offsets + item * channels + channel, offset, mask=inside)


@triton.jit
@no_type_check
def _some_parts(step, base, channel, inside, rows, channels, each, parts, PARTS: tl.constexpr):
    """Where the moments of some parts of a picture lie, which of them there are, and of how many rows each is."""
    part = step * PARTS + tl.arange(0, PARTS)
    there = (part < parts)[:, None] & inside[None, :]
    count = tl.minimum(rows - part * each, each).to(tl.float32)[:, None]
    return base + part[:, None] * channels + channel[None, :], there, count


@triton.jit
@no_type_check
def _apply(
    x, factors, offsets, out, rows, channels, SILU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    item = tl.program_id(0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    there = (row < rows)[:, None] & inside[None, :]
    at = item.to(tl.int64) * rows * channels + row[:, None] * channels + channel[None, :]
    factor = tl.load(factors + item * channels + channel, mask=inside, other=0.0)
    offset = tl.load(offsets + item * channels + channel, mask=inside, other=0.0)
    y = tl.load(x + at, mask=there, other=0.0).to(tl.float32) * factor[None, :] + offset[None, :]
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    tl.store(out + at, y.to(out.dtype.element_ty), mask=there)


@triton.jit
@no_type_check
def _add(x, other, bias, count, channels, SUMMED: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < count
    value = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    value += tl.load(bias + at % channels, mask=there, other=0.0)
    if SUMMED:
        value += tl.load(other + at, mask=there, other=0.0)
    tl.store(x + at, value.to(x.dtype.element_ty), mask=there)


def group_norm(
    x: Float[Tensor, "B C *size"],
    groups: int,
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    eps: float,
    *,
    silu: bool = False,
    shift: Float[Tensor, "C"] | None = None,
) -> Float[Tensor, "B C *size"]:
    """``group_norm(x + shift)``, and its SiLU if asked for; no gradients.

    Args:
        x: channels last in memory; else it is copied. An item has less than 2^31 values.
        shift: of each channel, as the bias of the convolution that made ``x``.
    """
    y = channels_last(x)
    batch, channels = y.shape[:2]
    rows = y[0, 0].numel()
    out = torch.empty_like(y)
    blocks = triton.cdiv(channels, CHANNELS)
    parts = max(1, min(triton.cdiv(rows, SUMMED_ROWS), PROGRAMS // (batch * blocks)))
    steps = triton.next_power_of_2(triton.cdiv(rows, parts * SUMMED_ROWS))  # few values, as each is compiled anew
    each = steps * SUMMED_ROWS
    parts = triton.cdiv(rows, each)
    means, squares = y.new_empty(2, batch, parts, channels, dtype=torch.float32)
    factors, offsets = y.new_empty(2, batch, channels, dtype=torch.float32)
    with torch.cuda.device_of(y):
        _moments[(batch, parts, blocks)](y, means, squares, rows, channels, steps, SUMMED_ROWS, CHANNELS)
        width = triton.next_power_of_2(channels // groups)
        held = max(1, min(1024, HELD // width))
        given = weight if shift is None else shift
        _affine[(batch, groups)](
            means, squares, weight, bias, given, factors, offsets, rows, channels, each, parts, eps,
            shift is not None, width, triton.next_power_of_2(triton.cdiv(parts, held)), held,
        )  # fmt: skip
        _apply[(batch, triton.cdiv(rows, ROWS), blocks)](y, factors, offsets, out, rows, channels, silu, ROWS, CHANNELS)
    return out


def add_(x: Float[Tensor, "B C *size"], other: Float[Tensor, "B C *size"] | None, bias: Float[Tensor, "C"]) -> Tensor:
    """``x + other + bias``, written into ``x`` if that is channels last in memory; the sum is made in fp32."""
    y = channels_last(x)
    count, block = y.numel(), 2048
    given = y if other is None else channels_last(other)
    with torch.cuda.device_of(y):
        _add[(triton.cdiv(count, block),)](y, given, bias, count, y.shape[1], other is not None, block)
    return y


def channels_last(x: Float[Tensor, "B C *size"]) -> Float[Tensor, "B C *size"]:
    """The same in that layout, which a tensor of any number of axes can have; itself if it has it."""
    return x if x.movedim(1, -1).is_contiguous() else x.movedim(1, -1).contiguous().movedim(-1, 1)
