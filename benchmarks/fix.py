"""Times Difix in several ways, with and without a reference, in one run; counts the FLOPs of its parts.

    python benchmarks/fix.py                  # on CUDA the full-size model at 576x1024, on a CPU the tiny one
    python benchmarks/fix.py --height 480 --width 640 --repeats 20

Weights are random, which changes neither time nor memory, so that nothing is downloaded. ``published`` is what the
published pipeline does in a call: the text encoder embeds the prompt, image and reference are both encoded and both
decoded, LoRA as separate layers. ``plain`` decodes the image alone and is given the prompt's embedding, ``fast`` is
``pipe.optimize()``, ``compiled`` the same with torch.compile. ``benchmarks/gpu_suite.py`` measures all of it on a GPU.
Writes JSON to benchmarks/results/ and prints a table.
"""

import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

import diffusers
import torch
import tyro
from machine import device_name
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from difix3d.difix.architecture import random_difix
from difix3d.difix.pipeline import DifixPipeline
from difix3d.difix.step import TIMESTEP, decode, denoise, encode

DATASHEET = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "RTX 4090": 165e12}  # dense bf16 FLOP/s
TEXT = {"num_attention_heads": 16, "num_hidden_layers": 23, "hidden_size": 1024, "intermediate_size": 4096}
TINY_TEXT = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}
Kind = tuple[int, int]
"""Images at a time, and references of each."""
SINGLE: tuple[Kind, ...] = ((1, 0), (1, 1))


class Settings(TypedDict):
    """Of :func:`measure`."""

    tiny: bool
    repeats: int
    flops: dict[str, float]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    height: int = 576 if torch.cuda.is_available() else 288
    width: int = 1024 if torch.cuda.is_available() else 512
    repeats: int = 20
    """Calls to take the median of."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    threads: int | None = None
    """Of the CPU; fewer than there are cores where these are shared."""
    output: Path = Path("benchmarks/results")


def main(options: Options) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    device, size = torch.device(options.device), (options.height, options.width)
    tiny = device.type == "cpu"
    flops = {"full, 576x1024": count_flops(False, 576, 1024), "as timed": count_flops(tiny, *size)}
    ways = [("plain", torch.float32), ("fast", torch.float32 if tiny else torch.bfloat16)]
    settings: Settings = {"tiny": tiny, "repeats": options.repeats, "flops": flops["as timed"]}
    rows = [row for way, dtype in ways for row in measure(way, dtype, SINGLE, size, device, **settings)]
    result = {
        "date": date.today().isoformat(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "model": "tiny" if tiny else "full",
        "size": size,
        "flops": flops,
        "runs": rows,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"fix_{device.type}.json").write_text(json.dumps(result, indent=1) + "\n")
    show(rows, f"{result['model']} Difix, {size[0]}x{size[1]}, {result['device']}")
    for which, parts in flops.items():
        Console().print(f"TFLOP ({which}):", ", ".join(f"{k} {v / 1e12:.3g}" for k, v in parts.items()))


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


def measure(
    way: str,
    dtype: torch.dtype,
    kinds: tuple[Kind, ...],
    size: tuple[int, int],
    device: torch.device,
    *,
    tiny: bool,
    repeats: int,
    flops: dict[str, float],
) -> Iterator[dict[str, Any]]:
    """A row for each kind of call; ``way`` is `published`, `plain`, `fast` or `compiled`."""
    pipe = random_difix(tiny, device, dtype)
    call: Callable[..., Tensor] = pipe.fix
    if way == "published":
        call = Published(pipe, tiny)
    elif way != "plain":
        pipe.optimize(dtype, compile=way == "compiled")
    peak = matmul_rate(device, dtype, 8192 if not tiny else 2048 if device.type == "cpu" else 256)
    on_sheet = next((value for key, value in DATASHEET.items() if key in device_name(device)), None)
    for batch, references in kinds:
        images = torch.rand(batch, 3, *size, device=device)
        photos = torch.rand(batch, references, 3, *size, device=device) if references else None
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        once = partial(call, images, photos)
        first = timed(device, once)
        for _ in range(2):  # CUDA graphs are recorded in the second call
            once()
        seconds = [timed(device, once) / batch for _ in range(repeats)]
        both = references and way == "published"
        work = flops["encode one view"] * (1 if way in ("fast", "compiled") else 1 + references)
        work += flops["decode"] * (2 if both else 1) + flops["unet, 2 views" if references else "unet, 1 view"]
        rate = work / median(seconds)
        yield {
            "path": f"{way} {str(dtype).removeprefix('torch.')}",
            "batch": batch,
            "references": references,
            "milliseconds": 1e3 * median(seconds),
            "fastest": 1e3 * min(seconds),
            "slowest": 1e3 * max(seconds),
            "first_call_seconds": first,
            "gigabytes": memory(device),
            "teraflop": work / 1e12,
            "share_of_matmul_rate": rate / peak,
            "share_of_datasheet_bf16": rate / on_sheet if on_sheet and dtype == torch.bfloat16 else None,
        }


class Published:
    """What the published pipeline computes in a call, with a random text encoder of its size."""

    def __init__(self, pipe: DifixPipeline, tiny: bool):
        self.pipe = pipe
        shape: dict[str, Any] = TINY_TEXT if tiny else TEXT
        with pipe.device:
            text: Any = CLIPTextModel(CLIPTextConfig(**shape, projection_dim=512, hidden_act="gelu"))
            self.text = text.to(pipe.dtype).eval()
            self.tokens = torch.randint(0, text.config.vocab_size - 2, (1, 77))
        self.alpha_bar = float(pipe.scheduler.alphas_cumprod[TIMESTEP])

    @torch.no_grad()
    def __call__(self, images: Tensor, references: Tensor | None) -> Tensor:
        """Fixed images, in 0..1."""
        vae, dtype = self.pipe.vae, self.pipe.dtype
        context = self.text(self.tokens)[0].expand(len(images), -1, -1)
        views = images[:, None] if references is None else torch.cat([images[:, None], references], 1)
        posterior, skips = vae.encode_with_skips(views.flatten(0, 1).to(dtype) * 2 - 1)
        latents = posterior.mode() * vae.config["scaling_factor"]
        clean = denoise(self.pipe.unet, latents.unflatten(0, views.shape[:2]), context, TIMESTEP, self.alpha_bar)
        decoded = decode(vae, clean.repeat_interleave(views.shape[1], 0), skips)
        return decoded[:: views.shape[1]].float().clamp(0, 1)


def matmul_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """FLOP/s of a large matrix product on this device: the peak that a program can reach."""
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


def show(rows: list[dict[str, Any]], title: str) -> None:
    """A table of rows of :func:`measure`."""
    table = Table(title=title)
    for column in ("", "batch", "refs", "ms a frame", "first s", "GB", "TFLOP", "of matmul"):
        table.add_column(column, justify="right")
    for row in rows:
        cells = (row["path"], str(row["batch"]), str(row["references"]), f"{row['milliseconds']:.1f}")
        rest = (f"{row['first_call_seconds']:.1f}", f"{row['gigabytes']:.2f}", f"{row['teraflop']:.3g}")
        table.add_row(*cells, *rest, f"{row['share_of_matmul_rate']:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
