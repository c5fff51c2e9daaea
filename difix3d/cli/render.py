"""``difix3d render``: from a trained run and a camera path to frames and a video."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from jaxtyping import Float
from torch import Tensor

from difix3d.cli.arguments import from_command_line
from difix3d.cli.options import RunOptions
from difix3d.console import console, track
from difix3d.difix.load import fix_together, load_fixer
from difix3d.difix.sizes import usual_tile
from difix3d.errors import UserError
from difix3d.files import claim
from difix3d.images import to_uint8, write_image
from difix3d.limits import Limits
from difix3d.postrender import MOST_MIXED, PostRender
from difix3d.scene import Views
from difix3d.scene.pathfile import RATES, CameraPath, write_path
from difix3d.scene.paths import PATHS, fit, natural_path, path_cameras
from difix3d.training.load import TrainedRun
from difix3d.training.splatfile import results_folder
from difix3d.types import Cameras, Scene
from difix3d.video import video_writer

WORKERS = min(8, os.cpu_count() or 1)
"""Threads that encode and write frames while the next ones are rendered."""


@dataclass(frozen=True)
class RenderConfig(RunOptions):
    """Renders a trained run along a camera path, to PNG frames and an MP4.

    Examples:
      difix3d render outputs/demo/2025-01-31_120000-123
      difix3d render outputs/demo/first --path spiral --frames 240 --fps 30 --resolution 1280
      difix3d render outputs/demo/first --path camera_path.json --output flight --no-images
      difix3d render outputs/demo/first --plus
      difix3d render outputs/demo/first --plus --every 4 --no-trust --mix 0.5
      difix3d render splat.ply --scene path/to/capture --plus
    """

    run: tyro.conf.Positional[Path]
    """Folder of the run: what training was given as --output-dir, or named at its end. Or a splat file (.ply, .spz,
    .splat), with its --scene, or the config.yml of a Splatfacto run of nerfstudio."""
    path: str = "auto"
    """Where the camera goes: `ellipse` around what the training cameras look at; `spiral` within them, for captures
    from one side; `auto` is the one of these that fits; `interp` goes through the training cameras in the order of the
    photos; or a JSON file: nerfstudio's camera_path.json (with dataparser_transforms.json beside it), or one that this
    program wrote."""
    frames: Annotated[int | None, Limits(min=1, max=100_000)] = None
    """Number of frames of an ellipse, spiral or interp (default 120); a file has its own."""
    fps: Annotated[float | None, RATES] = None
    """Frames per second of the video; default 24, or what the file says."""
    width: Annotated[int | None, Limits(min=1, max=16_384)] = None
    """Width in pixels; alone, the height follows. Together with --height the vertical field of view is kept."""
    height: Annotated[int | None, Limits(min=1, max=16_384)] = None
    """Height in pixels; alone, the width follows. Default is the size of the training images, or what the file says."""
    resolution: Annotated[int | None, Limits(min=1, max=16_384)] = None
    """Long side in pixels, instead of --width and --height."""
    plus: bool = False
    """Clean each frame with the fixer, which looks at the nearest training photo (the "+" of Difix3D+)."""
    trust: bool = True
    """With --plus: keep rendered pixels that the photos agree with. --no-trust takes every fixed pixel, as the paper
    does."""
    every: Annotated[int, Limits(min=1, max=100)] = 1
    """With --plus: fix only each so many-th frame, and those at cuts, and carry what changed there to the frames
    between by the model's depth: about as many times quicker, and steadier, at a part of the gain in sharpness."""
    mix: Annotated[float | None, Limits(min=0, max=MOST_MIXED)] = None
    """With --plus: share of the change of the last fixed frame, carried along, in that of the next one. 0.5 takes away
    most of the flicker that fixing adds, and is the default with --no-trust; else it is 0."""
    frozen: bool = False
    """With --plus: references do not look at the frames, so that their part is computed once: half of the UNet's work.
    Not the same frames; `difix3d fix --check-frozen` says how much weights lose by it."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder for frames/00000.png ..., NAME.mp4 and the path as NAME.json; default is RUN/renders/NAME; of a
    splat file renders/NAME in a folder that is called like it, beside it."""
    images: bool = True
    """Write the frames."""
    video: bool = True
    """Write the video."""


def render(args: Sequence[str] | None = None) -> None:
    """Runs the command."""
    config = from_command_line(RenderConfig, "render", args)
    check(config)
    run = config.load(config.run, config.step)
    if config.path == "auto":
        config = replace(config, path=natural_path(run.scene))
    path = choose_path(config, run.scene)
    name = (config.path if config.path in PATHS else Path(config.path).stem) + ("_plus" if config.plus else "")
    output = config.output or results_folder(config.run) / "renders" / name
    images, video = output / "frames" if config.images else None, output / f"{name}.mp4" if config.video else None
    make(output)
    if images is not None and config.output is not None:
        claim(images)
    if config.path in PATHS:
        write_path(path, output / f"{name}.json", run.scene)

    made = fixed_frames(run, path.cameras, config) if config.plus else frames(run, path.cameras)
    start, count = time.perf_counter(), len(path.cameras)
    write(track(made, count, "rendering"), images, video, path.fps)
    each = (time.perf_counter() - start) / count
    sizes = sizes_of(path.cameras)
    size = " x ".join(map(str, sizes.pop())) if len(sizes) == 1 else f"{len(sizes)} sizes"
    console.print(f"rendered {count} frames of {size} at step {run.step:,}, {each * 1e3:.1f} ms per frame")
    for place in (images, video):
        if place is not None:
            console.print(f"  {place}")


