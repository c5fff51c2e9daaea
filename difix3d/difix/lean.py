"""Which layers of a network get leaner ones in their place; diffusers' own forwards are the readable twins."""

from typing import Any, cast

import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor, nn

from difix3d import gpu
from difix3d.difix.resnet import (
    LeanConv2d,
    LeanConvTranspose2d,
    LeanGroupNorm,
    LeanGroupNormSilu,
    LeanResnetBlock,
    is_usual,
)
from difix3d.difix.vae import as_transposed


class LeanLayerNorm(nn.LayerNorm):
    """A layer normalisation that takes several rows at a time on a GPU; not for training."""

    def forward(self, input: Tensor) -> Tensor:
        if not gpu.usable(input):
            return super().forward(input)
        from difix3d.gpu.tokens import layer_norm

        return layer_norm(input, self.weight, self.bias, self.eps)


class LeanGEGLU(GEGLU):
    """The gate and the product in one pass; not for training."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        if not gpu.usable(hidden_states):
            return super().forward(hidden_states, *args, **kwargs)
        from difix3d.gpu.tokens import geglu

        return geglu(self.proj(hidden_states))


class LeanAttnProcessor(AttnProcessor2_0):
    """The attention in the middle of a VAE: one head with all channels, too wide for torch's fast kernels."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "B C H W"],
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "B C H W"]:
        if not gpu.usable(hidden_states):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb, **kwargs)
        from difix3d.gpu.tokens import attend_wide, takes_wide

        tokens = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)
        query, key, value = attn.to_q(tokens), attn.to_k(tokens), attn.to_v(tokens)
        if takes_wide(key):
            mixed = attend_wide(query, key, value)
        else:
            mixed = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        out = attn.to_out[0](mixed).transpose(1, 2).unflatten(2, hidden_states.shape[2:])
        return out.add_(hidden_states)


class LeanUpsample2D(Upsample2D):
    """A doubling and the convolution behind it as one transposed convolution; not for training.

    Where what comes next is a pixel smaller, as beside an odd skip of the UNet, it is done as before.
    """

    merged: nn.ConvTranspose2d

    def forward(
        self, hidden_states: Float[Tensor, "B C h w"], output_size: Any = None, **kwargs: Any
    ) -> Float[Tensor, "B D H W"]:
        if output_size is None or list(output_size) == [2 * size for size in hidden_states.shape[2:]]:
            return self.merged(hidden_states)
        return super().forward(hidden_states, output_size, **kwargs)


def make_lean(model: nn.Module) -> None:
    """Turns the model's layers, if they are like Stable Diffusion's, into lean ones.

    Residual blocks take one time step for the whole batch.
    """
    for block in list(model.modules()):
        if type(block) is Upsample2D and _is_doubling(block):
            block.__class__ = LeanUpsample2D
            block.merged = as_transposed(cast("nn.Conv2d", block.conv))
    for block in list(model.modules()):
        if type(block) is ResnetBlock2D and is_usual(block):
            block.__class__ = LeanResnetBlock
        elif type(block) is nn.GroupNorm and block.affine:
            block.__class__ = LeanGroupNorm
        elif type(block) is nn.Conv2d and _is_plain(block):
            block.__class__ = LeanConv2d
        elif type(block) is nn.ConvTranspose2d and _is_plain(block):
            block.__class__ = LeanConvTranspose2d
        elif type(block) is nn.LayerNorm and block.bias is not None:
            block.__class__ = LeanLayerNorm
        elif type(block) is GEGLU:
            block.__class__ = LeanGEGLU
        elif type(block) is Attention and _is_middle(block):
            block.set_processor(LeanAttnProcessor())  # type: ignore[arg-type]
    for block in list(model.modules()):
        if isinstance(getattr(block, "conv_norm_out", None), LeanGroupNorm) and isinstance(block.conv_act, nn.SiLU):
            block.conv_norm_out.__class__ = LeanGroupNormSilu
            block.conv_act = nn.Identity()


def _is_doubling(block: Upsample2D) -> bool:
    conv = block.conv
    return block.norm is None and block.interpolate and isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3)


def _is_plain(conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    return conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"


def _is_middle(attention: Attention) -> bool:
    """Whether it is that of a VAE, as Stable Diffusion's."""
    plain = attention.spatial_norm is None and attention.norm_q is None and attention.norm_k is None
    ends = attention.residual_connection and attention.rescale_output_factor == 1
    return plain and ends and attention.heads == 1 and attention.group_norm is not None
