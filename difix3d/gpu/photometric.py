"""The photometric loss of training as Triton kernels: one launch a view forward, one backward.

The readable twins are ``l1``, ``dssim`` and ``squared_error`` in ``difix3d/losses.py`` and ``ssim_twin`` in
``difix3d/ssim.py``; how the gradient of SSIM (Wang et al. 2004) is kept, in three partial derivatives by the blurred
render, its square and its product with the target, is as in ``difix3d/native/loss.cpp``.

An image is [H,W,3], so a row of it is 3 W elements, and the next pixel of the same colour is 3 columns on. A program
makes a tile of such elements. It walks down all rows that the windows of its tile reach, blurs each along the row, and
adds that to every row of the tile, times the window's weight between the two. So blurred images are never stored.
"""

import math
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from difix3d.types import View

# SSIM's Gaussian window and constants, as in difix3d/ssim.py
RADIUS, FALLOFF = tl.constexpr(5), tl.constexpr(1 / (2 * 1.5**2))
TOTAL = tl.constexpr(sum(math.exp(-(d**2) / (2 * 1.5**2)) for d in range(-5, 6)))
C1, C2 = tl.constexpr(0.01**2), tl.constexpr(0.03**2)

ROWS, COLUMNS = 8, 128
"""Of a tile. A thread has one column: the more rows, the more of them share a blurred row, until registers run out."""
BLOCK = 4096
"""Elements of a program of the squared error."""
ARGUMENTS = range(10)
"""Of these, kernels are not compiled again for special values: rows are not aligned, even if images and sizes are."""


# no_type_check keeps jaxtyping's import hook, which wraps functions, away from what Triton compiles.
@triton.jit
@no_type_check
def _window(offset):
    """SSIM's window in one direction: sums to 1, and 0 beyond the radius."""
    return tl.where(tl.abs(offset) <= RADIUS, tl.exp(offset * offset * -FALLOFF) / TOTAL, 0.0)


@triton.jit
@no_type_check
def _elements(render, target, mask, confidence, row, column, shift, height, width):
    """Render, target and weight, so many pixels to the right of there: 0 outside of the image.

    Where the weight is 0 the target is the render.
    """
    row += 0 * column  # a tensor: Triton's interpreter cannot join a single truth value with many
    inside = (row >= 0) & (row < height) & (column >= -3 * shift) & (column < 3 * (width - shift))
    at, pixel = row * 3 * width + column, row * width + column // 3
    x, y = tl.load(render + at + 3 * shift, inside, 0.0), tl.load(target + at + 3 * shift, inside, 0.0)
    weight = inside.to(tl.float32)
    if mask is not None:
        weight *= tl.load(mask + pixel + shift, inside, 0).to(tl.float32)
    if confidence is not None:
        weight *= tl.load(confidence + pixel + shift, inside, 0.0)
    if mask is not None or confidence is not None:
        y = tl.where(weight > 0, y, x)
    return x, y, weight


@triton.jit
@no_type_check
def _moments_along_row(render, target, mask, confidence, row, column, height, width):
    """Render, target, their squares and their product, blurred in one direction."""
    mx = tl.zeros(column.shape, tl.float32)
    my, xx, yy, xy = mx, mx, mx, mx
    for d in tl.static_range(-RADIUS, RADIUS + 1):
        x, y, _ = _elements(render, target, mask, confidence, row, column, d, height, width)
        wx, wy = _window(d) * x, _window(d) * y
        mx += wx
        my += wy
        xx += wx * x
        yy += wy * y
        xy += wx * y
    return mx, my, xx, yy, xy


@triton.jit
@no_type_check
def _moments(render, target, mask, confidence, top, row, column, height, width):
    """The same, blurred in both directions, in a tile that begins at row ``top``."""
    mx = tl.zeros((row.shape[0], column.shape[1]), tl.float32)
    my, xx, yy, xy = mx, mx, mx, mx
    for reached in range(-RADIUS, row.shape[0] + RADIUS):
        other = top + reached
        moments = _moments_along_row(render, target, mask, confidence, other, column, height, width)
        down = _window(other - row)
        mx += down * moments[0]
        my += down * moments[1]
        xx += down * moments[2]
        yy += down * moments[3]
        xy += down * moments[4]
    return mx, my, xx, yy, xy


@triton.jit
@no_type_check
def _blur_along_row(image, row, column, height, width):
    """An image, blurred in one direction."""
    total, at = tl.zeros(column.shape, tl.float32), row * 3 * width + column
    row += 0 * column  # as above
    for d in tl.static_range(-RADIUS, RADIUS + 1):
        inside = (row >= 0) & (row < height) & (column >= -3 * d) & (column < 3 * (width - d))
        total += _window(d) * tl.load(image + at + 3 * d, inside, 0.0)
    return total


