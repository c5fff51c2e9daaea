"""How fast training is beside other programs: on quiet cores, and beside busy processes that this starts.

    python benchmarks/busy.py                           # about five minutes on two cores that nobody else uses
    python benchmarks/busy.py --other path/to/checkout  # also another version of the program, in the same run

Each figure is the median of several runs of `difix3d train`, taken in turns. Writes benchmarks/results/busy.json and
prints a table. `one thread` is what a busy core can least do without; `passive` is OMP_WAIT_POLICY=PASSIVE.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
import tyro
from machine import device_name
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scene: str = "synthetic:5"
    """As in training."""
    steps: int = 400
    """Steps of each training."""
    rounds: int = 2
    """Trainings of each kind."""
    busy: tuple[int, ...] = (1, 3)
    """Numbers of busy processes, beside none."""
    other: Path | None = None
    """Another checkout of this repository, to compare with."""
    output: Path = Path("benchmarks/results")
    """Where the JSON goes."""


def main(options: Options) -> None:
    here = Path(__file__).resolve().parents[1]
    ways = {
        "default": (here, {}),
        "passive": (here, {"OMP_WAIT_POLICY": "PASSIVE"}),
        "one thread": (here, {"OMP_NUM_THREADS": "1"}),
    }
    if options.other is not None:
        ways["other"] = (options.other.resolve(), {})
    with tempfile.TemporaryDirectory() as folder:
        data = {root: Path(folder, f"data{i}") for i, root in enumerate({root for root, _ in ways.values()})}
        for root in data:  # what is made once is made now: the scene, the compiled library
            train(options, root, data[root], {}, steps=1)
        rates: dict[int, dict[str, list[float]]] = {}
        for count in (0, *options.busy):
            rates[count] = {way: [] for way in ways}
            with busy_processes(count):
                for _ in range(options.rounds):
                    for way, (root, settings) in ways.items():
                        rates[count][way].append(train(options, root, data[root], settings, steps=options.steps))

    medians = {count: {way: statistics.median(runs) for way, runs in row.items()} for count, row in rates.items()}
    ratios = {
        count: {f"default / {way}": row["default"] / row[way] for way in row if way != "default"}
        for count, row in medians.items()
    }
    show(medians, ratios)
    result = {
        "date": date.today().isoformat(),
        "device": device_name("cpu"),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "scene": options.scene,
        "steps": options.steps,
        "steps_per_second": rates,
        "ratios": ratios,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "busy.json").write_text(json.dumps(result, indent=1) + "\n")


def train(options: Options, root: Path, data: Path, settings: dict[str, str], *, steps: int) -> float:
    """Steps a second of a training in a process of its own, without the time it takes to begin and to evaluate."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}
    environment |= {"PYTHONPATH": str(root)} | settings
    command = [sys.executable, "-m", "difix3d.cli", "train", "--scene", options.scene, "--fixer", "none"]
    with tempfile.TemporaryDirectory(dir=data.parent) as run:
        command += ["--data-dir", str(data), "--max-steps", str(steps), "--output-dir", str(Path(run, "run"))]
        process = subprocess.run(command, env=environment, cwd=run, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(process.stderr)
    return float(re.findall(r"([\d.]+) it/s", process.stderr)[-1])


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Within, so many processes of this machine compute without a pause."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def show(medians: dict[int, dict[str, float]], ratios: dict[int, dict[str, float]]) -> None:
    table = Table(title="training steps a second")
    columns = [*medians[0], *ratios[0]]
    for column in ("busy processes", *columns):
        table.add_column(column, justify="right")
    for count, row in medians.items():
        values = [*(f"{rate:.1f}" for rate in row.values()), *(f"{ratio:.2f}" for ratio in ratios[count].values())]
        table.add_row(str(count), *values)
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
