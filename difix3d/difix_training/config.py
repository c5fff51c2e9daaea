"""What can be set when Difix is trained. Defaults are the paper's; see docs/training_difix.md."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from difix3d.devices import Device
from difix3d.difix.sizes import CELL
from difix3d.errors import UserError
from difix3d.limits import SEEDS, Formerly, Limits

HEAD = 32
"""Channels of an attention head of a mini network."""


@dataclass(frozen=True)
class DifixLossConfig:
    """Weights of the terms; 0 leaves a term out."""

    l2: Annotated[float, Limits(min=0)] = 1.0
    """Mean squared difference, of colours in -1..1."""
    lpips: Annotated[float, Limits(min=0)] = 1.0
    """LPIPS (VGG)."""
    gram: Annotated[float, Limits(min=0)] = 1.0
    """Difference of Gram matrices of VGG-16 features: sharper textures."""
    gram_start: Annotated[int, Limits(min=0)] = 2000
    """Step from which the Gram term counts."""
    perceptual_every: Annotated[int, Limits(min=1)] = 1
    """LPIPS and Gram look at every n-th pair of a batch: VGG-16 takes far more time than a mini network."""


@dataclass(frozen=True)
class DifixOptimConfig:
    """AdamW."""

    lr: Annotated[float, Limits(above=0, max=10)] = 2e-5
    """Learning rate. From scratch take about 5e-4."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after its warm-up; cosine falls to zero at the last step."""
    warmup: Annotated[int, Limits(min=0)] = 500
    """Steps over which the learning rate rises."""
    betas: Annotated[tuple[float, float], Limits(min=0, below=1)] = (0.9, 0.999)
    """Decay of the moving averages of the gradient and of its square."""
    weight_decay: Annotated[float, Limits(min=0)] = 1e-2
    """Share of the weights that a step takes away, times the learning rate."""
    clip: Annotated[float, Limits(above=0)] = 1.0
    """Largest norm of the gradient."""
    ema: Annotated[float, Limits(min=0, below=1)] = 0.0
    """Decay of a moving average of the weights, such as 0.999; it is then what is validated and saved. 0 is off."""


@dataclass(frozen=True)
class MiniConfig:
    """Shape of a network trained from scratch (--fixer scratch)."""

    unet_widths: Annotated[tuple[int, ...], Limits(min=HEAD, multiple=HEAD)] = (64, 96, 128, 128)
    """Channels of the UNet's four stages: multiples of the groups and of the attention heads (32)."""
    vae_widths: Annotated[tuple[int, ...], Limits(min=1)] = (16, 32, 64, 96)
    """Channels of the VAE's four stages: multiples of the groups."""
    groups: Annotated[int, Limits(min=1)] = 8
    """Groups of the normalisation layers."""
    latent: Annotated[int, Limits(min=1)] = 16
    """Channels of the latents."""
    blocks: Annotated[int, Limits(min=1)] = 1
    """Residual blocks per stage."""
    layers: Annotated[int, Limits(min=0)] = 0
    """Layers of references that are carried into the render by its depth, beside the render itself; 0 for none."""
    prompt_width: Annotated[int, Limits(min=1)] = 32
    """Channels of the prompt's embedding, a constant: there is no text encoder."""

    def check(self) -> None:
        """Refuses widths that the groups do not divide."""
        if (
            len(self.unet_widths) != 4
            or len(self.vae_widths) != 4
            or any(width % self.groups for width in (*self.unet_widths, *self.vae_widths))
        ):
            raise UserError(
                f"The mini network's widths are {self.unet_widths} and {self.vae_widths}",
                f"Both are four multiples of the {self.groups} groups",
            )


