"""What fixing only some frames of a path, and mixing in the last one, does: to held-out photos, and in motion.

    python benchmarks/plus_quality.py outputs/plain/fern outputs/plain/fox --all outputs/all/fern outputs/all/fox

The runs are plain ones. A held-out camera is met in the middle of a path from the photo before it to the one after it,
at the pace of a path of 120 frames around the scene; where each fourth frame is fixed, the photos are met in turn 0, 1,
2 and 3 frames behind a key frame. Two fixers: difix-mini; and, with `--all`, one that nearly knows the truth, without
trust: a run of the same scene that was trained on all photos, with noise that is drawn anew for each frame (deviation
0.03, in cells of 4 pixels), as a generative model decides anew. Steadiness is the warp error of 24 frames of the path
around the scene.

Writes benchmarks/results/plus_quality.json and prints a table.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from machine import device_name
from plus import WAYS
from rich.console import Console
from rich.table import Table
from torch import Tensor

from difix3d.difix.load import load_fixer
from difix3d.evaluate import steadiness
from difix3d.gaussians import read_ply, transform
from difix3d.geometry.poses import interpolate, pose_distance
from difix3d.images import to_uint8
from difix3d.metrics import LPIPS, psnr
from difix3d.postrender import PostRender
from difix3d.scene import Views
from difix3d.scene.paths import natural_path, path_cameras
from difix3d.training.load import TrainedRun, load_run
from difix3d.types import Cameras, Degraded, Fixer

EVERY, BEFORE = WAYS["every 4"]["every"], 4
FRAMES = 24
NOISE, CELL = 0.03, 4


@dataclass(frozen=True)
class Options:
    """What to measure."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of plain runs."""
    all: tuple[Path, ...] = ()
    """For each of them a run that was trained on all photos (`--split none`)."""
    photos: int = 5
    """Held-out ones of each run, at most: evenly spread."""
    threads: int = 1
    """Of the CPU."""
    json: Path = Path("benchmarks/results/plus_quality.json")


class Remembering:
    """Fixes each frame once: the ways to fix a path share most of theirs."""

    def __init__(self, fixer: Fixer):
        self.fixer = fixer
        self.known: dict[bytes, Tensor] = {}

    def __call__(self, degraded: Iterable[Degraded]) -> Iterator[Tensor]:
        for item in degraded:
            pose = item.camera.c2w.numpy().tobytes()
            if pose not in self.known:
                self.known[pose] = next(iter(self.fixer([item])))
            yield self.known[pose]


