"""Where training starts: SD-Turbo, a Difix, or a small network from scratch; what it moves, and on which device."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from jaxtyping import Float
from torch import Tensor, nn

from difix3d.devices import choose_device
from difix3d.difix.architecture import SCHEDULE, UNET, VAE
from difix3d.difix.hub import fetch
from difix3d.difix.pipeline import PROMPT, TIMESTEP, DifixPipeline
from difix3d.difix.step import fix_views
from difix3d.difix.vae import ADAPTER, DifixVAE
from difix3d.difix.weights import has_skips, is_checkpoint, new_parts
from difix3d.difix_training.config import HEAD, MiniConfig, TrainDifixConfig
from difix3d.errors import UserError

SCRATCH = "scratch"
"""The name of a network of random weights."""
RENDER = 4.0
"""Where a network that blends starts: with a logit of 2 for the render, which is kept almost as it is."""


def accelerator(config: TrainDifixConfig) -> Accelerator:
    """What knows devices and processes; bf16 by default where there is a GPU."""
    cuda = choose_device(config.device).type == "cuda"
    bf16 = config.precision == "bf16" or (config.precision == "auto" and cuda)
    return Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        cpu=config.device == "cpu",  # else what it finds
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=config.output_dir,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],  # else gradients are held twice
    )


def start_pipeline(config: TrainDifixConfig) -> DifixPipeline:
    """The pipeline that ``config.fixer`` names, in fp32 on the CPU; what is random in it follows from the seed.

    Raises:
        UserError: the weights cannot be had or do not fit, or the network cannot use an option.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        pipe = _named(config)
    if pipe.vae.guide:
        pipe.vae.see_foreground()  # as pairs have it, whatever the network was given before
    elif config.plain_prob:
        raise UserError(
            f"--plain-prob is {config.plain_prob:g}",
            "Only small networks with layers see what a render covers",
            "Leave it out, or train such a one: --fixer mini, or --fixer scratch --mini.layers 2",
        )
    return pipe


def _named(config: TrainDifixConfig) -> DifixPipeline:
    if config.fixer == SCRATCH:
        return mini_difix(config.mini)
    if is_checkpoint(config.fixer):
        return DifixPipeline.from_pretrained(config.fixer, base=config.base)
    folder = fetch(config.fixer)
    if has_skips(folder):
        return DifixPipeline.from_pretrained(folder)
    return DifixPipeline(**new_parts(folder, config.lora_rank))


def mini_difix(shape: MiniConfig) -> DifixPipeline:
    """A small Difix with random weights, without LoRA; one random embedding stands for the prompt."""
    unet: dict[str, Any] = UNET | {
        "in_channels": shape.latent,
        "out_channels": shape.latent,
        "block_out_channels": shape.unet_widths,
        "attention_head_dim": tuple(width // HEAD for width in shape.unet_widths),  # diffusers means their number
        "cross_attention_dim": shape.prompt_width,
        "layers_per_block": shape.blocks,
        "norm_num_groups": shape.groups,
    }
    vae: dict[str, Any] = VAE | {
        "in_channels": 4 + 4 * shape.layers if shape.layers else 3,
        "out_channels": 5 + shape.layers if shape.layers else 3,
        "latent_channels": shape.latent,
        "block_out_channels": shape.vae_widths,
        "layers_per_block": shape.blocks,
        "norm_num_groups": shape.groups,
    }
    pipe = DifixPipeline(DifixVAE.build(vae, 0), UNet2DConditionModel(**unet), DDPMScheduler(**SCHEDULE))
    decoder = pipe.vae.decoder
    for i in range(1, 5):
        nn.init.kaiming_normal_(decoder.get_submodule(f"skip_conv_{i}").weight)  # there is no VAE to keep
    if shape.layers:
        nn.init.zeros_(decoder.conv_out.weight[3:])
        decoder.conv_out.bias.data[3:] = torch.tensor([0.0, RENDER] + [0.0] * shape.layers)
    pipe.prompt_embeds[PROMPT] = torch.randn(8, shape.prompt_width)
    return pipe


class DifixStep(nn.Module):
    """The step of Difix as one module, for ``accelerate`` to wrap. Only what is trained has gradients.

    Args:
        trainable: see :class:`~difix3d.difix_training.config.TrainDifixConfig`.
        checkpointing: recompute activations in the backward pass.
    """

    def __init__(self, pipe: DifixPipeline, trainable: str = "auto", checkpointing: bool = False):
        super().__init__()
        self.vae, self.unet = pipe.vae, pipe.unet
        self.alpha_bar = float(pipe.scheduler.alphas_cumprod[TIMESTEP])
        self.unet.requires_grad_(True).train()
        if trainable == "auto":
            trainable = "adapters" if any(ADAPTER in name for name, _ in self.vae.named_parameters()) else "all"
        for name, parameter in self.vae.named_parameters():
            parameter.requires_grad_(trainable == "all" or ADAPTER in name or "skip_conv" in name)
        if checkpointing:
            self.unet.enable_gradient_checkpointing()
            self.vae.enable_gradient_checkpointing()

    def forward(
        self,
        images: Float[Tensor, "B K H W"],
        references: Float[Tensor, "B V 3 H W"],
        prompt_embeds: Float[Tensor, "B L D"],
    ) -> Float[Tensor, "B 3 H W"]:
        """Fixed images in about 0..1, not clamped; there may be no references (V = 0)."""
        views = references if references.shape[1] else None
        return fix_views(self.vae, self.unet, images, views, prompt_embeds, TIMESTEP, self.alpha_bar)

    def trained(self) -> dict[str, nn.Parameter]:
        """What training moves, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}
