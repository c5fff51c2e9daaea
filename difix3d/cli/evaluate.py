"""``difix3d evaluate``: from trained runs to the table that papers print, and a report to look at."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from difix3d.background import COLORS, over
from difix3d.cli.arguments import from_command_line
from difix3d.cli.options import RunOptions
from difix3d.console import console, print_table, results, track
from difix3d.errors import UserError
from difix3d.evaluate import (
    ABLATION,
    METRICS,
    Name,
    Pictures,
    RunEvaluation,
    adopt,
    consistency,
    draw,
    fix_photos,
    measure,
    only_visible,
    table,
    write_evaluation,
)
from difix3d.evaluate.ablation import TITLES
from difix3d.evaluate.align import align, at_cameras, beside
from difix3d.evaluate.results import CORRECTED, SINGLE
from difix3d.evaluate.written import write_images, write_table
from difix3d.geometry.normalize import same_world
from difix3d.limits import Limits
from difix3d.report import write_report
from difix3d.scene import Views
from difix3d.scene.paths import natural_path, path_cameras
from difix3d.training.evaluation import shown, with_corrected
from difix3d.training.load import TrainedRun, as_exported
from difix3d.training.run import RunFolder
from difix3d.training.variants import choose_fixer, choose_rows, load_models
from difix3d.types import Cameras, RenderFn, View

Single = Literal["psnr", "ssim", "lpips-vgg", "lpips-alex"]
Corrected = Literal["cc-psnr", "cc-ssim", "cc-lpips-vgg", "cc-lpips-alex"]
Metrics = Single | Corrected | Literal["fid", "kid", "tsed", "warp"]
PHOTOS = 8
"""Photos, at most, that the fixer is given to see whether it leaves them alone."""


@dataclass(frozen=True)
class EvaluateConfig(RunOptions):
    """Measures trained runs on their held-out photos: metrics with confidence intervals, tables, a report.

    Each run gets evaluation.json, .csv (and evaluation_images.csv), .md, .tex, report.html and, in evaluation/,
    the pictures. Rows are those of the paper's ablation, as far as the run has them: plain 3DGS (a run without a fixer,
    or the one that --compare trained beside it), Difix on its renders, Difix3D, and Difix3D+ (Difix once more on every
    frame; keeping what photos agree with, or, as in the paper, not). Under the table stands what the fixer does to
    photos that need nothing.

    Examples:
      difix3d evaluate outputs/garden/2025-01-31_120000-123
      difix3d evaluate outputs/*/first --metrics psnr ssim lpips-alex --output tables
      difix3d evaluate outputs/demo/first --metrics psnr ssim tsed warp --frames 60
      difix3d evaluate outputs/demo/first --pictures theirs=../other/renders
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of the runs. Runs of one scene are averaged variant by variant (seeds), scenes over their means."""
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
    """`tsed`, `warp`: the camera path, as in difix3d render."""
    frames: Annotated[int, Limits(min=2)] = 30
    """`tsed`, `warp`: frames along the path."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder for the table of all runs: evaluation.csv, .md and .tex."""


def evaluate(args: Sequence[str] | None = None) -> None:
    """Runs the command."""
    config = from_command_line(EvaluateConfig, "evaluate", args)
    check(config)
    found = []
    for path in config.runs:
        found.append(evaluate_run(config, path))
        console.print(f"{path}: evaluation.json, report.html")
    total = table(found)
    if config.output is not None:
        write_table(total, config.output)
    print_table(total.rich())
    for note in total.notes:
        results.print(f"- {note}", style="dim")


def check(config: EvaluateConfig) -> None:
    """Refuses options that contradict each other."""
    if not config.runs:
        raise UserError(
            "No run is given", "", "Name the folders that training wrote: difix3d evaluate outputs/SCENE/RUN"
        )
    if len(config.runs) > 1 and (config.pictures or config.surface or config.scene):
        raise UserError(
            f"--pictures, --surface and --scene belong to one run, and {len(config.runs)} are given",
            cure="Evaluate that run alone",
        )
    for item in config.pictures:
        name, _, folder = item.partition("=")
        if not (name and folder and Path(folder).is_dir()) or name in TITLES:
            raise UserError(
                f"--pictures is {item!r}", "NAME=FOLDER is expected, with a new name and a folder that exists"
            )


def evaluate_run(config: EvaluateConfig, path: Path) -> RunEvaluation:
    """Draws, measures and reports all variants of one run."""
    models, left_out = load_models(path, config.load, config.step)
    run = list(models.values())[-1]  # its own; before it may stand the plain one, which knows no fixer
    device, scene = run.gaussians.device, run.scene
    fixer, why = choose_fixer(config.fixer, run)
    rows, reasons = choose_rows(models, fixer, config.variants, why)
    left_out = reasons | left_out
    split = shown(scene) if config.split == "auto" else config.split
    indices = getattr(scene, split)
    if len(indices) == 0:
        raise UserError(f"The scene of {path} has no {split} photos", "", "Choose another --split")
    if not (rows or config.pictures):
        raise UserError(f"{path} has none of the rows {', '.join(config.variants or ())}", " ".join(left_out.values()))
    views = Views(scene, device, memory_limit_bytes=int(run.config.memory_limit * 1e9))
    cameras = frames(config, run) if {"tsed", "warp"} & set(config.metrics) else []
    metrics = ["psnr", *(metric.replace("-", "_") for metric in config.metrics)]  # the report is sorted by it
    metrics = with_corrected(metrics, run.config.refine)

    background = run.config.shown_over(scene)

    def stream() -> Iterable[View]:
        return (over(view, COLORS[background]) for view in views.stream(indices.tolist()))

    variants = draw_rows(models, rows, path, lambda title: track(stream(), len(indices), f"render {title}"), left_out)
    for pictures, render in zip(variants, rows.values(), strict=True):
        pictures.sets.update(consistency(metrics, render, run.render, cameras, pictures.name))
    for item in config.pictures:
        title, _, folder = item.partition("=")
        variants.append(Pictures(title, path, f"evaluation/pictures {len(variants)}"))
        adopt(Path(folder), stream(), variants[-1], white=background == "white")

    def photos() -> Iterable[View]:
        shots = track(stream(), len(indices), "measure")
        if config.masked == "visible":
            return only_visible(shots, surface(config, run).render, scene.cameras[scene.train].to(device))
        return shots

    measured, reasons = measure(metrics, variants, photos(), device)
    if config.align_poses or run.config.refine.poses:
        single = [metric for metric in metrics if metric.removeprefix(CORRECTED) in SINGLE]
        aligned = draw_aligned(models, rows, path, stream, len(indices))
        others, _ = measure(single, aligned, photos(), device)
        measured = tuple(map(beside, measured, others)) + measured[len(others) :]
    kept: dict[str, float] = {}
    if fixer is not None and any(ABLATION[name].trust is not None for name in rows):
        some = indices[:: -(-len(indices) // PHOTOS)].tolist()
        kept = fix_photos(fixer, track(views.stream(some), len(some), "fix photos"), metrics, device)
    evaluation = RunEvaluation(
        scene=scene.name,
        split=split,
        step=run.step,
        seed=run.config.seed,
        device=device.type,
        fixer=config.fixer or run.config.fixer,
        mask=config.masked,
        variants=measured,
        left_out=left_out | reasons,
        fixed_photos=kept,
        background=background if scene.alpha else "",
    )
    write_evaluation(path, evaluation)
    write_table(table([evaluation]), path)
    write_images(evaluation, path / "evaluation_images.csv")
    plain = path / "plain"
    write_report(RunFolder(path, scene), RunFolder(plain, scene) if plain.is_dir() else None, evaluation)
    return evaluation


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
        if ABLATION[name].trust is None:
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


def frames(config: EvaluateConfig, run: TrainedRun) -> list[Cameras]:
    """The cameras of the path."""
    path = natural_path(run.scene) if config.path == "auto" else config.path
    cameras = path_cameras(path, run.scene, config.frames).cameras.to(run.gaussians.device)
    return [cameras[i] for i in range(len(cameras))]


def surface(config: EvaluateConfig, run: TrainedRun) -> TrainedRun:
    """The model whose depth says what training cameras see."""
    if config.surface is None:
        return run
    other = config.load(config.surface)
    if not same_world(other.scene.from_input, run.scene.from_input):
        raise UserError(
            f"{config.surface} has another world than the run",
            "The surface has to come from the same photos with the same cameras",
            "Train it on the same scene with --split none",
        )
    return other
