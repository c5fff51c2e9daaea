"""``difix3d view``: a trained run, or any splat model, in the browser."""

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from difix3d.cli.arguments import from_command_line
from difix3d.cli.options import Address, RunOptions
from difix3d.console import console
from difix3d.devices import choose_device
from difix3d.gaussians import is_splat_file
from difix3d.gaussians.nerfstudio import is_nerfstudio_run
from difix3d.training.splatfile import results_folder
from difix3d.training.variants import choose_fixer


@dataclass(frozen=True)
class ViewConfig(RunOptions, Address):
    """Shows a trained run, or any splat model, in the browser.

    Examples:
      difix3d view outputs/demo/2025-01-31_120000-123
      difix3d view outputs/demo/first --fixer nvidia/difix_ref
      difix3d view point_cloud.ply
      difix3d view point_cloud.ply --scene path/to/capture
    """

    model: tyro.conf.Positional[Path]
    """Folder of the run, or a splat file: .ply (3DGS, or packed by SuperSplat), .splat or .spz. Without its
    --scene a file has no photos, and so no fixer. Or the config.yml of a Splatfacto run of nerfstudio."""


def view(args: Sequence[str] | None = None) -> None:
    """Runs the command, until Ctrl-C."""
    viewer = open_viewer(from_command_line(ViewConfig, "view", args))
    console.print(f"viewer: {viewer.url} (Ctrl-C ends it)")
    with closing(viewer), suppress(KeyboardInterrupt):
        viewer.wait()


def open_viewer(config: ViewConfig) -> Any:
    """Loads what is to be shown, and serves it: a :class:`difix3d.viewer.Viewer`."""
    from difix3d.viewer import Monitor, Viewer, model_of_ply, model_of_run  # refuses the viser beside nerfstudio

    if is_splat_file(config.model) and config.scene is None and not is_nerfstudio_run(config.model):
        viewer_model = model_of_ply(config.model, choose_device(config.device))
        return Viewer(viewer_model, host=config.host, port=config.port, origins=config.allow_origin)
    run = config.load(config.model, config.step)
    fixer, why = choose_fixer(config.fixer, run)
    if fixer is None and not why:
        why = (
            "There is no fixer: this run was trained with `--fixer none`"
            if config.fixer is None
            else "There is no fixer"
        )
    folder = results_folder(config.model)
    viewer_model = model_of_run(run, folder, fixer, why)
    monitor = Monitor.of_run(folder, run.scene)
    return Viewer(viewer_model, monitor, host=config.host, port=config.port, origins=config.allow_origin)
