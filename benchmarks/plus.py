"""Times the "+" along a path of trained runs, part by part and end to end, and says how steady it is.

    python benchmarks/plus.py outputs/fox outputs/castle       # difix-mini on a CPU
    python benchmarks/plus.py outputs/fox --full --size 1024 576 --frames 0    # the published size, random weights

On CUDA seconds are those of the wall, with an empty queue before and after; on a CPU those of the process, so that a
busy machine does not count (with several threads they are the sum of all). Random weights change neither time nor
FLOPs; their steadiness means nothing and is left out, and they are timed as published as well (fp32). Writes
benchmarks/results/plus_MODEL_DEVICE.json and prints tables.
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
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from difix3d.difix import DifixFixer, DifixPipeline, load_difix
from difix3d.difix.architecture import random_difix
from difix3d.distill.confidence import compare_with_photos, share_of_fix
from difix3d.evaluate import steadiness
from difix3d.geometry.carry import Key, carry
from difix3d.postrender import PostRender
from difix3d.scene import Views
from difix3d.scene.paths import fit, natural_path, path_cameras
from difix3d.training.load import TrainedRun, load_run
from difix3d.types import Cameras, Degraded, Fixer

WAYS: dict[str, dict[str, Any]] = {
    "fixed": {"mix": 0.0},
    "every 4": {"every": 4, "mix": 0.0},
    "mix 0.5": {"mix": 0.5},
}
WAYS["every 4, mix 0.5"] = WAYS["every 4"] | WAYS["mix 0.5"]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of trained runs."""
    full: bool = torch.cuda.is_available()
    """Weights of the published size, random, in place of difix-mini."""
    size: tuple[int, int] | None = (1024, 576) if torch.cuda.is_available() else None
    """Width and height; default on a CPU is that of the photos."""
    frames: int = 24
    """Of the path, which has the density of 120 for the whole. 0 leaves out what is measured end to end."""
    repeats: int = 5
    """Of each part, to take the median of."""
    threads: int = 1
    """Of the CPU."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    json: Path | None = None
    """Another file for the results."""


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    device, model = torch.device(options.device), "full" if options.full else "mini"
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "device": device_name(device),
        "threads": options.threads,
        "model": model,
        "runs": [],
    }
    file = options.json or Path(f"benchmarks/results/plus_{model}_{device.type}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    for place in options.runs:
        result["runs"].append(measure(load_run(place, device=device.type), options, device))
        file.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["runs"]:
        show(row, f"{model} Difix, {row['scene']}, {result['device']}")


def measure(run: TrainedRun, options: Options, device: torch.device) -> dict[str, Any]:
    """What is said of one run."""
    count = max(options.frames, options.repeats + 1)
    cameras = path_cameras(natural_path(run.scene), run.scene, 120).cameras[list(range(count))]
    cameras = (cameras if options.size is None else fit(cameras, *options.size)).to(device)
    path = [cameras[i] for i in range(count)]
    pipe = random_difix(False, device) if options.full else load_difix("mini", device)
    fixer = DifixFixer(pipe, device, offload=False)
    photo = Views(run.scene, device).__getitem__
    posts = {
        trust: PostRender(run.render, fixer, run.scene, photo, trust=trust, device=device) for trust in (True, False)
    }
    before = {"fix, plain": time_of_a_fix(posts[True], path[0], options.repeats)}
    if options.full:
        before["fix, as published"] = published(pipe, path[0].size, device, options.repeats)
    plain = flops_of_a_fix(posts[True], path[0])
    pipe.optimize()
    parts = time_parts(posts[True], path, options.repeats)
    flops = {"fix, plain": plain, "fix": flops_of_a_fix(posts[True], path[options.repeats])}
    path = path[: options.frames]
    return {
        "scene": run.scene.name,
        "size": cameras.size,
        "frames": options.frames,
        "milliseconds": parts | before,
        "flops": flops,
        "weight_bytes": float(sum(w.nbytes for part in (pipe.vae, pipe.unet) for w in part.parameters())),
        "end_to_end": [
            {"trust": trust, "way": way} | end_to_end(post, path, how)
            for trust, post in posts.items()
            for way, how in WAYS.items()
            if path
        ],
        "steadiness": [] if options.full or not path else steady(posts, path),
    }


def time_parts(post: PostRender, path: list[Cameras], repeats: int) -> dict[str, float]:
    """Milliseconds of each part of a frame; the parts of the "+" overlap in a stream."""
    agreed, settings = post.mean_agreement, post.confidence
    seconds: dict[str, list[float]] = {}

    def part(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        taken, value = timed(post.device, function, *arguments)
        seconds.setdefault(name, []).append(taken)
        return value

    def trusted(degraded: Degraded, fixed: Tensor) -> Tensor:
        height, width = fixed.shape[:2]
        return share_of_fix(compare_with_photos(degraded, fixed, settings), (height, width), agreed, settings)

    last: Key | None = None
    for camera in path[: repeats + 1]:
        out = part("render", post.render, camera)
        degraded = part("references", post._nearest.degraded, camera, out, post.photo)
        fixed = part("fix", once, post.fixer, degraded)
        part("trust", trusted, degraded, fixed)
        key = Key(camera, degraded.depth, fixed - degraded.rgb)
        part("carry", carry, [last or key, key], [1.0, 1.0], degraded.depth, camera)
        last = key
    return {name: 1e3 * median(values[1:]) for name, values in seconds.items()}


def once(fixer: Fixer, degraded: Degraded) -> Tensor:
    return next(iter(fixer([degraded])))


def time_of_a_fix(post: PostRender, camera: Cameras, repeats: int) -> float:
    """Milliseconds of a fix; the first does not count."""
    frame = post._prepare(camera).degraded
    return 1e3 * median([timed(post.device, once, post.fixer, frame)[0] for _ in range(repeats + 1)][1:])


def flops_of_a_fix(post: PostRender, camera: Cameras) -> float:
    """Of a camera that was fixed last: a multiply-add is 2, and what is kept of references is not computed again."""
    frame = post._prepare(camera).degraded

    def attention(query: Any, key: Any, value: Any, *_arguments: Any, **_options: Any) -> int:
        return sdpa_flop_count(query, key, value)

    on_cpu: Any = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}  # torch knows CUDA's alone
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        once(post.fixer, frame)
    return float(counter.get_total_flops())


def published(pipe: DifixPipeline, size: tuple[int, int], device: torch.device, repeats: int) -> float:
    """Milliseconds of a fix as published: text encoder and reference in each call, both views decoded, before
    ``optimize()``. Small weights, which take a guide, have no such way."""
    images, call = torch.rand(1, 3, *reversed(size), device=device), Published(pipe, tiny=False)
    return 1e3 * median([timed(device, call, images, images[:, None])[0] for _ in range(repeats + 1)][1:])


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


def show(row: dict[str, Any], title: str) -> None:
    console = Console()
    console.print(", ".join(f"{name} {value:.1f} ms" for name, value in row["milliseconds"].items()))
    work = ", ".join(f"{name} {value / 1e12:.3g} TFLOP" for name, value in row["flops"].items())
    console.print(f"{work}; {row['weight_bytes'] / 1e6:.0f} MB of weights")
    table = Table(title=f"{title}, {' x '.join(map(str, row['size']))}, {row['frames']} frames")
    for column in ("", "ms a frame", "frames/s", "fixed", "warp error x 1000, 1 apart", "4 apart"):
        table.add_column(column, justify="right")
    errors = {(item["trust"], item["way"]): item for item in row["steadiness"]}
    rows = [{"trust": trust, "way": "render"} for trust in (True,) if errors] + row["end_to_end"]
    for line in rows:
        name = line["way"] + ("" if line["way"] == "render" else ", trust" if line["trust"] else ", all")
        speed = [f"{line[key]:.1f}" if key in line else "" for key in ("milliseconds", "frames_per_second")]
        error = errors.get((line["trust"], line["way"]))
        warp = [f"{1e3 * error[key]:.2f}" if error else "" for key in ("short", "long")]
        table.add_row(name, *speed, str(line.get("fixed", "")), *warp)
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
