"""Times one training step and each of its phases, beside the pure-torch twin, and against the load.

    python benchmarks/train_step.py                      # the embedded scene
    python benchmarks/train_step.py --scene path/to/scene

Writes JSON and a plot to benchmarks/results/ and prints the tables. The load is set by hand (densification is off):
random Gaussians in the cube of the scene's cameras, on its own photos.
"""

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import tyro
from machine import device_name
from rich.console import Console
from rich.table import Table

from difix3d.devices import choose_device
from difix3d.gaussians import from_points, random_points
from difix3d.scene import load_scene
from difix3d.scene.batches import batches
from difix3d.training import TrainConfig, Trainer, model
from difix3d.training.optim import SplatOptimizer
from difix3d.types import Scene

PHASES = ("render", "loss", "backward", "optimise", "densify", "other")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scene: str = "demo"
    """As in training."""
    data_dir: Path = Path("data")
    """Where generated scenes lie."""
    resolution: int = 480
    """Long side in pixels of the fixed load."""
    gaussians: int = 50_000
    """Number of Gaussians of the fixed load."""
    steps: int = 20
    """Steps to average over."""
    output: Path = Path("benchmarks/results")
    """Where the JSON and the plot go."""


def main(options: Options) -> None:
    device = choose_device("auto")
    scene = load_scene(options.scene, data_dir=options.data_dir, resolution=options.resolution)
    fixed = measure(scene, options.gaussians, options.steps)
    rows = {"fast": fixed}
    if device.type == "cpu":
        with mock.patch("difix3d.native.load", return_value=None):
            rows["twin"] = measure(scene, options.gaussians, 2)
    by_count = [measure(scene, count, options.steps) for count in (10_000, 25_000, 50_000, 100_000, 200_000)]
    sides = [round(options.resolution * factor) for factor in (0.35, 0.5, 0.71, 1)]
    scenes = [load_scene(options.scene, data_dir=options.data_dir, resolution=side) for side in sides]
    by_pixels = [measure(smaller, options.gaussians, options.steps) for smaller in scenes]

    show(rows)
    result = {
        "date": date.today().isoformat(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "scene": scene.name,
        "milliseconds": rows,
        "by_gaussians": by_count,
        "by_pixels": by_pixels,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"train_step_{device.type}.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(by_count, by_pixels, options.output / f"train_step_{device.type}.png")


def measure(scene: Scene, count: int, steps: int) -> dict[str, float]:
    """Mean milliseconds of the phases of a step, and the load."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(fixer="none", output_dir=Path(folder) / "run", max_steps=1000)
        config = replace(config, densify=replace(config.densify, kind="none"))
        run = Trainer(config, scene)
        gaussians = from_points(*random_points(count, scene.extent, seed=0), scale=0.7).to(run.device)
        run.model.splats = SplatOptimizer(gaussians, config.optim, extent=scene.extent, batch_size=1, max_steps=1000)
        order = batches(scene, 1, 0, 0)
        stream = run.views.stream(chain.from_iterable(order))
        for step in range(max(1, steps // 5)):
            run.model.step([next(stream)], step)
        views = [next(stream) for _ in range(steps)]
        with stopwatch(run) as spent:
            start = now()
            for step, view in enumerate(views, steps):
                run.model.step([view], step)
            total = now() - start
        stream.close()
    phases = {name: 1e3 * seconds / steps for name, seconds in spent.items()}
    phases["other"] = 1e3 * total / steps - sum(phases.values())
    width, height = scene.cameras[0].size
    return {"gaussians": count, "pixels": width * height, "total": 1e3 * total / steps} | phases


@contextmanager
def stopwatch(run: Trainer) -> Iterator[dict[str, float]]:
    """Times the parts that the trainer calls, where it calls them."""
    spent: dict[str, float] = defaultdict(float)

    def timed(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = now()
            result = function(*args, **kwargs)
            spent[phase] += now() - start
            return result

        return wrapper

    with (
        mock.patch.object(model, "rasterize", timed("render", model.rasterize)),
        mock.patch.object(model, "photometric", timed("loss", model.photometric)),
        mock.patch.object(torch.Tensor, "backward", timed("backward", torch.Tensor.backward)),
        mock.patch.object(run.model.splats, "step", timed("optimise", run.model.splats.step)),
        mock.patch.object(run.model.densifier, "after_backward", timed("densify", run.model.densifier.after_backward)),
    ):
        yield spent


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def show(rows: dict[str, dict[str, float]]) -> None:
    load = rows["fast"]
    table = Table(title=f"ms per step, {load['gaussians']:,} Gaussians, {load['pixels']:,} pixels")
    for column in ("", "total", *PHASES):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row.get(phase, 0):.1f}" for phase in ("total", *PHASES)))
    Console().print(table)


def plot(by_count: list[dict[str, float]], by_pixels: list[dict[str, float]], path: Path) -> None:
    """Total and phases against the load; a straight line through the origin's side means linear cost."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, rows, key in zip(axes, (by_count, by_pixels), ("gaussians", "pixels"), strict=True):
        loads = [row[key] / 1000 for row in rows]
        axis.stackplot(loads, [[row.get(phase, 0) for row in rows] for phase in PHASES], labels=PHASES, alpha=0.85)
        other = "pixels" if key == "gaussians" else "gaussians"
        axis.set(xlabel=f"thousand {key}", ylabel="ms per step", xlim=(0, None), ylim=(0, None))
        axis.set_title(f"{rows[0][other]:,} {other}")
    axes[0].legend(loc="upper left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
