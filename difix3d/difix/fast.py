"""Difix's step without work that leads nowhere; :func:`difix3d.difix.step.fix_views` is its readable twin.

Exact, up to rounding:

- What a reference is before it first meets the image depends on the reference alone: it is made once (:func:`prepare`).
- Behind the last self-attention, where references are looked at for the last time, only the image goes on.
- The prompt is constant (:func:`~difix3d.difix.attention.keep_prompt`).

Not exact: *frozen* references do not look at the image, so that all their keys and values are made once.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from difix3d.difix.step import blend, clean, decode, encode
from difix3d.difix.vae import DifixVAE

USUAL = {
    "center_input_sample": False,
    "only_cross_attention": False,
    "attention_type": "default",
    "use_linear_projection": True,
    "class_embed_type": None,
    "addition_embed_type": None,
    "encoder_hid_dim_type": None,
    "time_embedding_act_fn": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
}


def is_usual(unet: UNet2DConditionModel) -> bool:
    """Whether the UNet is built like that of Stable Diffusion 2; others go diffusers' own way."""
    config = unet.config
    ends = config["down_block_types"][0], config["up_block_types"][-1]
    alike = all(config.get(key) == value for key, value in USUAL.items())
    return alike and ends == ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")


def fix_fast(
    vae: DifixVAE,
    unet: UNet2DConditionModel,
    images: Float[Tensor, "B K H W"],
    references: Sequence[Float[Tensor, "B V ..."]] | None,
    timestep: int,
    alpha_bar: float,
    frozen: bool,
) -> Float[Tensor, "B 3 H W"]:
    """What :func:`~difix3d.difix.step.fix_views` does, for the prompt that the UNet keeps.

    Args:
        references: what :func:`prepare` made of them.
    """
    latents, skips = encode(vae, images[:, None])
    noise = predict_noise(unet, latents[:, 0], references, timestep, frozen)
    decoded = decode(vae, clean(latents[:, 0], noise, alpha_bar), skips)
    return blend(decoded, images) if vae.guide else decoded


def predict_noise(
    unet: UNet2DConditionModel,
    latents: Float[Tensor, "B C h w"],
    references: Sequence[Float[Tensor, "B V ..."]] | None,
    timestep: int,
    frozen: bool = False,
) -> Float[Tensor, "B C h w"]:
    """The noise in the images' latents, as the UNet sees it beside their references (from :func:`prepare`)."""
    temb = _time(unet, timestep, latents)
    begun = _begin(unet, latents, temb)
    if references is None:
        return _rest(unet, begun, temb, 1, {})
    if frozen:
        return _rest(unet, begun, temb, 1, {"frozen": iter(references)})
    views = 1 + references[0].shape[1]
    begun = [_beside(own, others) for own, others in zip(begun, references, strict=True)]
    return _rest(unet, begun, temb, views, {"num_views": views})


def _beside(own: Float[Tensor, "B C h w"], others: Float[Tensor, "B V C h w"]) -> Float[Tensor, "bv C h w"]:
    """An image and its references one after the other, with channels last in memory, as all behind it has them."""
    return torch.cat([own.movedim(1, -1)[:, None], others.movedim(2, -1)], 1).flatten(0, 1).movedim(-1, 1)


@torch.no_grad()
def prepare(
    unet: UNet2DConditionModel, latents: Float[Tensor, "N C h w"], timestep: int, frozen: bool = False
) -> list[Float[Tensor, "N ..."]]:
    """What is kept of references: all that does not depend on the image.

    Args:
        latents: scaled, of references that have nothing to do with each other.
        frozen: a key and a value for each self-attention; else the two pictures before the first of them.
    """
    temb = _time(unet, timestep, latents)
    begun = _begin(unet, latents, temb)
    if not frozen:
        return begun
    kept: list[Tensor] = []
    _rest(unet, begun, temb, 1, {"kept": kept})
    return kept


