"""Reference mixing: self-attention that sees all views of one item at once (paper, section 4.1)."""

from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor


class MultiViewAttnProcessor(AttnProcessor2_0):
    """Diffusers' attention, where self-attention joins the tokens of the views: ``(b v) n d -> b (v n) d`` and back.

    The number of views comes with each call as ``cross_attention_kwargs={"num_views": V}``, so that the processor holds
    no state. Cross-attention, to the prompt, stays within each view; with one view nothing changes at all.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "bv n d"],
        encoder_hidden_states: Float[Tensor, "bv l c"] | None = None,
        *args: Any,
        num_views: int = 1,
        **kwargs: Any,
    ) -> Float[Tensor, "bv n d"]:
        if num_views == 1 or encoder_hidden_states is not None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        joined = hidden_states.unflatten(0, (-1, num_views)).flatten(1, 2)
        mixed = super().__call__(attn, joined, None, *args, **kwargs)
        return mixed.unflatten(1, (num_views, -1)).flatten(0, 1)


def mix_views(unet: UNet2DConditionModel) -> None:
    """Gives this UNet, and no other, the multi-view self-attention.

    The cross-attention layers get the same processor, which leaves them as they are: diffusers hands ``num_views`` to
    all attention layers and complains about those that do not take it.
    """
    unet.set_attn_processor(MultiViewAttnProcessor())
