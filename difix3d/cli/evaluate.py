"""``difix3d evaluate``: from trained runs to the table that papers print, and a report to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from difix3d.cli.arguments import from_command_line
from difix3d.cli.options import RunOptions
from difix3d.console import console, print_table, results
from difix3d.errors import UserError
from difix3d.evaluate import RunEvaluation, table, write_evaluation
from difix3d.evaluate.ablation import TITLES
from difix3d.evaluate.written import write_images, write_table
from difix3d.report import write_report
from difix3d.training.measuring import MeasuringOptions, measure_run
from difix3d.training.run import RunFolder
from difix3d.training.splatfile import results_folder
from difix3d.training.variants import load_models
from difix3d.types import Scene


@dataclass(frozen=True)
class EvaluateConfig(MeasuringOptions, RunOptions):
    """Measures trained runs on their held-out photos: metrics with confidence intervals, tables, a report.

    Each run gets evaluation.json, .csv (and evaluation_images.csv), .md, .tex, report.html and, in evaluation/,
    the pictures. Rows are those of the paper's ablation, as far as the run has them: plain 3DGS (a run without a fixer,
    or the one that --compare trained beside it), Difix on its renders, Difix3D, and Difix3D+ (Difix once more on every
    frame; keeping what photos agree with, or, as in the paper, not). Under the table stands what the fixer does to
    photos that need nothing. A splat file that training began with, or that is given with its --scene, is `As it came`.

    Examples:
      difix3d evaluate outputs/garden/2025-01-31_120000-123
      difix3d evaluate outputs/*/first --metrics psnr ssim lpips-alex --output tables
      difix3d evaluate outputs/demo/first --metrics psnr ssim tsed warp --frames 60
      difix3d evaluate outputs/demo/first --pictures theirs=../other/renders
      difix3d evaluate splat.ply --scene path/to/capture
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of the runs, or a splat file with its --scene, or the config.yml of a Splatfacto run of nerfstudio. Runs
    of one scene are averaged variant by variant (seeds), scenes over their means."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder for the table of all runs: evaluation.csv, .md and .tex; of a splat file also for all else, in a folder
    called like the file, which is otherwise beside it."""


def evaluate(args: Sequence[str] | None = None) -> None:
    """Runs the command."""
    config = from_command_line(EvaluateConfig, "evaluate", args)
    check(config)
    found = []
    for path in config.runs:
        models, left_out = load_models(path, config.load, config.step)
        surface = None if config.surface is None else config.load(config.surface)
        folder = results_folder(path, config.output)
        found.append(measure_run(config, models, left_out, folder, named=config.fixer, surface=surface))
        write_results(folder, found[-1], next(iter(models.values())).scene)
        console.print(f"{folder}: evaluation.json, report.html")
    total = table(found)
    if config.output is not None:
        write_table(total, config.output)
    print_table(total.rich())
    for note in total.notes:
        results.print(f"- {note}", style="dim")


def write_results(folder: Path, evaluation: RunEvaluation, scene: Scene) -> None:
    """Writes what one run's folder gets."""
    write_evaluation(folder, evaluation)
    write_table(table([evaluation]), folder)
    write_images(evaluation, folder / "evaluation_images.csv")
    plain = folder / "plain"
    write_report(RunFolder(folder, scene), RunFolder(plain, scene) if plain.is_dir() else None, evaluation)


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