def _time(unet: UNet2DConditionModel, timestep: int, like: Tensor) -> Float[Tensor, "1 T"]:
    """What the UNet is told of the time step."""
    t = torch.full((1,), timestep, device=like.device)  # filled on the device: no copy, so CUDA graphs can record it
    return unet.time_embedding(unet.time_proj(t).to(like.dtype))


def _begin(unet: Any, latents: Float[Tensor, "N C h w"], temb: Tensor) -> list[Tensor]:
    """The pictures before the first self-attention: of the skip, and of what goes on."""
    first = unet.conv_in(latents)
    return [first, unet.down_blocks[0].resnets[0](first, temb)]


def _rest(unet: Any, begun: list[Tensor], temb: Tensor, views: int, mixing: dict[str, Any]) -> Tensor:
    """The UNet from the first self-attention on; of several views only the first comes out."""
    first, x = begun
    prompt = x.new_zeros(len(x), 1, 1)  # any: the attentions keep the keys of theirs
    skips = [first]
    for number, block in enumerate(unet.down_blocks):
        for place, (resnet, attention) in enumerate(_pairs(block)):
            if number or place:
                x = resnet(x, temb)
            if attention is not None:
                x = _transform(attention, x, prompt, mixing)
            skips.append(x)
        for halving in block.downsamplers or ():
            x = halving(x)
            skips.append(x)
    x = unet.mid_block.resnets[0](x, temb)
    for attention, resnet in zip(unet.mid_block.attentions, unet.mid_block.resnets[1:], strict=True):
        x = resnet(_transform(attention, x, prompt, mixing), temb)
    last = unet.up_blocks[-1].attentions[-1]
    for block in unet.up_blocks:
        for resnet, attention in _pairs(block):
            x = resnet(torch.cat([x, skips.pop()], 1), temb)
            if attention is last and views > 1:
                x = _leave(attention, x, prompt, views)
            elif attention is not None:
                x = _transform(attention, x, prompt, mixing)
        for doubling in block.upsamplers or ():
            x = doubling(x, skips[-1].shape[2:])
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))


def _pairs(block: Any) -> list[tuple[Any, Any]]:
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    return list(zip(block.resnets, attentions, strict=True))


def _transform(
    model: Transformer2DModel, x: Float[Tensor, "bv c h w"], prompt: Tensor, mixing: dict[str, Any]
) -> Float[Tensor, "bv c h w"]:
    """What the transformer's own forward does, without a copy to channels first and back."""
    tokens = _tokens(model, x)
    for block in cast("Sequence[Any]", model.transformer_blocks):
        tokens = block(tokens, encoder_hidden_states=prompt, cross_attention_kwargs=mixing)
    return x + _picture(model, tokens, x)


def _leave(model: Transformer2DModel, x: Float[Tensor, "bv c h w"], prompt: Tensor, views: int) -> Tensor:
    """The last transformer, of which only the images come out: the other views are no more than keys and values."""
    tokens = _tokens(model, x)
    *blocks, last = cast("Sequence[Any]", model.transformer_blocks)
    for block in blocks:
        tokens = block(tokens, encoder_hidden_states=prompt, cross_attention_kwargs={"num_views": views})
    seen = last.norm1(tokens).unflatten(0, (-1, views))
    own = tokens[::views] + last.attn1(seen[:, 0], encoder_hidden_states=seen.flatten(1, 2))
    own = own + last.attn2(last.norm2(own), encoder_hidden_states=prompt)
    own = own + last.ff(last.norm3(own))
    return x[::views] + _picture(model, own, x)


def _tokens(model: Any, x: Float[Tensor, "bv c h w"]) -> Float[Tensor, "bv n d"]:
    return model.proj_in(model.norm(x).flatten(2).transpose(1, 2))


def _picture(model: Any, tokens: Float[Tensor, "b n d"], like: Float[Tensor, "bv c h w"]) -> Float[Tensor, "b c h w"]:
    return model.proj_out(tokens).transpose(1, 2).unflatten(2, like.shape[2:])