def check(config: RenderConfig) -> None:
    """Refuses options that contradict each other."""
    if not (config.images or config.video):
        raise UserError("There is nothing to write", "--no-images and --no-video leave no result", "Leave one out")
    if config.frames is not None and config.path not in {"auto", *PATHS}:
        raise UserError(
            f"--frames is {config.frames}, but {config.path} has its own number of frames",
            f"--frames is for {', '.join(PATHS)}",
            "Leave it out",
        )
    if (config.every > 1 or config.mix or config.frozen) and not config.plus:
        raise UserError(
            "--every, --mix and --frozen are of the fixer behind the renderer", "It is off", "Pass --plus as well"
        )
    if config.resolution is not None and (config.width or config.height):
        raise UserError(
            "--resolution is given with --width or --height", "It is the long side", "Give one or the other"
        )


def make(folder: Path) -> None:
    """Makes the folder of the results, before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {folder} ({error.strerror})", "", "Choose another --output") from None


def choose_path(config: RenderConfig, scene: Scene) -> CameraPath:
    """The cameras that were asked for, at the size that was asked for."""
    path = path_cameras(config.path, scene, 120 if config.frames is None else config.frames)
    path = replace(path, cameras=sized(path.cameras, config), fps=config.fps or path.fps)
    sizes = len(sizes_of(path.cameras))
    if sizes > 1 and config.video:
        raise UserError(
            f"The cameras of {config.path} have {sizes} sizes", "A video has one", "Pass --resolution, or --no-video"
        )
    return path


def sizes_of(cameras: Cameras) -> set[tuple[int, int]]:
    """(width, height) of all pictures."""
    return set(zip(cameras.width.tolist(), cameras.height.tolist(), strict=True))


def sized(cameras: Cameras, config: RenderConfig) -> Cameras:
    """The cameras at the size that the options say; one that is left open follows from the shape of the first."""
    width, height = int(cameras.width[0]), int(cameras.height[0])
    if config.resolution is not None:
        scale = config.resolution / max(width, height)
    elif config.width is not None and config.height is not None:
        return fit(cameras, config.width, config.height)
    elif config.width is not None:
        scale = config.width / width
    elif config.height is not None:
        scale = config.height / height
    else:
        return cameras
    return fit(cameras, round(width * scale), round(height * scale))


def frames(run: TrainedRun, cameras: Cameras) -> Iterator[Float[Tensor, "H W 3"]]:
    """What each camera sees, one after the other."""
    for i in range(len(cameras)):
        yield run.render(cameras[i], depth=False).rgb[0]


def fixed_frames(run: TrainedRun, cameras: Cameras, config: RenderConfig) -> Iterator[Float[Tensor, "H W 3"]]:
    """The same through the fixer; its weights are loaded before the first frame is asked for."""
    name, device = config.fixer or run.config.fixer, run.gaussians.device
    options: dict[str, Any] = {"anchor_colors": run.config.anchor_colors, "frozen": config.frozen}
    fixer = load_fixer(name, device, run.config.distill.references, **options)
    if fixer is None:
        why = "the run was trained with --fixer none" if config.fixer is None else "--fixer is none"
        raise UserError(f"--plus needs Difix, and {why}", cure="Pass --fixer WEIGHTS")
    largest = int((cameras.width * cameras.height).max())
    fix_together(fixer, min(largest, usual_tile(device) ** 2), device)
    views = Views(run.scene, device)
    options = {"trust": config.trust, "confidence": run.config.distill.confidence}
    model = PostRender(run.render, fixer, run.scene, views.__getitem__, device=device, **options)
    chosen = (cameras[i] for i in range(len(cameras)))
    return model.stream(chosen, every=config.every, mix=config.mix)


def write(frames: Iterable[Float[Tensor, "H W 3"]], images: Path | None, video: Path | None, fps: float) -> None:
    """Writes ``images/00000.png`` ... and the video while the next frames are made; few wait in memory.

    Older frames in the folder are removed first, so that none is left behind a shorter path.
    """
    if images is not None:
        for old in images.glob("[0-9][0-9][0-9][0-9][0-9].png"):
            old.unlink()

    def save(number: int, frame: Tensor) -> np.ndarray:
        pixels = to_uint8(frame)
        if images is not None:
            write_image(images / f"{number:05d}.png", pixels)
        return pixels

    waiting: deque[Future] = deque()
    target = nullcontext(_ignore) if video is None else video_writer(video, fps)
    with target as append, ThreadPoolExecutor(WORKERS) as pool, ThreadPoolExecutor(1) as line:
        for number, frame in enumerate(frames):
            saved = pool.submit(save, number, frame)
            waiting.append(line.submit(lambda saved: append(saved.result()), saved))  # the video takes them in order
            if len(waiting) > 2 * WORKERS:
                waiting.popleft().result()
        for last in waiting:
            last.result()


def _ignore(pixels: np.ndarray) -> None:
    """Takes the place of a video that was not asked for."""
