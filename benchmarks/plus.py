"""Times the "+" along a path of a trained run, part by part and end to end, and says how steady it is.

    python benchmarks/plus.py outputs/demo/first              # difix-mini on a CPU
    python benchmarks/plus.py outputs/demo/first --full       # the architecture of the published size, random weights

On CUDA seconds are those of the wall, with an empty queue before and after; on a CPU those of the process, so that a
busy machine does not count (with several threads they are the sum of all). Random weights change neither time nor
FLOPs; their steadiness means nothing and is left out, and they are timed as published as well (fp32). Writes
benchmarks/results/plus_MODEL_DEVICE.json and prints a table.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro
from fix import Published
from machine import device_name
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from difix3d.difix import DifixFixer, DifixPipeline, load_difix
from difix3d.difix.architecture import random_difix
from difix3d.distill.confidence import compare_with_photos, share_of_fix
from difix3d.evaluate import steadiness
from difix3d.geometry.carry import Key, carry
from difix3d.postrender import PostRender
from difix3d.scene import Views
from difix3d.scene.paths import fit, natural_path, path_cameras
from difix3d.training.load import load_run
from difix3d.types import Cameras, Degraded

WAYS: dict[str, dict[str, Any]] = {"fixed": {}, "every 4": {"every": 4}, "mix 0.5": {"mix": 0.5}}
WAYS["every 4, mix 0.5"] = WAYS["every 4"] | WAYS["mix 0.5"]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    run: tyro.conf.Positional[Path]
    """Folder of a trained run."""
    full: bool = torch.cuda.is_available()
    """Weights of the published size, random, in place of difix-mini."""
    size: tuple[int, int] | None = (1024, 576) if torch.cuda.is_available() else None
    """Width and height; default on a CPU is that of the photos."""
    frames: int = 24
    """Of the path, which has the density of 120 for the whole."""
    repeats: int = 5
    """Of each part, to take the median of."""
    threads: int = 1
    """Of the CPU."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    output: Path = Path("benchmarks/results")


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    run = load_run(options.run, device=device.type)
    cameras = path_cameras(natural_path(run.scene), run.scene, 120).cameras[list(range(options.frames))]
    cameras = (cameras if options.size is None else fit(cameras, *options.size)).to(device)
    path = [cameras[i] for i in range(len(cameras))]
    pipe = random_difix(False, device) if options.full else load_difix("mini", device)
    as_published = published(pipe, path[0].size, device, options.repeats) if options.full else {}
    fixer = DifixFixer(pipe.optimize(), device, offload=False)
    photo = Views(run.scene, device).__getitem__
    posts = {
        trust: PostRender(run.render, fixer, run.scene, photo, trust=trust, device=device) for trust in (True, False)
    }
    parts = time_parts(posts[True], path, options.repeats) | as_published
    rows = [
        {"trust": trust, "way": way} | end_to_end(post, path, how)
        for trust, post in posts.items()
        for way, how in WAYS.items()
    ]
    result = {
        "date": date.today().isoformat(),
        "device": device_name(device),
        "threads": options.threads,
        "model": "full" if options.full else "mini",
        "size": path[0].size,
        "frames": len(path),
        "milliseconds": parts,
        "fix": work_of_a_fix(posts[True], path[0]),
        "end_to_end": rows,
        "steadiness": [] if options.full else steady(posts, path),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"plus_{result['model']}_{device.type}.json").write_text(json.dumps(result, indent=1) + "\n")
    show(result)


