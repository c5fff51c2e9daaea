"""Times Difix, plain and fast, with and without a reference, in one run; counts the FLOPs of its parts.

    python benchmarks/fix.py                  # on CUDA the full-size model at 576x1024, on a CPU the tiny one
    python benchmarks/fix.py --height 480 --width 640 --repeats 20

Weights are random, which changes neither time nor memory, so that nothing is downloaded. The prompt's embedding is
given in all cases. "plain fp32" is how the published README calls its pipeline: fp32, references encoded for each
image, LoRA as separate layers. Writes JSON to benchmarks/results/ and prints a table.
"""

import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import torch
import tyro
from machine import device_name
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from difix3d.difix.architecture import random_difix
from difix3d.difix.step import decode, denoise, encode

DATASHEET = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "RTX 4090": 165e12}  # dense bf16 FLOP/s


@dataclass(frozen=True)
class Options:
    """What to measure."""

    height: int = 576 if torch.cuda.is_available() else 288
    width: int = 1024 if torch.cuda.is_available() else 512
    repeats: int = 20
    """Calls to take the median of."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    compile: bool = True
    """On CUDA also time the compiled fast path (compiling takes minutes)."""
    threads: int | None = None
    """Of the CPU; fewer than there are cores where these are shared."""
    output: Path = Path("benchmarks/results")


def main(options: Options) -> None:
    cuda = options.device.startswith("cuda")
    if options.threads:
        torch.set_num_threads(options.threads)
    size = (options.height, options.width)
    flops = {"full, 576x1024": count_flops(False, 576, 1024), "as timed": count_flops(not cuda, *size)}
    cases: list[tuple[str, torch.dtype, bool | None]] = [("plain fp32", torch.float32, None)]
    if cuda:
        cases += [("plain bf16", torch.bfloat16, None), ("fast bf16, eager", torch.bfloat16, False)]
        cases += [("fast bf16, compiled", torch.bfloat16, True)] if options.compile else []
    else:
        cases += [("fast fp32", torch.float32, False)]
    rows = [row for case in cases for row in measure(*case, options, flops["as timed"])]
    result = {
        "date": date.today().isoformat(),
        "device": device_name(torch.device(options.device)),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "model": "full" if cuda else "tiny",
        "size": size,
        "flops": flops,
        "runs": rows,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"fix_{options.device.split(':')[0]}.json").write_text(json.dumps(result, indent=1) + "\n")
    show(result)


def count_flops(tiny: bool, height: int, width: int) -> dict[str, float]:
    """Floating-point operations of each part (a multiply-add is 2), counted on tensors without data."""
    pipe = random_difix(tiny, "meta", lora_rank=0)
    image, text = torch.empty(1, 1, 3, height, width, device="meta"), pipe.embed("remove degradation")[None]
    latents = torch.empty(1, 1, 4, height // 8, width // 8, device="meta")

    def counted(function: Callable[..., Any], *args: Any) -> float:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            function(*args)
        return float(counter.get_total_flops())

    skips = encode(pipe.vae, image)[1]
    return {
        "encode one view": counted(encode, pipe.vae, image),
        "unet, 1 view": counted(denoise, pipe.unet, latents, text, 199, 0.8),
        "unet, 2 views": counted(denoise, pipe.unet, latents.expand(-1, 2, -1, -1, -1), text, 199, 0.8),
        "decode": counted(decode, pipe.vae, latents[:, 0], skips),
    }


def measure(name: str, dtype: torch.dtype, fast: bool | None, options: Options, flops: dict[str, float]) -> list[dict]:
    """One row without and one with a reference; ``fast`` is None for plain, else whether to compile."""
    device = torch.device(options.device)
    pipe = random_difix(device.type == "cpu", device, dtype)
    if fast is not None:
        pipe.optimize(dtype, compile=fast)
    peak = matmul_rate(device, dtype)
    image = torch.rand(1, 3, options.height, options.width, device=device)
    reference = torch.rand(1, 1, 3, options.height, options.width, device=device)
    rows = []
    for views, references in ((1, None), (2, reference)):
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        call = partial(pipe.fix, image, references)
        first = timed(device, call)
        for _ in range(2):  # CUDA graphs are recorded in the second call
            call()
        seconds = [timed(device, call) for _ in range(options.repeats)]
        work = flops["encode one view"] * (views if fast is None else 1) + flops["decode"]
        work += flops["unet, 1 view" if views == 1 else "unet, 2 views"]
        rate = work / median(seconds)
        on_sheet = next((value for key, value in DATASHEET.items() if key in device_name(device)), None)
        rows.append(
            {
                "path": name,
                "references": views - 1,
                "milliseconds": 1e3 * median(seconds),
                "slowest": 1e3 * max(seconds),
                "first_call_seconds": first,
                "gigabytes": memory(device),
                "teraflop": work / 1e12,
                "share_of_matmul_rate": rate / peak,
                "share_of_datasheet_bf16": rate / on_sheet if on_sheet and dtype == torch.bfloat16 else None,
            }
        )
    return rows


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product on this device: the peak that a program can reach."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.rand(side, side, device=device, dtype=dtype)
    return 2 * side**3 / min(timed(device, lambda: a @ a) for _ in range(6))


def timed(device: torch.device, function: Callable[[], Any]) -> float:
    """Seconds, with the device's queue empty before and after."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - start


def memory(device: torch.device) -> float:
    """Gigabytes at the highest: allocated on the GPU, or resident in the whole process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def show(result: dict[str, Any]) -> None:
    height, width = result["size"]
    table = Table(title=f"{result['model']} Difix, {height}x{width}, {result['device']}")
    for column in ("", "refs", "ms", "first s", "GB", "TFLOP", "of matmul"):
        table.add_column(column, justify="right")
    for row in result["runs"]:
        cells = (row["path"], str(row["references"]), f"{row['milliseconds']:.1f}", f"{row['first_call_seconds']:.1f}")
        rest = (f"{row['gigabytes']:.2f}", f"{row['teraflop']:.3g}", f"{row['share_of_matmul_rate']:.0%}")
        table.add_row(*cells, *rest)
    Console().print(table)
    for which, parts in result["flops"].items():
        Console().print(f"TFLOP ({which}):", ", ".join(f"{k} {v / 1e12:.3g}" for k, v in parts.items()))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
