"""``difix3d fix``: cleans an image, a folder of images or a video with Difix."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from difix3d.cli.arguments import from_command_line
from difix3d.console import console, track
from difix3d.devices import Device, choose_device
from difix3d.difix.batch import beside, list_references, open_video, plan, readable, side_by_side
from difix3d.difix.original import read_original
from difix3d.errors import UserError
from difix3d.images import to_uint8, write_image
from difix3d.limits import Formerly, Limits
from difix3d.video import WRITTEN, video_writer

CHECKED = 8
"""Images at which frozen references are looked at."""
Fixer = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


@dataclass(frozen=True)
class FixConfig:
    """Cleans images with Difix; sizes and names stay, so do alpha, colour profile and EXIF. Photos come out upright.

    Examples:
      difix3d fix renders/ --ref photos/ --output clean/
      difix3d fix flight.mp4 --ref photo.jpg --compare
      difix3d fix renders/ --ref photos/ --check-frozen
    """

    input: tyro.conf.Positional[Path]
    """An image, a folder of images (with its subfolders), or a video (its sound is not kept, and sides become even)."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Where to; default is beside the input, with "_fixed" added to its name."""
    ref: Path | None = None
    """Reference photos: one image for all, or a folder that has one of the same name for each."""
    nearest: bool = False
    """Where the folder of references has none of the same name, take the nearest one (by the number in the name)."""
    fixer: Annotated[str, Formerly("weights")] = "auto"
    """Difix weights: a hub id, a folder, a .pkl checkpoint, or `mini` (small weights in the package, for CPUs).
    `auto`: nvidia/difix_ref with references and nvidia/difix without."""
    base: str = "stabilityai/sd-turbo"
    """What a .pkl checkpoint was trained from: hub id or folder."""
    anchor_colors: bool = True
    """Keep the input's brightness, contrast and tint: what the model repairs stays, what it fades does not. Without:
    as the model leaves them."""
    compare: bool = False
    """Also write input, reference and result side by side, into "..._compare"."""
    skip_bad: bool = False
    """Go on after images that cannot be read or have no reference; they are listed at the end."""
    prompt: str = "remove degradation"
    """What the text encoder reads; published weights are trained with this one."""
    timestep: Annotated[int, Limits(min=0, max=999)] = 199
    """How far from clean the images are taken to be, as a step of the diffusion; published weights are trained with
    199."""
    tile: Annotated[int | None, Limits(min=136, multiple=8)] = None
    """Largest side in pixels of the overlapping tiles in which larger images are fixed; less takes less memory, and has
    more seams. Default: 2048, and 1024 on a CPU, where it is several times quicker."""
    device: Device = "auto"
    """`auto`: CUDA if there is a GPU."""
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Number format of the model; `auto`: bf16 on a GPU (fp16 on one before Ampere) and fp32 elsewhere."""
    frozen: bool = False
    """References do not look at the image, so that their part is computed once: half of the UNet's work where many
    images have the same reference. Not the same images."""
    check_frozen: bool = False
    """Write nothing; say how much of the references' effect --frozen loses with these weights (at most 8 images)."""
    compile: bool = False
    """Compile the model: a minute or more at first, then faster; for many images of one size."""


def fix(args: Sequence[str] | None = None) -> None:
    """Runs the command."""
    config = from_command_line(FixConfig, "fix", args)
    if not config.input.exists():
        raise UserError(f"{config.input} does not exist", "", "Check the path of the input")
    if config.check_frozen:
        check_frozen(config)
        return
    start = time.perf_counter()
    output = config.output or config.input.with_name(f"{config.input.stem}_fixed{config.input.suffix}")
    if config.input.suffix.lower() in WRITTEN:
        count, skipped = fix_video(config, output)
    else:
        count, skipped = fix_images(config, output)
    console.print(f"fixed {count} images into {output} in {time.perf_counter() - start:.1f} s")
    if skipped:
        console.print(f"skipped {len(skipped)}:\n" + "\n".join(f"  {reason}" for reason in skipped))


def fix_images(config: FixConfig, output: Path) -> tuple[int, list[str]]:
    """Returns how many images were fixed, and why others were not. All are checked before the first is written."""
    jobs, skipped = plan(config.input, output, config.ref, nearest=config.nearest, skip_bad=config.skip_bad)
    good, unreadable = readable(jobs)
    if unreadable and not config.skip_bad:
        raise UserError(unreadable[0], f"{len(unreadable)} of {len(jobs)} images are bad", "Pass --skip-bad to go on")
    if not good:
        raise UserError(f"None of the {len(jobs)} images in {config.input} can be fixed: {unreadable[0]}")
    fixer = load(config)
    for job in track(good, len(good), "fixing"):
        original = read_original(job.source)
        reference = None if job.reference is None else read_original(job.reference).rgb
        fixed = fixer(original.rgb, reference)
        original.write(job.target, fixed)
        if config.compare:
            write_image(beside(job.target, output), side_by_side(original.rgb, reference, fixed))
    return len(good), skipped + unreadable