@triton.jit(do_not_specialize=ARGUMENTS)
@no_type_check
def _compare(
    render, target, mask, confidence, partials, sums, height, width, l1_share, dssim_share,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Each program's sums of both terms, [2, programs], and the partial derivatives of D-SSIM, [3,H,W,3].

    Where these are ``None`` there is no D-SSIM. Shares are what an element with a weight of 1 counts in a term.
    """
    top = tl.program_id(0) * ROWS
    row = top + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    if partials is not None:  # before the tile's own elements take registers
        mx, my, xx, yy, xy = _moments(render, target, mask, confidence, top, row, column, height, width)
    x, y, weight = _elements(render, target, mask, confidence, row, column, 0, height, width)
    programs = tl.num_programs(0) * tl.num_programs(1)
    sums += tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(sums, l1_share * tl.sum(weight * tl.abs(x - y)))
    if partials is None:
        tl.store(sums + programs, 0.0)
    else:
        a1, a2 = 2 * mx * my + C1, 2 * (xy - mx * my) + C2
        b1, b2 = mx * mx + my * my + C1, xx - mx * mx + yy - my * my + C2
        inverse = 1 / (b1 * b2)
        similarity = a1 * a2 * inverse
        tl.store(sums + programs, dssim_share * tl.sum(weight * (1 - similarity)))
        v, inside, plane = -dssim_share * weight, (row < height) & (column < 3 * width), height * width * 3
        partials += row * 3 * width + column
        tl.store(partials, v * 2 * inverse * (my * (a2 - a1) + mx * similarity * (b1 - b2)), inside)
        tl.store(partials + plane, -v * inverse * b1 * similarity, inside)
        tl.store(partials + plane + plane, v * 2 * inverse * a1, inside)


@triton.jit(do_not_specialize=ARGUMENTS)
@no_type_check
def _compare_backward(
    render, target, mask, confidence, partials, v_l1, v_dssim, v_render, height, width, l1_share,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient to the render, given those to the two terms, each a single element: the host need not know them."""
    top = tl.program_id(0) * ROWS
    row = top + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    v = tl.zeros((ROWS, COLUMNS), tl.float32)
    if partials is not None:
        v_mx, v_xx, v_xy, plane = v, v, v, height * width * 3
        for reached in range(-RADIUS, ROWS + RADIUS):
            other = top + reached
            down = _window(other - row)
            v_mx += down * _blur_along_row(partials, other, column, height, width)
            v_xx += down * _blur_along_row(partials + plane, other, column, height, width)
            v_xy += down * _blur_along_row(partials + plane + plane, other, column, height, width)
    x, y, weight = _elements(render, target, mask, confidence, row, column, 0, height, width)
    if partials is not None:
        v = tl.load(v_dssim) * (v_mx + 2 * x * v_xx + y * v_xy)
    v += tl.load(v_l1) * l1_share * weight * ((x > y).to(tl.float32) - (x < y).to(tl.float32))
    tl.store(v_render + row * 3 * width + column, v, (row < height) & (column < 3 * width))


@triton.jit
@no_type_check
def _squared_error(a, b, sums, n, share, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    difference = tl.load(a + at, at < n, 0.0) - tl.load(b + at, at < n, 0.0)
    tl.store(sums + tl.program_id(0), share * tl.sum(difference * difference))


class Photometric(torch.autograd.Function):
    """Renders [B,H,W,3], views and the share of D-SSIM -> the batch's L1 and D-SSIM, times their shares (3DGS, eq. 7).

    All is float32 on one device. The bits are the same each time: programs write sums of their own, which torch adds.
    """

    @staticmethod
    def forward(ctx: Any, rgb: Tensor, views: list[View], dssim: float) -> tuple[Tensor, ...]:
        rgb = rgb.contiguous()
        batch, height, width, _ = rgb.shape
        grid = triton.cdiv(height, ROWS), triton.cdiv(3 * width, COLUMNS)
        sums = rgb.new_empty(batch, 2, grid[0] * grid[1])
        partials = rgb.new_empty(batch, 3, height, width, 3) if dssim > 0 else None
        targets = [
            [x if x is None else x.contiguous() for x in (view.image, view.mask, view.confidence)] for view in views
        ]
        shares = [view.weight / rgb.numel() for view in views]
        with torch.cuda.device_of(rgb):
            for i, (target, share) in enumerate(zip(targets, shares, strict=True)):
                kept = None if partials is None else partials[i]
                both = (1 - dssim) * share, dssim * share
                _compare[grid](rgb[i], *target, kept, sums[i], height, width, *both, ROWS, COLUMNS)
        ctx.save_for_backward(rgb, partials)
        ctx.inputs = grid, targets, [(1 - dssim) * share for share in shares]
        l1, dissimilarity = sums.sum((0, 2))
        return l1, dissimilarity

    @staticmethod
    def backward(ctx: Any, v_l1: Tensor, v_dssim: Tensor) -> tuple[Tensor, None, None]:
        rgb, partials = ctx.saved_tensors
        grid, *inputs = ctx.inputs
        v_rgb, size = torch.empty_like(rgb), rgb.shape[1:3]
        for i, (target, share) in enumerate(zip(*inputs, strict=True)):
            kept = None if partials is None else partials[i]
            _compare_backward[grid](rgb[i], *target, kept, v_l1, v_dssim, v_rgb[i], *size, share, ROWS, COLUMNS)
        return v_rgb, None, None


def squared_error(rgb: Float[Tensor, "B H W 3"], views: list[View]) -> Float[Tensor, ""]:
    """Mean squared difference of renders and views."""
    n = rgb[0].numel()
    programs = triton.cdiv(n, BLOCK)
    sums = rgb.new_empty(len(views), programs)
    with torch.cuda.device_of(rgb):
        for render, view, own in zip(rgb, views, sums, strict=True):
            _squared_error[(programs,)](render.contiguous(), view.image.contiguous(), own, n, 1 / rgb.numel(), BLOCK)
    return sums.sum()
