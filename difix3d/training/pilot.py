"""A pilot: whether a fixer brings renders nearer to photos that the model has not seen, before its rounds count.

The gate's trial cannot tell: the photos that it leaves out were trained on before. So a second, short training leaves
some photos out from its first step on; what it renders at their cameras is fixed, and both are compared with them.
"""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from difix3d.background import over
from difix3d.distill import DistillConfig, Distiller
from difix3d.evaluate.pictures import target
from difix3d.files import or_nan
from difix3d.geometry.poses import pose_distance
from difix3d.images import strip
from difix3d.metrics import psnr, ssim, texture_error
from difix3d.scene import Views
from difix3d.scene.batches import batches
from difix3d.training.config import TrainConfig
from difix3d.training.control import Interrupted
from difix3d.training.data import initial_gaussians, near_plane
from difix3d.training.model import SplatModel
from difix3d.types import Cameras, Fixer, Scene, View

LEAST_STEPS = 250
"""Of a pilot: after fewer, all renders are blurred, and every fixer sharpens them."""
AFRESH = 500
"""The least of one beside a splat file, which starts from points, however few steps the file is trained on for."""
LEAST_PHOTOS = 5
"""Training photos without which there is no pilot: with fewer, leaving two out makes it another capture."""
MOST_LEFT_OUT = 4

Progress = Callable[[int, int], None]
"""Is told how many steps of how many are done."""


@dataclass(frozen=True)
class Errors:
    """How far a picture is from its photo: mean squared error (0..1), 1 - SSIM, :func:`texture_error`."""

    mse: float
    dssim: float
    texture: float

    @classmethod
    def of(cls, image: UInt8[Tensor, "H W 3"], view: View) -> "Errors":
        """Of an 8-bit picture."""
        wanted, mask = target(view, image.device)
        mse = 10 ** (-psnr(image, wanted, mask) / 10)
        return cls(mse, 1 - ssim(image, wanted, mask), texture_error(image, wanted, mask))


@dataclass(frozen=True)
class Pilot:
    """What a pilot found.

    Attributes:
        steps: that it trained.
        photos: names of those that it left out.
        rendered, fixed: the errors of renders at their cameras, before and after the fixer.
    """

    steps: int
    photos: tuple[str, ...]
    rendered: tuple[Errors, ...]
    fixed: tuple[Errors, ...]

    @cached_property
    def change(self) -> float:
        """By how much fixing makes errors larger (-0.1: smaller by a tenth), mean of the photos.

        Errors of two kinds count alike, by their ratios: those of places (MSE and 1 - SSIM), which forgive blur, and
        that of texture, which forgives detail that stands a little beside its place. What cannot be measured, as a mask
        leaves nothing of it, is left out; NaN if that is all.
        """
        before, after = (
            np.array([[e.mse, e.dssim, e.texture] for e in errors]) for errors in (self.rendered, self.fixed)
        )
        ratios = np.log(after.clip(1e-6) / before.clip(1e-6))
        whole = ratios[np.isfinite(ratios).all(1)]
        return float(np.expm1((whole @ [0.25, 0.25, 0.5]).mean())) if len(whole) else float("nan")

    @property
    def helps(self) -> bool:
        """Whether the fixer has something to teach here; also where that could not be measured."""
        return not self.change >= 0

    def row(self) -> dict[str, Any]:
        """What is kept of it in ``pilot.json``."""
        return asdict(self) | {"change": self.change, "helps": self.helps}


def in_words(row: dict[str, Any]) -> str:
    """What :meth:`Pilot.row` says, in a sentence."""
    before, after = (
        {name: float(np.mean([or_nan(errors[name]) for errors in row[key]])) for name in ("mse", "dssim")}
        for key in ("rendered", "fixed")
    )
    change = or_nan(row["change"])
    if math.isnan(change):
        found = "could not be measured, as masks leave nothing to compare"
    else:
        found = f"makes their errors {abs(change):.1%} {'larger' if change >= 0 else 'smaller'}"
    psnrs = " -> ".join(f"{-10 * math.log10(max(errors['mse'], 1e-10)):.2f}" for errors in (before, after))
    ssims = " -> ".join(f"{1 - errors['dssim']:.3f}" for errors in (before, after))
    count = len(row["photos"])
    return (
        f"{count} photos left out of {row['steps']:,} steps of training: fixing the renders at their cameras {found} "
        f"(PSNR {psnrs} dB, SSIM {ssims})"
    )


