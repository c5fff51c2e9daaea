"""What pairs are made by. One folder of pairs has one recipe."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from difix3d.devices import Device
from difix3d.distill.references import OFFERED
from difix3d.errors import UserError
from difix3d.limits import SEEDS, Limits
from difix3d.training.config import TrainConfig
from difix3d.training.presets import from_preset


@dataclass(frozen=True)
class Recipe:
    """How models are trained and made bad, and which of their renders become pairs."""

    split: str = "none"
    """Which photos are never touched, as in `difix3d train`: `none`, `auto` (split.json, else every 8th), `every:N`,
    `extrapolation`, `file:JSON`. Hold out what you will evaluate on."""
    model: str | None = None
    """COLMAP model or transforms.json to take in each scene's folder, as in `difix3d train`."""
    resolution: Annotated[int | None, Limits(min=16, max=65_536)] = None
    """Long side of the photos in pixels; by default the preset's (640 on a CPU), at most 1600."""
    preset: Literal["auto", "standard", "quick", "mcmc"] = "auto"
    """Training settings, as in `difix3d train`."""
    max_steps: Annotated[int | None, Limits(min=4)] = None
    """Steps of the full schedule; by default the preset's."""
    plain: bool = False
    """Train 3DGS as published, as in the data of the paper. By default models begin, as in `difix3d train`, on dense
    points, and where the renders are far off the photos they have a backdrop and dropout: such renders Difix meets."""
    seed: Annotated[int, SEEDS] = 0
    """Of everything random. On a CPU, equal seeds give equal bits."""
    every: Annotated[int, Limits(min=2)] = 3
    """sparse: train on every n-th photo, render the others; cluster: on one n-th of them, neighbours."""
    underfit: Annotated[tuple[float, ...], Limits(above=0, below=1)] = (0.25, 0.5, 0.75)
    """underfit: shares of the schedule after which the model is rendered."""
    shift: Annotated[float, Limits(above=0)] = 0.3
    """cycle: how far the trajectory is moved sideways, in scene units (cameras are about one from the origin)."""
    perturbations: Annotated[int, Limits(min=1)] = 10
    """perturb: how many damaged copies of the good model."""
    max_pairs: Annotated[int, Limits(min=0)] = 200
    """At most so many renders for each scene and strategy; 0 for all."""
    references: Annotated[int, Limits(min=1, max=OFFERED)] = 1
    """Reference photos of each pair."""
    warps: Annotated[int, Limits(min=0)] = 0
    """Layers of reference photos carried into the render by its depth, written beside each pair with the render's
    coverage: what difix-mini looks at. 0 for none, as in the published data."""
    psnr_min: Annotated[float, Limits(min=0, max=100)] = 10.0
    """Pairs below this PSNR in dB are too bad: nothing in the render says what to make of it."""
    psnr_max: Annotated[float, Limits(min=0, max=100)] = 36.0
    """Pairs above this PSNR in dB are too good: there is nothing to learn."""
    prompt: str = "remove degradation"
    """What the text encoder reads."""
    lpips: bool = False
    """Also measure LPIPS (VGG) of each pair; its weights are downloaded if they are not there."""

    def check(self) -> None:
        """Refuses numbers that leave no pair."""
        if self.psnr_min >= self.psnr_max:
            raise UserError(f"--psnr-min is {self.psnr_min}", f"It must be below --psnr-max, {self.psnr_max}")
        if not self.underfit:
            raise UserError("--underfit is empty", "At least one share of the schedule is needed")

    def training(self, device: Device) -> TrainConfig:
        """Settings of the trainings, which have no fixer."""
        config = from_preset(self.preset, device)
        if self.plain:
            config = replace(config, dropout=0.0, init=replace(config.init, backdrop=0, dense=0))
        return replace(
            config,
            fixer="none",
            max_steps=self.max_steps or config.max_steps,
            resolution=self.resolution or config.resolution,
            seed=self.seed,
            device=device,
        )