@dataclass(frozen=True)
class TrainDifixConfig:
    """Trains Difix on pairs of a bad render and the true photo; several GPUs by ``accelerate launch``.

    Examples:
      difix3d train-difix --data pairs/dataset.json
      difix3d train-difix --data pairs/dataset.json --fixer nvidia/difix_ref --optim.lr 1e-5
      difix3d train-difix --resume --output-dir outputs/difix/a
      accelerate launch --multi_gpu scripts/train_difix.py --data pairs/dataset.json --output-dir outputs/difix/a
    """

    data: Path = Path("dataset.json")
    """The pairs: JSON {"train": {ID: {"image", "target_image", "ref_image", "prompt"}}, "test": {...}}."""
    output_dir: Path = Path("outputs/difix")
    """Where the run goes."""
    config: Path | None = None
    """YAML file with any of these options; the command line wins."""
    resume: bool = False
    """Go on with the run in --output-dir, as it was configured and with its pairs; --steps may be raised, and what
    does not change the result."""

    fixer: Annotated[str, Formerly("init")] = "stabilityai/sd-turbo"
    """Where to start: hub id or folder of SD-Turbo (fresh skips and LoRA) or of a Difix, a .pkl checkpoint,
    `scratch` for a small network of random weights (--mini), or `mini` for the trained one in the package."""
    base: str = "stabilityai/sd-turbo"
    """What a .pkl checkpoint was trained from."""
    lora_rank: Annotated[int, Limits(min=0)] = 4
    """Rank of the fresh LoRA on the VAE's decoder; 0 for none."""
    trainable: Literal["auto", "adapters", "all"] = "auto"
    """Besides the UNet: the VAE's LoRA and skips (adapters), or all of it. `auto`: adapters where there is a LoRA."""

    resolution: Annotated[tuple[int, int], Limits(min=2 * CELL, multiple=CELL)] = (576, 1024)
    """Height and width of the crops in pixels."""
    max_scale: Annotated[float, Formerly("zoom"), Limits(min=1, max=100)] = 1.25
    """Images are scaled to between 1 and this times what covers the crop, at random."""
    flip: bool = True
    """Mirror half of the pairs."""
    shuffle_channels: Annotated[bool, Formerly("permute")] = False
    """Exchange colour channels at random: more variety for a network from scratch."""
    color_jitter: Annotated[float, Formerly("jitter"), Limits(min=0, max=10)] = 0.0
    """Gamma and colour gains of each pair change at random, by up to exp(this); 0.4 is much, 0 is off."""
    identity_prob: Annotated[float, Formerly("right"), Limits(min=0, max=1)] = 0.0
    """Share of the pairs that get their photo as the render, half of them with no layer to look at: Difix learns to
    leave alone what is right."""
    plain_prob: Annotated[float, Limits(min=0, max=1)] = 0.0
    """Share of the pairs whose uncovered parts get one colour, in render and photo: a small network that sees the
    coverage learns that nothing is missing before a plain background."""
    refix_prob: Annotated[float, Formerly("again"), Limits(min=0, max=1)] = 0.0
    """Share of the steps whose renders are fixed once before: in the loop, Difix meets its own work again."""
    references: Annotated[int, Limits(min=0)] = 1
    """Reference photos of each pair; 0 trains without."""
    skip_bad: bool = False
    """Leave out pairs that cannot be used, and count them; all images are decoded once to find them."""

    steps: Annotated[int, Limits(min=1)] = 10_000
    """Steps to train."""
    batch_size: Annotated[int, Limits(min=1)] = 1
    """Pairs at a time in each process."""
    accumulate: Annotated[int, Limits(min=1)] = 1
    """Batches of which the gradients are added up for one step."""
    checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, about a third more time."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 on a GPU and fp32 elsewhere. The weights themselves stay fp32."""
    device: Device = "auto"
    """`auto`: CUDA if there is a GPU, one for each process that `accelerate launch` starts."""
    workers: Annotated[int, Limits(min=1, max=1024)] = 8
    """Threads in each process that read images."""
    seed: Annotated[int, SEEDS] = 0
    """Seed of everything random."""

    save_every: Annotated[int, Limits(min=1)] = 1000
    """Steps from one checkpoint to the next; the last step always makes one."""
    keep_checkpoints: Annotated[int, Limits(min=0)] = 2
    """How many of the newest checkpoints stay; 0 keeps all."""
    eval_every: Annotated[int, Limits(min=0)] = 500
    """Steps from one validation on the test pairs to the next; the last step always makes one, 0 none at all."""
    eval_pairs: Annotated[int, Limits(min=1)] = 64
    """Test pairs that are validated on, evenly spread."""
    eval_pictures: Annotated[int, Limits(min=0)] = 4
    """How many of them are written as pictures."""
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    """Where losses and scores are drawn: `tensorboard` (in --output-dir), `wandb` (Weights & Biases), or `none`."""

    save_as: Literal["fp32", "fp16"] = "fp32"
    """Number format of the result."""
    push_to_hub: str | None = None
    """Hub id (NAME/REPOSITORY) that the result is uploaded to at the end, with its model card."""
    private: bool = True
    """Make a new hub repository private."""

    loss: DifixLossConfig = field(default_factory=DifixLossConfig)
    optim: DifixOptimConfig = field(default_factory=DifixOptimConfig)
    mini: MiniConfig = field(default_factory=MiniConfig)

    def check(self) -> None:
        """Refuses what the pairs of a batch are too few for."""
        if self.loss.perceptual_every > self.batch_size:
            raise UserError(
                f"--loss.perceptual-every is {self.loss.perceptual_every}",
                f"It is at most the number of pairs in a batch, {self.batch_size}",
            )