def steps_of(config: TrainConfig, scene: Scene) -> int:
    """Steps of the pilot of a training; 0 where there is none: without the gate, too short, or too few photos."""
    steps = config.distill.steps_of_pilot(config.max_steps)
    if config.distill.gate == "off" or steps < LEAST_STEPS or len(scene.train) < LEAST_PHOTOS:
        return 0
    return steps if config.init.ply is None else max(steps, min(AFRESH, config.distill.pilot_steps))


def left_out(scene: Scene, targets: Cameras | None) -> list[int]:
    """Training photos for a pilot to leave out: a quarter, two to four; those nearest to where novel cameras will go,
    or from all over the capture where they go nowhere in particular."""
    count = min(max(2, len(scene.train) // 4), MOST_LEFT_OUT)
    if targets is None:
        return scene.train[((np.arange(count) + 0.5) * len(scene.train) / count).astype(int)].tolist()
    poses = scene.cameras.c2w[scene.train]
    distance = pose_distance(poses[:, None], targets.c2w.to(poses)[None]).amin(1)
    return sorted(scene.train[distance.argsort(stable=True)[:count].numpy()].tolist())


def run_pilot(
    config: TrainConfig,
    views: Views,
    fixer: Fixer,
    device: torch.device,
    interrupted: Callable[[], int],
    targets: Cameras | None,
    progress: Progress,
) -> tuple[Pilot, UInt8[np.ndarray, "_ _ 3"]]:
    """Trains for a few steps without some photos, and fixes what it renders at their cameras. It starts from points,
    also beside a splat file: that one has seen them all.

    Args:
        config: of the training, settled.
        views: the scene and its photos.
        fixer: cleans renders.
        device: where it is trained.
        interrupted: is asked after each step; of this process alone, as no other takes part.
        targets: where novel cameras will go; ``None`` to all sides of the captured ones.
        progress: is told how it goes.

    Returns:
        What was found, and a picture of it: photo, render and fixed of each photo left out.

    Raises:
        Interrupted: it was asked to end.
    """
    chosen = left_out(views.scene, targets)
    scene = replace(views.scene, train=np.setdiff1d(views.scene.train, chosen), test=np.array(chosen))
    steps = steps_of(config, views.scene)
    config = replace(config, max_steps=steps, init=replace(config.init, ply=None))
    first = initial_gaussians(scene, config, device)
    model = SplatModel(config, scene, near_plane(scene, config), device, first)
    with closing(views.batches(batches(scene, config.batch_size, config.seed, 0))) as photos:
        for step in range(steps):
            model.step(next(photos), step)
            progress(step + 1, steps)
            if interrupted():
                raise Interrupted
    once = DistillConfig(mode="once", start=0, gate="off", references=config.distill.references)
    photo, cameras = views.__getitem__, scene.cameras[chosen]
    distiller = Distiller(once, scene, photo, fixer, targets=cameras, max_steps=1, device=device)
    done = distiller.run_round(model.shown(depth=True), 0)
    wanted = [over(views[index], None) for index in chosen]
    rendered, fixed = (
        tuple(Errors.of(image, view) for image, view in zip(images, wanted, strict=True))
        for images in (done.renders, done.fixed)
    )
    rows = [
        strip([target(view, "cpu")[0].numpy(), before.numpy(), after.numpy()])
        for view, before, after in zip(wanted, done.renders, done.fixed, strict=True)
    ]
    return Pilot(steps, tuple(view.name for view in wanted), rendered, fixed), strip(rows, axis=0)
