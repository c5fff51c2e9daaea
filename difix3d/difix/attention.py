"""Reference mixing: self-attention that sees all views of one item at once (paper, section 4.1)."""

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class MultiViewAttnProcessor(AttnProcessor2_0):
    """Diffusers' attention, where self-attention joins the tokens of the views: ``(b v) n d -> b (v n) d`` and back.

    The number of views comes with each call as ``cross_attention_kwargs={"num_views": V}``, so that the processor holds
    no state. Cross-attention, to the prompt, stays within each view; with one view nothing changes at all.

    References that do not look at the image (see :mod:`difix3d.difix.fast`) come as keys and values: ``kept`` is a list
    to which each self-attention adds its own, ``frozen`` gives them back in the same order.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "bv n d"],
        encoder_hidden_states: Float[Tensor, "bv l c"] | None = None,
        *args: Any,
        num_views: int = 1,
        kept: list[Tensor] | None = None,
        frozen: Iterator[Tensor] | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "bv n d"]:
        if encoder_hidden_states is not None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        if kept is not None or frozen is not None:
            key, value = attn.to_k(hidden_states), attn.to_v(hidden_states)
            if kept is not None:
                kept += [key, value]
            if frozen is not None:
                key, value = (torch.cat([own, next(frozen).flatten(1, 2)], 1) for own in (key, value))
            return attend(attn, hidden_states, key, value)
        if num_views == 1:
            return super().__call__(attn, hidden_states, None, *args, **kwargs)
        joined = hidden_states.unflatten(0, (-1, num_views)).flatten(1, 2)
        mixed = attend(attn, joined, attn.to_k(joined), attn.to_v(joined))
        return mixed.unflatten(1, (num_views, -1)).flatten(0, 1)


class ConstantPromptProcessor(AttnProcessor2_0):
    """Cross-attention to one prompt, whose keys and values are made once; other prompts are not looked at."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "bv n d"],
        encoder_hidden_states: Float[Tensor, "_ l c"] | None = None,  # noqa: ARG002 (diffusers' signature)
        *_: Any,
        num_views: int = 1,  # noqa: ARG002
        kept: list[Tensor] | None = None,  # noqa: ARG002
        frozen: Iterator[Tensor] | None = None,  # noqa: ARG002
        **__: Any,
    ) -> Float[Tensor, "bv n d"]:
        count = len(hidden_states)
        return attend(
            attn, hidden_states, attn.prompt_key.expand(count, -1, -1), attn.prompt_value.expand(count, -1, -1)
        )


def attend(
    attn: Any, x: Float[Tensor, "b n d"], key: Float[Tensor, "b m c"], value: Float[Tensor, "b m c"]
) -> Float[Tensor, "b n d"]:
    """Attention of tokens to keys and values that are there, as diffusers' processor does it."""
    query, key, value = (part.unflatten(2, (attn.heads, -1)).transpose(1, 2) for part in (attn.to_q(x), key, value))
    return attn.to_out[0](scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def mix_views(unet: UNet2DConditionModel) -> None:
    """Gives this UNet, and no other, the multi-view self-attention.

    The cross-attention layers get the same processor, which leaves them as they are: diffusers hands ``num_views`` to
    all attention layers and complains about those that do not take it.
    """
    unet.set_attn_processor(MultiViewAttnProcessor())


@torch.no_grad()
def keep_prompt(unet: UNet2DConditionModel, embeds: Float[Tensor, "1 L D"]) -> None:
    """From now on the UNet knows this prompt only; its keys and values move with the UNet, and are not saved."""
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            attn: Any = block.attn2
            attn.register_buffer("prompt_key", attn.to_k(embeds), persistent=False)
            attn.register_buffer("prompt_value", attn.to_v(embeds), persistent=False)
            attn.set_processor(ConstantPromptProcessor())
