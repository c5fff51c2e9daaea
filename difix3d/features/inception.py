"""The Inception-v3 of the FID: TensorFlow's network of 2015-12-05, as pytorch-fid converted it.

It differs from other Inception-v3 networks in its pooling branches: averages do not count the padding, and the very
last block takes the maximum instead. Published FIDs depend on both.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from difix3d.features import weights

SIZE = 299
Kernel: TypeAlias = int | tuple[int, int]
Layer: TypeAlias = tuple[str, int, Kernel]  # name, channels, kernel

average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
halve = partial(F.max_pool2d, kernel_size=3, stride=2)


class Conv(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, channels: int, width: int, kernel: Kernel, stride: int = 1, padding: Kernel = 0):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """An Inception block: chains of convolutions side by side, and a pooled branch; their outputs are concatenated.

    Args:
        channels: of the input.
        chains: names, widths and kernels of the convolutions of each chain. Two chains that begin with the same name
            share that part.
        pool: what the last branch starts with.
        pooled: channels of the convolution behind the pool; 0 for none.
        stride: of the last convolution of each chain; with 2 it has no padding.
    """

    def __init__(
        self,
        channels: int,
        chains: list[list[Layer]],
        pool: Callable[[Tensor], Tensor],
        pooled: int = 0,
        stride: int = 1,
    ):
        super().__init__()
        self.chains = [[name for name, _, _ in chain] for chain in chains]
        self.pool = pool
        self.pooled = bool(pooled)
        self.width = (pooled or channels) + sum(chain[-1][1] for chain in chains)
        for chain in chains:
            width = channels
            for name, out, kernel in chain:
                last = name == chain[-1][0]
                step = stride if last else 1
                padding = 0 if step == 2 else _same(kernel)
                if not hasattr(self, name):
                    self.add_module(name, Conv(width, out, kernel, step, padding))
                width = out
        if pooled:
            self.branch_pool = Conv(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        done: dict[str, Tensor] = {}
        for chain in self.chains:
            y = x
            for name in chain:
                done[name] = y = done[name] if name in done else self.get_submodule(name)(y)
        branches = [done[chain[-1]] for chain in self.chains]
        pooled = self.pool(x)
        return torch.cat([*branches, self.branch_pool(pooled) if self.pooled else pooled], 1)


def _same(kernel: Kernel) -> Kernel:
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


def _chain(prefix: str, *layers: tuple[int, Kernel], ends: tuple[str, ...] = ()) -> list[Layer]:
    """Layers named prefix_1, prefix_2, ..., the last ones as ``ends`` says."""
    names = [str(number) for number in range(1, len(layers) + 1)]
    names[len(names) - len(ends) :] = ends
    return [(f"{prefix}_{name}", *layer) for name, layer in zip(names, layers, strict=True)]


def _block_a(channels: int, pooled: int) -> Mixed:
    """35 x 35."""
    double = _chain("branch3x3dbl", (64, 1), (96, 3), (96, 3))
    return Mixed(channels, [[("branch1x1", 64, 1)], _chain("branch5x5", (48, 1), (64, 5)), double], average, pooled)


def _block_b(channels: int) -> Mixed:
    """35 x 35 to 17 x 17."""
    double = _chain("branch3x3dbl", (64, 1), (96, 3), (96, 3))
    return Mixed(channels, [[("branch3x3", 384, 3)], double], halve, stride=2)


def _block_c(channels: int, inner: int) -> Mixed:
    """17 x 17, with 7 x 7 convolutions as two of 1 x 7 and 7 x 1."""
    row, column = (1, 7), (7, 1)
    single = _chain("branch7x7", (inner, 1), (inner, row), (192, column))
    double = _chain("branch7x7dbl", (inner, 1), (inner, column), (inner, row), (inner, column), (192, row))
    return Mixed(channels, [[("branch1x1", 192, 1)], single, double], average, 192)


def _block_d(channels: int) -> Mixed:
    """17 x 17 to 8 x 8."""
    mixed = _chain("branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3))
    return Mixed(channels, [_chain("branch3x3", (192, 1), (320, 3)), mixed], halve, stride=2)


def _block_e(channels: int, pool: Callable[[Tensor], Tensor]) -> Mixed:
    """8 x 8; chains end in a fork of 1 x 3 and 3 x 1."""
    fork: tuple[tuple[str, Kernel], ...] = (("a", (1, 3)), ("b", (3, 1)))
    single = [_chain("branch3x3", (384, 1), (384, kernel), ends=(f"2{end}",)) for end, kernel in fork]
    double = [_chain("branch3x3dbl", (448, 1), (384, 3), (384, kernel), ends=(f"3{end}",)) for end, kernel in fork]
    return Mixed(channels, [[("branch1x1", 320, 1)], *single, *double], pool, 192)


class Inception(nn.Module):
    """Gives the 2048 features behind the last average ("pool3"); keys of the parameters as in pytorch-fid's file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = _block_a(192, 32)
        self.Mixed_5c = _block_a(256, 64)
        self.Mixed_5d = _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b = _block_c(768, 128)
        self.Mixed_6c = _block_c(768, 160)
        self.Mixed_6d = _block_c(768, 160)
        self.Mixed_6e = _block_c(768, 192)
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b = _block_e(1280, average)
        self.Mixed_7c = _block_e(2048, maximum)

    @classmethod
    def pretrained(cls) -> "Inception":
        """The network of the FID, frozen; :class:`difix3d.errors.UserError` if its file is not to be had."""
        return weights.fill(cls(), weights.INCEPTION)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 2048"]:
        """Features of images in 0..1, which are resized to 299 x 299 as pytorch-fid does: bilinear, not antialiased."""
        x = 2 * F.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False) - 1
        x = halve(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))


@torch.inference_mode()
def inception_features(
    images: Iterable[UInt8[Tensor, "_ _ 3"]],
    network: Inception,
    batch: int = 16,
) -> Float[Tensor, "N 2048"]:
    """The features of pictures, for :func:`difix3d.metrics.fid` and :func:`difix3d.metrics.kid`.

    Args:
        images: may differ in size, and may be a stream: only one batch is kept.
        network: :meth:`Inception.pretrained`, on the device to compute on.
        batch: images at a time.

    Returns:
        On the CPU.
    """
    device = next(network.parameters()).device
    found: list[Tensor] = []
    stream = iter(images)
    while chunk := list(islice(stream, batch)):
        found += [network(same).cpu() for same in _by_size(chunk, device)]
    return torch.cat(found) if found else torch.empty(0, 2048)


def _by_size(images: list[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Runs of equal size as batches [B,3,H,W] in 0..1."""
    start = 0
    for end in range(1, len(images) + 1):
        if end == len(images) or images[end].shape != images[start].shape:
            yield torch.stack(images[start:end]).to(device).permute(0, 3, 1, 2).float() / 255
            start = end
