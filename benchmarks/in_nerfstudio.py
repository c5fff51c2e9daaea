"""What rounds of novel views are worth inside nerfstudio: its two methods, plainly and with a fixer that is perfect.

Trains on the extrapolating split of each scene, three times from the same seed: without novel views (``plain``), with
photos in place of fixed renders (``oracle``), and with a fixer (``mini``), whose novel cameras go toward the held-out
ones. The oracle knows only the photos that ``split.json`` calls unused, and its novel cameras are at these at once.
Scores are means over the eval views of 8-bit renders, without and with the "+". Started again, it goes on with what is
missing in the file. Needs docs/nerfstudio.md's environment; Nerfacto is a small one.

    python benchmarks/in_nerfstudio.py --scenes path/to/fern path/to/fox --seeds 0 1 2
"""

import copy
import json
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from machine import device_name
from plyfile import PlyData, PlyElement
from rich.console import Console
from rich.table import Table
from torch import Tensor

from difix3d.files import write_json
from difix3d.geometry.poses import FROM_OPENGL
from difix3d.images import to_uint8, write_image
from difix3d.integrations.nerfstudio.cpu import adapt
from difix3d.metrics import LPIPS, psnr, ssim
from difix3d.scene import Views, load_scene
from difix3d.scene.pathfile import CameraPath, write_path
from difix3d.types import Degraded, Scene

METRICS = {"psnr": 2, "ssim": 3, "lpips": 3}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NERFACTO, SPLATFACTO = "difix3d", "difix3d-splatfacto"


@dataclass(frozen=True)
class Options:
    """Scenes, and trainings of each."""

    scenes: tuple[str, ...]
    """Folders with a split.json that has unused photos."""
    methods: tuple[str, ...] = (SPLATFACTO, NERFACTO)
    """Of nerfstudio."""
    trainings: tuple[str, ...] = ("plain", "oracle", "mini")
    """Which trainings."""
    seeds: tuple[int, ...] = (0,)
    """Of the trainings."""
    steps: int = 1000
    """Iterations of each training."""
    resolution: int = 120
    """Long side of the photos."""
    output: Path = Path("outputs/in_nerfstudio")
    """Where the runs go."""
    json: Path = Path("benchmarks/results/in_nerfstudio.json")
    """Results are added to this file."""


def write_data(scene: Scene, unused: list[int], folder: Path) -> None:
    """A scene as nerfstudio reads it, in the scene's normalised world; the unused cameras as a path."""
    views = Views(scene)
    used = [*scene.train.tolist(), *scene.test.tolist()]
    names = [f"images/{index:03d}.png" for index in used]
    frames = []
    for index, name in zip(used, names, strict=True):
        camera = scene.cameras[index]
        K, (width, height) = camera.K[0].tolist(), camera.size
        pose = (camera.c2w[0].double().numpy() @ FROM_OPENGL).tolist()
        lens = {"fl_x": K[0][0], "fl_y": K[1][1], "cx": K[0][2], "cy": K[1][2], "w": width, "h": height}
        write_image(folder / name, views[index].image)
        frames.append({"file_path": name, "transform_matrix": pose} | lens)
    train, held_out = names[: len(scene.train)], names[len(scene.train) :]
    split = {"train_filenames": train, "val_filenames": held_out, "test_filenames": held_out}
    points = {"ply_file_path": "points.ply"}
    write_json(folder / "transforms.json", {"camera_model": "OPENCV", "frames": frames} | split | points)
    kinds = [(axis, "f4") for axis in "xyz"] + [(color, "u1") for color in ("red", "green", "blue")]
    table = np.zeros(len(scene.points), kinds)
    for column, (name, _) in enumerate(kinds):
        table[name] = scene.points[:, column] if column < 3 else scene.colors[:, column - 3]
    PlyData([PlyElement.describe(table, "vertex")]).write(str(folder / "points.ply"))
    # nerfstudio reads the file above, whose world is that of the scene
    write_path(CameraPath(scene.cameras[unused], 24.0), folder / "unused.json", replace(scene, from_input=np.eye(4)))


def configuration(options: Options, method: str, training: str, seed: int, data: Path) -> Any:
    """nerfstudio's, of one training."""
    from difix3d.integrations.nerfstudio import methods  # once nerfstudio is adapted

    config = copy.deepcopy({NERFACTO: methods.difix3d, SPLATFACTO: methods.difix3d_splatfacto}[method].config)
    pipeline, model, manager = config.pipeline, config.pipeline.model, config.pipeline.datamanager
    if method == NERFACTO:
        model.implementation, model.num_levels, model.max_res, model.log2_hashmap_size = "torch", 8, 256, 15
        model.num_proposal_samples_per_ray, model.num_nerf_samples_per_ray = (64, 32), 24
        model.hidden_dim = model.hidden_dim_color = 32
        model.average_init_density, model.use_appearance_embedding = 0.1, False  # else so few steps make fog
        model.camera_optimizer.mode = "off"  # these poses are exact
        manager.train_num_rays_per_batch = manager.eval_num_rays_per_batch = 1024
    else:
        model.num_downscales, model.warmup_length = 0, options.steps // 4
    config.data = manager.data = data
    config.output_dir, config.experiment_name, config.timestamp = options.output, data.name, f"{training}_{seed}"
    config.machine.device_type = DEVICE
    config.machine.seed, config.vis, config.logging.local_writer.enable = seed, "tensorboard", False
    config.max_num_iterations = config.steps_per_save = options.steps
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 10 * options.steps
    pipeline.fixer = "mini"
    distill = replace(pipeline.distill, mode="once") if method == NERFACTO else pipeline.distill  # rounds take minutes
    if training == "plain":
        pipeline.distill = replace(distill, mode="off")
    elif training == "oracle":  # there are photos at the targets only, not on the way
        pipeline.distill = replace(distill, targets=str(data / "unused.json"), step_size=1e3)
    else:
        pipeline.distill = distill
    return config