class NearlyTrue:
    """Shows what a model sees that knows all photos, with other noise in each frame."""

    def __init__(self, run: TrainedRun, truth: Path):
        self.run = replace(run, gaussians=transform(read_ply(truth / "point_cloud.ply"), run.scene.from_input))
        self.draw = torch.Generator().manual_seed(0)

    def __call__(self, degraded: Iterable[Degraded]) -> Iterator[Tensor]:
        for item in degraded:
            picture = self.run.render(item.camera).rgb[0]
            height, width = picture.shape[:2]
            noise = torch.randn(-(-height // CELL), -(-width // CELL), 3, generator=self.draw)
            noise = noise.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)[:height, :width]
            yield (picture + NOISE * noise).clamp(0, 1)


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    lpips = LPIPS()
    rows: list[dict[str, Any]] = []
    for place in options.runs:
        run = load_run(place, device="cpu")
        truths = [folder for folder in options.all if folder.name == place.name]
        mini = load_fixer("mini", torch.device("cpu"))
        assert mini is not None
        fixers: dict[str, Fixer] = {"mini": mini}
        if truths:
            fixers["nearly true"] = NearlyTrue(run, truths[0])
        for name, fixer in fixers.items():
            remembering = Remembering(fixer)
            for trust in (True, False) if name == "mini" else (False,):
                start = time.process_time()
                found = measure(run, remembering, trust, lpips, options.photos)
                rows += [{"scene": run.scene.name, "fixer": name, "trust": trust} | row for row in found]
                print(run.scene.name, name, trust, f"{time.process_time() - start:.0f} s", flush=True)
        result = {"date": date.today().isoformat(), "device": device_name("cpu"), "frames": FRAMES, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    show(result)


@torch.no_grad()
def measure(run: TrainedRun, fixer: Fixer, trust: bool, lpips: LPIPS, photos: int) -> list[dict[str, Any]]:
    """Rows of one run and fixer: the plain render, and each way to fix."""
    views = Views(run.scene, "cpu")
    post = PostRender(run.render, fixer, run.scene, views.__getitem__, trust=trust)
    around = path_cameras(natural_path(run.scene), run.scene, 120).cameras
    pace = float(pose_distance(around.c2w[:-1], around.c2w[1:]).mean())
    cameras = [around[i] for i in range(FRAMES)]
    ways: dict[str, Iterable[Tensor]] = {"render": (run.render(camera).rgb[0] for camera in cameras)}
    ways |= {way: post.stream(cameras, **how) for way, how in WAYS.items()}
    steady = {item.way: item for item in steadiness("", ways, run.render, cameras)}

    scores: dict[str, list[tuple[float, float]]] = {}
    test = run.scene.test.tolist()
    chosen = test[:: -(-len(test) // photos)]
    for phase, index in enumerate(chosen):
        photo = torch.from_numpy(to_uint8(views[index].image))
        way_there = passing(run.scene.cameras, index, pace)

        def score(way: str, picture: Tensor, photo: Tensor = photo) -> None:
            image = torch.from_numpy(to_uint8(picture))
            scores.setdefault(way, []).append((psnr(image, photo), lpips.score(image, photo)))

        score("render", run.render(run.scene.cameras[index]).rgb[0])
        for way, how in WAYS.items():
            before = BEFORE if how["mix"] else 0
            behind = phase % EVERY if "every" in how else 0
            frames = post.stream(way_there[BEFORE + EVERY - before - behind :], **how)
            score(way, next(frame for place, frame in enumerate(frames) if place == before + behind))
    return [
        {"way": way, "psnr": float(np.mean([p for p, _ in found])), "lpips": float(np.mean([q for _, q in found]))}
        | {"short": steady[way].short, "long": steady[way].long}
        for way, found in scores.items()
    ]


def passing(cameras: Cameras, index: int, pace: float) -> list[Cameras]:
    """A way through a camera: from the photo before it, to the one after it, at a pace; the camera is number 8."""
    here = cameras.c2w[index]
    last = len(cameras) - 1
    beside = {-1: cameras.c2w[index - 1 if index else 1], 1: cameras.c2w[index + 1 if index < last else last - 1]}
    poses = []
    for step in range(-BEFORE - EVERY, EVERY + 1):
        there = beside[-1 if step < 0 else 1]
        share = min(1.0, abs(step) * pace / float(pose_distance(here, there).clamp(min=1e-9)))
        poses.append(interpolate(here, there, share))
    return [replace(cameras[index], c2w=pose[None]) for pose in poses]


def show(result: dict[str, Any]) -> None:
    """Means over the scenes, and the scenes."""
    table = Table(title=f"Held-out photos and warp error x 1000, {result['device']}")
    for column in ("fixer", "scene", "trust", "way", "PSNR", "LPIPS", "warp, 1 apart", "4 apart"):
        table.add_column(column)
    rows = result["rows"]
    kinds = list(dict.fromkeys((row["fixer"], row["trust"], row["way"]) for row in rows))
    for fixer, trust, way in kinds:
        some = [row for row in rows if (row["fixer"], row["trust"], row["way"]) == (fixer, trust, way)]
        mean = {key: float(np.mean([row[key] for row in some])) for key in ("psnr", "lpips", "short", "long")}
        for row in [*some, {"scene": "mean"} | mean]:
            numbers = (
                f"{row['psnr']:.2f}",
                f"{row['lpips']:.3f}",
                f"{1e3 * row['short']:.2f}",
                f"{1e3 * row['long']:.2f}",
            )
            table.add_row(fixer, row["scene"], "yes" if trust else "no", way, *numbers)
    Console(width=120).print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
