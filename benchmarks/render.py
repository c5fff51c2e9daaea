"""Times the rasteriser: forward and forward + backward per image, beside its pure-torch twin in the same run.

The load is photogrammetry points of a garden at three sizes (random points if the shared data is not there), and a
trained run of yours. Writes a JSON and a plot of cost against Gaussians and pixels to ``benchmarks/results``.

    python benchmarks/render.py [--quick] [--run FOLDER] [--threads N]
"""

import argparse
import datetime
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from machine import device_name, fma_peak, measure
from rich.console import Console
from rich.table import Table

from difix3d.gaussians import load_checkpoint, newest_checkpoint
from difix3d.gaussians.checkpoint import nested
from difix3d.render import cpu, cuda, torch_twin
from difix3d.scene import load_scene
from difix3d.ssim import ssim
from difix3d.training.configfile import read_yaml
from difix3d.types import Cameras, Gaussians

mpl.use("Agg")
import matplotlib.pyplot as plt

SHARED = Path(os.environ.get("DIFIX3D_SHARED", Path(__file__).parents[2] / "shared"))
RESULTS = Path(__file__).parent / "results"
SIZES = {"S": (20_000, 200, 130), "M": (50_000, 480, 320), "L": (111_785, 648, 420)}
# Floating-point operations for one pixel of a visited tile row, counted in rasterize.cpp (a fused multiply-add is two).
FLOP_FORWARD, FLOP_BACKWARD = 30, 52


def points() -> tuple[torch.Tensor, torch.Tensor, Cameras, str]:
    """Positions, colours 0..1, cameras, and what they are."""
    file = SHARED / "bench" / "garden_points.npz"
    if not file.exists():
        g = torch.Generator().manual_seed(0)
        means = (torch.rand(150_000, 3, generator=g) * 4 - 2) * torch.tensor([1, 0.4, 1])
        c2w = torch.eye(4)[None].clone()
        c2w[0, 2, 3] = -3
        K = torch.tensor([[[500.0, 0, 324], [0, 500, 210], [0, 0, 1]]])
        cameras = Cameras(c2w, K, torch.tensor([648]), torch.tensor([420]))
        return means, torch.rand(150_000, 3, generator=g), cameras, "random points: the shared data is not there"
    data = np.load(file)
    means, colors = torch.tensor(data["means3d"]).float(), torch.tensor(data["colors"]).float() / 255
    keep = (means.abs() <= 2).all(1)
    w2c, K = torch.tensor(data["viewmats"]).float(), torch.tensor(data["Ks"]).float()
    sizes = (torch.full((len(K),), int(data[name])) for name in ("width", "height"))
    return means[keep], colors[keep], Cameras(torch.linalg.inv(w2c), K, *sizes), "points of Mip-NeRF 360's garden"


def load(n: int, width: int, height: int) -> tuple[Gaussians, Cameras, str]:
    """``n`` of the points at random as Gaussians, whose size makes up for their number."""
    means, colors, cameras, what = points()
    g = torch.Generator().manual_seed(0)
    full = len(means)
    chosen = torch.randperm(full, generator=g)[:n]
    n = len(chosen)
    scales = (torch.rand(n, 3, generator=g) * (0.02 - 1e-4) + 1e-4) * (full / n) ** 0.5
    quats = torch.nn.functional.normalize(torch.randn(n, 4, generator=g), dim=1)
    opacities = torch.rand(n, generator=g).logit()
    sh0 = ((colors[chosen] - 0.5) / 0.28209479)[:, None]
    gaussians = Gaussians(means[chosen], quats, scales.log(), opacities, sh0, 0.05 * torch.randn(n, 15, 3, generator=g))
    return gaussians, cameras[:1].resized(width, height), what


