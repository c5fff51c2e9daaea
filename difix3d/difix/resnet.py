"""Residual blocks, their normalisations and convolutions with fewer passes over memory; diffusers' own forwards are the
readable twins."""

import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from difix3d import gpu


class LeanResnetBlock(ResnetBlock2D):
    """A residual block that overwrites what is not needed again; not for training.

    The time step is a constant for each channel, so that it is added with the bias of the convolution. On a GPU the
    normalisations add that constant, and the last sum the other biases.
    """

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None, *_: object, **__: object) -> Tensor:
        first: nn.Conv2d = self.conv1
        bias = first.bias
        if temb is not None and self.time_emb_proj is not None:
            shift = self.time_emb_proj(F.silu(temb))[0]
            bias = shift if bias is None else bias + shift
        last = self.conv2.bias
        if bias is not None and last is not None and gpu.usable(input_tensor):
            return self._fused(input_tensor, bias, last)
        x = normalize(self.norm1, input_tensor, silu=True)
        x = F.conv2d(x, first.weight, bias, first.stride, first.padding)
        x = self.conv2(normalize(self.norm2, x, silu=True))
        return x.add_(input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor))

    def _fused(self, input_tensor: Tensor, shift: Tensor, bias: Tensor) -> Tensor:
        from difix3d.gpu.group_norm import add_

        x = _convolve(self.conv1, normalize(self.norm1, input_tensor, silu=True))
        x = _convolve(self.conv2, normalize(self.norm2, x, silu=True, shift=shift))
        short = self.conv_shortcut
        if short is None:
            return add_(x, input_tensor, bias)
        return add_(x, _convolve(short, input_tensor), bias if short.bias is None else bias + short.bias)


class LeanGroupNorm(nn.GroupNorm):
    """A group normalisation that reads channels last on a GPU; not for training."""

    silu = False

    def forward(self, input: Tensor) -> Tensor:
        return normalize(self, input, silu=self.silu)


class LeanGroupNormSilu(LeanGroupNorm):
    """The same, and the SiLU behind it."""

    silu = True


class LeanConv2d(nn.Conv2d):
    """A convolution whose bias is added as fast as memory allows; not for training."""

    def forward(self, input: Tensor) -> Tensor:
        return biased(_convolve(self, input), self.bias) if gpu.usable(input) else super().forward(input)


class LeanConvTranspose2d(nn.ConvTranspose2d):
    """The same of a transposed convolution."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not gpu.usable(input) or output_size is not None:
            return super().forward(input, output_size)
        return biased(F.conv_transpose2d(input, self.weight, None, self.stride, self.padding), self.bias)  # type: ignore[arg-type]


def biased(x: Tensor, bias: Tensor | None) -> Tensor:
    """What a convolution made, and its bias: torch adds that with a third of a GPU's speed."""
    from difix3d.gpu.group_norm import add_

    return x if bias is None else add_(x, None, bias)


def normalize(norm: nn.GroupNorm, x: Tensor, *, silu: bool, shift: Tensor | None = None) -> Tensor:
    """``norm(x + shift)``, and its SiLU if asked for; ``shift`` is a value for each channel."""
    if gpu.usable(x) and x[0].numel() < 2**31:
        from difix3d.gpu.group_norm import group_norm

        return group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps, silu=silu, shift=shift)
    y = x if shift is None else x + shift.view(1, -1, *[1] * (x.ndim - 2))
    y = F.group_norm(y, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return F.silu(y, inplace=True) if silu else y


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Without the bias, which is added elsewhere: on a GPU it is a pass of its own."""
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding)


def is_usual(block: ResnetBlock2D) -> bool:
    """Whether it is built like Stable Diffusion's."""
    alike = block.time_embedding_norm == "default" or (block.time_embedding_norm == "group" and not block.time_emb_proj)
    return (
        alike
        and not block.skip_time_act
        and block.output_scale_factor == 1
        and block.upsample is None
        and block.downsample is None
        and isinstance(block.nonlinearity, nn.SiLU)
        and isinstance(block.conv1, nn.Conv2d)
    )