def check_frozen(config: FixConfig) -> None:
    """Says what frozen references cost, image by image."""
    from difix3d.difix.frozen import measure_lost
    from difix3d.difix.inputs import to_tensors
    from difix3d.difix.sizes import fit

    if config.ref is None or config.input.suffix.lower() in WRITTEN:
        raise UserError("--check-frozen is about images beside their references", "", "Pass images, and --ref PHOTOS")
    nowhere = config.input.with_name(f"{config.input.stem}_fixed{config.input.suffix}")
    jobs, _ = plan(config.input, nowhere, config.ref, nearest=config.nearest, skip_bad=config.skip_bad)
    pipe = load_pipeline(replace(config, frozen=False))
    lost = []
    for job in jobs[:: -(-len(jobs) // CHECKED)]:
        assert job.reference is not None
        image, reference = (to_tensors(read_original(path).rgb)[0] for path in (job.source, job.reference))
        found = measure_lost(pipe, image[None].to(pipe.device), fit(reference, *image.shape[1:])[None, None])
        console.print(
            f"{job.source.name}: the reference changes {255 * found.effect:.2f} of 255 levels, "
            f"frozen it is off by {255 * found.error:.2f} ({found.share:.0%})"
        )
        lost.append(found)
    effect, error = (sum(getattr(item, name) for item in lost) for name in ("effect", "error"))
    share = error / effect if effect else 0.0
    console.print(f"--frozen loses {share:.0%} of what references do (100% is as without any)")


def load_pipeline(config: FixConfig) -> Any:
    """The model, optimized for the one prompt."""
    from difix3d.difix import load_difix

    weights = config.fixer if config.fixer != "auto" else "nvidia/difix_ref" if config.ref else "nvidia/difix"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "auto": None}[config.dtype]
    pipe = load_difix(weights, choose_device(config.device), dtype, config.base)
    pipe.optimize(pipe.unet.dtype, config.compile, config.prompt, config.frozen)
    return pipe


def load(config: FixConfig) -> Fixer:
    """The model as a function that takes and returns bytes [H,W,3]."""
    from difix3d.difix.colors import anchor_colors
    from difix3d.difix.inputs import to_tensors

    pipe = load_pipeline(config)

    def fixer(image: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
        try:
            options: dict[str, Any] = {"timesteps": [config.timestep], "tile": config.tile, "return_dict": False}
            render = to_tensors(image)[0][None].to(pipe.device)
            fixed = pipe(config.prompt, render, reference, output_type="pt", **options)[0]
            return to_uint8((anchor_colors(fixed, render) if config.anchor_colors else fixed)[0].permute(1, 2, 0))
        except torch.cuda.OutOfMemoryError:
            height, width = image.shape[:2]
            raise UserError(
                f"The GPU's memory is too small for an image of {width}x{height} pixels", "", "Pass a smaller --tile"
            ) from None

    return fixer


def fix_video(config: FixConfig, output: Path) -> tuple[int, list[str]]:
    """Returns how many frames were fixed, and nothing skipped. The files appear when they are complete."""
    if output.suffix.lower() not in WRITTEN:
        output = output / config.input.name
    if output.resolve() == config.input.resolve():
        raise UserError(f"{output} is the input itself", "", "Choose another --output")
    references = [] if config.ref is None else [read_original(path).rgb for path in list_references(config.ref)]
    reader, count, fps = open_video(config.input)
    if len(references) not in (0, 1, count):
        raise UserError(
            f"{config.ref} holds {len(references)} references for {count} frames of {config.input}",
            "A video takes one reference, or one for each frame, in order",
        )
    fixer = load(config)
    with reader, video_writer(output, fps) as write, video_writer(beside(output, output), fps) as write_comparison:
        for i, frame in enumerate(track(reader, count, "fixing")):
            reference = references[i % len(references)] if references else None
            fixed = fixer(np.asarray(frame), reference)
            write(fixed)
            if config.compare:
                write_comparison(side_by_side(np.asarray(frame), reference, fixed))
    return count, []