def time_parts(post: PostRender, path: list[Cameras], repeats: int) -> dict[str, float]:
    """Milliseconds of each part of a frame; the parts of the "+" overlap in a stream."""
    agreed, settings = post.mean_agreement, post.confidence
    seconds: dict[str, list[float]] = {}

    def part(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        taken, value = timed(post.device, function, *arguments)
        seconds.setdefault(name, []).append(taken)
        return value

    def fix(degraded: Degraded) -> Tensor:
        return next(iter(post.fixer([degraded])))

    def trusted(degraded: Degraded, fixed: Tensor) -> Tensor:
        height, width = fixed.shape[:2]
        return share_of_fix(compare_with_photos(degraded, fixed, settings), (height, width), agreed, settings)

    last: Key | None = None
    for camera in path[: repeats + 1]:
        out = part("render", post.render, camera)
        degraded = part("references", post._nearest.degraded, camera, out, post.photo)
        fixed = part("fix", fix, degraded)
        part("trust", trusted, degraded, fixed)
        key = Key(camera, degraded.depth, fixed - degraded.rgb)
        part("carry", carry, [last or key, key], [1.0, 1.0], degraded.depth, camera)
        last = key
    return {name: 1e3 * median(values[1:]) for name, values in seconds.items()}


def published(pipe: DifixPipeline, size: tuple[int, int], device: torch.device, repeats: int) -> dict[str, float]:
    """Milliseconds of a fix as published: text encoder and reference in each call, both views decoded, before
    ``optimize()``. Small weights, which take a guide, have no such way."""
    images, call = torch.rand(1, 3, *reversed(size), device=device), Published(pipe, tiny=False)
    seconds = [timed(device, call, images, images[:, None])[0] for _ in range(repeats + 1)]
    return {"fix as published": 1e3 * median(seconds[1:])}


def end_to_end(post: PostRender, path: list[Cameras], how: dict[str, Any]) -> dict[str, float]:
    """Milliseconds a frame, frames a second, and how many frames were fixed."""
    count = 0
    fixer = post.fixer

    def counting(degraded: Any) -> Any:
        nonlocal count
        for image in fixer(degraded):
            count += 1
            yield image

    post.fixer = counting
    taken, _ = timed(post.device, lambda: list(post.stream(path, **how)))
    post.fixer = fixer
    each = taken / len(path)
    return {"milliseconds": 1e3 * each, "frames_per_second": 1 / each, "fixed": count}


def work_of_a_fix(post: PostRender, camera: Cameras) -> dict[str, float]:
    """FLOPs of a fix (a multiply-add is 2), and bytes of the weights that it reads."""
    frame = post._prepare(camera).degraded
    with FlopCounterMode(display=False) as counter:
        next(iter(post.fixer([frame])))
    pipe: Any = post.fixer.pipe  # type: ignore[attr-defined]
    weights = [weight for model in (pipe.vae, pipe.unet) for weight in model.parameters()]
    return {"flops": float(counter.get_total_flops()), "weight_bytes": float(sum(w.nbytes for w in weights))}


def steady(posts: dict[bool, PostRender], path: list[Cameras]) -> list[dict[str, Any]]:
    """Warp errors, as ``difix3d evaluate --metrics warp`` has them."""
    found = []
    for trust, post in posts.items():
        ways: dict[str, Iterable[Tensor]] = {"render": (post.render(camera).rgb[0] for camera in path)}
        ways |= {way: post.stream(path, **how) for way, how in WAYS.items()}
        found += [
            {"trust": trust, "way": item.way, "short": item.short, "long": item.long}
            for item in steadiness("", ways, post.render, path)
        ]
    return found


def timed(device: torch.device, function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds of the wall on a GPU, of the process on a CPU; and the value."""
    cuda = device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize()
    start = clock()
    with torch.no_grad():
        value = function(*arguments)
    if cuda:
        torch.cuda.synchronize()
    return clock() - start, value


def show(result: dict[str, Any]) -> None:
    console = Console()
    width, height = result["size"]
    console.print(", ".join(f"{name} {value:.1f} ms" for name, value in result["milliseconds"].items()))
    console.print(
        f"a fix: {result['fix']['flops'] / 1e12:.3g} TFLOP, {result['fix']['weight_bytes'] / 1e6:.0f} MB of weights"
    )
    table = Table(title=f"{result['model']} Difix, {width} x {height}, {result['device']}, {result['frames']} frames")
    for column in ("", "ms a frame", "frames/s", "fixed", "warp error x 1000, 1 apart", "4 apart"):
        table.add_column(column, justify="right")
    errors = {(item["trust"], item["way"]): item for item in result["steadiness"]}
    rows = [{"trust": trust, "way": "render"} for trust in (True,) if errors] + result["end_to_end"]
    for row in rows:
        name = row["way"] + ("" if row["way"] == "render" else ", trust" if row["trust"] else ", all")
        speed = [f"{row[key]:.1f}" if key in row else "" for key in ("milliseconds", "frames_per_second")]
        error = errors.get((row["trust"], row["way"]))
        warp = [f"{1e3 * error[key]:.2f}" if error else "" for key in ("short", "long")]
        table.add_row(name, *speed, str(row.get("fixed", "")), *warp)
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
