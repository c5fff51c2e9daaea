"""Difix with random weights: of the published size for benchmarks, or tiny for tests. Neither needs a download."""

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from difix3d.difix.pipeline import PROMPT, DifixPipeline
from difix3d.difix.vae import DifixVAE

ATTENTION = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
UNET: dict[str, Any] = {
    "down_block_types": ATTENTION[0],
    "up_block_types": ATTENTION[1],
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
TINY_UNET = UNET | {
    "block_out_channels": (32, 32, 64, 64),
    "attention_head_dim": (2, 2, 4, 4),
    "cross_attention_dim": 32,
    "layers_per_block": 1,
}
TINY_VAE = VAE | {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


def random_difix(
    tiny: bool = True,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    lora_rank: int = 4,
    seed: int = 0,
) -> DifixPipeline:
    """A pipeline with random weights, without text encoder: it knows the embedding (random too) of one prompt.

    Args:
        tiny: 0.7 million parameters instead of SD-Turbo's 950 million.
        device: "meta" for shapes alone.
    """
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**(TINY_UNET if tiny else UNET))
        vae = DifixVAE.build(TINY_VAE if tiny else VAE, lora_rank)
        prompt = torch.randn(77, unet.config.cross_attention_dim)
    pipe = DifixPipeline(vae.eval(), unet.eval(), DDPMScheduler(**SCHEDULE))
    if dtype != torch.float32:
        pipe.to(dtype)
    pipe.prompt_embeds[PROMPT] = prompt
    return pipe
