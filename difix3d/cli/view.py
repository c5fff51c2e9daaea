"""``difix3d view``: a trained run, or any splat model, in the browser."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from difix3d.cli.arguments import from_command_line
from difix3d.cli.options import RunOptions
from difix3d.console import console
from difix3d.devices import choose_device
from difix3d.gaussians import is_splat_file
from difix3d.limits import Limits
from difix3d.training.variants import choose_fixer
from difix3d.viewer import Monitor, Viewer, model_of_ply, model_of_run


@dataclass(frozen=True)
class ViewConfig(RunOptions):
    """Shows a trained run, or any splat model, in the browser.

    Examples:
      difix3d view outputs/demo/2025-01-31_120000
      difix3d view outputs/demo/first --fixer nvidia/difix_ref
      difix3d view point_cloud.ply
    """

    model: tyro.conf.Positional[Path]
    """Folder of the run, or a splat file: .ply (3DGS, or packed by SuperSplat), .splat or .spz. A file comes without
    photos, and so without the fixer."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own lets everyone in who can reach it: there are no
    passwords, and a visitor can write files into the run's folder."""
    port: Annotated[int, Limits(min=0, max=65_535)] = 8080
    """Port to listen on; the next free one is taken if it is not, and any that is free for 0."""


def view(args: Sequence[str] | None = None) -> None:
    """Runs the command, until Ctrl-C."""
    viewer = open_viewer(from_command_line(ViewConfig, "view", args))
    console.print(f"viewer: {viewer.url} (Ctrl-C ends it)")
    try:
        viewer.wait()
    except KeyboardInterrupt:
        viewer.close()


def open_viewer(config: ViewConfig) -> Viewer:
    """Loads what is to be shown, and serves it."""
    if is_splat_file(config.model):
        return Viewer(model_of_ply(config.model, choose_device(config.device)), host=config.host, port=config.port)
    run = config.load(config.model, config.step)
    fixer, why = choose_fixer(config.fixer, run)
    if fixer is None and not why:
        why = (
            "There is no fixer: this run was trained with `--fixer none`"
            if config.fixer is None
            else "There is no fixer"
        )
    viewer_model = model_of_run(run, config.model, fixer, why)
    return Viewer(viewer_model, Monitor.of_run(config.model, run.scene), host=config.host, port=config.port)
