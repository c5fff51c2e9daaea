"""What distillation gains, and what the gate prevents: plain 3DGS beside fixers that are perfect or do harm.

The perfect fixer (``oracle``) answers with the true image: of the embedded scene at any camera, of a real scene with
the photos that ``split.json`` calls unused (the novel cameras then go there at once; evaluation photos are never
shown). The harmful ones return noise (``noise``), exchanged colour channels (``colors``), or another photo
(``stranger``).

    python benchmarks/distill.py --scenes demo path/to/fox path/to/castle --steps 2000 --resolution 240
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from machine import device_name

from difix3d import synthetic
from difix3d.distill import DistillConfig
from difix3d.evaluate import Variant
from difix3d.scene import Views, load_scene
from difix3d.training import Trainer
from difix3d.training.configfile import merge
from difix3d.training.events import Evaluated, Finished, RoundDone
from difix3d.training.presets import from_preset
from difix3d.types import Cameras, Degraded, Fixer, Scene


@dataclass(frozen=True)
class Options:
    """Trains each scene with each fixer, from the same seed for the same number of steps."""

    scenes: tuple[str, ...] = ("demo",)
    """Scenes: `demo`, or folders with a split.json that has unused photos."""
    fixers: tuple[str, ...] = ("none", "oracle", "noise", "colors", "stranger")
    """Which fixers."""
    steps: int = 2000
    """Steps of each training."""
    resolution: int = 240
    """Long side of the photos."""
    seed: int = 0
    """Of the trainings."""
    output: Path = Path("outputs/distill")
    """Where the runs go."""
    data_dir: Path = Path("data")
    """Where the embedded scene is written."""
    json: Path | None = None
    """Results are added to this file."""
    distill: DistillConfig = field(default_factory=lambda: DistillConfig(pilot_steps=0))
    """Without a pilot, which would keep harmful fixers from having a round, and asks the oracle at other cameras."""


def oracle(scene: Scene, source: str) -> tuple[Fixer, Cameras | None]:
    """The fixer that knows the truth, and the novel cameras' targets (``None``: the held-out cameras)."""
    seed = synthetic.parse(source)
    if seed is not None:
        truth = synthetic.SyntheticScene(seed)
        to_input = torch.from_numpy(np.linalg.inv(scene.from_input))

        def exact(item: Degraded) -> torch.Tensor:
            return truth.render(in_input(item.camera, to_input), depth=False).rgb[0]

        return each(exact), None
    unused = np.setdiff1d(np.arange(len(scene.photos)), np.concatenate([scene.train, scene.test]))
    views, targets = Views(scene), scene.cameras[unused]

    def photo(item: Degraded) -> torch.Tensor:
        distances = (targets.c2w - item.camera.c2w).abs().amax((1, 2))
        assert float(distances.min()) < 1e-5, "the oracle has no photo of this camera"
        return views[int(unused[int(distances.argmin())])].image

    return each(photo), targets


def harmful(kind: str, scene: Scene) -> Fixer:
    """Fixers that make things worse."""
    generator = torch.Generator().manual_seed(0)

    def noise(item: Degraded) -> torch.Tensor:
        return (item.rgb + 0.3 * torch.randn(item.rgb.shape, generator=generator)).clamp(0, 1)

    def colors(item: Degraded) -> torch.Tensor:
        return item.rgb[..., [1, 2, 0]]

    def stranger(item: Degraded) -> torch.Tensor:
        image = views[int(scene.train[0])].image.permute(2, 0, 1)[None]
        return torch.nn.functional.interpolate(image, item.rgb.shape[:2])[0].permute(1, 2, 0)

    views = Views(scene)
    return each({"noise": noise, "colors": colors, "stranger": stranger}[kind])


def each(fix: Callable[[Degraded], torch.Tensor]) -> Fixer:
    """A fixer from a function of one render."""

    def fixer(degraded: Iterable[Degraded]) -> Iterator[torch.Tensor]:
        for item in degraded:
            yield fix(item)

    return fixer


def in_input(camera: Cameras, to_input: torch.Tensor) -> Cameras:
    """A camera of the normalised world in the user's."""
    c2w = to_input @ camera.c2w.double()
    c2w[:, :3, :3] /= torch.linalg.det(to_input[:3, :3]) ** (1 / 3)
    return replace(camera, c2w=c2w.to(camera.c2w))


def measure(options: Options, source: str, fixer_name: str) -> dict[str, Any]:
    """One training."""
    scene = load_scene(source, data_dir=options.data_dir, resolution=options.resolution)
    values = {"max_steps": options.steps, "eval_steps": [], "save_steps": [], "autosave_minutes": 0}
    name = scene.name
    folder = options.output / name / fixer_name
    values |= {"scene": source, "resolution": options.resolution, "data_dir": str(options.data_dir)}
    values |= {"fixer": "none", "plus": False, "seed": options.seed, "device": "cpu", "output_dir": str(folder)}
    config = replace(merge(from_preset("quick"), values, source="benchmark"), distill=options.distill)
    fixer, targets = None, None
    if fixer_name != "none":
        truth, targets = oracle(scene, source)
        fixer = truth if fixer_name == "oracle" else harmful(fixer_name, scene)
        if targets is not None:  # there are photos at the targets only, not on the way
            config = replace(config, distill=replace(config.distill, step_size=1e3))
    seconds: dict[str, float] = {}
    decisions: list[str] = []
    results: list[Variant] = []

    def listen(event: Any) -> None:
        if isinstance(event, RoundDone):
            gain = event.verdict.gain
            decisions.append(event.verdict.decision + ("" if gain is None else f" {gain:+.2f}"))
            for phase, value in event.seconds.items():
                seconds[phase] = seconds.get(phase, 0) + value
        elif isinstance(event, Evaluated):
            results.append(event.result)
        elif isinstance(event, Finished):
            seconds["total"] = event.seconds

    trainer = Trainer(config, scene, [listen], fixer, targets)
    trainer.train()
    result = results[-1]
    return {
        "scene": name,
        "fixer": fixer_name,
        **{name: value for name, value in result.means().items() if name != "seconds"},
        "seen": result.seen,
        "per_image": [round(image["psnr"], 3) for image in result.images],
        "rounds": decisions,
        "seconds": {phase: round(value, 2) for phase, value in seconds.items()},
        "gaussians": len(trainer.gaussians),
    }


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    rows = []
    for source in options.scenes:
        plain: dict[str, Any] | None = None
        for name in options.fixers:
            start = time.perf_counter()
            row = measure(options, source, name)
            plain = row if name == "none" else plain
            gain = "" if plain is None or row is plain else f" ({row['psnr'] - plain['psnr']:+.2f})"
            print(
                f"{row['scene']:10} {name:9} {row['psnr']:6.2f}{gain} dB  {row['ssim']:.3f}  "
                f"{time.perf_counter() - start:5.0f} s  {', '.join(row['rounds'])}",
                flush=True,
            )
            rows.append(row)
            if options.json is not None:
                write(options, rows)


def write(options: Options, rows: list[dict[str, Any]]) -> None:
    """The results so far."""
    facts = {"date": date.today().isoformat(), "device": device_name("cpu"), "torch": torch.__version__}
    result = facts | {"steps": options.steps, "resolution": options.resolution, "seed": options.seed, "rows": rows}
    assert options.json is not None
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
