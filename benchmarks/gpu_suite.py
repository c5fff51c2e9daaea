"""Measures all of the program on a GPU, in one command and at most nine minutes.

    python benchmarks/gpu_suite.py                        # everything
    python benchmarks/gpu_suite.py --parts training plus  # some of it

Parts: gsplat's kernels compiled; training steps beside gsplat's plain loop, with memory and the time to set values of
PSNR; a frame fixed in several ways beside the published one; frames a second of the "+"; where the time of a short
run goes; tests marked `gpu`; steps of Difix training; the compiled fixer. Nothing is downloaded: the scene is drawn,
the full-size Difix has random weights. A part that would pass the limit is left out, one that fails or does not end is
noted, and the others go on. Writes benchmarks/results/gpu_DEVICE.json.

Under a pretended device (tests/benchmark/test_gpu_suite.py) it runs to its end at tiny sizes; what it writes is marked,
is no figure of anything, and never goes into benchmarks/results.
"""

import gc
import json
import platform
import re
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from fix import show as show_fix
from gpu_parts import PARTS, TINY, Parts, Sizes
from machine import device_name
from rich.console import Console

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "gsplat", "diffusers", "transformers")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    parts: tuple[str, ...] = tuple(PARTS)
    """Which parts, in this order."""
    sizes: Literal["auto", "full", "tiny"] = "auto"
    """`auto`: tiny where the device is a pretended one."""
    minutes: float = 9
    """No part goes on after that."""
    output: Path = RESULTS
    """Folder of the JSON."""


class OutOfTime(Exception):
    """A part did not end within the limit."""


def main(options: Options) -> None:
    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device that torch can use (benchmarks/train_step.py and fix.py run on CPUs)")
    if unknown := set(options.parts) - set(PARTS):
        raise SystemExit(f"There is no part {', '.join(sorted(unknown))}. Parts are {', '.join(PARTS)}")
    device = device_name("cuda")
    pretended = device.startswith("Pretended")
    if pretended and options.output.resolve() == RESULTS.resolve():
        raise SystemExit("A pretended device has no results to keep. Give another --output")
    tiny = pretended if options.sizes == "auto" else options.sizes == "tiny"
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "device": device,
        "pretended": pretended,
        "sizes": "tiny" if tiny else "full",
        "gigabytes": torch.cuda.get_device_properties(0).total_memory / 1e9,
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda} | versions(),
        "parts": {},
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"gpu_{re.sub('[^a-z0-9]+', '_', device.lower())}.json"
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(TINY if tiny else Sizes(), Path(folder))
        for name, row in measure(options.parts, parts, 60 * options.minutes):
            result["parts"][name] = row
            path.write_text(json.dumps(result, indent=1) + "\n")  # at once: machines are taken away
    show(result, path)


def measure(names: tuple[str, ...], parts: Parts, limit: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs the parts one after the other, as far as the time goes: what each found, and how long it took."""
    start = time.monotonic()
    for name in names:
        expected, function = PARTS[name]
        left = limit - (time.monotonic() - start)
        if parts.sizes.tiny and name == "compiled":
            row = {"skipped": "compilation is not pretended, and takes minutes"}
        elif not parts.sizes.tiny and expected > left:
            row = {"skipped": f"{expected:.0f} s expected, {left:.0f} s left"}
        else:
            row = run(function, parts, left)
        Console(stderr=True).print(f"{name}: {row.get('skipped') or row.get('error') or 'done'}")
        yield name, row


def run(function: Callable[[Parts], dict[str, Any]], parts: Parts, seconds: float) -> dict[str, Any]:
    """What a part finds, or why it found nothing."""
    begun = time.monotonic()
    try:
        with limited(seconds):
            found = function(parts)
    except OutOfTime:
        found = {"error": f"did not end within {seconds:.0f} s"}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}", "where": traceback.format_exc(limit=-4)}
    gc.collect()
    torch.cuda.empty_cache()
    return found | {"took_seconds": round(time.monotonic() - begun, 1)}


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises :class:`OutOfTime` within, once the time is over."""

    def over(_number: int, _frame: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def versions() -> dict[str, str]:
    """Of the libraries that are there."""
    return {name: version(name) for name in LIBRARIES}


def show(result: dict[str, Any], path: Path) -> None:
    """What was found, in short."""
    console = Console()
    if result["pretended"]:
        console.print("THE DEVICE IS PRETENDED: none of these figures means anything")
    for name, row in result["parts"].items():
        found = {key: value for key, value in row.items() if key not in ("flops", "runs", "where")}
        if "runs" in row:
            show_fix(row["runs"], f"{name}, {result['device']}")
        console.print(f"[bold]{name}[/bold]", json.dumps(found, indent=1), markup=True, highlight=False)
    console.print(f"{path}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
