"""What a training needs of a GPU's memory: an estimate from its sizes, and the settings that keep it within a budget.

The factors were counted by bytes of tensors alive in gsplat's Python and ours (tests/training/test_memory.py does it
again). What only a real GPU has are rows of their own: lists of tiles, measured, and CUDA's context, a guess.
"""

import sys
from dataclasses import dataclass, field, replace
from itertools import product

import torch

from difix3d.ranks import ALONE, Ranks
from difix3d.training.config import TrainConfig
from difix3d.types import Fixer, Scene

TILES = (2048, 1024, 512)
"""Sides of the tiles that larger frames are fixed in, the fastest first."""
CONTEXT = 600_000_000
"""Bytes of CUDA with its libraries: a guess."""
PER_TILE_LIST = 180
"""Bytes of a Gaussian in gsplat's lists of tiles: what a million took on an H200 (1.73 GB,
benchmarks/results/gpu_nvidia_h200.json) beyond all that is counted here and what the benchmark itself kept."""


@dataclass(frozen=True)
class Sizes:
    """What the memory of a training depends on.

    Attributes:
        gaussians: the most that there can be.
        coefficients: of the spherical harmonics, for each colour channel.
        pixels: of the largest view.
        views: in a step.
        seen: share of the Gaussians that a view sees.
        gate: whether rounds are judged, for which the model is copied; before the first, in the copy's place, the pilot
            has a model, within the same cap.
        photos: bytes of all photos, with their masks.
        weights, frame_pixel: bytes of the fixer, and of each pixel of a frame that it fixes.
    """

    gaussians: int
    coefficients: int
    pixels: int
    views: int = 1
    seen: float = 1.0
    gate: bool = False
    photos: int = 0
    weights: int = 0
    frame_pixel: int = 0


@dataclass(frozen=True)
class Choice:
    """The settings that the memory decides."""

    photos_on_gpu: bool = False
    offload: bool = False
    tile: int = TILES[0]
    packed: bool = False


def estimate(sizes: Sizes, choice: Choice) -> dict[str, int]:
    """Bytes by what they are for, of all that is there at the worst moment.

    A step has two such moments: the loss has its gradients (pixels count most), or the Gaussians have theirs. The
    fixer's frames are made between steps, in place of what a step needs.
    """
    parameters = 4 * (11 + 3 * sizes.coefficients)
    model = 3 * parameters * sizes.gaussians  # values and two moments of Adam
    step = step_bytes(sizes, choice.packed) + model * sizes.gate
    frame = sizes.frame_pixel * min(sizes.pixels, choice.tile**2)
    moved = sizes.weights if choice.offload else 0
    rows = {
        f"{sizes.gaussians:,} Gaussians and their optimiser": model,
        "photos": sizes.photos if choice.photos_on_gpu else 0,
        "fixer: weights": sizes.weights - moved,
        "a training step" if step >= moved + frame else "fixer: a frame": max(step, moved + frame),
        "lists of tiles": PER_TILE_LIST * sizes.gaussians * sizes.views,
        "CUDA (a guess)": CONTEXT,
    }
    return {name: value for name, value in rows.items() if value}


def step_bytes(sizes: Sizes, packed: bool = False) -> int:
    """Of a training step, beside the Gaussians and their optimiser, at its worst moment."""
    colors, others = 12 * sizes.coefficients, sizes.views - 1
    share = sizes.seen if packed else 1.0
    saved = colors * (sizes.views if sizes.views == 1 else 1 + sizes.views) + 105 * share * sizes.views
    loss = saved * sizes.gaussians + (364 + 308 * others) * sizes.pixels
    gradients = 44 + colors + colors + 80 * share + others * (2 * colors + 105) * share
    if packed:  # each view's colours are gathered
        gradients += 2 * colors * share
    return int(max(loss, gradients * sizes.gaussians + 30 * sizes.views * sizes.pixels))


