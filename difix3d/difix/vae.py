"""SD-Turbo's VAE with the two additions of Difix: skips from the encoder to the decoder, and a LoRA on the decoder.

Both follow img2img-turbo (Parmar et al. 2024, arXiv 2403.12036), which Difix builds on.
"""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.upsampling import Upsample2D
from diffusers.utils.accelerate_utils import apply_forward_hook
from jaxtyping import Float
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ADAPTER = "vae_skip"
LORA_TARGETS = (
    r"decoder\.(.+\.)?(conv1|conv2|conv_in|conv_shortcut|conv|conv_out|skip_conv_[1-4]|to_k|to_q|to_v|to_out\.0)"
)
FOREGROUND = "foreground"
"""The key of its config that says which coverage it is given."""
SKIP_INIT = 1e-5  # small, so that training starts from nearly the plain VAE


class DifixVAE(AutoencoderKL):
    """``AutoencoderKL`` whose decoder also takes the encoder's activations. Made by :meth:`build`.

    The inherited ``encode`` and ``decode`` work as before, without skips.
    """

    @classmethod
    def build(cls, config: dict[str, Any], lora_rank: int = 4) -> "DifixVAE":
        """A new VAE of the shape that an ``AutoencoderKL`` config describes.

        Args:
            lora_rank: rank of the LoRA on the decoder's convolutions and linear layers; 0 for none (a fused model).
        """
        known = {key: value for key, value in config.items() if key != FOREGROUND}  # the one that diffusers lacks
        vae: Any = cls.from_config(known)
        if config.get(FOREGROUND):
            vae.see_foreground()
        widths = list(vae.config.block_out_channels)
        into_down = [widths[0], *widths[:-1]]  # channels at the input of each down block
        into_up = [widths[-1], *widths[:0:-1]]
        for i, (down, up) in enumerate(zip(reversed(into_down), into_up, strict=True), start=1):
            conv = nn.Conv2d(down, up, kernel_size=1, bias=False)
            nn.init.constant_(conv.weight, SKIP_INIT)
            vae.decoder.add_module(f"skip_conv_{i}", conv)
        if lora_rank:
            lora = LoraConfig(r=lora_rank, init_lora_weights="gaussian", target_modules=LORA_TARGETS)
            inject_adapter_in_model(lora, vae, adapter_name=ADAPTER)
        return vae

    @property
    def guide(self) -> int:
        """How many channels it takes beside an image's RGB; 0 for the published one."""
        return int(self.config["in_channels"]) - 3

    @property
    def layers(self) -> int:
        """How many layers of warped references (RGBA) are in the guide, after the coverage of the render."""
        return self.guide // 4

    @property
    def foreground(self) -> bool:
        """Whether that coverage is by what is nearer than a backdrop; networks from before are given all of it."""
        return bool(self.config.get(FOREGROUND, False))

    def see_foreground(self) -> None:
        """Says so, in what is saved as well."""
        self.register_to_config(**{FOREGROUND: True})

    @apply_forward_hook
    def encode_with_skips(
        self, pixels: Float[Tensor, "B K H W"]
    ) -> tuple[DiagonalGaussianDistribution, list[Float[Tensor, "B _ _ _"]]]:
        """The posterior of the latents, and the inputs of the four down blocks, deepest first.

        Args:
            pixels: in -1..1, height and width multiples of 8.
        """
        encoder, skips = self.encoder, []
        x = encoder.conv_in(pixels)
        for block in encoder.down_blocks:
            skips.append(x)
            x = _run(encoder, block, x)
        x = encoder.conv_act(encoder.conv_norm_out(_run(encoder, encoder.mid_block, x)))
        moments = self.quant_conv(encoder.conv_out(x))  # type: ignore[misc]
        return DiagonalGaussianDistribution(moments), skips[::-1]

    @apply_forward_hook
    def decode_with_skips(
        self, latents: Float[Tensor, "B C h w"], skips: list[Float[Tensor, "B _ _ _"]]
    ) -> Float[Tensor, "B K H W"]:
        """Images in about -1..1 from unscaled latents and the skips of the same images."""
        decoder = self.decoder
        x = decoder.conv_in(self.post_quant_conv(latents))  # type: ignore[misc]
        x = _run(decoder, decoder.mid_block, x)
        for i, (block, skip) in enumerate(zip(decoder.up_blocks, skips, strict=True), start=1):
            x = _run(decoder, block, x + decoder.get_submodule(f"skip_conv_{i}")(skip))
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))

    def merge_doublings(self) -> None:
        """Makes one transposed convolution of each doubling in the decoder and the convolution behind it.

        Four taps for a pixel instead of nine: the output stays the same up to rounding. Not for training; the LoRA has
        to be fused.
        """
        for module in self.decoder.modules():
            if isinstance(module, Upsample2D) and isinstance(module.conv, nn.Conv2d):
                module.conv = as_transposed(module.conv)
                module.use_conv_transpose = True

    def fuse(self) -> None:
        """Adds the LoRA into the weights and removes its layers; the output stays the same up to rounding."""
        for name, layer in list(self.named_modules()):
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
                parent, _, child = name.rpartition(".")
                setattr(self.get_submodule(parent), child, layer.get_base_layer())


@torch.no_grad()
def as_transposed(conv: nn.Conv2d) -> nn.ConvTranspose2d:
    """What nearest doubling and then a 3x3 convolution with padding 1 does, as one transposed convolution.

    Along each axis an input pixel is seen twice in a row, so that its taps (a, b, c) reach four outputs: c, b + c,
    a + b, a.
    """
    merged = nn.ConvTranspose2d(
        conv.in_channels, conv.out_channels, 4, stride=2, padding=1, bias=conv.bias is not None, device="meta"
    )
    doubled = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], device=conv.weight.device)
    weight = torch.einsum("ya,xb,oiab->ioyx", doubled.float(), doubled.float(), conv.weight.float())
    merged.weight = nn.Parameter(weight.to(conv.weight.dtype))
    merged.bias = conv.bias
    return merged


def _run(owner: nn.Module, block: nn.Module, x: Tensor) -> Tensor:
    """One block; recomputed in the backward pass if gradient checkpointing is enabled on the encoder or decoder."""
    if owner.gradient_checkpointing and torch.is_grad_enabled():
        return checkpoint(block, x, use_reentrant=False)
    return block(x)
