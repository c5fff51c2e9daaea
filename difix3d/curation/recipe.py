"""What pairs are made by. One folder of pairs has one recipe."""

from dataclasses import dataclass, replace
from typing import Literal

from difix3d.distill.config import OFFERED
from difix3d.errors import UserError
from difix3d.training.config import TrainConfig
from difix3d.training.presets import from_preset

Device = Literal["auto", "cuda", "cpu"]


@dataclass(frozen=True)
class Recipe:
    """How models are trained and made bad, and which of their renders become pairs."""

    split: str = "none"
    """Which photos are never touched, as in `difix3d train`: `none`, `auto` (split.json, else every 8th), `every:N`,
    `extrapolation`, `file:JSON`. Hold out what you will evaluate on."""
    resolution: int | None = None
    """Long side of the photos in pixels; by default the preset's (640 on a CPU), at most 1600."""
    preset: Literal["auto", "standard", "quick", "mcmc"] = "auto"
    """Training settings, as in `difix3d train`."""
    max_steps: int | None = None
    """Steps of the full schedule; by default the preset's."""
    seed: int = 0
    """Of everything random. On a CPU, equal seeds give equal bits."""
    every: int = 3
    """sparse: train on every n-th photo, render the others; apart: on one n-th of them, neighbours."""
    underfit: tuple[float, ...] = (0.25, 0.5, 0.75)
    """underfit: shares of the schedule after which the model is rendered."""
    shift: float = 0.3
    """cycle: how far the trajectory is moved sideways, in scene units (cameras are about one from the origin)."""
    perturbations: int = 10
    """perturb: how many damaged copies of the good model."""
    max_pairs: int = 200
    """At most so many renders for each scene and strategy; 0 for all."""
    references: int = 1
    """Reference photos of each pair."""
    warps: int = 0
    """Layers of reference photos carried into the render by its depth, written beside each pair with the render's
    coverage: what difix-mini looks at. 0 for none, as in the published data."""
    psnr_min: float = 10.0
    """Pairs below this PSNR in dB are hopeless: nothing in the render says what to make of it."""
    psnr_max: float = 36.0
    """Pairs above this PSNR in dB are perfect: there is nothing to learn."""
    prompt: str = "remove degradation"
    """What the text encoder reads."""
    lpips: bool = False
    """Also measure LPIPS (VGG) of each pair; its weights are downloaded if they are not there."""

    def check(self) -> None:
        """Refuses values that cannot be meant.

        Raises:
            UserError: names the first.
        """
        wrong = {
            "--every": (self.every, "It must be 2 or more", self.every >= 2),
            "--underfit": (
                self.underfit,
                "Shares lie between 0 and 1",
                bool(self.underfit) and all(0 < x < 1 for x in self.underfit),
            ),
            "--shift": (self.shift, "It must be above 0", self.shift > 0),
            "--perturbations": (self.perturbations, "It must be 1 or more", self.perturbations >= 1),
            "--max-pairs": (self.max_pairs, "It must be 0 (all) or more", self.max_pairs >= 0),
            "--references": (self.references, f"It lies in 1..{OFFERED}", 1 <= self.references <= OFFERED),
            "--warps": (self.warps, "It must be 0 (none) or more", self.warps >= 0),
            "--max-steps": (self.max_steps, "It must be 4 or more", self.max_steps is None or self.max_steps >= 4),
            "--psnr-min": (
                self.psnr_min,
                f"It must be below --psnr-max, {self.psnr_max}",
                self.psnr_min < self.psnr_max,
            ),
        }
        for name, (value, limit, fine) in wrong.items():
            if not fine:
                raise UserError(f"{name} is {value}", limit)

    def training(self, device: Device) -> TrainConfig:
        """Settings of the trainings: plain 3DGS."""
        config = from_preset(self.preset, device)
        return replace(
            config,
            fixer="none",
            max_steps=self.max_steps or config.max_steps,
            resolution=self.resolution or config.resolution,
            seed=self.seed,
            device=device,
        )