def pixels_in_rows(info: dict, width: int, height: int) -> int:
    """Pixels of the tile rows (16 wide) that the ellipses alpha >= 1/255 touch: what has to be visited at least."""
    seen = (info["radii"][0] > 0).all(-1)
    x, y = info["means2d"][0, seen].detach().double().unbind(-1)
    a, b, c = info["conics"][0, seen].detach().double().unbind(-1)
    s = 2 * (255 * info["opacities"][0, seen].detach().double()).clamp(min=1).log()
    det = a * c - b * b
    total = 0
    for row in range(height):
        v = row + 0.5 - y
        inside = s * a - det * v * v
        half, center = inside.clamp(min=0).sqrt() / a, x - b / a * v
        first = ((center - half - 0.5).ceil().clamp(0, width) / 16).floor()
        last = ((center + half - 0.5).floor().clamp(-1, width - 1) / 16).floor()
        total += int(((last - first + 1).clamp(min=0) * (inside >= 0)).sum())
    return 16 * total


def time_one(run: Callable, gaussians: Gaussians, cameras: Cameras, repeats: int) -> dict[str, float]:
    """Milliseconds per image of RGB, as in training."""
    device = gaussians.device
    options = {"sh_degree": gaussians.sh_degree, "background": torch.zeros(3, device=device), "depth": False}
    leaves = gaussians.map(lambda x: x.detach().clone().requires_grad_())
    width, height = cameras.size
    gradient = torch.randn(1, height, width, 3, device=device)

    def forward() -> None:
        with torch.no_grad():
            run(leaves, cameras, **options)

    def both() -> None:
        for leaf in leaves.as_dict().values():
            leaf.grad = None
        run(leaves, cameras, **options).rgb.backward(gradient)

    result = {f"forward_{k}": 1e3 * v for k, v in measure(forward, repeats).items()}
    return result | {f"both_{k}": 1e3 * v for k, v in measure(both, repeats).items()}


def time_twin(gaussians: Gaussians, cameras: Cameras) -> float:
    """Milliseconds of one forward and backward pass in pure torch, without a warm-up: it takes seconds."""
    leaves = gaussians.map(lambda x: x.detach().clone().requires_grad_())
    start = time.perf_counter()
    torch_twin.rasterize(
        leaves, cameras, sh_degree=leaves.sh_degree, background=torch.zeros(3), depth=False
    ).rgb.sum().backward()
    return 1e3 * (time.perf_counter() - start)


def time_loss(width: int, height: int, device: str, repeats: int) -> dict[str, float]:
    """Milliseconds of 0.8 L1 + 0.2 (1 - SSIM), forward and backward."""
    a, b = (torch.rand(1, height, width, 3, device=device) for _ in range(2))
    a.requires_grad_()

    def run() -> None:
        a.grad = None
        (0.8 * (a - b).abs().mean() + 0.2 * (1 - ssim(a, b).mean())).backward()

    return {f"loss_{k}": 1e3 * v for k, v in measure(run, repeats).items()}


def report(name: str, gaussians: Gaussians, cameras: Cameras, peak: float | None, repeats: int) -> dict:
    width, height = cameras.size
    row: dict[str, Any] = {"load": name, "gaussians": len(gaussians), "width": width, "height": height}
    row |= time_one(cpu.rasterize, gaussians, cameras, repeats) | time_loss(width, height, "cpu", repeats)
    info = cpu.rasterize(gaussians, cameras, sh_degree=gaussians.sh_degree, background=torch.zeros(3)).info
    pixels = pixels_in_rows(info, width, height)
    row["gflop"] = pixels * (FLOP_FORWARD + FLOP_BACKWARD) / 1e9
    if peak:
        row["fraction_of_peak"] = row["gflop"] / row["both_min"] * 1e3 / peak
    if torch.cuda.is_available():
        fast = time_one(cuda.rasterize, gaussians.to("cuda"), cameras.to("cuda"), repeats)
        row |= {f"cuda_{k}": v for k, v in fast.items()} | {
            "cuda_loss": time_loss(width, height, "cuda", repeats)["loss_min"]
        }
    return row


def trained(run: Path) -> tuple[str, Gaussians, Cameras]:
    """The model of a run and its first test camera."""
    config = read_yaml(run / "config.yaml")
    scene = load_scene(
        config["scene"], data_dir=Path(config["data_dir"]), split=config["split"], resolution=config["resolution"]
    )
    checkpoint = newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None, f"{run} has no checkpoint"
    _, tensors, _ = load_checkpoint(checkpoint)
    return f"trained {scene.name}", Gaussians(**nested(tensors)["gaussians"]), scene.cameras[int(scene.test[0])]


