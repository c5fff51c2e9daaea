"""Counts bytes on a pretended GPU: estimates beside what was alive at most, as JSON. Run under pretend_cuda.py."""

import gc
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from difix3d.difix import DifixFixer
from difix3d.difix.architecture import random_difix
from difix3d.gaussians import from_points, random_points
from difix3d.images import write_image
from difix3d.training import TrainConfig, Trainer
from difix3d.training.memory import Choice, Sizes, estimate
from difix3d.training.optim import SplatOptimizer
from difix3d.types import Cameras, Photo, Scene


def scene_in(folder: Path, width: int, height: int) -> Scene:
    """Grey photos from eight cameras that look at the origin."""
    folder.mkdir()
    c2w = torch.eye(4).repeat(8, 1, 1)
    c2w[:, 2, 3], c2w[:, 0, 3] = -2, torch.linspace(-0.3, 0.3, 8)
    K = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]]).repeat(8, 1, 1)
    for i in range(8):
        write_image(folder / f"{i}.png", np.full((height, width, 3), 20 * i, np.uint8))
    points, colors = random_points(200, 0.5, seed=0)
    return Scene(
        name="grey",
        cameras=Cameras(c2w, K, torch.full((8,), width), torch.full((8,), height)),
        photos=tuple(Photo(f"{i}.png", folder / f"{i}.png") for i in range(8)),
        points=points,
        colors=colors,
        observations=np.zeros((0, 2), np.int64),
        train=np.arange(7),
        test=np.array([7]),
        from_input=np.eye(4),
        extent=1.0,
    )


def alive() -> int:
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def of_a_step(folder: Path, count: int, width: int, height: int, *, views: int = 1, degree: int = 3) -> dict:
    """Gaussians, their optimiser and a step."""
    before = alive()
    scene = scene_in(folder, width, height)
    config = TrainConfig(fixer="none", output_dir=folder / "run", batch_size=views, sh_degree=degree, sh_every=1)
    config = replace(config, densify=replace(config.densify, kind="none"))
    run = Trainer(config, scene)
    first = from_points(*random_points(count, 0.5, seed=0), sh_degree=degree).to("cuda")
    run.model.splats = SplatOptimizer(first, config.optim, extent=1.0, batch_size=views, max_steps=30_000)
    del first
    batch = [run.views[i] for i in range(views)]
    run.model.step(batch, 0)
    alive()
    run.model.step(batch, 10)
    sizes = Sizes(count, (degree + 1) ** 2, width * height, views)
    rows = estimate(sizes, Choice())
    name = f"a step: {count:,} Gaussians, degree {degree}, {views} x {width}x{height}"
    return {"what": name, "estimated": total(rows), "counted": torch.cuda.max_memory_allocated() - before}


def of_a_fixer(height: int, width: int, dtype: torch.dtype, references: int) -> dict:
    """Weights and a frame."""
    before = alive()
    pipe = random_difix(True, "cuda", dtype).optimize(dtype, compile=False)
    fixer = DifixFixer(pipe, "cuda")
    image = torch.rand(1, 3, height, width, device="cuda")
    for _ in range(16):
        pipe.reference_cache.entries.append((torch.rand_like(image[0]).to(dtype), torch.zeros(())))
    alive()
    pipe.fix(image, torch.rand(1, references, 3, height, width, device="cuda"))
    weights, pixel = fixer.needs
    counted = torch.cuda.max_memory_allocated() - before
    name = f"the tiny fixer, {dtype}, {width}x{height}, {references} reference"
    return {"what": name, "estimated": weights + pixel * height * width, "counted": counted}


def of_a_run(folder: Path) -> dict:
    """A training with a round, from end to end, as its own last line says it."""
    scene = scene_in(folder, 96, 64)
    config = TrainConfig(output_dir=folder / "run", max_steps=8, eval_steps=(), save_steps=(), plus=False)
    config = replace(config, densify=replace(config.densify, kind="none"), distill=replace(config.distill, mode="once"))
    before = alive()
    fixer = DifixFixer(random_difix(True, "cuda").optimize(torch.float32, compile=False), "cuda")
    first = from_points(*random_points(3000, 0.5, seed=0))
    scene = replace(scene, points=first.means.numpy(), colors=np.zeros((3000, 3), np.uint8))
    run = Trainer(config, scene, fixer=fixer)
    run.train()
    counted = torch.cuda.max_memory_allocated() - before
    return {"what": "a run with a round", "estimated": total(run.plan.rows), "counted": counted}


def total(rows: dict[str, int]) -> int:
    """Without what a pretended GPU has not."""
    return sum(value for name, value in rows.items() if name not in ("lists of tiles", "CUDA (a guess)"))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = [
            of_a_step(folder / "a", 20_000, 32, 24),
            of_a_step(folder / "b", 2_000, 320, 240),
            of_a_step(folder / "c", 8_000, 160, 120, views=2),
            of_a_step(folder / "d", 20_000, 48, 32, degree=1, views=3),
            of_a_step(folder / "e", 12_000, 160, 120, degree=0),
            of_a_fixer(96, 160, torch.float32, 1),
            of_a_run(folder / "f"),
        ]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