class Oracle:
    """A fixer that answers with the photos that were taken at its cameras."""

    def __init__(self, targets: Any, photos: list[Tensor]):
        self.targets = targets.c2w.cpu()
        self.photos = photos

    def __call__(self, degraded: Iterable[Degraded]) -> Iterator[Tensor]:
        for item in degraded:
            distances = (self.targets - item.camera.c2w.cpu()).abs().amax((1, 2))
            assert float(distances.min()) < 1e-4, "the oracle has no photo of this camera"
            yield self.photos[int(distances.argmin())].to(item.rgb.device)


def measure(options: Options, source: str, method: str, training: str, seed: int) -> list[dict[str, Any]]:
    """One training, and what its eval views look like."""
    scene = load_scene(source, resolution=options.resolution)
    unused = np.setdiff1d(np.arange(len(scene.photos)), np.concatenate([scene.train, scene.test])).tolist()
    data = options.output / "data" / scene.name
    write_data(scene, unused, data)
    config = configuration(options, method, training, seed, data)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - nerfstudio draws by it
    torch.manual_seed(seed)
    start = time.perf_counter()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    pipeline = trainer.pipeline
    if training == "oracle":
        views, distiller = Views(scene), pipeline.rounds.distiller
        distiller.fixer = Oracle(distiller.targets, [views[index].image for index in unused])
    config.save_config()
    trainer.train()
    seconds = time.perf_counter() - start
    rounds = trainer.base_dir / "rounds.json"
    decisions = [row["decision"] for row in json.loads(rounds.read_text())] if rounds.is_file() else []
    facts = {"scene": scene.name, "method": method, "training": training, "seed": seed, "steps": options.steps}
    outputs = {"": "rgb"} if training == "oracle" else {"": "rgb", "+": "rgb_fixed"}
    return [
        facts
        | {"row": training + plus}
        | scores(pipeline, output, trainer.base_dir)
        | {"rounds": decisions, "seconds": round(seconds)}
        for plus, output in outputs.items()
    ]


def scores(pipeline: Any, output: str, folder: Path) -> dict[str, float]:
    """Means over the eval views of one of the model's outputs."""
    model, world = pipeline.model.eval(), pipeline.world
    functions = dict(zip(METRICS, (psnr, ssim, LPIPS("vgg").score), strict=True))
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for index in world.scene.test.tolist():
        camera = world.to_nerfstudio(world.scene.cameras[index].to(model.device))
        with torch.no_grad():
            picture = model.get_outputs_for_camera(camera)[output].cpu().clamp(0, 1)
        write_image(folder / output / f"{index:03d}.png", picture)
        image, photo = (torch.from_numpy(to_uint8(x)) for x in (picture, pipeline.photo(index).image.cpu()))
        for name, function in functions.items():
            found[name].append(function(image, photo))
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def main(options: Options) -> None:
    if DEVICE == "cpu":
        adapt()
    for seed, source, method, training in product(options.seeds, options.scenes, options.methods, options.trainings):
        rows, key = read(options.json), (Path(source).name, method, training, seed)
        if key in {(row["scene"], row["method"], row["training"], row["seed"]) for row in rows}:
            continue
        new = measure(options, source, method, training, seed)
        facts = {"date": date.today().isoformat(), "device": device_name(DEVICE), "torch": torch.__version__}
        write_json(options.json, facts | {"resolution": options.resolution, "rows": [*rows, *new]})
    show(read(options.json))


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []


def show(rows: list[dict[str, Any]]) -> None:
    """Means over the seeds, and what they are above the plain run of the same seed."""
    table = Table("scene", "method", "row", "seeds", *METRICS, "above plain, dB")
    plain = {(row["scene"], row["method"], row["seed"]): row["psnr"] for row in rows if row["row"] == "plain"}
    for kind in dict.fromkeys((row["scene"], row["method"], row["row"]) for row in rows):
        same = [row for row in rows if (row["scene"], row["method"], row["row"]) == kind]
        gains = [row["psnr"] - plain[(*kind[:2], row["seed"])] for row in same if (*kind[:2], row["seed"]) in plain]
        cells = [f"{np.mean([row[metric] for row in same]):.{digits}f}" for metric, digits in METRICS.items()]
        table.add_row(*kind, str(len(same)), *cells, ", ".join(f"{gain:+.2f}" for gain in gains))
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
