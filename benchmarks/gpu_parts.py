"""The parts of ``gpu_suite.py``: each measures one thing and returns a dictionary for its JSON."""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from drawn import drawn_scene
from fix import SINGLE, Kind, Settings, count_flops
from fix import measure as measure_fix
from learning import both

from difix3d.difix import DifixFixer
from difix3d.difix.architecture import random_difix
from difix3d.difix_training import trainer as difix_trainer
from difix3d.difix_training.config import DifixLossConfig, TrainDifixConfig
from difix3d.gaussians import from_points, random_points
from difix3d.images import to_uint8
from difix3d.postrender import PostRender
from difix3d.render import rasterize
from difix3d.scene import Views
from difix3d.scene.paths import path_cameras
from difix3d.training import TrainConfig, Trainer
from difix3d.training.densify import Densifier
from difix3d.training.events import Event, RoundDone, Started
from difix3d.types import Scene

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Sizes:
    """How much each part does."""

    size: tuple[int, int] = (576, 1024)
    """Height and width of all pictures."""
    photos: int = 32
    truth: int = 200_000
    """Gaussians that the photos show."""
    counts: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Gaussians that are trained."""
    seconds: float = 8
    """Of each training."""
    steps: int = 3000
    """Of each training, at most."""
    batches: tuple[int, ...] = (2, 4, 8)
    """Frames that are fixed at a time, beside one."""
    repeats: int = 10
    frames: int = 40
    """Of the "+"."""
    run_steps: int = 1200
    """Of the whole run."""
    difix_steps: int = 6
    tiny: bool = False
    """The tiny Difix, and of the tests one file."""


TINY = Sizes((32, 40), 10, 300, (100, 200), 1, 4, (2,), 1, 3, 16, 1, True)


class Parts:
    """What is measured, on one scene that is drawn first.

    Args:
        sizes: how much.
        folder: for what is written on the way.
    """

    def __init__(self, sizes: Sizes, folder: Path):
        self.sizes = sizes
        self.folder = folder
        self.device = torch.device("cuda")

    @cached_property
    def scene(self) -> Scene:
        (self.folder / "photos").mkdir()
        height, width = self.sizes.size
        options = {"photos": self.sizes.photos, "gaussians": self.sizes.truth}
        return drawn_scene(self.folder / "photos", self.device, width=width, height=height, **options)

    def kernels(self) -> dict[str, Any]:
        """The first use of gsplat, which compiles it if it never was; and the drawing of the scene."""
        start = time.perf_counter()
        count = len(self.scene.photos)
        return {"seconds": time.perf_counter() - start, "photos": count}

    def training(self) -> dict[str, Any]:
        """Our step beside gsplat's plain loop, at several numbers of Gaussians."""
        rows = []
        for count in self.sizes.counts:
            points = random_points(count, self.scene.extent, seed=0)
            first = from_points(*points, scale=0.7).to(self.device)
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                rows.append(both(self.scene, first, Path(folder), self.sizes.seconds, self.sizes.steps))
            torch.cuda.empty_cache()
        return {"by_gaussians": rows}

    def fixing(self) -> dict[str, Any]:
        """Milliseconds a frame: fast at several batches, plain, and as published in fp16 and fp32."""
        several: tuple[Kind, ...] = tuple((batch, 1) for batch in self.sizes.batches)
        bf16, fp16 = self._half(torch.bfloat16), self._half(torch.float16)
        ways = [("fast", bf16, SINGLE + several), ("plain", bf16, SINGLE), ("published", fp16, SINGLE)]
        return self._fix([*ways, ("published", torch.float32, SINGLE)])

    def compiled(self) -> dict[str, Any]:
        """The compiled fast path; each kind of call is compiled anew."""
        return self._fix([("compiled", torch.bfloat16, ((1, 1), (1, 0)))])

    def _half(self, dtype: torch.dtype) -> torch.dtype:
        return (
            torch.float32 if self.sizes.tiny else dtype
        )  # 16 bits are slow on a CPU, which computes for a pretended GPU

    def _fix(self, ways: list[tuple[str, torch.dtype, tuple[Kind, ...]]]) -> dict[str, Any]:
        sizes, runs = self.sizes, []
        flops = count_flops(sizes.tiny, *sizes.size)
        for way, dtype, kinds in ways:
            options: Settings = {"tiny": sizes.tiny, "repeats": sizes.repeats, "flops": flops}
            runs += measure_fix(way, dtype, kinds, sizes.size, self.device, **options)
            torch.cuda.empty_cache()
        return {"flops": flops, "runs": runs}

    def fixer(self) -> DifixFixer:
        dtype = self._half(torch.bfloat16)
        pipe = random_difix(self.sizes.tiny, self.device, dtype)
        return DifixFixer(pipe.optimize(dtype, compile=False), self.device)

    def plus(self) -> dict[str, Any]:
        """Frames a second from camera to bytes in host memory, with trust, through the photos, four frames each."""
        scene = self.scene
        model = from_points(scene.points, scene.colors, opacity=0.9).to(self.device)
        views = Views(scene, self.device, cache=False)
        after = PostRender(partial(rasterize, model), self.fixer(), scene, views.__getitem__, device=self.device)
        torch.cuda.reset_peak_memory_stats()
        path = path_cameras("interp", scene, 4 * len(scene.photos)).cameras
        cameras = [path[i] for i in range(min(self.sizes.frames, len(path)))]
        times = [time.perf_counter()]
        for frame in after.stream(cameras):
            to_uint8(frame)
            times.append(time.perf_counter())
        apart = [end - start for start, end in pairwise(times[1:])]  # the first waits for the calibration
        return {
            "frames_per_second": 1 / (sum(apart) / len(apart)),
            "milliseconds": {"median": 1e3 * median(apart), "least": 1e3 * min(apart), "most": 1e3 * max(apart)},
            "gigabytes": torch.cuda.max_memory_allocated() / 1e9,
        }

    def run(self) -> dict[str, Any]:
        """A short training with one round: where its time goes."""
        sizes, seconds = self.sizes, {"densification": 0.0}
        start = time.perf_counter()
        config = TrainConfig(output_dir=self.folder / "run", max_steps=sizes.run_steps, eval_steps=(), save_steps=())
        densify = replace(config.densify, start=sizes.run_steps // 10, every=max(1, sizes.run_steps // 12))
        distill = replace(config.distill, mode="once", pilot_steps=0)  # random weights would not get a round
        events: list[tuple[float, Event]] = []

        def listen(event: Event) -> None:
            events.append((time.perf_counter(), event))

        apply = Densifier._apply

        def timed(*args: Any, **options: Any) -> None:
            torch.cuda.synchronize()
            begun = time.perf_counter()
            apply(*args, **options)
            torch.cuda.synchronize()
            seconds["densification"] += time.perf_counter() - begun

        config = replace(config, densify=densify, distill=distill, plus=False)
        trainer = Trainer(config, self.scene, [listen], self.fixer())
        with mock.patch.object(Densifier, "_apply", timed):
            trainer.train()
        seconds["loading"] = next(at for at, event in events if isinstance(event, Started)) - start
        seconds["whole"] = time.perf_counter() - start
        rounds = [event.seconds for _, event in events if isinstance(event, RoundDone)]
        for phase in rounds[0] if rounds else ():
            seconds[f"round: {phase}"] = sum(row[phase] for row in rounds)
        return {"steps": sizes.run_steps, "gaussians": len(trainer.gaussians), "seconds": seconds}

    def difix_training(self) -> dict[str, Any]:
        """Steps a second of training Difix, with the L2 term alone, as the others need weights of VGG-16."""
        count = self.sizes.difix_steps
        pair = {"image": str(self.scene.photos[0].path), "target_image": str(self.scene.photos[1].path)}
        data = self.folder / "pairs.json"
        data.write_text(json.dumps({"train": {"0": pair | {"ref_image": pair["target_image"]}}, "test": {}}))
        options: dict[str, Any] = {"data": data, "output_dir": self.folder / "difix", "resolution": self.sizes.size}
        loss = DifixLossConfig(lpips=0, gram=0)
        precision: Any = "fp32" if self.sizes.tiny else "bf16"
        config = TrainDifixConfig(
            **options, precision=precision, steps=count + 2, loss=loss, tracker="none", eval_every=0, workers=2
        )
        torch.cuda.reset_peak_memory_stats()
        with mock.patch.object(difix_trainer, "start_pipeline", return_value=random_difix(self.sizes.tiny)):
            trainer = difix_trainer.DifixTrainer(config)
        batches = trainer.batches()
        times = []
        for step in range(count + 1):  # the first does not count
            batch = [next(batches)]
            torch.cuda.synchronize()
            begun = time.perf_counter()
            trainer.step(batch, step)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begun)
        batches.close()
        spread = {"median": median(times[1:]), "least": min(times[1:]), "most": max(times[1:])}
        return {"seconds_a_step": spread, "gigabytes": torch.cuda.max_memory_allocated() / 1e9}

    def tests(self, timeout: float = 150) -> dict[str, Any]:
        """The tests marked `gpu`, in a process of their own: how many pass, and which do not."""
        if importlib.util.find_spec("pytest") is None:
            return {"skipped": "pytest is not installed (pip install -e .[test])"}
        report, pretend = self.folder / "tests.xml", getattr(sys.modules.get("pretend_cuda"), "__file__", None)
        python = [sys.executable, *([str(pretend)] if pretend else [])]
        where = "tests/render/test_cuda.py" if self.sizes.tiny else "tests"
        command = [*python, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}", where]
        subprocess.run(command, cwd=ROOT, capture_output=True, timeout=timeout, check=False)
        cases = list(ElementTree.parse(report).iter("testcase"))
        failed = [f"{case.get('classname')}::{case.get('name')}" for case in cases if has(case, "failure", "error")]
        skipped = sum(has(case, "skipped") for case in cases)
        return {"passed": len(cases) - skipped - len(failed), "skipped": skipped, "failed": failed}


def has(case: ElementTree.Element, *tags: str) -> bool:
    return any(case.find(tag) is not None for tag in tags)


PARTS: dict[str, tuple[float, Callable[[Parts], dict[str, Any]]]] = {
    "kernels": (100, Parts.kernels),
    "training": (70, Parts.training),
    "fixing": (50, Parts.fixing),
    "plus": (20, Parts.plus),
    "run": (30, Parts.run),
    "tests": (100, Parts.tests),
    "difix_training": (25, Parts.difix_training),
    "compiled": (90, Parts.compiled),
}
"""In the order in which they run, with the seconds that each is expected to take (an H200 took no more; the kernels'
are for a first use, and those compiled were never measured): a part that would pass the limit is left out."""
