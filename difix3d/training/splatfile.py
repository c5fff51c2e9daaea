"""A splat file of any trainer together with the scene that it shows, as if it were a run."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from difix3d.background import COLORS, over
from difix3d.devices import choose_device
from difix3d.errors import UserError
from difix3d.evaluate import ABLATION
from difix3d.files import claim
from difix3d.gaussians import is_splat_file
from difix3d.gaussians.nerfstudio import checkpoint_of, is_nerfstudio_run, read_nerfstudio_run, settings_of
from difix3d.scene import Views
from difix3d.training.configfile import merge, read_yaml
from difix3d.training.data import check_world, initial_gaussians, near_plane, scene_of
from difix3d.training.load import TrainedRun, load_run
from difix3d.training.presets import find_config, from_preset, settle
from difix3d.training.run import RunFolder


def load_model(
    path: Path,
    *,
    step: int | None = None,
    scene: str | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
) -> TrainedRun:
    """The model of a run's folder, or of a splat file with the scene that it shows.

    Args:
        path: the folder, or the file; the ``config.yml`` or a checkpoint of a run of nerfstudio knows its scene.
        step: of a run's checkpoint; the newest by default.
        scene: of a file: the photos and cameras that it was made from. Of a run: where its scene lies now, if it has
            moved since.
        data_dir: where downloaded and generated scenes lie.
        device: ``auto``, ``cuda`` or ``cpu``.

    Raises:
        UserError: what :func:`load_run` and :func:`load_splat_file` raise.
    """
    if not is_splat_file(path):
        return load_run(path, step=step, scene=scene, data_dir=data_dir, device=device)
    if step is not None and is_nerfstudio_run(path):
        path = checkpoint_of(path, step)
    elif step is not None:
        raise UserError(f"--step is {step}, but {path} is a splat file", "It has no steps", "Leave out --step")
    if scene is None and not is_nerfstudio_run(path):
        raise UserError(
            f"{path} comes without photos and cameras",
            "A splat file holds none",
            "Add --scene with those that it was made from, or pass the folder of a run",
        )
    return load_splat_file(path, scene, data_dir=data_dir, device=device)


def load_splat_file(path: Path, scene: str | None, *, data_dir: Path | None = None, device: str = "auto") -> TrainedRun:
    """A splat file as a run before its first step, with the settings that a training on the scene would have.

    Args:
        path: the file.
        scene: as in training; of a run of nerfstudio, where its data lies now if it has moved.
        data_dir: where downloaded and generated scenes lie.
        device: ``auto``, ``cuda`` or ``cpu``.

    Raises:
        UserError: the file or the scene cannot be read, or they are not of one world.
    """
    theirs = read_nerfstudio_run(path) if is_nerfstudio_run(path) else None
    scene = str(theirs.capture) if scene is None and theirs else str(scene)
    place, named = choose_device(device), find_config(scene)
    values = read_yaml(named) if named else {}
    config = merge(from_preset(str(values.get("preset", "auto")), device), values, source=str(named))
    config = replace(config, init=replace(config.init, ply=path), scene=scene, max_steps=0, compare=False)
    if theirs:  # its cameras, whatever else lies in the folder: they tell which world the splats are in
        cameras = None if theirs.cameras is None else str(Path(scene) / theirs.cameras)
        config = replace(config, model=cameras, antialiased=theirs.antialiased)
    config = settle(replace(config, data_dir=data_dir or config.data_dir), place)
    loaded = scene_of(config)
    photos, shown_over = Views(loaded, place), COLORS[config.shown_over(loaded)]
    model = initial_gaussians(loaded, config).to(place)
    run = TrainedRun(config, loaded, model, 0, near_plane(loaded, config))
    check_world(path, loaded, partial(run.render, depth=False), lambda index: over(photos[index], shown_over))
    return run


def as_it_came(run: TrainedRun, folder: RunFolder) -> TrainedRun | None:
    """The splat file that a run began with; ``None`` if it began with points.

    Raises:
        UserError: the file is gone, or is another one now.
    """
    path = run.config.init.ply
    if path is None or run.step == 0:
        return None
    model = initial_gaussians(run.scene, run.config).to(run.gaussians.device)
    first = next((row for row in folder.rows("metrics.json") if row["step"] == 0), None)
    if first is not None and first["gaussians"] != len(model):
        fact = f"{path} has {len(model):,} Gaussians now, and had {first['gaussians']:,} when the run began"
        raise UserError(fact, f"{ABLATION['given'].title} would be another model")
    return replace(run, gaussians=model, step=0)


def results_folder(path: Path, output: Path | None = None) -> Path:
    """Where results go: a run's own folder; of a splat file one that is called like it, in ``output`` or beside it.

    Raises:
        UserError: there are files of somebody else in it.
    """
    if not is_splat_file(path):
        return path
    if is_nerfstudio_run(path):
        path = settings_of(path)
    folder = (output or path.parent) / path.stem
    claim(folder)
    return folder