def scaling(repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of forward + backward against the number of Gaussians, and against that of pixels."""
    _, width, height = SIZES["L"]
    by_gaussians: list[tuple[float, float]] = []
    by_pixels: list[tuple[float, float]] = []
    dense, camera, _ = load(SIZES["L"][0], width, height)
    for share in (0.125, 0.25, 0.5, 0.75, 1.0):
        kept = int(share * len(dense))  # of the same size each: the work grows with the number
        some = Gaussians(*(x[:kept] for x in dense.as_dict().values()))
        by_gaussians.append((len(some), time_one(cpu.rasterize, some, camera, repeats)["both_min"]))
        side = share**0.5
        small = camera.resized(round(width * side), round(height * side))
        w, h = small.size
        by_pixels.append((w * h, time_one(cpu.rasterize, dense, small, repeats)["both_min"]))
    return {"gaussians": by_gaussians, "pixels": by_pixels}


def plot(curves: dict[str, list[tuple[float, float]]], file: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), constrained_layout=True)
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        x, y = np.array(curve).T
        slope, offset = np.polyfit(x, y, 1)
        axis.plot(x / 1000, y, "o", label="measured")
        axis.plot(np.array([0, x.max()]) / 1000, [offset, offset + slope * x.max()], "-", lw=1, label="straight line")
        axis.set(xlabel=f"thousand {name}", ylabel="ms, forward + backward", ylim=(0, None), xlim=(0, None))
        axis.legend()
    figure.savefig(file, dpi=120)


def show(rows: list[dict], peak: float | None) -> None:
    table = Table(
        title="milliseconds per image, least of the repeats" + (f"; FMA peak {peak:.0f} GFLOP/s" if peak else "")
    )
    columns = {"load": "load", "gaussians": "Gaussians", "width": "width", "height": "height", "forward_min": "forward"}
    columns |= {
        "both_min": "fwd + bwd",
        "both_median": "(median)",
        "loss_min": "L1 + SSIM",
        "fraction_of_peak": "of peak",
    }
    columns |= {
        "twin_both": "twin",
        "times_faster": "times faster",
        "cuda_forward_min": "gsplat fwd",
        "cuda_both_min": "gsplat both",
    }
    columns = {k: v for k, v in columns.items() if any(k in row for row in rows)}
    for title in columns.values():
        table.add_column(title, justify="right")
    for row in rows:
        cells = [row.get(k, "") for k in columns]
        table.add_row(*[f"{x:.2f}" if isinstance(x, float) else str(x) for x in cells])
    Console(width=160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats, no plot")
    parser.add_argument("--run", type=Path, help="also time this trained run, from its first test camera")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    repeats = 5 if arguments.quick else 30
    peak = fma_peak(arguments.threads)
    rows, what = [], ""
    for name, (n, width, height) in SIZES.items():
        gaussians, cameras, what = load(n, width, height)
        rows.append(report(name, gaussians, cameras, peak, repeats))
    if arguments.run:
        rows.append(report(*trained(arguments.run), peak, repeats))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # before the twin, which takes gigabytes
    for row, size in zip(rows, SIZES.values(), strict=False):
        row["twin_both"] = time_twin(*load(*size)[:2])
        row["times_faster"] = row["twin_both"] / row["both_min"]
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "load": what,
        "cpu": device_name("cpu"),
        "threads": arguments.threads,
        "fma_peak_gflops": peak,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "peak_memory_mib": memory,
        "rows": rows,
    }
    if torch.cuda.is_available():
        result["gpu"] = device_name("cuda")
    RESULTS.mkdir(exist_ok=True)
    if not arguments.quick:
        result["scaling"] = scaling(max(5, repeats // 3))
        plot(result["scaling"], RESULTS / "render.png")
    (RESULTS / "render.json").write_text(json.dumps(result, indent=1))
    print(f"{result['cpu']}, {arguments.threads} threads; {what}; peak memory {result['peak_memory_mib']:.0f} MiB")
    show(rows, peak)


if __name__ == "__main__":
    main()