@dataclass
class Plan:
    """What was chosen, and what it is estimated to need.

    Attributes:
        sizes: of the training at its largest; ``None`` on a CPU.
        budget: bytes.
        less: whether it is what is free, as ``--memory-budget`` is above that.
    """

    choice: Choice = field(default_factory=Choice)
    sizes: Sizes | None = None
    budget: int = 0
    less: bool = False

    @property
    def rows(self) -> dict[str, int]:
        """Bytes by what they are for; empty on a CPU."""
        return {} if self.sizes is None else estimate(self.sizes, self.choice)

    @property
    def photos_on(self) -> str:
        """Where decoded photos are kept."""
        return "cuda" if self.choice.photos_on_gpu else "cpu"

    def photo_limit(self, config: TrainConfig) -> int:
        """Bytes of decoded photos that are kept there."""
        return sys.maxsize if self.choice.photos_on_gpu else int(config.memory_limit * 1e9)

    @property
    def total(self) -> int:
        return sum(self.rows.values())

    def table(self, before: str = "") -> str:
        """The estimate, line by line, after what else is to be said; on a CPU that alone."""
        if not self.rows:
            return before
        choice = self.choice
        chosen = [f"photos in {'GPU' if choice.photos_on_gpu else 'main'} memory", f"tiles of {choice.tile} pixels"]
        chosen += ["fixer moved away between rounds"] * choice.offload + ["--packed"] * choice.packed
        lines = [f"  {value / 1e9:6.2f} GB  {name}" for name, value in self.rows.items()]
        free = " that are free, less than --memory-budget" * self.less
        verdict = f"of {self.budget / 1e9:.2f} GB{free}: {', '.join(chosen)}"
        if self.total > self.budget:
            verdict += "; it may not fit: lower --densify.cap-max, --resolution or --batch-size"
        return "\n".join(
            [*([before] if before else []), "GPU memory, estimated", *lines, f"  {self.total / 1e9:6.2f} GB  {verdict}"]
        )

    def begin(self) -> None:
        """From here on the peak is measured."""
        if self.sizes is not None:
            torch.cuda.reset_peak_memory_stats()

    def measured(self, most: int) -> str:
        """The peak since :meth:`begin`, beside the estimate for ``most`` Gaussians, the largest count that there was;
        empty on a CPU."""
        if self.sizes is None:
            return ""
        rows = estimate(replace(self.sizes, gaussians=most), self.choice)
        expected, peak = sum(rows.values()) - CONTEXT, torch.cuda.max_memory_allocated()
        beside = f"{expected / 1e9:.2f} GB estimated for {most:,} Gaussians"
        return f"GPU memory: at most {peak / 1e9:.2f} GB of tensors, {beside}"


def choose(sizes: Sizes, budget: int, *, packed: bool = False) -> Plan:
    """The fastest settings that are estimated to fit; if none do, those that need least.

    Args:
        packed: whether that was asked for in any case.
    """
    tiles = [tile for tile in TILES if tile == TILES[0] or (sizes.weights and tile**2 < sizes.pixels)]
    packs = (True,) if packed else (False, True) if sizes.seen < 0.5 else (False,)
    plans = []
    for pack, tile, offload, photos in product(
        packs, tiles, (False, True) if sizes.weights else (False,), (True, False)
    ):
        choice = Choice(photos, offload, tile, pack)
        plans.append(Plan(choice, sizes, budget))
        if plans[-1].total <= budget:
            return plans[-1]
    return min(plans, key=lambda plan: plan.total)


def settle_memory(
    config: TrainConfig,
    scene: Scene,
    fixer: Fixer | None,
    first: int,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> tuple[TrainConfig, Plan]:
    """The configuration and the fixer as the plan wants them, and the plan; on a CPU, and for several
    processes, nothing is planned.

    Args:
        first: Gaussians that the training begins with.
    """
    if device.type != "cuda" or ranks.count > 1:
        return config, Plan()
    sizes = sizes_of(config, scene, fixer, first)
    free = torch.cuda.mem_get_info(device)[0] + sizes.weights  # these are there already
    asked = free if config.memory_budget is None else int(config.memory_budget * 1e9)
    plan = replace(choose(sizes, min(asked, free), packed=config.packed), less=asked > free)
    if sizes.weights:
        fixer.offload, fixer.tile = plan.choice.offload, plan.choice.tile  # type: ignore[union-attr]
    return replace(config, packed=plan.choice.packed), plan


def sizes_of(config: TrainConfig, scene: Scene, fixer: Fixer | None, first: int) -> Sizes:
    """What the memory of this training depends on."""
    pixels = scene.cameras.width * scene.cameras.height
    channels = torch.tensor([(4 if scene.alpha else 3) + (photo.mask is not None) for photo in scene.photos])
    weights, frame_pixel = getattr(fixer, "needs", (0, 0))
    return Sizes(
        gaussians=first if config.densify.kind == "none" else max(config.densify.cap_max, first),
        coefficients=(config.sh_degree + 1) ** 2,
        pixels=int(pixels.max()),
        views=config.batch_size,
        seen=share_seen(scene),
        gate=fixer is not None and config.distill.gate == "on" and config.distill.mode != "off",
        photos=int((pixels * channels).sum()),
        weights=weights,
        frame_pixel=frame_pixel,
    )


@torch.no_grad()
def share_seen(scene: Scene, most: int = 1000) -> float:
    """Mean share of the sparse points that lie in a training camera's view; 1 without points."""
    if len(scene.points) == 0:
        return 1.0
    points = torch.from_numpy(scene.points[:: -(-len(scene.points) // most)]).float()
    cameras = scene.cameras[scene.train]
    local = points @ cameras.w2c[:, :3, :3].mT + cameras.w2c[:, None, :3, 3]
    depth = local[..., 2:].clamp(min=1e-6)
    pixel = (local / depth @ cameras.K.mT)[..., :2]
    inside = (pixel >= 0) & (pixel < torch.stack([cameras.width, cameras.height], 1)[:, None])
    return float((inside.all(-1) & (local[..., 2] > 0)).float().mean())
