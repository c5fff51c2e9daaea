"""What a transformer does to its tokens, in one pass over memory each: layer normalisation, GEGLU, wide attention.

The twins are :func:`torch.nn.functional.layer_norm`, diffusers' ``GEGLU`` and
:func:`torch.nn.functional.scaled_dot_product_attention`.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

VALUES = 4096
"""Values that a program holds at a time."""
LOGITS = 2**24
"""Logits that are made at a time, in fp32: about what a large GPU has in its cache."""
MOST_KEYS = 2**16
"""Keys whose logits one program can hold."""
MIXES_TYPES = "dtype" in torch.ops.aten.bmm.overloads()
"""Whether a product of matrices in 16 bits can be had in fp32: torch 2.8 and later."""


# no_type_check keeps the tests' import hook, which wraps functions, away from what Triton compiles
@triton.jit
@no_type_check
def _layer_norm(x, weight, bias, out, rows, width, eps, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = column < width
    there = (row < rows)[:, None] & inside[None, :]
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    value = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    away = tl.where(there, value - (tl.sum(value, 1) / width)[:, None], 0.0)
    deviation = tl.sqrt(tl.sum(away * away, 1) / width + eps)
    factor = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    value = away / deviation[:, None] * factor[None, :] + offset[None, :]
    tl.store(out + at, value.to(out.dtype.element_ty), mask=there)


@triton.jit
@no_type_check
def _geglu(x, out, count, width, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < count
    place = at + at // width * width  # in the left half of its row
    value = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    gate = tl.load(x + place + width, mask=there, other=0.0).to(tl.float32)
    gate = gate * 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + at, (value * gate).to(out.dtype.element_ty), mask=there)


@triton.jit
@no_type_check
def _softmax(x, out, width, scale, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < width
    value = tl.load(x + row * width + column, mask=inside, other=-float("inf")) * scale
    value = tl.exp(value - tl.max(value, 0))
    tl.store(out + row * width + column, (value / tl.sum(value, 0)).to(out.dtype.element_ty), mask=inside)


def layer_norm(
    x: Float[Tensor, "*batch d"], weight: Float[Tensor, "d"], bias: Float[Tensor, "d"], eps: float
) -> Float[Tensor, "*batch d"]:
    """``layer_norm(x)`` over the last axis; no gradients."""
    y = x.contiguous()
    out = torch.empty_like(y)
    width = y.shape[-1]
    rows, padded = y.numel() // width, triton.next_power_of_2(width)
    held = max(1, VALUES // padded)
    with torch.cuda.device_of(y):
        _layer_norm[(triton.cdiv(rows, held),)](y, weight, bias, out, rows, width, eps, held, padded)
    return out


def geglu(x: Float[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch d"]:
    """The left half of each row, times the GELU of the right half."""
    y = x.contiguous()
    width = y.shape[-1] // 2
    out = y.new_empty(*y.shape[:-1], width)
    block = 2048
    with torch.cuda.device_of(y):
        _geglu[(triton.cdiv(out.numel(), block),)](y, out, out.numel(), width, block)
    return out


def softmax(logits: Float[Tensor, "*batch m"], scale: float, dtype: torch.dtype) -> Float[Tensor, "*batch m"]:
    """``softmax(scale * logits)`` over the last axis, of fp32 logits, in another type."""
    out = torch.empty_like(logits, dtype=dtype)
    width = logits.shape[-1]
    padded = triton.next_power_of_2(width)
    with torch.cuda.device_of(logits):
        warps = min(32, max(4, padded // 1024))
        _softmax[(logits.numel() // width,)](logits, out, width, scale, padded, num_warps=warps)
    return out


def attend_wide(
    query: Float[Tensor, "b n d"], key: Float[Tensor, "b m d"], value: Float[Tensor, "b m d"]
) -> Float[Tensor, "b n d"]:
    """Attention with one head, in 16 bits, by two products of matrices and a softmax in fp32.

    Kernels that never write the logits end at 256 channels, or are slow there: for the 512 of a VAE at 576x1024 torch
    takes 1.4 ms on an H200. Here some queries at a time get their logits, as many as stay in the cache.

    Args:
        key: at most :data:`MOST_KEYS`.
    """
    count = query.shape[1]
    parts = max(1, -(-count * len(query) * key.shape[1] // LOGITS))
    out = torch.empty_like(query)
    for first in range(0, count, size := -(-count // parts)):
        logits = torch.bmm(query[:, first : first + size], key.mT, out_dtype=torch.float32)
        weights = softmax(logits, query.shape[2] ** -0.5, query.dtype)
        out[:, first : first + size] = torch.bmm(weights, value)
    return out


def takes_wide(key: Float[Tensor, "b m d"]) -> bool:
    """Whether :func:`attend_wide` takes it, and there is something to gain."""
    return MIXES_TYPES and key.element_size() == 2 and key.shape[1] <= MOST_KEYS and key.shape[2] > 256
