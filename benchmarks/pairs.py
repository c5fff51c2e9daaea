"""How well a fixer does on curated pairs: PSNR, SSIM and LPIPS before and after, for each strategy.

difix3d curate path/to/fox path/to/castle --output-dir data/pairs/real --resolution 240 --warps 2
python benchmarks/pairs.py --data data/pairs/real --weights mini
"""

import json
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from machine import device_name
from rich.console import Console
from rich.progress import track
from rich.table import Table

from difix3d.curation import read_curated
from difix3d.difix import DifixPipeline, load_difix
from difix3d.difix_training.dataset import Pair, centre, read_pairs
from difix3d.difix_training.validate import evenly
from difix3d.images import image_size, to_uint8
from difix3d.metrics import LPIPS, psnr, ssim

METRICS = {"psnr": 2, "ssim": 3, "lpips": 3}


@dataclass(frozen=True)
class Options:
    """Fixes pairs that were curated with difix3d, both splits of them, and compares with the photos."""

    data: Path
    """Folder of the pairs."""
    weights: str = "mini"
    """`mini`, hub id, folder or .pkl checkpoint of a Difix."""
    count: int = 60
    """At most so many pairs of each strategy, evenly spread."""
    json: Path | None = None
    """Where the results go."""


def fix(pipe: DifixPipeline, pair: Pair) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Render, fixed image and photo of a pair: 8 bits, [H,W,3]."""
    layers, (width, height) = pipe.vae.layers, image_size(pair.image)
    batch = centre(pair, (height, width), references=0 if layers else 1, layers=layers)
    if layers:
        fixed = pipe.fix(batch.images[:, :3], guide=batch.images[:, 3:])
    else:
        fixed = pipe.fix(batch.images, batch.references)
    images = (batch.images[0, :3], fixed[0], batch.photos[0])
    render, after, photo = (torch.from_numpy(to_uint8(image.permute(1, 2, 0))) for image in images)
    return render, after, photo


def measure(options: Options) -> list[dict[str, Any]]:
    """Means of each strategy, and of all pairs."""
    pipe = load_difix(options.weights, "cpu")
    pipe.optimize(pipe.unet.dtype, compile=False)
    lpips = LPIPS("vgg").to(pipe.device)
    card = read_curated(options.data).card
    pairs: dict[str, list[Pair]] = {}
    for some in read_pairs(options.data / "dataset.json").values():
        for pair in some:
            pairs.setdefault(card[pair.id]["strategy"], []).append(pair)
    rows, everything = [], []
    for strategy, members in sorted(pairs.items()):
        scores = []
        for pair in track(evenly(members, options.count), strategy, transient=True, console=Console(stderr=True)):
            start = time.perf_counter()
            render, fixed, photo = fix(pipe, pair)
            seconds = time.perf_counter() - start
            before, after = (
                [psnr(image, photo), ssim(image, photo), lpips.score(image, photo)] for image in (render, fixed)
            )
            scores.append([*before, *after, seconds])
        rows.append(summary(strategy, scores))
        everything += scores
    return [*rows, summary("all", everything)]


def summary(name: str, scores: list[list[float]]) -> dict[str, Any]:
    means = np.mean(scores, 0)
    columns = [f"{metric}_{when}" for when in ("before", "after") for metric in METRICS]
    return {
        "strategy": name,
        "pairs": len(scores),
        **{key: round(float(value), 4) for key, value in zip(columns, means, strict=False)},
        "seconds": round(float(means[-1]), 3),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """A table: before, after."""
    table = Table("strategy", "pairs", *METRICS)
    for row in rows:
        cells = [f"{row[f'{name}_before']:.{n}f} -> {row[f'{name}_after']:.{n}f}" for name, n in METRICS.items()]
        table.add_row(row["strategy"], str(row["pairs"]), *cells)
    Console().print(table)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    rows = measure(options)
    show(rows)
    if options.json is not None:
        facts = {
            "date": date.today().isoformat(),
            "device": device_name(torch.device("cpu")),
            "torch": torch.__version__,
        }
        chosen = {"weights": options.weights, "count": options.count}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(facts | chosen | {"rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
