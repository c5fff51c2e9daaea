"""Times loading scenes and decoding their photos.

    python benchmarks/loading.py --scenes path/to/fox path/to/castle

Decodes every photo once from disk (cold) and once from memory (warm); also a 12-megapixel photo reduced to 1600 pixels,
decoded and from the disk cache. Writes JSON to benchmarks/results/ and prints a table.
"""

import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from machine import device_name
from PIL import Image
from rich.console import Console
from rich.table import Table

from difix3d.scene import Views, load_scene
from difix3d.scene.cache import read_reduced


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scenes: tuple[str, ...] = ("demo",)
    """As in training."""
    data_dir: Path = Path("data")
    """Where generated scenes lie."""
    output: Path = Path("benchmarks/results")
    """Where the JSON goes."""


def main(options: Options) -> None:
    rows = [measure(scene, options.data_dir) for scene in options.scenes]
    large = measure_large()
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table, large)
    options.output.mkdir(parents=True, exist_ok=True)
    machine = {"processor": device_name("cpu"), "threads": torch.get_num_threads(), "python": platform.python_version()}
    result = {"date": date.today().isoformat(), **machine, "scenes": rows, "photo_of_12_megapixels": large}
    (options.output / "loading.json").write_text(json.dumps(result, indent=1) + "\n")


def measure(source: str, data_dir: Path) -> dict[str, Any]:
    load_scene(source, data_dir=data_dir)  # generates it where it is not there; imports the libraries
    scene = load_scene(source, data_dir=data_dir)
    load = seconds(lambda: load_scene(source, data_dir=data_dir))
    views = Views(scene)
    decode = [seconds(lambda: [None for _ in views.stream(range(len(views)))]) for _ in range(2)]
    return {
        "scene": scene.name,
        "photos": len(views),
        "size": f"{scene.cameras.width[0]}x{scene.cameras.height[0]}",
        "lens": scene.photos[0].lens.model if scene.photos[0].lens else "PINHOLE",
        "points": len(scene.points),
        "load_s": load,
        "cold_photos_per_s": round(len(views) / decode[0]),
        "warm_photos_per_s": round(len(views) / decode[1]),
    }


def measure_large() -> dict[str, float]:
    """Seconds for a noisy 4000 x 3000 JPEG at 1600 x 1200: decoded and put into the cache, then from there."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
    smooth = np.asarray(small.resize((4000, 3000))).astype(np.int16)
    noisy = smooth + rng.integers(-12, 12, (3000, 4000, 3), np.int16)
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "large.jpg", Path(folder) / "cache"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=92)
        first = seconds(lambda: read_reduced(path, (1600, 1200), cache))
        return {"decode_s": first, "from_disk_cache_s": seconds(lambda: read_reduced(path, (1600, 1200), cache))}


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return round(time.perf_counter() - start, 4)


if __name__ == "__main__":
    main(tyro.cli(Options))
