"""All rows of the ablation that a run has, drawn and measured beside each other: what ``difix3d evaluate`` shows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from torch import Tensor

from difix3d.background import COLORS, over
from difix3d.console import track
from difix3d.errors import UserError
from difix3d.evaluate import (
    ABLATION,
    METRICS,
    Name,
    Pictures,
    RunEvaluation,
    Steadiness,
    adopt,
    consistency,
    draw,
    fix_photos,
    measure,
    only_visible,
    seen_pixels,
    steadiness,
)
from difix3d.evaluate.align import align, at_cameras, beside
from difix3d.evaluate.results import CORRECTED, SINGLE
from difix3d.geometry.normalize import same_world
from difix3d.limits import Limits
from difix3d.postrender import PostRender
from difix3d.scene import Views
from difix3d.scene.paths import natural_path, path_cameras
from difix3d.training.evaluation import shown, with_corrected
from difix3d.training.load import TrainedRun, as_exported
from difix3d.training.variants import choose_fixer, choose_rows
from difix3d.types import Cameras, RenderFn, View

Single = Literal["psnr", "ssim", "lpips-vgg", "lpips-alex"]
Corrected = Literal["cc-psnr", "cc-ssim", "cc-lpips-vgg", "cc-lpips-alex"]
Metrics = Single | Corrected | Literal["fid", "kid", "tsed", "warp"]
WAYS: dict[str, dict[str, Any]] = {
    "fixed": {"mix": 0.0},
    "carried": {"every": 4, "mix": 0.0},
    "mixed": {"mix": 0.5},
}
"""Ways to fix the frames of a path: options of :meth:`difix3d.postrender.PostRender.stream`."""
PHOTOS = 8
"""Photos, at most, that the fixer is given to see whether it leaves them alone."""


@dataclass(frozen=True)
class MeasuringOptions:
    """What is measured of a run, and on which photos."""

    _: KW_ONLY
    variants: tuple[Name, ...] | None = None
    """Rows; default is all that a run has."""
    metrics: tuple[Metrics, ...] = ("psnr", "ssim", "lpips-vgg", "fid", "kid")
    """What to measure; `psnr` always is. `cc-...`: after an affine fit of the picture's colours to the photo's; of runs
    that refined exposure always beside the others. `tsed` and `warp` (consistency of adjacent frames) are of a camera
    path, the others of the photos."""
    split: Literal["auto", "test", "train"] = "auto"
    """Which photos: `auto` takes the held-out ones, or the training photos where none are held out."""
    masked: Literal["photo", "visible"] = "photo"
    """Pixels that count. `photo`: all but what the photos' masks leave out. `visible`: of them, only what training
    cameras see (Nerfbusters' protocol), by the depth of --surface."""
    surface: Path | None = None
    """`visible`: a run trained on all photos of the scene (--split none), whose depth says where the surfaces are;
    default is the model of the first row."""
    pictures: tuple[str, ...] = ()
    """Rows of other programs: NAME=FOLDER with a picture for each photo, called like it or in its order."""
    align_poses: bool = False
    """Also draw each photo from a pose that is aligned with the frozen model by the photo itself, and report these
    pictures' figures beside the raw ones, as `aligned-...`; always done for runs that refined poses."""
    path: str = "auto"
    """`tsed`, `warp`: the camera path, as in difix3d render. With a fixer, `warp` also compares plain renders with
    frames that are all fixed, carried (--every 4) and mixed (--mix 0.5), in the report and in a video."""
    frames: Annotated[int, Limits(min=2, max=100_000)] = 30
    """`tsed`, `warp`: frames along the path."""


def measure_run(
    options: MeasuringOptions,
    models: dict[Name, TrainedRun],
    left_out: dict[str, str],
    folder: Path,
    *,
    named: str | None = None,
    surface: TrainedRun | None = None,
) -> RunEvaluation:
    """Draws and measures all rows of one run.

    Args:
        options: what is asked for.
        models, left_out: of :func:`~difix3d.training.variants.load_models`.
        folder: the run's; the pictures go into ``evaluation/`` in it.
        named: the fixer that was asked for; by default the run's own.
        surface: the model whose depth says what training cameras see; by default the run's own.

    Raises:
        UserError: the run has nothing of what was asked for, or the fixer cannot be had.
    """
    run = list(models.values())[-1]  # its own; before it may stand the plain one, which knows no fixer
    device, scene = run.gaussians.device, run.scene
    fixer, why = choose_fixer(named, run)
    rows, reasons = choose_rows(models, fixer, options.variants, why)
    left_out = reasons | left_out
    split = shown(scene) if options.split == "auto" else options.split
    indices = getattr(scene, split)
    if surface is not None and not same_world(surface.scene.from_input, scene.from_input):
        raise UserError(
            f"{options.surface} has another world than the run",
            "The surface has to come from the same photos with the same cameras",
            "Train it on the same scene with --split none",
        )
    if len(indices) == 0:
        raise UserError(f"The scene of {folder} has no {split} photos", "", "Choose another --split")
    if not (rows or options.pictures):
        asked = ", ".join(options.variants or ())
        raise UserError(f"{folder} has none of the rows {asked}", " ".join(left_out.values()))
    views = Views(scene, device, memory_limit_bytes=int(run.config.memory_limit * 1e9))
    cameras = frames(options, run) if {"tsed", "warp"} & set(options.metrics) else []
    metrics = ["psnr", *(metric.replace("-", "_") for metric in options.metrics)]  # the report is sorted by it
    metrics = with_corrected(metrics, run.config.refine)

    background = run.config.shown_over(scene)

    def stream() -> Iterable[View]:
        return (over(view, COLORS[background]) for view in views.stream(indices.tolist()))

    variants = draw_rows(models, rows, folder, lambda title: track(stream(), len(indices), f"render {title}"), left_out)
    for pictures, render in zip(variants, rows.values(), strict=True):
        pictures.sets.update(consistency(metrics, render, run.render, cameras, pictures.name))
    steady = measure_steadiness(models, rows, cameras, folder) if "warp" in options.metrics else ()
    for item in options.pictures:
        title, _, theirs = item.partition("=")
        variants.append(Pictures(title, folder, f"evaluation/pictures {len(variants)}"))
        adopt(Path(theirs), stream(), variants[-1], white=background == "white")

    def photos() -> Iterable[View]:
        shots = track(stream(), len(indices), "measure")
        if options.masked == "visible":
            return only_visible(shots, (surface or run).render, scene.cameras[scene.train].to(device))
        return shots

    seen = None
    if split == "test" and options.masked == "photo":  # all that is visible is seen
        seen = seen_pixels((surface or run).render, scene.cameras[scene.train].to(device))
    measured, reasons = measure(metrics, variants, photos(), device, seen)
    if options.align_poses or run.config.refine.poses:
        single = [metric for metric in metrics if metric.removeprefix(CORRECTED) in SINGLE]
        aligned = draw_aligned(models, rows, folder, stream, len(indices))
        others, _ = measure(single, aligned, photos(), device)
        measured = tuple(map(beside, measured, others)) + measured[len(others) :]
    kept: dict[str, float] = {}
    if fixer is not None and any(ABLATION[name].trust is not None for name in rows):
        some = indices[:: -(-len(indices) // PHOTOS)].tolist()
        kept = fix_photos(fixer, track(views.stream(some), len(some), "fix photos"), metrics, device)
    return RunEvaluation(
        scene=scene.name,
        split=split,
        step=run.step,
        seed=run.config.seed,
        device=device.type,
        fixer=named or run.config.fixer,
        mask=options.masked,
        variants=measured,
        left_out=left_out | reasons,
        fixed_photos=kept,
        background=background if scene.alpha else "",
        given=str(run.config.init.ply or ""),
        steadiness=steady,
    )


def draw_rows(
    models: dict[Name, TrainedRun],
    rows: dict[Name, RenderFn],
    path: Path,
    photos: Callable[[str], Iterable[View]],
    left_out: dict[str, str],
) -> list[Pictures]:
    """Draws each row's pictures of the photos (by the row's title), those of plain renders also as exported."""
    drawn = []
    for name, render in rows.items():
        title, gaussians = ABLATION[name].title, len(models[ABLATION[name].model].gaussians)
        against = ABLATION[name].compared_with(rows)
        pictures = Pictures(title, path, f"evaluation/{name}", gaussians=gaussians, against=against)
        if ABLATION[name].trust is None and name != "given":  # which is as exported already
            own = path / "plain" if name == "3dgs" and len(models) > 1 else path
            pictures = draw_exported(models[name], own, photos(f"{title} as exported"), pictures, left_out)
        draw(render, photos(title), pictures)
        drawn.append(pictures)
    return drawn


def draw_exported(
    run: TrainedRun, folder: Path, views: Iterable[View], pictures: Pictures, left_out: dict[str, str]
) -> Pictures:
    """Draws the same views as other viewers show the run's ``point_cloud.ply``; says where they are, or why not."""
    try:
        exported = as_exported(run, folder)
    except UserError as error:
        left_out[f"{METRICS['psnr_ply'].title} of {pictures.name}"] = str(error)
        return pictures
    if exported is None:
        return pictures
    place = f"{pictures.place}.ply"
    draw(exported.render, views, replace(pictures, place=place, seconds={}))
    return replace(pictures, exported=place)


def draw_aligned(
    models: dict[Name, TrainedRun],
    rows: dict[Name, RenderFn],
    path: Path,
    photos: Callable[[], Iterable[View]],
    count: int,
) -> list[Pictures]:
    """Draws each row from poses that are aligned with its model."""
    cameras = {
        name: [align(model.render, view) for view in track(photos(), count, f"align poses with {ABLATION[name].title}")]
        for name, model in models.items()
        if any(ABLATION[row].model == name for row in rows)
    }
    drawn = []
    for name, render in rows.items():
        drawn.append(Pictures(ABLATION[name].title, path, f"evaluation/{name}.aligned"))
        draw(render, at_cameras(photos(), cameras[ABLATION[name].model]), drawn[-1])
    return drawn


def measure_steadiness(
    models: dict[Name, TrainedRun], rows: dict[Name, RenderFn], cameras: Sequence[Cameras], folder: Path
) -> tuple[Steadiness, ...]:
    """How steady each row with a fixer behind the renderer is, in each of the ways to fix a path, and their video."""
    found: list[Steadiness] = []
    for name, post in rows.items():
        if isinstance(post, PostRender):
            model = models[ABLATION[name].model].render
            ways: dict[str, Iterable[Tensor]] = {"render": (model(camera).rgb[0] for camera in cameras)}
            ways |= {way: post.stream(cameras, **how) for way, how in WAYS.items()}
            video = folder / "evaluation" / f"{name}.steadiness.mp4"
            found += steadiness(ABLATION[name].title, ways, model, cameras, video)
    return tuple(found)


def frames(options: MeasuringOptions, run: TrainedRun) -> list[Cameras]:
    """The cameras of the path."""
    path = natural_path(run.scene) if options.path == "auto" else options.path
    cameras = path_cameras(path, run.scene, options.frames).cameras.to(run.gaussians.device)
    return [cameras[i] for i in range(len(cameras))]
