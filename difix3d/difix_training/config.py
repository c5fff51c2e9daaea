"""What can be set when Difix is trained. Defaults are the paper's; see docs/training_difix.md."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from difix3d.difix.sizes import CELL
from difix3d.errors import UserError

HEAD = 32
"""Channels of an attention head of a mini network."""


@dataclass(frozen=True)
class DifixLossConfig:
    """Weights of the terms; 0 leaves a term out."""

    l2: float = 1.0
    """Mean squared difference, of colours in -1..1."""
    lpips: float = 1.0
    """LPIPS (VGG)."""
    gram: float = 1.0
    """Difference of Gram matrices of VGG-16 features: sharper textures."""
    gram_start: int = 2000
    """Step from which the Gram term counts."""
    perceptual_every: int = 1
    """LPIPS and Gram look at every n-th pair of a batch: VGG-16 takes far more time than a mini network."""


@dataclass(frozen=True)
class DifixOptimConfig:
    """AdamW."""

    lr: float = 2e-5
    """Learning rate. From scratch take about 5e-4."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after its warm-up; cosine falls to zero at the last step."""
    warmup: int = 500
    """Steps over which the learning rate rises."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.0
    """Decay of a moving average of the weights, such as 0.999; it is then what is validated and saved. 0 is off."""


@dataclass(frozen=True)
class MiniConfig:
    """Shape of a network trained from scratch (--init scratch)."""

    unet_widths: tuple[int, ...] = (64, 96, 128, 128)
    """Channels of the UNet's four stages: multiples of the groups and of the attention heads (32)."""
    vae_widths: tuple[int, ...] = (16, 32, 64, 96)
    """Channels of the VAE's four stages: multiples of the groups."""
    groups: int = 8
    """Groups of the normalisation layers."""
    latent: int = 16
    """Channels of the latents."""
    blocks: int = 1
    """Residual blocks per stage."""
    layers: int = 0
    """Layers of references that are carried into the render by its depth, beside the render itself; 0 for none."""
    prompt_width: int = 32
    """Channels of the prompt's embedding, a constant: there is no text encoder."""


@dataclass(frozen=True)
class TrainDifixConfig:
    """Trains Difix on pairs of a bad render and the true photo; several GPUs by ``accelerate launch``.

    Examples:
        python scripts/train_difix.py --data pairs/dataset.json
        python scripts/train_difix.py --data pairs/dataset.json --init nvidia/difix_ref --optim.lr 1e-5
        accelerate launch --multi_gpu scripts/train_difix.py --data pairs/dataset.json --output-dir outputs/difix/a
        python scripts/train_difix.py --resume --output-dir outputs/difix/a
    """

    data: Path = Path("dataset.json")
    """The pairs: JSON {"train": {ID: {"image", "target_image", "ref_image", "prompt"}}, "test": {...}}."""
    output_dir: Path = Path("outputs/difix")
    """Where the run goes."""
    config: Path | None = None
    """YAML file with any of these options; the command line wins."""
    resume: bool = False
    """Go on with the run in --output-dir, as it was configured; --steps may be raised."""

    init: str = "stabilityai/sd-turbo"
    """Where to start: hub id or folder of SD-Turbo (fresh skips and LoRA) or of a Difix, a .pkl checkpoint,
    "scratch" for a small network of random weights (--mini), or "mini" for the trained one in the package."""
    base: str = "stabilityai/sd-turbo"
    """What a .pkl checkpoint was trained from."""
    lora_rank: int = 4
    """Rank of the fresh LoRA on the VAE's decoder; 0 for none."""
    trainable: Literal["auto", "adapters", "all"] = "auto"
    """Besides the UNet: the VAE's LoRA and skips (adapters), or all of it. "auto" is adapters where there is a LoRA."""

    resolution: tuple[int, int] = (576, 1024)
    """Height and width of the crops in pixels: multiples of 8."""
    zoom: float = 1.25
    """Images are scaled to between 1 and this times what covers the crop, at random."""
    flip: bool = True
    """Mirror half of the pairs."""
    permute: bool = False
    """Exchange colour channels at random: more variety for a network from scratch."""
    jitter: float = 0.0
    """Gamma and colour gains of each pair change at random, by up to exp(this); 0.4 is much, 0 is off."""
    right: float = 0.0
    """Share of the pairs that get their photo as the render: Difix learns to leave alone what is right."""
    again: float = 0.0
    """Share of the steps whose renders are fixed once before: in the loop, Difix meets its own work again."""
    references: int = 1
    """Reference photos of each pair; 0 trains without."""
    skip_bad: bool = False
    """Leave out pairs that cannot be used, and count them; all images are decoded once to find them."""

    steps: int = 10_000
    batch_size: int = 1
    """Pairs at a time in each process."""
    accumulate: int = 1
    """Batches of which the gradients are added up for one step."""
    checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, about a third more time."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """"auto" is bf16 on a GPU and fp32 elsewhere. The weights themselves stay fp32."""
    device: Literal["auto", "cpu"] = "auto"
    """"auto" is what accelerate finds."""
    workers: int = 8
    """Threads in each process that read images."""
    seed: int = 0

    save_every: int = 1000
    """Steps from one checkpoint to the next; the last step always makes one."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay; 0 keeps all."""
    eval_every: int = 500
    """Steps from one validation on the test pairs to the next; the last step always makes one, 0 none at all."""
    eval_pairs: int = 64
    """Test pairs that are validated on, evenly spread."""
    eval_pictures: int = 4
    """How many of them are written as pictures."""
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"

    save_as: Literal["fp32", "fp16"] = "fp32"
    """Number format of the result."""
    push_to_hub: str | None = None
    """Hub id (NAME/REPOSITORY) that the result is uploaded to at the end, with its model card."""
    private: bool = True
    """Make a new hub repository private."""

    loss: DifixLossConfig = field(default_factory=DifixLossConfig)
    optim: DifixOptimConfig = field(default_factory=DifixOptimConfig)
    mini: MiniConfig = field(default_factory=MiniConfig)

    def __post_init__(self) -> None:
        height, width = self.resolution
        if height % CELL or width % CELL or min(height, width) < 2 * CELL:
            raise UserError(f"--resolution is {height} {width}", f"Both sides are multiples of {CELL}, 16 or more")
        for name in ("right", "again"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"--{name} is {getattr(self, name)}", "It is a share, 0 to 1")
        if self.jitter < 0:
            raise UserError(f"--jitter is {self.jitter}", "It is 0 (off) or more")
        if self.zoom < 1:
            raise UserError(f"--zoom is {self.zoom}", "It is 1 (no zoom) or more")
        if not 1 <= self.loss.perceptual_every <= self.batch_size:
            raise UserError(
                f"--loss.perceptual-every is {self.loss.perceptual_every}",
                f"It is 1 to the number of pairs in a batch, {self.batch_size}",
            )
        for name in ("steps", "batch_size", "accumulate", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}", "It is 1 or more")
        mini = self.mini
        wrong = [w for w in (*mini.unet_widths, *mini.vae_widths) if w < 1 or w % mini.groups]
        wrong += [w for w in mini.unet_widths if w % HEAD]
        if len(mini.unet_widths) != 4 or len(mini.vae_widths) != 4 or wrong:
            raise UserError(
                f"The mini network's widths are {mini.unet_widths} and {mini.vae_widths}",
                f"Both are four multiples of the {mini.groups} groups; those of the UNet also of {HEAD}",
            )
