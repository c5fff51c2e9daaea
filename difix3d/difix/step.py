"""The single step of Difix, as plain functions of its parts; differentiable, so that training calls the same code."""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from difix3d.difix.vae import DifixVAE

TIMESTEP = 199
"""What the UNet is told that Difix is trained at (paper, section 4.1: tau = 200 of 1000)."""


def encode(
    vae: DifixVAE, views: Float[Tensor, "B V K H W"], generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "B V C h w"], list[Float[Tensor, "B _ _ _"]]]:
    """Scaled latents of all views, and the skips of the first one.

    Args:
        views: 0..1; the image first, then its references. Height and width are multiples of 8. K channels: RGB, and
            the guide if the VAE takes one.
        generator: draws the latents of all views at once from their posterior; without it they are its mode.
    """
    batch, count = views.shape[:2]
    pixels = (views.flatten(0, 1) * 2 - 1).contiguous(
        memory_format=torch.channels_last
    )  # the published pipeline's layout
    posterior, skips = vae.encode_with_skips(pixels)
    latents = posterior.mode() if generator is None else posterior.sample(generator)
    latents = (latents * vae.config["scaling_factor"]).unflatten(0, (batch, count))
    return latents, [skip.unflatten(0, (batch, count))[:, 0] for skip in skips]


def unguided(vae: DifixVAE, photos: Float[Tensor, "B V 3 H W"]) -> Float[Tensor, "B V K H W"]:
    """Photos as the VAE takes them: they have no guide of their own, so that its channels are empty."""
    return torch.cat([photos, photos.new_zeros(*photos.shape[:2], vae.guide, *photos.shape[-2:])], 2)


def denoise(
    unet: UNet2DConditionModel,
    latents: Float[Tensor, "B V C h w"],
    prompt_embeds: Float[Tensor, "B L D"],
    timestep: int,
    alpha_bar: float,
) -> Float[Tensor, "B C h w"]:
    """The clean latents of the first view.

    Args:
        prompt_embeds: one text for all views of an item.
        timestep: what the UNet is told; see :data:`TIMESTEP`. No noise is added.
        alpha_bar: the noise schedule's cumulative product at that time step.
    """
    views = latents.shape[1]
    t = torch.full((1,), timestep, device=latents.device)  # filled on the device: no copy, so CUDA graphs can record it
    context = prompt_embeds.repeat_interleave(views, 0)
    mixing = {"num_views": views} if views > 1 else None
    noise = unet(latents.flatten(0, 1), t, context, cross_attention_kwargs=mixing, return_dict=False)[0][::views]
    return clean(latents[:, 0], noise, alpha_bar)


def clean(latents: Float[Tensor, "B C h w"], noise: Float[Tensor, "B C h w"], alpha_bar: float) -> Tensor:
    """``z0 = (z - sqrt(1 - abar) eps) / sqrt(abar)``, in fp32."""
    return ((latents.float() - (1 - alpha_bar) ** 0.5 * noise.float()) / alpha_bar**0.5).to(latents.dtype)


def decode(
    vae: DifixVAE, latents: Float[Tensor, "B C h w"], skips: list[Float[Tensor, "B _ _ _"]]
) -> Float[Tensor, "B K H W"]:
    """Images in about 0..1, not clamped, from scaled latents and the skips of the same images.

    K channels: RGB, and what :func:`blend` takes if the VAE takes a guide.
    """
    return vae.decode_with_skips(latents / vae.config["scaling_factor"], skips) / 2 + 0.5


def blend(decoded: Float[Tensor, "B K H W"], images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 H W"]:
    """Mixes, pixel by pixel, what the decoder painted, the render, and the warped references where they are valid.

    Args:
        decoded: RGB, then a logit for each of these pictures in this order.
        images: RGBA of the render, then RGBA of each layer.
    """
    layers = images[:, 4:].unflatten(1, (-1, 4))
    pictures = torch.cat([decoded[:, None, :3], images[:, None, :3], layers[:, :, :3]], 1)
    logits = decoded[:, 3:].clone()
    logits[:, 2:] = logits[:, 2:].masked_fill(layers[:, :, 3] < 0.5, -torch.inf)
    return (logits.softmax(1)[:, :, None] * pictures).sum(1)


def fix_views(
    vae: DifixVAE,
    unet: UNet2DConditionModel,
    images: Float[Tensor, "B K H W"],
    references: Float[Tensor, "B V C h w"] | None,
    prompt_embeds: Float[Tensor, "B L D"],
    timestep: int,
    alpha_bar: float,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B 3 H W"]:
    """Encode, one step, decode: the whole of Difix. Only the images are decoded, with their own skips.

    Args:
        images: RGB in 0..1, and the guide (alpha, RGBA of each layer of warped references) if the VAE takes one.
        references: pixels in 0..1 of the images' size, or their scaled latents, or ``None``.
    """
    if references is not None and references.shape[2] == 3:
        views = torch.cat([images[:, None], unguided(vae, references)], 1)
        latents, skips = encode(vae, views, generator)
    else:
        latents, skips = encode(vae, images[:, None], generator)
        if references is not None:
            latents = torch.cat([latents, references], 1)
    decoded = decode(vae, denoise(unet, latents, prompt_embeds, timestep, alpha_bar), skips)
    return blend(decoded, images) if vae.guide else decoded
