"""What a small fixer is worth in the whole loop: plain 3DGS, fixed renders, Difix3D at once or progressively, Difix3D+.

For each scene and seed, trains plainly, with all novel cameras at their targets at once, and progressively; and, to
know how much can be gained at all, with a fixer that knows the truth (``oracle``, see distill.py). The oracle of a real
scene knows only the photos that ``split.json`` calls unused, so that ``same cameras`` is the fixer at those. Scores are
means over the eval views. Started again, it goes on with what is missing in the file.

    python benchmarks/mini.py --scenes path/to/fox path/to/castle --seeds 0 1 2 --json benchmarks/results/mini.json
    python benchmarks/mini.py --table --json benchmarks/results/mini.json
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from distill import oracle
from machine import device_name
from rich.console import Console
from rich.table import Table

from difix3d import synthetic
from difix3d.difix.load import load_fixer
from difix3d.distill import DistillConfig
from difix3d.evaluate import Seen, seen_pixels
from difix3d.evaluate.results import SEEN, UNSEEN
from difix3d.evaluate.seen import parts
from difix3d.images import to_uint8
from difix3d.metrics import LPIPS, psnr, ssim
from difix3d.postrender import PostRender
from difix3d.scene import Views, load_scene
from difix3d.training import Trainer
from difix3d.training.configfile import merge
from difix3d.training.events import RoundDone
from difix3d.training.presets import NOVEL_PROBS, from_preset
from difix3d.types import Fixer, RenderFn, Scene

METRICS = {"psnr": 2, "ssim": 3, "lpips": 3}
APART = {f"{part}{metric}": digits for part in (SEEN, UNSEEN) for metric, digits in METRICS.items()}
"""The same of pixels that some training photo shows, by the depth of the training's model, and of the others; rows that
were measured before have none."""


@dataclass(frozen=True)
class Options:
    """Trains on the extrapolating split of each scene and scores the eval views."""

    scenes: tuple[str, ...] = ("demo",)
    """Scenes: `demo`, or folders with a split.json that has unused photos."""
    trainings: tuple[str, ...] = ("plain", "progressive", "once", "oracle", "same cameras")
    """Which trainings."""
    fixer: str = "mini"
    """`mini`, hub id, folder or .pkl checkpoint of a Difix."""
    steps: int = 2000
    """Steps of each training."""
    resolution: int = 240
    """Long side of the photos."""
    seeds: tuple[int, ...] = (0,)
    """Of the trainings."""
    output: Path = Path("outputs/mini")
    """Where the runs go."""
    data_dir: Path = Path("data")
    """Where the embedded scene is written."""
    json: Path = Path("outputs/mini/results.json")
    """Results are added to this file."""
    table: bool = False
    """Only show the table of the file."""
    distill: DistillConfig = field(default_factory=lambda: DistillConfig(novel_prob=NOVEL_PROBS["mini"]))
    """Of the trainings with the fixer: by default what suits `mini`. The oracle has the program's
    defaults, and no pilot: it knows no photo that a pilot leaves out."""


def scores(render: RenderFn, scene: Scene, views: Views, lpips: LPIPS, seen: Seen) -> dict[str, float]:
    """Means over the eval views; of seen and unseen pixels over those that have such."""
    functions = dict(zip(METRICS, (psnr, ssim, lpips.score), strict=True))
    found: dict[str, list[float]] = {}
    for index in scene.test.tolist():
        view = views[index]
        image = torch.from_numpy(to_uint8(render(view.camera).rgb[0]))
        photo = torch.from_numpy(to_uint8(view.image))
        share, apart = parts(seen(view), view.mask)
        values = share | {
            part + name: function(image, photo, pixels)
            for part, pixels in ({"": None} | apart).items()
            for name, function in functions.items()
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def models(training: str, trainer: Trainer, fixer: Fixer, views: Views) -> dict[str, RenderFn]:
    """What a finished training is scored as: plainly, and with the fixer behind it where that is a row of its own."""
    render = partial(trainer.model.render, depth=True)
    name = {"plain": "3DGS", "once": "Difix3D, at once", "progressive": "Difix3D"}.get(training, training)
    found: dict[str, RenderFn] = {name: render}
    behind: Callable[..., RenderFn] = partial(PostRender, render, fixer, trainer.scene, views.__getitem__)
    if training == "plain":
        found |= {"3DGS + fix": behind(trust=False), "3DGS + fix, trusting": behind(trust=True)}
    elif training == "progressive":
        found |= {"Difix3D+": behind(trust=True), "Difix3D+, paper": behind(trust=False)}
    return found


def measure(options: Options, source: str, training: str, seed: int) -> list[dict[str, Any]]:
    """One training, and the rows that follow from it."""
    scene = load_scene(source, data_dir=options.data_dir, resolution=options.resolution)
    distill, targets = DistillConfig(pilot_steps=0) if training == "oracle" else options.distill, None
    fixer = load_fixer(options.fixer, torch.device("cpu"))
    assert fixer is not None
    teacher: Fixer = fixer
    if training in ("oracle", "same cameras"):
        truth, targets = oracle(scene, source)
        teacher = truth if training == "oracle" else fixer
        if targets is not None:  # there are photos at the targets only, not on the way
            distill = replace(distill, step_size=1e3)
    elif training == "once":
        distill = replace(distill, mode="once")
    elif training == "plain":
        distill = replace(distill, mode="off")
    values = {"max_steps": options.steps, "eval_steps": [], "save_steps": [], "autosave_minutes": 0}
    folder = options.output / scene.name / training.replace(" ", "_") / f"seed_{seed}"
    values |= {"scene": source, "resolution": options.resolution, "data_dir": str(options.data_dir)}
    values |= {"fixer": "none", "plus": False, "seed": seed, "device": "cpu", "output_dir": str(folder)}
    config = replace(merge(from_preset("quick"), values, source="benchmark"), distill=distill)
    decisions: list[str] = []

    def listen(event: Any) -> None:
        if isinstance(event, RoundDone):
            decisions.append(event.verdict.decision)

    start = time.perf_counter()
    trainer = Trainer(config, scene, [listen], None if training == "plain" else teacher, targets)
    trainer.train()
    seconds = time.perf_counter() - start
    views, lpips = Views(scene), LPIPS("vgg")
    seen = seen_pixels(trainer.model.render, scene.cameras[scene.train])
    return [
        {"scene": scene.name, "training": training, "seed": seed, "row": name}
        | scores(render, scene, views, lpips, seen)
        | {"share": trainer.config.distill.novel_prob, "rounds": decisions, "seconds": round(seconds, 1)}
        for name, render in models(training, trainer, fixer, views).items()
    ]


def wanted(source: str, training: str) -> bool:
    """The oracle of an embedded scene knows the truth at every camera: there it is at the same cameras anyway."""
    return training != "same cameras" or synthetic.parse(source) is None


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if not options.table:
        for seed in options.seeds:
            for source in options.scenes:
                for training in options.trainings:
                    key = (Path(source).name, training, seed)
                    known = {(row["scene"], row["training"], row["seed"]) for row in read(options.json)}
                    if wanted(source, training) and key not in known:
                        rows = measure(options, source, training, seed)
                        write(options, [*read(options.json), *rows])
                        for row in rows:
                            numbers = "  ".join(f"{row[name]:.{n}f}" for name, n in METRICS.items())
                            print(f"{row['scene']:10} {seed} {row['row']:22} {numbers}  {row['rounds']}", flush=True)
    show(read(options.json))


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []


def write(options: Options, rows: list[dict[str, Any]]) -> None:
    facts = {"date": date.today().isoformat(), "device": device_name("cpu"), "torch": torch.__version__}
    result = facts | {"steps": options.steps, "resolution": options.resolution, "fixer": options.fixer, "rows": rows}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


def show(rows: list[dict[str, Any]]) -> None:
    """Scene by scene, and the mean over scenes: mean over the seeds, and their spread."""
    metrics = METRICS | {name: digits for name, digits in APART.items() if any(name in row for row in rows)}
    scenes = list(dict.fromkeys(row["scene"] for row in rows))
    names = list(dict.fromkeys(row["row"] for row in rows))
    table = Table("scene", "row", "seeds", *metrics)
    for scene, name in product(scenes, names):
        same = [row for row in rows if row["scene"] == scene and row["row"] == name]
        if same:
            cells = [spread([row[metric] for row in same if metric in row], n) for metric, n in metrics.items()]
            table.add_row(scene, name, str(len(same)), *cells, end_section=name == names[-1])
    table.add_section()
    for name in names if len(scenes) > 1 else []:
        same = [row for row in rows if row["row"] == name]
        seeds = [[row for row in same if row["seed"] == seed] for seed in {row["seed"] for row in same}]
        whole = [group for group in seeds if len(group) == len(scenes)]  # a mean over fewer scenes is another number
        cells = [
            spread([mean(group, metric) for group in whole if known(group, metric)], n) for metric, n in metrics.items()
        ]
        if whole:
            table.add_row("mean", name, str(len(whole)), *cells)
    Console().print(table)


def known(rows: list[dict[str, Any]], metric: str) -> bool:
    """Whether all rows have it: a mean over fewer scenes is another number."""
    return all(metric in row for row in rows)


def mean(rows: list[dict[str, Any]], metric: str) -> float:
    return float(np.mean([row[metric] for row in rows]))


def spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    middle = f"{np.mean(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} +- {np.std(values, ddof=1):.{digits}f}"


if __name__ == "__main__":
    main()
