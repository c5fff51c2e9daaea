"""Everything that a training can be told, with defaults that work. Presets and YAML files hold only differences."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from difix3d.background import COLORS
from difix3d.devices import Device
from difix3d.distill import DistillConfig
from difix3d.gaussians.init import InitConfig
from difix3d.limits import SEEDS, Limits
from difix3d.losses import LossConfig
from difix3d.training.backdrop import backdrop_of
from difix3d.training.densify import DensifyConfig
from difix3d.training.optim import OptimConfig
from difix3d.training.refine import RefineConfig
from difix3d.types import Scene


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training can be told."""

    scene: str = "demo"
    """`demo`, `synthetic:SEED`, a folder (COLMAP, transforms.json, or just photos), a video, or a name: of a file in
    configs/, of a folder in the data folder, or of a scene that can be downloaded (`difix3d download --list`)."""
    preset: Literal["auto", "standard", "quick", "mcmc"] = "auto"
    """Settings to start from: `standard` (30,000 steps as in 3DGS; `auto` on a GPU), `quick` (7,000 steps at 640 pixels
    and up to 100,000 Gaussians; `auto` on a CPU), `mcmc` (standard with relocation up to a fixed number of Gaussians).
    Files and options below go on top."""
    config: Path | None = None
    """YAML file with differences from the preset; by default configs/SCENE.yaml, if there is one."""
    data_dir: Path = Path("data")
    """Where downloaded and generated scenes lie."""
    output_dir: Path | None = None
    """Folder of this run; by default outputs/SCENE/DATE_TIME."""
    fixer: str = "auto"
    """Difix weights that clean novel views: a hub id, a folder, a .pkl checkpoint, `mini` (small weights in the
    package, for CPUs), or `none` for plain 3DGS. `auto`: nvidia/difix_ref on a GPU, `mini` without."""
    anchor_colors: bool = True
    """Keep the renders' colours in what the fixer makes of them: it may repair, and not fade or tint. Without: as its
    model leaves them, which is how the paper's was run."""
    plus: bool = True
    """After the last step, also evaluate with the fixer as a last pass over each frame (the "+")."""
    compare: bool = False
    """Train plain 3DGS beside it, with the same seed and steps, and report both."""
    split: str = "auto"
    """Which photos are held out: `auto` (split.json, else what the data set itself states, else every 8th),
    `interpolation`, `extrapolation`, `every:N`, `none`, `file:JSON`."""
    model: str | None = None
    """COLMAP model's folder or transforms.json to take, in the scene's folder or the current one, where there are
    several; by default the one with the most photos."""
    resolution: Annotated[int | None, Limits(min=16, max=65_536)] = None
    """Long side of the training images in pixels; by default at most 1600."""
    max_steps: Annotated[int, Limits(min=0)] = 30_000
    """Steps to train. 0: a splat file (--init.ply) is only evaluated and fixed."""
    eval_steps: Annotated[tuple[int, ...], Limits(min=1)] = (7_000,)
    """Evaluate after these steps; the last step is always evaluated."""
    save_steps: Annotated[tuple[int, ...], Limits(min=1)] = (7_000,)
    """Save a checkpoint and a .ply after these steps; the last step is always saved."""
    autosave_minutes: Annotated[float, Limits(min=0)] = 10.0
    """Minutes between further checkpoints, to resume from; 0 for none."""
    keep_checkpoints: Annotated[int, Limits(min=0)] = 2
    """How many of the newest checkpoints to keep; 0 keeps all."""
    compressed_ply: bool = False
    """Also write point_cloud.compressed.ply: SuperSplat's packed layout, about a quarter of the size."""
    seed: Annotated[int, SEEDS] = 0
    """Seed of everything random. On a CPU, equal seeds give equal bits."""
    device: Device = "auto"
    """`auto`: CUDA if there is a GPU."""
    resume: bool = False
    """Go on from the newest checkpoint in --output-dir."""
    batch_size: Annotated[int, Limits(min=1)] = 1
    """Views a step, of each process where there are several."""
    sh_degree: Annotated[int, Limits(min=0, max=3)] = 3
    """Spherical-harmonics degree of the colours."""
    sh_every: Annotated[int, Limits(min=1)] = 1000
    """Steps after which the degree in use grows by one; less in runs under 7,000 steps."""
    background: Literal["auto", "black", "white", "random"] = "auto"
    """What lies behind the Gaussians, and behind photos with alpha. `random`: a new colour each step, which keeps empty
    what such photos leave empty, and makes the model opaque where photos have no alpha. `auto`: `random` for photos
    with alpha, `black` for others. Results are shown and measured over white for `white`, and for `auto` and `random`
    if photos have alpha; else over black."""
    dropout: Annotated[float | None, Limits(min=0, below=1)] = None
    """Share of the Gaussians that each step on photos leaves out, against fog from few photos; it falls to 0 in the
    last 15 % of the run. By default 0.2 if the views asked for (held-out ones, or the targets of novel cameras) are far
    off the photos: twice as far as these from each other, by angle. Else 0, which leaves out none."""
    antialiased: bool = False
    """Mip-Splatting's opacity compensation, for renders at other scales than the photos'."""
    near: Annotated[float | None, Limits(above=0)] = None
    """Depth in scene units nearer than which nothing is drawn, so that nothing fogs a camera; by default a fifth of
    where the photos begin to see sparse points."""
    memory_budget: Annotated[float | None, Limits(above=0, max=1_000_000)] = None
    """CUDA only: GB of its memory that the training may take; by default, and at most, what is free. It decides where
    photos and fixer are kept, the size of the fixer's tiles, and --packed."""
    packed: bool = False
    """On a GPU a layout that needs less memory in large scenes, and a little more time; a CPU has no other."""
    memory_limit: Annotated[float, Limits(min=0, max=1_000_000)] = 4.0
    """GB of decoded photos to keep in memory; more are decoded again when needed."""
    init: InitConfig = field(default_factory=InitConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    densify: DensifyConfig = field(default_factory=DensifyConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)

    def sh_degree_at(self, step: int) -> int:
        """Degree in use at a step: it grows to the full one over at most 3/7 of the run. What is trained already keeps
        all of its colours."""
        if self.init.ply is not None:
            return self.sh_degree
        return min(self.sh_degree, step // max(1, min(self.sh_every, self.max_steps // 7)))

    def render_settings(self, scene: Scene, near: float, device: torch.device) -> dict[str, Any]:
        """How a trained model is rendered, for :func:`difix3d.render.rasterize`."""
        color = COLORS[self.shown_over(scene)]
        background = None if color is None else color.to(device)
        backdrop = backdrop_of(scene, self.init)
        return {
            "near": near,
            "surfaces": None if backdrop is None else backdrop.surfaces,
            "antialiased": self.antialiased,
            "packed": self.packed,
            "background": background,
        }

    def shown_over(self, scene: Scene) -> Literal["black", "white"]:
        """What is behind photos with alpha and behind renders, wherever they are looked at or measured."""
        if self.background in ("black", "white"):
            return self.background
        return "white" if scene.alpha else "black"
